//! Watches: a client's place at a kind's cache, and what it is told.
//!
//! A watch from a version that the cache has forgotten is served from the store's history
//! until it is level with the cache, then from there.
//!
//! Invariants
//! - resourceVersions are revisions, the same on every node: a client that resumes
//!   on another node after the last version it saw misses nothing and sees nothing
//!   twice.
//! - With selectors, an object that enters the selection is ADDED and one that leaves
//!   it is DELETED, whatever happened to it.
//! - A bookmark's version is never ahead of what was sent.
//! - A client that does not read fast enough loses its watch, cleanly: it has everything
//!   up to the last version it saw, and resumes from there.

mod history;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use metrics::SharedString;
use nautilus_machine::{Kv, Revision, WatchError};
use nautilus_machinery::resource::Resource;
use nautilus_machinery::status::ApiError;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use crate::cache::{
    Caches, Change, Collection, Delivery, Entry, Happened, Selection, Snapshot, Subscription,
};
use crate::context::{RequestLimits, RestContext};
use crate::failure::Failure;
use crate::fairness::Seats;
use crate::ids;
use crate::options::{ListOptions, Version};
use crate::storage::{Storage, watch_range};
use history::History;

/// Initial events encoded in one go.
const INITIAL_BATCH: usize = 256;
/// Objects looked at for them in one go.
const INITIAL_SCAN: usize = 4_096;

/// One event on its way to the client.
pub(crate) enum WireEvent {
    /// Something happened to an object.
    Object(Told),
    /// Everything up to this revision was sent.
    Bookmark {
        revision: Revision,
        initial_events_end: bool,
    },
    /// The watch ends with this error.
    Error(ApiError),
}

/// What is told of an object.
pub(crate) struct Told {
    pub(crate) happened: Happened,
    /// The version that is shown.
    pub(crate) entry: Arc<Entry>,
    /// The version it is shown at.
    pub(crate) revision: Revision,
    /// Where other watchers' frames of it are.
    pub(crate) change: Option<Arc<Change>>,
}

/// What a watch stands on.
pub(crate) struct Ground<'a> {
    pub(crate) kv: &'a Arc<dyn Kv>,
    pub(crate) caches: &'a Caches,
    pub(crate) limits: &'a RequestLimits,
    pub(crate) shutdown: &'a CancellationToken,
}

impl<'a> From<&'a RestContext> for Ground<'a> {
    fn from(context: &'a RestContext) -> Self {
        Self {
            kv: &context.kv,
            caches: &context.caches,
            limits: &context.limits,
            shutdown: &context.shutdown,
        }
    }
}

/// A running watch of one client.
pub(crate) struct Session {
    pub(crate) resource: Arc<Resource>,
    selection: Arc<Selection>,
    collection: Arc<Collection>,
    source: Source,
    initial: Option<Initial>,
    /// Held until those are on their way.
    seats: Option<DropGuard>,
    /// The bookmark that closes the initial events is still to be sent.
    initial_bookmark: bool,
    /// Everything up to here was sent or does not concern the client.
    sent: Revision,
    bookmarks: Option<Interval>,
    deadline: Pin<Box<Sleep>>,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    _gauge: WatchGauge,
    _permit: OwnedSemaphorePermit,
}

/// Where changes come from.
enum Source {
    Live(Subscription),
    /// Behind the cache's memory, or beside a cache that is none.
    Behind(Box<History>),
    /// To be told, and then over.
    Failed(ApiError),
    Over,
}

/// The state that a watch begins with.
struct Initial {
    objects: Box<dyn Iterator<Item = Arc<Entry>> + Send>,
}

