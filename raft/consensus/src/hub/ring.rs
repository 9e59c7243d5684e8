//! The events of recent revisions.
//!
//! Invariant: every event after `floor` and up to `head` is in the ring.

use std::collections::VecDeque;
use std::sync::Arc;

use nautilus_machine::{Applied, Event, KeyValue, Revision, WatchedEvent};

/// Bytes an event costs besides its keys and values.
const EVENT_OVERHEAD_BYTES: usize = 256;

/// The events of one revision.
pub(super) struct Batch {
    pub(super) revision: Revision,
    pub(super) events: Box<[WatchedEvent]>,
    /// What it costs in memory.
    pub(super) bytes: usize,
}

impl Batch {
    /// Events as they come from history.
    pub(super) fn new(revision: Revision, events: Vec<Event>) -> Self {
        let bytes = events.iter().map(weight).sum();
        Self {
            revision,
            events: events.into_iter().map(WatchedEvent::new).collect(),
            bytes,
        }
    }

    /// Events as an entry gave them, without the versions before them.
    pub(super) fn applied(entry: Applied) -> Self {
        let bytes = entry.events.iter().map(weight).sum();
        let places = entry.previous.into_iter().chain(std::iter::repeat(None));
        let events = entry.events.into_iter().zip(places);
        Self {
            revision: entry.revision,
            events: events
                .map(|(event, before)| WatchedEvent::unread(event, before))
                .collect(),
            bytes,
        }
    }
}

/// With room for the encoding that readers share.
fn weight(event: &Event) -> usize {
    let kv = |kv: &KeyValue| 2 * (kv.key.len() + kv.value.len());
    EVENT_OVERHEAD_BYTES + kv(&event.kv) + event.prev.as_ref().map_or(0, kv)
}

pub(super) struct Ring {
    batches: VecDeque<Arc<Batch>>,
    events: usize,
    bytes: usize,
    pub(super) floor: Revision,
    pub(super) head: Revision,
}

impl Ring {
    pub(super) fn starting(head: Revision) -> Self {
        Self {
            batches: VecDeque::new(),
            events: 0,
            bytes: 0,
            floor: head,
            head,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the events of the next revision.
    pub(super) fn push(&mut self, batch: Arc<Batch>) {
        assert!(batch.revision > self.head, "a revision is published once");
        self.head = batch.revision;
        self.events += batch.events.len();
        self.bytes += batch.bytes;
        self.batches.push_back(batch);
    }

    /// Takes out the oldest until the rest is within the limits.
    pub(super) fn trim(&mut self, events: usize, bytes: usize) -> Vec<Arc<Batch>> {
        let mut taken = Vec::new();
        while self.events > events || self.bytes > bytes {
            let Some(oldest) = self.batches.pop_front() else {
                break;
            };
            self.events -= oldest.events.len();
            self.bytes -= oldest.bytes;
            self.floor = oldest.revision;
            taken.push(oldest);
        }
        taken
    }

    /// What comes after `after`, about `limit` events of it, and whether that is all;
    /// `None` when the ring has moved past it.
    pub(super) fn after(
        &self,
        after: Revision,
        limit: usize,
    ) -> Option<(VecDeque<Arc<Batch>>, bool)> {
        if after < self.floor {
            return None;
        }
        let from = self
            .batches
            .partition_point(|batch| batch.revision <= after);
        let mut found = VecDeque::new();
        let mut events = 0;
        for batch in self.batches.range(from..) {
            if events >= limit {
                return Some((found, false));
            }
            events += batch.events.len();
            found.push_back(Arc::clone(batch));
        }
        Some((found, true))
    }
}
