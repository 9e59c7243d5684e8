//! The index as a stream of bytes: so that a start reads the rows written since, and
//! not all of them.
//!
//! A checkpoint is taken under the lock (a clone that is copied on write), encoded
//! without it, kept sealed by the store, and read back piece by piece. A piece begins
//! with its kind:
//!
//! | piece | holds |
//! |---|---|
//! | head | version byte, the machine's own row as it stood |
//! | keys | bytes shared with the key before, suffix length ‖ flags, suffix, revision, position, and of a living key: age, version, lease |
//! | links | revision, position, revisions back to the version before, its position ‖ lives |
//! | tombstones | revision, position |
//! | end | how many keys, links and tombstones there were |
//!
//! Invariants
//! - A machine is returned only if the pieces are whole, in order, and every version row
//!   written since is there: the keyed sum over them is the difference of the sums of
//!   everything ever written, then and now.
//! - A checkpoint helps only while no compaction has passed its revision, so that no row
//!   written since has been removed. What was removed of the older rows is known by
//!   their number, because they go in a fixed order.
//! - The ledger's edge is read from the machine's own row and the tiles, a few rows.

use std::iter::Peekable;
use std::ops::ControlFlow;

use bytes::{Buf, Bytes};

use crate::digest::DigestKey;
use crate::encoding::{CountersRow, Place, decode_counters, encode_counters};
use crate::index::build::Builder;
use crate::index::{KeyIndex, Life, Newest, Swept};
use crate::ledger::tiles::Ledger;
use crate::machine::{Machine, MachineError};
use crate::restore::{Versions, another_sum, attach_leases, read_counters, restore_leases};
use crate::rows::Rows;
use crate::types::{LeaseId, Revision};
use crate::varint;

/// Bytes after which a piece ends; the last key in it may go beyond.
pub const CHECKPOINT_PIECE_BYTES: usize = 256 << 10;

const VERSION: u8 = 2;
const HEAD: u8 = 1;
const KEYS: u8 = 2;
const LINKS: u8 = 3;
const TOMBSTONES: u8 = 4;
const END: u8 = 5;

const FLAG_LIVES: u64 = 1;
const FLAG_LEASE: u64 = 2;

/// Why no machine came of a checkpoint.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CheckpointError {
    /// The bytes are not those of a checkpoint.
    #[error("the checkpoint of the index is damaged: {0}")]
    Damaged(String),
    /// It does not go with the rows that are there (any more): read them all.
    #[error("the checkpoint of the index is of no use: {0}")]
    Unusable(String),
    /// The rows are not those that were written.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// The index at one moment, to be encoded.
#[derive(Debug, Clone)]
pub struct IndexCheckpoint {
    index: KeyIndex,
    revision: Revision,
    counters: Bytes,
}

impl Machine {
    /// The index as it is now. Cheap: what is written later is written to copies.
    pub fn index_checkpoint(&self) -> Result<IndexCheckpoint, MachineError> {
        Ok(IndexCheckpoint {
            index: self.index().clone(),
            revision: self.revision(),
            counters: encode_counters(&self.counters())?,
        })
    }
}

impl IndexCheckpoint {
    /// The revision at which it was taken; of no use once a compaction has passed it.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Its bytes, in pieces, in order.
    pub fn pieces(&self) -> impl Iterator<Item = Vec<u8>> {
        let links: Box<dyn Iterator<Item = _>> = Box::new(self.index.links());
        let tombstones: Box<dyn Iterator<Item = _>> = Box::new(self.index.tombstones());
        let mut pieces = Pieces {
            checkpoint: self,
            stage: Stage::Head,
            links: links.peekable(),
            tombstones: tombstones.peekable(),
            counts: [0; 3],
        };
        std::iter::from_fn(move || pieces.next())
    }
}

enum Stage {
    Head,
    /// From this key on.
    Keys(Vec<u8>),
    Links,
    Tombstones,
    End,
    Done,
}

type Boxed<'a, T> = Peekable<Box<dyn Iterator<Item = T> + 'a>>;

struct Pieces<'a> {
    checkpoint: &'a IndexCheckpoint,
    stage: Stage,
    links: Boxed<'a, (Place, Place, bool)>,
    tombstones: Boxed<'a, Place>,
    counts: [u64; 3],
}

