//! The store: the machine in memory over an engine that keeps its rows.
//!
//! Invariants
//! - One writer at a time (asserted). An entry is visible to readers whole or not at
//!   all: the machine's lock is held over each, and its rows are among those under
//!   way before it is let go; they are sealed and written without it.
//! - The engine's rows are those of whole calls of [`Store::apply`]: the caller's
//!   notes are in the same write as the entries they belong to. A view and a flush
//!   see the engine between two calls.
//! - After a failure that may have left memory ahead of the rows, nothing is served
//!   any more.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use nautilus_machine::{
    Applied, Digest, Entry, LeaseId, LeaseView, LogPosition, Machine, MachineError, Revision,
    RowBatch, StoreSizes, UnixMillis,
};
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::directory::Directory;
use crate::engine::{Engine, MemoryEngine};
use crate::error::StoreError;
use crate::index::{self, IndexNote};
use crate::keys::Keyring;
use crate::layers::LayeredRows;
use crate::notes::Notes;
use crate::rocks::RocksEngine;
use crate::rocks_options::RocksMemory;
use crate::snapshot;
use crate::view::View;

/// Entries applied under one hold of the machine's lock.
const HOLD_ENTRIES: usize = 16;

/// Bytes of rows in clear: those that writes are about, for lists and reads of the API
/// come from its own cache.
const ROW_CACHE_BYTES: usize = 8 << 20;

/// What a store may keep in memory beside the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// Bytes of rows in clear, for reads.
    pub row_cache_bytes: usize,
    /// The engine's part.
    pub engine: RocksMemory,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            row_cache_bytes: ROW_CACHE_BYTES,
            engine: RocksMemory::default(),
        }
    }
}

/// The encrypted MVCC store of one node. All calls block, for disk or for locks.
pub struct Store {
    pub(crate) keyring: Keyring,
    pub(crate) place: Place,
    pub(crate) options: StoreOptions,
    pub(crate) state: RwLock<State>,
    /// Whether there is a writer: a second one is a defect.
    writing: AtomicBool,
    /// Held while the engine is behind the machine.
    pub(crate) unsettled: Mutex<()>,
    /// Held while flushing, with what is known of the index's checkpoint.
    flushing: Mutex<IndexNote>,
}

/// Where engines are made.
pub(crate) enum Place {
    Memory,
    Directory(Directory),
}

