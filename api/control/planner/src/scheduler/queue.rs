//! Pods that wait for a node: which one is next, and which wait for what.
//!
//! A pod that was turned away waits until a change may have undone one of the rejections,
//! then for the rest of its backoff. Source: KEP 4247 (hints), KEP 3521 (gates), KEP 5142
//! (a queue that is idle looks at pods whose backoff is not over).
//!
//! Invariants
//! - A pod is in one place. It is there from [`Queue::add`] to [`Queue::remove`]: the queue
//!   holds no more than the pods that exist.
//! - A pod with gates, or without the claims that it names, or one that is held, is never
//!   next.
//! - No pod that was turned away waits for longer than [`LEFTOVER`] without another look.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nautilus_machinery::timestamp::Instant;

use super::plugin::{Plugin, Plugins};
use super::pod::PodInfo;
use crate::view::Key;

/// Backoff after the first attempt in vain; it doubles with each further one.
pub const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
/// Longest backoff.
pub const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// A pod that was turned away is looked at again after this time, whatever happens.
pub const LEFTOVER: Duration = Duration::from_secs(300);

/// Pods that wait.
#[derive(Default)]
pub struct Queue {
    entries: BTreeMap<u64, Entry>,
    ids: BTreeMap<Key, u64>,
    next_id: u64,
    active: BTreeSet<Rank>,
    /// Those turned away, by the end of their backoff and then as in `active`.
    backing_off: BTreeSet<(Instant, Rank)>,
    /// The same of those whose attempt failed.
    recovering: BTreeSet<(Instant, Rank)>,
    /// Those turned away, by when they are looked at whatever happens.
    unschedulable: BTreeSet<(Instant, u64)>,
    rejected_by: BTreeMap<Plugin, usize>,
    gated: usize,
    incoming: BTreeMap<(&'static str, &'static str), u64>,
}

/// Higher priorities first, then those that came or failed earlier.
type Rank = (Reverse<i64>, Instant, u64);

struct Entry {
    key: Key,
    pod: Arc<PodInfo>,
    place: Place,
    arrived: Instant,
    /// When it came, or was last turned away.
    since: Instant,
    attempts: u32,
    rejections: u32,
    /// Failures since the last attempt that ended with a decision.
    failures: u32,
    rejected: Plugins,
    hold: Hold,
    /// Whether claims that it names are not there.
    awaits_claims: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Active,
    BackingOff(Instant),
    Recovering(Instant),
    Unschedulable(Instant),
    Gated,
    InFlight,
}

/// Whether something must end before a pod may be looked at again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    None,
    Held,
    /// Held, and a change has come that may help.
    Awaited,
}

/// A pod that is being given a node.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Where it is.
    pub key: Key,
    /// As it was last seen.
    pub pod: Arc<PodInfo>,
    /// Which attempt this is, from 1.
    pub number: u32,
    /// When it came into the queue.
    pub arrived: Instant,
    /// What the last attempt was turned away by.
    pub rejected: Plugins,
}

/// A pod that waits, and for what.
#[derive(Debug, Clone, Copy)]
pub struct Waiting<'a> {
    /// As it was last seen.
    pub pod: &'a Arc<PodInfo>,
    /// `Active`, `Backoff`, `Unschedulable`, `Gated` or `InFlight`.
    pub state: &'static str,
    /// How often a node was looked for.
    pub attempts: u32,
    /// What turned it away.
    pub rejected: Plugins,
}

/// How many pods are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lengths {
    /// To be looked at now.
    pub active: usize,
    /// After their backoff.
    pub backoff: usize,
    /// After a change that may help.
    pub unschedulable: usize,
    /// After their gates are gone.
    pub gated: usize,
}

impl Queue {
    /// A pod that waits for a node. It is looked at at once, unless it has gates.
    pub fn add(&mut self, pod: Arc<PodInfo>, now: Instant) {
        self.put(pod, now, false);
    }