impl Pieces<'_> {
    fn next(&mut self) -> Option<Vec<u8>> {
        let mut piece = Vec::new();
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Head => {
                piece.extend([HEAD, VERSION]);
                piece.extend_from_slice(&self.checkpoint.counters);
                self.stage = Stage::Keys(Vec::new());
            }
            Stage::Keys(from) => {
                piece.push(KEYS);
                self.stage = match self.keys(&from, &mut piece) {
                    Some(next) => Stage::Keys(next),
                    None => Stage::Links,
                };
            }
            Stage::Links => {
                piece.push(LINKS);
                self.links(&mut piece);
                self.stage = match self.links.peek() {
                    Some(_) => Stage::Links,
                    None => Stage::Tombstones,
                };
            }
            Stage::Tombstones => {
                piece.push(TOMBSTONES);
                while piece.len() < CHECKPOINT_PIECE_BYTES {
                    let Some(place) = self.tombstones.next() else {
                        break;
                    };
                    push_place(&mut piece, place);
                    self.counts[2] += 1;
                }
                self.stage = match self.tombstones.peek() {
                    Some(_) => Stage::Tombstones,
                    None => Stage::End,
                };
            }
            Stage::End => {
                piece.push(END);
                self.counts
                    .iter()
                    .for_each(|count| varint::push(&mut piece, *count));
            }
            Stage::Done => return None,
        }
        Some(piece)
    }

    /// Writes keys from `from` on; gives the key at which the next piece begins.
    fn keys(&mut self, from: &[u8], piece: &mut Vec<u8>) -> Option<Vec<u8>> {
        let mut last: Vec<u8> = Vec::new();
        let mut next = None;
        let counts = &mut self.counts;
        self.checkpoint.index.visit_all(from, &mut |key, newest| {
            if piece.len() >= CHECKPOINT_PIECE_BYTES {
                next = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            let shared = key.common(&last);
            varint::push(piece, shared as u64);
            let flags = match newest.life {
                None => 0,
                Some(Life { lease: None, .. }) => FLAG_LIVES,
                Some(_) => FLAG_LIVES | FLAG_LEASE,
            };
            varint::push(piece, ((key.len() - shared) as u64) << 2 | flags);
            key.push_from(shared, piece);
            push_place(piece, newest.place);
            if let Some(life) = newest.life {
                varint::push(piece, newest.place.revision - life.create_revision);
                varint::push(piece, life.version);
                if let Some(lease) = life.lease {
                    piece.extend(lease.0.to_le_bytes());
                }
            }
            last.truncate(shared);
            key.push_from(shared, &mut last);
            counts[0] += 1;
            ControlFlow::Continue(())
        });
        next
    }

    fn links(&mut self, piece: &mut Vec<u8>) {
        while piece.len() < CHECKPOINT_PIECE_BYTES {
            let Some((place, before, lives)) = self.links.next() else {
                return;
            };
            push_place(piece, place);
            varint::push(piece, place.revision - before.revision);
            varint::push(piece, u64::from(before.sub) << 1 | u64::from(lives));
            self.counts[1] += 1;
        }
    }
}

fn push_place(piece: &mut Vec<u8>, place: Place) {
    varint::push(piece, place.revision);
    varint::push(piece, u64::from(place.sub));
}

/// Takes a checkpoint's pieces, and makes a machine of them and the rows.
#[derive(Default)]
pub struct CheckpointReader {
    counters: Option<CountersRow>,
    builder: Builder,
    counts: [u64; 3],
    last_kind: u8,
    ended: bool,
}

impl CheckpointReader {
    /// Takes the next piece.
    pub fn piece(&mut self, piece: &[u8]) -> Result<(), CheckpointError> {
        let Some((&kind, rest)) = piece.split_first() else {
            return Err(damaged("a piece is empty"));
        };
        let starts = self.counters.is_none();
        if starts != (kind == HEAD) || kind < self.last_kind || self.ended {
            return Err(damaged("its pieces are out of order"));
        }
        self.last_kind = kind;
        let mut fields = Fields { rest };
        let read = match kind {
            HEAD => return self.head(rest),
            KEYS => self.keys(&mut fields),
            LINKS => self.links(&mut fields),
            TOMBSTONES => self.tombstones(&mut fields),
            END => self.end(&mut fields),
            _ => {
                return Err(damaged(&format!(
                    "a piece is of kind {kind}, which is not known"
                )));
            }
        };
        read.ok_or_else(|| {
            damaged(&format!(
                "a piece of kind {kind} does not hold what it must"
            ))
        })
    }

    fn head(&mut self, rest: &[u8]) -> Result<(), CheckpointError> {
        match rest.split_first() {
            Some((&VERSION, counters)) => {
                let counters = decode_counters(counters);
                let counters = counters.map_err(|error| damaged(&error.to_string()))?;
                self.counters = Some(counters);
                Ok(())
            }
            Some((version, _)) => Err(CheckpointError::Unusable(format!(
                "its version {version} is not known to this program (it writes {VERSION})"
            ))),
            None => Err(damaged("its head is empty")),
        }
    }

