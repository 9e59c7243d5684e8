//! What the hub has for one group of watches.
//!
//! Invariants
//! - Everything the group may be interested in is in the queue, in order, up to the
//!   hub's head or, once it is full, up to `behind`.
//! - Whoever puts something into an empty queue wakes the group, once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use nautilus_machine::Revision;
use parking_lot::Mutex;

use super::meters::Meters;
use super::ring::Batch;

/// Revisions that a group takes out of its queue at once.
const TAKE_BATCHES: usize = 64;

/// Bounds of a queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueLimits {
    pub(super) events: usize,
    pub(super) bytes: usize,
}

/// The queue of one group.
pub(super) struct GroupQueue {
    inner: Mutex<Queue>,
    limits: QueueLimits,
    meters: Arc<Meters>,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<Arc<Batch>>,
    events: usize,
    bytes: usize,
    behind: Option<Revision>,
    waker: Option<Waker>,
    /// Watches that follow this queue, and how many of them were reported as slow.
    level: usize,
    slow: usize,
}

/// What a look into the queue shows.
pub(super) enum Look {
    Batches(VecDeque<Arc<Batch>>),
    /// What comes after this revision has to be read elsewhere.
    Behind(Revision),
    Empty,
}

impl GroupQueue {
    pub(super) fn new(limits: QueueLimits, meters: Arc<Meters>) -> Self {
        Self {
            inner: Mutex::new(Queue::default()),
            limits,
            meters,
        }
    }

    /// Adds a revision, or notes that the group is behind. Gives who is to be woken.
    pub(super) fn push(&self, batch: &Arc<Batch>) -> Option<Waker> {
        let mut queue = self.inner.lock();
        if queue.behind.is_some() {
            return None;
        }
        let full = queue.events + batch.events.len() > self.limits.events
            || queue.bytes + batch.bytes > self.limits.bytes;
        if full && !queue.batches.is_empty() {
            self.fall_behind(&mut queue, batch.revision - 1);
            return None;
        }
        queue.events += batch.events.len();
        queue.bytes += batch.bytes;
        self.meters.queued(batch.bytes);
        queue.batches.push_back(Arc::clone(batch));
        queue.waker.take()
    }

    /// What comes after `revision` is not in the queue.
    pub(super) fn interrupt(&self, revision: Revision) -> Option<Waker> {
        let mut queue = self.inner.lock();
        if queue.behind.is_none() {
            self.fall_behind(&mut queue, revision);
        }
        queue.waker.take()
    }

    fn fall_behind(&self, queue: &mut Queue, revision: Revision) {
        queue.behind = Some(revision);
        queue.slow = queue.level;
        self.meters.slow_more(queue.slow);
    }

    /// The group has read up to `revision` elsewhere; `level`: that is the hub's head.
    pub(super) fn advance(&self, revision: Revision, level: bool) {
        let mut queue = self.inner.lock();
        assert!(queue.batches.is_empty(), "the queue comes first");
        queue.behind = (!level).then_some(revision);
        if level {
            self.meters.slow_fewer(std::mem::take(&mut queue.slow));
        }
    }

    /// Takes what is there; when there is nothing, `waker` is woken once there is.
    pub(super) fn take(&self, waker: &Waker) -> Look {
        let mut queue = self.inner.lock();
        if queue.batches.is_empty() {
            if let Some(revision) = queue.behind {
                return Look::Behind(revision);
            }
            if !queue.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
                queue.waker = Some(waker.clone());
            }
            return Look::Empty;
        }
        let count = queue.batches.len().min(TAKE_BATCHES);
        let taken: VecDeque<Arc<Batch>> = queue.batches.drain(..count).collect();
        let bytes: usize = taken.iter().map(|batch| batch.bytes).sum();
        queue.events -= taken.iter().map(|batch| batch.events.len()).sum::<usize>();
        queue.bytes -= bytes;
        self.meters.unqueued(bytes);
        Look::Batches(taken)
    }

    /// The revision before the first one that is not taken yet; `None` when there is
    /// nothing to take and nothing to read elsewhere.
    pub(super) fn before_front(&self) -> Option<Revision> {
        let queue = self.inner.lock();
        let first = queue.batches.front();
        first.map(|first| first.revision - 1).or(queue.behind)
    }

    /// Whether what comes next has to be read elsewhere.
    pub(super) fn is_behind(&self) -> bool {
        self.inner.lock().behind.is_some()
    }

    /// How many watches follow this queue.
    pub(super) fn set_level(&self, level: usize) {
        self.inner.lock().level = level;
    }

    /// Somebody to be woken for another reason than events.
    pub(super) fn take_waker(&self) -> Option<Waker> {
        self.inner.lock().waker.take()
    }
}

impl Drop for GroupQueue {
    fn drop(&mut self) {
        let queue = self.inner.get_mut();
        self.meters.unqueued(queue.bytes);
        self.meters.slow_fewer(queue.slow);
    }
}
