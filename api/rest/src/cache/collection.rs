//! The objects of one kind as this node has applied them, indexed, with their recent
//! past and whoever watches them.
//!
//! Invariants
//! - The state is that of one revision: every change up to it is in, none after it.
//! - A change enters the state, the ring and the watchers' queues in one step under the
//!   lock, so that a subscription that begins at a revision misses nothing and sees
//!   nothing twice.
//! - What is told to be reached was read from the store: progress never runs ahead.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nautilus_machine::Revision;
use nautilus_machinery::resource::Resource;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use super::change::Change;
use super::entry::Entry;
use super::history::{Ring, Snapshot, Snapshots};
use super::selection::Selection;
use super::tree::Tree;
use super::watchers::{Delivery, Queue, Watchers};

/// How long a read waits for the cache before it asks the store.
const REACH_PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks at the store's progress while nothing is told.
const REACH_POLL: Duration = Duration::from_millis(1);

/// How far a collection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is being read for the first time, or anew.
    Loading,
    /// It has everything up to this revision.
    At(Revision),
    /// It can't be cached: it is too large, or damaged. Ask the store.
    Bypassed,
}

/// See the module.
pub(crate) struct Collection {
    pub(super) resource: Arc<Resource>,
    state: Mutex<State>,
    /// Asks the feed how far the store has got.
    nudge: Notify,
    standing: watch::Sender<Standing>,
    meters: Meters,
}

struct State {
    tree: Tree<Entry>,
    revision: Revision,
    bytes: usize,
    ring: Ring,
    snapshots: Snapshots,
    watchers: Watchers,
}

struct Meters {
    objects: metrics::Gauge,
    bytes: metrics::Gauge,
    ring_bytes: metrics::Gauge,
    events: metrics::Counter,
    cut_off: metrics::Counter,
}

impl Meters {
    fn new(resource: &Resource) -> Self {
        let label = resource.qualified();
        Self {
            objects: metrics::gauge!("nautilus_watch_cache_objects", "resource" => label.clone()),
            bytes: metrics::gauge!("nautilus_watch_cache_bytes", "resource" => label.clone()),
            ring_bytes: metrics::gauge!("nautilus_watch_cache_ring_bytes", "resource" => label.clone()),
            events: metrics::counter!("apiserver_watch_cache_events_received_total", "resource" => label.clone()),
            cut_off: metrics::counter!("apiserver_terminated_watchers_total", "resource" => label),
        }
    }

    fn tell(&self, state: &State) {
        self.objects.set(state.tree.len() as f64);
        self.bytes.set(state.bytes as f64);
        self.ring_bytes.set(state.ring.bytes() as f64);
    }
}

impl Drop for Meters {
    fn drop(&mut self) {
        self.objects.set(0.0);
        self.bytes.set(0.0);
        self.ring_bytes.set(0.0);
    }
}

/// A change on its way into the state: the object's key, and its new version.
pub(super) type Incoming = (Revision, Box<str>, Option<Arc<Entry>>);

impl Collection {
    pub(super) fn new(resource: &Arc<Resource>) -> Arc<Self> {
        Arc::new(Self {
            meters: Meters::new(resource),
            resource: resource.clone(),
            state: Mutex::new(State {
                tree: Tree::default(),
                revision: 0,
                bytes: 0,
                ring: Ring::starting(0),
                snapshots: Snapshots::default(),
                watchers: Watchers::default(),
            }),
            nudge: Notify::new(),
            standing: watch::Sender::new(Standing::Loading),
        })
    }

