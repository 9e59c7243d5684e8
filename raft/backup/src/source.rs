//! From the key space to an archive.
//!
//! Invariants
//! - Everything is read at one revision; a compaction that overtakes the reading is
//!   an error, never a gap.
//! - Reads are pages bounded in keys, aimed at [`PAGE_BYTES`], so that memory does not
//!   grow with the store.
//! - Blocks on disk: for a blocking thread.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use nautilus_machine::{
    KeyRange, KeyValue, Kv, LeaseId, Leases, RangeEnd, RangeRequest, RangeResponse, Revision,
};

use nautilus_machine::types::RESERVED_PREFIX;

use crate::error::BackupError;
use crate::identity::{IDENTITY_ROWS, is_identity};
use crate::record::{Lease, Record, Summary};
use crate::writer::{ArchiveInfo, ArchiveWriter, Seal};

/// Bytes of a page, about.
const PAGE_BYTES: usize = 1 << 20;
/// Keys of the first page.
const PAGE_KEYS_FIRST: u64 = 16;
/// Keys of any page, at most: bounds memory where values grow from one page to the next.
const PAGE_KEYS_MAX: u64 = 1_024;

/// Every lease with its time to live in milliseconds, as of now.
pub type LeaseTable = Arc<dyn Fn() -> Vec<(LeaseId, u64)> + Send + Sync>;

/// The table of a quorum's leases.
pub fn lease_table(leases: Arc<dyn Leases>) -> LeaseTable {
    Arc::new(move || {
        let ids = leases.lease_ids();
        let views = ids.into_iter().filter_map(|id| leases.lease(id));
        views.map(|lease| (lease.id, lease.ttl_ms)).collect()
    })
}

/// What is to be archived: the key space at one revision.
pub struct Cut {
    /// The revision.
    pub revision: Revision,
    /// Keys at it, without the quorum's identity.
    pub keys: u64,
    /// Leases, by id.
    pub leases: BTreeMap<LeaseId, u64>,
}

impl Cut {
    /// Takes the present revision. Leases are looked at before and after, so that each
    /// that a key of the revision names is known.
    pub fn take(kv: &dyn Kv, leases: &LeaseTable) -> Result<Self, BackupError> {
        let mut known: BTreeMap<LeaseId, u64> = leases().into_iter().collect();
        let revision = kv.revision();
        known.extend(leases());
        let mut keys = 0;
        for range in ranges() {
            keys += count(kv, range, revision)?;
        }
        for row in IDENTITY_ROWS {
            let range = match row.ends_with('/') {
                true => KeyRange::prefix(*row),
                false => KeyRange::single(*row),
            };
            keys -= count(kv, range, revision)?;
        }
        Ok(Self {
            revision,
            keys,
            leases: known,
        })
    }

    /// Visits every key, in order.
    pub fn each_key(
        &self,
        kv: &dyn Kv,
        visit: &mut dyn FnMut(KeyValue) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        let mut limit = PAGE_KEYS_FIRST;
        for mut range in ranges() {
            loop {
                let end = stretch(kv, &range, limit)?;
                let mut part = KeyRange {
                    start: range.start.clone(),
                    end: end.clone(),
                };
                loop {
                    let page = self.page(kv, &part, limit)?;
                    let Some(last) = page.kvs.last() else { break };
                    part.start = after(&last.key);
                    limit = next_limit(limit, &page.kvs);
                    for kv in page.kvs {
                        if !is_identity(&kv.key) {
                            visit(kv)?;
                        }
                    }
                    if !page.more {
                        break;
                    }
                }
                match end {
                    RangeEnd::Key(end) if range.end != RangeEnd::Key(end.clone()) => {
                        range.start = end;
                    }
                    _ => break,
                }
            }
        }
        Ok(())
    }

    fn page(
        &self,
        kv: &dyn Kv,
        range: &KeyRange,
        limit: u64,
    ) -> Result<RangeResponse, BackupError> {
        let request = RangeRequest {
            revision: Some(self.revision),
            limit: Some(limit),
            ..RangeRequest::newest(range.clone())
        };
        kv.range(&request).map_err(store)
    }
}

/// Where a stretch of about `limit` keys ends. A read in the past counts its whole range
/// key by key; the present is counted at once: so the present says how far to read.
fn stretch(kv: &dyn Kv, range: &KeyRange, limit: u64) -> Result<RangeEnd, BackupError> {
    let request = RangeRequest {
        limit: Some(limit),
        keys_only: true,
        ..RangeRequest::newest(range.clone())
    };
    let present = kv.range(&request).map_err(store)?;
    Ok(match present.kvs.last() {
        Some(last) if present.more => RangeEnd::Key(after(&last.key)),
        _ => range.end.clone(),
    })
}

/// Writes the key space at `cut` as an archive.
pub fn write_archive<W: Write>(
    kv: &dyn Kv,
    cut: &Cut,
    sink: W,
    seal: &Seal<'_>,
    cluster: &str,
    created_unix_ms: u64,
) -> Result<(W, Summary), BackupError> {
    let info = ArchiveInfo {
        cluster: cluster.to_owned(),
        revision: cut.revision,
        keys: cut.keys,
        leases: cut.leases.len() as u64,
        created_unix_ms,
    };
    let mut writer = ArchiveWriter::begin(sink, seal, info)?;
    for (&id, &ttl_ms) in &cut.leases {
        writer.add(&Record::Lease(Lease { id, ttl_ms }))?;
    }
    cut.each_key(kv, &mut |kv| {
        if let Some(lease) = kv.lease.filter(|lease| !cut.leases.contains_key(lease)) {
            return Err(BackupError::Store(format!(
                "lease {:x} of a key came and went while the snapshot began; take it again",
                lease.0
            )));
        }
        writer.add(&Record::Key(kv))
    })?;
    writer.finish()
}

/// The key space in its order, cut where the quorum's own rows begin and end, so that
/// no range straddles them.
fn ranges() -> [KeyRange; 3] {
    let own = KeyRange::prefix(RESERVED_PREFIX);
    let end = match &own.end {
        RangeEnd::Key(end) => end.clone(),
        RangeEnd::Single | RangeEnd::Unbounded => Bytes::new(),
    };
    [
        KeyRange::span(&b"\0"[..], RESERVED_PREFIX),
        own,
        KeyRange {
            start: end,
            end: RangeEnd::Unbounded,
        },
    ]
}

fn count(kv: &dyn Kv, range: KeyRange, revision: Revision) -> Result<u64, BackupError> {
    let request = RangeRequest {
        revision: Some(revision),
        count_only: true,
        ..RangeRequest::newest(range)
    };
    Ok(kv.range(&request).map_err(store)?.count)
}

/// The next key after `key`.
fn after(key: &Bytes) -> Bytes {
    [key, &b"\0"[..]].concat().into()
}

fn next_limit(limit: u64, kvs: &[KeyValue]) -> u64 {
    let bytes: usize = kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
    let each = (bytes / kvs.len().max(1)).max(1);
    let wanted = (PAGE_BYTES / each) as u64;
    wanted.clamp(1, limit * 2).min(PAGE_KEYS_MAX)
}

fn store(error: impl std::fmt::Display) -> BackupError {
    BackupError::Store(error.to_string())
}
