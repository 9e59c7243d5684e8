//! Proofs made from tiles.
//!
//! Invariant: a proof is given only for what can be proved whole; if a tile that it
//! takes is gone, because nothing under it lives any more, there is no proof.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::digest::DigestKey;
use crate::encoding::{Change, Place, Stamp, VersionRow, decode_change};
use crate::ledger::hash::{TreeHash, node_hash, whole_root};
use crate::ledger::leaf::{Leaf, LeafKind};
use crate::ledger::receipt::LedgerHead;
use crate::ledger::tiles::{Ledger, TILE_LEVELS, nodes, read_tile};
use crate::rows::{RowError, Rows, Space};
use crate::types::Revision;

/// The ledger at one moment: its size, its root, and what proofs in it need beside rows.
/// Rows that are read later may only lack what has died since.
#[derive(Clone)]
pub struct LedgerView {
    key: DigestKey,
    head: LedgerHead,
    compacted: Revision,
    edge: Vec<Vec<TreeHash>>,
}

/// A change with its leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// What the ledger says of it.
    pub leaf: Leaf,
    /// The leaf's index.
    pub index: u64,
    /// The value; `None` of a deletion.
    pub value: Option<Bytes>,
}

/// The leaf of a change.
pub(crate) fn leaf_of(key: &DigestKey, place: Place, change: &Change, stamp: &Stamp) -> Leaf {
    let blinding = key.blinding(place);
    match change {
        Change::Tombstone(name) => Leaf::of_delete(place, stamp.log, blinding, name),
        Change::Put(kv) => {
            let kind = match stamp.loaded {
                true => LeafKind::Load,
                false => LeafKind::Put,
            };
            Leaf::of_put(kind, place, stamp.log, blinding, kv)
        }
    }
}

impl LedgerView {
    pub(crate) fn of(
        ledger: &Ledger,
        key: DigestKey,
        term: u64,
        revision: Revision,
        compacted: Revision,
    ) -> Self {
        Self {
            key,
            head: LedgerHead {
                size: ledger.size(),
                root: ledger.root(),
                term,
                revision,
            },
            compacted,
            edge: ledger.edge(),
        }
    }

    /// What is signed of it.
    pub fn head(&self) -> &LedgerHead {
        &self.head
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.compacted
    }

