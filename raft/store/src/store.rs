//! The store: the machine in memory over an engine that keeps its rows.
//!
//! Invariants
//! - One writer at a time (asserted); a batch is visible to readers whole or not at
//!   all: the lock is held from the first entry's apply to the engine's write.
//! - The caller's notes are in the same batch as the entries they belong to.
//! - After a failure that may have left memory ahead of the rows, nothing is served
//!   any more.
//! - A row read outside the lock that is not there is looked up again before it is
//!   called corrupt: a compaction or an installed snapshot may have passed by.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use nautilus_machine::{
    Applied, Digest, Entry, History, HistoryScan, KeyRange, LeaseId, LeaseView, LogPosition,
    Machine, MachineError, RangeError, RangeRequest, RangeResponse, Revision, RowBatch, RowError,
    UnixMillis, WatchError,
};
use parking_lot::{Mutex, RwLock};

use crate::directory::Directory;
use crate::engine::{Engine, MemoryEngine};
use crate::error::StoreError;
use crate::keys::Keyring;
use crate::notes::Notes;
use crate::rocks::RocksEngine;
use crate::snapshot;
use crate::view::View;

/// How often a read is tried again when compactions or installs pass by.
const READ_ATTEMPTS_MAX: usize = 16;

/// The encrypted MVCC store of one node. All calls block, for disk or for locks.
pub struct Store {
    pub(crate) keyring: Keyring,
    pub(crate) place: Place,
    pub(crate) state: RwLock<State>,
    writing: AtomicBool,
    flushing: Mutex<()>,
}

/// Where engines are made.
pub(crate) enum Place {
    Memory,
    Directory(Directory),
}

/// What is swapped when a snapshot is installed.
pub(crate) struct State {
    pub(crate) machine: Machine,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) disk: Option<DiskEngine>,
    pub(crate) notes: Notes,
    stopped: Option<String>,
}

/// The engine again, as what it is on disk.
#[derive(Clone)]
pub(crate) struct DiskEngine {
    pub(crate) number: u64,
    pub(crate) engine: Arc<RocksEngine>,
}

impl State {
    /// Rebuilds memory from the rows of an engine.
    pub(crate) fn load(
        engine: Arc<dyn Engine>,
        disk: Option<DiskEngine>,
        keyring: &Keyring,
    ) -> Result<Self, StoreError> {
        let machine = Machine::restore(keyring.digest_key(), &*engine)?;
        let notes = Notes::load(&*engine)?;
        Ok(Self::new(machine, engine, disk, notes))
    }

    pub(crate) fn new(
        machine: Machine,
        engine: Arc<dyn Engine>,
        disk: Option<DiskEngine>,
        notes: Notes,
    ) -> Self {
        Self {
            machine,
            engine,
            disk,
            notes,
            stopped: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match &self.stopped {
            None => Ok(()),
            Some(reason) => Err(StoreError::Stopped(reason.clone())),
        }
    }

    /// Nothing is served from here on.
    pub(crate) fn stop(&mut self, error: StoreError) -> StoreError {
        self.stopped = Some(error.to_string());
        error
    }
}

impl Store {
    /// Opens the store in `dir`, or makes an empty one there. Reads every row once.
    pub fn open(dir: &Path, keyring: &Keyring) -> Result<Self, StoreError> {
        let (directory, current) = Directory::open(dir, keyring)?;
        let state = match current {
            Some(number) => {
                let engine = directory.open_engine(number)?;
                let disk = DiskEngine {
                    number,
                    engine: Arc::clone(&engine),
                };
                let state = State::load(engine, Some(disk.clone()), keyring)?;
                directory.check_flushed(number, &disk.engine, state.notes.sequence)?;
                state
            }
            None => crate::install::first_engine(&directory, keyring)?,
        };
        Ok(Self::assemble(keyring, Place::Directory(directory), state))
    }

