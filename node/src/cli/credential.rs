//! `nautilus credential`: kubectl's credential plugin.
//!
//! kubectl runs it and reads an `ExecCredential` from its output. The quorum's members
//! are asked for evidence first; only then is a certificate of an hour got with the
//! operator's key. Kept is the certificate, not the key: a copy of the kept file is
//! worth nothing.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use aws_lc_rs::digest::{SHA256, digest};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::{Global, print};
use crate::attested::{Address, Judge, JudgeArgs, Outcome, survey};
use crate::config::parse_duration;
use crate::credentials::{self, CredentialError};
use crate::data_dir::write_durably;
use crate::exit::Failure;

/// Examples of `--help`.
pub(super) const EXAMPLES: &str = "\
kubectl runs this; `nautilus kubeconfig --exec` writes the kubeconfig that says so. A certificate
is kept until a fifth of its time is left, and renewed only from a quorum none of whose members is
refused.

Examples:
  nautilus credential --dir q
  nautilus credential --server https://10.0.0.1:6443 --key operator.key --measurement snp:8f3a..";

/// What kubectl speaks.
const API_VERSION: &str = "client.authentication.k8s.io/v1";

/// `nautilus credential`.
#[derive(Args)]
pub(crate) struct CredentialArgs {
    /// The operator's private key, pinned at genesis [default: DIR/operator.key]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// How long a certificate is valid, at least a minute
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = validity)]
    validity: Duration,
    /// Keep certificates in this folder, made if absent [default: the user's cache]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    #[command(flatten)]
    judge: JudgeArgs,
}

fn validity(text: &str) -> Result<Duration, String> {
    let validity = parse_duration(text).ok_or("write a duration such as 1h or 30m")?;
    if validity < Duration::from_secs(60) {
        return Err("a certificate is valid for a minute at least".to_owned());
    }
    Ok(validity)
}

/// A kept certificate. It holds no secret; the file is its owner's alone all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// The certificate, PEM.
    certificate: String,
    /// When it ends, in seconds since the epoch.
    expires_at_s: i64,
    /// When another has to be got, in seconds since the epoch.
    renew_at_s: i64,
}

/// Prints the credential, kept or new.
pub(super) async fn run(global: &Global, arguments: CredentialArgs) -> anyhow::Result<()> {
    let layout = global.layout()?;
    let local = layout.load()?;
    let server = match (global.server(), &local) {
        (Some(server), _) => server.to_owned(),
        (None, Some(quorum)) => quorum.server(),
        (None, None) => {
            return Err(Failure::Usage.error("pass --server, or --dir of a quorum's folder"));
        }
    };
    let key_path = arguments.key.unwrap_or_else(|| layout.operator_key());
    let key_pem = read_key(&key_path)?;
    let file = match arguments.cache.or_else(default_cache) {
        Some(folder) => Some(folder.join(file_name(&server, &key_pem, &arguments.judge)?)),
        None => None,
    };
    let now_s = now_s();
    let kept = match file.as_deref().and_then(read) {
        Some(kept) if kept.renew_at_s > now_s => kept,
        _ => {
            let judge = arguments
                .judge
                .judge(&layout.simulated_root_key(), local.is_some())?;
            let kept = obtain(&server, &key_pem, &judge, arguments.validity).await?;
            if let Some(file) = &file {
                keep(file, &kept).with_context(|| file.display().to_string())?;
            }
            kept
        }
    };
    print(&exec_credential(&kept, &key_pem)?);
    Ok(())
}

/// The operator's key.
pub(crate) fn read_key(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "can't read the operator's key {}; name it with --key",
            path.display()
        )
    })?;
    Ok(Zeroizing::new(text))
}

