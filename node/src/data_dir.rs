//! A node's data directory: who may use it.
//!
//! Two promises: one process at a time (a lock the kernel releases with the
//! process), and one node of one quorum for good (the identity file, written
//! before anything else; it holds no secret).

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

const LOCK: &str = "lock";
const IDENTITY: &str = "identity.json";
/// The form of the data directory this build writes.
const FORMAT: u32 = 1;

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// Another process has it.
    #[error(
        "data directory {} is in use by process {holder}: stop it (`kill {holder}`), or give this node its own data_dir",
        path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The holder's process id as it wrote it down, or `unknown`.
        holder: String,
    },
    /// It belongs to another quorum.
    #[error(
        "data directory {} belongs to quorum {found:?}, but this node is configured for quorum {configured:?}: correct cluster_id or data_dir",
        path.display()
    )]
    OtherQuorum {
        /// The directory.
        path: PathBuf,
        /// The quorum it belongs to.
        found: String,
        /// The quorum configured.
        configured: String,
    },
    /// It belongs to another node.
    #[error(
        "data directory {} belongs to node {found}, but this node is configured as node {configured}: correct node_id or data_dir",
        path.display()
    )]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// The node it belongs to.
        found: u64,
        /// The node configured.
        configured: u64,
    },
    /// The identity file can't be understood.
    #[error("{}: {reason}; restore the file, or remove the whole data directory and join again", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Whose directory it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    format: u32,
    cluster_id: String,
    node_id: u64,
}

/// A locked data directory; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if absent, locks it and checks or writes its identity.
    pub(crate) fn open(path: &Path, cluster_id: &str, node_id: u64) -> Result<Self, DataDirError> {
        let at = |file: &Path| {
            let path = file.to_owned();
            move |source| DataDirError::Io { path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(at(path))?;
        let lock = Self::lock(path)?;
        let directory = Self {
            path: path.to_owned(),
            _lock: lock,
        };
        let wanted = Identity {
            format: FORMAT,
            cluster_id: cluster_id.to_owned(),
            node_id,
        };
        let file = path.join(IDENTITY);
        match std::fs::read(&file) {
            Ok(text) => directory.check(&file, &text, &wanted)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let text = serde_json::to_vec(&wanted).map_err(|error| DataDirError::Identity {
                    path: file.clone(),
                    reason: error.to_string(),
                })?;
                directory.write(IDENTITY, &text).map_err(at(&file))?;
            }
            Err(error) => return Err(at(&file)(error)),
        }
        Ok(directory)
    }

    fn lock(path: &Path) -> Result<File, DataDirError> {
        let file = path.join(LOCK);
        let io = |source| DataDirError::Io {
            path: file.clone(),
            source,
        };
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&file)
            .map_err(io)?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            lock.read_to_string(&mut holder).map_err(io)?;
            let holder = match holder.trim() {
                "" => "unknown".to_owned(),
                pid => pid.to_owned(),
            };
            return Err(DataDirError::Locked {
                path: path.to_owned(),
                holder,
            });
        }
        lock.set_len(0).map_err(io)?;
        lock.rewind().map_err(io)?;
        writeln!(lock, "{}", std::process::id()).map_err(io)?;
        Ok(lock)
    }

    fn check(&self, file: &Path, text: &[u8], wanted: &Identity) -> Result<(), DataDirError> {
        let refused = |reason: String| DataDirError::Identity {
            path: file.to_owned(),
            reason,
        };
        let found: Identity =
            serde_json::from_slice(text).map_err(|error| refused(error.to_string()))?;
        if found.format != FORMAT {
            return Err(refused(format!(
                "format {} is not the format {FORMAT} of this build",
                found.format
            )));
        }
        if found.cluster_id != wanted.cluster_id {
            return Err(DataDirError::OtherQuorum {
                path: self.path.clone(),
                found: found.cluster_id,
                configured: wanted.cluster_id.clone(),
            });
        }
        if found.node_id != wanted.node_id {
            return Err(DataDirError::OtherNode {
                path: self.path.clone(),
                found: found.node_id,
                configured: wanted.node_id,
            });
        }
        Ok(())
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A file of it, if it is there.
    pub(crate) fn read(&self, name: &str) -> std::io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.path.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a file of it whole and durably: after a crash it is the old one or the new.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        write_durably(&self.path.join(name), bytes, 0o600)
    }

    /// Removes a file of it, durably.
    pub(crate) fn remove(&self, name: &str) -> std::io::Result<()> {
        std::fs::remove_file(self.path.join(name))?;
        File::open(&self.path)?.sync_all()
    }
}

/// Writes a file beside its place, syncs it, and moves it there.
pub(crate) fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(mode)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_use_names_its_holder() {
        let dir = tempfile::tempdir().expect("a folder");
        let _first = DataDir::open(dir.path(), "a", 1).expect("free");
        let second = DataDir::open(dir.path(), "a", 1)
            .expect_err("in use")
            .to_string();
        assert!(
            second.contains(&format!("in use by process {}", std::process::id())),
            "{second}"
        );
    }

    #[test]
    fn a_directory_of_another_quorum_is_refused_by_both_names() {
        let dir = tempfile::tempdir().expect("a folder");
        drop(DataDir::open(dir.path(), "mine", 1).expect("free"));
        let error = DataDir::open(dir.path(), "theirs", 1).expect_err("another quorum");
        let text = error.to_string();
        assert!(
            text.contains("\"mine\"") && text.contains("\"theirs\""),
            "{text}"
        );
    }

    #[test]
    fn a_directory_of_another_node_is_refused_by_both_ids() {
        let dir = tempfile::tempdir().expect("a folder");
        drop(DataDir::open(dir.path(), "mine", 1).expect("free"));
        let text = DataDir::open(dir.path(), "mine", 2)
            .expect_err("another node")
            .to_string();
        assert!(text.contains("node 1") && text.contains("node 2"), "{text}");
    }

    #[test]
    fn a_directory_is_opened_again_by_its_own_node() {
        let dir = tempfile::tempdir().expect("a folder");
        drop(DataDir::open(dir.path(), "mine", 1).expect("free"));
        DataDir::open(dir.path(), "mine", 1).expect("its own");
    }
}
