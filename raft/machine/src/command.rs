//! What can be asked of the state machine. Closed and versioned: a node refuses
//! an entry of a version it does not know instead of guessing.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::types::{
    Digest, KeyRange, KeyValue, LeaseId, LogPosition, RangeRequest, Revision, UnixMillis,
};

/// A command on its way to the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// What to do.
    pub command: Command,
    /// Apply only if the entry's term is this one: a deposed leader's plan fails.
    pub guard_term: Option<u64>,
    /// The request's trace, so that every replica's apply joins it.
    pub trace: Option<TraceContext>,
}

impl Proposal {
    /// A proposal without guard or trace.
    pub fn new(command: Command) -> Self {
        Self {
            command,
            guard_term: None,
            trace: None,
        }
    }
}

/// W3C trace context (<https://www.w3.org/TR/trace-context/>), sampled requests only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// 16 bytes of trace id.
    pub trace_id: [u8; 16],
    /// 8 bytes of the parent span's id.
    pub span_id: [u8; 8],
}

/// A proposal as it stands in the log: stamped with the leader's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The leader's time.
    pub time: UnixMillis,
    /// The proposal.
    pub proposal: Proposal,
}

/// Every change the machine knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Compare, then one of two lists of operations, atomically.
    Txn(Txn),
    /// Grants a lease that the leader lets end `ttl_ms` after its last renewal.
    LeaseGrant {
        /// Chosen by the proposer; refused if it lives already.
        id: LeaseId,
        /// Time to live in milliseconds, at least 1.
        ttl_ms: u64,
    },
    /// Ends a lease and deletes its keys.
    LeaseRevoke {
        /// Which lease.
        id: LeaseId,
    },
    /// Ends those of the leases that live, and deletes their keys: the leader's word
    /// that their time has run out.
    ExpireLeases {
        /// Which leases; unknown ones are passed over.
        ids: Vec<LeaseId>,
    },
    /// Forgets every version that is not the newest at `revision`: at once for
    /// readers; rows that are more than one entry may remove go with
    /// [`Command::CompactStep`].
    Compact {
        /// Not above the present revision.
        revision: Revision,
    },
    /// Removes the next rows that a compaction has left.
    CompactStep,
    /// A piece of a restore into an empty store: keys as they were, with their
    /// revisions, versions and leases. Until the last piece nothing else is written.
    Load {
        /// Keys not loaded yet, in any order.
        kvs: Vec<KeyValue>,
        /// Leases and their times to live in milliseconds; no later than the keys that
        /// hang on them.
        leases: Vec<(LeaseId, u64)>,
        /// With the last piece, the revision at which the store then stands, compacted
        /// there.
        last: Option<Revision>,
    },
    /// Ends a stretch of the log: every replica notes its digest here and takes a
    /// snapshot, and compares its note of the previous checkpoint with the leader's.
    Checkpoint {
        /// The proposer's note of the previous checkpoint.
        previous: Option<(LogPosition, Digest)>,
    },
}

/// Compare/then/else, as in etcd.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Txn {
    /// All must hold for `then` to run.
    pub compare: Vec<Compare>,
    /// Run when every comparison holds.
    pub then: Vec<Operation>,
    /// Run otherwise.
    pub otherwise: Vec<Operation>,
}

/// One comparison of a transaction; an absent key compares as version 0,
/// revisions 0 and no lease, and never satisfies a comparison of its value
/// (as in etcd: an empty value and no value differ).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// The keys compared: each of them must satisfy the comparison.
    pub range: KeyRange,
    /// The attribute and the value to compare it with.
    pub target: CompareTarget,
    /// How.
    pub op: CompareOp,
}

impl Compare {
    /// `key` is at exactly `mod_revision` (0: does not exist).
    pub fn mod_revision(key: impl Into<Bytes>, mod_revision: Revision) -> Self {
        Self {
            range: KeyRange::single(key),
            target: CompareTarget::ModRevision(mod_revision),
            op: CompareOp::Equal,
        }
    }
}

/// The right side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompareTarget {
    /// Puts since creation.
    Version(u64),
    /// Revision of creation.
    CreateRevision(Revision),
    /// Revision of the last put.
    ModRevision(Revision),
    /// The value's bytes.
    Value(Bytes),
    /// The lease, 0 for none.
    Lease(i64),
}

/// The relation asked for: attribute OP target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompareOp {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `>`
    Greater,
    /// `<`
    Less,
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Write a key.
    Put(Put),
    /// Delete a range; the outcome holds the deleted versions when asked.
    Delete {
        /// Which keys.
        range: KeyRange,
        /// Return what was deleted.
        prev_kv: bool,
    },
    /// Read, inside the transaction.
    Range(RangeRequest),
    /// A nested transaction.
    Txn(Txn),
}

/// A write of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// The key, not empty.
    pub key: Bytes,
    /// The value; must be empty with `ignore_value`.
    pub value: Bytes,
    /// Attach to this lease, which must live.
    pub lease: Option<LeaseId>,
    /// Return the version replaced.
    pub prev_kv: bool,
    /// Keep the present value; the key must exist.
    pub ignore_value: bool,
    /// Keep the present lease; the key must exist.
    pub ignore_lease: bool,
}

impl Put {
    /// A plain write.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
            lease: None,
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
        }
    }
}
