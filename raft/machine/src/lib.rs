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
//! - The same entries give the same ledger, whose root commits to every change.

mod checkpoint;
pub mod command;
mod compact;
mod digest;
mod encoding;
pub mod event;
mod hash;
mod index;
mod lease;
mod ledger;
mod load;
mod locate;
mod machine;
mod memory;
pub mod outcome;
pub mod port;
mod read;
mod restore;
pub mod rows;
#[cfg(feature = "solo")]
pub mod solo;
mod txn;
pub mod types;
mod varint;
#[cfg(feature = "solo")]
mod watching;
mod write;

pub use checkpoint::{CHECKPOINT_PIECE_BYTES, CheckpointError, CheckpointReader, IndexCheckpoint};
pub use command::{
    Command, Compare, CompareOp, CompareTarget, Entry, Operation, Proposal, Put, TraceContext, Txn,
};
pub use compact::{COMPACT_STEP_BYTES_MAX, COMPACT_STEP_ROWS_MAX};
pub use digest::DigestKey;
pub use encoding::{MACHINE_ROW, Place};
pub use event::{Event, EventKind, WatchedEvent};
pub use hash::KvHashScan;
pub use lease::LeaseView;
pub use ledger::hash::TreeHash;
pub use ledger::leaf::{Leaf, LeafKind};
pub use ledger::prove::{Committed, LedgerView};
pub use ledger::receipt::{Consistency, LedgerError, LedgerHead, Receipt};
pub use ledger::root::RootStatement;
pub use ledger::verify::{PROOF_HASHES_MAX, verify_consistency, verify_inclusion};
pub use load::LOAD_ITEMS_MAX;
pub use locate::{Located, ReadPut};
pub use machine::{Machine, MachineError};
pub use memory::MemoryRows;
pub use outcome::{Applied, Outcome, Refusal, TxnOutcome};
pub use port::{
    BarrierError, CallError, Cluster, ClusterError, Kv, KvHash, LeaderChannel, LeaderHandler,
    Leadership, LeaseError, LeaseTimes, Leases, Ledger, Maintenance, MaintenanceError, Member,
    MemberRole, NewMember, NodeStatus, ProposeError, RangeError, SnapshotStream, StoreSizes,
    WatchError, WatchGroup, WatchMessage, WatchRequest, Watcher,
};
pub use read::{HISTORY_ROWS_MAX, History, HistoryScan, read_version};
pub use rows::{RowBatch, RowError, Rows, Space};
pub use txn::TXN_DEPTH_MAX;
pub use types::{
    Digest, KeyRange, KeyValue, LeaseId, LogPosition, NodeId, OBJECTS_PREFIX, RESERVED_END,
    RESERVED_PREFIX, RangeEnd, RangeRequest, RangeResponse, Revision, UnixMillis, is_clients,
    is_reserved,
};
#[cfg(feature = "solo")]
pub use watching::SingleWatches;
