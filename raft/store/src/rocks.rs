//! Rows in RocksDB: positions as keys, ciphertext as values.
//!
//! The write-ahead log is off, because the Raft log is the only one: rows reach the
//! disk by a flush of the memtable, and what was not flushed is replayed from the
//! Raft log. All spaces share one column family, so that a flush, whoever starts it,
//! is atomic over all of them. No compression: ciphertext has no redundancy.
//!
//! Invariants
//! - A value is opened as the row of its space at its key, or is an error.
//! - The database is opened only where it was made: a directory without one is an
//!   error, never an empty store.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use nautilus_machine::{RowBatch, RowError, Rows, Space};
use rocksdb::{
    BlockBasedOptions, Cache, DB, Direction, FlushOptions, IteratorMode, LogLevel, Options,
    ReadOptions, WriteBatch, WriteOptions,
};

use crate::engine::{Engine, EngineError, EngineView, ViewJob};
use crate::envelope::{Aad, Envelope, Kind, hex};

/// Bytes in memory before rows go to disk by themselves.
const MEMTABLE_BYTES: usize = 64 << 20;
/// Bytes of (sealed) blocks kept in memory.
const BLOCK_CACHE_BYTES: usize = 64 << 20;
/// Bytes of RocksDB's own information log, which is quiet.
const INFO_LOG_BYTES: usize = 1 << 20;

/// Whether the database must be there or must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Make it; an error if it is there.
    Create,
    /// Open it; an error if it is not there.
    Open,
}

/// The engine on disk.
pub struct RocksEngine {
    /// `None` only while being dropped.
    db: Option<DB>,
    envelope: Envelope,
    path: PathBuf,
    /// Removed when dropped, if discarded.
    home: PathBuf,
    discarded: AtomicBool,
}

impl RocksEngine {
    /// Opens or makes the database at `path`; `home` is the directory that goes with
    /// the engine when it is discarded.
    pub fn open(
        path: &Path,
        home: &Path,
        envelope: Envelope,
        presence: Presence,
    ) -> Result<Self, EngineError> {
        let mut options = options();
        options.create_if_missing(presence == Presence::Create);
        options.set_error_if_exists(presence == Presence::Create);
        let db = DB::open(&options, path).map_err(|error| failure(path, &error))?;
        Ok(Self {
            db: Some(db),
            envelope,
            path: path.to_owned(),
            home: home.to_owned(),
            discarded: AtomicBool::new(false),
        })
    }

    /// What seals the engine's rows.
    pub(crate) fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    fn db(&self) -> &DB {
        match &self.db {
            Some(db) => db,
            None => unreachable!("the database is closed only when the engine is dropped"),
        }
    }

    fn unseal(&self, space: Space, key: &[u8], sealed: &[u8]) -> Result<Bytes, RowError> {
        let position = row_key(space, key);
        self.envelope
            .open(
                Aad {
                    kind: Kind::Row,
                    position: &position,
                },
                sealed,
            )
            .map(Bytes::from)
            .map_err(|error| self.row_error(space, key, &error.to_string()))
    }

    fn row_error(&self, space: Space, key: &[u8], reason: &str) -> RowError {
        let reason = format!("{reason} (in {})", self.path.display());
        RowError {
            space,
            key: hex(key),
            reason,
        }
    }

    fn get_with(
        &self,
        options: &ReadOptions,
        space: Space,
        key: &[u8],
    ) -> Result<Option<Bytes>, RowError> {
        let sealed = self
            .db()
            .get_pinned_opt(row_key(space, key), options)
            .map_err(|error| self.row_error(space, key, error.as_ref()))?;
        sealed
            .map(|sealed| self.unseal(space, key, &sealed))
            .transpose()
    }

