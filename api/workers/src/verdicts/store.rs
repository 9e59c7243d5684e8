//! The rows of the verdicts in the store: read with their revisions, written by compare-and-swap.
//!
//! Invariant: a verdict is written only over what stood there when its judge was asked, and only if
//! no eviction of its node came between.

use bytes::Bytes;
use nautilus_machine::{
    Command, Compare, KeyRange, KeyValue, Kv, Operation, Outcome, Proposal, Put, RangeError,
    RangeRequest, Revision, Txn,
};

use super::row::{self, BoundKey, VerdictRow};
use crate::limits;
use crate::token::TokenHash;

/// Where a verdict stands, as of before its judge is asked.
pub(crate) struct Place {
    key: String,
    evicted_key: String,
    evicted: Revision,
    present: Revision,
    /// The row and its revision.
    pub(crate) row: Option<(VerdictRow, Revision)>,
}

/// What came of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is in the store since this revision.
    At(Revision),
    /// Somebody else wrote first.
    Overtaken,
    /// No quorum took it in time.
    No,
}

/// The revision at which verdicts about a node were ended last; 0: never.
pub(crate) fn evicted_at(kv: &dyn Kv, node_id: &str) -> Result<Revision, RangeError> {
    Ok(single(kv, &row::evicted_key(node_id))?.map_or(0, |kv| kv.mod_revision))
}

impl Place {
    /// Reads from this node's state.
    pub(crate) fn read(kv: &dyn Kv, node_id: &str, token: &TokenHash) -> Result<Self, RangeError> {
        let key = row::verdict_key(node_id, token);
        let evicted_key = row::evicted_key(node_id);
        // In this order: an eviction between the two reads is noticed by the row or by the fence.
        let evicted = evicted_at(kv, node_id)?;
        let found = single(kv, &key)?;
        let present = found.as_ref().map_or(0, |kv| kv.mod_revision);
        let row = found.and_then(|kv| match row::read::<VerdictRow>(&kv) {
            Ok(row) => Some((row, kv.mod_revision)),
            Err(error) => {
                tracing::error!(%error, "a verdict is judged anew");
                None
            }
        });
        Ok(Self {
            key,
            evicted_key,
            evicted,
            present,
            row,
        })
    }

    /// The row's revision, 0 where there is none.
    pub(crate) fn revision(&self) -> Revision {
        self.present
    }

    /// Writes `row` in this place.
    pub(crate) async fn write(self, kv: &dyn Kv, row: &VerdictRow) -> Written {
        let compare = vec![
            Compare::mod_revision(self.key.clone(), self.present),
            Compare::mod_revision(self.evicted_key, self.evicted),
        ];
        put(kv, compare, self.key, row::write(row)).await
    }
}

/// Binds a token to a key, over the binding of `revision`.
pub(crate) async fn bind(
    kv: &dyn Kv,
    token: &TokenHash,
    bound: &BoundKey,
    revision: Revision,
) -> Written {
    let key = row::bound_key(token);
    let compare = vec![Compare::mod_revision(key.clone(), revision)];
    put(kv, compare, key, row::write(bound)).await
}

/// What a token is bound to, behind a barrier.
pub(crate) async fn read_bound(kv: &dyn Kv, token: &TokenHash) -> Option<(BoundKey, Revision)> {
    let barrier = tokio::time::timeout(limits::LEADER_WAIT, kv.read_barrier()).await;
    barrier.ok()?.ok()?;
    let found = single(kv, &row::bound_key(token)).ok()??;
    let bound = row::read(&found).inspect_err(|error| tracing::error!(%error, "a bound key"));
    Some((bound.ok()?, found.mod_revision))
}

async fn put(kv: &dyn Kv, compare: Vec<Compare>, key: String, value: Bytes) -> Written {
    let txn = Txn {
        compare,
        then: vec![Operation::Put(Put::new(key, value))],
        otherwise: Vec::new(),
    };
    let proposed = kv.propose(Proposal::new(Command::Txn(txn)));
    match tokio::time::timeout(limits::LEADER_WAIT, proposed).await {
        Ok(Ok(applied)) => match applied.outcome {
            Outcome::Txn {
                succeeded: true, ..
            } => Written::At(applied.revision),
            Outcome::Txn { .. } => Written::Overtaken,
            other => {
                tracing::error!(?other, "a verdict's row was not taken");
                Written::No
            }
        },
        Ok(Err(error)) => {
            tracing::debug!(%error, "a verdict's row was not written");
            Written::No
        }
        Err(_) => Written::No,
    }
}

fn single(kv: &dyn Kv, key: &str) -> Result<Option<KeyValue>, RangeError> {
    let request = RangeRequest::newest(KeyRange::single(key.to_owned()));
    Ok(kv.range(&request)?.kvs.into_iter().next())
}
