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

/// How many that are done are kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    pub(super) lifetime: Duration,
    pub(super) at_most: usize,
    pub(super) at_most_of_one: usize,
}

/// The requests that the quorum keeps, as its leader sees them.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lanes: BTreeMap<String, Lane>,
    /// Requester and place of each that is not done.
    open: BTreeMap<String, (String, u64)>,
    /// By the time they ended.
    done: BTreeSet<(u64, String)>,
    done_at: BTreeMap<String, Done>,
}

/// A request that is done.
#[derive(Debug)]
struct Done {
    finished_ms: u64,
    requester: String,
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
            self.end(id, &row.call.requester, finished_ms);
            return;
        }
        self.forget(id);
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
        self.forget(id);
    }

    /// A row can't be read: it goes as those that are done do, counted from when it was met, for a
    /// node of another version may yet read it.
    pub(super) fn unreadable(&mut self, id: &str, requester: &str, now_ms: u64) {
        if !self.done_at.contains_key(id) {
            self.end(id, requester, now_ms);
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

    /// The done whose time is over, or that are more than is kept; each with its requester.
    pub(super) fn expired(&self, now_ms: u64, kept: Kept) -> Vec<(&str, &str)> {
        let mut of_one: BTreeMap<&str, usize> = BTreeMap::new();
        for done in self.done_at.values() {
            *of_one.entry(&done.requester).or_default() += 1;
        }
        let mut all = self.done.len();
        let mut expired = Vec::new();
        for (finished_ms, id) in &self.done {
            let Some(done) = self.done_at.get(id) else {
                continue;
            };
            let own = of_one.entry(&done.requester).or_default();
            let is_over = now_ms.saturating_sub(*finished_ms) >= millis(kept.lifetime);
            if is_over || all > kept.at_most || *own > kept.at_most_of_one {
                (all, *own) = (all.saturating_sub(1), own.saturating_sub(1));
                expired.push((id.as_str(), done.requester.as_str()));
            }
        }
        expired
    }

    fn end(&mut self, id: &str, requester: &str, finished_ms: u64) {
        self.close(id);
        self.forget(id);
        let done = Done {
            finished_ms,
            requester: requester.to_owned(),
        };
        self.done_at.insert(id.to_owned(), done);
        self.done.insert((finished_ms, id.to_owned()));
    }

    fn forget(&mut self, id: &str) {
        if let Some(done) = self.done_at.remove(id) {
            self.done.remove(&(done.finished_ms, id.to_owned()));
        }
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
        let expired = |queue: &Queue, seconds, at_most, at_most_of_one| {
            let kept = Kept {
                lifetime: Duration::from_secs(seconds),
                at_most,
                at_most_of_one,
            };
            let expired = queue.expired(4000, kept);
            expired.iter().map(|(id, _)| *id).collect::<String>()
        };
        assert_eq!(expired(&queue, 3600, 10, 10), "");
        assert_eq!(expired(&queue, 3600, 1, 10), "ab");
        assert_eq!(expired(&queue, 3, 10, 10), "a");
        // One requester's many make no room in another's.
        let outcome = Outcome::refused(403, "no");
        queue.put(&row("0", "y", 9).finished(outcome, 500));
        assert_eq!(expired(&queue, 3600, 10, 1), "ab");
        queue.gone("a");
        assert_eq!(expired(&queue, 3, 10, 10), "0");
    }

    #[test]
    fn a_row_that_nobody_reads_goes_a_lifetime_after_it_was_met() {
        let mut queue = Queue::default();
        queue.put(&row("a", "x", 1));
        queue.unreadable("a", "x", 1000);
        queue.unreadable("a", "x", 9000);
        assert_eq!(queue.begin(), None);
        let kept = Kept {
            lifetime: Duration::from_secs(10),
            at_most: 10,
            at_most_of_one: 10,
        };
        assert!(queue.expired(10_999, kept).is_empty());
        assert_eq!(queue.expired(11_000, kept), [("a", "x")]);
        // A node of another version wrote it, and it can be read now.
        queue.put(&row("a", "x", 1));
        assert!(queue.expired(u64::MAX, kept).is_empty());
        assert_eq!(queue.begin().as_deref(), Some("a"));
    }
}
