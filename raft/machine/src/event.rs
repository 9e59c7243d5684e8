//! What watchers see.

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
