//! The hub's metrics; their meaning is in [`crate::telemetry`].

use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::{Counter, Gauge};

/// Handles of the metrics, looked up once.
pub(super) struct Meters {
    ring_bytes: Gauge,
    watchers: Gauge,
    slow_watchers: Gauge,
    queue_bytes: Gauge,
    events: Counter,
    queued: AtomicUsize,
}

impl Meters {
    pub(super) fn new() -> Self {
        Self {
            ring_bytes: metrics::gauge!("nautilus_watch_ring_bytes"),
            watchers: metrics::gauge!("nautilus_watch_watchers"),
            slow_watchers: metrics::gauge!("nautilus_watch_slow_watchers"),
            queue_bytes: metrics::gauge!("nautilus_watch_queue_bytes"),
            events: metrics::counter!("nautilus_watch_events_total"),
            queued: AtomicUsize::new(0),
        }
    }

    pub(super) fn ring(&self, bytes: usize) {
        self.ring_bytes.set(bytes as f64);
        self.queue_bytes
            .set(self.queued.load(Ordering::Relaxed) as f64);
    }

    pub(super) fn queued(&self, bytes: usize) {
        self.queued.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn unqueued(&self, bytes: usize) {
        let before = self.queued.fetch_sub(bytes, Ordering::Relaxed);
        self.queue_bytes.set(before.saturating_sub(bytes) as f64);
    }

    pub(super) fn watchers_more(&self, count: usize) {
        self.watchers.increment(count as f64);
    }

    pub(super) fn watchers_fewer(&self, count: usize) {
        self.watchers.decrement(count as f64);
    }

    pub(super) fn slow_more(&self, count: usize) {
        self.slow_watchers.increment(count as f64);
    }

    pub(super) fn slow_fewer(&self, count: usize) {
        self.slow_watchers.decrement(count as f64);
    }

    pub(super) fn delivered(&self, events: usize) {
        self.events.increment(events as u64);
    }
}
