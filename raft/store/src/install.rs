//! Making engines: the first, empty one, and those made from snapshots.
//!
//! An engine is made beside the one that counts: rows, notes, flush, mark; then it is
//! read back whole, so that its digest is proved before it counts; then `CURRENT` is
//! switched by a rename, and only then memory. A crash before the rename leaves the
//! old store, a crash after it the new one; what is left over is swept at the next
//! opening.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use nautilus_machine::{Machine, RowBatch};

use crate::directory::Directory;
use crate::engine::{Engine, MemoryEngine};
use crate::error::StoreError;
use crate::keys::Keyring;
use crate::layers::LayeredRows;
use crate::notes::Notes;
use crate::snapshot::SnapshotReader;
use crate::store::{DiskEngine, Place, State, Store, StoreOptions};

/// Bytes of rows written in one batch while an engine is made.
const BATCH_BYTES: usize = 4 << 20;
const FIRST_ENGINE: u64 = 1;

/// Makes the first engine of a directory.
pub(crate) fn first_engine(
    directory: &Directory,
    keyring: &Keyring,
    options: &StoreOptions,
) -> Result<State, StoreError> {
    let engine = directory.create_engine(FIRST_ENGINE)?;
    let disk = DiskEngine {
        number: FIRST_ENGINE,
        engine: Arc::clone(&engine),
    };
    let rows = Arc::new(LayeredRows::new(engine, options.row_cache_bytes));
    let machine = Machine::new(keyring.digest_key());
    let state = seed(rows, Some(disk.clone()), machine)?;
    disk.engine.flush()?;
    directory.mark_flushed(FIRST_ENGINE, &disk.engine, state.notes.sequence)?;
    directory.point_to(FIRST_ENGINE)?;
    Ok(state)
}

/// Writes an empty machine's rows.
pub(crate) fn seed(
    rows: Arc<LayeredRows>,
    disk: Option<DiskEngine>,
    machine: Machine,
) -> Result<State, StoreError> {
    let mut batch = RowBatch::default();
    machine.write_counters(&mut batch)?;
    let mut notes = Notes::default();
    notes.put_into(&mut batch)?;
    rows.engine().write(&[Arc::new(batch)])?;
    Ok(State::new(machine, rows, disk, notes))
}

impl Store {
    /// Reads a snapshot file whole: every frame authenticates, and none is missing.
    pub fn verify(&self, path: &Path) -> Result<(), StoreError> {
        let read = SnapshotReader::open(path, &self.keyring)?.each_row(&mut |_, _, _| Ok(()));
        read.map(|_| ())
    }

    /// Replaces the whole state by that of a snapshot file, and all notes by `notes`.
    /// The file is authenticated as it is copied, and the copy counts only when it was
    /// whole and its digest is right. On an error the old state stays. Blocks readers
    /// only while memory is switched.
    pub fn install(&self, path: &Path, notes: &[(&str, Bytes)]) -> Result<(), StoreError> {
        let _writer = self.writer();
        let _no_flush = self.no_flush();
        let (next, disk) = self.next_engine()?;
        let state = match self.build(path, notes, &next, disk.as_ref()) {
            Ok(state) => state,
            Err(error) => {
                next.discard_when_dropped();
                return Err(error);
            }
        };
        let mut current = self.state.write();
        if let (Place::Directory(directory), Some(disk)) = (&self.place, &disk) {
            // Which of the two counts is not known after a failure: both stay, and
            // nothing is served before a restart has found out.
            directory
                .point_to(disk.number)
                .map_err(|error| current.stop(error))?;
        }
        let old = std::mem::replace(&mut *current, state);
        drop(current);
        old.rows.engine().discard_when_dropped();
        Ok(())
    }

    fn next_engine(&self) -> Result<(Arc<dyn Engine>, Option<DiskEngine>), StoreError> {
        let Place::Directory(directory) = &self.place else {
            return Ok((Arc::new(MemoryEngine::default()), None));
        };
        let number = self
            .state
            .read()
            .disk
            .as_ref()
            .map_or(0, |disk| disk.number)
            + 1;
        let engine = directory.create_engine(number)?;
        Ok((
            Arc::clone(&engine) as Arc<dyn Engine>,
            Some(DiskEngine { number, engine }),
        ))
    }

    fn build(
        &self,
        path: &Path,
        notes: &[(&str, Bytes)],
        engine: &Arc<dyn Engine>,
        disk: Option<&DiskEngine>,
    ) -> Result<State, StoreError> {
        copy_rows(path, &self.keyring, &**engine, notes)?;
        engine.flush()?;
        let rows = LayeredRows::new(Arc::clone(engine), self.options.row_cache_bytes);
        let state = State::load(Arc::new(rows), disk.cloned(), &self.keyring);
        let state = state.map_err(|error| StoreError::Snapshot {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        if let (Place::Directory(directory), Some(disk)) = (&self.place, disk) {
            directory.mark_flushed(disk.number, &disk.engine, state.notes.sequence)?;
        }
        Ok(state)
    }
}

/// Copies a snapshot's rows into an engine; the notes go with the machine's own row,
/// which comes last.
fn copy_rows(
    path: &Path,
    keyring: &Keyring,
    engine: &dyn Engine,
    notes: &[(&str, Bytes)],
) -> Result<(), StoreError> {
    let mut batch = RowBatch::default();
    let mut batch_bytes = 0;
    SnapshotReader::open(path, keyring)?.each_row(&mut |space, key, value| {
        batch_bytes += key.len() + value.len();
        batch.put(space, key, value);
        if space != nautilus_machine::Space::Meta && batch_bytes >= BATCH_BYTES {
            batch_bytes = 0;
            engine.write(&[Arc::new(std::mem::take(&mut batch))])?;
        }
        Ok(())
    })?;
    let mut row = Notes::default().with(notes)?;
    row.put_into(&mut batch)?;
    engine.write(&[Arc::new(batch)])?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::keys::RootKey;
    use crate::rocks_options::RocksMemory;

    #[test]
    fn a_crash_before_the_first_engine_counts_leaves_an_empty_store() {
        let home = TempDir::new().unwrap();
        let keyring = Keyring::new(RootKey::from_bytes([7; 32]));
        let (directory, current) =
            Directory::open(home.path(), &keyring, RocksMemory::default()).unwrap();
        assert_eq!(current, None);
        // Made, but CURRENT was not switched to it.
        drop(directory.create_engine(FIRST_ENGINE).unwrap());
        drop(directory);
        let store = Store::open(home.path(), &keyring).unwrap();
        assert_eq!((store.revision(), store.applied()), (1, None));
        drop(store);
        assert!(
            Store::open(home.path(), &keyring).is_ok(),
            "and it counts from now on"
        );
    }

    #[test]
    #[should_panic(expected = "two writers on one store")]
    fn a_second_writer_is_a_defect() {
        let keyring = Keyring::new(RootKey::from_bytes([7; 32]));
        let store = Store::open_memory(&keyring).unwrap();
        let _first = store.writer();
        let _ = store.put_notes(&[]);
    }
}