impl Initial {
    fn of(snapshot: &Snapshot, selection: &Selection, resource: &Resource) -> Self {
        if let Some(key) = selection.only(resource) {
            let only = snapshot.tree.get(&key).cloned();
            return Self {
                objects: Box::new(only.into_iter()),
            };
        }
        let prefix = selection.prefix();
        let cursor = snapshot.tree.cursor(&prefix);
        Self {
            objects: Box::new(cursor.take_while(move |entry| entry.is_within(&prefix))),
        }
    }
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
        ground: Ground<'_>,
        resource: &Arc<Resource>,
        namespace: Option<&str>,
        options: &ListOptions,
        permit: OwnedSemaphorePermit,
        seats: Option<Seats>,
    ) -> Result<Self, Failure> {
        let storage = Storage::new(ground.kv.clone());
        let origin = Origin::of(options);
        let at_least = match origin.at_least {
            Version::Newest => storage.barrier().await?,
            Version::Any => 0,
            Version::At(revision) => {
                storage.reach(revision).await?;
                revision
            }
        };
        let selection = Selection::new(resource, namespace, &options.labels, &options.fields);
        let selection = Arc::new(selection);
        let collection = ground.caches.of(resource);
        let cached = collection.reach(at_least).await;
        let range = watch_range(resource, namespace, options.fields.exact_name());
        let history = |after| History::open(ground.kv.as_ref(), resource, range.clone(), after);
        let (source, initial, sent) = if origin.initial {
            let live = cached.then(|| collection.subscribe(&selection)).flatten();
            let (snapshot, source) = match live {
                Some((snapshot, subscription)) => (snapshot, Source::Live(subscription)),
                None => {
                    let snapshot = history::snapshot(&storage, resource, range.clone()).await?;
                    let source = history(snapshot.revision)?;
                    (snapshot, source)
                }
            };
            let initial = Initial::of(&snapshot, &selection, resource);
            (source, Some(initial), snapshot.revision)
        } else {
            let after = match origin.at_least {
                Version::At(revision) => revision,
                Version::Newest | Version::Any => ground.kv.revision(),
            };
            let live = collection.subscribe_after(after, &selection);
            let source = live.map_or_else(|| history(after), |live| Ok(Source::Live(live)))?;
            (source, None, after)
        };
        let limits = ground.limits;
        let timeout = options.timeout;
        let timeout = timeout.unwrap_or_else(|| default_timeout(limits.min_watch_timeout));
        Ok(Self {
            resource: resource.clone(),
            selection,
            collection,
            source,
            seats: initial
                .is_some()
                .then(|| seats.map(|own| own.lend(limits.request_timeout)))
                .flatten(),
            initial,
            initial_bookmark: origin.closing_bookmark,
            sent,
            bookmarks: options
                .allow_bookmarks
                .then(|| interval(limits.bookmark_interval)),
            deadline: Box::pin(tokio::time::sleep(timeout)),
            shutdown: Box::pin(ground.shutdown.clone().cancelled_owned()),
            _gauge: WatchGauge::new(resource),
            _permit: permit,
        })
    }

    /// The next events, at least one; `None` when the watch is over.
    pub(crate) async fn next(&mut self) -> Option<Vec<WireEvent>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Ends the watch: the next call of [`Session::next`] returns `None`.
    pub(crate) fn stop(&mut self) {
        self.source = Source::Over;
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Vec<WireEvent>>> {
        loop {
            match std::mem::replace(&mut self.source, Source::Over) {
                Source::Over => return Poll::Ready(None),
                Source::Failed(error) => return Poll::Ready(Some(vec![WireEvent::Error(error)])),
                source @ (Source::Live(_) | Source::Behind(_)) => self.source = source,
            }
            // However much there is to say.
            if self.deadline.is_elapsed() {
                return self.poll_clock(context);
            }
            if self.initial.is_some() {
                let events = self.initial_events();
                if !events.is_empty() {
                    return Poll::Ready(Some(events));
                }
                if self.initial.is_some() {
                    // Nothing selected so far, and more to look at: others first.
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            if std::mem::take(&mut self.initial_bookmark) {
                let bookmark = WireEvent::Bookmark {
                    revision: self.sent,
                    initial_events_end: true,
                };
                return Poll::Ready(Some(vec![bookmark]));
            }
            if let Poll::Ready(events) = self.poll_source(context) {
                if events.is_empty() {
                    continue;
                }
                return Poll::Ready(Some(events));
            }
            return self.poll_clock(context);
        }
    }

    fn initial_events(&mut self) -> Vec<WireEvent> {
        let mut events = Vec::new();
        let Some(initial) = &mut self.initial else {
            return events;
        };
        for _ in 0..INITIAL_SCAN {
            let Some(entry) = initial.objects.next() else {
                self.initial = None;
                self.seats = None;
                return events;
            };
            if self.selection.selects(&entry) {
                events.push(WireEvent::Object(Told {
                    happened: Happened::Added,
                    revision: entry.revision(),
                    entry,
                    change: None,
                }));
                if events.len() >= INITIAL_BATCH {
                    return events;
                }
            }
        }
        events
    }

    /// What has happened; nothing, if only the source has changed.
    fn poll_source(&mut self, context: &mut Context<'_>) -> Poll<Vec<WireEvent>> {
        let deliveries = match &mut self.source {
            Source::Live(subscription) => match subscription.poll_next(context) {
                Poll::Ready(Some(deliveries)) => deliveries,
                Poll::Ready(None) => {
                    self.source = Source::Over;
                    return Poll::Ready(Vec::new());
                }
                Poll::Pending => return Poll::Pending,
            },
            Source::Behind(history) => match history.poll_next(context, &self.selection) {
                Poll::Ready(Ok(deliveries)) => {
                    self.sent = self.sent.max(history.through());
                    // Level with what the cache remembers? It goes on from there.
                    if let Some(live) = self.collection.subscribe_after(self.sent, &self.selection)
                    {
                        self.source = Source::Live(live);
                    }
                    deliveries
                }
                Poll::Ready(Err(error)) => {
                    self.source = match error {
                        // The client resumes after the last version it saw.
                        WatchError::Closed => Source::Over,
                        other => Source::Failed(Failure::from(other).error),
                    };
                    return Poll::Ready(Vec::new());
                }
                Poll::Pending => return Poll::Pending,
            },
            Source::Failed(_) | Source::Over => return Poll::Ready(Vec::new()),
        };
        Poll::Ready(self.told(deliveries))
    }

    fn told(&mut self, deliveries: VecDeque<Delivery>) -> Vec<WireEvent> {
        let mut events = Vec::with_capacity(deliveries.len());
        for (happened, change) in deliveries {
            self.sent = self.sent.max(change.revision());
            if let Some(entry) = change.shown(happened) {
                events.push(WireEvent::Object(Told {
                    happened,
                    entry: entry.clone(),
                    revision: change.revision(),
                    change: Some(change),
                }));
            }
        }
        events
    }

    fn poll_clock(&mut self, context: &mut Context<'_>) -> Poll<Option<Vec<WireEvent>>> {
        let over = self.shutdown.as_mut().poll(context).is_ready()
            || self.deadline.as_mut().poll(context).is_ready();
        if over {
            // A last bookmark, so that the client resumes close to here.
            let last = self.bookmarks.is_some().then(|| vec![self.bookmark()]);
            self.source = Source::Over;
            return Poll::Ready(last);
        }
        let due = self
            .bookmarks
            .as_mut()
            .map(|interval| interval.poll_tick(context));
        match due {
            Some(Poll::Ready(_)) => Poll::Ready(Some(vec![self.bookmark()])),
            _ => Poll::Pending,
        }
    }

    fn bookmark(&mut self) -> WireEvent {
        if let Source::Live(subscription) = &self.source
            && let Some(level) = subscription.level()
        {
            self.sent = self.sent.max(level);
        }
        WireEvent::Bookmark {
            revision: self.sent,
            initial_events_end: false,
        }
    }
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

/// Between `least` and twice that, so that clients do not come back all at once.
fn default_timeout(least: Duration) -> Duration {
    let spread = u64::try_from(least.as_millis()).unwrap_or(u64::MAX);
    least + Duration::from_millis(ids::below(spread))
}
