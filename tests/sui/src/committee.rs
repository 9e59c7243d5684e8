//! The validators of an epoch, with their keys: who signs checkpoints.
//!
//! Invariant: keys follow from the network's name, the epoch and the place, so that a chain that is
//! made again has the same ones, and another network has others.

use anyhow::{Context, Result};
use sui_crypto::bls12381::{Bls12381PrivateKey, ValidatorCommitteeSignatureAggregator};
use sui_sdk_types::{
    CheckpointSummary, EpochId, ValidatorAggregatedSignature, ValidatorCommittee,
    ValidatorCommitteeMember,
};

use crate::value::named_digest;

/// How many validators an epoch has.
const VALIDATORS: usize = 4;
/// Their stakes add up to this, as on the chain.
const TOTAL_STAKE: u64 = 10_000;

/// The validators of one epoch.
pub(crate) struct Committee {
    public: ValidatorCommittee,
    keys: Vec<Bls12381PrivateKey>,
}

impl Committee {
    /// The committee of `epoch` on the network of that name.
    pub(crate) fn new(network: &str, epoch: EpochId) -> Result<Self> {
        let mut keys = Vec::with_capacity(VALIDATORS);
        for place in 0..VALIDATORS {
            let mut bytes = named_digest(&format!("validator {network} {epoch} {place}"));
            // Below the order of the group.
            bytes = mask_first_byte(bytes);
            let key = Bls12381PrivateKey::new(bytes.into_inner()).context("a BLS key")?;
            keys.push(key);
        }
        keys.sort_by_key(|key| *key.public_key().inner());
        let members = keys
            .iter()
            .map(|key| ValidatorCommitteeMember {
                public_key: key.public_key(),
                stake: TOTAL_STAKE / VALIDATORS as u64,
            })
            .collect();
        Ok(Self {
            public: ValidatorCommittee { epoch, members },
            keys,
        })
    }

    /// What everybody knows of it.
    pub(crate) fn public(&self) -> &ValidatorCommittee {
        &self.public
    }

    /// A quorum's signature, of all but the last member.
    pub(crate) fn sign(&self, summary: &CheckpointSummary) -> Result<ValidatorAggregatedSignature> {
        let mut aggregator = ValidatorCommitteeSignatureAggregator::new_checkpoint_summary(
            self.public.clone(),
            summary,
        )?;
        for key in self.keys.iter().take(VALIDATORS - 1) {
            aggregator.add_signature(key.sign_checkpoint_summary(summary))?;
        }
        Ok(aggregator.finish()?)
    }
}

fn mask_first_byte(digest: sui_sdk_types::Digest) -> sui_sdk_types::Digest {
    let mut bytes = digest.into_inner();
    bytes[0] &= 0x3f;
    sui_sdk_types::Digest::new(bytes)
}
