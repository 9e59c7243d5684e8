//! What readers see: the cache and the batches under way over the engine.
//!
//! A batch is put here while the machine's lock is still held, and taken away when
//! the engine has it. So the machine's lock is not held while rows are sealed and
//! written, and yet a reader that learns of a row from the index finds it.
//!
//! Invariants
//! - A row that the index names is in a batch under way or in the engine; a reader
//!   asks in this order, the writer moves rows in the other.
//! - The newest batch wins over older ones, and over the engine.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use nautilus_machine::{RowBatch, RowError, Rows, Space};
use parking_lot::RwLock;

use crate::cache::RowCache;
use crate::engine::{Engine, EngineError};

/// An engine's rows, with what is on the way to it.
pub(crate) struct LayeredRows {
    engine: Arc<dyn Engine>,
    cache: RowCache,
    /// In the order they were made.
    under_way: RwLock<Vec<Arc<RowBatch>>>,
}

impl LayeredRows {
    pub(crate) fn new(engine: Arc<dyn Engine>, cache_bytes: usize) -> Self {
        Self {
            engine,
            cache: RowCache::new(cache_bytes),
            under_way: RwLock::new(Vec::new()),
        }
    }

    /// What is under it: without the batches under way.
    pub(crate) fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    pub(crate) fn cache(&self) -> &RowCache {
        &self.cache
    }

    /// Makes a batch visible to readers.
    pub(crate) fn show(&self, batch: RowBatch) {
        for (space, key, row) in batch.iter() {
            match row {
                Some(row) => self.cache.put(space, key, row),
                None => self.cache.remove(space, key),
            }
        }
        self.under_way.write().push(Arc::new(batch));
    }

    /// Writes what is under way into the engine, all or none.
    pub(crate) fn settle(&self) -> Result<(), EngineError> {
        let batches = self.under_way.read().clone();
        self.engine.write(&batches)?;
        self.under_way.write().clear();
        Ok(())
    }

    fn written(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> BTreeMap<Vec<u8>, Option<Bytes>> {
        let mut written = BTreeMap::new();
        for batch in self.under_way.read().iter() {
            for (row_space, key, row) in batch.iter() {
                if row_space == space && key >= from && to.is_none_or(|to| key < to) {
                    written.insert(key.to_vec(), row.cloned());
                }
            }
        }
        written
    }
}

impl Rows for LayeredRows {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, RowError> {
        if let Some(row) = self.cache.get(space, key) {
            return Ok(Some(row));
        }
        let under_way = self
            .under_way
            .read()
            .iter()
            .rev()
            .find_map(|batch| batch.get(space, key));
        if let Some(written) = under_way {
            return Ok(written);
        }
        let row = self.engine.get(space, key)?;
        if let Some(row) = &row {
            self.cache.put(space, key, row);
        }
        Ok(row)
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), RowError> {
        // Before the engine is asked: what is settled in between is in both.
        let mut written = self.written(space, from, to).into_iter().peekable();
        let mut step = ControlFlow::Continue(());
        self.engine.scan(space, from, to, &mut |key, row| {
            while let Some((newer, newer_row)) = written.next_if(|(newer, _)| **newer < *key) {
                step = visit_some(&newer, newer_row, visit);
                if step.is_break() {
                    return step;
                }
            }
            step = match written.next_if(|(newer, _)| **newer == *key) {
                Some((_, newer_row)) => visit_some(key, newer_row, visit),
                None => visit(key, row),
            };
            step
        })?;
        for (key, row) in written {
            if step.is_break() {
                break;
            }
            step = visit_some(&key, row, visit);
        }
        Ok(())
    }
}

/// Visits a row of a batch, if the batch does not delete it.
fn visit_some(
    key: &[u8],
    row: Option<Bytes>,
    visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
) -> ControlFlow<()> {
    match row {
        Some(row) => visit(key, row),
        None => ControlFlow::Continue(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::engine::MemoryEngine;

    fn batch(writes: &[(u8, Option<&'static [u8]>)]) -> RowBatch {
        let mut batch = RowBatch::default();
        for (key, row) in writes {
            match row {
                Some(row) => batch.put(Space::Lease, &[*key], Bytes::from_static(row)),
                None => batch.delete(Space::Lease, &[*key]),
            }
        }
        batch
    }

    fn scanned(rows: &LayeredRows) -> Vec<(u8, Bytes)> {
        let mut found = Vec::new();
        rows.scan(Space::Lease, &[1], Some(&[9]), &mut |key, row| {
            found.push((key[0], row));
            ControlFlow::Continue(())
        })
        .unwrap();
        found
    }

    #[test]
    fn batches_under_way_read_as_if_they_were_written() {
        let rows = LayeredRows::new(Arc::new(MemoryEngine::default()), 1 << 20);
        rows.show(batch(&[
            (0, Some(b"out")),
            (2, Some(b"a")),
            (4, Some(b"a")),
        ]));
        rows.show(batch(&[(5, Some(b"a")), (6, Some(b"a"))]));
        rows.settle().unwrap();
        rows.show(batch(&[(1, Some(b"b")), (4, Some(b"b")), (5, None)]));
        rows.show(batch(&[(1, Some(b"c")), (3, Some(b"c")), (7, Some(b"c"))]));
        let before = scanned(&rows);
        let wanted = [(1, "c"), (2, "a"), (3, "c"), (4, "b"), (6, "a"), (7, "c")];
        let wanted = wanted.map(|(key, row)| (key, Bytes::from_static(row.as_bytes())));
        assert_eq!(before, wanted);
        let get = |key| rows.get(Space::Lease, &[key]).unwrap();
        assert_eq!((get(1), get(5)), (Some(Bytes::from_static(b"c")), None));
        rows.settle().unwrap();
        assert_eq!(scanned(&rows), before);
    }

    #[test]
    fn a_scan_stops_where_its_visitor_does() {
        let rows = LayeredRows::new(Arc::new(MemoryEngine::default()), 1 << 20);
        rows.show(batch(&[(2, Some(b"a")), (4, Some(b"a"))]));
        rows.settle().unwrap();
        rows.show(batch(&[(1, Some(b"b")), (3, Some(b"b")), (5, Some(b"b"))]));
        for stop in 1..=5 {
            let mut visited = Vec::new();
            rows.scan(Space::Lease, &[], None, &mut |key, _| {
                visited.push(key[0]);
                if key[0] == stop {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
            .unwrap();
            assert_eq!(visited, (1..=stop).collect::<Vec<_>>());
        }
    }
}
