//! What evidence is bound to: the 64 bytes a TEE is asked to sign.
//!
//! Each purpose has a label of its own, and every field is preceded by its length
//! (8 bytes, big endian), so that no two different lists of fields hash alike and
//! evidence for one purpose is of no use for another.

use aws_lc_rs::digest;
use minicbor::Encoder;

use crate::frame::{Challenge, Hello, Role};
use crate::refused::Refused;

/// What a TEE signs: a SHA-512.
pub type ReportData = [u8; 64];

/// Label under which a connection's exporter is drawn (RFC 8446, section 7.5).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-nautilus-attested-channel";
/// Bytes of exporter drawn.
pub const EXPORTER_BYTES: usize = 32;
/// The longest nonce a relying party may send, in bytes.
pub const MAX_NONCE_BYTES: usize = 64;

const CERTIFICATE_LABEL: &[u8] = b"nautilus certificate evidence v1";
const CHANNEL_LABEL: &[u8] = b"nautilus channel evidence v1";
const RENEWAL_LABEL: &[u8] = b"nautilus renewal evidence v1";
const CREDENTIAL_LABEL: &[u8] = b"nautilus credential evidence v1";
const KEY_RELEASE_LABEL: &[u8] = b"nautilus key release evidence v1";
const ATTESTATION_LABEL: &[u8] = b"nautilus attestation evidence v1";
const LEDGER_LABEL: &[u8] = b"nautilus ledger key evidence v1";
const RECOVERY_LABEL: &[u8] = b"nautilus recovery evidence v1";
const SUI_LABEL: &[u8] = b"nautilus sui evidence v1";

/// IANA "Named Information" number of SHA-512.
const SHA_512_ALGORITHM: u64 = 8;

/// How many bytes of report data an error message shows.
const SHOWN_BYTES: usize = 8;

/// One TLS connection, as one of its ends sees it.
#[derive(Clone, PartialEq, Eq)]
pub struct Channel {
    /// Which end this is.
    pub role: Role,
    /// Keying material exported under [`EXPORTER_LABEL`] without context; the same
    /// at both ends, and different for every connection.
    pub exporter: [u8; EXPORTER_BYTES],
    /// DER of the SubjectPublicKeyInfo this end proved possession of.
    pub own_spki: Vec<u8>,
    /// DER of the SubjectPublicKeyInfo the other end proved possession of.
    pub peer_spki: Vec<u8>,
}

impl Channel {
    /// The connection as its other end sees it.
    #[must_use]
    pub fn mirrored(&self) -> Self {
        Self {
            role: self.role.other(),
            exporter: self.exporter,
            own_spki: self.peer_spki.clone(),
            peer_spki: self.own_spki.clone(),
        }
    }
}

/// The claims buffer a certificate carries beside its evidence: the map
/// `{"pubkey-hash": << [8, SHA-512 of the SubjectPublicKeyInfo] >>}` of
/// interoperable RA-TLS.
pub fn certificate_claims_buffer(spki: &[u8]) -> Vec<u8> {
    let mut entry = Encoder::new(Vec::with_capacity(72));
    let mut claims = Encoder::new(Vec::with_capacity(96));
    let hash = digest::digest(&digest::SHA512, spki);
    let written = entry
        .array(2)
        .and_then(|e| e.u64(SHA_512_ALGORITHM))
        .and_then(|e| e.bytes(hash.as_ref()))
        .is_ok()
        && claims
            .map(1)
            .and_then(|e| e.str("pubkey-hash"))
            .and_then(|e| e.bytes(entry.writer()))
            .is_ok();
    assert!(written, "writing CBOR to memory cannot fail");
    claims.into_writer()
}

/// What a certificate's evidence signs: its key, by way of the claims buffer.
pub fn certificate_report_data(spki: &[u8]) -> ReportData {
    hash_fields(CERTIFICATE_LABEL, &[&certificate_claims_buffer(spki)])
}

/// What the evidence of the end `prover` of a connection signs. `channel` is as
/// that end sees it, `prover` its hello and `peer` the other's.
pub fn channel_report_data(channel: &Channel, prover: &Hello, peer: &Hello) -> ReportData {
    let (initiator_nonce, responder_nonce) = match channel.role {
        Role::Initiator => (&prover.nonce, &peer.nonce),
        Role::Responder => (&peer.nonce, &prover.nonce),
    };
    hash_fields(
        CHANNEL_LABEL,
        &[
            channel.role.name().as_bytes(),
            &channel.exporter,
            &channel.own_spki,
            &channel.peer_spki,
            initiator_nonce,
            responder_nonce,
            prover.cluster_id.as_bytes(),
            &prover.node_id.to_be_bytes(),
            &prover.policy_epoch.to_be_bytes(),
        ],
    )
}

