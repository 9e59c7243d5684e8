//! Watches: from events of keys to events of objects.
//!
//! Invariants
//! - resourceVersions are revisions, the same on every node: a client that resumes
//!   on another node after the last version it saw misses nothing and sees nothing
//!   twice.
//! - With selectors, an object that enters the selection is ADDED and one that leaves
//!   it is DELETED, whatever happened to it.
//! - A bookmark's version is never ahead of what was sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use nautilus_machine::{Event, EventKind, KeyValue, Revision, WatchError, WatchRequest, Watcher};
use nautilus_machinery::resource::Resource;
use nautilus_machinery::status::ApiError;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use metrics::SharedString;

use crate::context::RestContext;
use crate::failure::{Failure, expired_watch};
use crate::ids;
use crate::options::{ListOptions, Version};
use crate::storage::{Storage, versioned_object, watch_range, with_version};

/// Initial events encoded in one go.
const INITIAL_BATCH: usize = 256;

/// One event on its way to the client.
pub(crate) enum WireEvent {
    Added(Value),
    Modified(Value),
    Deleted(Value),
    /// Everything up to this revision was sent.
    Bookmark {
        revision: Revision,
        initial_events_end: bool,
    },
    /// The watch ends with this error.
    Error(ApiError),
}

/// A running watch of one client.
pub(crate) struct Session {
    pub(crate) resource: Arc<Resource>,
    options: ListOptions,
    watcher: Option<Box<dyn Watcher>>,
    initial: VecDeque<KeyValue>,
    /// The bookmark that closes the initial events is still to be sent.
    initial_bookmark: bool,
    /// Everything up to here was sent or does not concern the client.
    start: Revision,
    bookmarks: Option<Interval>,
    deadline: Instant,
    shutdown: CancellationToken,
    failed: Option<ApiError>,
    _gauge: WatchGauge,
    _permit: OwnedSemaphorePermit,
}

/// Counts running watches.
struct WatchGauge(SharedString);

impl WatchGauge {
    fn new(resource: &Resource) -> Self {
        let plural = SharedString::from(resource.plural.clone());
        metrics::gauge!("apiserver_registered_watchers", "resource" => plural.clone())
            .increment(1.0);
        Self(plural)
    }
}

impl Drop for WatchGauge {
    fn drop(&mut self) {
        metrics::gauge!("apiserver_registered_watchers", "resource" => self.0.clone())
            .decrement(1.0);
    }
}

impl Session {
    /// Opens a watch where the options say.
    pub(crate) async fn open(
        context: &Arc<RestContext>,
        resource: Arc<Resource>,
        namespace: Option<&str>,
        options: ListOptions,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, Failure> {
        let storage = Storage::new(context.kv.clone());
        let origin = Origin::of(&options);
        match origin.at_least {
            Version::Newest => {
                storage.barrier().await?;
            }
            Version::Any => {}
            Version::At(revision) => storage.reach(revision).await?,
        }
        let range = watch_range(&resource, namespace, options.fields.exact_name());
        let (initial, start) = match (origin.initial, origin.at_least) {
            (true, _) => storage.rows(range.clone()).await?,
            (false, Version::At(revision)) => (Vec::new(), revision),
            (false, _) => (Vec::new(), context.kv.revision()),
        };
        let request = WatchRequest {
            range,
            from: Some(start + 1),
            previous: true,
        };
        let (watcher, failed) = match context.kv.watch(request) {
            Ok(watcher) => (Some(watcher), None),
            Err(WatchError::Compacted { compacted }) => (None, Some(expired_watch(compacted))),
            Err(error) => return Err(error.into()),
        };
        let limits = &context.limits;
        Ok(Self {
            _gauge: WatchGauge::new(&resource),
            resource,
            initial_bookmark: origin.closing_bookmark,
            bookmarks: options
                .allow_bookmarks
                .then(|| interval(limits.bookmark_interval)),
            deadline: Instant::now()
                + options
                    .timeout
                    .unwrap_or_else(|| default_timeout(limits.min_watch_timeout)),
            options,
            watcher,
            initial: initial.into(),
            start,
            shutdown: context.shutdown.clone(),
            failed,
            _permit: permit,
        })
    }

    /// The next events, at least one; `None` when the watch is over.
    pub(crate) async fn next(&mut self) -> Option<Vec<WireEvent>> {
        if let Some(error) = self.failed.take() {
            self.watcher = None;
            return Some(vec![WireEvent::Error(error)]);
        }
        self.watcher.as_ref()?;
        while !self.initial.is_empty() {
            let events = self.initial_events();
            if !events.is_empty() {
                return Some(events);
            }
        }
        if std::mem::take(&mut self.initial_bookmark) {
            let revision = self.start;
            return Some(vec![WireEvent::Bookmark {
                revision,
                initial_events_end: true,
            }]);
        }
        self.live_events().await
    }

    /// Ends the watch: the next call of [`Session::next`] returns `None`.
    pub(crate) fn stop(&mut self) {
        self.watcher = None;
        self.failed = None;
    }

    fn initial_events(&mut self) -> Vec<WireEvent> {
        let batch = self.initial.len().min(INITIAL_BATCH);
        let rows: Vec<KeyValue> = self.initial.drain(..batch).collect();
        let mut events = Vec::with_capacity(batch);
        for row in &rows {
            match versioned_object(&self.resource, row) {
                Ok(object) if self.selects(&object) => events.push(WireEvent::Added(object)),
                Ok(_) => {}
                Err(failure) => self.failed = Some(failure.error),
            }
        }
        events
    }

    async fn live_events(&mut self) -> Option<Vec<WireEvent>> {
        loop {
            let watcher = self.watcher.as_mut()?;
            let step = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => Step::End,
                () = tokio::time::sleep_until(self.deadline) => Step::End,
                events = watcher.next() => Step::Events(events),
                () = tick(&mut self.bookmarks) => Step::Bookmark,
            };
            match step {
                Step::Events(Ok(events)) => {
                    let wire = self.translate(&events);
                    if !wire.is_empty() {
                        return Some(wire);
                    }
                }
                Step::Events(Err(error)) => return self.end_with(error),
                Step::Bookmark => return Some(vec![self.bookmark()]),
                Step::End => {
                    // A last bookmark, so that the client resumes close to here.
                    let last = self.bookmarks.is_some().then(|| vec![self.bookmark()]);
                    self.watcher = None;
                    return last;
                }
            }
            if let Some(error) = self.failed.take() {
                self.watcher = None;
                return Some(vec![WireEvent::Error(error)]);
            }
        }
    }

