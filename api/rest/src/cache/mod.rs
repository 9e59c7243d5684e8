//! The watch cache: the objects of every kind that somebody reads, in memory, as bytes
//! already encoded, kept level with this node's store by its events.
//!
//! A kind's cache starts with its first reader and stays. GET, LIST and WATCH are served
//! from it; objects are parsed only for forms that need more than their bytes.
//!
//! Invariants
//! - A consistent read waits until the cache has reached the revision of its read
//!   barrier. What the cache can't answer (it is too large, an older revision, it does not
//!   keep up) the store answers: no request fails because of the cache.
//! - One copy of an object's bytes is kept, packed by those of its kind; an event is encoded once for all watchers that
//!   want it in the same form.
//! - Memory is bounded: [`MAX_OBJECT_BYTES`] for objects, and named bounds for the past
//!   (`history`) and for each watcher's queue (`watchers`).
//! - A list that is continued shows the revision it began with, on any node, until that is
//!   compacted away.
//!
//! The property test in `tests` compares lists and watches with a model.

mod change;
mod collection;
mod encoded;
mod entry;
mod feed;
mod history;
mod packed;
mod scan;
mod selection;
#[cfg(test)]
mod tests;
mod tree;
mod watchers;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use nautilus_machine::Kv;
use nautilus_machinery::resource::{Index, Resource};
use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use change::{Change, Happened};
pub(crate) use collection::{Collection, Subscription};
pub(crate) use entry::{Entry, Maker, json_of_row};
pub(crate) use history::Snapshot;
pub(crate) use selection::Selection;
pub(crate) use tree::{Keyed, Tree};
pub(crate) use watchers::Delivery;

/// Bytes of objects that all caches of a node may hold together.
pub(crate) const MAX_OBJECT_BYTES: usize = 4 << 30;

/// The caches of a node.
pub(crate) struct Caches {
    kv: Arc<dyn Kv>,
    /// One for each kind that is or was read: few, found by the kind's address.
    collections: Mutex<Vec<Cached>>,
    /// Bytes of objects held by all of them.
    held: Arc<AtomicUsize>,
    shutdown: CancellationToken,
}

struct Cached {
    collection: Arc<Collection>,
    /// Ends its feed.
    _stop: DropGuard,
}

impl Caches {
    pub(crate) fn new(kv: Arc<dyn Kv>, shutdown: CancellationToken) -> Self {
        Self {
            kv,
            collections: Mutex::default(),
            held: Arc::default(),
            shutdown,
        }
    }

    /// The cache of a kind, started if there is none yet. One whose definition has
    /// changed is started anew, and its watches end.
    pub(crate) fn of(&self, resource: &Arc<Resource>) -> Arc<Collection> {
        let mut collections = self.collections.lock();
        if let Some(collection) = find(&collections, resource) {
            return collection;
        }
        collections.retain(|cached| !is_same_kind(&cached.collection.resource, resource));
        let collection = Collection::new(resource);
        let stop = self.shutdown.child_token();
        let feed = feed::Feed::new(self.kv.clone(), collection.clone(), self.held.clone());
        tokio::spawn(feed.run(stop.clone()));
        collections.push(Cached {
            collection: collection.clone(),
            _stop: stop.drop_guard(),
        });
        collection
    }

    /// The cache of a kind, if somebody has started it.
    pub(crate) fn existing(&self, resource: &Resource) -> Option<Arc<Collection>> {
        find(&self.collections.lock(), resource)
    }

    /// Lets the caches of kinds go that are served no more, or by another definition;
    /// their watches end.
    pub(crate) fn keep(&self, served: &Index) {
        let mut collections = self.collections.lock();
        collections.retain(|cached| {
            let own = &cached.collection.resource;
            let served = served.find(&own.group, &own.version, &own.plural);
            served.is_some_and(|served| Arc::ptr_eq(served, own))
        });
    }
}

fn find(collections: &[Cached], resource: &Resource) -> Option<Arc<Collection>> {
    let own = |cached: &&Cached| std::ptr::eq(&*cached.collection.resource, resource);
    let found = collections.iter().find(own);
    found.map(|cached| cached.collection.clone())
}

fn is_same_kind(one: &Resource, other: &Resource) -> bool {
    (&one.group, &one.version, &one.plural) == (&other.group, &other.version, &other.plural)
}
