//! A group of watches: one reader, one queue.
//!
//! Invariants
//! - What waits for the reader goes first; then the catching up of watches that the
//!   hub is registered for already, so that nothing newer overtakes it; then the queue
//!   and catching up in turn.
//! - Progress is never ahead of what [`WatchGroup::next`] has returned.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nautilus_machine::{Revision, WatchError, WatchGroup, WatchMessage, WatchRequest};

use super::Hub;
use super::catching_up::Round;
use super::previous::Reading;
use super::queue::{GroupQueue, Look};
use super::ring::Batch;
use super::watches::{Course, Watches};

/// Events that are read from the ring at once.
pub(super) const READ_EVENTS: usize = 1024;
/// Events that are sorted out for the reader ahead of it, but at least one revision's.
const READY_EVENTS: usize = 4096;
/// Watches let go of under one hold of the hub's lock.
const DISMISS_AT_ONCE: usize = 256;

/// The group.
pub(crate) struct Group {
    pub(super) hub: Arc<Hub>,
    pub(super) number: u32,
    queue: Arc<GroupQueue>,
    pub(super) watches: Watches,
    /// Taken out of the queue, or read in its place, and not sorted out yet.
    taken: VecDeque<Arc<Batch>>,
    pub(super) round: Option<Round>,
    pub(super) rounds: u64,
    pub(super) reading: Option<Reading>,
    /// Whose turn it is when both have something: the queue's or the round's.
    queue_first: bool,
    reported_level: usize,
    reported_behind: usize,
}

impl Group {
    pub(super) fn join(hub: &Arc<Hub>) -> Self {
        let (number, queue) = hub.enlist();
        Self {
            hub: Arc::clone(hub),
            number,
            queue,
            watches: Watches::default(),
            taken: VecDeque::new(),
            round: None,
            rounds: 0,
            reading: None,
            queue_first: false,
            reported_level: 0,
            reported_behind: 0,
        }
    }

    pub(super) fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<WatchMessage> {
        loop {
            if self.poll_previous(context).is_pending() {
                self.report();
                return Poll::Pending;
            }
            if let Some(message) = self.watches.pop() {
                match &message.result {
                    Ok(events) => self.hub.meters.delivered(events.len()),
                    Err(_) => {
                        self.remove(message.id);
                    }
                }
                self.report();
                return Poll::Ready(message);
            }
            if self.hub.is_closed() && self.end_all() {
                continue;
            }
            if self.work(context) {
                continue;
            }
            self.report();
            // Asked again now that the queue has the waker: closing takes it after it
            // has said so.
            if self.hub.is_closed() && self.watches.len() > 0 {
                continue;
            }
            return Poll::Pending;
        }
    }

    /// One step; false when there is nothing to do until the context is woken.
    fn work(&mut self, context: &mut Context<'_>) -> bool {
        if self.round.as_ref().is_some_and(Round::is_registered) {
            return self.poll_round(context);
        }
        self.queue_first = !self.queue_first;
        let queue_first = self.queue_first;
        (queue_first && self.poll_queue(context))
            || self.poll_round(context)
            || (!queue_first && self.poll_queue(context))
    }

    fn poll_queue(&mut self, context: &mut Context<'_>) -> bool {
        if self.taken.is_empty() {
            match self.queue.take(context.waker()) {
                Look::Batches(batches) => self.taken = batches,
                Look::Behind(after) => self.read_on(after),
                Look::Empty => return false,
            }
        }
        while self.has_room()
            && let Some(batch) = self.taken.pop_front()
        {
            self.watches.deliver_level(&batch);
        }
        true
    }

    /// The queue was full: goes on from the ring, or puts all watches behind if that is
    /// past it too.
    fn read_on(&mut self, after: Revision) {
        let queue = &self.queue;
        let level = |state: &mut super::State| queue.advance(state.ring.head, true);
        match self.hub.read_ring(after, READ_EVENTS, level) {
            Some(stretch) => {
                if !stretch.level {
                    queue.advance(stretch.through, false);
                }
                self.taken = stretch.batches;
            }
            None => {
                let registered = self.watches.iter().filter(|(_, watch)| watch.registered);
                let level = registered.filter(|(_, watch)| watch.course == Course::Level);
                self.hub
                    .unfollow(self.number, level.map(|(_, watch)| &watch.range));
                self.watches.lower_all(after);
                queue.advance(after, true);
            }
        }
    }

