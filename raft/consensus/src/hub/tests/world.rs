//! A store in memory with its hub, and all events it ever published.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use nautilus_machine::{
    Applied, Command, Entry, Event, EventKind, KeyRange, KeyValue, LogPosition, Operation,
    Proposal, Put, Revision, Txn, UnixMillis, WatchError, WatchGroup, WatchMessage, WatchRequest,
};
use nautilus_store::{Keyring, RootKey, Store};

use crate::hub::catching_up::Round;
use crate::hub::group::Group;
use crate::hub::{Hub, HubLimits};

pub(super) struct World {
    pub(super) store: Arc<Store>,
    pub(super) hub: Arc<Hub>,
    /// Every event since the beginning.
    pub(super) events: Vec<Event>,
    /// The version before each of them.
    before: BTreeMap<(Revision, Bytes), KeyValue>,
    living: BTreeMap<Bytes, KeyValue>,
    index: u64,
    runtime: tokio::runtime::Runtime,
}

/// Small enough that everything overflows soon.
pub(super) fn tight() -> HubLimits {
    HubLimits {
        ring_events: 12,
        ring_bytes: 1 << 20,
        queue_events: 4,
        queue_bytes: 1 << 20,
    }
}

impl World {
    pub(super) fn new(limits: HubLimits) -> Self {
        let keyring = Keyring::new(RootKey::from_bytes([7; 32]));
        let store = Arc::new(Store::open_memory(&keyring).expect("a store in memory"));
        Self {
            hub: Hub::new(Arc::clone(&store), limits),
            store,
            events: Vec::new(),
            before: BTreeMap::new(),
            living: BTreeMap::new(),
            index: 0,
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .expect("a runtime"),
        }
    }

    /// Applies commands as one batch, and publishes them.
    pub(super) fn apply(&mut self, commands: Vec<Command>) {
        let applied = self.apply_only(commands);
        self.hub.publish(applied);
    }

    /// Applies commands without telling the hub.
    pub(super) fn apply_only(&mut self, commands: Vec<Command>) -> Vec<Applied> {
        let entries: Vec<(LogPosition, Entry)> = commands
            .into_iter()
            .map(|command| {
                self.index += 1;
                let position = LogPosition {
                    term: 1,
                    index: self.index,
                };
                let entry = Entry {
                    time: UnixMillis(self.index),
                    proposal: Proposal::new(command),
                };
                (position, entry)
            })
            .collect();
        let applied = self.store.apply(&entries, &[]).expect("applied");
        for event in applied.iter().flat_map(|entry| &entry.events) {
            let key = event.kv.key.clone();
            let before = match event.kind {
                EventKind::Put => self.living.insert(key.clone(), event.kv.clone()),
                EventKind::Delete => self.living.remove(&key),
            };
            if let Some(before) = before {
                self.before.insert((event.revision(), key), before);
            }
            self.events.push(event.clone());
        }
        applied
    }

    pub(super) fn put(&mut self, keys: &[&str]) {
        self.apply(vec![txn(keys.iter().map(|key| put(key)).collect())]);
    }

    pub(super) fn group(&self) -> Group {
        Group::join(&self.hub)
    }

    /// The next message, if there is one to come without anything happening.
    pub(super) fn next(&self, group: &mut Group) -> Option<WatchMessage> {
        self.runtime.block_on(async {
            loop {
                if let Some(message) = group.next().now_or_never() {
                    return Some(message);
                }
                if !(matches!(group.round, Some(Round::Reading(_))) || group.reading.is_some()) {
                    return None;
                }
                std::thread::yield_now();
            }
        })
    }

    /// All that is there for the group, by (id, revision, key); errors by id.
    pub(super) fn drain(&self, group: &mut Group) -> Drained {
        let mut drained = Drained::default();
        while let Some(message) = self.next(group) {
            match message.result {
                Ok(events) => {
                    let events = events.iter().map(|event| of(event.event()));
                    drained
                        .events
                        .extend(events.map(|event| (message.id, event)));
                }
                Err(error) => drained.errors.push((message.id, error)),
            }
        }
        drained
    }

    /// The version before an event.
    pub(super) fn before(&self, event: &Event) -> Option<&KeyValue> {
        self.before.get(&(event.revision(), event.kv.key.clone()))
    }

    /// What a watch of `range` from `from` on has to see.
    pub(super) fn expected(&self, range: &KeyRange, from: Revision) -> Vec<Seen> {
        let events = self.events.iter();
        events
            .filter(|event| event.revision() >= from && range.contains(&event.kv.key))
            .map(of)
            .collect()
    }
}

#[derive(Default)]
pub(super) struct Drained {
    pub(super) events: Vec<(i64, Seen)>,
    pub(super) errors: Vec<(i64, WatchError)>,
}

impl Drained {
    /// The events of one watch.
    pub(super) fn of(&self, id: i64) -> Vec<Seen> {
        let events = self.events.iter();
        events
            .filter(|(of, _)| *of == id)
            .map(|(_, seen)| seen.clone())
            .collect()
    }
}

/// Revision, kind and key of an event.
pub(super) type Seen = (Revision, bool, String);

pub(super) fn of(event: &Event) -> Seen {
    let key = String::from_utf8_lossy(&event.kv.key).into_owned();
    (event.revision(), event.kind == EventKind::Put, key)
}

pub(super) fn put(key: &str) -> Operation {
    Operation::Put(Put::new(key.to_owned(), "value"))
}

pub(super) fn txn(then: Vec<Operation>) -> Command {
    Command::Txn(Txn {
        then,
        ..Txn::default()
    })
}

pub(super) fn request(range: KeyRange, from: Option<Revision>) -> WatchRequest {
    WatchRequest {
        range,
        from,
        previous: false,
    }
}
