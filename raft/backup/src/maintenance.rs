//! A node's upkeep whose snapshots are archives, so that what `etcdctl snapshot save`
//! takes can be restored like any other: it is sealed to the quorum.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use nautilus_machine::port::SnapshotStream;
use nautilus_machine::{KvHash, Maintenance, MaintenanceError, RangeError, Revision, StoreSizes};

use crate::stream::{Audience, Source};

/// The upkeep of a store, with archives for snapshots.
pub struct ArchiveMaintenance {
    /// Whose sizes, hashes and space it is about.
    pub store: Arc<dyn Maintenance>,
    /// What archives are made from.
    pub source: Source,
}

impl Maintenance for ArchiveMaintenance {
    fn sizes(&self) -> StoreSizes {
        self.store.sizes()
    }

    fn hash_kv(&self, revision: Option<Revision>) -> BoxFuture<'_, Result<KvHash, RangeError>> {
        self.store.hash_kv(revision)
    }

    fn defragment(&self) -> BoxFuture<'_, Result<(), MaintenanceError>> {
        self.store.defragment()
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<SnapshotStream, MaintenanceError>> {
        Box::pin(async move {
            let failed = |error: crate::BackupError| MaintenanceError(error.to_string());
            let archive = self.source.archive(Audience::default()).await;
            let pieces = archive.map_err(failed)?.pieces;
            let stream = stream::unfold(pieces, move |mut pieces| async move {
                let piece = pieces.recv().await?;
                Some((piece.map_err(failed), pieces))
            });
            Ok(stream.boxed())
        })
    }
}
