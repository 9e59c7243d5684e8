//! Following the rows from this node's start, and the leader's sweeping of those that are spent.
//!
//! Invariants
//! - Rows are read behind a barrier before anybody is admitted, and again after every loss of the
//!   watch: no binding or eviction that was acknowledged before is overlooked.
//! - A row that still decides anything is not swept; the key that a token is bound to goes with
//!   the worker that the token is registered for.

use std::sync::Arc;

use bytes::Bytes;
use nautilus_machine::{
    Command, Compare, Event, EventKind, KeyRange, KeyValue, Kv, Operation, Proposal, RangeError,
    RangeRequest, Txn, WatchError, WatchRequest,
};
use tokio_util::sync::CancellationToken;

use super::court::Court;
use super::row::{self, BoundKey, PREFIX, RowKey, VerdictRow};
use super::{Verdicts, case_id, record_size};
use crate::limits;
use crate::roster::millis;
use crate::rows_store::{node_of_token, token_key};
use crate::scan::scan;

/// Why following began anew.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Range(#[from] RangeError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error("no quorum: {0}")]
    Unavailable(String),
}

impl Verdicts {
    /// Reads and follows the rows, and sweeps them while this node leads. Ends with `shutdown`,
    /// after the questions that are under way.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let follow = async {
            loop {
                let Err(lost) = self.follow().await;
                tracing::warn!(error = %lost, "the verdicts are read again");
                self.followed.send_replace(false);
                tokio::time::sleep(limits::CHANGE_RETRY).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = follow => {}
            () = self.sweep() => {}
            _ = self.keep_condition() => {}
        }
        self.questions.close();
        self.questions.wait().await;
    }

    async fn follow(&self) -> Result<std::convert::Infallible, Lost> {
        let barrier = self.kv.read_barrier().await;
        let revision = barrier.map_err(|error| Lost::Unavailable(error.to_string()))?;
        let reader = Arc::clone(&self.kv);
        let reading = tokio::task::spawn_blocking(move || {
            let mut rows = Vec::new();
            scan(&*reader, KeyRange::prefix(PREFIX), revision, |kv| {
                rows.push(kv.clone());
            })?;
            Ok::<_, RangeError>(rows)
        });
        let rows = reading
            .await
            .map_err(|error| Lost::Unavailable(error.to_string()))??;
        {
            let mut court = self.court.write();
            court.clear();
            rows.iter().for_each(|kv| self.put(&mut court, kv));
            record_size(&court);
        }
        let mut watcher = self.kv.watch(WatchRequest {
            range: KeyRange::prefix(PREFIX),
            from: Some(revision + 1),
            previous: false,
        })?;
        self.followed.send_replace(true);
        loop {
            let events = watcher.next().await?;
            let mut court = self.court.write();
            events
                .iter()
                .for_each(|event| self.event(&mut court, event));
            record_size(&court);
        }
    }

    fn event(&self, court: &mut Court, event: &Event) {
        match event.kind {
            EventKind::Put => self.put(court, &event.kv),
            EventKind::Delete => match RowKey::parse(&event.kv.key) {
                Some(RowKey::Verdict { node_id, token }) => {
                    court.row_deleted(&case_id(&token, node_id), event.revision());
                }
                Some(RowKey::Key { token }) => court.key_deleted(&token, event.revision()),
                Some(RowKey::Evicted { .. }) | None => {}
            },
        }
    }

    fn put(&self, court: &mut Court, kv: &KeyValue) {
        let now = self.now();
        let put = match RowKey::parse(&kv.key) {
            Some(RowKey::Verdict { node_id, token }) => row::read(kv).map(|row: VerdictRow| {
                let case = case_id(&token, node_id);
                court.row_put(case, row.verdict, row.judged_at_ms, kv.mod_revision, now);
            }),
            Some(RowKey::Key { token }) => {
                row::read(kv).map(|bound: BoundKey| court.key_put(token, bound, kv.mod_revision))
            }
            // What no row says may be about that node too.
            Some(RowKey::Evicted { .. }) => {
                court.forget_passing_active();
                Ok(())
            }
            None => Err("a row of the verdicts is of no known kind".to_owned()),
        };
        if let Err(error) = put {
            tracing::error!(%error, "a row of the verdicts is left out");
        }
    }

    /// Looks at one page of rows at a time, all the way round, and deletes those that are spent.
    async fn sweep(&self) {
        let mut from = Bytes::from_static(PREFIX.as_bytes());
        loop {
            tokio::time::sleep(limits::SWEEP_PAUSE).await;
            let leadership = self.kv.leadership();
            if !leadership.is_self {
                continue;
            }
            let reader = Arc::clone(&self.kv);
            let start = from.clone();
            let reading = tokio::task::spawn_blocking(move || page(&*reader, start));
            let Ok(Ok((rows, next))) = reading.await else {
                continue;
            };
            from = next.unwrap_or(Bytes::from_static(PREFIX.as_bytes()));
            let spent = rows.iter().filter(|kv| self.is_spent(kv));
            let then: Vec<Operation> = spent.filter_map(delete).collect();
            if then.is_empty() {
                continue;
            }
            let swept = then.len();
            let txn = Txn {
                then,
                ..Txn::default()
            };
            let proposal = Proposal {
                guard_term: Some(leadership.term),
                ..Proposal::new(Command::Txn(txn))
            };
            match self.kv.propose(proposal).await {
                Ok(_) => tracing::debug!(swept, "spent verdicts were deleted"),
                Err(error) => tracing::debug!(%error, "spent verdicts stay for now"),
            }
        }
    }

    /// Whether a row decides nothing any more.
    fn is_spent(&self, kv: &KeyValue) -> bool {
        let now_ms = self.clock.unix_ms();
        // Longer than any use of a verdict.
        let kept_ms = millis(self.terms.grace.max(self.terms.lifetime))
            .saturating_add(millis(limits::SPENT_AFTER));
        let since_ms = match RowKey::parse(&kv.key) {
            Some(RowKey::Verdict { .. } | RowKey::Evicted { .. }) => {
                row::read(kv).map(|row: VerdictRow| row.judged_at_ms)
            }
            Some(RowKey::Key { token }) => match node_of_token(&*self.kv, &token) {
                Ok(None) => row::read(kv).map(|bound: BoundKey| {
                    let end_s = bound.token_expires_at_s.unwrap_or(0);
                    bound.bound_at_ms.max(end_s.saturating_mul(1000))
                }),
                Ok(Some(_)) | Err(_) => return false,
            },
            None => return false,
        };
        since_ms.is_ok_and(|since_ms| now_ms >= since_ms.saturating_add(kept_ms))
    }
}

