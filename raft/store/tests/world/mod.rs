//! A small world for the store's tests.
#![allow(dead_code)] // each test file uses a part of it

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use nautilus_machine::{
    Command, Entry, Event, KeyRange, KeyValue, LeaseId, LedgerError, LogPosition, Operation,
    Proposal, Put, RangeRequest, Receipt, Txn, UnixMillis,
};
use nautilus_store::{Keyring, RootKey, Store, StoreError};
use tempfile::TempDir;

/// Strings that must never be found on a disk.
pub(crate) const PLANTED_KEY: &str = "registry/secrets/planted-key-name";
pub(crate) const PLANTED_VALUE: &str = "planted-value-of-the-secret";
pub(crate) const PLANTED_NOTE: &str = "planted-note-of-the-shell";
pub(crate) const PLANTED_HEADER: &str = "planted-header-of-the-snapshot";

pub(crate) fn keyring() -> Keyring {
    Keyring::new(RootKey::from_bytes([42; 32]))
}

/// A directory with a store in it, and the log's end.
pub(crate) struct World {
    pub(crate) home: TempDir,
    next: AtomicU64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            home: TempDir::new().unwrap(),
            next: AtomicU64::new(0),
        }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.home.path().join("store")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn open(&self) -> Store {
        Store::open(&self.dir(), &keyring()).unwrap()
    }

    pub(crate) fn apply(&self, store: &Store, command: Command) {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let position = LogPosition { term: 1, index };
        let entry = Entry {
            time: UnixMillis(index),
            proposal: Proposal::new(command),
        };
        let note = Bytes::from(format!("{PLANTED_NOTE} {index}"));
        store
            .apply(&[(position, entry)], &[("applied", note)])
            .unwrap();
    }

    pub(crate) fn put(&self, store: &Store, key: &str, value: impl Into<Bytes>) {
        let then = vec![Operation::Put(Put::new(key.to_owned(), value))];
        self.apply(
            store,
            Command::Txn(Txn {
                then,
                ..Txn::default()
            }),
        );
    }

    /// Some of everything: versions, deletions, leases, a compaction.
    pub(crate) fn fill(&self, store: &Store) {
        self.apply(
            store,
            Command::LeaseGrant {
                id: LeaseId(5),
                ttl_ms: 60_000,
            },
        );
        for number in 0..40 {
            let value = format!("{PLANTED_VALUE} {number}");
            self.put(store, &format!("{PLANTED_KEY}/{}", number % 15), value);
        }
        let range = KeyRange::single(format!("{PLANTED_KEY}/3"));
        let then = vec![Operation::Delete {
            range,
            prev_kv: false,
        }];
        self.apply(
            store,
            Command::Txn(Txn {
                then,
                ..Txn::default()
            }),
        );
        let put = Put {
            lease: Some(LeaseId(5)),
            ..Put::new("leased", PLANTED_VALUE)
        };
        let then = vec![Operation::Put(put)];
        self.apply(
            store,
            Command::Txn(Txn {
                then,
                ..Txn::default()
            }),
        );
        self.apply(store, Command::Compact { revision: 20 });
    }
}

/// Everything that can be read of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) digest: nautilus_machine::Digest,
    pub(crate) revision: u64,
    pub(crate) kvs: Vec<KeyValue>,
    pub(crate) past: Vec<KeyValue>,
    pub(crate) events: Vec<Event>,
    pub(crate) note: Option<Bytes>,
    /// Of every revision: the proof of its change, or why there is none.
    pub(crate) receipts: Vec<Result<Receipt, LedgerError>>,
}

pub(crate) fn content(store: &Store) -> Content {
    try_content(store).unwrap()
}

pub(crate) fn try_content(store: &Store) -> Result<Content, String> {
    let everything = KeyRange::span(Bytes::new(), "z");
    let newest = store.range(&RangeRequest::newest(everything.clone()));
    let from = store.compacted_revision().max(1);
    let past = RangeRequest {
        revision: Some(from),
        ..RangeRequest::newest(everything.clone())
    };
    let past = store.range(&past).map_err(|error| error.to_string())?;
    let history = store.history(&everything, from, usize::MAX, true);
    let mut receipts = Vec::new();
    for revision in 0..=store.revision() {
        match store.receipt(revision, None) {
            Err(LedgerError::Storage(reason)) => return Err(reason),
            answer => receipts.push(answer),
        }
    }
    Ok(Content {
        digest: store.digest(),
        revision: store.revision(),
        kvs: newest.map_err(|error| error.to_string())?.kvs,
        past: past.kvs,
        events: history.map_err(|error| error.to_string())?.events,
        note: store.note("applied").map_err(|error| error.to_string())?,
        receipts,
    })
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Every file below `dir`.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

pub(crate) fn engine_dir(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("engine-{number:016x}"))
}

/// The error's text.
pub(crate) fn refused<T>(result: Result<T, StoreError>) -> String {
    match result {
        Ok(_) => panic!("it was not refused"),
        Err(error) => error.to_string(),
    }
}
