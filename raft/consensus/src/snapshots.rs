//! Snapshot files: the newest one of this node, and one that is being received.
//!
//! A file is sealed by the store and whole before it gets its name. A file in use
//! by a transfer stays until the last user lets it go.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nautilus_store::Store;
use parking_lot::Mutex;

use crate::types::SnapshotHeader;

const SUFFIX: &str = "snapshot";
const PARTIAL_SUFFIX: &str = "partial";
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
}

impl Snapshots {
    /// Finds the newest whole snapshot, and removes the others.
    pub(crate) fn open(dir: PathBuf, node_id: u64, store: &Store) -> std::io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let snapshots = Self {
            dir,
            node_id,
            current: Mutex::new(None),
        };
        for entry in std::fs::read_dir(&snapshots.dir)? {
            let path = entry?.path();
            if path.extension().and_then(|extension| extension.to_str()) != Some(SUFFIX) {
                continue;
            }
            match load(&path, store) {
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

    /// Where a snapshot of this node's own state at `header` is to be written.
    pub(crate) fn new_path(&self, header: &SnapshotHeader) -> PathBuf {
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

    /// Gives a received, whole file its name.
    pub(crate) fn complete(&self, partial: &Path, store: &Store) -> std::io::Result<SnapshotFile> {
        let path = partial.with_extension(SUFFIX);
        std::fs::File::open(partial)?.sync_all()?;
        std::fs::rename(partial, &path)?;
        std::fs::File::open(&self.dir)?.sync_all()?;
        load(&path, store).map_err(|reason| {
            // Whoever sent it has to send another one.
            let _ = std::fs::remove_file(&path);
            std::io::Error::new(std::io::ErrorKind::InvalidData, reason)
        })
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
