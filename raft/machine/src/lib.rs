//! The replicated state machine and the ports around it.
//!
//! Pure: knows no clock, no random source, no network, no disk, no async
//! runtime and no unordered map. Time and random values travel in the
//! [`Entry`]; rows are read and written through [`Rows`] and [`RowBatch`].
//!
//! Invariants
//! - The same entries in the same order give the same rows, outcomes, events
//!   and [`Digest`] on every replica.
//! - A revision is given once, to one entry, and grows by exactly one for every
//!   entry that changes the key space.

pub mod command;
pub mod event;
pub mod outcome;
pub mod port;
pub mod rows;
pub mod types;

pub use command::{
    Command, Compare, CompareOp, CompareTarget, Entry, Operation, Proposal, Put, TraceContext, Txn,
};
pub use event::{Event, EventKind};
pub use outcome::{Applied, Outcome, Refusal, TxnOutcome};
pub use port::{
    BarrierError, CallError, Cluster, ClusterError, Kv, LeaderChannel, LeaderHandler, Leadership,
    Member, MemberRole, NewMember, NodeStatus, ProposeError, RangeError, WatchError, WatchRequest,
    Watcher,
};
pub use rows::{RowBatch, RowError, Rows, Space};
pub use types::{
    Digest, KeyRange, KeyValue, LeaseId, LogPosition, NodeId, RangeEnd, RangeRequest,
    RangeResponse, Revision, UnixMillis,
};
