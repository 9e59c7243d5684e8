//! The rows the machine keeps, and the seam to whoever stores them.
//!
//! The machine reads through [`Rows`] and collects its writes in a [`RowBatch`];
//! the store writes the batch atomically together with the applied position.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

/// Which table a row stands in. The number is part of every row's associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Space {
    /// Versions, by revision and position within it.
    Revision = 1,
    /// Leases, by id.
    Lease = 2,
    /// The machine's counters and checkpoint; the shell's own notes.
    Meta = 3,
    /// Tiles of the ledger, by level and number.
    Ledger = 4,
}

/// Why a row could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{space:?} row {key}: {reason}")]
pub struct RowError {
    /// The table.
    pub space: Space,
    /// The row's key in hex.
    pub key: String,
    /// What is wrong, and where.
    pub reason: String,
}

/// Reads rows as of the last written batch.
pub trait Rows: Send + Sync {
    /// One row.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, RowError>;

    /// Every row of `space` from `from` (included) up to `to` (not included; `None`:
    /// the end), in key order, until `visit` breaks.
    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), RowError>;
}

/// Writes to be made together; a later write of a row replaces an earlier one.
#[derive(Debug, Default, Clone)]
pub struct RowBatch {
    writes: BTreeMap<(Space, Vec<u8>), Option<Bytes>>,
}

impl RowBatch {
    /// Write a row.
    pub fn put(&mut self, space: Space, key: &[u8], value: impl Into<Bytes>) {
        self.writes
            .insert((space, key.to_vec()), Some(value.into()));
    }

    /// Delete a row.
    pub fn delete(&mut self, space: Space, key: &[u8]) {
        self.writes.insert((space, key.to_vec()), None);
    }

    /// The batch's own view of a row: `Some(None)` when it deletes it.
    pub fn get(&self, space: Space, key: &[u8]) -> Option<Option<Bytes>> {
        self.writes.get(&(space, key.to_vec())).cloned()
    }

    /// The writes, in row order; `None` deletes.
    pub fn iter(&self) -> impl Iterator<Item = (Space, &[u8], Option<&Bytes>)> {
        self.writes
            .iter()
            .map(|((space, key), value)| (*space, key.as_slice(), value.as_ref()))
    }

    /// The writes, in row order.
    pub fn into_writes(self) -> impl Iterator<Item = (Space, Vec<u8>, Option<Bytes>)> {
        self.writes
            .into_iter()
            .map(|((space, key), value)| (space, key, value))
    }

    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}
