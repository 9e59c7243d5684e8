//! A watch served from the store's history, event by event with the version before each:
//! for who begins further back than a cache remembers, or where there is no cache.
//!
//! Invariant: what was compacted away ends the watch with 410, unless it makes no
//! difference to what the client is told.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use nautilus_machine::types::KeyRange;
use nautilus_machine::{Event, EventKind, Kv, Revision, WatchError, WatchRequest, Watcher};
use nautilus_machinery::resource::Resource;

use super::Source;
use crate::cache::{Change, Delivery, Entry, Maker, Selection, Snapshot, Tree};
use crate::custom;
use crate::failure::{Failure, expired_watch};
use crate::storage::Storage;

/// What the store's watcher gives next, and the watcher back.
type Next =
    Pin<Box<dyn Future<Output = (Box<dyn Watcher>, Result<Vec<Event>, WatchError>)> + Send>>;

/// See the module.
pub(super) struct History {
    next: Next,
    resource: Arc<Resource>,
    maker: Maker,
    through: Revision,
}

fn next(mut watcher: Box<dyn Watcher>, resource: Arc<Resource>) -> Next {
    Box::pin(async move {
        let events = match watcher.next().await {
            Ok(events) => custom::own_events(&resource, events)
                .await
                .map_err(|failure| WatchError::Storage(failure.error.to_string())),
            Err(error) => Err(error),
        };
        (watcher, events)
    })
}

impl History {
    /// The events of a range after a revision.
    pub(super) fn open(
        kv: &dyn Kv,
        resource: &Arc<Resource>,
        range: KeyRange,
        after: Revision,
    ) -> Result<Source, Failure> {
        let request = WatchRequest {
            range,
            from: Some(after + 1),
            previous: true,
        };
        match kv.watch(request) {
            Ok(watcher) => Ok(Source::Behind(Box::new(Self {
                next: next(watcher, resource.clone()),
                resource: resource.clone(),
                maker: Maker::new(resource),
                through: after,
            }))),
            Err(WatchError::Compacted { compacted }) => {
                Ok(Source::Failed(expired_watch(compacted)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Everything up to here was given.
    pub(super) fn through(&self) -> Revision {
        self.through
    }

    /// What concerns the selection of the events that have come, maybe nothing.
    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        selection: &Selection,
    ) -> Poll<Result<VecDeque<Delivery>, WatchError>> {
        let (watcher, events) = std::task::ready!(self.next.as_mut().poll(context));
        let progress = watcher.progress();
        self.next = next(watcher, self.resource.clone());
        let deliveries = events.and_then(|events| {
            let mut deliveries = VecDeque::new();
            for event in &events {
                deliveries.extend(self.read(event, selection)?);
            }
            Ok(deliveries)
        });
        self.through = self.through.max(progress);
        Poll::Ready(deliveries)
    }

    fn read(
        &mut self,
        event: &Event,
        selection: &Selection,
    ) -> Result<Option<Delivery>, WatchError> {
        let Some(key) = self.maker.key(&event.kv).map(str::to_owned) else {
            return Ok(None);
        };
        let expired = || WatchError::Compacted {
            compacted: event.revision(),
        };
        let mut entry = |row| {
            let made = self.maker.entry(&key, row);
            made.map_err(|failure| WatchError::Storage(failure.error.to_string()))
        };
        let mut before = event.prev.as_ref().map(&mut entry).transpose()?;
        let after = match event.kind {
            EventKind::Put => Some(entry(&event.kv)?),
            EventKind::Delete => None,
        };
        match &after {
            None if before.is_none() => return Err(expired()),
            // It was there before, nobody knows how.
            Some(after) if before.is_none() && event.kv.version > 1 => {
                if !selection.is_open() {
                    return Err(expired());
                }
                before = Some(after.clone());
            }
            _ => {}
        }
        let change = Change::new(event.revision(), before, after);
        Ok(change
            .seen_by(selection)
            .map(|happened| (happened, Arc::new(change))))
    }
}

/// The state of a range, read from the store.
pub(super) async fn snapshot(
    storage: &Storage,
    resource: &Arc<Resource>,
    range: KeyRange,
) -> Result<Snapshot, Failure> {
    let (rows, revision) = storage.rows_of(resource, range).await?;
    let mut maker = Maker::new(resource);
    let mut tree = Tree::<Entry>::default();
    for row in &rows {
        if let Some(key) = maker.key(row).map(str::to_owned) {
            tree.insert(maker.entry(&key, row)?);
        }
    }
    Ok(Snapshot { revision, tree })
}
