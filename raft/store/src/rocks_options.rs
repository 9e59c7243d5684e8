//! How RocksDB is set up, and why.
//!
//! - Two column families: versions, whose keys only grow, and all the rest. So the
//!   files of versions do not overlap, a point read looks into one file by its range
//!   (no bloom filters needed), and a compaction of what was not deleted is a move.
//!   Flushes are atomic over both.
//! - No write-ahead log, no compression (ciphertext has none to give), no concurrent
//!   writers of a memtable: there is one writer, whose inserts are in order.
//! - Files are synced as they are written, a little at a time, so that a flush does
//!   not stand in the way of the Raft log's next sync.

use rocksdb::{BlockBasedOptions, Cache, ColumnFamilyDescriptor, LogLevel, Options, WriteOptions};

use crate::rocks::Presence;

/// The column family of versions.
pub(crate) const VERSIONS: &str = "default";
/// The column family of everything else.
pub(crate) const STATE: &str = "state";

/// Memtables of a family: one that is written, the others on their way to disk.
const MEMTABLES_MAX: i32 = 3;
/// Bytes of the memtable of versions. A flush is one file that nothing is merged into, and
/// so small ones cost little; larger ones stay in memory however few rows there are.
const VERSIONS_MEMTABLE_BYTES: usize = 8 << 20;
/// Bytes of the state's memtable: it is small and overwritten all the time.
const STATE_MEMTABLE_BYTES: usize = 4 << 20;
/// Bytes of sealed blocks: the rows read last are kept in clear, and what the kernel keeps
/// of the files is not ours.
const BLOCK_CACHE_BYTES: usize = 4 << 20;
/// Bytes of a block: one read of a cold row.
const BLOCK_BYTES: usize = 8 << 10;
/// Bytes of one file.
const FILE_BYTES: u64 = 64 << 20;
/// Bytes of the first level below the flushed files.
const LEVEL_BYTES: u64 = 512 << 20;
/// Threads for flushes and compactions.
const BACKGROUND_THREADS: i32 = 2;
/// Bytes written before the disk is asked to take them.
const SYNC_EVERY_BYTES: u64 = 1 << 20;
/// Bytes of RocksDB's own information log, which is quiet.
const INFO_LOG_BYTES: usize = 1 << 20;

/// Bytes that an engine may keep in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RocksMemory {
    /// Rows before they go to disk by themselves; up to three times as much while
    /// the disk is behind.
    pub memtable_bytes: usize,
    /// Sealed blocks of files.
    pub block_cache_bytes: usize,
}

impl Default for RocksMemory {
    fn default() -> Self {
        Self {
            memtable_bytes: VERSIONS_MEMTABLE_BYTES,
            block_cache_bytes: BLOCK_CACHE_BYTES,
        }
    }
}

pub(crate) fn database(presence: Presence) -> Options {
    let mut options = Options::default();
    let create = presence == Presence::Create;
    options.create_if_missing(create);
    options.create_missing_column_families(create);
    options.set_error_if_exists(create);
    options.set_paranoid_checks(true);
    options.set_atomic_flush(true);
    options.set_allow_concurrent_memtable_write(false);
    options.set_max_background_jobs(BACKGROUND_THREADS);
    options.set_bytes_per_sync(SYNC_EVERY_BYTES);
    options.set_skip_stats_update_on_db_open(true);
    options.set_log_level(LogLevel::Fatal);
    options.set_keep_log_file_num(1);
    options.set_max_log_file_size(INFO_LOG_BYTES);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

pub(crate) fn families(memory: RocksMemory) -> (Vec<ColumnFamilyDescriptor>, Cache) {
    let cache = Cache::new_lru_cache(memory.block_cache_bytes);
    let versions = family(&cache, memory.memtable_bytes);
    let state = family(&cache, STATE_MEMTABLE_BYTES);
    let families = vec![
        ColumnFamilyDescriptor::new(VERSIONS, versions),
        ColumnFamilyDescriptor::new(STATE, state),
    ];
    (families, cache)
}

fn family(cache: &Cache, memtable_bytes: usize) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_block_size(BLOCK_BYTES);
    blocks.set_format_version(6);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(rocksdb::DBCompressionType::None);
    options.set_write_buffer_size(memtable_bytes);
    options.set_max_write_buffer_number(MEMTABLES_MAX);
    options.set_target_file_size_base(FILE_BYTES);
    options.set_max_bytes_for_level_base(LEVEL_BYTES);
    options
}

pub(crate) fn write() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}