    fn end_with(&mut self, error: WatchError) -> Option<Vec<WireEvent>> {
        self.watcher = None;
        match error {
            // The client resumes after the last version it saw.
            WatchError::Closed => None,
            other => Some(vec![WireEvent::Error(Failure::from(other).error)]),
        }
    }

    fn bookmark(&self) -> WireEvent {
        let progress = self
            .watcher
            .as_ref()
            .map_or(0, |watcher| watcher.progress());
        WireEvent::Bookmark {
            revision: progress.max(self.start),
            initial_events_end: false,
        }
    }

    fn translate(&mut self, events: &[Event]) -> Vec<WireEvent> {
        let mut wire = Vec::with_capacity(events.len());
        for event in events {
            match self.translate_one(event) {
                Ok(Some(event)) => wire.push(event),
                Ok(None) => {}
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        wire
    }

    fn translate_one(&self, event: &Event) -> Result<Option<WireEvent>, ApiError> {
        let parse =
            |row: &KeyValue| versioned_object(&self.resource, row).map_err(|failure| failure.error);
        let before = event.prev.as_ref().map(parse).transpose()?;
        let selected_before = before.as_ref().is_some_and(|object| self.selects(object));
        // What left the selection is shown as it last was in it, at the version of
        // the change that took it out.
        let left = |before: Option<Value>| {
            before.map(|object| WireEvent::Deleted(with_version(object, event.revision())))
        };
        match event.kind {
            EventKind::Delete if before.is_none() => Err(expired_watch(event.revision())),
            EventKind::Delete if selected_before => Ok(left(before)),
            EventKind::Delete => Ok(None),
            EventKind::Put => {
                let lost_history = before.is_none() && event.kv.version > 1;
                if lost_history && !self.selects_everything() {
                    return Err(expired_watch(event.revision()));
                }
                let now = parse(&event.kv)?;
                Ok(
                    match (self.selects(&now), selected_before || lost_history) {
                        (true, true) => Some(WireEvent::Modified(now)),
                        (true, false) => Some(WireEvent::Added(now)),
                        (false, true) => left(before),
                        (false, false) => None,
                    },
                )
            }
        }
    }

    fn selects_everything(&self) -> bool {
        self.options.labels.is_empty() && self.options.fields.is_empty()
    }

    fn selects(&self, object: &Value) -> bool {
        self.options.labels.matches(object) && self.options.fields.matches(object)
    }
}

enum Step {
    Events(Result<Vec<Event>, WatchError>),
    Bookmark,
    End,
}

/// Where a watch begins, by the documented table of resourceVersion semantics.
struct Origin {
    /// The state comes first, as ADDED events.
    initial: bool,
    /// A bookmark closes it.
    closing_bookmark: bool,
    /// The state, or the first event, is not older than this.
    at_least: Version,
}

impl Origin {
    fn of(options: &ListOptions) -> Self {
        let initial = match (options.send_initial_events, options.version) {
            (Some(wanted), _) => wanted,
            (None, Version::At(_)) => false,
            (None, Version::Newest | Version::Any) => true,
        };
        Self {
            initial,
            closing_bookmark: options.send_initial_events == Some(true) && options.allow_bookmarks,
            at_least: options.version,
        }
    }
}

fn interval(period: Duration) -> Interval {
    let mut interval = tokio::time::interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// Between `least` and twice that, so that clients do not come back all at once.
fn default_timeout(least: Duration) -> Duration {
    let spread = u64::try_from(least.as_millis()).unwrap_or(u64::MAX);
    least + Duration::from_millis(ids::below(spread))
}
