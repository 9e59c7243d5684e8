//! A node's TLS identity: a fresh key and a self-signed certificate that carries
//! evidence over it; and how such a certificate of a peer is read.
//!
//! The certificate's own signature is not checked: it says nothing that the
//! signature over the TLS handshake, which is, does not say better. What counts is
//! the key, the dates and the evidence.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nautilus_attest_protocol::binding::{certificate_claims_buffer, certificate_report_data};
use nautilus_attest_protocol::{
    Admitted, Claims, EVIDENCE_EXTENSION_OID, Evidence, EvidencePolicy, Quoter, Refused,
    UnixMillis, Verifier, admit_certificate,
};
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    KeyUsagePurpose,
};
use rustls::sign::CertifiedKey;
use x509_parser::asn1_rs::Oid;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::error::AttestedError;
use crate::key::IncarnationKey;

/// How long a certificate holds.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// After how long a node makes a new one, with a new key.
pub const CERTIFICATE_RENEWAL: Duration = Duration::from_secs(12 * 60 * 60);
/// How long before its making a certificate is valid, for peers whose clocks lag.
const CERTIFICATE_BACKDATE: Duration = Duration::from_secs(5 * 60);
/// The largest certificate read, in bytes.
const MAX_CERTIFICATE_BYTES: usize = 48 * 1024;

/// The present time, in milliseconds since 1970.
pub(crate) fn unix_millis() -> UnixMillis {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// One incarnation's identity.
pub(crate) struct Credential {
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) spki: Vec<u8>,
    pub(crate) claims: Claims,
    pub(crate) evidence_digest: [u8; 32],
    /// When it was made.
    pub(crate) issued_at_ms: UnixMillis,
}

impl Credential {
    /// Makes a key, has the TEE vouch for it and wraps both in a certificate. Blocks
    /// as long as the TEE does.
    pub(crate) fn issue(
        quoter: &dyn Quoter,
        verifier: &dyn Verifier,
        node_id: u64,
        now_ms: UnixMillis,
    ) -> Result<Self, AttestedError> {
        let key = IncarnationKey::generate()
            .ok_or_else(|| AttestedError::Identity("no key was made".to_owned()))?;
        let spki = key.spki();
        let evidence = quoter.quote(&certificate_report_data(&spki))?;
        let evidence = evidence.with_claims_buffer(certificate_claims_buffer(&spki));
        Self::from_parts(key, &evidence, verifier, node_id, now_ms)
    }

    /// The identity of `key` with given evidence, which must be genuine; whether it is
    /// for this key, and good enough, is for the peers to judge.
    pub(crate) fn from_parts(
        key: IncarnationKey,
        evidence: &Evidence,
        verifier: &dyn Verifier,
        node_id: u64,
        now_ms: UnixMillis,
    ) -> Result<Self, AttestedError> {
        let claims = verifier
            .verify(evidence, now_ms)
            .map_err(AttestedError::OwnEvidence)?;
        let encoded = evidence.encode();
        let evidence_digest = nautilus_attest_protocol::binding::evidence_digest(&encoded);
        let parameters = certificate_parameters(node_id, encoded, now_ms);
        let certificate = parameters
            .self_signed(&key)
            .map_err(|error| AttestedError::Identity(error.to_string()))?;
        let spki = key.spki();
        let chain = vec![certificate.der().clone()];
        let certified = Arc::new(CertifiedKey::new(chain, Arc::new(key)));
        Ok(Self {
            certified,
            spki,
            claims,
            evidence_digest,
            issued_at_ms: now_ms,
        })
    }

    /// Whether it is time for a new one (also when the clock went back before it).
    pub(crate) fn is_due(&self, now_ms: UnixMillis) -> bool {
        let renewal_ms = CERTIFICATE_RENEWAL.as_millis();
        now_ms < self.issued_at_ms || u128::from(now_ms - self.issued_at_ms) >= renewal_ms
    }
}

fn certificate_parameters(
    node_id: u64,
    encoded_evidence: Vec<u8>,
    now_ms: UnixMillis,
) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, format!("nautilus node {node_id}"));
    parameters.distinguished_name = name;
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(now_ms);
    parameters.not_before = now - CERTIFICATE_BACKDATE;
    parameters.not_after = now + CERTIFICATE_LIFETIME;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    parameters.custom_extensions = vec![CustomExtension::from_oid_content(
        EVIDENCE_EXTENSION_OID,
        encoded_evidence,
    )];
    parameters
}

/// A peer's certificate, read.
#[derive(Debug)]
pub(crate) struct PeerCertificate {
    /// DER of its SubjectPublicKeyInfo.
    pub(crate) spki: Vec<u8>,
    not_before_ms: UnixMillis,
    not_after_ms: UnixMillis,
    evidence: Vec<u8>,
}

impl PeerCertificate {
    /// Reads a certificate, of which nothing is trusted.
    pub(crate) fn read(der: &[u8]) -> Result<Self, Refused> {
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(Refused::TooLarge {
                what: "certificate",
                size: der.len(),
                limit: MAX_CERTIFICATE_BYTES,
            });
        }
        let (rest, certificate) = X509Certificate::from_der(der).map_err(malformed)?;
        if !rest.is_empty() {
            return Err(malformed("bytes are left over"));
        }
        let oid =
            Oid::from(EVIDENCE_EXTENSION_OID).map_err(|error| malformed(format!("{error:?}")))?;
        let extension = certificate.get_extension_unique(&oid).map_err(malformed)?;
        let evidence = extension
            .ok_or_else(|| malformed("it carries no evidence (extension 2.23.133.5.4.9)"))?;
        let millis = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
        Ok(Self {
            spki: certificate.public_key().raw.to_vec(),
            not_before_ms: millis(certificate.validity().not_before.timestamp()),
            not_after_ms: millis(certificate.validity().not_after.timestamp()),
            evidence: evidence.value.to_vec(),
        })
    }

    /// The first layer's judgement.
    pub(crate) fn admit(
        &self,
        verifier: &dyn Verifier,
        policy: &EvidencePolicy,
        now_ms: UnixMillis,
    ) -> Result<Admitted, Refused> {
        let what = "certificate";
        if now_ms < self.not_before_ms {
            return Err(Refused::NotYetValid {
                what,
                valid_from_ms: self.not_before_ms,
                now_ms,
            });
        }
        if now_ms > self.not_after_ms {
            return Err(Refused::Expired {
                what,
                expired_at_ms: self.not_after_ms,
                now_ms,
            });
        }
        admit_certificate(&self.evidence, &self.spki, verifier, policy, now_ms)
    }
}

fn malformed(reason: impl std::fmt::Display) -> Refused {
    Refused::Malformed {
        what: "certificate",
        reason: reason.to_string(),
    }
}
