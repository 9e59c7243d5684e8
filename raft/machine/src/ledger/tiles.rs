//! The tree as the machine keeps it: tiles of 16 hashes, four levels of the tree high.
//!
//! The tile of level L and number N holds the roots of 16 whole subtrees of 16^L leaves
//! each, from subtree 16 N on. The last tile of each level, the edge, is in memory; the
//! tiles of level 0 become rows when they are full, those above with every hash.
//!
//! | row key | value |
//! |---|---|
//! | level u8 ‖ number u64 BE | version u8 ‖ dead u16 BE ‖ up to 16 hashes |
//!
//! A bit of `dead` says that no leaf under that hash has a version row any more. A full
//! tile whose hashes are all dead is removed, and its own hash is dead in the tile above.
//!
//! Invariants
//! - The path of every leaf that is not dead is there: its tile on each level.
//! - A tile once full changes in its dead bits only.

use bytes::Bytes;

use crate::digest::{DigestKey, RowSum};
use crate::encoding::row_error;
use crate::ledger::hash::{TreeHash, empty_root, node_hash, whole_root};
use crate::read::Sight;
use crate::rows::{RowBatch, RowError, Rows, Space};

/// Levels of the tree in one tile.
pub(crate) const TILE_LEVELS: u32 = 4;
/// Hashes in a full tile.
pub(crate) const TILE_HASHES: usize = 1 << TILE_LEVELS;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 3;
const HASH_BYTES: usize = 32;
/// Levels of tiles that 2^64 leaves take.
const TILE_LEVELS_MAX: usize = 16;

/// Hashes of one level, side by side.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tile {
    pub(crate) dead: u16,
    pub(crate) hashes: Vec<TreeHash>,
}

impl Tile {
    fn is_full(&self) -> bool {
        self.hashes.len() == TILE_HASHES
    }

    fn is_dead(&self) -> bool {
        self.dead == u16::MAX
    }

    fn encode(&self) -> Bytes {
        let mut row = Vec::with_capacity(HEAD_BYTES + self.hashes.len() * HASH_BYTES);
        row.push(VERSION);
        row.extend(self.dead.to_be_bytes());
        row.extend_from_slice(self.hashes.as_flattened());
        row.into()
    }

    /// Decodes a row that must hold so many hashes.
    fn decode(key: &[u8], row: &[u8], hashes: usize) -> Result<Self, RowError> {
        let broken = |reason: &str| row_error(Space::Ledger, key, reason);
        let Some((&[version, dead_high, dead_low], rest)) = row.split_first_chunk::<HEAD_BYTES>()
        else {
            return Err(broken("it is shorter than its head"));
        };
        if version != VERSION {
            return Err(broken(&format!(
                "its version {version} is not known to this program (it writes {VERSION})"
            )));
        }
        let tile = Self::from_parts(u16::from_be_bytes([dead_high, dead_low]), rest);
        tile.filter(|tile| tile.hashes.len() == hashes)
            .ok_or_else(|| broken(&format!("it does not hold {hashes} hashes")))
    }

    /// A tile of hashes end to end; `None` if they are cut.
    fn from_parts(dead: u16, hashes: &[u8]) -> Option<Self> {
        let (hashes, []) = hashes.as_chunks::<HASH_BYTES>() else {
            return None;
        };
        Some(Self {
            dead,
            hashes: hashes.to_vec(),
        })
    }
}

/// The tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Ledger {
    size: u64,
    /// The last tile of each level, lowest first; never full.
    edge: Vec<Tile>,
    /// Of the rows that are there.
    sum: RowSum,
}

/// What of the ledger stands in the machine's own row.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct LedgerNote {
    size: u64,
    tail: Bytes,
    dead: u16,
    sum: [u8; 32],
}

