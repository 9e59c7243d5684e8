//! Changes of the policy, and the operators' approval of them.
//!
//! An operator signs `label ‖ CBOR [cluster id, epoch it starts from, digest of the new
//! document]`. The keys that count are those of the document that is replaced.

use std::collections::BTreeMap;

use minicbor::Encoder;
use serde::{Deserialize, Serialize};

use super::document::{Policy, PolicyError};
use super::operator::OperatorKey;

const CHANGE_LABEL: &[u8] = b"nautilus policy change v1\0";

/// One operator's signature under a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The key's fingerprint: lower-case hex of the SHA-256 of its SubjectPublicKeyInfo.
    pub operator: String,
    /// The signature in hex: Ed25519, or ECDSA P-256 with SHA-256 in ASN.1.
    pub signature: String,
}

/// Why a change is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// It starts from another epoch than the present one: late, or played back.
    #[error(
        "the change leads to policy epoch {seen}, but epoch {present} is in force and the next one is {}: get the present policy and make the change anew",
        present + 1
    )]
    Epoch {
        /// The new document's epoch.
        seen: u64,
        /// The epoch in force.
        present: u64,
    },
    /// The document makes no sense.
    #[error(transparent)]
    Document(#[from] PolicyError),
    /// A key that the policy in force does not name.
    #[error(
        "key sha256:{fingerprint} is not an operator's: the policy in force (epoch {epoch}) names others"
    )]
    UnknownOperator {
        /// The key.
        fingerprint: String,
        /// The epoch in force.
        epoch: u64,
    },
    /// A signature that does not hold.
    #[error("the signature of operator {name:?} does not hold for this change of this quorum")]
    Signature {
        /// Whose.
        name: String,
    },
    /// Not enough operators have signed.
    #[error("{given} of {needed} operators have approved; {} more must sign", needed - given)]
    Approvals {
        /// How many did.
        given: u32,
        /// How many must.
        needed: u32,
    },
}

/// What an operator signs: that in quorum `cluster_id` the policy of `base_epoch` is
/// replaced by the document with this digest.
pub fn change_bytes(cluster_id: &str, base_epoch: u64, document: &[u8; 32]) -> Vec<u8> {
    let mut encoder = Encoder::new(CHANGE_LABEL.to_vec());
    let written = encoder
        .array(3)
        .and_then(|e| e.str(cluster_id))
        .and_then(|e| e.u64(base_epoch))
        .and_then(|e| e.bytes(document))
        .is_ok();
    assert!(written, "writing CBOR to memory cannot fail");
    encoder.into_writer()
}

/// The operators of `present` who have signed that `document` replaces it, each once.
///
/// # Errors
/// `Epoch`, `Document`, `UnknownOperator` and `Signature`: one bad approval refuses all.
pub fn approving_operators<'a>(
    present: &'a Policy,
    cluster_id: &str,
    document: &Policy,
    approvals: &[Approval],
) -> Result<Vec<&'a OperatorKey>, ChangeRefused> {
    if document.epoch != present.epoch.saturating_add(1) {
        return Err(ChangeRefused::Epoch {
            seen: document.epoch,
            present: present.epoch,
        });
    }
    document.check_governed()?;
    let signed = change_bytes(cluster_id, present.epoch, &document.digest());
    let mut approving = BTreeMap::new();
    for approval in approvals {
        let named = present
            .operators
            .iter()
            .find(|operator| operator.public_key.fingerprint() == approval.operator);
        let operator = named.ok_or_else(|| ChangeRefused::UnknownOperator {
            fingerprint: approval.operator.clone(),
            epoch: present.epoch,
        })?;
        let holds = hex::decode(&approval.signature)
            .is_ok_and(|signature| operator.public_key.verifies(&signed, &signature));
        if !holds {
            return Err(ChangeRefused::Signature {
                name: operator.name.clone(),
            });
        }
        approving.insert(&operator.public_key, operator);
    }
    Ok(approving.into_values().collect())
}

/// Whether `document` replaces `present` in quorum `cluster_id`.
///
/// # Errors
/// Those of [`approving_operators`], and `Approvals`.
pub fn accept(
    present: &Policy,
    cluster_id: &str,
    document: &Policy,
    approvals: &[Approval],
) -> Result<(), ChangeRefused> {
    let approving = approving_operators(present, cluster_id, document, approvals)?;
    let (given, needed) = (
        u32::try_from(approving.len()).unwrap_or(u32::MAX),
        present.threshold,
    );
    // A policy without a threshold is a configuration's, which nobody may change.
    if needed == 0 || given < needed {
        return Err(ChangeRefused::Approvals {
            given,
            needed: needed.max(given.saturating_add(1)),
        });
    }
    Ok(())
}