    /// The first changes of a revision whose keys are `wanted`, `limit` at most. None are
    /// found of what is compacted away or yet to come.
    pub fn changes(
        &self,
        revision: Revision,
        wanted: &dyn Fn(&[u8]) -> bool,
        limit: usize,
        rows: &dyn Rows,
    ) -> Result<Vec<Committed>, RowError> {
        let start = Place { revision, sub: 0 };
        let end = Place {
            revision: revision.saturating_add(1),
            sub: 0,
        };
        let (mut found, mut failure) = (Vec::new(), None);
        let (from, to) = (start.row_key(), end.row_key());
        rows.scan(Space::Revision, &from, Some(&to), &mut |row_key, row| {
            let read = Place::from_row_key(row_key)
                .and_then(|place| Ok((place, decode_change(place, &row)?)));
            match read {
                Ok((_, version)) if !wanted(version.change.key()) => {}
                // Written since the view was taken.
                Ok((_, version)) if version.stamp.leaf >= self.head.size => {}
                Ok((place, version)) => found.push(self.committed(place, version)),
                Err(error) => failure = Some(error),
            }
            match found.len() < limit && failure.is_none() {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })?;
        failure.map_or(Ok(found), Err)
    }

    fn committed(&self, place: Place, version: VersionRow) -> Committed {
        Committed {
            leaf: leaf_of(&self.key, place, &version.change, &version.stamp),
            index: version.stamp.leaf,
            value: match version.change {
                Change::Put(kv) => Some(kv.value),
                Change::Tombstone(_) => None,
            },
        }
    }

    /// The proof that the leaf at `index` is in the tree (RFC 9162, section 2.1.3.1);
    /// `None` if the leaf's version is compacted away, or the index is beyond the end.
    pub fn inclusion(
        &self,
        index: u64,
        rows: &dyn Rows,
    ) -> Result<Option<Vec<TreeHash>>, RowError> {
        if index >= self.head.size {
            return Ok(None);
        }
        let mut reader = Reader::new(self, rows);
        let mut proof = Vec::new();
        let (mut start, mut end) = (0, self.head.size);
        while end - start > 1 {
            let middle = start + split(end - start);
            let sibling = if index < middle {
                let sibling = reader.range(middle, end)?;
                end = middle;
                sibling
            } else {
                let sibling = reader.range(start, middle)?;
                start = middle;
                sibling
            };
            let Some(sibling) = sibling else {
                return Ok(None);
            };
            proof.push(sibling);
        }
        proof.reverse();
        Ok(Some(proof))
    }

    /// The root of the tree of the first `size` leaves, 1 to all; `None` if too much is
    /// compacted away around its end.
    pub(crate) fn root_of(&self, size: u64, rows: &dyn Rows) -> Result<Option<TreeHash>, RowError> {
        if size == self.head.size {
            return Ok(Some(self.head.root));
        }
        Reader::new(self, rows).range(0, size)
    }

    /// The proof that the tree of `to` leaves begins with that of `from` leaves
    /// (RFC 9162, section 2.1.4.1); `None` if too much is compacted away around either
    /// end, or there are no such trees (`1 <= from <= to <= size`).
    pub fn consistency(
        &self,
        from: u64,
        to: u64,
        rows: &dyn Rows,
    ) -> Result<Option<Vec<TreeHash>>, RowError> {
        if from == 0 || from > to || to > self.head.size {
            return Ok(None);
        }
        let mut reader = Reader::new(self, rows);
        let mut proof = Vec::new();
        let (mut start, mut end) = (0, to);
        // Ends at the largest whole subtree that ends where the old tree does.
        while from != end {
            let middle = start + split(end - start);
            let sibling = if from <= middle {
                let sibling = reader.range(middle, end)?;
                end = middle;
                sibling
            } else {
                let sibling = reader.range(start, middle)?;
                start = middle;
                sibling
            };
            let Some(sibling) = sibling else {
                return Ok(None);
            };
            proof.push(sibling);
        }
        if start > 0 {
            let Some(first) = reader.range(start, end)? else {
                return Ok(None);
            };
            proof.push(first);
        }
        proof.reverse();
        Ok(Some(proof))
    }
}

/// The largest power of two below `leaves`, which are two or more.
fn split(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}

/// Reads nodes of the tree, each tile once.
struct Reader<'a> {
    view: &'a LedgerView,
    rows: &'a dyn Rows,
    tiles: BTreeMap<(usize, u64), Option<Vec<TreeHash>>>,
}

impl<'a> Reader<'a> {
    fn new(view: &'a LedgerView, rows: &'a dyn Rows) -> Self {
        Self {
            view,
            rows,
            tiles: BTreeMap::new(),
        }
    }

    /// The root over the leaves from `start` up to `end`; `start` is a multiple of the
    /// power of two that the range fits in.
    fn range(&mut self, start: u64, end: u64) -> Result<Option<TreeHash>, RowError> {
        let leaves = end - start;
        if leaves.is_power_of_two() {
            return self.node(start, leaves.trailing_zeros());
        }
        let middle = start + split(leaves);
        let (left, right) = (self.range(start, middle)?, self.range(middle, end)?);
        Ok(left
            .zip(right)
            .map(|(left, right)| node_hash(&left, &right)))
    }

    /// The root of the whole subtree of 2^`height` leaves from `start` on.
    fn node(&mut self, start: u64, height: u32) -> Result<Option<TreeHash>, RowError> {
        let (level, above) = ((height / TILE_LEVELS) as usize, height % TILE_LEVELS);
        let first = start >> (TILE_LEVELS * level as u32);
        let number = first >> TILE_LEVELS;
        let from = (first - (number << TILE_LEVELS)) as usize;
        let Some(hashes) = self.tile(level, number)? else {
            return Ok(None);
        };
        Ok(hashes.get(from..from + (1 << above)).map(whole_root))
    }

    fn tile(&mut self, level: usize, number: u64) -> Result<Option<&Vec<TreeHash>>, RowError> {
        if number == nodes(self.view.head.size, level) >> TILE_LEVELS {
            return Ok(self.view.edge.get(level));
        }
        let tile = match self.tiles.entry((level, number)) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(read_tile(self.rows, level, number)?)
            }
        };
        Ok(tile.as_ref())
    }
}
