//! Whom this server trusts when it is the client, and as whom it comes.
//!
//! Invariant: every client names its cryptographic provider and depends on no default.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::authority::{Authority, AuthorityError, SERVING_VALIDITY_DAYS};

/// A client certificate is replaced after two thirds of its life.
const RENEW_AFTER: Duration = Duration::from_secs(SERVING_VALIDITY_DAYS * 86_400 * 2 / 3);
/// Certificates of one bundle, at most.
const MAX_BUNDLE: usize = 256;
/// Where systems keep their authorities, unless `SSL_CERT_FILE` names another file: Debian,
/// Red Hat, SUSE, Alpine.
const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The system's authorities as they were at the first use; none on a system without.
static SYSTEM: LazyLock<RootCertStore> = LazyLock::new(|| {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let known = SYSTEM_AUTHORITIES.iter().map(PathBuf::from);
    let mut roots = RootCertStore::empty();
    for path in named.map_or_else(|| known.collect(), |path| vec![path]) {
        if let Ok(certificates) = CertificateDer::pem_file_iter(path) {
            roots.add_parsable_certificates(certificates.filter_map(Result::ok));
            break;
        }
    }
    roots
});

/// Whose certificates are good.
pub(crate) enum Trust {
    /// Those that these authorities issued.
    Authorities(RootCertStore),
    /// Anybody's: the connection is hidden from those who listen, no more.
    Anybody,
}

impl Trust {
    /// The authorities of a PEM bundle.
    pub(crate) fn pem(bundle: &[u8]) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(bundle).take(MAX_BUNDLE) {
            let certificate = certificate.map_err(|error| error.to_string())?;
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
        if roots.is_empty() {
            return Err("no certificate is in it".into());
        }
        Ok(Self::Authorities(roots))
    }

    /// The system's authorities: nobody, on a system without.
    pub(crate) fn system() -> Self {
        Self::Authorities(SYSTEM.clone())
    }

    /// The quorum's own authority.
    pub(crate) fn own(authority: &Authority) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots
            .add(authority.certificate_der().clone())
            .map_err(|error| error.to_string())?;
        Ok(Self::Authorities(roots))
    }
}

/// A client's configuration: HTTP/1.1, which alone can be upgraded.
pub(crate) fn client_config(
    trust: Trust,
    identity: Option<Arc<ComponentIdentity>>,
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Authorities(roots) if roots.is_empty() => {
            return Err("no authority is trusted on this system".into());
        }
        Trust::Authorities(roots) => {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|error| error.to_string())?
        }
        Trust::Anybody => Arc::new(Unverified(provider.clone())),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(identity),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What HTTP clients are built from: HTTP/1.1, in which a request can name another host
/// than it is sent to, straight to where they are sent.
pub(crate) fn http_client(trust: Trust) -> Result<reqwest::ClientBuilder, String> {
    let config = Arc::unwrap_or_clone(client_config(trust, None)?);
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none()))
}

/// Takes any certificate whose key signs the handshake.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Issues a part of this server its certificate, over a key that stays in memory.
type Issue = Box<dyn Fn() -> Result<Arc<CertifiedKey>, AuthorityError> + Send + Sync>;

/// The client certificate of a part of this server, made when it is first needed and
/// anew before it expires.
pub(crate) struct ComponentIdentity {
    name: String,
    issue: Issue,
    current: Mutex<Option<(Arc<CertifiedKey>, Instant)>>,
}

impl std::fmt::Debug for ComponentIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ComponentIdentity")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl ComponentIdentity {
    pub(crate) fn new(name: &str, issue: Issue) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            issue,
            current: Mutex::new(None),
        })
    }
}

impl ResolvesClientCert for ComponentIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock();
        if let Some((key, made)) = &*current
            && made.elapsed() < RENEW_AFTER
        {
            return Some(key.clone());
        }
        match (self.issue)() {
            Ok(key) => {
                *current = Some((key.clone(), Instant::now()));
                Some(key)
            }
            Err(error) => {
                tracing::error!(%error, name = self.name, "a client certificate could not be issued");
                current.as_ref().map(|(key, _)| key.clone())
            }
        }
    }

    fn has_certs(&self) -> bool {
        true
    }
}
