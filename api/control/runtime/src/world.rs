//! The objects of the followed kinds, indexed by who manages them and where they run.
//!
//! Invariants
//! - A kind's table is the state of one revision.
//! - Bodies are kept as the API keeps them; at most [`MAX_PARSED`] of them are parsed, and
//!   each for [`PARSED_FOR`] and the time until the next [`World::tidy`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use nautilus_planner::kind::Kind;
use nautilus_planner::object;
use nautilus_planner::view::{Key, View, Within};
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::port::{Body, Item};

/// Objects that are kept parsed, of all kinds.
const MAX_PARSED: usize = 16_384;
/// How long an object is kept parsed. Parsing it anew costs some microseconds, keeping it
/// some kilobytes: of what happened once it would be for nothing.
pub(crate) const PARSED_FOR: Duration = Duration::from_secs(30);

/// See the module.
pub struct World {
    tables: BTreeMap<Kind, Table>,
    parsed: Parsed,
}

struct Table {
    state: RwLock<State>,
    revision: watch::Sender<u64>,
}

/// One version of one object, with what it is found by.
struct Stored {
    key: Arc<Key>,
    revision: u64,
    /// Empty: nobody manages it.
    controller: Arc<str>,
    /// Empty: it is bound to none.
    node: Arc<str>,
    body: Arc<dyn Body>,
    parsed: Mutex<Option<Arc<Value>>>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Arc<Key>, Arc<Stored>>,
    by_controller: BTreeSet<(Arc<str>, Arc<Key>)>,
    by_node: BTreeSet<(Arc<str>, Arc<Key>)>,
}

/// Which objects are parsed, the oldest first.
#[derive(Default)]
struct Parsed(Mutex<VecDeque<(Instant, Weak<Stored>)>>);

impl Parsed {
    fn of(&self, stored: &Arc<Stored>) -> Option<Arc<Value>> {
        if let Some(known) = &*stored.parsed.lock() {
            return Some(known.clone());
        }
        let object = Arc::new(parse(&*stored.body)?);
        self.keep(stored, object.clone());
        Some(object)
    }

    fn keep(&self, stored: &Arc<Stored>, object: Arc<Value>) {
        *stored.parsed.lock() = Some(object);
        let mut kept = self.0.lock();
        kept.push_back((Instant::now(), Arc::downgrade(stored)));
        if kept.len() > MAX_PARSED {
            forget_oldest(&mut kept);
        }
    }

    fn tidy(&self) {
        let mut kept = self.0.lock();
        while kept
            .front()
            .is_some_and(|(since, _)| since.elapsed() > PARSED_FOR)
        {
            forget_oldest(&mut kept);
        }
        let twice = 2 * kept.len();
        kept.shrink_to(twice);
    }
}

fn forget_oldest(kept: &mut VecDeque<(Instant, Weak<Stored>)>) {
    if let Some(oldest) = kept.pop_front().and_then(|(_, own)| own.upgrade()) {
        *oldest.parsed.lock() = None;
    }
}

fn parse(body: &dyn Body) -> Option<Value> {
    let mut object = body.object()?;
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.shift_remove("managedFields");
    }
    Some(object)
}

/// Both versions of an object that changed.
pub(crate) type Versions = (Option<Arc<Value>>, Option<Arc<Value>>);

impl World {
    /// A world of these kinds, with nothing in it.
    pub(crate) fn of(kinds: impl Iterator<Item = Kind>) -> Self {
        let table = |kind| {
            let table = Table {
                state: RwLock::default(),
                revision: watch::Sender::new(0),
            };
            (kind, table)
        };
        Self {
            tables: kinds.map(table).collect(),
            parsed: Parsed::default(),
        }
    }

    /// Forgets the parsed form of what was parsed long ago.
    pub(crate) fn tidy(&self) {
        self.parsed.tidy();
    }

    pub(crate) fn kinds(&self) -> Vec<Kind> {
        self.tables.keys().copied().collect()
    }

    /// A new version of an object; gives both versions, or nothing if it can't be read:
    /// then it is as good as gone.
    pub(crate) fn put(&self, kind: Kind, item: &Item) -> Versions {
        let Some(table) = self.tables.get(&kind) else {
            return (None, None);
        };
        let Some(parsed) = parse(&*item.body).map(Arc::new) else {
            tracing::warn!(kind = kind.kind, key = %item.key, "an object does not count: it cannot be read");
            return self.remove(kind, &item.key, item.revision);
        };
        let manager = object::controller(&parsed).and_then(|owner| owner["uid"].as_str());
        let stored = Arc::new(Stored {
            key: Arc::new(item.key.clone()),
            revision: item.revision,
            controller: manager.unwrap_or_default().into(),
            node: parsed["spec"]["nodeName"]
                .as_str()
                .unwrap_or_default()
                .into(),
            body: item.body.clone(),
            parsed: Mutex::new(None),
        });
        self.parsed.keep(&stored, parsed.clone());
        let before = {
            let mut state = table.state.write();
            let before = state.remove(&item.key);
            state.insert(stored);
            before
        };
        table.reached(item.revision);
        (before.and_then(|own| self.parsed.of(&own)), Some(parsed))
    }

    /// An object is gone; gives it as it was.
    pub(crate) fn remove(&self, kind: Kind, key: &Key, revision: u64) -> Versions {
        let Some(table) = self.tables.get(&kind) else {
            return (None, None);
        };
        let before = table.state.write().remove(key);
        table.reached(revision);
        (before.and_then(|own| self.parsed.of(&own)), None)
    }