    /// Whether the reader may be given more.
    pub(super) fn has_room(&self) -> bool {
        self.watches.ready_events() < READY_EVENTS
    }

    /// The node stops; false if every watch knows already.
    fn end_all(&mut self) -> bool {
        let slots: Vec<u32> = self.watches.iter().map(|(slot, _)| slot).collect();
        for slot in &slots {
            self.watches.end(*slot, WatchError::Closed);
        }
        !slots.is_empty()
    }

    fn report(&mut self) {
        let (level, behind) = (self.watches.level_count, self.watches.behind_count);
        if level != self.reported_level {
            self.queue.set_level(level);
            self.reported_level = level;
        }
        if behind != self.reported_behind {
            let meters = &self.hub.meters;
            meters.slow_more(behind.saturating_sub(self.reported_behind));
            meters.slow_fewer(self.reported_behind.saturating_sub(behind));
            self.reported_behind = behind;
        }
    }

    /// How far all level watches have got, but for what waits for the reader.
    fn level_through(&self) -> Revision {
        // The head first: what is queued later is beyond it.
        let head = self.hub.head();
        let taken = self.taken.front().map(|batch| batch.revision - 1);
        let waiting = taken.or_else(|| self.queue.before_front());
        waiting.map_or(head, |waiting| waiting.min(head))
    }

    /// Everything of a watch up to here has been returned, whatever its state.
    pub(super) fn returned(&self, id: i64) -> Option<Revision> {
        let watch = self.watches.get(id)?;
        let through = match watch.course {
            Course::Level => self.level_through(),
            Course::Behind | Course::Ended => watch.position,
        };
        let ready = self.watches.before_ready(Some(watch));
        Some(ready.map_or(through, |ready| ready.min(through)))
    }
}

impl WatchGroup for Group {
    fn add(&mut self, id: i64, request: WatchRequest) -> Result<(), WatchError> {
        if self.hub.is_closed() {
            return Err(WatchError::Closed);
        }
        let store = &self.hub.store;
        let present = store.revision();
        let position = match request.from {
            Some(from) => {
                let compacted = store.compacted_revision();
                if from < compacted {
                    return Err(WatchError::Compacted { compacted });
                }
                from.saturating_sub(1)
            }
            None => present,
        };
        let level = self.hub.follow_from(self.number, &request.range, position);
        let slot = self.watches.add(id, request, position);
        if level {
            self.watches.raise(slot);
            if let Some(watch) = self.watches.at(slot) {
                watch.registered = true;
            }
        }
        self.hub.meters.watchers_more(1);
        self.report();
        Ok(())
    }

    fn remove(&mut self, id: i64) -> bool {
        let Some(watch) = self.watches.remove(id) else {
            return false;
        };
        if watch.registered {
            self.hub
                .unfollow(self.number, std::iter::once(&watch.range));
        }
        self.hub.meters.watchers_fewer(1);
        self.report();
        true
    }

    fn next(&mut self) -> BoxFuture<'_, WatchMessage> {
        poll_fn(|context| self.poll_message(context)).boxed()
    }

    fn progress(&self, id: i64) -> Option<Revision> {
        let watch = self.watches.get(id)?;
        let level = watch.course == Course::Level && !self.queue.is_behind();
        level.then(|| self.returned(id)).flatten()
    }

    fn synced(&self) -> Option<Revision> {
        let all_level = self.watches.level_count == self.watches.len();
        if !all_level || self.queue.is_behind() {
            return None;
        }
        let through = self.level_through();
        let ready = self.watches.before_ready(None);
        Some(ready.map_or(through, |ready| ready.min(through)))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let registered: Vec<_> = self
            .watches
            .iter()
            .filter(|(_, watch)| watch.registered)
            .map(|(_, watch)| &watch.range)
            .collect();
        for ranges in registered.chunks(DISMISS_AT_ONCE) {
            self.hub.unfollow(self.number, ranges.iter().copied());
        }
        self.hub.dismiss(self.number);
        self.hub.meters.watchers_fewer(self.watches.len());
        self.hub.meters.slow_fewer(self.reported_behind);
    }
}
