//! The seam between the store and what keeps its rows.
//!
//! Two engines: RocksDB on disk, and memory for tests and for nodes without a disk.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use nautilus_machine::{MemoryRows, RowBatch, RowError, Rows, Space, StoreSizes};
use parking_lot::RwLock;

/// Why an engine failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// A row does not authenticate or cannot be read.
    #[error(transparent)]
    Row(#[from] RowError),
    /// A file is damaged.
    #[error("{}: {reason}", .path.display())]
    Corrupt {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The engine itself failed.
    #[error("{0}")]
    Failed(String),
}

/// Keeps rows. One writer; any number of readers.
pub trait Engine: Rows + 'static {
    /// Makes the writes of batches, in their order, all or none. Not durable before
    /// [`Engine::flush`].
    fn write(&self, batches: &[Arc<RowBatch>]) -> Result<(), EngineError>;

    /// Returns when every write made before is durable.
    fn flush(&self) -> Result<(), EngineError>;

    /// The rows as they are now, whatever is written later. Cheap.
    fn view(self: Arc<Self>) -> Result<EngineView, EngineError>;

    /// Removes what the engine has on disk once nobody uses it any more.
    fn discard_when_dropped(&self);

    /// Bytes on disk, and bytes of them that hold living rows.
    fn sizes(&self) -> StoreSizes;

    /// Gives the space of deleted rows back to the file system. Blocks for as long as
    /// all rows take to be copied; reads and writes go on.
    fn defragment(&self) -> Result<(), EngineError>;

    /// Bytes in memory.
    fn memory(&self) -> EngineMemory;
}

/// What an engine holds in memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineMemory {
    /// Rows not yet on disk.
    pub memtable_bytes: u64,
    /// Blocks of files read before.
    pub block_cache_bytes: u64,
    /// The files' own indexes.
    pub table_index_bytes: u64,
}

/// What is done with a view's rows.
pub type ViewJob = Box<dyn FnOnce(&dyn Rows) + Send>;

/// A consistent view of an engine, to be read once.
pub struct EngineView {
    run: Box<dyn FnOnce(ViewJob) + Send>,
}

impl EngineView {
    /// A view that is read by `run`, which returns when its job is done.
    pub fn new(run: impl FnOnce(ViewJob) + Send + 'static) -> Self {
        Self { run: Box::new(run) }
    }

    /// Reads the view; blocks until `read` is done.
    pub fn read<T: Send + 'static>(
        self,
        read: impl FnOnce(&dyn Rows) -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        (self.run)(Box::new(move |rows| {
            // The receiver is below: it cannot be gone.
            let _ = sender.send(read(rows));
        }));
        receiver
            .recv()
            .map_err(|_| EngineError::Failed("the reader of a view died".to_owned()))
    }
}

/// Rows in memory, in clear: the memory is inside the enclave.
#[derive(Default)]
pub struct MemoryEngine {
    rows: RwLock<Arc<MemoryRows>>,
}

impl Rows for MemoryEngine {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, RowError> {
        self.rows.read().get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), RowError> {
        let rows = Arc::clone(&self.rows.read());
        rows.scan(space, from, to, visit)
    }
}

impl Engine for MemoryEngine {
    fn write(&self, batches: &[Arc<RowBatch>]) -> Result<(), EngineError> {
        let mut rows = self.rows.write();
        let rows = Arc::make_mut(&mut rows);
        for batch in batches {
            rows.write(RowBatch::clone(batch));
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn view(self: Arc<Self>) -> Result<EngineView, EngineError> {
        let rows = Arc::clone(&self.rows.read());
        Ok(EngineView::new(move |job| job(&*rows)))
    }

    fn discard_when_dropped(&self) {}

    fn sizes(&self) -> StoreSizes {
        StoreSizes::default()
    }

    fn defragment(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn memory(&self) -> EngineMemory {
        EngineMemory::default()
    }
}
