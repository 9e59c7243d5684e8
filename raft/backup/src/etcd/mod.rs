//! etcd's snapshot files: read to migrate from it, written to migrate to it.
//!
//! A file is a bbolt database, followed by the SHA-256 of itself when it came from
//! `etcdctl snapshot save`. Facts about both formats: etcd's `server/storage`, bbolt's
//! `internal/common`.

mod bolt;
mod export;
mod snapshot;

pub use export::EtcdExport;
pub use snapshot::{EtcdSnapshot, Integrity};

/// etcd's message for one version of a key (`mvccpb.KeyValue`).
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct KeyValueMessage {
    #[prost(bytes = "bytes", tag = "1")]
    key: bytes::Bytes,
    #[prost(int64, tag = "2")]
    create_revision: i64,
    #[prost(int64, tag = "3")]
    mod_revision: i64,
    #[prost(int64, tag = "4")]
    version: i64,
    #[prost(bytes = "bytes", tag = "5")]
    value: bytes::Bytes,
    #[prost(int64, tag = "6")]
    lease: i64,
}

/// etcd's message for a lease (`leasepb.Lease`).
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct LeaseMessage {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl_seconds: i64,
}

/// The names of the buckets that matter here.
const KEY_BUCKET: &[u8] = b"key";
const LEASE_BUCKET: &[u8] = b"lease";
const META_BUCKET: &[u8] = b"meta";
/// The revision up to which etcd has compacted, in [`META_BUCKET`].
const FINISHED_COMPACT: &[u8] = b"finishedCompactRev";
const SCHEDULED_COMPACT: &[u8] = b"scheduledCompactRev";
/// Bytes of a revision as a row's key: main u64 BE ‖ `_` ‖ sub u64 BE; a tombstone's has
/// a `t` more.
const REVISION_BYTES: usize = 17;

fn revision_key(main: u64, sub: u64) -> [u8; REVISION_BYTES] {
    let mut key = [b'_'; REVISION_BYTES];
    key[..8].copy_from_slice(&main.to_be_bytes());
    key[9..].copy_from_slice(&sub.to_be_bytes());
    key
}

fn parse_revision(key: &[u8]) -> Option<(u64, bool)> {
    let (is_tombstone, fixed) = match key.len() {
        REVISION_BYTES => (false, key),
        length if length == REVISION_BYTES + 1 && key[REVISION_BYTES] == b't' => {
            (true, &key[..REVISION_BYTES])
        }
        _ => return None,
    };
    let main = u64::from_be_bytes(fixed[..8].try_into().ok()?);
    (fixed[8] == b'_' && i64::try_from(main).is_ok()).then_some((main, is_tombstone))
}
