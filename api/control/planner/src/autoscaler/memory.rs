//! What autoscalers remember: recommendations and changes of the last hour.
//!
//! Decision: kept by the controller and not in objects, as in the reference; it is lost with
//! the leader, and begins with the replicas that are found.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use nautilus_machinery::selector::LabelSelector;
use nautilus_machinery::timestamp::Instant;

use crate::object;
use crate::view::Key;

/// How far back anything counts: the longest window that can be asked for.
const MAX_AGE_S: i64 = 3_600;
/// Entries of one kind of one autoscaler; the oldest go first.
const MAX_ENTRIES: usize = 512;

/// Numbers of replicas, each at a moment, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Record(Vec<(Instant, i64)>);

impl Record {
    fn add(&mut self, now: Instant, replicas: i64) {
        let is_old = |at: Instant| object::elapsed_ms(at, now) > MAX_AGE_S * 1000;
        self.0.retain(|(at, _)| !is_old(*at));
        if self.0.len() >= MAX_ENTRIES {
            self.0.remove(0);
        }
        self.0.push((now, replicas));
    }

    /// Those of less than `seconds` ago.
    pub(super) fn within(&self, now: Instant, seconds: i64) -> impl Iterator<Item = i64> + '_ {
        let is_recent = move |at: Instant| object::elapsed_ms(at, now) < seconds * 1000;
        let recent = self.0.iter().filter(move |(at, _)| is_recent(*at));
        recent.map(|(_, replicas)| *replicas)
    }
}

/// What one autoscaler remembers.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// What measurements asked for.
    pub(super) recommendations: Record,
    /// Replicas that were added.
    pub(super) added: Record,
    /// Replicas that were taken away.
    pub(super) removed: Record,
    /// The pods of its target.
    pub(super) selector: Option<LabelSelector>,
    /// Of the last change: whether it added replicas, and why it was made.
    last_change: Option<(bool, String)>,
}

impl Memory {
    /// Begins with the replicas that are there.
    pub(super) fn begin(&mut self, now: Instant, replicas: i64) {
        if self.recommendations.0.is_empty() {
            self.recommend(now, replicas);
        }
    }

    pub(super) fn recommend(&mut self, now: Instant, replicas: i64) {
        self.recommendations.add(now, replicas);
    }

    /// A change that is about to be made.
    pub(super) fn change(&mut self, now: Instant, from: i64, to: i64, reason: &str) {
        let adds = to > from;
        let record = match adds {
            true => &mut self.added,
            false => &mut self.removed,
        };
        record.add(now, (to - from).abs());
        self.last_change = Some((adds, reason.to_owned()));
    }

    /// The last change was refused; why it was to be made.
    pub(super) fn take_back(&mut self) -> String {
        let Some((added, reason)) = self.last_change.take() else {
            return String::new();
        };
        let record = match added {
            true => &mut self.added,
            false => &mut self.removed,
        };
        record.0.pop();
        reason
    }
}

/// What all remember.
#[derive(Debug, Default)]
pub(super) struct Memories(Mutex<BTreeMap<Key, Memory>>);

/// The autoscalers of a namespace, with the pods of their targets.
pub(super) type Selectors = Vec<(Key, LabelSelector)>;

impl Memories {
    /// Works with what one remembers, knowing whose pods the others of its namespace have.
    pub(super) fn with<T>(&self, key: &Key, work: impl FnOnce(&mut Memory, Selectors) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let others = all.iter().filter_map(|(other, own)| {
            let is_near = other.namespace == key.namespace && other != key;
            let selector = own.selector.clone().filter(|_| is_near)?;
            Some((other.clone(), selector))
        });
        let others = others.collect();
        work(all.entry(key.clone()).or_default(), others)
    }

    pub(super) fn forget(&self, key: &Key) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(key);
    }
}
