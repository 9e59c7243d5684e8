//! The narrow traits through which every face speaks to the quorum.
//!
//! `nautilus-consensus` implements them over openraft; the feature `solo`
//! implements [`Kv`] over one in-memory machine, for tests of the faces.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::command::Proposal;
use crate::event::{Event, WatchedEvent};
use crate::lease::LeaseView;
use crate::ledger::receipt::{Consistency, LedgerError, Receipt};
use crate::outcome::Applied;
use crate::types::{KeyRange, LeaseId, LogPosition, NodeId, RangeRequest, RangeResponse, Revision};

/// The replicated key space, the same on every node.
pub trait Kv: Send + Sync + 'static {
    /// Replicates a command through whichever node leads, and answers once it is
    /// applied on this node too, so that a read here after it sees it.
    /// (`Applied::events` is empty in the answer.)
    fn propose(&self, proposal: Proposal) -> BoxFuture<'_, Result<Applied, ProposeError>>;

    /// Waits until this node has applied everything that was acknowledged anywhere
    /// before the call. Reads made after it are linearizable.
    fn read_barrier(&self) -> BoxFuture<'_, Result<Revision, BarrierError>>;

    /// Reads this node's state as it is now (serializable). Blocks on disk for
    /// milliseconds at most per thousand keys; use a blocking thread for large ranges.
    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, RangeError>;

    /// This node's newest applied revision.
    fn revision(&self) -> Revision;

    /// The oldest revision that can still be read or watched from.
    fn compacted_revision(&self) -> Revision;

    /// Every event of `range` from a revision on, past and future.
    fn watch(&self, request: WatchRequest) -> Result<Box<dyn Watcher>, WatchError>;

    /// An empty group of watches that share one bounded queue.
    fn watch_group(&self) -> Box<dyn WatchGroup>;

    /// Who leads, as far as this node knows.
    fn leadership(&self) -> Leadership;

    /// The present leadership and every change of it; ends with the node.
    fn leadership_changes(&self) -> BoxStream<'static, Leadership>;
}

/// What to watch.
#[derive(Debug, Clone)]
pub struct WatchRequest {
    /// Which keys.
    pub range: KeyRange,
    /// The first revision wanted; `None`: everything after the present one.
    pub from: Option<Revision>,
    /// Whether each event carries the version before it.
    pub previous: bool,
}

/// Many watches, delivered through one queue. A watch that falls behind is served
/// from history until it is level again: it is never ended for slowness, and none of
/// its events is lost or doubled. Dropping the group ends them all.
pub trait WatchGroup: Send {
    /// Adds a watch; `id` is not in use in this group.
    fn add(&mut self, id: i64, request: WatchRequest) -> Result<(), WatchError>;

    /// Ends a watch; false if there is none of that id. Nothing of it comes after.
    fn remove(&mut self, id: i64) -> bool;

    /// The next message of any watch; pends while there is none. Cancel safe.
    fn next(&mut self) -> BoxFuture<'_, WatchMessage>;

    /// The revision up to which everything of the watch has been returned by
    /// [`WatchGroup::next`]; `None` for an unknown id or one that catches up.
    fn progress(&self, id: i64) -> Option<Revision>;

    /// The same for all watches of the group; `None` while one catches up.
    fn synced(&self) -> Option<Revision>;
}

/// What a watch of a group has to say.
#[derive(Debug)]
pub struct WatchMessage {
    /// Which watch.
    pub id: i64,
    /// Events, at least one and all of a revision together; an error ends the watch.
    pub result: Result<Vec<WatchedEvent>, WatchError>,
}

/// One watch. Dropping it ends it.
pub trait Watcher: Send {
    /// The next events, at least one; those of one revision are never split.
    /// Cancel safe.
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Event>, WatchError>>;

    /// The revision up to which every matching event has been returned by
    /// [`Watcher::next`]; grows even when nothing matches.
    fn progress(&self) -> Revision;
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The present term.
    pub term: u64,
    /// The leader, when known.
    pub leader: Option<Member>,
    /// Whether it is this node, and it has committed in its own term.
    pub is_self: bool,
}

