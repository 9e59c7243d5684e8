//! Keeps the world level with the API, and tells listeners what changed.
//!
//! Invariants
//! - A change stands in the world before anybody is told of it.
//! - Nobody is told anything before every kind was read; then of every object once, and of
//!   every change from then on, each object's in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use nautilus_planner::controller::Change;
use nautilus_planner::kind::Kind;
use nautilus_planner::view::{View as _, Within};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::port::{Api, Told};
use crate::world::{Versions, World};

/// Pause before a kind is read anew after its stream has ended.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Objects of a first list that are taken in between two breaths.
const YIELD_EVERY: usize = 256;

/// Who is told of changes.
pub trait Listener: Send + Sync {
    /// The kinds it is told of.
    fn follows(&self) -> &[Kind];
    /// One object as it was found at the start, or one change.
    fn told(&self, world: &World, change: &Change);
    /// Everything that was there at the start has been told.
    fn level(&self);
}

/// What all kinds' followers share.
struct Follower {
    api: Arc<dyn Api>,
    world: Arc<World>,
    listeners: Vec<Arc<dyn Listener>>,
    /// Kinds that were not read yet.
    missing: AtomicUsize,
    all_read: Notify,
    /// Whether a kind's changes are told; held while one enters the world and is told.
    turns: BTreeMap<Kind, Mutex<bool>>,
}

/// Follows every kind of the world.
pub(crate) fn start(
    api: &Arc<dyn Api>,
    world: &Arc<World>,
    listeners: Vec<Arc<dyn Listener>>,
    tasks: &mut JoinSet<()>,
) {
    let kinds = world.kinds();
    let follower = Arc::new(Follower {
        api: api.clone(),
        world: world.clone(),
        listeners,
        missing: AtomicUsize::new(kinds.len()),
        all_read: Notify::new(),
        turns: kinds
            .iter()
            .map(|kind| (*kind, Mutex::new(false)))
            .collect(),
    });
    for kind in kinds {
        tasks.spawn(follower.clone().follow(kind));
    }
    tasks.spawn(follower.begin());
}

impl Follower {
    /// Waits for every kind, and tells of everything.
    async fn begin(self: Arc<Self>) {
        while self.missing.load(Ordering::Acquire) > 0 {
            self.all_read.notified().await;
        }
        for (kind, turn) in &self.turns {
            // Whoever changes the world from now on tells of it.
            let mut tells = turn.lock();
            *tells = true;
            for after in self.world.list(*kind, Within::All) {
                self.tell(*kind, (None, Some(after)));
            }
        }
        for listener in &self.listeners {
            listener.level();
        }
    }

    async fn follow(self: Arc<Self>, kind: Kind) {
        let mut is_first = true;
        loop {
            let mut stream = self.api.follow(kind);
            while let Some(told) = stream.next().await {
                let begins = matches!(told, Told::Begin(..));
                self.take_in(kind, told).await;
                if begins && is_first {
                    is_first = false;
                    if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
                        self.all_read.notify_one();
                    }
                }
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn take_in(&self, kind: Kind, told: Told) {
        match told {
            Told::Put(item) => self.change(kind, |world| world.put(kind, &item)),
            Told::Gone(key, revision) => {
                self.change(kind, |world| world.remove(kind, &key, revision));
            }
            Told::Begin(items, revision) => {
                let (changed, gone) = self.world.differs(kind, &items);
                for (done, at) in changed.into_iter().enumerate() {
                    self.change(kind, |world| world.put(kind, &items[at]));
                    if done % YIELD_EVERY == YIELD_EVERY - 1 {
                        tokio::task::yield_now().await;
                    }
                }
                for key in gone {
                    self.change(kind, |world| world.remove(kind, &key, revision));
                }
                self.world.advance(kind, revision);
            }
        }
    }

    fn change(&self, kind: Kind, change: impl FnOnce(&World) -> Versions) {
        let Some(turn) = self.turns.get(&kind) else {
            return;
        };
        let tells = turn.lock();
        let versions = change(&self.world);
        if *tells {
            self.tell(kind, versions);
        }
    }

    fn tell(&self, kind: Kind, (before, after): Versions) {
        if before.is_none() && after.is_none() {
            return;
        }
        let change = Change {
            kind,
            before,
            after,
        };
        for listener in &self.listeners {
            if listener.follows().contains(&kind) {
                listener.told(&self.world, &change);
            }
        }
    }
}
