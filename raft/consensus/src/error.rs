//! Why a node can't start, join, or go on.

use nautilus_machine::NodeId;

/// Starting failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StartError {
    /// The configuration makes no sense.
    #[error("configuration: {0}")]
    Config(String),
    /// The disk or what is on it.
    #[error("{0}")]
    Storage(String),
    /// Raft refused.
    #[error("raft: {0}")]
    Raft(String),
}

/// Genesis failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InitializeError {
    /// The data directory is not empty: this node is or was a member already.
    #[error(
        "this node already belongs to a quorum (its log is not empty); genesis is for an empty data directory"
    )]
    AlreadyInitialized,
    /// Raft stopped.
    #[error("raft: {0}")]
    Raft(String),
}

/// Joining failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JoinError {
    /// Nobody of those asked could decide.
    #[error("no member of the quorum could be asked to join: {0}")]
    Unavailable(String),
    /// The quorum refused this node.
    #[error("the quorum refused node {node_id}: {reason}")]
    Refused {
        /// Who asked.
        node_id: NodeId,
        /// In the leader's words.
        reason: String,
    },
}

/// The error that must end the process: it can't serve, and a restart from its disk
/// is the only way on.
#[derive(Debug, Clone, thiserror::Error)]
#[error("consensus stopped: {0}")]
pub struct FatalError(pub String);