    /// The same of a pod that names claims which are not there: it has its turn once
    /// [`Self::set_awaiting`] says that they are.
    pub fn add_awaiting(&mut self, pod: Arc<PodInfo>, now: Instant) {
        self.put(pod, now, true);
    }

    /// Whether claims that a pod names are not there. While it is looked at already, that
    /// is its own matter.
    pub fn set_awaiting(&mut self, key: &Key, awaits: bool, now: Instant, event: &'static str) {
        let Some((id, entry)) = self.entry(key) else {
            return;
        };
        entry.awaits_claims = awaits;
        if !awaits && entry.place == Place::Gated && entry.pod.gates.is_empty() {
            self.requeue(id, now, event);
        }
    }

    fn put(&mut self, pod: Arc<PodInfo>, now: Instant, awaits_claims: bool) {
        let key = pod.key();
        self.remove(&key);
        let id = self.next_id;
        self.next_id += 1;
        let entry = Entry {
            key: key.clone(),
            pod,
            place: Place::InFlight,
            arrived: now,
            since: now,
            attempts: 0,
            rejections: 0,
            failures: 0,
            rejected: Plugins::NONE,
            hold: Hold::None,
            awaits_claims,
        };
        self.ids.insert(key, id);
        self.entries.insert(id, entry);
        self.requeue(id, now, "UnscheduledPodAdd");
    }