/// A node of the quorum.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// `host:port` where peers reach it.
    pub peer_address: String,
    /// `https://host:port` where clients reach it; empty until it has joined.
    pub api_address: String,
    /// `https://host:port` of its etcd face; empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client_address: String,
    /// Voter or learner.
    pub role: MemberRole,
    /// Hex of the platform identity (chip id) pinned when it joined; empty until then.
    pub platform: String,
}

/// A member's part in the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    /// Counts for majorities.
    Voter,
    /// Receives the log only.
    #[default]
    Learner,
}

/// What an operator gives to admit a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMember {
    /// Its id, unused so far.
    pub id: NodeId,
    /// `host:port` where peers reach it.
    pub peer_address: String,
}

/// One node's view of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node.
    pub id: NodeId,
    /// `leader`, `follower`, `candidate` or `learner`.
    pub role: String,
    /// Its term.
    pub term: u64,
    /// Its last log entry.
    pub last_log: LogPosition,
    /// Its last applied entry.
    pub applied: LogPosition,
    /// Its store's revision.
    pub revision: Revision,
    /// Hex of the digest noted at the last checkpoint, and the checkpoint's index.
    pub checkpoint: Option<(u64, String)>,
    /// Hex of the digest of its state at `applied`.
    pub digest: String,
}

/// Membership and status.
pub trait Cluster: Send + Sync + 'static {
    /// This node's own state.
    fn status(&self) -> NodeStatus;
    /// The members, by id.
    fn members(&self) -> Vec<Member>;
    /// Admits a node as a learner; it may then join.
    fn add(&self, member: NewMember) -> BoxFuture<'_, Result<(), ClusterError>>;
    /// Makes a learner that has caught up a voter.
    fn promote(&self, id: NodeId) -> BoxFuture<'_, Result<(), ClusterError>>;
    /// Takes a member out.
    fn remove(&self, id: NodeId) -> BoxFuture<'_, Result<(), ClusterError>>;
    /// Hands leadership to a voter.
    fn transfer(&self, id: NodeId) -> BoxFuture<'_, Result<(), ClusterError>>;
    /// Changes where peers reach a member.
    fn update(&self, id: NodeId, peer_address: String) -> BoxFuture<'_, Result<(), ClusterError>>;
}

/// Leases as their clock sees them: the leader keeps renewals in its memory, and a new
/// leader gives every lease its whole time again. Granting and revoking are commands.
pub trait Leases: Send + Sync + 'static {
    /// Starts a lease's time anew; gives its time to live in milliseconds.
    fn keep_alive(&self, id: LeaseId) -> BoxFuture<'_, Result<u64, LeaseError>>;

    /// What is left of a lease's time.
    fn remaining(&self, id: LeaseId) -> BoxFuture<'_, Result<LeaseTimes, LeaseError>>;

    /// A lease as this node has applied it.
    fn lease(&self, id: LeaseId) -> Option<LeaseView>;

    /// The ids of all leases that this node has applied, in order.
    fn lease_ids(&self) -> Vec<LeaseId>;
}

/// A lease's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseTimes {
    /// The whole time to live, in milliseconds.
    pub ttl_ms: u64,
    /// What is left of it.
    pub remaining_ms: u64,
}

/// Why a lease has no times.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeaseError {
    /// It never was, or it has ended.
    #[error("requested lease not found")]
    NotFound,
    /// No leader answered in time.
    #[error("no leader could answer for the lease: {0}")]
    Unavailable(String),
}

/// The upkeep of this node's store.
pub trait Maintenance: Send + Sync + 'static {
    /// How large it is.
    fn sizes(&self) -> StoreSizes;

    /// The hash of every version up to `revision` (the newest when absent) that
    /// compaction has kept; equal on all members.
    fn hash_kv(&self, revision: Option<Revision>) -> BoxFuture<'_, Result<KvHash, RangeError>>;

    /// Gives the space of what was deleted back to the file system.
    fn defragment(&self) -> BoxFuture<'_, Result<(), MaintenanceError>>;

    /// A snapshot of the state as it is now, sealed by the quorum's key, in pieces.
    fn snapshot(&self) -> BoxFuture<'_, Result<SnapshotStream, MaintenanceError>>;
}

