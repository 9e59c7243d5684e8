//! What the leader clears away of workers that left without a sign: rows whose `Node` somebody
//! deleted when nothing could change about them any more, and rows that bar nodes whose
//! certificates have ended by themselves.
//!
//! Invariants
//! - A worker is removed only while it is silent and has no `Node`.
//! - A node stays barred for as long as a certificate of it may live, whether or not it is removed.

use std::sync::Arc;

use bytes::Bytes;
use nautilus_machine::{
    Command, Compare, KeyRange, KeyValue, Kv, Operation, Proposal, ProposeError, RangeRequest, Txn,
};

use crate::clock::Clock;
use crate::lifecycle::Phase;
use crate::limits;
use crate::removal::{BARRED_PREFIX, Barred};
use crate::roster::millis;
use crate::row::WorkerRow;
use crate::rows_store::{StoreError, Stored, delete, node_key};

/// One page of rows at a time, all the way round, as the leader of `term`. Ends by being dropped.
pub(crate) async fn sweep(kv: &Arc<dyn Kv>, clock: &Arc<dyn Clock>, term: u64) {
    let mut workers = Round::over(WorkerRow::all());
    let mut barred = Round::over(KeyRange::prefix(BARRED_PREFIX));
    loop {
        tokio::time::sleep(limits::SWEEP_PAUSE).await;
        let (reader, now_ms) = (Arc::clone(kv), clock.unix_ms());
        let looking = tokio::task::spawn_blocking(move || {
            let left = workers.look(&*reader, left);
            let spent = barred.look(&*reader, |kv, row| spent(kv, row, now_ms));
            (workers, barred, left, spent)
        });
        let Ok((next_workers, next_barred, left, spent)) = looking.await else {
            return;
        };
        (workers, barred) = (next_workers, next_barred);
        for found in [left, spent] {
            let swept = match found {
                Ok(found) => propose(&**kv, term, found)
                    .await
                    .map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = swept {
                tracing::debug!(error, "rows of workers that left stay for now");
            }
        }
    }
}

/// The pages of a range, again and again.
struct Round {
    range: KeyRange,
    from: Bytes,
}

impl Round {
    fn over(range: KeyRange) -> Self {
        let from = range.start.clone();
        Self { range, from }
    }

    /// What `look` wants to do about the rows of the next page.
    fn look(
        &mut self,
        kv: &dyn Kv,
        look: impl Fn(&dyn Kv, &KeyValue) -> Result<Option<Txn>, StoreError>,
    ) -> Result<Vec<Txn>, StoreError> {
        let range = KeyRange {
            start: self.from.clone(),
            ..self.range.clone()
        };
        let page = kv.range(&RangeRequest {
            limit: Some(limits::ROWS_PER_PAGE),
            ..RangeRequest::newest(range)
        })?;
        self.from = match page.kvs.last() {
            Some(last) if page.more => {
                let mut next = last.key.to_vec();
                next.push(0);
                next.into()
            }
            _ => self.range.start.clone(),
        };
        let found = page.kvs.iter().map(|row| look(kv, row));
        found.filter_map(Result::transpose).collect()
    }
}

/// Removes a silent worker that has no `Node`. Rows that can't be read were reported by their
/// readers.
fn left(kv: &dyn Kv, row: &KeyValue) -> Result<Option<Txn>, StoreError> {
    let Ok(row) = WorkerRow::decode(row) else {
        return Ok(None);
    };
    if !matches!(row.phase, Phase::Lost | Phase::Evicted) {
        return Ok(None);
    }
    let stored = Stored::read(kv, &row.node_id)?;
    let is_silent = stored.row() == Some(&row);
    Ok((is_silent && !stored.has_node()).then(|| stored.remove()))
}

/// Lets a name be used again of which no certificate lives and no `Node` stands.
fn spent(kv: &dyn Kv, row: &KeyValue, now_ms: u64) -> Result<Option<Txn>, StoreError> {
    let barred: Option<Barred> = serde_json::from_slice(&row.value).ok();
    let name = std::str::from_utf8(&row.key).ok();
    let name = name.and_then(|key| key.strip_prefix(BARRED_PREFIX));
    let (Some(barred), Some(name)) = (barred, name) else {
        return Ok(None);
    };
    let end_ms = barred
        .from_ms
        .saturating_add(millis(limits::NODE_CERTIFICATE_LIFETIME));
    if now_ms < end_ms {
        return Ok(None);
    }
    let node = node_key(name);
    let request = RangeRequest {
        count_only: true,
        ..RangeRequest::newest(KeyRange::single(node.clone()))
    };
    if kv.range(&request)?.count > 0 {
        return Ok(None);
    }
    let key = String::from_utf8_lossy(&row.key).into_owned();
    Ok(Some(Txn {
        compare: vec![
            Compare::mod_revision(key.clone(), row.mod_revision),
            Compare::mod_revision(node, 0),
        ],
        then: vec![delete(key)],
        otherwise: Vec::new(),
    }))
}

/// Proposes changes that have nothing to do with each other.
async fn propose(kv: &dyn Kv, term: u64, found: Vec<Txn>) -> Result<(), ProposeError> {
    for some in found.chunks(limits::CHANGES_PER_PROPOSAL) {
        let txn = Txn {
            then: some.iter().cloned().map(Operation::Txn).collect(),
            ..Txn::default()
        };
        let proposal = Proposal {
            guard_term: Some(term),
            ..Proposal::new(Command::Txn(txn))
        };
        kv.propose(proposal).await?;
        tracing::info!(rows = some.len(), "rows of workers that left were cleared");
    }
    Ok(())
}