/// What the evidence of the end `prover` of a standing connection signs when it is
/// asked again. `channel` is as that end sees it; node ids are the two ends'.
pub fn renewal_report_data(
    channel: &Channel,
    cluster_id: &str,
    prover: u64,
    asker: u64,
    challenge: &Challenge,
) -> ReportData {
    hash_fields(
        RENEWAL_LABEL,
        &[
            channel.role.name().as_bytes(),
            &channel.exporter,
            &channel.own_spki,
            &channel.peer_spki,
            &challenge.nonce,
            cluster_id.as_bytes(),
            &prover.to_be_bytes(),
            &asker.to_be_bytes(),
            &challenge.policy_epoch.to_be_bytes(),
        ],
    )
}

/// What evidence signs that vouches for a certificate a node has issued to a
/// client: the client's `nonce`, the DER of the issuing authority's
/// SubjectPublicKeyInfo and the DER of the certificate.
pub fn credential_report_data(nonce: &[u8], ca_spki: &[u8], certificate_der: &[u8]) -> ReportData {
    hash_fields(CREDENTIAL_LABEL, &[nonce, ca_spki, certificate_der])
}

/// What evidence signs that vouches for the API face: the asker's `nonce` and the
/// DER of the SubjectPublicKeyInfo with which the node serves.
pub fn attestation_report_data(nonce: &[u8], serving_spki: &[u8]) -> ReportData {
    hash_fields(ATTESTATION_LABEL, &[nonce, serving_spki])
}

/// What evidence signs that asks a key release for a sealing key: the public key it
/// is to be encrypted to, and what it is for.
pub fn key_release_report_data(public_key: &[u8], label: &str) -> ReportData {
    hash_fields(KEY_RELEASE_LABEL, &[public_key, label.as_bytes()])
}

/// What evidence signs that vouches for the key with which a node signs roots of the
/// quorum's ledger: the DER of its SubjectPublicKeyInfo, the quorum's name, the node's id.
pub fn ledger_report_data(spki: &[u8], cluster_id: &str, node_id: u64) -> ReportData {
    hash_fields(
        LEDGER_LABEL,
        &[spki, cluster_id.as_bytes(), &node_id.to_be_bytes()],
    )
}

/// What evidence signs that vouches for the key to which operators seal their shares: the
/// asker's `nonce`, the public key, and what the node waits for.
pub fn recovery_report_data(nonce: &[u8], public_key: &[u8], terms: &[u8]) -> ReportData {
    hash_fields(RECOVERY_LABEL, &[nonce, public_key, terms])
}

/// What evidence signs that vouches for the key which signs messages to a chain: the
/// asker's `nonce` and the raw Ed25519 public key.
pub fn sui_report_data(nonce: &[u8], public_key: &[u8]) -> ReportData {
    hash_fields(SUI_LABEL, &[nonce, public_key])
}

/// Checks that a nonce is there and not longer than [`MAX_NONCE_BYTES`].
pub fn check_nonce(nonce: &[u8]) -> Result<(), Refused> {
    if nonce.is_empty() {
        return Err(Refused::Malformed {
            what: "nonce",
            reason: "it is empty".to_owned(),
        });
    }
    if nonce.len() > MAX_NONCE_BYTES {
        return Err(Refused::TooLarge {
            what: "nonce",
            size: nonce.len(),
            limit: MAX_NONCE_BYTES,
        });
    }
    Ok(())
}

/// SHA-256 of encoded evidence: its short name in headers, logs and tables.
pub fn evidence_digest(encoded: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, encoded).as_ref());
    out
}

/// The start of report data, for an error message.
pub(crate) fn shown(report_data: &ReportData) -> String {
    format!("{}…", hex::encode(&report_data[..SHOWN_BYTES]))
}

fn hash_fields(label: &[u8], fields: &[&[u8]]) -> ReportData {
    let mut context = digest::Context::new(&digest::SHA512);
    for field in std::iter::once(&label).chain(fields) {
        context.update(&(field.len() as u64).to_be_bytes());
        context.update(field);
    }
    let mut out = [0; 64];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_a_byte_between_fields_changes_the_hash() {
        assert_ne!(
            attestation_report_data(b"ab", b"c"),
            attestation_report_data(b"a", b"bc")
        );
    }

    #[test]
    fn each_purpose_has_its_own_hash() {
        assert_ne!(
            hash_fields(CREDENTIAL_LABEL, &[b"a"]),
            hash_fields(ATTESTATION_LABEL, &[b"a"])
        );
    }

    #[test]
    fn a_nonce_has_bounds() {
        assert!(check_nonce(b"").is_err());
        assert!(check_nonce(&[0; MAX_NONCE_BYTES]).is_ok());
        assert!(check_nonce(&[0; MAX_NONCE_BYTES + 1]).is_err());
    }
}
