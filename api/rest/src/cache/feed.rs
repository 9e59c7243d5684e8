//! Keeps one kind's cache level with the store: reads everything once, then follows.
//!
//! Invariants
//! - What is read at a revision is followed from the next one: nothing is missed between.
//! - An object that cannot be read bypasses the cache: the store then says what is wrong.
//! - Its bytes are counted against the node's bound before they are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nautilus_machine::types::KeyRange;
use nautilus_machine::{
    Event, EventKind, Kv, RangeRequest, Revision, WatchError, WatchRequest, Watcher,
};
use tokio_util::sync::CancellationToken;

use super::MAX_OBJECT_BYTES;
use super::collection::{Collection, Incoming, Standing};
use super::entry::{Entry, Maker};
use super::tree::Tree;
use crate::custom;
use crate::failure::Failure;

/// Rows read from the store in one go.
const PAGE_ROWS: u64 = 1_000;
/// Pause before a kind is read anew.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Pause before a kind that could not be cached is tried again.
const BYPASS_PAUSE: Duration = Duration::from_secs(30);

pub(super) struct Feed {
    kv: Arc<dyn Kv>,
    collection: Arc<Collection>,
    maker: Maker,
    held: Arc<AtomicUsize>,
    /// What of `held` is this kind's.
    own: usize,
}

/// Why following ended.
enum Ended {
    /// The node stops.
    Closed,
    /// The events do not go on from here: read anew.
    Lost,
    /// Ask the store.
    Bypass(String),
}

impl Feed {
    pub(super) fn new(
        kv: Arc<dyn Kv>,
        collection: Arc<Collection>,
        held: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            kv,
            maker: Maker::new(&collection.resource),
            collection,
            held,
            own: 0,
        }
    }

    /// Until `stop`, or until the store closes.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep_level() => {}
        }
        self.hold(0);
        self.collection.end(Standing::Bypassed);
    }

    async fn keep_level(&mut self) {
        loop {
            let ended = match self.load().await {
                Ok(watcher) => self.follow(watcher).await,
                Err(ended) => ended,
            };
            let pause = match ended {
                Ended::Closed => return,
                Ended::Lost => {
                    self.collection.end(Standing::Loading);
                    RETRY_PAUSE
                }
                Ended::Bypass(reason) => {
                    let resource = &self.collection.resource.plural;
                    tracing::warn!(%resource, reason, "a kind is served without its cache");
                    self.collection.end(Standing::Bypassed);
                    self.hold(0);
                    BYPASS_PAUSE
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads every object, at one revision.
    async fn load(&mut self) -> Result<Box<dyn Watcher>, Ended> {
        self.hold(0);
        let range = KeyRange::prefix(self.collection.resource.storage_prefix());
        let (mut tree, mut pinned, mut next) =
            (Tree::<Entry>::default(), None, range.start.clone());
        loop {
            let request = RangeRequest {
                range: KeyRange {
                    start: next.clone(),
                    end: range.end.clone(),
                },
                revision: pinned,
                limit: Some(PAGE_ROWS),
                keys_only: false,
                count_only: false,
            };
            let kv = self.kv.clone();
            let read = tokio::task::spawn_blocking(move || kv.range(&request)).await;
            // A compaction meanwhile is no harm: it is read anew.
            let answer = read.map_err(|_| Ended::Closed)?.map_err(|_| Ended::Lost)?;
            pinned.get_or_insert(answer.revision);
            let last = answer.kvs.last().map(|row| row.key.clone());
            let rows = custom::own_rows(&self.collection.resource, answer.kvs)
                .await
                .map_err(|failure| bypass(&failure))?;
            for row in &rows {
                let Some(key) = self.maker.key(row).map(str::to_owned) else {
                    continue;
                };
                let entry = self
                    .maker
                    .entry(&key, row)
                    .map_err(|failure| bypass(&failure))?;
                self.hold(self.own + entry.weight());
                tree.insert(entry);
            }
            self.check_room()?;
            match last.filter(|_| answer.more) {
                Some(last) => next = [&last[..], b"\0"].concat().into(),
                None => break,
            }
        }
        let at = pinned.unwrap_or_default();
        self.start(range, tree, at)
    }

    fn start(
        &self,
        range: KeyRange,
        tree: Tree<Entry>,
        at: Revision,
    ) -> Result<Box<dyn Watcher>, Ended> {
        let request = WatchRequest {
            range,
            from: Some(at + 1),
            previous: false,
        };
        match self.kv.watch(request) {
            Ok(watcher) => {
                self.collection.begin(tree, self.own, at);
                Ok(watcher)
            }
            Err(WatchError::Closed) => Err(Ended::Closed),
            Err(_) => Err(Ended::Lost),
        }
    }

    async fn follow(&mut self, mut watcher: Box<dyn Watcher>) -> Ended {
        let collection = self.collection.clone();
        loop {
            let events = tokio::select! {
                biased;
                events = watcher.next() => match events {
                    Ok(events) => events,
                    Err(WatchError::Closed) => return Ended::Closed,
                    Err(_) => return Ended::Lost,
                },
                () = collection.nudged() => {
                    collection.advance(watcher.progress());
                    continue;
                }
            };
            let events = custom::own_events(&collection.resource, events).await;
            match events.and_then(|events| self.read(&events)) {
                Ok(incoming) => collection.apply(incoming, watcher.progress()),
                Err(failure) => return bypass(&failure),
            }
            self.hold(collection.bytes());
            if let Err(ended) = self.check_room() {
                return ended;
            }
        }
    }

    fn read(&mut self, events: &[Event]) -> Result<Vec<Incoming>, Failure> {
        let mut incoming = Vec::with_capacity(events.len());
        for event in events {
            let Some(key) = self.maker.key(&event.kv).map(Box::<str>::from) else {
                continue;
            };
            let entry = match event.kind {
                EventKind::Put => Some(self.maker.entry(&key, &event.kv)?),
                EventKind::Delete => None,
            };
            incoming.push((event.revision(), key, entry));
        }
        Ok(incoming)
    }

    /// Counts so many bytes as this kind's.
    fn hold(&mut self, bytes: usize) {
        if bytes >= self.own {
            self.held.fetch_add(bytes - self.own, Ordering::Relaxed);
        } else {
            self.held.fetch_sub(self.own - bytes, Ordering::Relaxed);
        }
        self.own = bytes;
    }

    fn check_room(&self) -> Result<(), Ended> {
        let held = self.held.load(Ordering::Relaxed);
        if held <= MAX_OBJECT_BYTES {
            return Ok(());
        }
        Err(Ended::Bypass(format!(
            "{held} bytes would be more than {MAX_OBJECT_BYTES}"
        )))
    }
}

fn bypass(failure: &Failure) -> Ended {
    Ended::Bypass(failure.error.to_string())
}
