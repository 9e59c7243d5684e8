//! The port `Maintenance`: sizes, hashes, defragmentation and sealed snapshots of this
//! node's store. Everything long runs on blocking threads.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use nautilus_machine::{
    KvHash, Maintenance, MaintenanceError, RangeError, Revision, SnapshotStream, StoreSizes,
};
use tokio_util::io::ReaderStream;

use crate::node_core::Core;

/// Bytes of one piece of a snapshot.
const PIECE_BYTES: usize = 64 << 10;
/// Begins the name of a snapshot that is being given out.
pub(crate) const OUTGOING: &str = "outgoing-";

pub(crate) struct MaintenancePort(pub(crate) Arc<Core>);

fn failed(error: impl std::fmt::Display) -> MaintenanceError {
    MaintenanceError(error.to_string())
}

impl MaintenancePort {
    fn outgoing_path(&self) -> PathBuf {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = self.0.config.data_dir.join("snapshots");
        folder.join(format!("{OUTGOING}{number}.writing"))
    }

    async fn stream(&self) -> Result<SnapshotStream, MaintenanceError> {
        let (core, path) = (Arc::clone(&self.0), self.outgoing_path());
        let written = tokio::task::spawn_blocking(move || {
            let view = core.store().view().map_err(failed)?;
            let written = view
                .write_to(&path, Bytes::new())
                .map_err(failed)
                .and_then(|_| std::fs::File::open(&path).map_err(failed));
            // Its blocks live on until the last reader is done.
            let removed = std::fs::remove_file(&path);
            let file = written?;
            removed.map_err(failed)?;
            Ok(file)
        });
        let file: std::fs::File = written.await.map_err(failed)??;
        let file = tokio::fs::File::from_std(file);
        Ok(ReaderStream::with_capacity(file, PIECE_BYTES)
            .map(|piece| piece.map_err(failed))
            .boxed())
    }
}

impl Maintenance for MaintenancePort {
    fn sizes(&self) -> StoreSizes {
        self.0.store().sizes()
    }

    fn hash_kv(&self, revision: Option<Revision>) -> BoxFuture<'_, Result<KvHash, RangeError>> {
        let core = Arc::clone(&self.0);
        let hashed = tokio::task::spawn_blocking(move || core.store().hash_kv(revision));
        async move {
            let hashed = hashed.await;
            hashed.map_err(|error| RangeError::Storage(error.to_string()))?
        }
        .boxed()
    }

    fn defragment(&self) -> BoxFuture<'_, Result<(), MaintenanceError>> {
        let core = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || core.store().defragment());
        async move { done.await.map_err(failed)?.map_err(failed) }.boxed()
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<SnapshotStream, MaintenanceError>> {
        self.stream().boxed()
    }
}
