//! The nouns shared by every layer: keys, revisions, leases, time, positions.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Identifies a master, from its configuration. Never 0.
pub type NodeId = u64;

/// A point in the history of the key space. 1 is the empty store, as in etcd.
pub type Revision = u64;

/// Milliseconds since the Unix epoch, by the leader's clock when it took the
/// proposal; never less than that of any earlier applied entry.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct UnixMillis(pub u64);

/// A lease's identity. 0 stands for "no lease" on the wire and is refused here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseId(pub i64);

/// Where an entry stands in the Raft log.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct LogPosition {
    /// The term in which the entry was proposed.
    pub term: u64,
    /// Its index, counted from 0.
    pub index: u64,
}

/// The keyed, order-independent digest of the logical state (never of
/// ciphertext, which differs between replicas).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

/// One version of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; empty in a keys-only answer.
    pub value: Bytes,
    /// Revision of the put that created the key's present life.
    pub create_revision: Revision,
    /// Revision of the put that wrote this version.
    pub mod_revision: Revision,
    /// Puts since creation, from 1.
    pub version: u64,
    /// The lease that will delete the key, if any.
    pub lease: Option<LeaseId>,
}

/// Where a [`KeyRange`] ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RangeEnd {
    /// The range is its start key alone.
    Single,
    /// Up to this key, which is not included.
    Key(Bytes),
    /// To the end of the key space.
    Unbounded,
}

/// The quorum's own keys. Faces for clients never show them: a range that does not
/// start among them skips them.
pub const RESERVED_PREFIX: &[u8] = b"/nautilus/";
/// The first key after the quorum's own.
pub const RESERVED_END: &[u8] = b"/nautilus0";

/// Begins the keys of Kubernetes objects, which are reserved.
pub const OBJECTS_PREFIX: &[u8] = b"/nautilus/registry/";

/// Whether a client may learn of `key`, through one face or another: its own keys and
/// objects, but nothing else of the quorum's.
pub fn is_clients(key: &[u8]) -> bool {
    !is_reserved(key) || key.starts_with(OBJECTS_PREFIX)
}

/// Whether `key` is one of the quorum's own.
pub fn is_reserved(key: &[u8]) -> bool {
    key.starts_with(RESERVED_PREFIX)
}

/// A contiguous set of keys, from `start`, which is included; without the
/// [reserved](RESERVED_PREFIX) keys, unless `start` is one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRange {
    /// The first key.
    pub start: Bytes,
    /// Where the range ends.
    pub end: RangeEnd,
}

impl KeyRange {
    /// Exactly `key`.
    pub fn single(key: impl Into<Bytes>) -> Self {
        Self {
            start: key.into(),
            end: RangeEnd::Single,
        }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let mut end = start.to_vec();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return Self {
                    start,
                    end: RangeEnd::Key(end.into()),
                };
            }
        }
        Self {
            start,
            end: RangeEnd::Unbounded,
        }
    }

    /// From `start` up to `end`, which is not included.
    pub fn span(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self {
            start: start.into(),
            end: RangeEnd::Key(end.into()),
        }
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        let within = match &self.end {
            RangeEnd::Single => return key == &self.start[..],
            RangeEnd::Key(end) => key >= &self.start[..] && key < &end[..],
            RangeEnd::Unbounded => key >= &self.start[..],
        };
        within && (!is_reserved(key) || is_reserved(&self.start))
    }
}

/// A read of the key space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// At which revision; the newest when absent.
    pub revision: Option<Revision>,
    /// At most so many keys, in key order; all when absent.
    pub limit: Option<u64>,
    /// Leave values out.
    pub keys_only: bool,
    /// Count only; `kvs` comes back empty.
    pub count_only: bool,
}

impl RangeRequest {
    /// The newest version of everything in `range`.
    pub fn newest(range: KeyRange) -> Self {
        Self {
            range,
            revision: None,
            limit: None,
            keys_only: false,
            count_only: false,
        }
    }
}

/// The answer to a [`RangeRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeResponse {
    /// The store's newest revision when the read was made.
    pub revision: Revision,
    /// The keys found, in key order.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut the answer.
    pub more: bool,
    /// How many keys the range holds at that revision, regardless of the limit.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_starts_elsewhere_skips_the_reserved_keys() {
        let all = KeyRange {
            start: Bytes::from_static(b"\0"),
            end: RangeEnd::Unbounded,
        };
        assert!(all.contains(b"/nautilus") && all.contains(b"/nautilus0"));
        assert!(!all.contains(b"/nautilus/") && !all.contains(b"/nautilus/ca"));
        assert!(KeyRange::prefix("/nautilus/").contains(b"/nautilus/ca"));
        assert!(KeyRange::single("/nautilus/ca").contains(b"/nautilus/ca"));
    }
}
