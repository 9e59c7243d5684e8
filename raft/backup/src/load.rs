//! From an archive into an empty store.
//!
//! Invariants
//! - Nothing of the quorum's identity is loaded, whatever the archive holds.
//! - The last piece goes only after the archive was read to its end and found right:
//!   until then the store serves nothing.
//! - Loading again from the start is the same as once ([`Command::Load`]).

use std::io::Read;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use nautilus_machine::{
    Command, KeyValue, Kv, LeaseId, Outcome, Proposal, ProposeError, Refusal, Revision,
};
use tokio::sync::mpsc;

use crate::error::BackupError;
use crate::identity::is_identity;
use crate::reader::Records;
use crate::record::{Lease, Record, Summary};

/// Bytes of a piece, about; below the limit of a proposal.
const PIECE_BYTES: usize = 768 << 10;
/// Keys and leases of a piece, at most.
const PIECE_ITEMS: usize = 8_192;
/// Pieces proposed and not yet answered.
const PIECES_PENDING: usize = 4;
/// Tries of one piece while the quorum has no leader.
const ATTEMPTS_MAX: u32 = 60;
/// Pause between two of them.
const ATTEMPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// What was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// What the archive held.
    pub summary: Summary,
    /// The revision at which the store stands, compacted there.
    pub revision: Revision,
}

#[derive(Default)]
struct Piece {
    kvs: Vec<KeyValue>,
    leases: Vec<(LeaseId, u64)>,
    bytes: usize,
}

impl Piece {
    fn add(&mut self, record: Record) {
        match record {
            Record::Lease(Lease { id, ttl_ms }) => self.leases.push((id, ttl_ms)),
            Record::Key(kv) => {
                self.bytes += kv.key.len() + kv.value.len();
                self.kvs.push(kv);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.bytes >= PIECE_BYTES || self.kvs.len() + self.leases.len() >= PIECE_ITEMS
    }

    fn proposal(self, last: Option<Revision>) -> Proposal {
        Proposal::new(Command::Load {
            kvs: self.kvs,
            leases: self.leases,
            last,
        })
    }
}

/// Loads an opened archive into the empty store behind `kv`. Revisions stay as they
/// were; the store then stands `bump_revision` above the archive's, compacted there, so
/// that clients that saw more than the archive holds notice. `progress` hears of keys.
pub async fn load<R: Read + Send + 'static>(
    kv: &Arc<dyn Kv>,
    records: Records<R>,
    bump_revision: u64,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Loaded, BackupError> {
    let revision = records.header().revision.checked_add(bump_revision);
    let revision = revision.ok_or_else(|| BackupError::Content("the revision overflows".into()))?;
    let (sender, mut pieces) = mpsc::channel(1);
    let reading = tokio::task::spawn_blocking(move || read_pieces(records, &sender));
    let mut pending = FuturesUnordered::new();
    let mut keys = 0;
    let mut leases_under_way = false;
    while let Some(piece) = pieces.recv().await {
        let piece: Piece = piece;
        // Keys go after the leases that they hang on.
        while pending.len() >= PIECES_PENDING || (leases_under_way && !pending.is_empty()) {
            pending.next().await.unwrap_or(Ok(()))?;
        }
        leases_under_way = !piece.leases.is_empty();
        keys += piece.kvs.len() as u64;
        progress(keys);
        pending.push(propose(Arc::clone(kv), piece.proposal(None)));
    }
    while let Some(done) = pending.next().await {
        done?;
    }
    let read = reading.await;
    let summary = read.unwrap_or_else(|error| Err(BackupError::Store(error.to_string())))?;
    propose(Arc::clone(kv), Piece::default().proposal(Some(revision))).await?;
    Ok(Loaded { summary, revision })
}

/// Cuts the archive into pieces; ends without error only when it was whole.
fn read_pieces<R: Read>(
    mut records: Records<R>,
    sender: &mpsc::Sender<Piece>,
) -> Result<Summary, BackupError> {
    let gone = |_| BackupError::Store("loading was given up".into());
    let mut piece = Piece::default();
    while let Some(record) = records.next_record()? {
        if let Record::Key(kv) = &record {
            if is_identity(&kv.key) {
                continue;
            }
            // One piece has either leases or keys.
            if !piece.leases.is_empty() {
                sender
                    .blocking_send(std::mem::take(&mut piece))
                    .map_err(gone)?;
            }
        }
        piece.add(record);
        if piece.is_full() {
            sender
                .blocking_send(std::mem::take(&mut piece))
                .map_err(gone)?;
        }
    }
    if !(piece.kvs.is_empty() && piece.leases.is_empty()) {
        sender.blocking_send(piece).map_err(gone)?;
    }
    records
        .summary()
        .ok_or_else(|| BackupError::Content("it did not end".into()))
}

/// A piece may come twice: an answer that was lost is asked for again.
async fn propose(kv: Arc<dyn Kv>, proposal: Proposal) -> Result<(), BackupError> {
    let last = match &proposal.command {
        Command::Load { last, .. } => *last,
        _ => None,
    };
    let mut attempt = 0;
    loop {
        attempt += 1;
        let error = match kv.propose(proposal.clone()).await {
            Ok(applied) => match applied.outcome {
                Outcome::Done => return Ok(()),
                // The last piece was applied before, and its answer lost.
                Outcome::Refused(Refusal::NotEmpty { revision }) if last == Some(revision) => {
                    return Ok(());
                }
                Outcome::Refused(refusal) => return Err(BackupError::Store(refusal.to_string())),
                other => return Err(BackupError::Store(format!("{other:?}"))),
            },
            Err(error @ (ProposeError::Unavailable(_) | ProposeError::Unknown(_))) => error,
            Err(error) => return Err(BackupError::Store(error.to_string())),
        };
        if attempt == ATTEMPTS_MAX {
            return Err(BackupError::Store(error.to_string()));
        }
        tokio::time::sleep(ATTEMPT_PAUSE).await;
    }
}
