//! The running node: what every port and every task of it shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use nautilus_machine::{
    Command, LeaderHandler, Leadership, LogPosition, NodeId, Proposal, UnixMillis,
};
use nautilus_store::Store;
use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use parking_lot::RwLock;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use crate::barrier::Barrier;
use crate::config::ConsensusConfig;
use crate::error::FatalError;
use crate::intake::{self, Intake, Submission};
use crate::link::Links;
use crate::log::WalReader;
use crate::loss::LossDetector;
use crate::peers::Peers;
use crate::restart::{Lives, Registrar, Restart};
use crate::state_machine::Machinery;
use crate::transport::PeerIdentity;
use crate::types::{AppliedReply, Raft};

/// Gives the quorum's secrets for a member, once it is pinned; or says why it does not
/// get them.
pub type SecretsSource = Arc<dyn Fn(NodeId) -> Result<Zeroizing<Vec<u8>>, String> + Send + Sync>;

/// What was attested of a member on its newest connection with this node.
pub type AttestedPeer = Arc<dyn Fn(NodeId) -> Option<PeerIdentity> + Send + Sync>;

/// May refuse, in words, that this node as the leader gives the learner a vote beside
/// these voters.
pub type PromotionGuard = Arc<dyn Fn(NodeId, &[NodeId]) -> Result<(), String> + Send + Sync>;

pub(crate) struct Core {
    pub(crate) config: ConsensusConfig,
    pub(crate) raft: Raft,
    pub(crate) peers: Arc<Peers>,
    pub(crate) machinery: Arc<Machinery>,
    pub(crate) log: WalReader,
    pub(crate) secrets: SecretsSource,
    pub(crate) handler: RwLock<Option<Arc<dyn LeaderHandler>>>,
    pub(crate) promotion_guard: RwLock<Option<PromotionGuard>>,
    pub(crate) leadership: watch::Sender<Leadership>,
    pub(crate) barrier: Barrier,
    pub(crate) intake: Intake,
    pub(crate) links: Links,
    pub(crate) losses: LossDetector,
    pub(crate) lives: Arc<Lives>,
    pub(crate) restart: Restart,
    pub(crate) registrar: Arc<Registrar>,
    pub(crate) pending: Semaphore,
    pub(crate) pending_kib: Semaphore,
    pub(crate) clock: LeaderClock,
    pub(crate) fatal: watch::Sender<Option<FatalError>>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// What came of handing a proposal to a leader.
#[derive(Debug, Clone)]
pub(crate) enum Attempt {
    /// Surely not appended.
    NotTaken(String),
    /// Perhaps appended.
    Unknown(String),
}

impl Core {
    pub(crate) fn store(&self) -> &Store {
        &self.machinery.store
    }

    /// Whom Raft takes for the leader, whether it can serve already or not.
    pub(crate) fn raft_leader(&self) -> Option<NodeId> {
        self.raft.metrics().borrow_watched().current_leader
    }

    pub(crate) fn raft_term(&self) -> u64 {
        self.raft.metrics().borrow_watched().current_term
    }

    /// Proposes on this node, which must lead; answers when it is applied here.
    /// `encoded` is `proposal`.
    pub(crate) async fn propose_here(
        self: &Arc<Self>,
        proposal: &Proposal,
        encoded: Bytes,
    ) -> Result<AppliedReply, Attempt> {
        let (submission, attempted) = Submission::here(proposal, encoded);
        intake::submit_one(self, submission).await;
        attempted
            .await
            .unwrap_or_else(|_| Err(Attempt::Unknown("the node is stopping".into())))
    }

    /// A proposal of the leader's own upkeep, void in any other term.
    pub(crate) async fn propose_in_term(
        self: &Arc<Self>,
        term: u64,
        command: Command,
    ) -> Result<AppliedReply, Attempt> {
        let proposal = Proposal {
            command,
            guard_term: Some(term),
            trace: None,
        };
        let encoded =
            postcard::to_stdvec(&proposal).map_err(|error| Attempt::NotTaken(error.to_string()))?;
        self.propose_here(&proposal, encoded.into()).await
    }

    /// The index a read has to wait for; this node must lead, and proves it to a quorum.
    pub(crate) async fn read_index_here(&self) -> Result<u64, String> {
        let linearizer = self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
        linearizer
            .map(|linearizer| linearizer.read_log_id().index())
            .map_err(|error| error.to_string())
    }

    /// Waits for another leadership, or a moment.
    pub(crate) async fn leadership_moves(&self, deadline: Instant) {
        /// A changed leader is usually seen long before; this is for what is not.
        const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(20);
        let until = deadline.min(Instant::now() + LOOK_AGAIN);
        let mut changes = self.leadership.subscribe();
        // Either outcome means: look again.
        let _ = tokio::time::timeout_at(until.into(), changes.changed()).await;
    }

    pub(crate) fn fail(&self, reason: String) {
        self.fatal.send_if_modified(|fatal| {
            let first = fatal.is_none();
            if first {
                tracing::error!(%reason, "consensus stopped; the process must end");
                *fatal = Some(FatalError(reason));
            }
            first
        });
    }

    pub(crate) fn applied(&self) -> Option<LogPosition> {
        self.machinery.tracker.newest()
    }
}

/// The time a leader stamps: the wall clock, but never back.
#[derive(Debug, Default)]
pub(crate) struct LeaderClock {
    last_ms: AtomicU64,
}

impl LeaderClock {
    /// Not before `applied`, and not before any earlier stamp of this node.
    pub(crate) fn stamp(&self, applied: UnixMillis) -> UnixMillis {
        let now = now_ms().max(applied.0);
        let before = self.last_ms.fetch_max(now, Ordering::Relaxed);
        UnixMillis(before.max(now))
    }
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