    /// A store in memory only.
    pub fn open_memory(keyring: &Keyring) -> Result<Self, StoreError> {
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::default());
        let machine = Machine::new(keyring.digest_key());
        let state = crate::install::seed(engine, None, machine)?;
        Ok(Self::assemble(keyring, Place::Memory, state))
    }

    fn assemble(keyring: &Keyring, place: Place, state: State) -> Self {
        Self {
            keyring: keyring.clone(),
            place,
            state: RwLock::new(state),
            writing: AtomicBool::new(false),
            flushing: Mutex::new(()),
        }
    }

    /// Applies entries and writes their rows and the caller's notes in one atomic
    /// batch. Positions must grow. Not durable before [`Store::flush`].
    pub fn apply(
        &self,
        entries: &[(LogPosition, Entry)],
        notes: &[(&str, Bytes)],
    ) -> Result<Vec<Applied>, StoreError> {
        let _writer = self.writer();
        let mut state = self.state.write();
        state.check()?;
        let mut notes = state.notes.with(notes)?;
        let mut batch = RowBatch::default();
        let mut applied = Vec::with_capacity(entries.len());
        for (position, entry) in entries {
            let State {
                machine, engine, ..
            } = &mut *state;
            match machine.apply(*position, entry, &**engine, &mut batch) {
                Ok(outcome) => applied.push(outcome),
                // The machine has not touched anything yet.
                Err(error @ MachineError::OutOfOrder { .. }) if applied.is_empty() => {
                    return Err(error.into());
                }
                Err(error) => return Err(state.stop(error.into())),
            }
        }
        let written = notes
            .put_into(&mut batch)
            .and_then(|()| Ok(state.engine.write(batch)?));
        if let Err(error) = written {
            return Err(state.stop(error));
        }
        state.notes = notes;
        Ok(applied)
    }

    /// A note of the caller's.
    pub fn note(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        let state = self.state.read();
        state.check()?;
        Ok(state.notes.get(name))
    }

    /// Writes notes alone, in one batch. Not durable before [`Store::flush`].
    pub fn put_notes(&self, notes: &[(&str, Bytes)]) -> Result<(), StoreError> {
        self.apply(&[], notes).map(|_| ())
    }

