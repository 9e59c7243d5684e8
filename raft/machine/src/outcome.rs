//! What came of an entry.

use serde::{Deserialize, Serialize};

use crate::encoding::Place;
use crate::event::Event;
use crate::types::{Digest, KeyValue, LeaseId, LogPosition, RangeResponse, Revision, UnixMillis};

/// Everything one entry did: the proposer gets `outcome`, watchers get `events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The entry's place in the log.
    pub position: LogPosition,
    /// The time the machine used for it (monotonic).
    pub time: UnixMillis,
    /// The store's revision after it.
    pub revision: Revision,
    /// What the proposer hears.
    pub outcome: Outcome,
    /// What watchers hear, in order; `prev` is left out of them.
    pub events: Vec<Event>,
    /// Where the version before each event stands, if there was one:
    /// [`crate::read_version`] reads it for those who want it.
    pub previous: Vec<Option<Place>>,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Of [`crate::Command::Txn`].
    Txn {
        /// Whether every comparison held.
        succeeded: bool,
        /// One outcome per operation of the branch that ran.
        results: Vec<TxnOutcome>,
    },
    /// A lease was granted.
    Lease {
        /// Which.
        id: LeaseId,
        /// Milliseconds.
        ttl_ms: u64,
    },
    /// Leases ended (revoked or expired).
    LeasesEnded(Vec<LeaseId>),
    /// Compacted, or loaded: nothing more to say.
    Done,
    /// A checkpoint was noted.
    Checkpoint {
        /// This replica's digest here.
        digest: Digest,
        /// This replica's own note of the previous checkpoint, to be compared with
        /// the command's: a difference means that replicas diverged.
        previous: Option<(LogPosition, Digest)>,
    },
    /// Refused; nothing changed.
    Refused(Refusal),
}

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The proposal was guarded by another term.
    #[error("the proposal was made for term {expected}, but the log is in term {actual}")]
    Fenced {
        /// The guard.
        expected: u64,
        /// The entry's term.
        actual: u64,
    },
    /// etcd: `requested lease not found`.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// etcd: `lease already exists`.
    #[error("lease already exists")]
    LeaseExists,
    /// A time to live of 0, or an id of 0.
    #[error("too small a lease: id and time to live must not be 0")]
    LeaseInvalid,
    /// etcd: `key not found` (ignore_value or ignore_lease on a missing key).
    #[error("key not found")]
    KeyNotFound,
    /// etcd: `key is not provided`.
    #[error("key is not provided")]
    EmptyKey,
    /// etcd: `value is provided` with ignore_value.
    #[error("value is provided")]
    ValueProvided,
    /// etcd: `lease is provided` with ignore_lease.
    #[error("lease is provided")]
    LeaseProvided,
    /// etcd: `duplicate key given in txn request`.
    #[error("duplicate key given in txn request")]
    DuplicateKey,
    /// Transactions nested deeper than the machine follows.
    #[error("transactions are nested deeper than {limit}")]
    TooDeep {
        /// Levels allowed.
        limit: usize,
    },
    /// etcd: `mvcc: required revision has been compacted`.
    #[error("mvcc: required revision has been compacted")]
    Compacted,
    /// etcd: `mvcc: required revision is a future revision`.
    #[error("mvcc: required revision is a future revision")]
    FutureRevision,
    /// A restore is under way.
    #[error("a restore is under way: nothing else is written until it ends")]
    Loading,
    /// A restore into a store that has been written.
    #[error("the store is not empty: it stands at revision {revision}")]
    NotEmpty {
        /// Where it stands.
        revision: Revision,
    },
    /// A piece of a restore makes no sense.
    #[error("this cannot be loaded: {reason}")]
    LoadInvalid {
        /// What is wrong, and of which key or lease.
        reason: String,
    },
}

/// The answer to one operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnOutcome {
    /// Of a put; the version replaced, when asked.
    Put(Option<KeyValue>),
    /// Of a delete: how many, and the versions deleted, when asked.
    Delete {
        /// Keys deleted.
        deleted: u64,
        /// Filled with `prev_kv`.
        prev: Vec<KeyValue>,
    },
    /// Of a range.
    Range(RangeResponse),
    /// Of a nested transaction.
    Txn {
        /// Whether its comparisons held.
        succeeded: bool,
        /// Its operations' outcomes.
        results: Vec<TxnOutcome>,
    },
}
