//! The watch hub: recent events in a bounded ring, a bounded queue for each group of
//! watches, and the store's history for those that are further behind.
//!
//! Publishing looks up by key which groups are interested (single keys by hash,
//! ranges by interval) and hands each of them the revision, shared; a group sorts out
//! by itself, in its reader's time, which of its watches get which event. So the
//! applying thread pays for interested groups, not for watches.
//!
//! Invariants
//! - Every watch gets each matching event once and in order, those of one revision
//!   together; or an error that ends it because its revision was compacted away.
//! - A group whose queue is full falls behind and reads on from the ring; watches that
//!   the ring has left behind read the store's history; both until they are level.
//!   Becoming level and registering for what comes is one step under the hub's lock.
//! - Memory is bounded by the ring and the queues, whatever readers do; publishing
//!   never waits for one.
//! - Locks are taken in the order: hub, then queue.

mod catching_up;
mod group;
mod interest;
mod meters;
mod previous;
mod queue;
mod ranges;
mod ring;
mod single;
#[cfg(test)]
mod tests;
mod watches;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

use nautilus_machine::{
    Applied, KeyRange, Revision, WatchError, WatchGroup, WatchRequest, Watcher,
};
use nautilus_store::Store;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use group::Group;
use interest::Interest;
use meters::Meters;
use queue::{GroupQueue, QueueLimits};
use ring::{Batch, Ring};
use single::SingleWatch;

/// Bounds of the hub.
#[derive(Debug, Clone, Copy)]
pub struct HubLimits {
    /// Events kept for watches that are behind.
    pub ring_events: usize,
    /// Bytes of keys and values kept for them.
    pub ring_bytes: usize,
    /// Events that wait for the reader of one group, but at least one revision's.
    pub queue_events: usize,
    /// Bytes of keys and values that wait for it, shared with the ring and other groups.
    pub queue_bytes: usize,
}

impl Default for HubLimits {
    fn default() -> Self {
        Self {
            ring_events: 65_536,
            ring_bytes: 2 * QUEUE_BYTES,
            queue_events: 8_192,
            queue_bytes: QUEUE_BYTES,
        }
    }
}

/// Bytes that may wait for one group. The ring holds twice that, so that a group whose
/// queue ran over finds in it what comes next.
const QUEUE_BYTES: usize = 8 << 20;
/// Reads of history that run at once.
const HISTORY_READS_MAX: usize = 4;

/// Shared by the state machine, which publishes, and every group.
pub(crate) struct Hub {
    store: Arc<Store>,
    limits: HubLimits,
    state: Mutex<State>,
    /// The newest revision all of whose events are in the queues.
    head: AtomicU64,
    closed: AtomicBool,
    meters: Arc<Meters>,
    history_reads: Arc<Semaphore>,
}

struct State {
    ring: Ring,
    interest: Interest<Vec<Follower>>,
    groups: Vec<Option<Member>>,
    free: Vec<u32>,
}

/// A group's interest in a range.
struct Follower {
    group: u32,
    watches: u32,
}

struct Member {
    queue: Arc<GroupQueue>,
    /// The last revision handed to it.
    stamp: Revision,
}

/// A stretch of the ring.
struct Stretch {
    batches: VecDeque<Arc<Batch>>,
    /// Everything up to here is in it.
    through: Revision,
    /// Whether that is the hub's head.
    level: bool,
}

impl Hub {
    pub(crate) fn new(store: Arc<Store>, limits: HubLimits) -> Arc<Self> {
        let head = store.revision();
        Arc::new(Self {
            store,
            limits,
            state: Mutex::new(State {
                ring: Ring::starting(head),
                interest: Interest::default(),
                groups: Vec::new(),
                free: Vec::new(),
            }),
            head: AtomicU64::new(head),
            closed: AtomicBool::new(false),
            meters: Arc::new(Meters::new()),
            history_reads: Arc::new(Semaphore::new(HISTORY_READS_MAX)),
        })
    }

