//! Receiving a snapshot: chunks in order, appended to a partial file that survives
//! a broken connection, named only when it is whole and authenticated.

use std::sync::Arc;

use tokio::fs::OpenOptions;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tonic::{Status, Streaming};

use crate::config::SNAPSHOT_STALL;
use crate::service::malformed;
use crate::snapshots::{SnapshotFile, Snapshots};
use crate::state_machine::Machinery;
use crate::types::Vote;
use crate::wire::{self, Malformed, v1};

/// Bytes of the snapshot called `name` that are here.
pub(crate) async fn progress(snapshots: &Snapshots, name: &str) -> std::io::Result<u64> {
    let path = snapshots.partial_path(name)?;
    match tokio::fs::metadata(&path).await {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Takes chunks until the file is whole.
pub(crate) async fn receive(
    machinery: &Arc<Machinery>,
    mut chunks: Streaming<v1::SnapshotChunk>,
) -> Result<(Vote, SnapshotFile), Status> {
    let failed = |error: std::io::Error| Status::internal(format!("receiving a snapshot: {error}"));
    let first = next(&mut chunks)
        .await?
        .ok_or_else(|| malformed(&Malformed("no chunk".into())))?;
    let start = first
        .start
        .ok_or_else(|| malformed(&Malformed("no start".into())))?;
    let vote = wire::from_vote(start.vote).map_err(|error| malformed(&error))?;
    let partial = machinery
        .snapshots
        .partial_path(&start.name)
        .map_err(failed)?;
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(&partial)
        .await
        .map_err(failed)?;
    let mut offset = file.seek(std::io::SeekFrom::End(0)).await.map_err(failed)?;
    if first.offset != offset {
        file.set_len(0).await.map_err(failed)?;
        return Err(Status::aborted(format!(
            "chunk at {} where {offset} is wanted",
            first.offset
        )));
    }
    while offset < start.size_bytes {
        let Some(chunk) = next(&mut chunks).await? else {
            file.flush().await.map_err(failed)?;
            return Err(Status::aborted(format!(
                "the snapshot ended at {offset} of {}",
                start.size_bytes
            )));
        };
        if chunk.offset != offset {
            return Err(Status::aborted(format!(
                "chunk at {} where {offset} is wanted",
                chunk.offset
            )));
        }
        file.write_all(&chunk.data).await.map_err(failed)?;
        offset += chunk.data.len() as u64;
    }
    file.flush().await.map_err(failed)?;
    drop(file);
    let machinery = Arc::clone(machinery);
    let complete = move || machinery.snapshots.complete(&partial, &machinery.store);
    let completed = tokio::task::spawn_blocking(complete).await;
    let file = completed
        .map_err(|error| Status::internal(error.to_string()))?
        .map_err(|error| match error.kind() {
            // The sender looks whether its own file is the reason.
            std::io::ErrorKind::InvalidData => Status::data_loss(error.to_string()),
            _ => failed(error),
        })?;
    Ok((vote, file))
}

async fn next(
    chunks: &mut Streaming<v1::SnapshotChunk>,
) -> Result<Option<v1::SnapshotChunk>, Status> {
    let next = tokio::time::timeout(SNAPSHOT_STALL, chunks.message()).await;
    next.map_err(|_| Status::aborted("the snapshot's transfer stood still"))?
}
