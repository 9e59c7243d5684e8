//! A consistent view of a RocksDB engine.
//!
//! Invariant: a view shows the rows of the moment it was taken, however long it lives.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use nautilus_machine::{RowError, Rows, Space};
use rocksdb::ReadOptions;

use crate::background::give_way;
use crate::engine::{EngineError, ViewJob};
use crate::rocks::{RocksEngine, SCAN_AHEAD_BYTES};

/// A RocksDB snapshot borrows its database; a thread that owns the engine keeps both
/// until the view is read or dropped.
pub(crate) struct SnapshotThread {
    jobs: Option<SyncSender<ViewJob>>,
    thread: Option<JoinHandle<()>>,
}

impl SnapshotThread {
    pub(crate) fn start(engine: Arc<RocksEngine>) -> Result<Self, EngineError> {
        let (jobs, work) = sync_channel::<ViewJob>(1);
        let (ready, taken) = sync_channel(1);
        let thread = thread::Builder::new()
            .name("store-view".to_owned())
            .spawn(move || {
                // Before the snapshot: a data key that its rows need is not retired.
                let _reading = engine.envelope().reading();
                let rows = SnapshotRows {
                    engine: &engine,
                    snapshot: engine.db().snapshot(),
                };
                // The starter waits below: it cannot be gone.
                let _ = ready.send(());
                give_way();
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

    pub(crate) fn run(self, job: ViewJob) {
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
        options.set_readahead_size(SCAN_AHEAD_BYTES);
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