    fn keys(&mut self, fields: &mut Fields<'_>) -> Option<()> {
        let mut key = Vec::new();
        while !fields.rest.is_empty() {
            let shared = usize::try_from(fields.number()?).ok()?;
            let length = fields.number()?;
            let suffix = fields.take(usize::try_from(length >> 2).ok()?)?;
            if shared > key.len() {
                return None;
            }
            key.truncate(shared);
            key.extend_from_slice(suffix);
            let place = fields.place()?;
            let life = match length & FLAG_LIVES {
                0 => None,
                _ => Some(fields.life(place, length & FLAG_LEASE != 0)?),
            };
            self.builder.key(&key, Newest { place, life }).ok()?;
            self.counts[0] += 1;
        }
        Some(())
    }

    fn links(&mut self, fields: &mut Fields<'_>) -> Option<()> {
        while !fields.rest.is_empty() {
            let place = fields.place()?;
            let revision = place.revision.checked_sub(fields.number()?)?;
            let sub_and_lives = fields.number()?;
            let before = Place {
                revision,
                sub: u32::try_from(sub_and_lives >> 1).ok()?,
            };
            self.builder
                .link(place, before, sub_and_lives & 1 != 0)
                .ok()?;
            self.counts[1] += 1;
        }
        Some(())
    }

    fn tombstones(&mut self, fields: &mut Fields<'_>) -> Option<()> {
        while !fields.rest.is_empty() {
            self.builder.tombstone(fields.place()?).ok()?;
            self.counts[2] += 1;
        }
        Some(())
    }

    fn end(&mut self, fields: &mut Fields<'_>) -> Option<()> {
        for count in self.counts {
            if fields.number()? != count {
                return None;
            }
        }
        self.ended = true;
        fields.rest.is_empty().then_some(())
    }

    /// The machine as the rows say it stands now, after the last piece.
    pub fn finish(self, key: DigestKey, rows: &dyn Rows) -> Result<Machine, CheckpointError> {
        let (Some(then), true) = (self.counters, self.ended) else {
            return Err(damaged("it ends too early"));
        };
        let now = read_counters(rows)?;
        check_use(&then, &now)?;
        let mut index = self.builder.finish();
        let since = then.revision + 1;
        let mut versions = Versions::new(&key, &now, since);
        versions.read(rows, since, &mut index)?;
        if versions.sum != now.sums().written.since(&then.sums().written) {
            return Err(another_sum("versions since the checkpoint of the index").into());
        }
        let held = then.version_rows + versions.count;
        let Some(removed) = held.checked_sub(now.version_rows) else {
            return Err(MachineError::Rows(format!(
                "{} versions were written, but the checkpoint of the index and what came \
                 after it have {held}",
                now.version_rows
            ))
            .into());
        };
        sweep(&mut index, removed, now.compacted)?;
        let mut leases = restore_leases(&key, rows, &now)?;
        attach_leases(&index, &mut leases)?;
        let ledger = Ledger::restore(&now.ledger, rows).map_err(MachineError::from)?;
        Ok(Machine::from_parts(key, index, leases, ledger, &now))
    }
}

/// Whether every row written since is there.
fn check_use(then: &CountersRow, now: &CountersRow) -> Result<(), CheckpointError> {
    let unusable = |reason: String| Err(CheckpointError::Unusable(reason));
    if then.loading || now.loading || then.revision > now.revision || then.applied > now.applied {
        return unusable("it is not of an earlier moment of these rows".to_owned());
    }
    if now.compacted > then.revision {
        return unusable(format!(
            "it is of revision {}, and the rows are compacted at {}",
            then.revision, now.compacted
        ));
    }
    Ok(())
}

/// Forgets the rows that were removed since, which are the first in their order.
fn sweep(index: &mut KeyIndex, removed: u64, compacted: Revision) -> Result<(), MachineError> {
    let mut last_tombstone = None;
    for _ in 0..removed {
        match index.sweep(compacted) {
            Some(Swept::Put(_)) => {}
            Some(Swept::Tombstone(place)) => last_tombstone = Some(place),
            None => {
                return Err(MachineError::Rows(
                    "more versions are gone than compactions remove".to_owned(),
                ));
            }
        }
    }
    if let Some(last) = last_tombstone {
        index.forget_deleted(last);
    }
    Ok(())
}

fn damaged(reason: &str) -> CheckpointError {
    CheckpointError::Damaged(reason.to_owned())
}

/// The fields of a piece that are yet to be read.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut at = 0;
        let number = varint::read(self.rest, &mut at)?;
        self.rest.advance(at);
        Some(number)
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(taken)
    }

    fn place(&mut self) -> Option<Place> {
        let revision = self.number()?;
        let sub = u32::try_from(self.number()?).ok()?;
        Some(Place { revision, sub })
    }

    fn life(&mut self, place: Place, has_lease: bool) -> Option<Life> {
        let create_revision = place.revision.checked_sub(self.number()?)?;
        let version = self.number()?;
        let lease = match has_lease {
            true => Some(LeaseId(i64::from_le_bytes(self.take(8)?.try_into().ok()?))),
            false => None,
        };
        Some(Life {
            create_revision,
            version,
            lease,
        })
    }
}