    /// Takes the events of entries just applied.
    pub(crate) fn publish(&self, applied: Vec<Applied>) {
        let Some(head) = applied.last().map(|last| last.revision) else {
            return;
        };
        let batches: Vec<Arc<Batch>> = applied
            .into_iter()
            .filter(|entry| !entry.events.is_empty())
            .map(|entry| Arc::new(Batch::applied(entry)))
            .collect();
        let mut wakers = Vec::new();
        // What leaves the ring is freed after the lock.
        let (bytes, _old) = {
            let mut state = self.state.lock();
            for batch in batches {
                state.deliver(&batch, &mut wakers);
                state.ring.push(batch);
            }
            let ring = &mut state.ring;
            let old = ring.trim(self.limits.ring_events, self.limits.ring_bytes);
            ring.head = ring.head.max(head);
            self.head.store(ring.head, Ordering::Release);
            (ring.bytes(), old)
        };
        self.meters.ring(bytes);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The store was replaced by a snapshot's state: what the ring knows no longer
    /// joins up with what comes; watches read on from the store.
    pub(crate) fn restart(&self) {
        let head = self.store.revision();
        let mut wakers = Vec::new();
        {
            let mut state = self.state.lock();
            let before = state.ring.head;
            for member in state.groups.iter().flatten() {
                wakers.extend(member.queue.interrupt(before));
            }
            state.ring = Ring::starting(head);
            self.head.store(head, Ordering::Release);
        }
        self.meters.ring(0);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ends every watch.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let wakers: Vec<Waker> = {
            let state = self.state.lock();
            let members = state.groups.iter().flatten();
            members
                .filter_map(|member| member.queue.take_waker())
                .collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// One watch.
    pub(crate) fn watch(
        self: &Arc<Self>,
        request: WatchRequest,
    ) -> Result<Box<dyn Watcher>, WatchError> {
        Ok(Box::new(SingleWatch::open(Group::join(self), request)?))
    }

    /// An empty group.
    pub(crate) fn group(self: &Arc<Self>) -> Box<dyn WatchGroup> {
        Box::new(Group::join(self))
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn head(&self) -> Revision {
        self.head.load(Ordering::Acquire)
    }

    /// Takes in a group: its number and its queue.
    fn enlist(&self) -> (u32, Arc<GroupQueue>) {
        let limits = QueueLimits {
            events: self.limits.queue_events,
            bytes: self.limits.queue_bytes,
        };
        let queue = Arc::new(GroupQueue::new(limits, Arc::clone(&self.meters)));
        let member = Member {
            queue: Arc::clone(&queue),
            stamp: 0,
        };
        let mut state = self.state.lock();
        if let Some(number) = state.free.pop() {
            state.groups[number as usize] = Some(member);
            return (number, queue);
        }
        let number = u32::try_from(state.groups.len()).unwrap_or(u32::MAX);
        assert!(number < u32::MAX, "more groups than a table can hold");
        state.groups.push(Some(member));
        (number, queue)
    }

    /// Lets go of a group that follows nothing any more.
    fn dismiss(&self, number: u32) {
        let mut state = self.state.lock();
        state.groups[number as usize] = None;
        state.free.push(number);
    }

    /// Registers a group for what comes in `range`, if nothing came after `after`.
    fn follow_from(&self, number: u32, range: &KeyRange, after: Revision) -> bool {
        let mut state = self.state.lock();
        let level = after >= state.ring.head;
        if level {
            state.follow(number, range);
        }
        level
    }

    fn unfollow<'a>(&self, number: u32, ranges: impl Iterator<Item = &'a KeyRange>) {
        let mut state = self.state.lock();
        for range in ranges {
            state.interest.reduce(range, |followers| {
                if let Ok(at) = followers.binary_search_by_key(&number, |follower| follower.group) {
                    followers[at].watches -= 1;
                    if followers[at].watches == 0 {
                        followers.remove(at);
                    }
                }
                followers.is_empty()
            });
        }
    }

    /// What the ring has after `after`; `None` when it is past that. `when_level` runs
    /// before anything newer can be published.
    fn read_ring(
        &self,
        after: Revision,
        limit: usize,
        when_level: impl FnOnce(&mut State),
    ) -> Option<Stretch> {
        let mut state = self.state.lock();
        let (batches, level) = state.ring.after(after, limit)?;
        let through = if level {
            when_level(&mut state);
            state.ring.head.max(after)
        } else {
            batches.back().map_or(after, |last| last.revision)
        };
        Some(Stretch {
            batches,
            through,
            level,
        })
    }
}

impl State {
    /// Hands a revision to every group that is interested in it.
    fn deliver(&mut self, batch: &Arc<Batch>, wakers: &mut Vec<Waker>) {
        let Self {
            interest, groups, ..
        } = self;
        for event in &batch.events {
            interest.each(&event.event().kv.key, |followers| {
                for follower in followers {
                    let Some(Some(member)) = groups.get_mut(follower.group as usize) else {
                        continue;
                    };
                    if member.stamp != batch.revision {
                        member.stamp = batch.revision;
                        wakers.extend(member.queue.push(batch));
                    }
                }
            });
        }
    }

    fn follow(&mut self, group: u32, range: &KeyRange) {
        self.interest.change(range, |followers| {
            match followers.binary_search_by_key(&group, |follower| follower.group) {
                Ok(at) => followers[at].watches += 1,
                Err(at) => followers.insert(at, Follower { group, watches: 1 }),
            }
        });
    }
}
