//! `[attestation.endorsements]`, checked.

use std::path::PathBuf;

use super::{ConfigError, EndorsementSettings};

/// Where vendors' word on their platforms comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Endorsements {
    /// Files that stand in while the quorum has none.
    pub(crate) directory: Option<PathBuf>,
    /// Without a slash at its end.
    pub(crate) amd_kds: Option<String>,
    /// Without a slash at its end.
    pub(crate) intel_pcs: Option<String>,
}

/// Checks the section.
pub(super) fn endorsements(settings: EndorsementSettings) -> Result<Endorsements, ConfigError> {
    const DIRECTORY: &str = "attestation.endorsements.directory";
    let directory = settings.directory.map(|path| {
        if path.is_dir() {
            return Ok(path);
        }
        Err(ConfigError::invalid(
            DIRECTORY,
            path.display(),
            "no such directory",
            "make it with `nautilus attest collateral import --into DIR FILE`",
        ))
    });
    let base = |key, url: Option<String>| url.map(|url| base(key, url)).transpose();
    Ok(Endorsements {
        directory: directory.transpose()?,
        amd_kds: base("attestation.endorsements.amd_kds", settings.amd_kds)?,
        intel_pcs: base("attestation.endorsements.intel_pcs", settings.intel_pcs)?,
    })
}

fn base(key: &'static str, url: String) -> Result<String, ConfigError> {
    let uri: Result<http::Uri, _> = url.parse();
    let fits = uri.is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some()
            && uri.query().is_none()
    });
    if fits {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    Err(ConfigError::invalid(
        key,
        url,
        "not an http(s) URL",
        "write the service's address, as in https://kdsintf.amd.com",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_address_is_kept_without_its_last_slash() {
        let settings = EndorsementSettings {
            amd_kds: Some("http://10.0.0.1:8080/kds/".to_owned()),
            ..EndorsementSettings::default()
        };
        let found = endorsements(settings).expect("fits");
        assert_eq!(found.amd_kds.as_deref(), Some("http://10.0.0.1:8080/kds"));
    }

    #[test]
    fn what_is_no_address_or_directory_is_named() {
        for (settings, said) in [
            (
                EndorsementSettings {
                    intel_pcs: Some("10.0.0.1".to_owned()),
                    ..EndorsementSettings::default()
                },
                "attestation.endorsements.intel_pcs",
            ),
            (
                EndorsementSettings {
                    directory: Some("/nowhere/at/all".into()),
                    ..EndorsementSettings::default()
                },
                "attestation.endorsements.directory",
            ),
        ] {
            let error = endorsements(settings).expect_err("refused").to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