/// What is swapped when a snapshot is installed.
pub(crate) struct State {
    pub(crate) machine: Machine,
    pub(crate) rows: Arc<LayeredRows>,
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
        rows: Arc<LayeredRows>,
        disk: Option<DiskEngine>,
        keyring: &Keyring,
    ) -> Result<Self, StoreError> {
        let machine = index::restore(&**rows.engine(), disk.as_ref(), keyring)?;
        let notes = Notes::load(&**rows.engine())?;
        Ok(Self::new(machine, rows, disk, notes))
    }

    pub(crate) fn new(
        machine: Machine,
        rows: Arc<LayeredRows>,
        disk: Option<DiskEngine>,
        notes: Notes,
    ) -> Self {
        Self {
            machine,
            rows,
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
    /// Opens the store in `dir`, or makes an empty one there.
    pub fn open(dir: &Path, keyring: &Keyring) -> Result<Self, StoreError> {
        Self::open_with(dir, keyring, StoreOptions::default())
    }

    /// The same, with other limits.
    pub fn open_with(
        dir: &Path,
        keyring: &Keyring,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let (directory, current) = Directory::open(dir, keyring, options.engine)?;
        let state = match current {
            Some(number) => {
                let engine = directory.open_engine(number)?;
                let disk = DiskEngine {
                    number,
                    engine: Arc::clone(&engine),
                };
                let rows = Arc::new(LayeredRows::new(engine, options.row_cache_bytes));
                let state = State::load(rows, Some(disk.clone()), keyring)?;
                directory.check_flushed(number, &disk.engine, state.notes.sequence)?;
                state
            }
            None => crate::install::first_engine(&directory, keyring, &options)?,
        };
        let place = Place::Directory(directory);
        Ok(Self::assemble(keyring, place, options, state))
    }

    /// The keys it seals with.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// A store in memory only.
    pub fn open_memory(keyring: &Keyring) -> Result<Self, StoreError> {
        let options = StoreOptions::default();
        let engine = Arc::new(MemoryEngine::default());
        let rows = Arc::new(LayeredRows::new(engine, options.row_cache_bytes));
        let machine = Machine::new(keyring.digest_key());
        let state = crate::install::seed(rows, None, machine)?;
        Ok(Self::assemble(keyring, Place::Memory, options, state))
    }

    fn assemble(keyring: &Keyring, place: Place, options: StoreOptions, state: State) -> Self {
        crate::telemetry::describe_metrics();
        Self {
            keyring: keyring.clone(),
            place,
            options,
            state: RwLock::new(state),
            writing: AtomicBool::new(false),
            unsettled: Mutex::new(()),
            flushing: Mutex::new(IndexNote::default()),
        }
    }

    /// Applies entries and writes their rows and the caller's notes in one atomic
    /// batch. Positions must grow. Not durable before [`Store::flush`]. Readers may
    /// see entries, each whole, while later ones are applied.
    pub fn apply(
        &self,
        entries: &[(LogPosition, Entry)],
        notes: &[(&str, Bytes)],
    ) -> Result<Vec<Applied>, StoreError> {
        let _writer = self.writer();
        let (rows, mut notes) = {
            let state = self.state.read();
            state.check()?;
            (Arc::clone(&state.rows), state.notes.with(notes)?)
        };
        let mut applied = Vec::with_capacity(entries.len());
        for held in entries.chunks(HOLD_ENTRIES) {
            self.run(held, &rows, &mut applied)?;
        }
        let settled = self.settle(&rows, &mut notes);
        let mut state = self.state.write();
        settled.map_err(|error| state.stop(error))?;
        state.notes = notes;
        Ok(applied)
    }

    /// Applies a few entries, and makes them visible.
    fn run(
        &self,
        entries: &[(LogPosition, Entry)],
        rows: &LayeredRows,
        applied: &mut Vec<Applied>,
    ) -> Result<(), StoreError> {
        let mut batch = RowBatch::default();
        let mut state = self.state.write();
        for (position, entry) in entries {
            match state.machine.apply(*position, entry, rows, &mut batch) {
                Ok(outcome) => applied.push(outcome),
                // The machine has not touched anything yet.
                Err(error @ MachineError::OutOfOrder { .. }) if applied.is_empty() => {
                    return Err(error.into());
                }
                Err(error) => return Err(state.stop(error.into())),
            }
        }
        // Under the lock: whoever sees the index finds the rows.
        rows.show(batch);
        Ok(())
    }

    /// Writes what was applied, with the machine's counters and the notes.
    fn settle(&self, rows: &LayeredRows, notes: &mut Notes) -> Result<(), StoreError> {
        let mut last = RowBatch::default();
        self.state.read().machine.write_counters(&mut last)?;
        notes.put_into(&mut last)?;
        rows.show(last);
        Ok(rows.settle()?)
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

    /// How many versions there are.
    pub fn version_rows(&self) -> u64 {
        self.state.read().machine.version_rows()
    }

    /// Whether rows that a compaction has passed are still there.
    pub fn compaction_pending(&self) -> bool {
        self.state.read().machine.compaction_pending()
    }

    /// One lease.
    pub fn lease(&self, id: LeaseId) -> Option<LeaseView> {
        self.state.read().machine.lease(id)
    }

    /// The ids of all leases.
    pub fn lease_ids(&self) -> Vec<LeaseId> {
        self.state.read().machine.lease_ids()
    }

    /// Returns when everything applied before the call is durable. Writes the index's
    /// checkpoint too, if the one that is there has grown old.
    pub fn flush(&self) -> Result<(), StoreError> {
        let mut note = self.flushing.lock();
        let (engine, disk, sequence, checkpoint) = {
            let _settled = self.unsettled.lock();
            let state = self.state.read();
            state.check()?;
            let checkpoint = match &state.disk {
                Some(disk) if note.is_old(disk, &state.machine) => {
                    Some(state.machine.index_checkpoint()?)
                }
                _ => None,
            };
            let engine = Arc::clone(state.rows.engine());
            (engine, state.disk.clone(), state.notes.sequence, checkpoint)
        };
        engine.flush()?;
        let (Place::Directory(directory), Some(disk)) = (&self.place, disk) else {
            return Ok(());
        };
        directory.mark_flushed(disk.number, &disk.engine, sequence)?;
        // Only now: the rows that it goes with are durable.
        checkpoint.map_or(Ok(()), |checkpoint| note.write(&disk, &checkpoint))
    }

    /// Bytes on disk.
    pub fn sizes(&self) -> StoreSizes {
        self.engine().sizes()
    }

    /// Gives the space of what was deleted back to the file system. Blocks for long;
    /// everything else goes on.
    pub fn defragment(&self) -> Result<(), StoreError> {
        Ok(self.engine().defragment()?)
    }

    /// Tells metrics what is in memory and on disk: call it now and then.
    pub fn report(&self) {
        let (rows, index_bytes, index_keys) = {
            let state = self.state.read();
            let machine = &state.machine;
            let (bytes, keys) = (machine.index_memory_bytes(), machine.index_keys());
            (Arc::clone(&state.rows), bytes, keys)
        };
        let (memory, sizes) = (rows.engine().memory(), rows.engine().sizes());
        let cache = rows.cache().counts();
        let gauges = [
            ("nautilus_store_index_bytes", index_bytes),
            ("nautilus_store_index_keys", index_keys),
            ("nautilus_store_row_cache_bytes", cache.bytes),
            ("nautilus_store_memtable_bytes", memory.memtable_bytes),
            ("nautilus_store_block_cache_bytes", memory.block_cache_bytes),
            ("nautilus_store_table_index_bytes", memory.table_index_bytes),
            ("nautilus_store_disk_bytes", sizes.total_bytes),
            ("nautilus_store_disk_in_use_bytes", sizes.in_use_bytes),
        ];
        for (name, value) in gauges {
            metrics::gauge!(name).set(value as f64);
        }
        metrics::counter!("nautilus_store_row_cache_hits_total").absolute(cache.hits);
        metrics::counter!("nautilus_store_row_cache_misses_total").absolute(cache.misses);
    }

    fn engine(&self) -> Arc<dyn Engine> {
        Arc::clone(self.state.read().rows.engine())
    }

    /// The state as it is now, to be written to a snapshot file.
    pub fn view(&self) -> Result<View, StoreError> {
        let _settled = self.unsettled.lock();
        let state = self.state.read();
        state.check()?;
        Ok(View {
            rows: Arc::clone(state.rows.engine()).view()?,
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

    /// Keeps out a second writer, and views of what is half written.
    pub(crate) fn writer(&self) -> Writer<'_> {
        let before = self.writing.swap(true, Ordering::Acquire);
        assert!(!before, "two writers on one store");
        Writer {
            writing: &self.writing,
            _unsettled: self.unsettled.lock(),
        }
    }

    /// Keeps out a flush, while engines are swapped.
    pub(crate) fn no_flush(&self) -> MutexGuard<'_, IndexNote> {
        self.flushing.lock()
    }
}

/// Held while writing.
pub(crate) struct Writer<'a> {
    writing: &'a AtomicBool,
    _unsettled: MutexGuard<'a, ()>,
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.writing.store(false, Ordering::Release);
    }
}