impl Ledger {
    /// How many leaves there are.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn sum(&self) -> &RowSum {
        &self.sum
    }

    /// The hashes of the last tile of each level, lowest first.
    pub(crate) fn edge(&self) -> Vec<Vec<TreeHash>> {
        self.edge.iter().map(|tile| tile.hashes.clone()).collect()
    }

    /// The tree's root.
    pub(crate) fn root(&self) -> TreeHash {
        let mut root = None;
        for tile in &self.edge {
            let mut rest = &tile.hashes[..];
            // The whole subtrees of the edge, smallest and rightmost first.
            while !rest.is_empty() {
                let whole = 1 << rest.len().trailing_zeros();
                let (before, subtree) = rest.split_at(rest.len() - whole);
                let left = whole_root(subtree);
                root = Some(root.map_or(left, |right| node_hash(&left, &right)));
                rest = before;
            }
        }
        root.unwrap_or_else(empty_root)
    }

    /// Appends a leaf; gives its index.
    pub(crate) fn append(&mut self, key: &DigestKey, leaf: TreeHash, batch: &mut RowBatch) -> u64 {
        let index = self.size;
        self.size += 1;
        let (mut level, mut hash, mut is_dead) = (0, leaf, false);
        loop {
            if self.edge.len() == level {
                self.edge.push(Tile::default());
            }
            let number = (self.nodes(level) - 1) >> TILE_LEVELS;
            let tile = &mut self.edge[level];
            let before = (level > 0 && !tile.hashes.is_empty()).then(|| tile.encode());
            tile.dead |= u16::from(is_dead) << tile.hashes.len();
            tile.hashes.push(hash);
            if !tile.is_full() {
                let after = (level > 0).then(|| tile.encode());
                self.write(key, tile_key(level, number), before.as_ref(), after, batch);
                return index;
            }
            let full = std::mem::take(tile);
            (hash, is_dead) = (whole_root(&full.hashes), full.is_dead());
            let after = (!is_dead).then(|| full.encode());
            self.write(key, tile_key(level, number), before.as_ref(), after, batch);
            level += 1;
        }
    }

    /// Notes that a leaf's version row is gone, and removes what only it needed.
    pub(crate) fn forget(
        &mut self,
        key: &DigestKey,
        leaf: u64,
        rows: &dyn Rows,
        batch: &mut RowBatch,
    ) -> Result<(), RowError> {
        let (mut level, mut index) = (0, leaf);
        loop {
            let number = index >> TILE_LEVELS;
            let row_key = tile_key(level, number);
            let bit = 1 << (index % TILE_HASHES as u64);
            if index >= self.nodes(level) {
                let reason = format!("leaf {leaf} is named, but the ledger has {}", self.size);
                return Err(row_error(Space::Ledger, &row_key, &reason));
            }
            if number == self.nodes(level) >> TILE_LEVELS {
                let tile = &mut self.edge[level];
                let before = (level > 0).then(|| tile.encode());
                tile.dead |= bit;
                let after = (level > 0).then(|| tile.encode());
                self.write(key, row_key, before.as_ref(), after, batch);
                return Ok(());
            }
            let sight = Sight {
                rows,
                batch: Some(batch),
            };
            let row = sight.get(Space::Ledger, &row_key)?;
            let row = row.ok_or_else(|| missing(&row_key))?;
            let mut tile = Tile::decode(&row_key, &row, TILE_HASHES)?;
            tile.dead |= bit;
            let after = (!tile.is_dead()).then(|| tile.encode());
            self.write(key, row_key, Some(&row), after, batch);
            if !tile.is_dead() {
                return Ok(());
            }
            (level, index) = (level + 1, number);
        }
    }

    /// Whole subtrees of a level of tiles.
    fn nodes(&self, level: usize) -> u64 {
        nodes(self.size, level)
    }

    fn write(
        &mut self,
        key: &DigestKey,
        row_key: TileKey,
        before: Option<&Bytes>,
        after: Option<Bytes>,
        batch: &mut RowBatch,
    ) {
        if let Some(before) = before {
            self.sum.remove(&key.row(Space::Ledger, &row_key, before));
        }
        match after {
            Some(after) => {
                self.sum.add(&key.row(Space::Ledger, &row_key, &after));
                batch.put(Space::Ledger, &row_key, after);
            }
            None if before.is_some() => batch.delete(Space::Ledger, &row_key),
            None => {}
        }
    }

    pub(crate) fn note(&self) -> LedgerNote {
        let tail = self.edge.first();
        LedgerNote {
            size: self.size,
            tail: tail.map_or_else(Bytes::new, |tile| {
                Bytes::copy_from_slice(tile.hashes.as_flattened())
            }),
            dead: tail.map_or(0, |tile| tile.dead),
            sum: self.sum.to_bytes(),
        }
    }

    /// The ledger as it was noted, its edge read from the rows.
    pub(crate) fn restore(note: &LedgerNote, rows: &dyn Rows) -> Result<Self, RowError> {
        let mut ledger = Self {
            size: note.size,
            edge: Vec::new(),
            sum: RowSum::from_bytes(&note.sum),
        };
        for level in 0..TILE_LEVELS_MAX {
            let nodes = ledger.nodes(level);
            if nodes == 0 {
                break;
            }
            let (number, hashes) = (nodes >> TILE_LEVELS, nodes as usize % TILE_HASHES);
            let row_key = tile_key(level, number);
            ledger.edge.push(match (level, hashes) {
                (0, _) => Tile::from_parts(note.dead, &note.tail)
                    .filter(|tile| tile.hashes.len() == hashes)
                    .ok_or_else(|| {
                        let reason = "the machine's own row does not hold its last leaves";
                        row_error(Space::Ledger, &row_key, reason)
                    })?,
                (_, 0) => Tile::default(),
                _ => {
                    let row = rows.get(Space::Ledger, &row_key)?;
                    let row = row.ok_or_else(|| missing(&row_key))?;
                    Tile::decode(&row_key, &row, hashes)?
                }
            });
        }
        Ok(ledger)
    }
}

/// Whole subtrees of a level of tiles, in a tree of `size` leaves.
pub(crate) fn nodes(size: u64, level: usize) -> u64 {
    size.checked_shr(TILE_LEVELS * level as u32).unwrap_or(0)
}

/// The row of a full tile; `None` if nothing living is under it any more.
pub(crate) fn read_tile(
    rows: &dyn Rows,
    level: usize,
    number: u64,
) -> Result<Option<Vec<TreeHash>>, RowError> {
    let key = tile_key(level, number);
    let row = rows.get(Space::Ledger, &key)?;
    row.map(|row| Tile::decode(&key, &row, TILE_HASHES).map(|tile| tile.hashes))
        .transpose()
}

type TileKey = [u8; 9];

fn tile_key(level: usize, number: u64) -> TileKey {
    let mut key = [0; 9];
    key[0] = level as u8;
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

fn missing(key: &[u8]) -> RowError {
    row_error(Space::Ledger, key, "the tile is missing")
}
