//! The leader's side: makes new lives of members part of the log, and tells them.
//!
//! A life that stands in a committed entry is one that every later leader refuses the
//! elders of. A node that waits for it acknowledges nothing, so the entry is committed
//! by the others alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nautilus_attest_protocol::restart::{Incarnation, LogPlace};
use nautilus_machine::NodeId;
use openraft::ChangeMembers;
use parking_lot::Mutex;

use super::place;
use super::testify::{acknowledged, to_wire};
use crate::node_core::Core;
use crate::peers::Lane;
use crate::types::{NodeInfo, position};
use crate::wire::v1;

/// How often the leader looks, whether it heard of something or not.
const LOOK: Duration = Duration::from_millis(500);
/// Between two looks at least.
const PAUSE: Duration = Duration::from_millis(20);
/// How long an entry may take to commit before the next look.
const COMMIT: Duration = Duration::from_secs(1);
/// How long a node may take to answer that it was told.
const TELL: Duration = Duration::from_millis(500);

/// What the leader knows of nodes that come back.
#[derive(Default)]
pub(crate) struct Registrar {
    /// Seen to wait.
    waiting: Mutex<BTreeSet<NodeId>>,
    /// Where they say they are now.
    moved: Mutex<BTreeMap<NodeId, v1::TestifyRequest>>,
}

impl Registrar {
    /// A member was seen to wait for being registered.
    pub(crate) fn waits(&self, node: NodeId) {
        self.waiting.lock().insert(node);
    }

    pub(super) fn moved(&self, node: NodeId, request: &v1::TestifyRequest) {
        let addresses = v1::TestifyRequest {
            tail: None,
            ..request.clone()
        };
        self.moved.lock().insert(node, addresses);
    }
}

/// Registers what it hears of while this node leads, until the node stops.
pub(crate) async fn register_lives(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = core.lives.newer() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        if core.raft_leader() == Some(core.config.node_id) {
            tokio::select! {
                () = core.stop.cancelled() => return,
                () = register_all(&core) => {}
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn register_all(core: &Arc<Core>) {
    let known = core.lives.known();
    let waiting = std::mem::take(&mut *core.registrar.waiting.lock());
    for (id, info) in members(core) {
        // A leader's own life is registered by the next one.
        let Some(life) = known.get(&id).filter(|_| id != core.config.node_id) else {
            continue;
        };
        if info.platform.is_empty() || (*life <= info.incarnation && !waiting.contains(&id)) {
            continue;
        }
        let before = info.incarnation;
        match register(core, id, info, *life).await {
            Ok(entry) => tell(core, id, before, *life, entry).await,
            Err(reason) => {
                tracing::debug!(node = id, %reason, "a new life was not registered yet");
                core.registrar.waits(id);
            }
        }
    }
}

fn members(core: &Core) -> Vec<(NodeId, NodeInfo)> {
    let membership = core.peers.membership();
    let nodes = membership.nodes();
    nodes.map(|(id, info)| (*id, info.clone())).collect()
}

/// Commits that `id` lives as `life`; returns that entry.
async fn register(
    core: &Core,
    id: NodeId,
    mut info: NodeInfo,
    life: Incarnation,
) -> Result<LogPlace, String> {
    info.incarnation = info.incarnation.max(life);
    if let Some(moved) = core.registrar.moved.lock().get(&id) {
        info.peer_address.clone_from(&moved.peer_address);
        info.api_address.clone_from(&moved.api_address);
        info.client_address.clone_from(&moved.client_address);
    }
    let change = ChangeMembers::SetNodes(BTreeMap::from([(id, info)]));
    let changed = core.raft.change_membership(change, false);
    let changed = tokio::time::timeout(COMMIT, changed).await;
    let response = changed
        .map_err(|_| "no quorum committed it in time".to_owned())?
        .map_err(|error| error.to_string())?;
    Ok(place(position(&response.log_id)))
}

async fn tell(
    core: &Arc<Core>,
    id: NodeId,
    before: Incarnation,
    life: Incarnation,
    entry: LogPlace,
) {
    let mut client = core.peers.client(id, Lane::Ask);
    let call = client.readmit(v1::ReadmitRequest {
        incarnation: life.to_string(),
        registered: Some(to_wire(entry)),
        acknowledged: acknowledged(core, id).map(to_wire),
        known_before: before.to_string(),
    });
    match tokio::time::timeout(TELL, call).await {
        Ok(Ok(answer)) if answer.get_ref().taken => {
            tracing::info!(node = id, %life, %entry, "registered a node that came back");
        }
        Ok(Ok(_)) => tracing::debug!(node = id, %life, %entry, "registered a node's new life"),
        // It is seen to wait again when it is there.
        Ok(Err(status)) => tracing::debug!(node = id, %status, "a node was not told"),
        Err(_) => tracing::debug!(node = id, "a node was not told in time"),
    }
}
