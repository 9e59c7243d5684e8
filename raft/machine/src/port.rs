//! The narrow traits through which every face speaks to the quorum.
//!
//! `nautilus-consensus` implements them over openraft; the feature `solo`
//! implements [`Kv`] over one in-memory machine, for tests of the faces.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::command::Proposal;
use crate::event::Event;
use crate::outcome::Applied;
use crate::types::{KeyRange, LogPosition, NodeId, RangeRequest, RangeResponse, Revision};

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
}

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
    /// The watcher fell behind by more than its buffer; resume after `resume_after`.
    #[error("the watcher is too slow; resume after revision {resume_after}")]
    Lagged {
        /// The last revision delivered.
        resume_after: Revision,
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
