//! The leader's way along the chain: pages from the source, each applied in one transaction
//! with the cursor.
//!
//! Invariants
//! - Every transaction carries the term in which this node came to lead.
//! - A position that the full nodes don't know is never passed over in silence: the follower
//!   stands still and says so until they know it, or an operator names another that they know.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use nautilus_machine::{Command, Outcome, Proposal, ProposeError, RangeError, Refusal, Revision};

use super::batch::{Batch, Row};
use super::ledger::{LEDGER_KEY, Ledger};
use super::limits::{
    APPLY_ATTEMPTS, EVENTS_PER_PAGE, EVICTIONS_AT_ONCE, FIRST_RETRY, LONGEST_RETRY,
    QUIET_CHECKPOINTS,
};
use super::status::{self, Following};
use super::{Events, outcome};
use crate::chain::{ChainError, ChainEvent, Cursor, EventPage};
use crate::rows_store::{StoreError, Writing};
use crate::verdicts::{EvictError, Eviction};

/// Follows the chain as the leader of `term`; returns when it is deposed.
pub(super) async fn follow(events: &Events, term: u64) {
    let mut follower = Follower {
        events,
        term,
        page_limit: EVENTS_PER_PAGE,
        quiet: None,
        failures: 0,
        told: None,
    };
    loop {
        let pause = match follower.step().await {
            Ok(Step::More) => {
                follower.failures = 0;
                continue;
            }
            Ok(Step::Level) => {
                follower.failures = 0;
                events.settings.poll_interval
            }
            Err(Setback::Deposed) => return,
            Err(setback) => {
                follower.failures = follower.failures.saturating_add(1);
                follower.tell_of(setback).await
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = events.hinted.notified() => {}
        }
    }
}

/// Nothing is measured where nothing is followed.
pub(super) fn reset_metrics() {
    metrics::gauge!("nautilus_sui_cursor_checkpoint").set(0.0);
    metrics::gauge!("nautilus_sui_event_lag_seconds").set(0.0);
    metrics::gauge!("nautilus_sui_cursor_lost").set(0.0);
}

struct Follower<'a> {
    events: &'a Events,
    term: u64,
    /// Events asked for at once: fewer where many do not fit into a transaction.
    page_limit: usize,
    /// Read since the ledger stood at the first of both, and nothing found: not worth a write.
    quiet: Option<(Option<Cursor>, Cursor)>,
    /// In a row.
    failures: u32,
    told: Option<Following>,
}

enum Step {
    /// There is more to read.
    More,
    /// Everything there is was applied.
    Level,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Setback {
    #[error("the log is in a newer term")]
    Deposed,
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("the verdicts about {node_id} can't be ended: {error}")]
    Eviction { node_id: String, error: EvictError },
    #[error("no quorum: {0}")]
    Quorum(String),
    #[error("rows can't be read: {0}")]
    Store(#[from] StoreError),
}

impl From<RangeError> for Setback {
    fn from(error: RangeError) -> Self {
        Self::Store(error.into())
    }
}

impl Follower<'_> {
    /// Asks for one page, and applies it.
    async fn step(&mut self) -> Result<Step, Setback> {
        let barrier = self.events.kv.read_barrier().await;
        barrier.map_err(|error| Setback::Quorum(error.to_string()))?;
        let row = Row::<Ledger>::read(&*self.events.kv, LEDGER_KEY)?;
        let mut ledger = row.value.unwrap_or_default();
        let asked = match &self.quiet {
            Some((stood, read)) if *stood == ledger.cursor => Some(read.clone()),
            _ => ledger.cursor.clone(),
        };
        let mut is_resumed = false;
        let page = match self.page(asked.clone()).await {
            Ok(page) => page,
            Err(lost @ ChainError::LostCursor { .. }) => {
                let other = &self.events.settings.resume_at;
                let other = other.clone().filter(|other| ledger.is_before(other));
                let Some(other) = other else {
                    return Err(lost.into());
                };
                // Nothing is passed over before the full nodes know where to go on.
                let page = self.page(Some(other.clone())).await?;
                tracing::warn!(lost = ?asked, at = ?other, "goes on where the operator says: what lies between is not applied");
                ledger.go_on_at(other);
                is_resumed = true;
                page
            }
            Err(error) => return Err(error.into()),
        };
        self.events.verdicts.chain_answered(true);
        self.tell(Following::Connected).await;
        let onward = if page.more { Step::More } else { Step::Level };
        if page.events.is_empty() && !is_resumed && is_near(ledger.cursor.as_ref(), &page.next) {
            record_checkpoint(&page);
            self.quiet = Some((ledger.cursor, page.next));
            return Ok(onward);
        }
        match self.apply(row.revision, ledger, &page).await? {
            Applied::Done => self.page_limit = (self.page_limit * 2).min(EVENTS_PER_PAGE),
            Applied::Overtaken => return Ok(Step::More),
            Applied::TooLarge if self.page_limit > 1 => {
                self.page_limit /= 2;
                return Ok(Step::More);
            }
            Applied::TooLarge => {
                return Err(Setback::Quorum(
                    "not even one event can be applied".to_owned(),
                ));
            }
        }
        self.quiet = None;
        Ok(onward)
    }