    /// Reads a range.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, RangeError> {
        let mut last = None;
        for _ in 0..READ_ATTEMPTS_MAX {
            let (located, sight) = {
                let state = self.state.read();
                state
                    .check()
                    .map_err(|error| RangeError::Storage(error.to_string()))?;
                (state.machine.locate(request)?, Sight::of(&state))
            };
            match located.read(&*sight.engine) {
                Ok(response) => return Ok(response),
                Err(error) => last = Some(self.judge(&sight, error)?),
            }
        }
        Err(RangeError::Storage(too_often(last)))
    }

    /// The events of `range` from revision `from` on: about `limit` of them at most,
    /// but never part of a revision. Everything up to `through` is there: go on from
    /// `through + 1`, until `through` is the store's revision.
    pub fn history(
        &self,
        range: &KeyRange,
        from: Revision,
        limit: usize,
    ) -> Result<History, WatchError> {
        let storage = |error: &dyn std::fmt::Display| WatchError::Storage(error.to_string());
        let mut last = None;
        for _ in 0..READ_ATTEMPTS_MAX {
            let (sight, current) = {
                let state = self.state.read();
                state.check().map_err(|error| storage(&error))?;
                (Sight::of(&state), state.machine.revision())
            };
            if from < sight.compacted {
                return Err(WatchError::Compacted {
                    compacted: sight.compacted,
                });
            }
            let scan = HistoryScan::collect(&*sight.engine, range, from, current, limit);
            let history = match scan {
                Ok(mut scan) => {
                    scan.link(&self.state.read().machine)?;
                    scan.finish(&*sight.engine)
                }
                Err(error) => Err(error),
            };
            match history {
                Ok(history) => return Ok(history),
                Err(error) => {
                    last = Some(self.judge(&sight, error).map_err(|error| storage(&error))?);
                }
            }
        }
        Err(WatchError::Storage(too_often(last)))
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.state.read().machine.revision()
    }

    /// The oldest revision that can be read or watched from; 0 before the first
    /// compaction.
    pub fn compacted_revision(&self) -> Revision {
        self.state.read().machine.compacted_revision()
    }

    /// The state's digest.
    pub fn digest(&self) -> Digest {
        self.state.read().machine.digest()
    }

    /// The last checkpoint.
    pub fn checkpoint(&self) -> Option<(LogPosition, Digest)> {
        self.state.read().machine.checkpoint()
    }

    /// The last entry applied (entries that are not the machine's do not count).
    pub fn applied(&self) -> Option<LogPosition> {
        self.state.read().machine.applied()
    }

    /// The time of the last entry applied.
    pub fn time(&self) -> UnixMillis {
        self.state.read().machine.time()
    }

    /// The earliest deadline of a lease.
    pub fn next_lease_deadline(&self) -> Option<UnixMillis> {
        self.state.read().machine.next_lease_deadline()
    }

    /// One lease.
    pub fn lease(&self, id: LeaseId) -> Option<LeaseView> {
        self.state.read().machine.lease(id)
    }

    /// The ids of all leases.
    pub fn lease_ids(&self) -> Vec<LeaseId> {
        self.state.read().machine.lease_ids()
    }

    /// Returns when everything applied before the call is durable.
    pub fn flush(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.flushing.lock();
        let (engine, disk, sequence) = {
            let state = self.state.read();
            state.check()?;
            (
                Arc::clone(&state.engine),
                state.disk.clone(),
                state.notes.sequence,
            )
        };
        engine.flush()?;
        match (&self.place, disk) {
            (Place::Directory(directory), Some(disk)) => {
                directory.mark_flushed(disk.number, &disk.engine, sequence)
            }
            _ => Ok(()),
        }
    }

    /// The state as it is now, to be written to a snapshot file.
    pub fn view(&self) -> Result<View, StoreError> {
        let state = self.state.read();
        state.check()?;
        Ok(View {
            rows: Arc::clone(&state.engine).view()?,
            keyring: self.keyring.clone(),
            applied: state.machine.applied(),
            revision: state.machine.revision(),
            digest: state.machine.digest(),
        })
    }

    /// The caller's header of a snapshot file, authenticated.
    pub fn read_header(&self, path: &Path) -> Result<Bytes, StoreError> {
        snapshot::read_header(path, &self.keyring)
    }

    /// Keeps out a second writer.
    pub(crate) fn writer(&self) -> Writer<'_> {
        let before = self.writing.swap(true, Ordering::Acquire);
        assert!(!before, "two writers on one store");
        Writer {
            writing: &self.writing,
        }
    }

    /// Keeps out a flush, while engines are swapped.
    pub(crate) fn no_flush(&self) -> parking_lot::MutexGuard<'_, ()> {
        self.flushing.lock()
    }

    /// Whether a failed read is to be tried again (the error comes back) or is real.
    fn judge(&self, sight: &Sight, error: RowError) -> Result<RowError, RangeError> {
        let now = Sight::of(&self.state.read());
        let moved = now.compacted != sight.compacted || !Arc::ptr_eq(&now.engine, &sight.engine);
        if moved {
            return Ok(error);
        }
        Err(RangeError::Storage(StoreError::from(error).to_string()))
    }
}

/// Held while writing.
pub(crate) struct Writer<'a> {
    writing: &'a AtomicBool,
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.writing.store(false, Ordering::Release);
    }
}

/// What a read was based on.
struct Sight {
    engine: Arc<dyn Engine>,
    compacted: Revision,
}

impl Sight {
    fn of(state: &State) -> Self {
        Self {
            engine: Arc::clone(&state.engine),
            compacted: state.machine.compacted_revision(),
        }
    }
}

fn too_often(last: Option<RowError>) -> String {
    let last = last.map_or_else(String::new, |error| format!(", last: {error}"));
    format!("compactions overtook the read {READ_ATTEMPTS_MAX} times{last}")
}
