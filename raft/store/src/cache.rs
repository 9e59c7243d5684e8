//! Rows in clear, kept in (enclave) memory: a read that finds its row here touches
//! neither the engine nor the cipher, and copies nothing.
//!
//! Only version rows are kept: a version never changes under its place, so nothing
//! here is ever stale. What compaction removes is taken out to save memory.
//!
//! Invariant: the weights of what is kept never exceed the capacity given.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use nautilus_machine::Space;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

/// Bytes of a version row's key: revision and position within it.
const PLACE_BYTES: usize = 12;
/// What one row costs beyond its own bytes (table, links, allocation), at most.
const ROW_OVERHEAD_BYTES: u64 = 160;
/// The row size that the table is first laid out for; it grows by itself.
const TYPICAL_ROW_BYTES: u64 = 1024;

type Place = [u8; PLACE_BYTES];

/// The cache of one engine's rows. Any number of threads.
pub(crate) struct RowCache {
    rows: Cache<Place, Bytes, RowWeight>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// What the cache has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RowCacheCounts {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) bytes: u64,
}

impl RowCache {
    /// A cache of `capacity_bytes` at most, overhead included.
    pub(crate) fn new(capacity_bytes: usize) -> Self {
        let capacity_bytes = capacity_bytes as u64;
        let rows = usize::try_from(capacity_bytes / TYPICAL_ROW_BYTES).unwrap_or(usize::MAX);
        Self {
            rows: Cache::with_weighter(rows, capacity_bytes, RowWeight),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    pub(crate) fn get(&self, space: Space, key: &[u8]) -> Option<Bytes> {
        let found = self.rows.get(&place(space, key)?);
        let count = if found.is_some() {
            &self.hits
        } else {
            &self.misses
        };
        count.fetch_add(1, Ordering::Relaxed);
        found
    }

    pub(crate) fn put(&self, space: Space, key: &[u8], row: &Bytes) {
        if let Some(place) = place(space, key) {
            self.rows.insert(place, row.clone());
        }
    }

    pub(crate) fn remove(&self, space: Space, key: &[u8]) {
        if let Some(place) = place(space, key) {
            self.rows.remove(&place);
        }
    }

    pub(crate) fn counts(&self) -> RowCacheCounts {
        RowCacheCounts {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            bytes: self.rows.weight(),
        }
    }
}

fn place(space: Space, key: &[u8]) -> Option<Place> {
    match space {
        Space::Revision => key.try_into().ok(),
        Space::Lease | Space::Meta | Space::Ledger => None,
    }
}

#[derive(Clone)]
struct RowWeight;

impl Weighter<Place, Bytes> for RowWeight {
    fn weight(&self, _: &Place, row: &Bytes) -> u64 {
        row.len() as u64 + ROW_OVERHEAD_BYTES
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_never_holds_more_than_it_may() {
        let capacity = 1 << 16;
        let cache = RowCache::new(capacity);
        for number in 0..1000u32 {
            let mut key = [0; PLACE_BYTES];
            key[8..].copy_from_slice(&number.to_be_bytes());
            cache.put(Space::Revision, &key, &Bytes::from(vec![1; 500]));
            assert!(cache.counts().bytes <= capacity as u64);
        }
        assert!(cache.counts().bytes > 0, "it holds something");
    }

    #[test]
    fn rows_that_can_change_are_not_kept() {
        let cache = RowCache::new(1 << 16);
        let key = [0; PLACE_BYTES];
        cache.put(Space::Lease, &key, &Bytes::from_static(b"row"));
        cache.put(Space::Meta, &key, &Bytes::from_static(b"row"));
        assert_eq!(cache.get(Space::Lease, &key), None);
        assert_eq!(cache.get(Space::Revision, &key), None);
    }
}
