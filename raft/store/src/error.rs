//! What can go wrong in the store, with what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use nautilus_machine::{LogPosition, MachineError, RowError};

use crate::engine::EngineError;
use crate::envelope::EnvelopeError;
use crate::keys::KeyError;

/// What an operator does with a node whose disk lies.
pub(crate) const REJOIN: &str = "this node must not serve: keep a copy for inspection, remove its \
                                 data directory and let it join again from its healthy peers";

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or the file system refused.
    #[error("could not {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file or row is not what was written.
    #[error("corrupt store: {what}: {reason}; {REJOIN}")]
    Corrupt {
        /// The file or row.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process has it open.
    #[error("{} is in use by another process: stop it first", .path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A snapshot file is damaged, cut, or sealed by another quorum.
    #[error("snapshot {} is refused: {reason}; take or fetch it again", .path.display())]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An entry came twice or too early.
    #[error("entry {} was given after entry {} was applied", .position.index, .applied.index)]
    OutOfOrder {
        /// The entry given.
        position: LogPosition,
        /// The last one applied.
        applied: LogPosition,
    },
    /// The caller's notes or header are over the limit.
    #[error("{what} of {size_bytes} bytes is larger than the limit of {limit_bytes} bytes")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Bytes given.
        size_bytes: usize,
        /// Bytes allowed.
        limit_bytes: usize,
    },
    /// The storage engine failed (a full disk, an I/O error).
    #[error(
        "the storage engine failed: {0}; free the disk or replace it, then start the node anew"
    )]
    Engine(String),
    /// An earlier failure left memory and disk apart; only a restart mends that.
    #[error("the store stopped after an earlier failure ({0}): start the node anew")]
    Stopped(String),
    /// No random bytes.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    pub(crate) fn corrupt(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Corrupt {
            what: what.into(),
            reason: reason.into(),
        }
    }
}

impl From<EngineError> for StoreError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Row(error) => error.into(),
            EngineError::Corrupt { path, reason } => {
                Self::corrupt(path.display().to_string(), reason)
            }
            EngineError::Failed(reason) => Self::Engine(reason),
        }
    }
}

impl From<RowError> for StoreError {
    fn from(error: RowError) -> Self {
        Self::corrupt(format!("{:?} row {}", error.space, error.key), error.reason)
    }
}

impl From<MachineError> for StoreError {
    fn from(error: MachineError) -> Self {
        match error {
            MachineError::Row(error) => error.into(),
            MachineError::Rows(reason) => Self::corrupt("the rows as a whole", reason),
            MachineError::OutOfOrder { position, applied } => {
                Self::OutOfOrder { position, applied }
            }
        }
    }
}

impl From<EnvelopeError> for StoreError {
    fn from(error: EnvelopeError) -> Self {
        match error {
            EnvelopeError::Refused { .. } => Self::corrupt("a sealed record", error.to_string()),
            EnvelopeError::Table { path, reason } => {
                Self::corrupt(path.display().to_string(), reason)
            }
            EnvelopeError::InUse { path } => Self::InUse { path },
            EnvelopeError::Io {
                action,
                path,
                source,
            } => Self::Io {
                action,
                path,
                source,
            },
            EnvelopeError::Key(error) => Self::Key(error),
        }
    }
}
