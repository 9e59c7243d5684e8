//! Everything the services share: the quorum's ports, this node's facts, limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::StreamExt as _;
use nautilus_machine::{Cluster, Kv, Leadership, NodeId, Revision};
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::alarms::Alarms;
use crate::limits::EtcdLimits;
use crate::proto::etcdserverpb::ResponseHeader;

/// The text of `/metrics`.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// What the composition root gives.
#[derive(Clone)]
pub struct EtcdParts {
    /// The key space.
    pub kv: Arc<dyn Kv>,
    /// Membership and status.
    pub cluster: Arc<dyn Cluster>,
    /// This node.
    pub node_id: NodeId,
    /// The quorum's identity, as every answer's header says it.
    pub cluster_id: u64,
    /// Bounds.
    pub limits: EtcdLimits,
    /// See [`MetricsText`].
    pub metrics_text: MetricsText,
}

/// The face's shared state.
pub struct EtcdContext {
    pub(crate) parts: EtcdParts,
    pub(crate) access: Access,
    pub(crate) alarms: Alarms,
    /// The term as last heard, so that a header costs no look at the leadership.
    term: AtomicU64,
    has_leader: AtomicBool,
}

impl EtcdContext {
    /// The state of one node's face.
    pub fn new(parts: EtcdParts) -> Arc<Self> {
        let context = Self {
            access: Access::default(),
            alarms: Alarms::default(),
            term: AtomicU64::new(0),
            has_leader: AtomicBool::new(false),
            parts,
        };
        context.note(&context.parts.kv.leadership());
        Arc::new(context)
    }

    /// The header of an answer given at `revision`.
    pub(crate) fn header(&self, revision: Revision) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.parts.cluster_id,
            member_id: self.parts.node_id,
            revision: i64::try_from(revision).unwrap_or(i64::MAX),
            raft_term: self.term.load(Ordering::Relaxed),
        }
    }

    /// The header of an answer given now.
    pub(crate) fn header_now(&self) -> ResponseHeader {
        self.header(self.parts.kv.revision())
    }

    /// Whether this node knows of a leader.
    pub(crate) fn has_leader(&self) -> bool {
        self.has_leader.load(Ordering::Relaxed)
    }

    /// Follows the leadership until `stop`.
    pub(crate) async fn follow_leadership(self: Arc<Self>, stop: CancellationToken) {
        let mut changes = self.parts.kv.leadership_changes();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                change = changes.next() => match change {
                    Some(leadership) => self.note(&leadership),
                    None => return,
                },
            }
        }
    }

    fn note(&self, leadership: &Leadership) {
        self.term.store(leadership.term, Ordering::Relaxed);
        self.has_leader
            .store(leadership.leader.is_some(), Ordering::Relaxed);
    }
}