/// The bytes of a sealed snapshot.
pub type SnapshotStream = BoxStream<'static, Result<Bytes, MaintenanceError>>;

/// The ledger of every change applied: what it takes to prove one of them.
pub trait Ledger: Send + Sync + 'static {
    /// The change of `key` at `revision`, or the only one there if no key is given, with
    /// the proof that it is in the ledger as it is now. After a read barrier.
    fn receipt(
        &self,
        revision: Revision,
        key: Option<Bytes>,
    ) -> BoxFuture<'_, Result<Receipt, LedgerError>>;

    /// The proof that the ledger of `to` leaves (all there are now, when absent) begins
    /// with that of `from` leaves. After a read barrier.
    fn consistency(
        &self,
        from: u64,
        to: Option<u64>,
    ) -> BoxFuture<'_, Result<Consistency, LedgerError>>;
}

/// The sizes of a store on disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoreSizes {
    /// All its files.
    pub total_bytes: u64,
    /// What of them holds rows that live.
    pub in_use_bytes: u64,
}

/// A hash of the key space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvHash {
    /// The hash.
    pub hash: u32,
    /// The revision up to which it goes.
    pub revision: Revision,
    /// The revision of the last compaction.
    pub compacted: Revision,
    /// The store's newest revision.
    pub current: Revision,
}

/// Why upkeep failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct MaintenanceError(pub String);

/// Messages to the leader's memory that are no part of the replicated state
/// (heartbeats of workers). Delivered at most once, over the attested transport.
pub trait LeaderChannel: Send + Sync + 'static {
    /// Hands `message` to the leader's [`LeaderHandler`], on this node if it leads.
    fn call(&self, message: Bytes) -> BoxFuture<'_, Result<Bytes, CallError>>;
}

/// The leader's end of a [`LeaderChannel`].
pub trait LeaderHandler: Send + Sync + 'static {
    /// Answers one message.
    fn handle(&self, message: Bytes) -> BoxFuture<'_, Result<Bytes, String>>;
}

/// Why a proposal has no outcome.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// Not applied and never will be: it may be proposed again.
    #[error("no leader could take the proposal: {0}")]
    Unavailable(String),
    /// Whether it was or will be applied is not known.
    #[error("the leader was lost while the proposal was under way; its outcome is unknown: {0}")]
    Unknown(String),
    /// Larger than the limit.
    #[error("proposal of {size} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Bytes asked.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The node's own failure (disk, corruption).
    #[error("storage failed: {0}")]
    Storage(String),
}

/// Why a barrier failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BarrierError {
    /// No leader confirmed its leadership in time.
    #[error("no leader confirmed the read: {0}")]
    Unavailable(String),
}

/// Why a range failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RangeError {
    /// The revision is gone.
    #[error("mvcc: required revision has been compacted")]
    Compacted {
        /// The oldest readable revision.
        compacted: Revision,
    },
    /// The revision is yet to come.
    #[error("mvcc: required revision is a future revision")]
    FutureRevision {
        /// The newest revision.
        current: Revision,
    },
    /// A row could not be read: the node must not serve.
    #[error("storage failed: {0}")]
    Storage(String),
}

/// Why a watch ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WatchError {
    /// The revision is gone.
    #[error("mvcc: required revision has been compacted")]
    Compacted {
        /// The oldest revision that can be watched from.
        compacted: Revision,
    },
    /// The node is stopping.
    #[error("the node is stopping")]
    Closed,
    /// A row could not be read.
    #[error("storage failed: {0}")]
    Storage(String),
}

/// Why a membership change failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClusterError {
    /// The request makes no sense in the present membership.
    #[error("{0}")]
    Invalid(String),
    /// No leader, or it was lost on the way.
    #[error("{0}")]
    Unavailable(String),
}

/// Why a message did not get an answer from the leader.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// No leader was reached.
    #[error("no leader could be reached: {0}")]
    Unavailable(String),
    /// The leader's handler refused.
    #[error("{0}")]
    Refused(String),
}
