//! Snapshot files: the newest one of this node, and one that is being received.
//!
//! A file is sealed by the store and whole before it gets its name. A file in use
//! by a transfer stays until the last user lets it go.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nautilus_machine::LogPosition;
use nautilus_store::{
    Generation, Outcome, Pace, Store, View, reseal_snapshot, snapshot_generation,
};
use parking_lot::Mutex;

use crate::types::SnapshotHeader;

const SUFFIX: &str = "snapshot";
const PARTIAL_SUFFIX: &str = "partial";
const WRITING_SUFFIX: &str = "writing";
/// Names are made by nodes; anything longer is no name.
const NAME_BYTES: usize = 128;

/// One sealed snapshot.
#[derive(Debug)]
pub(crate) struct SnapshotFile {
    /// Unique over all nodes and time: another file never continues this one's bytes.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) size_bytes: u64,
    pub(crate) header: SnapshotHeader,
    superseded: AtomicBool,
}

impl Drop for SnapshotFile {
    fn drop(&mut self) {
        if self.superseded.load(Ordering::Relaxed) {
            // A leftover is removed at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The folder of snapshots.
#[derive(Debug)]
pub(crate) struct Snapshots {
    dir: PathBuf,
    node_id: u64,
    current: Mutex<Option<Arc<SnapshotFile>>>,
    /// Of the files that are being written: the generation when each was begun.
    under_way: Mutex<Vec<Generation>>,
}

/// Held while a file is written, until it counts.
pub(crate) struct Writing<'a> {
    of: &'a Snapshots,
    generation: Generation,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut under_way = self.of.under_way.lock();
        if let Some(at) = under_way.iter().position(|one| *one == self.generation) {
            under_way.swap_remove(at);
        }
    }
}

impl Snapshots {
    /// Finds the newest whole snapshot, and removes the others. `applied` is how far
    /// the store is: a received one beyond it was not installed before the node ended,
    /// and the log not made ready for it; it is received again, with what is there.
    pub(crate) fn open(
        dir: PathBuf,
        node_id: u64,
        store: &Store,
        applied: Option<LogPosition>,
    ) -> std::io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let snapshots = Self {
            dir,
            node_id,
            current: Mutex::new(None),
            under_way: Mutex::default(),
        };
        for entry in std::fs::read_dir(&snapshots.dir)? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(SUFFIX) => {}
                Some(WRITING_SUFFIX) => {
                    std::fs::remove_file(&path)?;
                    continue;
                }
                _ => continue,
            }
            match load(&path, store) {
                Ok(file) if file.header.last > applied => {
                    std::fs::rename(&path, path.with_extension(PARTIAL_SUFFIX))?;
                }
                Ok(file) => snapshots.adopt(file),
                Err(reason) => {
                    tracing::warn!(file = %path.display(), %reason, "removing a snapshot that can't be used; a new one will be made");
                    std::fs::remove_file(&path)?;
                }
            }
        }
        Ok(snapshots)
    }

    pub(crate) fn current(&self) -> Option<Arc<SnapshotFile>> {
        self.current.lock().clone()
    }

    /// Writes this node's own state, as `view` has it at `header`. The file gets its
    /// name when it is whole and the store is durable that far: what the log forgets
    /// after this must not be lost with the unsynced store.
    pub(crate) fn write(
        &self,
        view: View,
        header: &SnapshotHeader,
        store: &Store,
    ) -> std::io::Result<SnapshotFile> {
        let _writing = self.begin(store);
        let path = self.new_path(header);
        let writing = path.with_extension(WRITING_SUFFIX);
        let header = postcard::to_stdvec(header).map_err(std::io::Error::other)?;
        let written = view
            .write_to(&writing, header.into())
            .and_then(|_| store.flush());
        if let Err(error) = written {
            // A full disk has other uses for it; a leftover is removed at the next start.
            let _ = std::fs::remove_file(&writing);
            return Err(std::io::Error::other(error));
        }
        std::fs::rename(&writing, &path)?;
        std::fs::File::open(&self.dir)?.sync_all()?;
        load(&path, store).map_err(std::io::Error::other)
    }

    /// Says that a file is being written: its generation is needed until it is there.
    fn begin(&self, store: &Store) -> Writing<'_> {
        let generation = store.keyring().current();
        self.under_way.lock().push(generation);
        Writing {
            of: self,
            generation,
        }
    }

    /// The oldest generation that a file here needs, at most `current`.
    pub(crate) fn oldest_generation(&self, current: Generation) -> std::io::Result<Generation> {
        let under_way = self.under_way.lock().iter().min().copied();
        let mut oldest = under_way.map_or(current, |generation| generation.min(current));
        for path in self.files()? {
            match snapshot_generation(&path) {
                Ok(generation) => oldest = oldest.min(generation.unwrap_or(current)),
                // It was superseded since.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(oldest)
    }

    /// Writes the current snapshot anew under the current generation, and removes what
    /// was received of older ones: it is received again. Blocks.
    pub(crate) fn reencrypt(&self, store: &Store, pace: &mut Pace<'_>) -> std::io::Result<Outcome> {
        let generation = store.keyring().current();
        let is_old = |path: &Path| {
            snapshot_generation(path).is_ok_and(|of| of.is_some_and(|of| of < generation))
        };
        if let Some(old) = self.current().filter(|file| is_old(&file.path)) {
            let _writing = self.begin(store);
            let path = self.new_path(&old.header);
            let writing = path.with_extension(WRITING_SUFFIX);
            let resealed = reseal_snapshot(&old.path, &writing, store.keyring(), pace);
            match resealed.map_err(std::io::Error::other) {
                Ok(Outcome::Done) => {}
                unfinished => {
                    // A leftover is removed at the next start.
                    let _ = std::fs::remove_file(&writing);
                    return unfinished;
                }
            }
            std::fs::rename(&writing, &path)?;
            std::fs::File::open(&self.dir)?.sync_all()?;
            self.adopt(load(&path, store).map_err(std::io::Error::other)?);
        }
        for path in self.files()? {
            let partial = path
                .extension()
                .is_some_and(|suffix| suffix == PARTIAL_SUFFIX);
            if partial && is_old(&path) {
                std::fs::remove_file(&path)?;
            }
        }
        let is_done = self.oldest_generation(generation)? == generation;
        Ok(if is_done {
            Outcome::Done
        } else {
            Outcome::Unfinished
        })
    }

    fn files(&self) -> std::io::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(&self.dir)?;
        entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect()
    }

    fn new_path(&self, header: &SnapshotHeader) -> PathBuf {
        let last = header.last.unwrap_or_default();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let nanos = now.map_or(0, |since| since.as_nanos());
        self.dir.join(format!(
            "{}-{}-{}-{nanos}.{SUFFIX}",
            self.node_id, last.term, last.index
        ))
    }

    /// Makes a whole file the current snapshot, if it is newer.
    pub(crate) fn adopt(&self, file: SnapshotFile) {
        let mut current = self.current.lock();
        let newer = current
            .as_ref()
            .is_none_or(|old| old.header.last <= file.header.last);
        let file = Arc::new(file);
        let superseded = if newer {
            current.replace(file)
        } else {
            Some(file)
        };
        if let Some(old) = superseded {
            old.superseded.store(true, Ordering::Relaxed);
        }
    }

    /// Where a snapshot called `name` is received; every other partial one is removed.
    pub(crate) fn partial_path(&self, name: &str) -> std::io::Result<PathBuf> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(allowed) {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                "not a snapshot's name",
            ));
        }
        let wanted = self.dir.join(format!("{name}.{PARTIAL_SUFFIX}"));
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let partial =
                path.extension().and_then(|extension| extension.to_str()) == Some(PARTIAL_SUFFIX);
            if partial && path != wanted {
                std::fs::remove_file(&path)?;
            }
        }
        Ok(wanted)
    }

    /// Gives a received file its name, once every byte of it is authenticated.
    pub(crate) fn complete(&self, partial: &Path, store: &Store) -> std::io::Result<SnapshotFile> {
        let refused = |reason: String| {
            // Whoever sent it has to send it again.
            let _ = std::fs::remove_file(partial);
            std::io::Error::new(std::io::ErrorKind::InvalidData, reason)
        };
        store
            .verify(partial)
            .map_err(|error| refused(error.to_string()))?;
        let path = partial.with_extension(SUFFIX);
        std::fs::File::open(partial)?.sync_all()?;
        std::fs::rename(partial, &path)?;
        std::fs::File::open(&self.dir)?.sync_all()?;
        load(&path, store)
            .map_err(|reason| std::io::Error::new(std::io::ErrorKind::InvalidData, reason))
    }

    /// Removes a received file that was not needed after all.
    pub(crate) fn forget_unless_current(&self, file: &SnapshotFile) {
        let needed = self
            .current()
            .is_some_and(|current| current.name == file.name);
        if !needed {
            // A leftover is found at the next start.
            let _ = std::fs::remove_file(&file.path);
        }
    }
}

