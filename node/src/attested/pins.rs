//! TLS to nodes whose serving key evidence has vouched for, and to nobody else.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use nautilus_client::{provider, spki_of};

/// Keys remembered at once: two for each node of a large quorum, as one is renewed.
const MAX_KEYS: usize = 128;

/// Serving keys that are trusted, by their DER SubjectPublicKeyInfo.
#[derive(Debug, Default)]
pub(crate) struct Pins(RwLock<BTreeSet<Vec<u8>>>);

impl Pins {
    /// Trusts a key; false when too many are trusted already.
    pub(crate) fn add(&self, spki: &[u8]) -> bool {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= MAX_KEYS && !keys.contains(spki) {
            return false;
        }
        keys.insert(spki.to_vec());
        true
    }

    /// Trusts it no longer.
    pub(crate) fn remove(&self, spki: &[u8]) {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        keys.remove(spki);
    }

    fn contains(&self, spki: &[u8]) -> bool {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        keys.contains(spki)
    }
}

/// TLS that ends at a pinned key only, before this client shows its certificate.
pub(crate) fn pinned_tls(
    pins: Arc<Pins>,
    client: Option<Arc<dyn ResolvesClientCert>>,
) -> anyhow::Result<rustls::ClientConfig> {
    let provider = provider();
    let verifier = PinnedKey {
        pins,
        provider: Arc::clone(&provider),
    };
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match client {
        Some(resolver) => builder.with_client_cert_resolver(resolver),
        None => builder.with_no_client_auth(),
    };
    // A resumed session would skip the look at the key.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Accepts a certificate for its key alone; that its owner holds the key is for the
/// signature to show, as always.
#[derive(Debug)]
struct PinnedKey {
    pins: Arc<Pins>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let spki = spki_of(end_entity).map_err(rustls::Error::General)?;
        if self.pins.contains(&spki) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
