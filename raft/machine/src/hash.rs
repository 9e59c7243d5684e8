//! The hash of the key space up to a revision, for comparing members.
//!
//! Invariant: it depends only on the history up to the revision and on the last
//! compaction's: rows that a compaction has passed and not removed yet do not count, so
//! that members whose removal has come less far agree.

use std::ops::ControlFlow;

use aws_lc_rs::digest;

use crate::encoding::Place;
use crate::machine::Machine;
use crate::port::{KvHash, RangeError};
use crate::read::check_revision;
use crate::rows::{RowError, Rows, Space};
use crate::types::Revision;

/// A hash in the making. It reads the rows that were there when it was begun: give it a
/// consistent view of them.
pub struct KvHashScan {
    revision: Revision,
    compacted: Revision,
    current: Revision,
    next: Place,
    /// Places of rows that are only there still, in order.
    unswept: Vec<Place>,
    context: digest::Context,
}

impl Machine {
    /// Begins the hash of every version up to `revision` (the newest when absent).
    pub fn hash_scan(&self, revision: Option<Revision>) -> Result<KvHashScan, RangeError> {
        let (current, compacted) = (self.revision(), self.compacted_revision());
        check_revision(revision, current, compacted)?;
        let first = Place {
            revision: 0,
            sub: 0,
        };
        Ok(KvHashScan {
            revision: revision.filter(|asked| *asked != 0).unwrap_or(current),
            compacted,
            current,
            next: first,
            unswept: self.index().unswept(compacted),
            context: digest::Context::new(&digest::SHA256),
        })
    }
}

impl KvHashScan {
    /// Reads the next `rows_max` rows; whether that was all.
    pub fn step(&mut self, rows: &dyn Rows, rows_max: usize) -> Result<bool, RowError> {
        let end = Place {
            revision: self.revision.saturating_add(1),
            sub: 0,
        };
        let (mut read, mut failure, mut cut) = (0, None, false);
        let start = self.next.row_key();
        rows.scan(
            Space::Revision,
            &start,
            Some(&end.row_key()),
            &mut |key, row| {
                let place = match Place::from_row_key(key) {
                    Ok(place) => place,
                    Err(error) => {
                        failure = Some(error);
                        return ControlFlow::Break(());
                    }
                };
                if read >= rows_max {
                    (self.next, cut) = (place, true);
                    return ControlFlow::Break(());
                }
                read += 1;
                if self.unswept.binary_search(&place).is_err() {
                    self.context.update(key);
                    self.context.update(&(row.len() as u64).to_be_bytes());
                    self.context.update(&row);
                }
                ControlFlow::Continue(())
            },
        )?;
        match failure {
            Some(error) => Err(error),
            None => Ok(!cut),
        }
    }

    /// The hash, after the last step.
    pub fn finish(self) -> KvHash {
        let hash = self.context.finish();
        let mut first = [0; 4];
        first.copy_from_slice(&hash.as_ref()[..4]);
        KvHash {
            hash: u32::from_be_bytes(first),
            revision: self.revision,
            compacted: self.compacted,
            current: self.current,
        }
    }
}