/// Reads a whole file's header.
pub(crate) fn load(path: &Path, store: &Store) -> Result<SnapshotFile, String> {
    let header = store.read_header(path).map_err(|error| error.to_string())?;
    let header = postcard::from_bytes(&header).map_err(|error| error.to_string())?;
    let size_bytes = std::fs::metadata(path)
        .map_err(|error| error.to_string())?
        .len();
    let name = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default()
        .to_owned();
    Ok(SnapshotFile {
        name,
        path: path.to_path_buf(),
        size_bytes,
        header,
        superseded: AtomicBool::new(false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nautilus_store::{Keyring, RootKey};
    use std::os::unix::fs::FileExt;

    fn store() -> Store {
        Store::open_memory(&Keyring::new(RootKey::from_bytes([7; 32]))).unwrap()
    }

    /// A snapshot at index 9 in a file of this name.
    fn write(store: &Store, path: &Path) {
        let header = SnapshotHeader {
            last: Some(LogPosition { term: 2, index: 9 }),
            ..SnapshotHeader::default()
        };
        let header = postcard::to_stdvec(&header).unwrap();
        store.view().unwrap().write_to(path, header.into()).unwrap();
    }

    #[test]
    fn a_received_snapshot_that_is_corrupt_anywhere_is_refused_and_fetched_anew() {
        let (dir, store) = (tempfile::tempdir().unwrap(), store());
        let snapshots = Snapshots::open(dir.path().into(), 1, &store, None).unwrap();
        let partial = snapshots.partial_path("2-2-9-77").unwrap();
        write(&store, &partial);
        let length = std::fs::metadata(&partial).unwrap().len();
        let file = std::fs::File::options().write(true).open(&partial).unwrap();
        file.write_all_at(&[0xaa], length - 3).unwrap();
        let error = snapshots.complete(&partial, &store).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        assert!(!partial.exists() && snapshots.current().is_none());

        write(&store, &partial);
        assert_eq!(
            snapshots.complete(&partial, &store).unwrap().name,
            "2-2-9-77"
        );
    }

    #[test]
    fn a_snapshot_received_but_not_installed_before_a_crash_does_not_count() {
        let (dir, store) = (tempfile::tempdir().unwrap(), store());
        write(&store, &dir.path().join("2-2-9-77.snapshot"));
        let behind = Some(LogPosition { term: 1, index: 4 });
        let snapshots = Snapshots::open(dir.path().into(), 1, &store, behind).unwrap();
        assert!(snapshots.current().is_none());
        let partial = snapshots.partial_path("2-2-9-77").unwrap();
        assert!(partial.exists(), "its bytes need not be sent again");
    }

    #[test]
    fn a_snapshot_half_written_when_the_node_was_killed_does_not_count() {
        let (dir, store) = (tempfile::tempdir().unwrap(), store());
        let header = SnapshotHeader {
            last: Some(LogPosition { term: 2, index: 9 }),
            ..SnapshotHeader::default()
        };
        let snapshots = Snapshots::open(dir.path().into(), 1, &store, header.last).unwrap();
        let file = snapshots
            .write(store.view().unwrap(), &header, &store)
            .unwrap();
        let torn = file.path.with_extension(WRITING_SUFFIX);
        std::fs::rename(&file.path, &torn).unwrap();
        let snapshots = Snapshots::open(dir.path().into(), 1, &store, header.last).unwrap();
        assert!(snapshots.current().is_none() && !torn.exists());
    }

    #[test]
    fn a_rotation_seals_the_snapshot_anew_and_waits_for_who_uses_the_old_file() {
        let (dir, store) = (tempfile::tempdir().unwrap(), store());
        let header = SnapshotHeader {
            last: Some(LogPosition { term: 2, index: 9 }),
            ..SnapshotHeader::default()
        };
        let snapshots = Snapshots::open(dir.path().into(), 1, &store, header.last).unwrap();
        let view = store.view().unwrap();
        snapshots.adopt(snapshots.write(view, &header, &store).unwrap());
        write(&store, &snapshots.partial_path("2-2-9-77").unwrap());
        let sent = snapshots.current().unwrap();
        let begun = snapshots.begin(&store);

        let ring = store.keyring();
        ring.add(2, RootKey::from_bytes([8; 32])).unwrap();
        ring.advance(2).unwrap();
        let mut on = |_| std::ops::ControlFlow::Continue(());
        let mut round = || snapshots.reencrypt(&store, &mut on).unwrap();
        assert_eq!(round(), Outcome::Unfinished, "one is sent, one is written");
        assert_ne!(snapshots.current().unwrap().path, sent.path);
        drop(sent);
        assert_eq!(round(), Outcome::Unfinished, "one is written");
        drop(begun);
        assert_eq!(round(), Outcome::Done);
        ring.destroy_old();
        let current = snapshots.current().unwrap();
        assert_eq!(
            snapshots.files().unwrap(),
            std::slice::from_ref(&current.path)
        );
        assert_eq!(load(&current.path, &store).unwrap().header, header);
    }

    #[test]
    fn a_received_snapshot_that_was_not_needed_is_removed() {
        let (dir, store) = (tempfile::tempdir().unwrap(), store());
        let snapshots = Snapshots::open(dir.path().into(), 1, &store, None).unwrap();
        let partial = snapshots.partial_path("2-2-9-77").unwrap();
        write(&store, &partial);
        let file = snapshots.complete(&partial, &store).unwrap();
        snapshots.forget_unless_current(&file);
        assert!(!file.path.exists());
    }
}
