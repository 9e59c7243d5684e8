//! Putting an end to verdicts at once, when the chain says that a stake is gone or that what is
//! known is out of date.
//!
//! Invariant: a judgement that was under way when its node was evicted is not written: the row of
//! the eviction fences it.

use nautilus_machine::{
    Command, Operation, Proposal, ProposeError, Put, RangeError, RangeRequest, Revision, Txn,
};

use super::Verdicts;
use super::row::{self, VerdictRow};
use crate::chain::ChainEvidence;
use crate::judge::Verdict;
use crate::limits;

/// Why verdicts end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// The stake was slashed: tokens of the node are refused from now on.
    Slashed,
    /// The stake was taken back: likewise.
    Withdrawn,
    /// Something changed: the judge is asked again at the next use.
    Stale,
}

/// Why verdicts could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum EvictError {
    /// The rows can't be read.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// No quorum took it.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

impl Eviction {
    fn verdict(self) -> Verdict {
        match self {
            Self::Slashed => Verdict::Slashed,
            Self::Withdrawn => Verdict::Withdrawn,
            Self::Stale => Verdict::Unavailable,
        }
    }
}

impl Verdicts {
    /// Ends every verdict about `node_id`, on every node of the quorum. Doing so again is harmless:
    /// whoever acts on an event does this first and notes the event after it.
    pub async fn evict_node(
        &self,
        node_id: &str,
        why: Eviction,
        evidence: Option<&ChainEvidence>,
    ) -> Result<(), EvictError> {
        let row = row::write(&VerdictRow {
            verdict: why.verdict(),
            evidence: evidence.cloned(),
            judged_at_ms: self.clock.unix_ms(),
        });
        let fence = row::evicted_key(node_id);
        let mut evicted_at = Revision::MAX;
        loop {
            let found = self.kv.range(&RangeRequest {
                keys_only: true,
                ..RangeRequest::newest(row::of_node(node_id))
            })?;
            // Written between the look and the eviction: after the fence none can come.
            let tokens = found
                .kvs
                .into_iter()
                .filter(|kv| kv.mod_revision < evicted_at && kv.key != fence.as_bytes());
            let mut then: Vec<Operation> = tokens
                .take(limits::EVICTIONS_PER_PROPOSAL)
                .map(|kv| Operation::Put(Put::new(kv.key, row.clone())))
                .collect();
            if evicted_at == Revision::MAX {
                then.push(Operation::Put(Put::new(fence.clone(), row.clone())));
            } else if then.is_empty() {
                tracing::info!(node_id, ?why, "verdicts about a node were ended");
                return Ok(());
            }
            let txn = Txn {
                then,
                ..Txn::default()
            };
            let applied = self.kv.propose(Proposal::new(Command::Txn(txn))).await?;
            evicted_at = evicted_at.min(applied.revision);
        }
    }
}
