//! The versions before events: read for watches that want them, when their reader is
//! about to get them, once for all.
//!
//! Invariant: a watch that wants the version before an event gets the event without it
//! only if there was none or a compaction has removed it.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nautilus_machine::{WatchError, WatchedEvent};
use nautilus_store::Store;

use super::group::Group;

/// So many versions are read at once, from memory for the most part; more of them on a
/// blocking thread.
const READ_INLINE_MAX: usize = 16;

/// A read under way, for a message of the watch with this serial number.
pub(super) struct Reading {
    serial: u64,
    read: BoxFuture<'static, Result<(), WatchError>>,
}

impl Group {
    /// Whether the next message has all that its watch wants; if not, it is read.
    pub(super) fn poll_previous(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(reading) = &mut self.reading {
                let result = std::task::ready!(reading.read.poll_unpin(context));
                let serial = reading.serial;
                self.reading = None;
                if let Err(error) = result {
                    self.watches.end_front(serial, error);
                }
            }
            let Some((serial, events)) = self.watches.front_unread() else {
                return Poll::Ready(());
            };
            let store = Arc::clone(&self.hub.store);
            if events.len() <= READ_INLINE_MAX {
                if let Err(error) = read_all(&store, &events) {
                    self.watches.end_front(serial, error);
                }
                continue;
            }
            let read = tokio::task::spawn_blocking(move || read_all(&store, &events));
            let read = read.map(|done| {
                done.unwrap_or_else(|error| Err(WatchError::Storage(error.to_string())))
            });
            self.reading = Some(Reading {
                serial,
                read: read.boxed(),
            });
        }
    }
}

fn read_all(store: &Store, events: &[WatchedEvent]) -> Result<(), WatchError> {
    for event in events {
        let Some(place) = event.unread_previous() else {
            continue;
        };
        let (key, revision) = (&event.event().kv.key, event.event().revision());
        let previous = store
            .version(key, place)
            .map_err(|error| WatchError::Storage(error.to_string()))?;
        if previous.is_none() && store.compacted_revision() < revision {
            return Err(WatchError::Storage(format!(
                "the version before the event of revision {revision} is missing"
            )));
        }
        event.complete(previous);
    }
    Ok(())
}
