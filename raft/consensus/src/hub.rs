//! The watch hub: recent events in a bounded ring, watchers reading from it, and
//! the store's history for those that start in the past.
//!
//! Invariants: events of one revision are delivered together and once; a watcher
//! sees every matching event of its range or an error that says where to resume;
//! memory is bounded by the ring, whatever watchers do.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use nautilus_machine::{Applied, Event, KeyRange, Revision, WatchError, WatchRequest, Watcher};
use nautilus_store::Store;
use parking_lot::RwLock;
use tokio::sync::watch;

/// Bounds of the hub.
#[derive(Debug, Clone, Copy)]
pub struct HubLimits {
    /// Events kept for watchers that are behind.
    pub ring_events: usize,
    /// Bytes of keys and values kept for them.
    pub ring_bytes: usize,
}

impl Default for HubLimits {
    fn default() -> Self {
        Self {
            ring_events: 65_536,
            ring_bytes: 64 << 20,
        }
    }
}

/// Events one [`Watcher::next`] returns at most, but never less than a revision's.
const EVENTS_PER_ANSWER: usize = 1024;
/// Bytes an event costs besides its keys and values.
const EVENT_OVERHEAD_BYTES: usize = 160;

struct Batch {
    revision: Revision,
    events: Arc<[Event]>,
    bytes: usize,
}

struct Ring {
    batches: VecDeque<Batch>,
    events: usize,
    bytes: usize,
    /// Every event after this revision is in the ring.
    floor: Revision,
    /// The newest revision published.
    head: Revision,
}

/// Shared by the state machine, which publishes, and every watcher.
pub(crate) struct Hub {
    store: Arc<Store>,
    limits: HubLimits,
    ring: RwLock<Ring>,
    signal: watch::Sender<Signal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signal {
    head: Revision,
    closed: bool,
}

impl Hub {
    pub(crate) fn new(store: Arc<Store>, limits: HubLimits) -> Arc<Self> {
        let head = store.revision();
        let ring = Ring {
            batches: VecDeque::new(),
            events: 0,
            bytes: 0,
            floor: head,
            head,
        };
        let (signal, _) = watch::channel(Signal {
            head,
            closed: false,
        });
        Arc::new(Self {
            store,
            limits,
            ring: RwLock::new(ring),
            signal,
        })
    }

    /// Takes the events of entries just applied.
    pub(crate) fn publish(&self, applied: Vec<Applied>) {
        let Some(head) = applied.last().map(|last| last.revision) else {
            return;
        };
        let mut ring = self.ring.write();
        for entry in applied {
            if entry.events.is_empty() {
                continue;
            }
            let bytes = entry.events.iter().map(weight).sum();
            ring.events += entry.events.len();
            ring.bytes += bytes;
            ring.batches.push_back(Batch {
                revision: entry.revision,
                events: entry.events.into(),
                bytes,
            });
        }
        ring.head = head;
        while ring.events > self.limits.ring_events || ring.bytes > self.limits.ring_bytes {
            let Some(oldest) = ring.batches.pop_front() else {
                break;
            };
            ring.events -= oldest.events.len();
            ring.bytes -= oldest.bytes;
            ring.floor = oldest.revision;
        }
        metrics::gauge!("nautilus_watch_ring_bytes").set(ring.bytes as f64);
        drop(ring);
        self.signal.send_modify(|signal| signal.head = head);
    }

    /// The state was replaced by a snapshot: what is between comes from history.
    pub(crate) fn restart(&self) {
        let head = self.store.revision();
        let mut ring = self.ring.write();
        *ring = Ring {
            batches: VecDeque::new(),
            events: 0,
            bytes: 0,
            floor: head,
            head,
        };
        drop(ring);
        self.signal.send_modify(|signal| signal.head = head);
    }

    /// Ends every watcher.
    pub(crate) fn close(&self) {
        self.signal.send_modify(|signal| signal.closed = true);
    }