    /// The object under a key.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.state.lock().tree.get(key).cloned()
    }

    /// The present state.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.state.lock().snapshot()
    }

    /// The state of a revision: the present one, or one that was kept for a token; none
    /// of before `compacted`.
    pub(crate) fn snapshot_at(&self, revision: Revision, compacted: Revision) -> Option<Snapshot> {
        let mut state = self.state.lock();
        state.snapshots.compact(compacted);
        // Of a quiet kind the present state may be of a revision that was compacted away.
        if state.revision == revision && revision >= compacted {
            return Some(state.snapshot());
        }
        state.snapshots.at(revision)
    }

    /// Keeps a snapshot for the pages that are to come.
    pub(crate) fn keep(&self, snapshot: &Snapshot) {
        self.state.lock().snapshots.keep(snapshot);
    }

    /// Whether the state has everything up to `revision`, as far as is known without
    /// waiting.
    pub(crate) fn is_at(&self, revision: Revision) -> bool {
        matches!(*self.standing.borrow(), Standing::At(at) if at >= revision)
    }

    /// Waits until the cache has reached `revision`, which the store of this node has
    /// applied; false if it does not, and the store is to be asked.
    pub(crate) async fn reach(&self, revision: Revision) -> bool {
        let deadline = Instant::now() + REACH_PATIENCE;
        let mut standing = self.standing.subscribe();
        loop {
            // Loading ends by itself; progress without events is asked for.
            let until = match *standing.borrow_and_update() {
                Standing::At(at) if at >= revision => return true,
                Standing::Bypassed => return false,
                Standing::Loading => deadline,
                Standing::At(_) => {
                    self.nudge.notify_one();
                    deadline.min(Instant::now() + REACH_POLL)
                }
            };
            match timeout_at(until, standing.changed()).await {
                Ok(Ok(())) => {}
                Err(_) if until < deadline => {}
                Ok(Err(_)) | Err(_) => return false,
            }
        }
    }

    /// Until somebody waits for progress.
    pub(super) async fn nudged(&self) {
        self.nudge.notified().await;
    }

    /// The store has nothing more up to `progress`.
    pub(super) fn advance(&self, progress: Revision) {
        let mut state = self.state.lock();
        state.revision = state.revision.max(progress);
        let at = state.revision;
        drop(state);
        self.tell(Standing::At(at));
    }

    fn tell(&self, now: Standing) {
        self.standing.send_if_modified(|standing| {
            let changed = match (*standing, now) {
                (Standing::At(before), Standing::At(after)) => after > before,
                (before, after) => before != after,
            };
            if changed {
                *standing = now;
            }
            changed
        });
    }

    /// The state was read whole, and is followed from there.
    pub(super) fn begin(&self, tree: Tree<Entry>, bytes: usize, at: Revision) {
        let mut wakers = Vec::new();
        {
            let mut state = self.state.lock();
            state.tree = tree;
            state.bytes = bytes;
            state.revision = at;
            state.ring = Ring::starting(at);
            state.snapshots.clear();
            // They saw a past that this state may not continue.
            state.watchers.end_all(&mut wakers);
            self.meters.tell(&state);
        }
        wakers.into_iter().for_each(Waker::wake);
        self.tell(Standing::At(at));
    }

    /// The cache stops following: watches end, and reads go to the store or wait.
    pub(super) fn end(&self, standing: Standing) {
        self.tell(standing);
        let mut wakers = Vec::new();
        {
            let mut state = self.state.lock();
            state.watchers.end_all(&mut wakers);
            if standing == Standing::Bypassed {
                state.tree = Tree::default();
                state.bytes = 0;
                state.snapshots.clear();
                state.ring = Ring::starting(state.revision);
            }
            self.meters.tell(&state);
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Bytes of the objects in the state.
    pub(super) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Takes in what the store has given; it has nothing more up to `progress`.
    pub(super) fn apply(&self, incoming: Vec<Incoming>, progress: Revision) {
        let mut wakers = Vec::new();
        let (mut count, mut cut_off) = (0, 0);
        {
            let mut state = self.state.lock();
            for (revision, key, after) in incoming {
                count += 1;
                cut_off += state.apply(revision, &key, after, &mut wakers);
            }
            state.ring.trim();
            self.meters.tell(&state);
        }
        self.meters.events.increment(count);
        if cut_off > 0 {
            self.meters.cut_off.increment(cut_off as u64);
            tracing::info!(
                resource = %self.resource.plural,
                watches = cut_off,
                "cut off slow watches"
            );
        }
        wakers.into_iter().for_each(Waker::wake);
        self.advance(progress);
    }

    /// Follows a selection from the present state on: what is there now, and what comes.
    /// `None` if the cache does not follow the store.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        selection: &Arc<Selection>,
    ) -> Option<(Snapshot, Subscription)> {
        let mut state = self.state.lock();
        self.follows().then(|| {
            let snapshot = state.snapshot();
            let after = snapshot.revision;
            (
                snapshot,
                self.register(&mut state, selection, after, VecDeque::new()),
            )
        })
    }

    /// Follows a selection from after a revision; `None` if the ring has forgotten that,
    /// or the cache does not follow the store.
    pub(crate) fn subscribe_after(
        self: &Arc<Self>,
        revision: Revision,
        selection: &Arc<Selection>,
    ) -> Option<Subscription> {
        let mut state = self.state.lock();
        if !self.follows() {
            return None;
        }
        let backlog = state
            .ring
            .after(revision)?
            .filter_map(|change| Some((change.seen_by(selection)?, change.clone())))
            .collect();
        Some(self.register(&mut state, selection, revision, backlog))
    }

    /// Asked under the state's lock: who registers after the end was told is not there
    /// to be ended.
    fn follows(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::At(_))
    }

    fn register(
        self: &Arc<Self>,
        state: &mut State,
        selection: &Arc<Selection>,
        after: Revision,
        backlog: VecDeque<Delivery>,
    ) -> Subscription {
        let queue = Arc::<Queue>::default();
        Subscription {
            number: state.watchers.add(&self.resource, selection, &queue),
            collection: self.clone(),
            after,
            queue,
            backlog,
        }
    }
}

