//! Which request runs next. Pure.
//!
//! Invariants
//! - One requester's requests run one after the other, in the chain's order; nobody waits for
//!   another's.
//! - What was begun is not begun again while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::row::{RequestRow, State};
use crate::roster::millis;

/// The requests that the quorum keeps, as its leader sees them.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lanes: BTreeMap<String, Lane>,
    /// Requester and place of each that is not done.
    open: BTreeMap<String, (String, u64)>,
    /// By the time they ended.
    done: BTreeSet<(u64, String)>,
    done_at: BTreeMap<String, u64>,
}

/// One requester's requests, by their place in the chain's order.
#[derive(Debug, Default)]
struct Lane {
    waiting: BTreeMap<u64, String>,
    running: Option<String>,
}

impl Queue {
    /// A row was written.
    pub(super) fn put(&mut self, row: &RequestRow) {
        let id = &row.call.request_id;
        if let State::Done { finished_ms, .. } = row.state {
            self.close(id);
            if let Some(before_ms) = self.done_at.insert(id.clone(), finished_ms) {
                self.done.remove(&(before_ms, id.clone()));
            }
            self.done.insert((finished_ms, id.clone()));
            return;
        }
        if self.open.contains_key(id) {
            return;
        }
        let requester = row.call.requester.clone();
        let lane = self.lanes.entry(requester.clone()).or_default();
        lane.waiting.insert(row.sequence, id.clone());
        self.open.insert(id.clone(), (requester, row.sequence));
    }

    /// A row was removed.
    pub(super) fn gone(&mut self, id: &str) {
        self.close(id);
        if let Some(finished_ms) = self.done_at.remove(id) {
            self.done.remove(&(finished_ms, id.to_owned()));
        }
    }

    /// The next request, which runs from now on.
    pub(super) fn begin(&mut self) -> Option<String> {
        let idle = self
            .lanes
            .values_mut()
            .filter(|lane| lane.running.is_none());
        let next =
            idle.min_by_key(|lane| lane.waiting.keys().next().copied().unwrap_or(u64::MAX))?;
        let (_, id) = next.waiting.pop_first()?;
        next.running = Some(id.clone());
        Some(id)
    }

    /// A request that ran has ended.
    pub(super) fn ended(&mut self, id: &str) {
        self.close(id);
    }

    /// Up to `limit` of the done whose time is over, or that are more than `keep`.
    pub(super) fn expired(&self, now_ms: u64, lifetime: Duration, keep: usize) -> Vec<String> {
        let too_many = self.done.len().saturating_sub(keep);
        self.done
            .iter()
            .enumerate()
            .take_while(|(place, (finished_ms, _))| {
                *place < too_many || now_ms.saturating_sub(*finished_ms) >= millis(lifetime)
            })
            .map(|(_, (_, id))| id.clone())
            .collect()
    }

    fn close(&mut self, id: &str) {
        let Some((requester, sequence)) = self.open.remove(id) else {
            return;
        };
        let Some(lane) = self.lanes.get_mut(&requester) else {
            return;
        };
        lane.waiting.remove(&sequence);
        if lane.running.as_deref() == Some(id) {
            lane.running = None;
        }
        if lane.waiting.is_empty() && lane.running.is_none() {
            self.lanes.remove(&requester);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::Outcome;
    use super::super::row::tests::pending;
    use super::*;

    fn row(id: &str, requester: &str, sequence: u64) -> RequestRow {
        let mut row = pending(id, "GET", "pods", "");
        row.call.requester = requester.into();
        row.sequence = sequence;
        row
    }

    #[test]
    fn a_requester_waits_for_its_own_requests_and_nobody_for_anothers() {
        let mut queue = Queue::default();
        for (id, requester, sequence) in [("a2", "a", 2), ("b3", "b", 3), ("a1", "a", 1)] {
            queue.put(&row(id, requester, sequence));
        }
        assert_eq!(queue.begin().as_deref(), Some("a1"));
        // Its row as it runs begins nothing anew.
        let running = row("a1", "a", 1).started(1, 1, None).expect("pending");
        queue.put(&running);
        assert_eq!(queue.begin().as_deref(), Some("b3"));
        assert_eq!(queue.begin(), None);
        queue.put(&running.finished(Outcome::refused(403, "no"), 5));
        assert_eq!(queue.begin().as_deref(), Some("a2"));
        assert_eq!(queue.begin(), None);
    }

    #[test]
    fn what_is_done_goes_when_its_time_is_over_or_others_are_too_many() {
        let mut queue = Queue::default();
        for (sequence, id) in ["a", "b", "c"].iter().enumerate() {
            let outcome = Outcome::refused(403, "no");
            let at_ms = 1000 * (sequence as u64 + 1);
            queue.put(&row(id, "x", sequence as u64).finished(outcome, at_ms));
        }
        let hour = Duration::from_secs(3600);
        assert!(queue.expired(4000, hour, 10).is_empty());
        assert_eq!(queue.expired(4000, hour, 1), ["a", "b"]);
        assert_eq!(queue.expired(4000, Duration::from_secs(3), 10), ["a"]);
        queue.gone("a");
        assert!(queue.expired(4000, Duration::from_secs(3), 10).is_empty());
    }
}
