//! The write-ahead log: encrypted, segmented, and the only thing this node syncs.
//!
//! Knows nothing of Raft's rules and nothing of openraft: it keeps entries by
//! index, the newest vote, the purge and commit marks, and gives them back after
//! a restart exactly as they were acknowledged.
//!
//! Invariants
//! - One thread writes. Everything waiting is sealed into one frame, written
//!   once and synced once; a caller hears of success only after that sync.
//! - At most one write is ever unsynced, and it is the last one: one frame, or two
//!   where a segment begins. So an invalid frame that is followed by a valid one, or
//!   that the watermark counts as synced, is corruption and never cut away; an
//!   invalid frame past the watermark is a torn write and is.
//! - A segment goes only when the record that explains its absence is durable.
//! - A frame opens only in its own segment, at its own number: neither can be
//!   swapped, repeated or left out.
//! - After the first failed write or sync nothing is acknowledged any more.
//! - Memory for entries is bounded; older entries are read back from disk.
//! - Every segment has a data key of its own (the one that was written to at a start has
//!   several); a key is destroyed when no frame on the disk is sealed under it, so that
//!   a purged entry is gone even from a copy of its segment.

mod flusher;
mod frame;
mod index;
mod record;
mod recovery;
mod reencryption;
mod segment;
mod wal;
mod watermark;

#[cfg(test)]
mod model_test;
#[cfg(test)]
mod ordering_test;
#[cfg(test)]
mod reencryption_test;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub(crate) use record::{EntryKind, HardVote, RawEntry};
pub(crate) use wal::{Wal, WalOptions, WalReader, WriteFault};

/// Why the log can't be opened, read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LogError {
    /// The file system failed. Nothing after it is acknowledged.
    #[error("log: {action} {}: {reason}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// Bytes that had been synced are no longer what was written.
    #[error(
        "log: {} is corrupt at byte {offset}: {reason}. The log can't be trusted any more: remove this member from the quorum, wipe its data directory and let it join again",
        path.display()
    )]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The data keys can't be read or written.
    #[error("log: data keys: {0}")]
    Keys(String),
    /// The log had failed before, or is closed.
    #[error("log: stopped: {0}")]
    Stopped(String),
}

impl LogError {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
        error: &std::io::Error,
    ) -> Self {
        Self::Io {
            action,
            path: path.into(),
            reason: error.to_string(),
        }
    }

    pub(crate) fn corrupt(
        path: impl Into<PathBuf>,
        offset: u64,
        reason: impl Into<String>,
    ) -> Self {
        Self::Corrupt {
            path: path.into(),
            offset,
            reason: reason.into(),
        }
    }
}

impl From<LogError> for std::io::Error {
    fn from(error: LogError) -> Self {
        let kind = match &error {
            LogError::Corrupt { .. } => std::io::ErrorKind::InvalidData,
            LogError::Io { .. } | LogError::Keys(_) | LogError::Stopped(_) => {
                std::io::ErrorKind::Other
            }
        };
        Self::new(kind, error)
    }
}
