//! The leader's clock over leases: when each one ends unless it is renewed.
//!
//! Only the leader keeps it, in memory. A new leader starts the whole time of every
//! lease anew, so that an election never ends one early.
//!
//! Invariants
//! - A lease is not due before its whole time has passed by this node's monotonic
//!   clock since it was granted, last renewed, or since this node began to lead.
//! - A lease that was found due is not renewed any more: who asks hears that it has
//!   ended, and it will.
//! - While this node leads, `leases` holds every lease that it has applied, and
//!   `queue` each of them once, at its end.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use nautilus_machine::{LeaseId, LeaseTimes};
use parking_lot::Mutex;

/// The clock of one node; idle while it does not lead.
#[derive(Default)]
pub(crate) struct Lessor(Mutex<State>);

#[derive(Default)]
struct State {
    leads: bool,
    leases: HashMap<LeaseId, Term>,
    queue: BTreeSet<(Instant, LeaseId)>,
}

#[derive(Clone, Copy)]
struct Term {
    ttl_ms: u64,
    end: Instant,
    /// Found due; its end is being proposed.
    ending: bool,
}

/// Why the clock does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// This node does not keep it.
    NotLeading,
    /// There is no such lease.
    NotFound,
}

impl Lessor {
    /// From now on this node keeps the clock; leases granted from here on come by
    /// [`Lessor::granted`], those of before by [`Lessor::add`].
    pub(crate) fn begin(&self) {
        let mut state = self.0.lock();
        *state = State::default();
        state.leads = true;
    }

    /// This node leads no more.
    pub(crate) fn end(&self) {
        *self.0.lock() = State::default();
    }

    /// Leases that were there already, each with its whole time.
    pub(crate) fn add(&self, now: Instant, leases: impl IntoIterator<Item = (LeaseId, u64)>) {
        let mut state = self.0.lock();
        for (id, ttl_ms) in leases {
            if !state.leases.contains_key(&id) {
                state.set(id, ttl_ms, now);
            }
        }
    }

    /// A grant was applied.
    pub(crate) fn granted(&self, now: Instant, id: LeaseId, ttl_ms: u64) {
        let mut state = self.0.lock();
        if state.leads {
            state.set(id, ttl_ms, now);
        }
    }

    /// The end of leases was applied.
    pub(crate) fn ended(&self, ids: &[LeaseId]) {
        let mut state = self.0.lock();
        for id in ids {
            state.remove(*id);
        }
    }

    /// Starts a lease's time anew.
    pub(crate) fn renew(&self, now: Instant, id: LeaseId) -> Result<LeaseTimes, Silence> {
        let mut state = self.0.lock();
        let ttl_ms = state.living(id)?.ttl_ms;
        state.set(id, ttl_ms, now);
        Ok(LeaseTimes {
            ttl_ms,
            remaining_ms: ttl_ms,
        })
    }

    /// What is left of a lease's time.
    pub(crate) fn times(&self, now: Instant, id: LeaseId) -> Result<LeaseTimes, Silence> {
        let term = self.0.lock().living(id)?;
        let left = term.end.saturating_duration_since(now);
        Ok(LeaseTimes {
            ttl_ms: term.ttl_ms,
            remaining_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Leases whose time has passed, by their ends, at most so many. They are given
    /// once: call [`Lessor::again`] if their end could not be proposed.
    pub(crate) fn due(&self, now: Instant, at_most: usize) -> Vec<LeaseId> {
        let mut state = self.0.lock();
        let mut due = Vec::new();
        while due.len() < at_most {
            match state.queue.first().copied() {
                Some((end, id)) if end <= now => {
                    state.queue.pop_first();
                    if let Some(term) = state.leases.get_mut(&id) {
                        term.ending = true;
                        due.push(id);
                    }
                }
                _ => break,
            }
        }
        due
    }

    /// These were given as due, and have not ended.
    pub(crate) fn again(&self, ids: &[LeaseId]) {
        let mut state = self.0.lock();
        for id in ids {
            if let Some(end) = state.leases.get(id).map(|term| term.end) {
                state.queue.insert((end, *id));
            }
        }
    }
}

impl State {
    fn living(&self, id: LeaseId) -> Result<Term, Silence> {
        if !self.leads {
            return Err(Silence::NotLeading);
        }
        let term = self.leases.get(&id).filter(|term| !term.ending);
        term.copied().ok_or(Silence::NotFound)
    }

    fn set(&mut self, id: LeaseId, ttl_ms: u64, now: Instant) {
        /// Longer than any quorum runs; later instants may not be representable.
        const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);
        self.remove(id);
        let end = now + Duration::from_millis(ttl_ms).min(LONGEST);
        let term = Term {
            ttl_ms,
            end,
            ending: false,
        };
        self.leases.insert(id, term);
        self.queue.insert((end, id));
    }

    fn remove(&mut self, id: LeaseId) {
        if let Some(term) = self.leases.remove(&id) {
            self.queue.remove(&(term.end, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LeaseId = LeaseId(7);
    const B: LeaseId = LeaseId(8);

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn a_renewed_lease_is_not_due_before_its_whole_time_has_passed_again() {
        let (lessor, start) = (Lessor::default(), Instant::now());
        lessor.begin();
        lessor.granted(start, A, 100);
        lessor.granted(start, B, 100);
        lessor.renew(at(start, 60), A).expect("it lives");
        assert_eq!(lessor.due(at(start, 159), 10), [B]);
        assert_eq!(lessor.due(at(start, 160), 10), [A]);
    }

    #[test]
    fn a_lease_found_due_is_not_renewed_and_is_given_once_unless_it_failed_to_end() {
        let (lessor, start) = (Lessor::default(), Instant::now());
        lessor.begin();
        lessor.granted(start, A, 100);
        assert_eq!(lessor.due(at(start, 100), 10), [A]);
        assert_eq!(lessor.renew(at(start, 100), A), Err(Silence::NotFound));
        assert!(lessor.due(at(start, 500), 10).is_empty());
        lessor.again(&[A]);
        assert_eq!(lessor.due(at(start, 500), 10), [A]);
        lessor.ended(&[A]);
        lessor.again(&[A]);
        assert!(lessor.due(at(start, 900), 10).is_empty());
    }

    #[test]
    fn a_new_leader_gives_every_lease_its_whole_time() {
        let (lessor, start) = (Lessor::default(), Instant::now());
        lessor.granted(start, A, 100);
        assert_eq!(lessor.times(start, A), Err(Silence::NotLeading));
        lessor.begin();
        lessor.granted(at(start, 50), B, 40);
        lessor.add(at(start, 90), [(A, 100), (B, 40)]);
        let left = |id, ms| lessor.times(at(start, ms), id).map(|t| t.remaining_ms);
        assert_eq!((left(A, 90), left(B, 80)), (Ok(100), Ok(10)));
        lessor.end();
        assert_eq!(left(A, 90), Err(Silence::NotLeading));
    }
}