    /// What of a kind is not among `items`, or in another version.
    pub(crate) fn differs(&self, kind: Kind, items: &[Item]) -> (Vec<usize>, Vec<Key>) {
        let Some(table) = self.tables.get(&kind) else {
            return (Vec::new(), Vec::new());
        };
        let state = table.state.read();
        let known = |key: &Key| state.objects.get(key).map(|own| own.revision);
        let changed = (0..items.len())
            .filter(|at| known(&items[*at].key) != Some(items[*at].revision))
            .collect();
        let there: BTreeSet<&Key> = items.iter().map(|item| &item.key).collect();
        let gone = state.objects.keys().filter(|key| !there.contains(&***key));
        (changed, gone.map(|key| (**key).clone()).collect())
    }

    /// A kind's state is that of this revision at least.
    pub(crate) fn advance(&self, kind: Kind, revision: u64) {
        if let Some(table) = self.tables.get(&kind) {
            table.reached(revision);
        }
    }

    /// Waits until a kind's state holds what was written at `revision`; not at all for a
    /// kind that nobody follows.
    pub async fn reach(&self, kind: Kind, revision: u64) {
        if let Some(table) = self.tables.get(&kind) {
            let mut reached = table.revision.subscribe();
            // The sender lives as long as `self`.
            let _ = reached.wait_for(|at| *at >= revision).await;
        }
    }

    fn found(&self, kind: Kind, within: Within<'_>) -> Vec<Arc<Stored>> {
        self.tables
            .get(&kind)
            .map_or_else(Vec::new, |table| table.state.read().find(within))
    }
}

impl Table {
    fn reached(&self, revision: u64) {
        self.revision.send_if_modified(|at| {
            let ahead = revision > *at;
            *at = (*at).max(revision);
            ahead
        });
    }
}

impl State {
    fn insert(&mut self, stored: Arc<Stored>) {
        let key = &stored.key;
        self.by_controller
            .insert((stored.controller.clone(), key.clone()));
        if !stored.node.is_empty() {
            self.by_node.insert((stored.node.clone(), key.clone()));
        }
        self.objects.insert(key.clone(), stored);
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<Stored>> {
        let stored = self.objects.remove(key)?;
        let key = &stored.key;
        self.by_controller
            .remove(&(stored.controller.clone(), key.clone()));
        self.by_node.remove(&(stored.node.clone(), key.clone()));
        Some(stored)
    }

    fn find(&self, within: Within<'_>) -> Vec<Arc<Stored>> {
        let indexed = |index: &BTreeSet<(Arc<str>, Arc<Key>)>, value: &str, namespace: &str| {
            let from = (Arc::<str>::from(value), Arc::new(Key::new(namespace, "")));
            index
                .range(from..)
                .take_while(|(own, key)| {
                    **own == *value && (namespace.is_empty() || key.namespace == namespace)
                })
                .filter_map(|(_, key)| self.objects.get(key).cloned())
                .collect()
        };
        match within {
            Within::All => self.objects.values().cloned().collect(),
            Within::Namespace(namespace) => self
                .objects
                .range(Arc::new(Key::new(namespace, ""))..)
                .take_while(|(key, _)| key.namespace == namespace)
                .map(|(_, stored)| stored.clone())
                .collect(),
            Within::Controlled(namespace, uid) => indexed(&self.by_controller, uid, namespace),
            Within::Uncontrolled(namespace) => indexed(&self.by_controller, "", namespace),
            Within::Node(node) => indexed(&self.by_node, node, ""),
        }
    }
}

impl View for World {
    fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let key = Key::new(namespace, name);
        let stored = self
            .tables
            .get(&kind)?
            .state
            .read()
            .objects
            .get(&key)?
            .clone();
        self.parsed.of(&stored)
    }

    fn list(&self, kind: Kind, within: Within<'_>) -> Vec<Arc<Value>> {
        let found = self.found(kind, within);
        found.iter().filter_map(|own| self.parsed.of(own)).collect()
    }

    fn keys(&self, kind: Kind, within: Within<'_>) -> Vec<Key> {
        let found = self.found(kind, within);
        found.iter().map(|own| (*own.key).clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nautilus_planner::kind;
    use serde_json::json;

    use super::*;

    /// A node that counts how often it is parsed.
    #[derive(Default)]
    struct Counted(Arc<AtomicUsize>);

    impl Body for Counted {
        fn object(&self) -> Option<Value> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Some(json!({"metadata": {"name": "a"}}))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_parsed_long_ago_is_parsed_anew() {
        let world = World::of([kind::NODES].into_iter());
        let parsed = Arc::new(AtomicUsize::new(0));
        let item = Item {
            key: Key::new("", "a"),
            revision: 1,
            body: Arc::new(Counted(parsed.clone())),
        };
        world.put(kind::NODES, &item);
        for (wait, times) in [
            (Duration::ZERO, 1),
            (PARSED_FOR * 2, 2),
            (PARSED_FOR / 2, 2),
        ] {
            tokio::time::advance(wait).await;
            world.tidy();
            assert!(world.get(kind::NODES, "", "a").is_some());
            assert_eq!(parsed.load(Ordering::Relaxed), times, "{wait:?}");
        }
    }
}
