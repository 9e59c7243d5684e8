//! An archive of the living key space, as a stream of pieces.
//!
//! Invariants
//! - The work is done on a blocking thread; the consumer's pace bounds it, at
//!   [`PIECES_PENDING`] pieces of about a frame each.
//! - A stream that ends without an error carried the whole archive.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use nautilus_machine::{Kv, Revision};
use tokio::sync::mpsc;

use crate::error::BackupError;
use crate::keys::{QuorumKey, Recipient, SignerKey, Signing};
use crate::source::{Cut, LeaseTable, write_archive};
use crate::writer::Seal;

/// Pieces made but not yet consumed.
const PIECES_PENDING: usize = 4;
/// A piece is sent when it is as long as this.
const PIECE_BYTES: usize = 1 << 20;

/// Gives the quorum's key as it is now.
pub type QuorumKeySource = Arc<dyn Fn() -> QuorumKey + Send + Sync>;

/// What archives are made from.
#[derive(Clone)]
pub struct Source {
    /// The key space.
    pub kv: Arc<dyn Kv>,
    /// Its leases.
    pub leases: LeaseTable,
    /// What the quorum seals and signs with now: it changes with a rotation of keys.
    pub quorum: QuorumKeySource,
    /// The quorum's name.
    pub cluster: String,
}

/// To whom an archive is to be sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience {
    /// These operators; nobody: the quorum itself.
    pub recipients: Vec<Recipient>,
}

/// An archive on its way.
pub struct ArchiveStream {
    /// The revision of the key space in it.
    pub revision: Revision,
    /// Keys in it.
    pub keys: u64,
    /// Who signs it.
    pub signer: SignerKey,
    /// Its bytes.
    pub pieces: mpsc::Receiver<Result<Bytes, BackupError>>,
}

impl Source {
    /// Begins an archive of the key space as this node has it now.
    pub async fn archive(&self, audience: Audience) -> Result<ArchiveStream, BackupError> {
        let source = self.clone();
        let (cut, signing) = blocking(move || {
            let cut = Cut::take(&*source.kv, &source.leases)?;
            Ok((cut, (source.quorum)().signing()?))
        })
        .await?;
        let (sender, pieces) = mpsc::channel(PIECES_PENDING);
        let stream = ArchiveStream {
            revision: cut.revision,
            keys: cut.keys,
            signer: signing.public(),
            pieces,
        };
        let source = self.clone();
        tokio::task::spawn_blocking(move || {
            let sink = Pieces {
                sender: sender.clone(),
                pending: Vec::with_capacity(PIECE_BYTES),
            };
            if let Err(error) = source.write(&cut, sink, &audience, &signing) {
                // Nobody listens any more: nothing to tell.
                let _ = sender.blocking_send(Err(error));
            }
        });
        Ok(stream)
    }

    fn write(
        &self,
        cut: &Cut,
        sink: Pieces,
        audience: &Audience,
        signing: &Signing,
    ) -> Result<(), BackupError> {
        let quorum = (self.quorum)();
        let seal = Seal {
            recipients: &audience.recipients,
            quorum: audience.recipients.is_empty().then_some(&quorum),
            signing,
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now_ms = now.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
        write_archive(&*self.kv, cut, sink, &seal, &self.cluster, now_ms).map(|_| ())
    }
}

/// Runs blocking work.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(BackupError::Store(error.to_string())))
}

/// Where the writer's bytes go.
struct Pieces {
    sender: mpsc::Sender<Result<Bytes, BackupError>>,
    pending: Vec<u8>,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.pending, Vec::with_capacity(PIECE_BYTES));
        let sent = self.sender.blocking_send(Ok(piece.into()));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the reader has gone away"))
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= PIECE_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.pending.is_empty() {
            true => Ok(()),
            false => self.send(),
        }
    }
}
