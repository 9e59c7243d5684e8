//! The first layer: what rustls asks about a peer's certificate.
//!
//! One verifier serves one connection and keeps what it found for the second
//! layer. It ends the TLS handshake only for certificates and evidence that do not
//! parse or that nobody genuine signed; every other refusal is kept as a finding,
//! which the second layer tells the peer in words before it closes. That is safe
//! because no stream is handed out unless the finding is an admission.

use std::sync::{Arc, OnceLock};

use nautilus_attest_protocol::{Admitted, Policy, Refused, Verifier};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, PeerIncompatible,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::credential::PeerCertificate;

/// What the first layer has found about a peer.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    /// DER of the SubjectPublicKeyInfo it proved possession of.
    pub(crate) spki: Vec<u8>,
    /// Its evidence's claims, or what is held against it.
    pub(crate) admission: Result<Admitted, Refused>,
}

/// The verifier of one connection.
pub(crate) struct AdmissionFilter {
    verifier: Arc<dyn Verifier>,
    policy: Arc<Policy>,
    algorithms: WebPkiSupportedAlgorithms,
    finding: OnceLock<Finding>,
}

impl AdmissionFilter {
    pub(crate) fn new(
        verifier: Arc<dyn Verifier>,
        policy: Arc<Policy>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self {
            verifier,
            policy,
            algorithms,
            finding: OnceLock::new(),
        }
    }

    /// What was found, once the TLS handshake is over.
    pub(crate) fn finding(&self) -> Option<Finding> {
        self.finding.get().cloned()
    }

    fn examine(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        if !intermediates.is_empty() {
            let reason = "a master sends its self-signed certificate alone".to_owned();
            return Err(fatal(Refused::Malformed {
                what: "certificate chain",
                reason,
            }));
        }
        let certificate = PeerCertificate::read(certificate).map_err(fatal)?;
        let now_ms = now.as_secs().saturating_mul(1000);
        let admission = certificate.admit(self.verifier.as_ref(), &self.policy.evidence, now_ms);
        if let Err(refused) = &admission
            && ends_tls(refused)
        {
            return Err(fatal(refused.clone()));
        }
        let known = self.finding.set(Finding {
            spki: certificate.spki,
            admission,
        });
        known
            .map_err(|_| rustls::Error::General("a connection has one peer certificate".to_owned()))
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }
}

/// Whether a refusal ends TLS, or waits for the layer that has words.
fn ends_tls(refused: &Refused) -> bool {
    matches!(
        refused,
        Refused::Malformed { .. } | Refused::TooLarge { .. } | Refused::Signature { .. }
    )
}

fn fatal(refused: Refused) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(refused))).into()
}

impl std::fmt::Debug for AdmissionFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdmissionFilter")
            .field("finding", &self.finding)
            .finish_non_exhaustive()
    }
}

impl ServerCertVerifier for AdmissionFilter {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.examine(end_entity, intermediates, now)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for AdmissionFilter {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.examine(end_entity, intermediates, now)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
