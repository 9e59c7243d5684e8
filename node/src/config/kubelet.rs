//! How nodes' kubelets are reached: `api.kubelet_*`.

use nautilus_rest::{KubeletSettings, KubeletTrust};

use super::error::ConfigError;

/// Kinds of addresses that a Node can have.
const ADDRESS_TYPES: [&str; 5] = [
    "InternalIP",
    "ExternalIP",
    "Hostname",
    "InternalDNS",
    "ExternalDNS",
];
/// Means the quorum's own authority.
const QUORUM: &str = "quorum";

pub(super) fn kubelets(
    authority: Option<&str>,
    types: Option<Vec<String>>,
) -> Result<KubeletSettings, ConfigError> {
    const AUTHORITY: &str = "api.kubelet_certificate_authority";
    let mut settings = KubeletSettings::default();
    if let Some(types) = types.filter(|types| !types.is_empty()) {
        let unknown = types
            .iter()
            .find(|kind| !ADDRESS_TYPES.contains(&kind.as_str()));
        if let Some(unknown) = unknown {
            return Err(ConfigError::invalid(
                "api.kubelet_preferred_address_types",
                unknown,
                "no kind of address",
                "write InternalIP, ExternalIP, Hostname, InternalDNS, ExternalDNS in the order wanted",
            ));
        }
        settings.preferred_address_types = types;
    }
    settings.trust = match authority {
        None => KubeletTrust::Anybody,
        Some(QUORUM) => KubeletTrust::Quorum,
        Some(path) => {
            let remedy = "write \"quorum\", or the name of a PEM file of certificates";
            let pem = std::fs::read_to_string(path).map_err(|error| {
                ConfigError::invalid(AUTHORITY, path, error.to_string(), remedy)
            })?;
            nautilus_rest::check_kubelet_bundle(&pem)
                .map_err(|why| ConfigError::invalid(AUTHORITY, path, why, remedy))?;
            KubeletTrust::Bundle(pem)
        }
    };
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelets_are_reached_as_it_is_said() {
        let none = kubelets(None, None).unwrap();
        assert_eq!(none.trust, KubeletTrust::Anybody);
        assert_eq!(none.preferred_address_types[0], "InternalIP");
        let said = kubelets(Some("quorum"), Some(vec!["Hostname".into()])).unwrap();
        assert_eq!(said.trust, KubeletTrust::Quorum);
        assert_eq!(said.preferred_address_types, ["Hostname"]);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let refused = kubelets(None, Some(vec!["Planet".into()])).unwrap_err();
        assert!(refused.to_string().contains("Planet"), "{refused}");
        let refused = kubelets(Some("/does/not/exist"), None).unwrap_err();
        assert!(refused.to_string().contains("/does/not/exist"), "{refused}");
    }
}