    /// Another version of a pod that waits. `may_help` says whether what changed about it
    /// undoes a rejection.
    pub fn update(
        &mut self,
        pod: Arc<PodInfo>,
        now: Instant,
        event: &'static str,
        may_help: impl Fn(Plugin) -> bool,
    ) {
        let key = pod.key();
        let Some((id, entry)) = self.entry(&key) else {
            return self.add(pod, now);
        };
        if entry.pod.uid != pod.uid {
            return self.add(pod, now);
        }
        let place = entry.place;
        let worth = match place {
            Place::Gated => pod.gates.is_empty(),
            Place::Unschedulable(_) => entry.rejected.iter().any(may_help),
            _ => false,
        };
        // Its rank may be another.
        self.leave(id);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.pod = pod;
        }
        self.settle(id, place);
        if worth {
            self.requeue(id, now, event);
        }
    }

    /// A pod that is gone, or has a node.
    pub fn remove(&mut self, key: &Key) {
        if let Some(id) = self.ids.remove(key) {
            self.leave(id);
            self.entries.remove(&id);
        }
    }

    /// A change of which rejections by `concerned` may be undone; `may_help` says of a pod
    /// and a rule that turned it away whether that is so.
    pub fn hear(
        &mut self,
        concerned: Plugins,
        now: Instant,
        event: &'static str,
        mut may_help: impl FnMut(&PodInfo, Plugin) -> bool,
    ) {
        if !concerned.iter().any(|plugin| self.rejected_by(plugin) > 0) {
            return;
        }
        let mut worth = Vec::new();
        for (_, id) in &self.unschedulable {
            let Some(entry) = self.entries.get(id) else {
                continue;
            };
            let suspects = entry.rejected.and(concerned);
            if suspects.iter().any(|plugin| may_help(&entry.pod, plugin)) {
                worth.push(*id);
            }
        }
        for id in worth {
            self.requeue(id, now, event);
        }
    }

    /// The pod to look at now. What comes of it is told by [`Self::reject`],
    /// [`Self::fail`] or [`Self::remove`].
    pub fn pop(&mut self, now: Instant) -> Option<Attempt> {
        self.flush(now);
        let first = self.active.first().map(|rank| rank.2);
        let id = first.or_else(|| self.backing_off.first().map(|(_, rank)| rank.2))?;
        self.leave(id);
        let entry = self.entries.get_mut(&id)?;
        entry.attempts += 1;
        Some(Attempt {
            key: entry.key.clone(),
            pod: entry.pod.clone(),
            number: entry.attempts,
            arrived: entry.arrived,
            rejected: std::mem::take(&mut entry.rejected),
        })
    }

    /// An attempt found no node: `rejected` turned it away.
    pub fn reject(&mut self, attempt: &Attempt, rejected: Plugins, now: Instant) {
        let Some(id) = self.in_flight(attempt) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.rejected = rejected;
        entry.since = now;
        entry.failures = 0;
        entry.rejections = entry.rejections.saturating_add(1);
        self.settle(id, Place::Unschedulable(after(now, LEFTOVER)));
        self.count("ScheduleAttemptFailure", "unschedulable");
    }

    /// An attempt failed: what it wanted written was not. It is tried again after a while.
    pub fn fail(&mut self, attempt: &Attempt, now: Instant) {
        let Some(id) = self.in_flight(attempt) else {
            return;
        };
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.since = now;
            entry.failures = entry.failures.saturating_add(1);
            self.requeue(id, now, "ScheduleAttemptFailure");
        }
    }

    /// A pod is not looked at until [`Self::release`].
    pub fn hold(&mut self, key: &Key) {
        if let Some((_, entry)) = self.entry(key) {
            entry.hold = Hold::Held;
        }
    }

    /// What a pod was held for is over. It is looked at again if a change came meanwhile
    /// that may help, or if `at_once`.
    pub fn release(&mut self, key: &Key, at_once: bool, now: Instant) {
        let Some((id, entry)) = self.entry(key) else {
            return;
        };
        let hold = std::mem::replace(&mut entry.hold, Hold::None);
        if matches!(entry.place, Place::Unschedulable(_)) && (at_once || hold == Hold::Awaited) {
            self.requeue(id, now, "ForceActivate");
        }
    }

    /// When [`Self::pop`] may have another answer though nothing changes.
    pub fn due(&self) -> Option<Instant> {
        let recovering = self.recovering.first().map(|(until, _)| *until);
        let leftover = self.unschedulable.first().map(|(until, _)| *until);
        recovering.into_iter().chain(leftover).min()
    }

    /// Whether a pod can be looked at now.
    pub fn is_idle(&self) -> bool {
        self.active.is_empty() && self.backing_off.is_empty()
    }

    /// How many pods are where.
    pub fn lengths(&self) -> Lengths {
        Lengths {
            active: self.active.len(),
            backoff: self.backing_off.len() + self.recovering.len(),
            unschedulable: self.unschedulable.len(),
            gated: self.gated,
        }
    }

    /// Pods that wait because a rule turned them away.
    pub fn rejected_by(&self, plugin: Plugin) -> usize {
        self.rejected_by.get(&plugin).copied().unwrap_or(0)
    }

    /// How often pods came into a queue, by the event that brought them and the queue.
    pub fn incoming(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let counts = self.incoming.iter();
        counts.map(|((event, queue), count)| (*event, *queue, *count))
    }

    /// What a pod waits for.
    pub fn waiting(&self, key: &Key) -> Option<Waiting<'_>> {
        let entry = self.entries.get(self.ids.get(key)?)?;
        Some(Waiting {
            pod: &entry.pod,
            state: match entry.place {
                Place::Active => "Active",
                Place::BackingOff(_) | Place::Recovering(_) => "Backoff",
                Place::Unschedulable(_) => "Unschedulable",
                Place::Gated => "Gated",
                Place::InFlight => "InFlight",
            },
            attempts: entry.attempts,
            rejected: entry.rejected,
        })
    }

    fn entry(&mut self, key: &Key) -> Option<(u64, &mut Entry)> {
        let id = *self.ids.get(key)?;
        Some((id, self.entries.get_mut(&id)?))
    }

    fn in_flight(&self, attempt: &Attempt) -> Option<u64> {
        let id = *self.ids.get(&attempt.key)?;
        let entry = self.entries.get(&id)?;
        let same = entry.pod.uid == attempt.pod.uid;
        (same && entry.place == Place::InFlight).then_some(id)
    }

    /// Backoffs that are over, and pods that waited for too long.
    fn flush(&mut self, now: Instant) {
        for recovering in [false, true] {
            let waiting = |own: &Self| match recovering {
                false => own.backing_off.first().copied(),
                true => own.recovering.first().copied(),
            };
            while let Some((_, rank)) = waiting(self).filter(|(until, _)| *until <= now) {
                self.settle(rank.2, Place::Active);
                self.count("BackoffComplete", "active");
            }
        }
        let overdue: Vec<u64> = self
            .unschedulable
            .iter()
            .take_while(|(until, _)| *until <= now)
            .map(|(_, id)| *id)
            .collect();
        for id in overdue {
            self.requeue(id, now, "UnschedulableTimeout");
        }
    }

    /// To where a pod belongs that is to be looked at again.
    fn requeue(&mut self, id: u64, now: Instant, event: &'static str) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if entry.hold != Hold::None {
            entry.hold = Hold::Awaited;
            return self.settle(id, Place::Unschedulable(after(now, LEFTOVER)));
        }
        let (place, queue) = if !entry.pod.gates.is_empty() || entry.awaits_claims {
            (Place::Gated, "gated")
        } else {
            let attempts = match entry.failures {
                0 => entry.rejections,
                failures => failures,
            };
            let until = after(entry.since, backoff(attempts));
            match entry.failures {
                _ if until <= now => (Place::Active, "active"),
                0 => (Place::BackingOff(until), "backoff"),
                _ => (Place::Recovering(until), "backoff"),
            }
        };
        self.settle(id, place);
        self.count(event, queue);
    }

    fn settle(&mut self, id: u64, place: Place) {
        self.leave(id);
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.place = place;
        let rank = (Reverse(entry.pod.priority), entry.since, id);
        match place {
            Place::Active => drop(self.active.insert(rank)),
            Place::BackingOff(until) => drop(self.backing_off.insert((until, rank))),
            Place::Recovering(until) => drop(self.recovering.insert((until, rank))),
            Place::Unschedulable(until) => {
                self.unschedulable.insert((until, id));
                for plugin in entry.rejected.iter() {
                    *self.rejected_by.entry(plugin).or_default() += 1;
                }
            }
            Place::Gated => self.gated += 1,
            Place::InFlight => {}
        }
    }

    /// Out of its place, into flight.
    fn leave(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let rank = (Reverse(entry.pod.priority), entry.since, id);
        match std::mem::replace(&mut entry.place, Place::InFlight) {
            Place::Active => drop(self.active.remove(&rank)),
            Place::BackingOff(until) => drop(self.backing_off.remove(&(until, rank))),
            Place::Recovering(until) => drop(self.recovering.remove(&(until, rank))),
            Place::Unschedulable(until) => {
                self.unschedulable.remove(&(until, id));
                for plugin in entry.rejected.iter() {
                    if let Some(count) = self.rejected_by.get_mut(&plugin) {
                        *count = count.saturating_sub(1);
                    }
                }
            }
            Place::Gated => self.gated = self.gated.saturating_sub(1),
            Place::InFlight => {}
        }
    }

    fn count(&mut self, event: &'static str, queue: &'static str) {
        *self.incoming.entry((event, queue)).or_default() += 1;
    }
}

/// After this many attempts in vain, one after the other.
fn backoff(attempts: u32) -> Duration {
    if attempts == 0 {
        return Duration::ZERO;
    }
    // More would be longer than the longest.
    let doublings = (attempts - 1).min(16);
    INITIAL_BACKOFF
        .saturating_mul(1 << doublings)
        .min(LONGEST_BACKOFF)
}

fn after(instant: Instant, duration: Duration) -> Instant {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    Instant {
        seconds: instant.seconds.saturating_add(seconds),
        ..instant
    }
}

#[cfg(test)]
#[path = "queue/tests.rs"]
mod tests;