    pub(crate) fn watch(
        self: &Arc<Self>,
        request: WatchRequest,
    ) -> Result<Box<dyn Watcher>, WatchError> {
        if self.signal.borrow().closed {
            return Err(WatchError::Closed);
        }
        let compacted = self.store.compacted_revision();
        let delivered = match request.from {
            Some(from) if from < compacted => return Err(WatchError::Compacted { compacted }),
            Some(from) => from.saturating_sub(1),
            None => self.ring.read().head,
        };
        metrics::gauge!("nautilus_watch_watchers").increment(1.0);
        Ok(Box::new(HubWatcher {
            hub: Arc::clone(self),
            range: request.range,
            delivered,
            live: false,
            signal: self.signal.subscribe(),
        }))
    }

    /// What the ring has for `range` after `delivered`: the events and how far they reach.
    fn read(&self, range: &KeyRange, delivered: Revision) -> Read {
        let ring = self.ring.read();
        if delivered < ring.floor {
            return Read::Behind;
        }
        let from = ring
            .batches
            .partition_point(|batch| batch.revision <= delivered);
        let mut events = Vec::new();
        for batch in ring.batches.range(from..) {
            let matching = batch
                .events
                .iter()
                .filter(|event| range.contains(&event.kv.key));
            events.extend(matching.cloned());
            if events.len() >= EVENTS_PER_ANSWER {
                return Read::Events {
                    events,
                    through: batch.revision,
                };
            }
        }
        Read::Events {
            events,
            through: ring.head.max(delivered),
        }
    }
}

enum Read {
    /// The ring has moved past what is wanted.
    Behind,
    Events {
        events: Vec<Event>,
        through: Revision,
    },
}

struct HubWatcher {
    hub: Arc<Hub>,
    range: KeyRange,
    /// Everything up to here was returned.
    delivered: Revision,
    /// Whether it has reached the ring: from then on it must keep up.
    live: bool,
    signal: watch::Receiver<Signal>,
}

impl HubWatcher {
    async fn advance(&mut self) -> Result<Vec<Event>, WatchError> {
        loop {
            let signal = *self.signal.borrow_and_update();
            if signal.closed {
                return Err(WatchError::Closed);
            }
            match self.hub.read(&self.range, self.delivered) {
                Read::Behind if self.live => {
                    metrics::counter!("nautilus_watch_lagged_total").increment(1);
                    return Err(WatchError::Lagged {
                        resume_after: self.delivered,
                    });
                }
                Read::Behind => {
                    let events = self.catch_up().await?;
                    if !events.is_empty() {
                        return Ok(events);
                    }
                    continue;
                }
                Read::Events { events, through } => {
                    self.live = true;
                    self.delivered = through;
                    if !events.is_empty() {
                        return Ok(events);
                    }
                }
            }
            if self.signal.changed().await.is_err() {
                return Err(WatchError::Closed);
            }
        }
    }

    /// A piece of the past, read on a blocking thread.
    async fn catch_up(&mut self) -> Result<Vec<Event>, WatchError> {
        let (store, range, from) = (
            Arc::clone(&self.hub.store),
            self.range.clone(),
            self.delivered + 1,
        );
        let read =
            tokio::task::spawn_blocking(move || store.history(&range, from, EVENTS_PER_ANSWER));
        let history = read
            .await
            .map_err(|error| WatchError::Storage(error.to_string()))??;
        self.delivered = self.delivered.max(history.through);
        Ok(history.events)
    }
}

impl Watcher for HubWatcher {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Event>, WatchError>> {
        Box::pin(self.advance())
    }

    fn progress(&self) -> Revision {
        self.delivered
    }
}

impl Drop for HubWatcher {
    fn drop(&mut self) {
        metrics::gauge!("nautilus_watch_watchers").decrement(1.0);
    }
}

fn weight(event: &Event) -> usize {
    let kv = |kv: &nautilus_machine::KeyValue| kv.key.len() + kv.value.len();
    EVENT_OVERHEAD_BYTES + kv(&event.kv) + event.prev.as_ref().map_or(0, kv)
}
