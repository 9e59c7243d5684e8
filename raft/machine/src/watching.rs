//! A group of watches made of single ones: simple, and slow for thousands.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, pending, select_all};

use crate::event::WatchedEvent;
use crate::port::{WatchError, WatchGroup, WatchMessage, WatchRequest, Watcher};
use crate::types::Revision;

/// Makes a single watch.
type Open = Box<dyn Fn(WatchRequest) -> Result<Box<dyn Watcher>, WatchError> + Send>;

/// [`WatchGroup`] over any way to make a single watch.
pub struct SingleWatches {
    open: Open,
    watches: BTreeMap<i64, Box<dyn Watcher>>,
}

impl SingleWatches {
    /// An empty group.
    pub fn new(
        open: impl Fn(WatchRequest) -> Result<Box<dyn Watcher>, WatchError> + Send + 'static,
    ) -> Self {
        Self {
            open: Box::new(open),
            watches: BTreeMap::new(),
        }
    }

    async fn advance(&mut self) -> WatchMessage {
        if self.watches.is_empty() {
            return pending().await;
        }
        let all = self.watches.iter_mut().map(|(id, watch)| {
            let id = *id;
            watch.next().map(move |result| (id, result)).boxed()
        });
        let ((id, result), _, _) = select_all(all).await;
        if result.is_err() {
            self.watches.remove(&id);
        }
        let result = result.map(|events| events.into_iter().map(WatchedEvent::new).collect());
        WatchMessage { id, result }
    }
}

impl WatchGroup for SingleWatches {
    fn add(&mut self, id: i64, request: WatchRequest) -> Result<(), WatchError> {
        let watch = (self.open)(request)?;
        let before = self.watches.insert(id, watch);
        assert!(before.is_none(), "watch {id} was added twice");
        Ok(())
    }

    fn remove(&mut self, id: i64) -> bool {
        self.watches.remove(&id).is_some()
    }

    fn next(&mut self) -> BoxFuture<'_, WatchMessage> {
        self.advance().boxed()
    }

    fn progress(&self, id: i64) -> Option<Revision> {
        Some(self.watches.get(&id)?.progress())
    }

    fn synced(&self) -> Option<Revision> {
        self.watches.values().map(|watch| watch.progress()).min()
    }
}