    async fn page(&self, after: Option<Cursor>) -> Result<EventPage, ChainError> {
        self.events.source.page(after, self.page_limit).await
    }

    /// Applies a page that begins where the ledger, read at that revision, stands.
    async fn apply(
        &self,
        mut revision: Revision,
        mut ledger: Ledger,
        page: &EventPage,
    ) -> Result<Applied, Setback> {
        let kv = &*self.events.kv;
        for _ in 0..APPLY_ATTEMPTS {
            let mut next = ledger.clone();
            let fresh = next.turn(page);
            let mut batch = Batch::new(kv, next, revision)?;
            let mut outcomes = Vec::with_capacity(page.events.len());
            for (event, fresh) in page.events.iter().zip(fresh) {
                outcomes.push(if fresh {
                    batch.take(event)?
                } else {
                    outcome::DUPLICATE
                });
            }
            match self.events.commit(batch, Some(self.term)).await? {
                Committed::Done => {
                    self.count(page, &outcomes);
                    return Ok(Applied::Done);
                }
                Committed::TooLarge => return Ok(Applied::TooLarge),
                Committed::Overtaken => {}
            }
            // Somebody else wrote one of the rows. The page still counts if it was not the
            // ledger's position that moved.
            let row = Row::<Ledger>::read(kv, LEDGER_KEY)?;
            let now = row.value.unwrap_or_default();
            if now != ledger {
                return Ok(Applied::Overtaken);
            }
            (revision, ledger) = (row.revision, now);
        }
        Ok(Applied::TooLarge)
    }

    fn count(&self, page: &EventPage, outcomes: &[&'static str]) {
        for (event, outcome) in page.events.iter().zip(outcomes) {
            count(event, outcome);
        }
        if let Some(last) = page.events.last() {
            let now_ms = self.events.clock.unix_ms();
            let lag_ms = now_ms.saturating_sub(last.timestamp_ms);
            metrics::gauge!("nautilus_sui_event_lag_seconds").set(lag_ms as f64 / 1000.0);
        }
        record_checkpoint(page);
    }

    /// Says what is wrong, and for how long to wait.
    async fn tell_of(&mut self, setback: Setback) -> Duration {
        let said = setback.to_string();
        match setback {
            Setback::Chain(ChainError::LostCursor { .. }) => {
                let is_new = !matches!(self.told, Some(Following::Lost(_)));
                if is_new {
                    tracing::error!(
                        reason = said,
                        "the chain's events can't be followed: nothing is passed over until a full \
                         node knows the position again, or sui.events_from names a later one that they know"
                    );
                }
                self.tell(Following::Lost(said)).await;
            }
            Setback::Chain(ChainError::OutOfReach(_)) => {
                if self.failures == 1 {
                    tracing::warn!(reason = said, "the chain's events wait");
                }
                self.events.verdicts.chain_answered(false);
                self.tell(Following::Unreachable(said)).await;
            }
            other => tracing::warn!(reason = %other, "the chain's events wait"),
        }
        retry_pause(self.failures)
    }

    async fn tell(&mut self, following: Following) {
        let is_lost = matches!(following, Following::Lost(_));
        metrics::gauge!("nautilus_sui_cursor_lost").set(f64::from(u8::from(is_lost)));
        // A reason's wording may change with every failure: the row does not.
        let is_same =
            |told: &Following| std::mem::discriminant(told) == std::mem::discriminant(&following);
        if self.told.as_ref().is_some_and(is_same) {
            return;
        }
        let now_ms = self.events.clock.unix_ms();
        match status::tell(&*self.events.kv, self.term, &following, now_ms).await {
            Ok(()) => self.told = Some(following),
            Err(reason) => {
                tracing::debug!(reason, "the quorum did not hear how the chain is followed");
            }
        }
    }
}

/// What became of a page.
enum Applied {
    Done,
    /// Another has moved the ledger: it is read anew.
    Overtaken,
    /// Fewer events at once may fit.
    TooLarge,
}

/// What became of a transaction.
pub(super) enum Committed {
    Done,
    Overtaken,
    TooLarge,
}

impl Events {
    async fn take_back(&self, evictions: &BTreeMap<String, Eviction>) -> Result<(), Setback> {
        stream::iter(evictions.clone())
            .map(|(node_id, why)| async move {
                let ended = self.verdicts.evict_node(&node_id, why, None).await;
                ended.map_err(|error| Setback::Eviction { node_id, error })
            })
            .buffer_unordered(EVICTIONS_AT_ONCE)
            .try_collect()
            .await
    }

