//! Rows in RocksDB: positions as keys, ciphertext as values.
//!
//! The write-ahead log is off, because the Raft log is the only one: rows reach the
//! disk by a flush of the memtables, and what was not flushed is replayed from the
//! Raft log. A flush, whoever starts it, is atomic over all spaces.
//!
//! Invariants
//! - A value is opened as the row of its space at its key, or is an error.
//! - The database is opened only where it was made: a directory without one is an
//!   error, never an empty store.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use nautilus_machine::{RowBatch, RowError, Rows, Space, StoreSizes};
use rocksdb::{
    BottommostLevelCompaction, Cache, ColumnFamily, CompactOptions, DB, FlushOptions, LiveFile,
    ReadOptions, WriteBatch, WriteOptions, properties,
};

use crate::engine::{Engine, EngineError, EngineMemory, EngineView};
use crate::envelope::{Aad, Envelope, Kind, POSITION_BYTES_MAX, SEAL_OVERHEAD_BYTES, hex};
use crate::reencryption::Work;
use crate::rocks_options::{self, RocksMemory, STATE, VERSIONS};
use crate::rocks_view::SnapshotThread;

/// Bytes that a scan reads ahead.
pub(crate) const SCAN_AHEAD_BYTES: usize = 1 << 20;

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
    block_cache: Cache,
    read_options: ReadOptions,
    write_options: WriteOptions,
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
        memory: RocksMemory,
    ) -> Result<Self, EngineError> {
        let (families, block_cache) = rocks_options::families(memory);
        let db = DB::open_cf_descriptors(&rocks_options::database(presence), path, families)
            .map_err(|error| failure(path, &error))?;
        Ok(Self {
            db: Some(db),
            block_cache,
            read_options: ReadOptions::default(),
            write_options: rocks_options::write(),
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

    /// The directory that goes with the engine.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    pub(crate) fn db(&self) -> &DB {
        match &self.db {
            Some(db) => db,
            None => unreachable!("the database is closed only when the engine is dropped"),
        }
    }

    fn family(&self, space: Space) -> &ColumnFamily {
        let name = match space {
            Space::Revision => VERSIONS,
            Space::Lease | Space::Meta | Space::Ledger => STATE,
        };
        match self.db().cf_handle(name) {
            Some(family) => family,
            None => unreachable!("the database is opened with all its families"),
        }
    }

    pub(crate) fn families(&self) -> [&ColumnFamily; 2] {
        [self.family(Space::Revision), self.family(Space::Meta)]
    }

    /// Seals anew the rows from `from` on that an epoch before `floor` has sealed, until
    /// so many bytes were seen or written; `from` moves on. Nobody else may write.
    pub(crate) fn reseal_rows(
        &self,
        family: usize,
        from: &mut Vec<u8>,
        floor: u32,
        limit: Work,
    ) -> Result<(Work, ControlFlow<()>), EngineError> {
        let family = self.families()[family];
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mut rows = self.db().raw_iterator_cf_opt(family, options);
        rows.seek(&*from);
        let (mut work, mut writes) = (Work::default(), WriteBatch::default());
        let (mut plain, mut sealed) = (Vec::new(), Vec::new());
        let mut ended = ControlFlow::Break(());
        while let Some((position, row)) = rows.item() {
            if work.seen_bytes >= limit.seen_bytes || work.written_bytes >= limit.written_bytes {
                position.clone_into(from);
                ended = ControlFlow::Continue(());
                break;
            }
            work.seen_bytes += row.len() as u64;
            if Envelope::epoch_of(row).is_none_or(|epoch| epoch < floor) {
                let aad = Aad {
                    kind: Kind::Row,
                    position,
                };
                let opened = self.envelope.open_into(aad, row, &mut plain);
                opened.map_err(|error| EngineError::Corrupt {
                    path: self.path.clone(),
                    reason: error.to_string(),
                })?;
                sealed.clear();
                self.envelope.seal_into(aad, &plain, &mut sealed);
                writes.put_cf(family, position, &sealed);
                work.written_bytes += sealed.len() as u64;
            }
            rows.next();
        }
        rows.status().map_err(|error| failure(&self.path, &error))?;
        if !writes.is_empty() {
            self.db()
                .write_opt(writes, &self.write_options)
                .map_err(|error| failure(&self.path, &error))?;
        }
        Ok((work, ended))
    }

    /// The files of rows as they are now.
    pub(crate) fn row_files(&self) -> Result<Vec<LiveFile>, EngineError> {
        let files = self.db().live_files();
        files.map_err(|error| failure(&self.path, &error))
    }

    /// Writes one file's rows anew into others, without what was written over.
    pub(crate) fn compact_file(&self, file: &LiveFile) {
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        // Both ends are inclusive.
        let (start, end) = (file.start_key.as_deref(), file.end_key.as_deref());
        if let Some(family) = self.db().cf_handle(&file.column_family_name) {
            self.db().compact_range_cf_opt(family, start, end, &options);
        }
    }

    fn unseal(&self, space: Space, key: &[u8], sealed: &[u8]) -> Result<Bytes, RowError> {
        let position = RowKey::new(space, key);
        self.envelope
            .open(position.aad(), sealed)
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

    pub(crate) fn get_with(
        &self,
        options: &ReadOptions,
        space: Space,
        key: &[u8],
    ) -> Result<Option<Bytes>, RowError> {
        let position = RowKey::new(space, key);
        let _reading = self.envelope.reading();
        let sealed = self
            .db()
            .get_pinned_cf_opt(self.family(space), position.bytes(), options)
            .map_err(|error| self.row_error(space, key, error.as_ref()))?;
        sealed
            .map(|sealed| self.unseal(space, key, &sealed))
            .transpose()
    }

    pub(crate) fn scan_with(
        &self,
        mut options: ReadOptions,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), RowError> {
        let end = match to {
            Some(to) => RowKey::new(space, to).bytes().to_vec(),
            None => vec![space as u8 + 1],
        };
        options.set_iterate_upper_bound(end);
        let _reading = self.envelope.reading();
        let mut rows = self.db().raw_iterator_cf_opt(self.family(space), options);
        rows.seek(RowKey::new(space, from).bytes());
        while let Some((position, sealed)) = rows.item() {
            let key = position.get(1..).unwrap_or_default();
            let value = self.unseal(space, key, sealed)?;
            if visit(key, value).is_break() {
                return Ok(());
            }
            rows.next();
        }
        rows.status()
            .map_err(|error| self.row_error(space, from, error.as_ref()))
    }

    /// A property, summed over the families.
    fn property(&self, name: &rocksdb::properties::PropName) -> u64 {
        let of = |family| self.db().property_int_value_cf(family, name);
        let values = self.families().map(|family| of(family).ok().flatten());
        values.into_iter().flatten().sum()
    }
}

impl Rows for RocksEngine {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, RowError> {
        self.get_with(&self.read_options, space, key)
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), RowError> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        self.scan_with(options, space, from, to, visit)
    }
}

impl Engine for RocksEngine {
    fn write(&self, batches: &[Arc<RowBatch>]) -> Result<(), EngineError> {
        let rows = || batches.iter().flat_map(|batch| batch.iter());
        let bytes = rows().map(|(_, key, row)| {
            key.len() + row.map_or(0, Bytes::len) + SEAL_OVERHEAD_BYTES + WRITE_OVERHEAD_BYTES
        });
        let mut writes = WriteBatch::with_capacity_bytes(bytes.sum());
        let mut sealed = Vec::new();
        for (space, key, row) in rows() {
            let position = RowKey::new(space, key);
            let family = self.family(space);
            match row {
                Some(row) => {
                    sealed.clear();
                    self.envelope.seal_into(position.aad(), row, &mut sealed);
                    writes.put_cf(family, position.bytes(), &sealed);
                }
                None => writes.delete_cf(family, position.bytes()),
            }
        }
        self.db()
            .write_opt(writes, &self.write_options)
            .map_err(|error| failure(&self.path, &error))
    }

    fn flush(&self) -> Result<(), EngineError> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db()
            .flush_cfs_opt(&self.families(), &options)
            .map_err(|error| failure(&self.path, &error))
    }

    fn view(self: Arc<Self>) -> Result<EngineView, EngineError> {
        let view = SnapshotThread::start(self)?;
        Ok(EngineView::new(move |job| view.run(job)))
    }

    fn discard_when_dropped(&self) {
        self.discarded.store(true, Ordering::Release);
    }

    fn sizes(&self) -> StoreSizes {
        let memtables = self.property(properties::CUR_SIZE_ALL_MEM_TABLES);
        let files = self.property(properties::TOTAL_SST_FILES_SIZE);
        let living = self.property(properties::ESTIMATE_LIVE_DATA_SIZE);
        StoreSizes {
            total_bytes: memtables + files,
            in_use_bytes: memtables + living.min(files),
        }
    }

    fn defragment(&self) -> Result<(), EngineError> {
        self.flush()?;
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        for family in self.families() {
            self.db()
                .compact_range_cf_opt(family, None::<&[u8]>, None::<&[u8]>, &options);
        }
        Ok(())
    }

    fn memory(&self) -> EngineMemory {
        EngineMemory {
            memtable_bytes: self.property(properties::SIZE_ALL_MEM_TABLES),
            block_cache_bytes: self.block_cache.get_usage() as u64,
            table_index_bytes: self.property(properties::ESTIMATE_TABLE_READERS_MEM),
        }
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

/// Bytes that RocksDB's batch has beside a row, at most.
const WRITE_OVERHEAD_BYTES: usize = 16;

/// The key in RocksDB, and the position in the associated data: space ‖ key.
struct RowKey {
    bytes: [u8; POSITION_BYTES_MAX],
    length: usize,
}

impl RowKey {
    fn new(space: Space, key: &[u8]) -> Self {
        let length = 1 + key.len();
        assert!(
            length <= POSITION_BYTES_MAX,
            "a row key of {} bytes",
            key.len()
        );
        let mut bytes = [0; POSITION_BYTES_MAX];
        bytes[0] = space as u8;
        bytes[1..length].copy_from_slice(key);
        Self { bytes, length }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn aad(&self) -> Aad<'_> {
        Aad {
            kind: Kind::Row,
            position: self.bytes(),
        }
    }
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
