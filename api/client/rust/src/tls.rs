//! TLS whose other end is judged by evidence: the certificate's issuer counts only where
//! an authority is given, which tells one quorum from another.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::connection::spki_of;

/// The provider of every TLS client: aws-lc-rs.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// TLS 1.3 that trusts whoever answers and shows no certificate: what it hears counts for
/// nothing until evidence has proved it.
///
/// # Errors
/// When the provider knows no TLS 1.3.
pub fn unverified_tls() -> Result<ClientConfig, rustls::Error> {
    tls(None, None)
}

/// The same; with an authority, only to certificates it has issued, and with a client's
/// certificate if there is one.
pub(crate) fn tls(
    authority: Option<RootCertStore>,
    identity: Option<Arc<dyn ResolvesClientCert>>,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = match authority {
        None => keyed_tls(|_| true, identity)?,
        Some(roots) => {
            let provider = provider();
            let verifier =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .build()
                    .map_err(|error| rustls::Error::General(error.to_string()))?;
            configuration(provider, verifier, identity)?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// TLS 1.3 to whoever holds a key that `accepts` takes, given its DER SubjectPublicKeyInfo,
/// whoever issued the certificate; `identity` is shown to nobody else.
///
/// # Errors
/// When the provider knows no TLS 1.3.
pub fn keyed_tls(
    accepts: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
    identity: Option<Arc<dyn ResolvesClientCert>>,
) -> Result<ClientConfig, rustls::Error> {
    let provider = provider();
    let verifier = ByKey {
        accepts,
        provider: Arc::clone(&provider),
    };
    configuration(provider, Arc::new(verifier), identity)
}

fn configuration(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<Arc<dyn ResolvesClientCert>>,
) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(resolver) => builder.with_client_cert_resolver(resolver),
        None => builder.with_no_client_auth(),
    };
    // A resumed session would not show again whose key it is.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Accepts a certificate for its key alone; that its owner holds the key is for the signature
/// to show, as always.
struct ByKey<F> {
    accepts: F,
    provider: Arc<CryptoProvider>,
}

impl<F> std::fmt::Debug for ByKey<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ByKey")
    }
}

impl<F: Fn(&[u8]) -> bool + Send + Sync> ServerCertVerifier for ByKey<F> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let spki = spki_of(end_entity).map_err(rustls::Error::General)?;
        if (self.accepts)(&spki) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::CertificateError::ApplicationVerificationFailure.into())
    }

    /// Never asked: only TLS 1.3 is spoken.
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
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
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