    /// Takes verdicts back, then proposes the batch's transaction.
    pub(super) async fn commit(
        &self,
        batch: Batch<'_>,
        guard_term: Option<u64>,
    ) -> Result<Committed, Setback> {
        // Before, so that no verdict outlives what took it; and after, for a judge that reads what
        // this changes may have judged by the former state in between.
        let evictions = batch.evictions().clone();
        self.take_back(&evictions).await?;
        let txn = batch.into_txn(&Writing {
            unix_ms: self.clock.unix_ms(),
            drain: self.settings.drain,
            told: None,
        })?;
        let proposal = Proposal {
            guard_term,
            ..Proposal::new(Command::Txn(txn))
        };
        match self.kv.propose(proposal).await {
            Ok(applied) => match applied.outcome {
                Outcome::Txn {
                    succeeded: true, ..
                } => {
                    self.take_back(&evictions).await?;
                    Ok(Committed::Done)
                }
                Outcome::Txn {
                    succeeded: false, ..
                } => Ok(Committed::Overtaken),
                Outcome::Refused(Refusal::Fenced { .. }) => Err(Setback::Deposed),
                // Two of the events write one key.
                Outcome::Refused(Refusal::DuplicateKey) => Ok(Committed::TooLarge),
                other => Err(Setback::Quorum(format!("unexpected outcome {other:?}"))),
            },
            Err(ProposeError::TooLarge { .. }) => Ok(Committed::TooLarge),
            // What came of it shows in the ledger, which is read anew.
            Err(error) => Err(Setback::Quorum(error.to_string())),
        }
    }
}

pub(super) fn count(event: &ChainEvent, outcome: &'static str) {
    metrics::counter!("nautilus_sui_events_total",
        "event" => known_name(&event.name), "outcome" => outcome)
    .increment(1);
}

/// Names of events are the package's: metrics have a label for those of ours.
fn known_name(name: &str) -> &'static str {
    const KNOWN: [&str; 7] = [
        "WorkerRegisteredEvent",
        "WorkerStatusChangedEvent",
        "StakeDepositedEvent",
        "JoinTokenSetEvent",
        "K8sAPIRequestScheduledEvent",
        "K8sAPIResultEvent",
        "WorkerAssignedEvent",
    ];
    KNOWN
        .into_iter()
        .find(|known| *known == name)
        .unwrap_or("other")
}

fn record_checkpoint(page: &EventPage) {
    if let Some(checkpoint) = page.next.checkpoint {
        metrics::gauge!("nautilus_sui_cursor_checkpoint").set(checkpoint as f64);
    }
}

/// Whether a position is so little beyond the ledger's that a new leader may well read it again.
fn is_near(stands: Option<&Cursor>, read: &Cursor) -> bool {
    let Some(stands) = stands else { return false };
    stands.event == read.event
        && match (stands.checkpoint, read.checkpoint) {
            (Some(stands), Some(read)) => read.saturating_sub(stands) < QUIET_CHECKPOINTS,
            (stands, read) => stands == read,
        }
}

/// The pause after so many failures in a row.
fn retry_pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (FIRST_RETRY * 2_u32.pow(doublings)).min(LONGEST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        assert_eq!(retry_pause(1), FIRST_RETRY);
        assert_eq!(retry_pause(2), FIRST_RETRY * 2);
        assert_eq!(retry_pause(3), FIRST_RETRY * 4);
        assert_eq!(retry_pause(u32::MAX), LONGEST_RETRY);
    }
}
