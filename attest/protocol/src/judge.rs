//! The join rule: from genuine claims to a peer, or a refusal.

use serde::{Deserialize, Serialize};

use crate::binding::{
    ReportData, certificate_claims_buffer, certificate_report_data, evidence_digest, shown,
};
use crate::evidence::{Claims, Evidence, Measurement, TeeKind};
use crate::frame::Hello;
use crate::policy::EvidencePolicy;
use crate::port::{UnixMillis, Verifier};
use crate::refused::Refused;

/// A master that has been judged, on a connection that is still its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its id in the quorum.
    pub node_id: u64,
    /// The chip or platform it runs on, lower-case hex: what the membership pins.
    pub platform: String,
    /// The code it runs.
    pub measurement: Measurement,
    /// Its kind of TEE.
    pub tee: TeeKind,
    /// SHA-256 of the evidence in its certificate: the same for every connection
    /// of one certificate.
    pub evidence_digest: [u8; 32],
}

impl Peer {
    /// [`Peer::evidence_digest`] in lower-case hex.
    pub fn evidence_digest_hex(&self) -> String {
        hex::encode(self.evidence_digest)
    }
}

/// What a certificate's evidence has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Its claims.
    pub claims: Claims,
    /// SHA-256 of the encoded evidence.
    pub evidence_digest: [u8; 32],
}

/// The first layer's filter: is the evidence in a certificate genuine, for this
/// key, and good enough? (That it is fresh is for the second layer to show.)
///
/// # Errors
/// Those of [`Verifier::verify`] and [`EvidencePolicy::judge`], and `KeyBinding`.
pub fn admit_certificate(
    encoded_evidence: &[u8],
    spki: &[u8],
    verifier: &dyn Verifier,
    policy: &EvidencePolicy,
    now_ms: UnixMillis,
) -> Result<Admitted, Refused> {
    let evidence = Evidence::decode(encoded_evidence)?;
    let claims = verifier.verify(&evidence, now_ms)?;
    let expected = certificate_report_data(spki);
    if claims.report_data != expected {
        return Err(Refused::KeyBinding {
            seen: shown(&claims.report_data),
            expected: shown(&expected),
        });
    }
    if !evidence.claims_buffer.is_empty()
        && evidence.claims_buffer != certificate_claims_buffer(spki)
    {
        return Err(Refused::Malformed {
            what: "evidence",
            reason: "its claims buffer does not name the certificate's key".to_owned(),
        });
    }
    policy.judge(&claims, now_ms)?;
    Ok(Admitted {
        claims,
        evidence_digest: evidence_digest(encoded_evidence),
    })
}

/// The join rule, once the evidence is genuine and for this connection: the policy
/// must allow it, and a node whose platform the membership pins must run there.
///
/// # Errors
/// Those of [`EvidencePolicy::judge`], and `Platform`.
pub fn judge_peer(
    claims: &Claims,
    hello: &Hello,
    certificate_digest: [u8; 32],
    pinned: Option<&str>,
    policy: &EvidencePolicy,
    now_ms: UnixMillis,
) -> Result<Peer, Refused> {
    policy.judge(claims, now_ms)?;
    if let Some(pinned) = pinned.filter(|pinned| *pinned != claims.platform) {
        return Err(Refused::Platform {
            node_id: hello.node_id,
            seen: claims.platform.clone(),
            pinned: pinned.to_owned(),
        });
    }
    Ok(Peer {
        node_id: hello.node_id,
        platform: claims.platform.clone(),
        measurement: claims.measurement.clone(),
        tee: claims.tee,
        evidence_digest: certificate_digest,
    })
}

/// For a client of the API face: is `encoded_evidence` genuine, the answer to
/// `expected` (see [`crate::credential_report_data`], [`crate::attestation_report_data`]),
/// and allowed by `policy`?
///
/// # Errors
/// Those of [`Verifier::verify`] and [`EvidencePolicy::judge`], and `Replay`.
pub fn verify_for_relying_party(
    encoded_evidence: &[u8],
    expected: &ReportData,
    verifier: &dyn Verifier,
    policy: &EvidencePolicy,
    now_ms: UnixMillis,
) -> Result<Claims, Refused> {
    let claims = claims_for_relying_party(encoded_evidence, expected, verifier, now_ms)?;
    policy.judge(&claims, now_ms)?;
    Ok(claims)
}

/// The claims alone: is `encoded_evidence` genuine, and the answer to `expected`? What
/// they are worth is for a policy to say.
///
/// # Errors
/// Those of [`Verifier::verify`], and `Replay`.
pub fn claims_for_relying_party(
    encoded_evidence: &[u8],
    expected: &ReportData,
    verifier: &dyn Verifier,
    now_ms: UnixMillis,
) -> Result<Claims, Refused> {
    let claims = verifier.verify(&Evidence::decode(encoded_evidence)?, now_ms)?;
    if claims.report_data != *expected {
        return Err(Refused::Replay {
            seen: shown(&claims.report_data),
            expected: shown(expected),
        });
    }
    Ok(claims)
}