async fn obtain(
    server: &str,
    key_pem: &str,
    judge: &Judge,
    validity: Duration,
) -> anyhow::Result<Kept> {
    let address: Address = server
        .parse()
        .map_err(|reason: String| Failure::Usage.error(format!("--server: {reason}")))?;
    let survey = survey(&address, judge).await;
    let refused = survey
        .members
        .iter()
        .find(|m| m.outcome == Outcome::Refused);
    if let Some(refused) = refused {
        return Err(Failure::Refused.error(format!(
            "{} is not accepted, no credential was asked for: {}; see `nautilus attest verify {address}`",
            refused.address,
            refused.reason.as_deref().unwrap_or("no reason")
        )));
    }
    let granted = credentials::request(server, key_pem, judge, Some(validity))
        .await
        .map_err(CredentialError::into_failure)?;
    let left = granted.expires_at_s.saturating_sub(now_s());
    Ok(Kept {
        certificate: granted.certificate_pem,
        expires_at_s: granted.expires_at_s,
        renew_at_s: granted.expires_at_s - left / 5,
    })
}

fn exec_credential(kept: &Kept, key_pem: &str) -> anyhow::Result<Zeroizing<String>> {
    // kubectl asks again at this time; before the certificate's end, so that no request
    // goes out with one that ends on the way.
    let expires = jiff::Timestamp::from_second(kept.renew_at_s)?;
    let mut text = Zeroizing::new(String::with_capacity(
        kept.certificate.len() + 2 * key_pem.len() + 256,
    ));
    let quoted = Zeroizing::new(serde_json::to_string(key_pem)?);
    // Written by hand around the key, so that no copy of it stays behind in a value.
    text.push_str(&format!(
        "{{\"apiVersion\":{},\"kind\":\"ExecCredential\",\"status\":{{\"expirationTimestamp\":{},\
         \"clientCertificateData\":{},\"clientKeyData\":",
        json!(API_VERSION),
        json!(expires.to_string()),
        json!(kept.certificate),
    ));
    text.push_str(&quoted);
    text.push_str("}}");
    Ok(text)
}

/// One file per quorum, key and rules: other rules need evidence judged by them.
fn file_name(server: &str, key_pem: &str, judge: &JudgeArgs) -> anyhow::Result<String> {
    let key = rcgen::KeyPair::from_pem(key_pem)
        .context("the operator's key is not a PEM private key (PKCS#8)")?;
    let about = format!("{server}\n{}\n{judge:?}", key.public_key_pem());
    let digest = hex::encode(digest(&SHA256, about.as_bytes()));
    Ok(format!("{}.json", &digest[..32]))
}

/// `$XDG_CACHE_HOME/nautilus`, or `~/.cache/nautilus`; `None` for a user without a home.
fn default_cache() -> Option<PathBuf> {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    named("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| named("HOME").map(|home| Path::new(&home).join(".cache")))
        .map(|cache| cache.join("nautilus"))
}

/// What is kept, unless others can write it or it makes no sense.
fn read(file: &Path) -> Option<Kept> {
    let metadata = std::fs::metadata(file).ok()?;
    if metadata.mode() & 0o077 != 0 {
        return None;
    }
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

fn keep(file: &Path, kept: &Kept) -> anyhow::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    Ok(write_durably(file, &serde_json::to_vec(kept)?, 0o600)?)
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn kept() -> Kept {
        Kept {
            certificate: "CERT\n".to_owned(),
            expires_at_s: 1_790_003_600,
            renew_at_s: 1_790_002_880,
        }
    }

    #[test]
    fn the_credential_is_what_kubectl_reads() {
        let text = exec_credential(&kept(), "KEY\n\"").expect("made");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            value,
            json!({
                "apiVersion": "client.authentication.k8s.io/v1",
                "kind": "ExecCredential",
                "status": {
                    "expirationTimestamp": "2026-09-21T15:01:20Z",
                    "clientCertificateData": "CERT\n",
                    "clientKeyData": "KEY\n\"",
                },
            })
        );
    }

    #[test]
    fn what_is_kept_is_its_owners_alone_and_without_the_key() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("cache").join("a.json");
        keep(&file, &kept()).expect("written");
        assert_eq!(read(&file), Some(kept()));
        let mode = |path: &Path| std::fs::metadata(path).expect("there").mode() & 0o777;
        assert_eq!(mode(&file), 0o600);
        assert_eq!(mode(file.parent().expect("a folder")), 0o700);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("set");
        assert_eq!(read(&file), None, "others could have written it");
    }
}
