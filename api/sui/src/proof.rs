//! What ties an object and events to a checkpoint, and a checkpoint to the validators. Pure.
//!
//! ```text
//! object --digest--> effects --digest--> contents --digest--> summary <--signed-- committee
//! events --digest------^
//! ```
//! Invariant: nothing passes here that two thirds of the epoch's stake have not signed.
//!
//! What this can't show: that a version is the newest one, or that nothing was left out. Who
//! withholds can delay what validators signed, but not make up what they did not.

use sui_crypto::bls12381::ValidatorCommitteeSignatureVerifier;
use sui_sdk_types::{
    CheckpointContents, CheckpointSummary, Digest, Object, ObjectChange, TransactionEffects,
    TransactionEvents,
};

use crate::face::SignedSummary;

/// Where the chain breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Forged {
    #[error("the transaction did not write this version of the object")]
    Object,
    #[error("the effects are of another transaction")]
    Effects,
    #[error("the transaction emitted other events")]
    Events,
    #[error("the checkpoint does not hold the transaction with these effects")]
    Contents,
    #[error("the contents are not those of the checkpoint")]
    Summary,
    #[error("the committee of epoch {epoch} did not sign the checkpoint: {reason}")]
    Signature { epoch: u64, reason: String },
}

/// `effects` wrote exactly this `object`.
pub(crate) fn object_in_effects(
    object: &Object,
    effects: &TransactionEffects,
) -> Result<(), Forged> {
    if object.previous_transaction() != *effects.transaction_digest() {
        return Err(Forged::Effects);
    }
    let (id, version, digest) = (object.object_id(), object.version(), object.digest());
    let is_written = effects.object_changes().any(|change| match change {
        ObjectChange::Created {
            object_id,
            output_version,
            output_digest,
            ..
        }
        | ObjectChange::Mutated {
            object_id,
            output_version,
            output_digest,
            ..
        }
        | ObjectChange::Unwrapped {
            object_id,
            output_version,
            output_digest,
            ..
        } => *object_id == id && output_version == version && *output_digest == digest,
        _ => false,
    });
    if is_written {
        Ok(())
    } else {
        Err(Forged::Object)
    }
}

/// `effects` are of the transaction `digest`, and name exactly these `events`.
pub(crate) fn events_in_effects(
    digest: Digest,
    events: Option<&TransactionEvents>,
    effects: &TransactionEffects,
) -> Result<(), Forged> {
    if *effects.transaction_digest() != digest {
        return Err(Forged::Effects);
    }
    match (effects.events_digest(), events) {
        (None, None) => Ok(()),
        (None, Some(events)) if events.0.is_empty() => Ok(()),
        (Some(named), Some(events)) if *named == events.digest() => Ok(()),
        _ => Err(Forged::Events),
    }
}

/// `contents` hold the transaction with these `effects`.
pub(crate) fn effects_in_contents(
    effects: &TransactionEffects,
    contents: &CheckpointContents,
) -> Result<(), Forged> {
    let (transaction, digest) = (effects.transaction_digest(), effects.digest());
    let mut held = contents.transactions().iter();
    if held.any(|it| it.transaction() == transaction && *it.effects() == digest) {
        Ok(())
    } else {
        Err(Forged::Contents)
    }
}

/// `summary` names exactly these `contents`.
pub(crate) fn contents_in_summary(
    contents: &CheckpointContents,
    summary: &CheckpointSummary,
) -> Result<(), Forged> {
    if contents.digest() == summary.content_digest {
        Ok(())
    } else {
        Err(Forged::Summary)
    }
}

/// The committee signed the summary.
pub(crate) fn signed_by(
    committee: &ValidatorCommitteeSignatureVerifier,
    signed: &SignedSummary,
) -> Result<(), Forged> {
    let epoch = signed.summary.epoch;
    let refused = |reason: String| Forged::Signature { epoch, reason };
    if committee.committee().epoch != epoch {
        return Err(refused("another epoch's committee".to_owned()));
    }
    committee
        .verify_checkpoint_summary(&signed.summary, &signed.signature)
        .map_err(|error| refused(error.to_string()))
}
