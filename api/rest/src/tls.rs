//! The TLS layer of the API face: TLS 1.3 alone, client certificates optional.
//!
//! Invariants
//! - A client certificate counts only if it chains to this quorum's authority; one
//!   from elsewhere ends the handshake with `unknown_ca`, it does not make its
//!   owner anonymous.
//! - User and groups come from the verified certificate's subject alone.
//! - The serving key lives in memory and is replaced before it expires.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use nautilus_machinery::identity::{ClientKey, User};
use rustls::pki_types::CertificateDer;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio_util::sync::CancellationToken;

use crate::authority::{Authority, AuthorityError, SERVING_VALIDITY_DAYS};

/// The serving certificate is renewed after two thirds of its life.
const RENEW_AFTER: Duration = Duration::from_secs(SERVING_VALIDITY_DAYS * 86_400 * 2 / 3);
/// Pause before a failed renewal is tried again.
const RENEW_RETRY: Duration = Duration::from_secs(3600);

/// Why the TLS layer could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The authority could not issue.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// rustls refused the configuration.
    #[error("TLS could not be set up: {0}")]
    Configuration(String),
}

/// This node's serving certificate, issued by the quorum's authority and renewed in
/// the process.
pub struct ServingCertificate {
    names: Vec<String>,
    authority: Arc<Authority>,
    current: ArcSwap<CertifiedKey>,
}

impl std::fmt::Debug for ServingCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServingCertificate")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl ServingCertificate {
    /// Issues the first certificate for these DNS names and addresses.
    pub fn issue(authority: Arc<Authority>, names: Vec<String>) -> Result<Arc<Self>, TlsError> {
        let current = ArcSwap::new(authority.issue_serving(&names)?);
        Ok(Arc::new(Self {
            names,
            authority,
            current,
        }))
    }

    /// The certificate served now, and its key, which signs and is not to be seen.
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        self.current.load_full()
    }

    /// Issues anew, over a new key.
    pub fn renew(&self) -> Result<(), TlsError> {
        self.current
            .store(self.authority.issue_serving(&self.names)?);
        Ok(())
    }

    /// Renews for as long as the process serves.
    pub async fn keep_fresh(self: Arc<Self>, shutdown: CancellationToken) {
        let mut pause = RENEW_AFTER;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = match self.renew() {
                Ok(()) => RENEW_AFTER,
                Err(error) => {
                    tracing::error!(%error, "the serving certificate could not be renewed");
                    RENEW_RETRY
                }
            };
        }
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// The server side: TLS 1.3, X25519MLKEM768 first, HTTP/2 and HTTP/1.1, no tickets,
/// no early data.
pub fn server_config(
    authority: &Authority,
    certificate: Arc<ServingCertificate>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let configuration = |error: String| TlsError::Configuration(error);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(authority.certificate_der().clone())
        .map_err(|error| configuration(error.to_string()))?;
    // No hints of acceptable authorities: a client with a foreign certificate shall
    // send it and hear `unknown_ca` instead of quietly becoming anonymous.
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .clear_root_hint_subjects()
        .build()
        .map_err(|error| configuration(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| configuration(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The user a connection speaks for: the verified certificate's common name and
/// organizations, or anonymous without one.
pub(crate) fn user_of(certificates: Option<&[CertificateDer<'_>]>) -> User {
    let Some(leaf) = certificates.and_then(<[_]>::first) else {
        return User::anonymous();
    };
    User::of_certificate(leaf)
}

/// The key that a connection's verified client certificate is for.
pub(crate) fn client_key_of(certificates: Option<&[CertificateDer<'_>]>) -> Option<ClientKey> {
    let leaf = certificates?.first()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let mut spki_sha256 = [0; 32];
    spki_sha256.copy_from_slice(digest(&SHA256, certificate.public_key().raw).as_ref());
    Some(ClientKey {
        spki_sha256,
        subject: User::of_certificate(leaf).name.into(),
    })
}
