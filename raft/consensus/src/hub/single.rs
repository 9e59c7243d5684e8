//! One watch by itself: a group of one.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nautilus_machine::{Event, Revision, WatchError, WatchGroup, WatchRequest, Watcher};

use super::group::Group;

/// The only id.
const ONLY: i64 = 0;

pub(super) struct SingleWatch {
    group: Group,
    /// Progress that was told once does not go back.
    progress: Revision,
}

impl SingleWatch {
    pub(super) fn open(mut group: Group, request: WatchRequest) -> Result<Self, WatchError> {
        group.add(ONLY, request)?;
        let progress = group.returned(ONLY).unwrap_or_default();
        Ok(Self { group, progress })
    }

    async fn advance(&mut self) -> Result<Vec<Event>, WatchError> {
        if let Some(progress) = self.group.returned(ONLY) {
            self.progress = self.progress.max(progress);
        } else {
            return Err(WatchError::Closed);
        }
        let events = self.group.next().await.result?;
        if let Some(last) = events.last() {
            self.progress = self.progress.max(last.event().revision());
        }
        Ok(events.iter().map(|event| event.event().clone()).collect())
    }
}

impl Watcher for SingleWatch {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Event>, WatchError>> {
        self.advance().boxed()
    }

    fn progress(&self) -> Revision {
        let now = self.group.returned(ONLY).unwrap_or_default();
        self.progress.max(now)
    }
}
