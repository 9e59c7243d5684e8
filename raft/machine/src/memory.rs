//! Rows in memory: for tests, and for the store's memory engine.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use crate::rows::{RowBatch, RowError, Rows, Space};

/// Rows kept in an ordered map.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct MemoryRows {
    rows: BTreeMap<(Space, Vec<u8>), Bytes>,
}

impl MemoryRows {
    /// Makes the writes of a batch.
    pub fn write(&mut self, batch: RowBatch) {
        for (space, key, value) in batch.into_writes() {
            match value {
                Some(value) => self.rows.insert((space, key), value),
                None => self.rows.remove(&(space, key)),
            };
        }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl Rows for MemoryRows {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, RowError> {
        Ok(self.rows.get(&(space, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), RowError> {
        let start = Bound::Included((space, from.to_vec()));
        for ((row_space, key), value) in self.rows.range((start, Bound::Unbounded)) {
            if *row_space != space || to.is_some_and(|to| key.as_slice() >= to) {
                break;
            }
            if visit(key, value.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }
}