/// Deletes a row, if it is still the one that was read and its token is registered for nobody.
fn delete(kv: &KeyValue) -> Option<Operation> {
    let mut compare = vec![Compare::mod_revision(kv.key.clone(), kv.mod_revision)];
    if let RowKey::Key { token } = RowKey::parse(&kv.key)? {
        compare.push(Compare::mod_revision(token_key(&token), 0));
    }
    Some(Operation::Txn(Txn {
        compare,
        then: vec![Operation::Delete {
            range: KeyRange::single(kv.key.clone()),
            prev_kv: false,
        }],
        otherwise: Vec::new(),
    }))
}

/// One page of rows from `start` on, and where the next one begins.
fn page(kv: &dyn Kv, start: Bytes) -> Result<(Vec<KeyValue>, Option<Bytes>), RangeError> {
    let range = KeyRange {
        start,
        ..KeyRange::prefix(PREFIX)
    };
    let page = kv.range(&RangeRequest {
        limit: Some(limits::ROWS_PER_PAGE),
        ..RangeRequest::newest(range)
    })?;
    let next = page.more.then(|| after(&page.kvs)).flatten();
    Ok((page.kvs, next))
}

/// The first key after the last of a page.
fn after(kvs: &[KeyValue]) -> Option<Bytes> {
    let mut next = kvs.last()?.key.to_vec();
    next.push(0);
    Some(next.into())
}
