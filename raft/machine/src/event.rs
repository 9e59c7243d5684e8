//! What watchers see.
//!
//! Invariants: an event is encoded once for all who watch it in the same form; the
//! version before it is read for those only who ask for it, and once.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::encoding::Place;
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

/// An event on its way to many watchers, as one of them wants it: with the version
/// before it or without. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WatchedEvent {
    shared: Arc<Shared>,
    previous: bool,
}

#[derive(Debug)]
struct Shared {
    event: Event,
    /// Where the version before it stands, when `event` does not hold it.
    before: Option<Place>,
    /// The event with that version, once somebody has read it.
    complete: OnceLock<Box<Event>>,
    plain: OnceLock<Bytes>,
    with_previous: OnceLock<Bytes>,
}

impl WatchedEvent {
    /// Shares an event that holds all there is.
    pub fn new(event: Event) -> Self {
        Self::unread(event, None)
    }

    /// Shares an event the version before which stands at `before` and is yet to be
    /// read, for those who want it.
    pub fn unread(event: Event, before: Option<Place>) -> Self {
        Self {
            shared: Arc::new(Shared {
                event,
                before,
                complete: OnceLock::new(),
                plain: OnceLock::new(),
                with_previous: OnceLock::new(),
            }),
            previous: false,
        }
    }

    /// Where the version before it is to be read, as long as nobody has.
    pub fn unread_previous(&self) -> Option<Place> {
        let place = self.shared.before?;
        self.shared.complete.get().is_none().then_some(place)
    }

    /// Adds the version before it, for everybody; `None`: it is compacted away.
    pub fn complete(&self, previous: Option<KeyValue>) {
        self.shared.complete.get_or_init(|| {
            Box::new(Event {
                prev: previous,
                ..self.shared.event.clone()
            })
        });
    }

    /// The same event, seen with the version before it as far as it was read.
    #[must_use]
    pub fn with_previous(mut self) -> Self {
        self.previous = true;
        self
    }

    /// The event; `prev` is there for a watch that asked for it.
    pub fn event(&self) -> &Event {
        match self.shared.complete.get() {
            Some(complete) if self.previous => complete,
            _ => &self.shared.event,
        }
    }

    /// The event in the one encoding that the caller's face uses, with the version
    /// before it or without; `encode` runs for the first caller of each form.
    pub fn encoded(&self, previous: bool, encode: impl FnOnce(&Event) -> Bytes) -> Bytes {
        let form = if previous {
            &self.shared.with_previous
        } else {
            &self.shared.plain
        };
        form.get_or_init(|| encode(self.event())).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(value: &'static str, revision: Revision) -> KeyValue {
        KeyValue {
            key: "key".into(),
            value: value.into(),
            create_revision: 2,
            mod_revision: revision,
            version: revision - 1,
            lease: None,
        }
    }

    #[test]
    fn the_version_before_is_read_once_and_seen_by_those_who_want_it() {
        let place = Place {
            revision: 2,
            sub: 0,
        };
        let event = Event {
            kind: EventKind::Put,
            kv: kv("new", 3),
            prev: None,
        };
        let one = WatchedEvent::unread(event, Some(place));
        let other = one.clone().with_previous();
        assert_eq!(one.unread_previous(), Some(place));
        one.complete(Some(kv("old", 2)));
        assert_eq!(other.unread_previous(), None);
        assert_eq!(other.event().prev, Some(kv("old", 2)));
        assert_eq!(one.event().prev, None);
    }

    #[test]
    fn each_form_is_encoded_once() {
        let event = Event {
            kind: EventKind::Put,
            kv: kv("new", 3),
            prev: None,
        };
        let one = WatchedEvent::new(event);
        let other = one.clone();
        assert_eq!(one.encoded(false, |_| "plain".into()), "plain");
        assert_eq!(other.encoded(false, |_| "again".into()), "plain");
        assert_eq!(other.encoded(true, |_| "previous".into()), "previous");
    }
}