impl State {
    fn snapshot(&self) -> Snapshot {
        Snapshot {
            revision: self.revision,
            tree: self.tree.clone(),
        }
    }

    /// Says how many watchers were cut off.
    fn apply(
        &mut self,
        revision: Revision,
        key: &str,
        after: Option<Arc<Entry>>,
        wakers: &mut Vec<Waker>,
    ) -> usize {
        let before = match &after {
            Some(after) => self.tree.insert(after.clone()),
            None => self.tree.remove(key),
        };
        self.revision = self.revision.max(revision);
        let weight = |entry: &Option<Arc<Entry>>| entry.as_ref().map_or(0, |entry| entry.weight());
        self.bytes = (self.bytes + weight(&after)).saturating_sub(weight(&before));
        self.snapshots.supersede(weight(&before));
        if before.is_none() && after.is_none() {
            return 0;
        }
        let change = Arc::new(Change::new(revision, before, after));
        let cut_off = self.watchers.dispatch(&change, wakers);
        self.ring.push(change);
        cut_off
    }
}

/// One watcher's place at a collection. Dropping it gives the place up.
pub(crate) struct Subscription {
    collection: Arc<Collection>,
    number: usize,
    /// It begins after this revision, which may be ahead of the cache.
    after: Revision,
    queue: Arc<Queue>,
    backlog: VecDeque<Delivery>,
}

impl Subscription {
    /// What has come; `None` at the end.
    pub(crate) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<VecDeque<Delivery>>> {
        if !self.backlog.is_empty() {
            return Poll::Ready(Some(std::mem::take(&mut self.backlog)));
        }
        let after = self.after;
        self.queue.poll_take(context).map(|taken| {
            let mut taken = taken?;
            while taken
                .pop_front_if(|(_, change)| change.revision() <= after)
                .is_some()
            {}
            Some(taken)
        })
    }

    /// The revision up to which everything was given, if nothing waits.
    pub(crate) fn level(&self) -> Option<Revision> {
        if !self.backlog.is_empty() {
            return None;
        }
        // The next one knows what the store says now.
        self.collection.nudge.notify_one();
        let state = self.collection.state.lock();
        self.queue.is_empty().then_some(state.revision)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.collection.state.lock().watchers.remove(self.number);
    }
}
