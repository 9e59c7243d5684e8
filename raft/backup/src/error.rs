//! What can go wrong with a backup, one variant per thing to act on.

use std::io;

/// Why a backup could not be written, read or used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Reading or writing failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is something else.
    #[error("it is not an archive that this program knows: {0}")]
    NotAnArchive(String),
    /// The file ends too early.
    #[error("it is cut short: it ends in {0}")]
    Truncated(&'static str),
    /// A frame was changed, moved or taken from another file.
    #[error("frame {number} does not authenticate: the file was changed")]
    Damaged {
        /// Counted from 0.
        number: u64,
    },
    /// The signature over the whole file does not hold.
    #[error("the signature does not hold: the file was changed, or made by somebody else")]
    Signature,
    /// Signed, but not by the quorum expected.
    #[error("it is signed by {found}, not by {expected}")]
    OtherSigner {
        /// The file's signer.
        found: String,
        /// The signer asked for.
        expected: String,
    },
    /// The key at hand opens none of the file's seals.
    #[error("the key does not open it: it is sealed to {sealed_to}")]
    WrongKey {
        /// To whom it is sealed.
        sealed_to: String,
    },
    /// A key's text is no key.
    #[error("not a key: {0}")]
    Key(String),
    /// The content authenticates but makes no sense.
    #[error("its content is not as it should be: {0}")]
    Content(String),
    /// The key space could not be read.
    #[error("the key space could not be read: {0}")]
    Store(String),
    /// Where archives are kept could not be used.
    #[error("{destination}: {reason}")]
    Destination {
        /// Which.
        destination: String,
        /// Why.
        reason: String,
    },
    /// The system gave no random bytes, or a cryptographic operation failed.
    #[error("cryptography failed: {0}")]
    Crypto(&'static str),
}

impl BackupError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    /// For reads where an early end means that the file was cut.
    pub(crate) fn cut(part: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated(part),
            _ => Self::Io {
                what: "read the archive",
                source,
            },
        }
    }
}
