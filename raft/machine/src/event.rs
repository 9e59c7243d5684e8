//! What watchers see.
//!
//! Invariant: an event is encoded once for all who watch it in the same form.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::types::{KeyValue, Revision};

/// What happened to the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// Created or written.
    Put,
    /// Deleted; the event's `kv` has the key and the revision of the deletion only.
    Delete,
}

/// One change of one key. All events of one revision are delivered together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key as of this event; `kv.mod_revision` is the event's revision.
    pub kv: KeyValue,
    /// The version before it, where there was one and it is not compacted away.
    pub prev: Option<KeyValue>,
}

impl Event {
    /// The event's revision.
    pub fn revision(&self) -> Revision {
        self.kv.mod_revision
    }
}

/// An event on its way to many watchers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WatchedEvent(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    event: Event,
    plain: OnceLock<Bytes>,
    with_previous: OnceLock<Bytes>,
}

impl WatchedEvent {
    /// Shares an event.
    pub fn new(event: Event) -> Self {
        Self(Arc::new(Shared {
            event,
            plain: OnceLock::new(),
            with_previous: OnceLock::new(),
        }))
    }

    /// The event; `prev` is there only where a watch asked for it.
    pub fn event(&self) -> &Event {
        &self.0.event
    }

    /// The event in the one encoding that the caller's face uses, with the version
    /// before it or without; `encode` runs for the first caller of each form.
    pub fn encoded(&self, previous: bool, encode: impl FnOnce(&Event) -> Bytes) -> Bytes {
        let form = if previous {
            &self.0.with_previous
        } else {
            &self.0.plain
        };
        form.get_or_init(|| encode(&self.0.event)).clone()
    }
}