    fn scan_with(
        &self,
        mut options: ReadOptions,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), RowError> {
        let end = to.map_or_else(|| vec![space as u8 + 1], |to| row_key(space, to));
        options.set_iterate_upper_bound(end);
        let start = row_key(space, from);
        let rows = self
            .db()
            .iterator_opt(IteratorMode::From(&start, Direction::Forward), options);
        for row in rows {
            let (position, sealed) =
                row.map_err(|error| self.row_error(space, from, error.as_ref()))?;
            let key = &position[1..];
            let value = self.unseal(space, key, &sealed)?;
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Rows for RocksEngine {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, RowError> {
        self.get_with(&ReadOptions::default(), space, key)
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), RowError> {
        self.scan_with(ReadOptions::default(), space, from, to, visit)
    }
}

impl Engine for RocksEngine {
    fn write(&self, batch: RowBatch) -> Result<(), EngineError> {
        let mut writes = WriteBatch::default();
        let mut sealed = Vec::new();
        for (space, key, value) in batch.into_writes() {
            let position = row_key(space, &key);
            match value {
                Some(value) => {
                    sealed.clear();
                    let aad = Aad {
                        kind: Kind::Row,
                        position: &position,
                    };
                    self.envelope.seal_into(aad, &value, &mut sealed);
                    writes.put(&position, &sealed);
                }
                None => writes.delete(&position),
            }
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db()
            .write_opt(writes, &options)
            .map_err(|error| failure(&self.path, &error))
    }

    fn flush(&self) -> Result<(), EngineError> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db()
            .flush_opt(&options)
            .map_err(|error| failure(&self.path, &error))
    }

    fn view(self: Arc<Self>) -> Result<EngineView, EngineError> {
        let view = SnapshotThread::start(self)?;
        Ok(EngineView::new(move |job| view.run(job)))
    }

    fn discard_when_dropped(&self) {
        self.discarded.store(true, Ordering::Release);
    }
}

impl Drop for RocksEngine {
    fn drop(&mut self) {
        drop(self.db.take());
        if self.discarded.load(Ordering::Acquire) {
            // What stays is removed when the store is opened next.
            let _ = std::fs::remove_dir_all(&self.home);
        }
    }
}

/// A RocksDB snapshot borrows its database; a thread that owns the engine keeps both
/// until the view is read or dropped.
struct SnapshotThread {
    jobs: Option<SyncSender<ViewJob>>,
    thread: Option<JoinHandle<()>>,
}

impl SnapshotThread {
    fn start(engine: Arc<RocksEngine>) -> Result<Self, EngineError> {
        let (jobs, work) = sync_channel::<ViewJob>(1);
        let (ready, taken) = sync_channel(1);
        let thread = thread::Builder::new()
            .name("store-view".to_owned())
            .spawn(move || {
                let rows = SnapshotRows {
                    engine: &engine,
                    snapshot: engine.db().snapshot(),
                };
                // The starter waits below: it cannot be gone.
                let _ = ready.send(());
                if let Ok(job) = work.recv() {
                    job(&rows);
                }
            })
            .map_err(|error| EngineError::Failed(format!("no thread for a view: {error}")))?;
        taken
            .recv()
            .map_err(|_| EngineError::Failed("no snapshot could be taken".to_owned()))?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    fn run(self, job: ViewJob) {
        if let Some(jobs) = &self.jobs {
            // A thread that died drops the job, and whoever waits for it is told.
            let _ = jobs.send(job);
        }
    }
}

impl Drop for SnapshotThread {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct SnapshotRows<'a> {
    engine: &'a RocksEngine,
    snapshot: rocksdb::Snapshot<'a>,
}

impl SnapshotRows<'_> {
    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options.fill_cache(false);
        options
    }
}

impl Rows for SnapshotRows<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, RowError> {
        self.engine.get_with(&self.options(), space, key)
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), RowError> {
        self.engine
            .scan_with(self.options(), space, from, to, visit)
    }
}

/// The key in RocksDB, and the position in the associated data.
fn row_key(space: Space, key: &[u8]) -> Vec<u8> {
    let mut position = Vec::with_capacity(1 + key.len());
    position.push(space as u8);
    position.extend_from_slice(key);
    position
}

fn options() -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE_BYTES));
    blocks.set_format_version(6);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(rocksdb::DBCompressionType::None);
    options.set_paranoid_checks(true);
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_log_level(LogLevel::Fatal);
    options.set_keep_log_file_num(1);
    options.set_max_log_file_size(INFO_LOG_BYTES);
    options.set_stats_dump_period_sec(0);
    options
}

/// RocksDB's error, as damage where it says so.
fn failure(path: &Path, error: &rocksdb::Error) -> EngineError {
    match error.kind() {
        rocksdb::ErrorKind::Corruption
        | rocksdb::ErrorKind::InvalidArgument
        | rocksdb::ErrorKind::NotFound => EngineError::Corrupt {
            path: path.to_owned(),
            reason: error.to_string(),
        },
        _ => EngineError::Failed(format!("{}: {error}", path.display())),
    }
}
