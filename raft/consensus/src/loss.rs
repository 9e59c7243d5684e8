//! A leader whose process died is noticed by its connections, not by a timeout.
//!
//! When a connection from the leader ends and its address refuses new ones, a
//! follower asks the other voters whether they find the same. Only when a majority
//! of the voters does, and none of those has a longer log, it asks for votes at
//! once; and a voter grants such a vote under a lease that still runs only if it
//! found the leader gone itself. A live leader refuses nobody's connection, so it
//! is never disturbed; and what is decided here is only when to ask for votes,
//! never who may win, so nothing of Raft's safety rests on it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nautilus_machine::{MemberRole, NodeId};
use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::node_core::Core;
use crate::peers::Lane;
use crate::wire::v1;

/// Ended connections that may wait to be looked at; more are not needed.
const QUEUE: usize = 64;
/// How long an address may take to refuse.
const PROBE: Duration = Duration::from_millis(100);
/// Waits before the address is tried (again): a dying process closes its sockets one
/// by one, and the listening one may be the last.
const PROBES_MS: [u64; 5] = [0, 3, 10, 30, 60];
/// How long another voter may take to confirm.
const CONFIRM: Duration = Duration::from_millis(200);
/// How long a finding counts.
const FINDING: Duration = Duration::from_secs(1);
/// Voters ask one after the other, in the order of their ids.
const STAGGER: Duration = Duration::from_millis(20);

/// What this node found itself.
pub(crate) struct LossDetector {
    ended: mpsc::Sender<NodeId>,
    found: Mutex<BTreeMap<NodeId, (u64, Instant)>>,
}

impl LossDetector {
    pub(crate) fn new() -> (Self, mpsc::Receiver<NodeId>) {
        let (ended, receiver) = mpsc::channel(QUEUE);
        (
            Self {
                ended,
                found: Mutex::new(BTreeMap::new()),
            },
            receiver,
        )
    }

    /// Where to tell that a connection from a peer ended.
    pub(crate) fn sender(&self) -> mpsc::Sender<NodeId> {
        self.ended.clone()
    }

    /// Whether this node lately found the leader of `term` gone.
    pub(crate) fn found(&self, leader: NodeId, term: u64) -> bool {
        let found = self.found.lock();
        found
            .get(&leader)
            .is_some_and(|(at_term, at)| *at_term == term && at.elapsed() < FINDING)
    }

    fn note(&self, leader: NodeId, term: u64) {
        self.found.lock().insert(leader, (term, Instant::now()));
    }
}

/// Looks at ended connections until the node stops.
pub(crate) async fn run(core: Arc<Core>, mut ended: mpsc::Receiver<NodeId>) {
    loop {
        let peer = tokio::select! {
            () = core.stop.cancelled() => return,
            peer = ended.recv() => peer,
        };
        let Some(peer) = peer else { return };
        if let Some(term) = followed(&core, peer)
            && !core.losses.found(peer, term)
            && refuses_soon(&core, peer, term).await
        {
            core.losses.note(peer, term);
            succeed(&core, peer, term).await;
        }
    }
}

/// Answers another voter's question.
pub(crate) async fn confirm(core: &Core, leader: NodeId, term: u64) -> bool {
    if core.losses.found(leader, term) {
        return true;
    }
    let others_leader = core.raft_leader().is_some_and(|id| id != leader);
    if others_leader || core.raft_term() > term || !refuses(core, leader).await {
        return false;
    }
    core.losses.note(leader, term);
    true
}

/// The term in which this node follows `peer`, if it does.
fn followed(core: &Core, peer: NodeId) -> Option<u64> {
    let metrics = core.raft.metrics();
    let metrics = metrics.borrow_watched();
    (metrics.current_leader == Some(peer) && peer != core.config.node_id)
        .then_some(metrics.current_term)
}

/// Whether the address of a leader whose connection ended refuses new ones, now or
/// in a moment.
async fn refuses_soon(core: &Core, peer: NodeId, term: u64) -> bool {
    for wait_ms in PROBES_MS {
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        if followed(core, peer) != Some(term) {
            return false;
        }
        if refuses(core, peer).await {
            return true;
        }
    }
    false
}

async fn refuses(core: &Core, peer: NodeId) -> bool {
    let Some(member) = core.peers.member(peer) else {
        return false;
    };
    let connected = tokio::net::TcpStream::connect(&member.peer_address);
    let connected = tokio::time::timeout(PROBE, connected).await;
    matches!(connected, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused)
}

/// Asks for votes in place of `leader`, if enough others found the same.
async fn succeed(core: &Arc<Core>, leader: NodeId, term: u64) {
    let members = core.peers.members();
    let voters: Vec<NodeId> = members
        .iter()
        .filter(|member| member.role == MemberRole::Voter)
        .map(|member| member.id)
        .collect();
    let mut heirs: Vec<NodeId> = voters.iter().copied().filter(|id| *id != leader).collect();
    heirs.sort_unstable();
    let Some(rank) = heirs.iter().position(|id| *id == core.config.node_id) else {
        return;
    };
    tokio::time::sleep(STAGGER * u32::try_from(rank).unwrap_or(u32::MAX)).await;
    if followed(core, leader) != Some(term) {
        return;
    }
    let own_last = core.log.bounds().1;
    let mut asked = tokio::task::JoinSet::new();
    for id in heirs.into_iter().filter(|id| *id != core.config.node_id) {
        let mut client = core.peers.client(id, Lane::Raft);
        asked.spawn(async move {
            let call = client.confirm_loss(v1::ConfirmLossRequest { leader, term });
            tokio::time::timeout(CONFIRM, call)
                .await
                .ok()?
                .ok()
                .map(tonic::Response::into_inner)
        });
    }
    let (mut agreed, needed) = (1, voters.len() / 2 + 1);
    while agreed < needed {
        let Some(answer) = asked.join_next().await else {
            break;
        };
        let Ok(Some(answer)) = answer else { continue };
        let longer = answer
            .last
            .map(crate::wire::from_log_id)
            .as_ref()
            .map(crate::types::position)
            > own_last;
        if answer.lost && longer {
            // Its own turn comes next, and it can win.
            return;
        }
        agreed += usize::from(answer.lost);
    }
    if agreed >= needed && followed(core, leader) == Some(term) && core.restart.may_stand() {
        tracing::info!(
            leader,
            term,
            "the leader's process is gone; asking for votes at once"
        );
        metrics::counter!("nautilus_raft_leader_losses_total").increment(1);
        // A core that stopped says so by itself.
        let _ = core.raft.trigger().elect(false).await;
    }
}
