//! Random histories of the store, crashes and restarts included, against a plain list
//! of everything that was ever written.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use nautilus_machine::{
    Command, Entry, EventKind, KeyRange, LogPosition, Operation, Proposal, Put, RangeRequest, Txn,
    UnixMillis,
};
use nautilus_store::{Keyring, Outcome, RocksMemory, RootKey, Store, StoreOptions};
use proptest::prelude::*;
use tempfile::TempDir;

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8, u8),
    /// Compacts so many revisions behind the newest, and removes some rows.
    Compact(u64),
    Flush,
    /// An orderly end and a start.
    Restart,
    /// The disk as it is now, and the log from there.
    Crash,
    /// The same, without the index's checkpoint.
    CrashWithoutIndex,
    Install,
    /// A new generation of keys, or the next steps of a rotation that is not over.
    Rotate(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0..12u8, any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        4 => (0..12u8, 0..12u8).prop_map(|(from, to)| Step::Delete(from, to)),
        2 => (0..8u64).prop_map(Step::Compact),
        2 => Just(Step::Flush),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
        1 => Just(Step::CrashWithoutIndex),
        1 => Just(Step::Install),
        3 => (0..40u8).prop_map(Step::Rotate),
    ];
    proptest::collection::vec(step, 1..60)
}

/// The reference: every version ever written.
#[derive(Default, Clone)]
struct Reference {
    /// Key, revision, and the value, if it was a put.
    versions: Vec<(Vec<u8>, u64, Option<Vec<u8>>)>,
    revision: u64,
    compacted: u64,
}

impl Reference {
    fn at(&self, revision: u64) -> BTreeMap<Vec<u8>, (u64, Vec<u8>)> {
        let mut living = BTreeMap::new();
        for (key, written, value) in &self.versions {
            if *written > revision {
                break;
            }
            match value {
                Some(value) => living.insert(key.clone(), (*written, value.clone())),
                None => living.remove(key),
            };
        }
        living
    }
}

struct World {
    home: TempDir,
    copies: u32,
    keyring: Keyring,
    store: Option<Store>,
    log: Vec<(LogPosition, Entry)>,
    reference: Reference,
}

