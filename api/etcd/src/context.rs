//! Everything the services share: the quorum's ports, this node's facts, limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use nautilus_machine::{Cluster, Kv, Leadership, Leases, Maintenance, NodeId, Revision};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::alarms::Alarms;
use crate::auth::AuthOptions;
use crate::autocompact::AutoCompaction;
use crate::convert::signed;
use crate::limits::EtcdLimits;
use crate::meter::Meters;
use crate::proto::etcdserverpb::ResponseHeader;

/// The text of `/metrics`.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// A stream that asked for a leader ends when there was none for this long.
const LEADERLESS_GRACE: Duration = Duration::from_secs(3);

/// What the composition root gives.
#[derive(Clone)]
pub struct EtcdParts {
    /// The key space.
    pub kv: Arc<dyn Kv>,
    /// The leases' clock.
    pub leases: Arc<dyn Leases>,
    /// Membership and status.
    pub cluster: Arc<dyn Cluster>,
    /// The upkeep of this node's store.
    pub maintenance: Arc<dyn Maintenance>,
    /// This node.
    pub node_id: NodeId,
    /// The quorum's identity, as every answer's header says it.
    pub cluster_id: u64,
    /// Bounds.
    pub limits: EtcdLimits,
    /// How users are let in once authentication is enabled.
    pub auth: AuthOptions,
    /// Which old revisions are forgotten without being asked.
    pub auto_compaction: AutoCompaction,
    /// See [`MetricsText`].
    pub metrics_text: MetricsText,
}

/// The face's shared state.
pub struct EtcdContext {
    pub(crate) parts: EtcdParts,
    pub(crate) access: Access,
    pub(crate) alarms: Alarms,
    pub(crate) meters: Arc<Meters>,
    /// The term as last heard, so that a header costs no look at the leadership.
    term: AtomicU64,
    /// Since when there is no leader.
    leaderless: watch::Sender<Option<Instant>>,
    upkeep_is_taken: AtomicBool,
}

impl EtcdContext {
    /// The state of one node's face.
    pub fn new(parts: EtcdParts) -> Arc<Self> {
        let context = Self {
            access: Access::new(parts.kv.clone(), parts.leases.clone(), parts.auth.clone()),
            alarms: Alarms::default(),
            meters: Arc::new(Meters::new()),
            term: AtomicU64::new(0),
            leaderless: watch::Sender::new(Some(Instant::now())),
            upkeep_is_taken: AtomicBool::new(false),
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
            revision: signed(revision),
            raft_term: self.term.load(Ordering::Relaxed),
        }
    }

    /// The header of an answer given now.
    pub(crate) fn header_now(&self) -> ResponseHeader {
        self.header(self.parts.kv.revision())
    }

    /// True for the first who asks: it does the upkeep, of which there is one per node.
    pub(crate) fn take_upkeep(&self) -> bool {
        !self.upkeep_is_taken.swap(true, Ordering::Relaxed)
    }

    /// Whether this node knows of a leader.
    pub(crate) fn has_leader(&self) -> bool {
        self.leaderless.borrow().is_none()
    }

    /// Waits until there was no leader for longer than an election should take.
    pub(crate) async fn leader_lost(&self) {
        let mut changes = self.leaderless.subscribe();
        loop {
            let since = *changes.borrow_and_update();
            let ended = match since {
                None => changes.changed().await,
                Some(since) => {
                    match timeout_at(since + LEADERLESS_GRACE, changes.changed()).await {
                        Ok(changed) => changed,
                        Err(_) => return,
                    }
                }
            };
            if ended.is_err() {
                return;
            }
        }
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
        let has_leader = leadership.leader.is_some();
        self.leaderless.send_if_modified(|leaderless| {
            let changed = leaderless.is_none() != has_leader;
            if changed {
                *leaderless = (!has_leader).then(Instant::now);
            }
            changed
        });
    }
}
