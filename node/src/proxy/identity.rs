//! Whose certificate the plain endpoint adds.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::balancer::Balancer;
use super::trust::Trust;
use crate::credentials::{self, CredentialError};
use crate::exit::one_line;
use crate::kubeconfig::Kubeconfig;

/// How long a certificate that the proxy gets is valid.
const VALIDITY: Duration = Duration::from_secs(3600);
/// It is renewed after so long.
const RENEW_AFTER: Duration = Duration::from_secs(48 * 60);
/// Pause before a certificate is asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// Who the proxy's clients are to the quorum.
pub(crate) enum Who {
    /// Nobody: what workers need, who have tokens of their own.
    Anonymous,
    /// The user of a kubeconfig.
    Kubeconfig(PathBuf),
    /// An operator: certificates of an hour, got with this key (PEM).
    Operator(Zeroizing<String>),
}

/// The certificate at hand.
pub(super) struct Identity {
    /// Gives it to TLS; `None` for nobody.
    pub(super) resolver: Option<Arc<Held>>,
    /// Renews it.
    pub(super) renewing: Option<JoinHandle<()>>,
}

/// Makes the identity; an operator's certificate comes once a node is accepted.
pub(super) fn start(
    who: Who,
    trust: Arc<Trust>,
    balancer: Arc<Balancer>,
) -> anyhow::Result<Identity> {
    let held = Arc::new(Held::default());
    match who {
        Who::Anonymous => Ok(Identity {
            resolver: None,
            renewing: None,
        }),
        Who::Kubeconfig(path) => {
            let kubeconfig = Kubeconfig::read(&path)?;
            let key = certified(&kubeconfig.certificate_pem, &kubeconfig.key_pem)
                .with_context(|| format!("kubeconfig {}", path.display()))?;
            held.set(key);
            Ok(Identity {
                resolver: Some(held),
                renewing: None,
            })
        }
        Who::Operator(key_pem) => {
            // A key that is none is the caller's mistake, not a reason to try again.
            credentials::certificate_request(&key_pem)?;
            let renewing = tokio::spawn(renew(Arc::clone(&held), key_pem, trust, balancer));
            Ok(Identity {
                resolver: Some(held),
                renewing: Some(renewing),
            })
        }
    }
}

async fn renew(
    held: Arc<Held>,
    key_pem: Zeroizing<String>,
    trust: Arc<Trust>,
    balancer: Arc<Balancer>,
) {
    let mut last = String::new();
    loop {
        let mut pause = RETRY;
        for target in balancer.order() {
            let server = target.address.to_string();
            let granted =
                credentials::request(&server, &key_pem, trust.judge(), Some(VALIDITY)).await;
            let renewed = granted
                .map_err(CredentialError::into_failure)
                .and_then(|granted| certified(&granted.certificate_pem, &key_pem));
            match renewed {
                Ok(key) => {
                    held.set(key);
                    tracing::info!(%server, "got a certificate for an hour");
                    pause = RENEW_AFTER;
                    last.clear();
                    break;
                }
                Err(error) => {
                    let reason = one_line(&error);
                    if reason != last {
                        tracing::warn!(reason, "no certificate yet");
                    }
                    last = reason;
                }
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// A certificate that can be replaced while TLS uses it.
#[derive(Default)]
pub(super) struct Held(RwLock<Option<Arc<CertifiedKey>>>);

impl Held {
    fn set(&self, key: CertifiedKey) {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *held = Some(Arc::new(key));
    }

    fn get(&self) -> Option<Arc<CertifiedKey>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether there is one yet.
    pub(super) fn is_there(&self) -> bool {
        self.get().is_some()
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Held")
    }
}

impl ResolvesClientCert for Held {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.get()
    }

    fn has_certs(&self) -> bool {
        self.is_there()
    }
}

fn certified(certificate_pem: &str, key_pem: &str) -> anyhow::Result<CertifiedKey> {
    let chain = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| anyhow!("the client certificate's PEM: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|error| anyhow!("the client key's PEM: {error}"))?;
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
        .map_err(|error| anyhow!("the client key: {error}"))?;
    Ok(CertifiedKey::new(chain, signer))
}
