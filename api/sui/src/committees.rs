//! Whose signature counts in which epoch: from the committee that is configured, by the last
//! checkpoint of each epoch to that of the next.
//!
//! Invariants
//! - A committee other than the configured one was named by a checkpoint that the committee before
//!   it signed.
//! - An epoch before the configured committee's has no committee: its checkpoints prove nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use sui_crypto::bls12381::ValidatorCommitteeSignatureVerifier;
use sui_sdk_types::ValidatorCommittee;

use crate::face::{CheckpointState, Face, FaceError, Part};
use crate::limits;
use crate::proof::{self, Forged};

/// See the module.
pub(crate) struct Committees {
    trusted_epoch: u64,
    known: Mutex<BTreeMap<u64, Arc<ValidatorCommitteeSignatureVerifier>>>,
    /// Held while committees are learnt from the full node of that name: whoever wants the same of
    /// it waits, and a full node that hangs holds up nobody who asks another.
    walks: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Committees {
    /// Trusts `committee` and those who follow it.
    pub(crate) fn new(committee: ValidatorCommittee) -> Result<Self, String> {
        let trusted_epoch = committee.epoch;
        let verifier = ValidatorCommitteeSignatureVerifier::new(committee)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            trusted_epoch,
            known: Mutex::new(BTreeMap::from([(trusted_epoch, Arc::new(verifier))])),
            walks: Mutex::default(),
        })
    }

    /// Whether validators signed `checkpoint`, and its contents are those that it names.
    pub(crate) async fn check(
        &self,
        face: &dyn Face,
        checkpoint: &CheckpointState,
    ) -> Result<(), FaceError> {
        let signed = checkpoint
            .signed
            .as_ref()
            .ok_or(FaceError::Unsupported("what validators signed"))?;
        let committee = self.of_epoch(face, signed.summary.epoch).await?;
        proof::signed_by(&committee, signed)?;
        if let Some(contents) = &checkpoint.contents {
            proof::contents_in_summary(contents, &signed.summary)?;
        }
        Ok(())
    }

    /// The committee of `epoch`, learnt from `face` as far as it is not known.
    async fn of_epoch(
        &self,
        face: &dyn Face,
        epoch: u64,
    ) -> Result<Arc<ValidatorCommitteeSignatureVerifier>, FaceError> {
        let known = || {
            self.newest_until(epoch).ok_or_else(|| {
                FaceError::Gone(format!(
                    "a checkpoint of epoch {epoch} comes before the trusted committee of epoch {}; \
                     configure that of an earlier epoch",
                    self.trusted_epoch
                ))
            })
        };
        let (at, committee) = known()?;
        if at == epoch {
            return Ok(committee);
        }
        let walk = Arc::clone(self.walks.lock().entry(face.name().to_owned()).or_default());
        let _alone = walk.lock().await;
        // Somebody may have come by there meanwhile.
        let (mut at, mut committee) = known()?;
        // A made-up epoch far ahead must not keep this going.
        while at < epoch {
            let gone = || FaceError::Gone(format!("the end of epoch {at}"));
            let last = face.end_of_epoch(at).await?.ok_or_else(gone)?;
            let checkpoint = face.checkpoint(Some(last), Part::Summary).await?;
            let signed = checkpoint.and_then(|it| it.signed).ok_or_else(gone)?;
            proof::signed_by(&committee, &signed)?;
            let end = signed
                .summary
                .end_of_epoch_data
                .ok_or_else(|| FaceError::Forged(format!("epoch {at} goes on after {last}")))?;
            at += 1;
            let next = ValidatorCommittee {
                epoch: at,
                members: end.next_epoch_committee,
            };
            let next = ValidatorCommitteeSignatureVerifier::new(next)
                .map_err(|error| FaceError::Forged(error.to_string()))?;
            committee = Arc::new(next);
            self.learn(at, &committee);
        }
        Ok(committee)
    }

    fn newest_until(&self, epoch: u64) -> Option<(u64, Arc<ValidatorCommitteeSignatureVerifier>)> {
        let known = self.known.lock();
        let (at, committee) = known.range(..=epoch).next_back()?;
        Some((*at, Arc::clone(committee)))
    }

    fn learn(&self, epoch: u64, committee: &Arc<ValidatorCommitteeSignatureVerifier>) {
        let mut known = self.known.lock();
        known.insert(epoch, Arc::clone(committee));
        if known.len() > limits::COMMITTEES_LIMIT {
            let oldest = known.keys().copied().find(|it| *it != self.trusted_epoch);
            oldest.map(|oldest| known.remove(&oldest));
        }
    }
}

impl From<Forged> for FaceError {
    fn from(forged: Forged) -> Self {
        Self::Forged(forged.to_string())
    }
}