/// A cache and a memtable that hold a few rows only.
fn options() -> StoreOptions {
    StoreOptions {
        row_cache_bytes: 16 << 10,
        engine: RocksMemory {
            memtable_bytes: 64 << 10,
            block_cache_bytes: 64 << 10,
        },
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            home: TempDir::new().unwrap(),
            copies: 0,
            keyring: Keyring::new(RootKey::from_bytes([9; 32])),
            store: None,
            log: Vec::new(),
            reference: Reference {
                revision: 1,
                ..Reference::default()
            },
        };
        world.open();
        world
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join(format!("store-{}", self.copies))
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// Starts from what is on disk, and replays the log from there.
    fn open(&mut self) {
        drop(self.store.take());
        let store = Store::open_with(&self.dir(), &self.keyring, options()).unwrap();
        let from = store.applied().map_or(0, |applied| applied.index);
        let missing = &self.log[usize::try_from(from).unwrap()..];
        for batch in missing.chunks(7) {
            store.apply(batch, &[]).unwrap();
        }
        self.store = Some(store);
    }

    fn apply(&mut self, commands: Vec<Command>) {
        let start = self.log.len();
        for command in commands {
            let index = self.log.len() as u64 + 1;
            let entry = Entry {
                time: UnixMillis(index),
                proposal: Proposal::new(command),
            };
            self.log.push((LogPosition { term: 1, index }, entry));
        }
        self.store().apply(&self.log[start..], &[]).unwrap();
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Put(key, value) => {
                let (key, value) = (name(*key), vec![*value; usize::from(*value) * 4]);
                self.reference.revision += 1;
                let revision = self.reference.revision;
                let version = (key.clone(), revision, Some(value.clone()));
                self.reference.versions.push(version);
                self.apply(vec![one(Operation::Put(Put::new(key, value)))]);
            }
            Step::Delete(from, to) => {
                let range = KeyRange::span(name(*from), name(*to));
                let living = self.reference.at(self.reference.revision);
                let deleted: Vec<_> = living
                    .into_keys()
                    .filter(|key| range.contains(key))
                    .collect();
                if !deleted.is_empty() {
                    self.reference.revision += 1;
                }
                let revision = self.reference.revision;
                let versions = deleted.into_iter().map(|key| (key, revision, None));
                self.reference.versions.extend(versions);
                let prev_kv = false;
                self.apply(vec![one(Operation::Delete { range, prev_kv })]);
            }
            Step::Compact(behind) => {
                let revision = self.reference.revision.saturating_sub(*behind);
                if revision > self.reference.compacted {
                    self.reference.compacted = revision;
                }
                self.apply(vec![Command::Compact { revision }, Command::CompactStep]);
            }
            Step::Flush => self.store().flush().unwrap(),
            Step::Restart => {
                self.store().flush().unwrap();
                self.open();
            }
            Step::Crash => self.crash(),
            Step::CrashWithoutIndex => {
                self.crash();
                drop(self.store.take());
                for entry in fs::read_dir(self.dir()).unwrap() {
                    let _ = fs::remove_file(entry.unwrap().path().join("index"));
                }
                self.open();
            }
            Step::Install => {
                let path = self.home.path().join("snapshot");
                let view = self.store().view().unwrap();
                view.write_to(&path, Bytes::new()).unwrap();
                self.store().install(&path, &[]).unwrap();
            }
            Step::Rotate(steps) => self.rotate(*steps),
        }
    }

    /// Breaks off after so many steps; what is left stays for the next call.
    fn rotate(&self, steps: u8) {
        let (ring, store) = (&self.keyring, self.store());
        let current = ring.current();
        if store.oldest_generation().unwrap() == current {
            ring.destroy_old();
            let root = RootKey::generate().unwrap();
            ring.add(current + 1, root).unwrap();
            ring.advance(current + 1).unwrap();
        }
        let mut left = steps;
        let outcome = store.reencrypt(&mut |_| {
            left = left.saturating_sub(1);
            if left == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        if outcome.unwrap() == Outcome::Done {
            assert_eq!(store.oldest_generation().unwrap(), ring.current());
            assert!(ring.destroy_old());
        }
    }

    fn crash(&mut self) {
        let crashed = self.home.path().join(format!("store-{}", self.copies + 1));
        let dir = self.dir();
        // The engine may be at work on its files: a crash is one moment.
        while !copied_at_one_moment(&dir, &crashed) {
            let _ = fs::remove_dir_all(&crashed);
        }
        self.copies += 1;
        self.open();
    }

    fn check(&self) {
        let (store, reference) = (self.store(), &self.reference);
        assert_eq!(store.revision(), reference.revision);
        assert_eq!(store.compacted_revision(), reference.compacted);
        for revision in reference.compacted.max(1)..=reference.revision {
            let request = RangeRequest {
                revision: Some(revision),
                ..RangeRequest::newest(KeyRange::span(name(0), name(20)))
            };
            let found = store.range(&request).unwrap();
            let found: BTreeMap<_, _> = found
                .kvs
                .into_iter()
                .map(|kv| (kv.key.to_vec(), (kv.mod_revision, kv.value.to_vec())))
                .collect();
            assert_eq!(found, reference.at(revision), "at revision {revision}");
        }
        let from = reference.compacted.max(1);
        let history = store
            .history(&KeyRange::span(name(0), name(20)), from, usize::MAX, true)
            .unwrap();
        let found: Vec<_> = history
            .events
            .into_iter()
            .map(|event| {
                let value = (event.kind == EventKind::Put).then(|| event.kv.value.to_vec());
                (event.kv.key.to_vec(), event.kv.mod_revision, value)
            })
            .filter(|(_, revision, _)| *revision > from)
            .collect();
        let versions = reference.versions.iter();
        let wanted: Vec<_> = versions.filter(|v| v.1 > from).cloned().collect();
        assert_eq!(found, wanted);
    }
}

fn copied_at_one_moment(from: &Path, to: &Path) -> bool {
    let before = listing(from);
    for (file, _) in &before {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        if fs::copy(file, target).is_err() {
            return false;
        }
    }
    before == listing(from)
}

/// Every file and its length.
fn listing(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(data) if data.is_dir() => found.extend(listing(&entry.path())),
            Ok(data) => found.push((entry.path(), data.len())),
            Err(_) => {}
        }
    }
    found.sort();
    found
}

fn name(key: u8) -> Vec<u8> {
    format!("key-{key:02}").into_bytes()
}

fn one(operation: Operation) -> Command {
    Command::Txn(Txn {
        then: vec![operation],
        ..Txn::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_the_disk_and_the_process_the_answers_are_the_references(
        steps in steps(),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            if !matches!(step, Step::Put(..)) {
                world.check();
            }
        }
        world.check();
        let hash = world.store().hash_kv(None).unwrap();
        let digest = world.store().digest();
        world.store().flush().unwrap();
        world.open();
        prop_assert_eq!(world.store().hash_kv(None).unwrap(), hash);
        prop_assert_eq!(world.store().digest(), digest);
    }
}
