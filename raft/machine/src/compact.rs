//! Compaction: the past is forgotten at once, its rows are removed in steps.
//!
//! [`crate::Command::Compact`] moves the oldest readable revision; from then on nobody
//! can see what is to go. The rows go a bounded number at a time, with the command
//! itself and with as many [`crate::Command::CompactStep`]s as it takes, so that no
//! entry holds the store's lock for long.
//!
//! Invariants
//! - A row is removed only if no read at the compaction's revision or later sees it.
//! - Which rows a step removes depends only on the rows that are there: every replica
//!   removes the same, however lately it started.
//! - A deletion at exactly the compaction's revision stays, so that a watch from there
//!   misses nothing.

use crate::encoding::{Change, Place, decode_change};
use crate::index::Swept;
use crate::machine::{Machine, MachineError};
use crate::outcome::{Outcome, Refusal};
use crate::read::{Sight, missing};
use crate::rows::{RowBatch, Rows, Space};
use crate::types::Revision;

/// Rows that one entry removes at most.
pub const COMPACT_STEP_ROWS_MAX: usize = 1000;
/// Bytes of removed rows after which a step ends.
pub const COMPACT_STEP_BYTES_MAX: usize = 4 << 20;

impl Machine {
    /// Whether rows that nobody can see any more are still there: propose
    /// [`crate::Command::CompactStep`].
    pub fn compaction_pending(&self) -> bool {
        !self.index().is_swept(self.compacted_revision())
    }

    pub(crate) fn compact(
        &mut self,
        revision: Revision,
        rows: &dyn Rows,
        batch: &mut RowBatch,
    ) -> Result<Outcome, MachineError> {
        if revision <= self.compacted_revision() {
            return Ok(Outcome::Refused(Refusal::Compacted));
        }
        if revision > self.revision() {
            return Ok(Outcome::Refused(Refusal::FutureRevision));
        }
        self.set_compacted(revision);
        self.sweep(rows, batch)?;
        Ok(Outcome::Done)
    }

    /// Removes the next rows.
    pub(crate) fn sweep(
        &mut self,
        rows: &dyn Rows,
        batch: &mut RowBatch,
    ) -> Result<(), MachineError> {
        let compacted = self.compacted_revision();
        let mut removed_bytes = 0;
        for _ in 0..COMPACT_STEP_ROWS_MAX {
            let Some(swept) = self.index_mut().sweep(compacted) else {
                break;
            };
            removed_bytes += self.remove(swept, rows, batch)?;
            if removed_bytes >= COMPACT_STEP_BYTES_MAX {
                break;
            }
        }
        Ok(())
    }

    fn remove(
        &mut self,
        swept: Swept,
        rows: &dyn Rows,
        batch: &mut RowBatch,
    ) -> Result<usize, MachineError> {
        let (Swept::Put(place) | Swept::Tombstone(place)) = swept;
        let sight = Sight {
            rows,
            batch: Some(batch),
        };
        let row = sight.get(Space::Revision, &place.row_key())?;
        let row = row.ok_or_else(|| missing(place))?;
        let version = decode_change(place, &row)?;
        if let Swept::Tombstone(place) = swept {
            match version.change {
                Change::Tombstone(key) => self.index_mut().forget(&key, place),
                Change::Put(_) => return Err(not_a_tombstone(place)),
            }
        }
        self.delete_version(place, &row, version.stamp.leaf, rows, batch)?;
        Ok(row.len())
    }
}

fn not_a_tombstone(place: Place) -> MachineError {
    crate::encoding::row_error(
        Space::Revision,
        &place.row_key(),
        "it holds a put where the index says that a deletion is",
    )
    .into()
}
