//! The index's checkpoint: a sealed file beside the engine, so that a start reads the
//! rows written since, and not all of them.
//!
//! It is a help, never a need: if it is missing, damaged, or too old to be of use, all
//! rows are read, and the log says why.
//!
//! Invariants
//! - The rows it was taken with are durable before it gets its name.
//! - It opens only with the engine it was written for (its envelope), and only as a
//!   whole; the machine checks that the rows are those that go with it.

use std::path::PathBuf;
use std::time::Instant;

use nautilus_machine::{CheckpointReader, IndexCheckpoint, Machine, Revision, Rows};

use crate::error::StoreError;
use crate::keys::Keyring;
use crate::pieces;
use crate::store::DiskEngine;

const INDEX_FILE: &str = "index";
/// A new checkpoint is written when a start would have to read more than one row for
/// so many keys: that keeps its price per write constant.
const KEYS_PER_ROW_READ: u64 = 8;

/// The checkpoint that was written last by this process.
#[derive(Default)]
pub(crate) struct IndexNote {
    written: Option<Written>,
}

struct Written {
    engine: u64,
    revision: Revision,
}

impl IndexNote {
    /// Whether a start would gain from a new checkpoint.
    pub(crate) fn is_old(&self, disk: &DiskEngine, machine: &Machine) -> bool {
        if machine.is_loading() {
            return false;
        }
        let Some(written) = &self.written else {
            return true;
        };
        let since = machine.revision().saturating_sub(written.revision);
        written.engine != disk.number
            || machine.compacted_revision() > written.revision
            || since * KEYS_PER_ROW_READ > machine.index_keys()
    }

    /// Removes the checkpoint that is there, so that the next flush writes another.
    pub(crate) fn forget(&mut self, disk: &DiskEngine) -> Result<(), StoreError> {
        self.written = None;
        let path = path(disk);
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(StoreError::io("remove", &path)(error)),
        }
    }

    /// Writes a checkpoint, whose rows are durable.
    pub(crate) fn write(
        &mut self,
        disk: &DiskEngine,
        checkpoint: &IndexCheckpoint,
    ) -> Result<(), StoreError> {
        let started = Instant::now();
        let path = path(disk);
        let written = pieces::write(&path, disk.engine.envelope(), checkpoint.pieces());
        let size_bytes = written.map_err(StoreError::io("write", &path))?;
        self.written = Some(Written {
            engine: disk.number,
            revision: checkpoint.revision(),
        });
        tracing::debug!(
            revision = checkpoint.revision(),
            size_bytes,
            took = ?started.elapsed(),
            "wrote the index's checkpoint"
        );
        Ok(())
    }
}

/// Rebuilds the machine: from the checkpoint, if there is one of use, or from all rows.
pub(crate) fn restore(
    rows: &dyn Rows,
    disk: Option<&DiskEngine>,
    keyring: &Keyring,
) -> Result<Machine, StoreError> {
    if let Some(disk) = disk {
        match from_checkpoint(rows, disk, keyring) {
            Ok(Some(machine)) => return Ok(machine),
            Ok(None) => tracing::info!("there is no checkpoint of the index: reading all rows"),
            Err(reason) => tracing::warn!(
                file = %path(disk).display(),
                reason,
                "the index's checkpoint is of no use: reading all rows"
            ),
        }
    }
    Ok(Machine::restore(keyring.digest_key(), rows)?)
}

fn from_checkpoint(
    rows: &dyn Rows,
    disk: &DiskEngine,
    keyring: &Keyring,
) -> Result<Option<Machine>, String> {
    let path = path(disk);
    if !path.exists() {
        return Ok(None);
    }
    let mut reader = CheckpointReader::default();
    pieces::read(&path, disk.engine.envelope(), &mut |piece| {
        reader.piece(piece).map_err(|error| error.to_string())
    })?;
    let machine = reader.finish(keyring.digest_key(), rows);
    machine.map(Some).map_err(|error| error.to_string())
}

fn path(disk: &DiskEngine) -> PathBuf {
    disk.engine.home().join(INDEX_FILE)
}
