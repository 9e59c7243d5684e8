//! The keys of this node's disk: which generations it needs, sealing it anew, and the
//! quorum's secrets from another member.
//!
//! Invariant: secrets come from, and go to, attested members only, encrypted to a key of
//! the request; who gets them is for the composition root to say.

use std::sync::Arc;
use std::time::Duration;

use nautilus_attest_secret::EphemeralKey;
use nautilus_machine::NodeId;
use nautilus_store::{Generation, Outcome, Pace};
use zeroize::Zeroizing;

use crate::node_core::Core;
use crate::peers::{Lane, chain};
use crate::wire::v1;

/// What the envelope of secrets that are handed over is for.
pub(crate) const HAND_OVER_PURPOSE: &[u8] = b"nautilus hand over v1";
/// How long a member may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Why keys did not come, or the disk was not sealed anew.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeysError {
    /// The disk, or what is on it.
    #[error("{0}")]
    Storage(String),
    /// The member asked does not answer.
    #[error("node {node_id} does not hand its keys over: {reason}")]
    Unavailable {
        /// Who was asked.
        node_id: NodeId,
        /// Why not.
        reason: String,
    },
    /// It refuses.
    #[error("node {node_id} refuses to hand its keys over: {reason}")]
    Refused {
        /// Who was asked.
        node_id: NodeId,
        /// In its words.
        reason: String,
    },
}

/// A handle on the keys of a running node.
#[derive(Clone)]
pub struct NodeKeys {
    core: Arc<Core>,
}

fn storage(error: impl std::fmt::Display) -> KeysError {
    KeysError::Storage(error.to_string())
}

impl NodeKeys {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// The oldest generation that something on this node's disk needs.
    pub fn oldest_generation(&self) -> Result<Generation, KeysError> {
        let machinery = &self.core.machinery;
        let current = machinery.store.keyring().current();
        let snapshots = machinery.snapshots.oldest_generation(current);
        let store = machinery.store.oldest_generation().map_err(storage)?;
        let log = self.core.log.oldest_generation();
        Ok(snapshots.map_err(storage)?.min(store).min(log))
    }

    /// How many data keys the log and the rows have.
    pub fn epochs(&self) -> usize {
        self.core.log.epochs() + self.core.store().epochs()
    }

    /// About how many bytes there are to be gone through.
    pub fn size_bytes(&self) -> u64 {
        let snapshot = self.core.machinery.snapshots.current();
        let snapshot = snapshot.map_or(0, |file| file.size_bytes);
        self.core.store().sizes().total_bytes + self.core.log.size_bytes() + snapshot
    }

    /// Seals log, rows and snapshots under the current generation. Blocks for as long as
    /// they are large; everything else goes on. Whatever breaks it off, the next call goes
    /// on where work is left; the log needs to be written to between two calls.
    pub fn reencrypt(&self, pace: &mut Pace<'_>) -> Result<Outcome, KeysError> {
        let machinery = &self.core.machinery;
        self.core.lives.seal_anew().map_err(storage)?;
        let log = self.core.log.reencrypt(pace).map_err(storage)?;
        let store = machinery.store.reencrypt(pace).map_err(storage)?;
        let snapshots = machinery.snapshots.reencrypt(&machinery.store, pace);
        let all = [log, store, snapshots.map_err(storage)?];
        Ok(if all.contains(&Outcome::Unfinished) {
            Outcome::Unfinished
        } else {
            Outcome::Done
        })
    }

    /// Asks a member for the quorum's secrets as it holds them.
    pub async fn ask(&self, node_id: NodeId) -> Result<Zeroizing<Vec<u8>>, KeysError> {
        use v1::hand_over_keys_answer::Result as Wire;
        let mut client = self.core.peers.client(node_id, Lane::Ask);
        let unavailable = |reason: String| KeysError::Unavailable { node_id, reason };
        let key = EphemeralKey::generate().map_err(|error| unavailable(error.to_string()))?;
        let call = client.hand_over_keys(v1::HandOverKeysRequest {
            secrets_key: key.public_key().to_vec().into(),
        });
        let answer = tokio::time::timeout(ANSWER, call)
            .await
            .map_err(|_| unavailable("no answer in time".to_owned()))?
            .map_err(|status| unavailable(chain(&status)))?;
        match answer.into_inner().result {
            Some(Wire::Secrets(sealed)) => key
                .open(HAND_OVER_PURPOSE, &sealed)
                .map_err(|error| unavailable(error.to_string())),
            Some(Wire::Refused(reason)) => Err(KeysError::Refused { node_id, reason }),
            None => Err(unavailable("an empty answer".to_owned())),
        }
    }
}
