//! What a kind's cache remembers of its past: recent changes, for watches that begin at
//! a version, and whole snapshots, for the further pages of a list.
//!
//! Invariants
//! - Every change after `floor` is in the ring.
//! - A snapshot is the state of its revision, and what all snapshots together hold in
//!   memory beyond the present state is bounded: they go, oldest first, when more than
//!   [`MAX_SNAPSHOT_BYTES`] of what they hold has been superseded.

use std::collections::VecDeque;
use std::sync::Arc;

use nautilus_machine::Revision;

use super::change::Change;
use super::entry::Entry;
use super::tree::Tree;

/// Changes of one kind kept for watches that begin at a version; few in tests, so that
/// watches begin in the store's history.
const MAX_CHANGES: usize = if cfg!(test) { 16 } else { 8_192 };
/// Bytes that the changes of one kind keep in memory.
const MAX_CHANGE_BYTES: usize = 8 << 20;
/// Snapshots of one kind kept for further pages.
const MAX_SNAPSHOTS: usize = 256;
/// Bytes of superseded versions that the snapshots of one kind may keep in memory.
const MAX_SNAPSHOT_BYTES: u64 = 32 << 20;

/// Recent changes.
pub(super) struct Ring {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    floor: Revision,
}

impl Ring {
    pub(super) fn starting(floor: Revision) -> Self {
        Self {
            changes: VecDeque::new(),
            bytes: 0,
            floor,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, change: Arc<Change>) {
        self.bytes += change.weight();
        self.changes.push_back(change);
    }

    /// Lets the oldest go; never a part of a revision's changes.
    pub(super) fn trim(&mut self) {
        while self.changes.len() > MAX_CHANGES || self.bytes > MAX_CHANGE_BYTES {
            let Some(oldest) = self.changes.front().map(|change| change.revision()) else {
                return;
            };
            self.floor = oldest;
            while let Some(change) = self.changes.pop_front_if(|c| c.revision() == oldest) {
                self.bytes -= change.weight();
            }
        }
    }

    /// All changes after a revision; `None` if some of them are forgotten.
    pub(super) fn after(&self, revision: Revision) -> Option<impl Iterator<Item = &Arc<Change>>> {
        if revision < self.floor {
            return None;
        }
        let from = self
            .changes
            .partition_point(|change| change.revision() <= revision);
        Some(self.changes.range(from..))
    }
}

/// The state of one revision.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) revision: Revision,
    pub(crate) tree: Tree<Entry>,
}

/// Snapshots that a continue token names.
#[derive(Default)]
pub(super) struct Snapshots {
    /// In the order of revisions, each with `superseded` as it was then.
    kept: VecDeque<(Snapshot, u64)>,
    /// Bytes of versions that were replaced or removed, ever.
    superseded: u64,
}

impl Snapshots {
    /// Keeps the present state.
    pub(super) fn keep(&mut self, snapshot: &Snapshot) {
        let newest = self.kept.back().map(|(kept, _)| kept.revision);
        if newest.is_some_and(|newest| newest >= snapshot.revision) {
            return;
        }
        self.kept.push_back((snapshot.clone(), self.superseded));
        if self.kept.len() > MAX_SNAPSHOTS {
            self.kept.pop_front();
        }
    }

    pub(super) fn at(&self, revision: Revision) -> Option<Snapshot> {
        let found = self
            .kept
            .binary_search_by_key(&revision, |(kept, _)| kept.revision);
        found.ok().map(|at| self.kept[at].0.clone())
    }

    /// A version was replaced or removed.
    pub(super) fn supersede(&mut self, bytes: usize) {
        self.superseded += bytes as u64;
        let superseded = self.superseded;
        while self
            .kept
            .pop_front_if(|(_, then)| superseded - *then > MAX_SNAPSHOT_BYTES)
            .is_some()
        {}
    }

    /// What the store has compacted away is no answer any more, wherever it is asked for.
    pub(super) fn compact(&mut self, compacted: Revision) {
        while self
            .kept
            .pop_front_if(|(kept, _)| kept.revision < compacted)
            .is_some()
        {}
    }

    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(revision: Revision) -> Snapshot {
        Snapshot {
            revision,
            tree: Tree::default(),
        }
    }

    #[test]
    fn snapshots_go_when_they_hold_too_much_of_the_past() {
        let mut snapshots = Snapshots::default();
        snapshots.keep(&snapshot(5));
        snapshots.supersede(MAX_SNAPSHOT_BYTES as usize);
        snapshots.keep(&snapshot(6));
        assert!(snapshots.at(5).is_some());
        snapshots.supersede(1);
        assert!(snapshots.at(5).is_none() && snapshots.at(6).is_some());
    }

    #[test]
    fn a_ring_forgets_whole_revisions() {
        let mut ring = Ring::starting(1);
        for number in 0..MAX_CHANGES as u64 + 1 {
            // Two changes each from revision 2 on.
            ring.push(Arc::new(Change::new(2 + number / 2, None, None)));
        }
        ring.trim();
        assert!(ring.after(1).is_none());
        assert_eq!(ring.after(2).expect("kept").count(), MAX_CHANGES - 1);
    }
}
