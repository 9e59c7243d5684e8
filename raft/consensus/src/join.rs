//! How an admitted node joins: its platform is pinned in the membership first, and
//! it gets the quorum's secrets only after that entry has committed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use nautilus_attest_secret::{EnvelopeError, EphemeralKey, seal_to};
use nautilus_machine::{ClusterError, NodeId};
use openraft::ChangeMembers;
use zeroize::Zeroizing;

use crate::cluster;
use crate::error::JoinError;
use crate::node_core::Core;
use crate::peers::{chain, client_on};
use crate::transport::{PeerIdentity, Transport};
use crate::types::NodeInfo;
use crate::wire::v1;

/// What the envelope of a grant's secrets is for.
const SECRETS_PURPOSE: &[u8] = b"nautilus join v1";
/// Addresses a joiner asks at most, redirections included.
const ASKED_AT_MOST: usize = 32;
/// How long one member may take to answer.
const ANSWER: std::time::Duration = std::time::Duration::from_secs(15);

/// What a node says of itself when it joins.
#[derive(Debug, Clone)]
pub struct JoinRequest {
    /// Its id, as the operator admitted it.
    pub node_id: NodeId,
    /// `https://host:port` where clients will reach it.
    pub api_address: String,
    /// `https://host:port` of its etcd face; empty without one.
    pub client_address: String,
    /// `host:port` where peers will reach it.
    pub peer_address: String,
}

/// What it gets.
pub struct JoinGrant {
    /// The quorum's secrets, as the leader's composition root made them.
    pub secrets: Zeroizing<Vec<u8>>,
    /// Who led.
    pub leader_id: NodeId,
    /// Where peers reach that node.
    pub leader_address: String,
}

/// Asks the quorum behind `addresses` to take this node in. Every connection is
/// attested both ways by `transport`. May be repeated: a node that is pinned
/// already gets the same answer again.
pub async fn join(
    transport: Arc<dyn Transport>,
    addresses: &[String],
    request: JoinRequest,
) -> Result<JoinGrant, JoinError> {
    let mut queue: VecDeque<String> = addresses.iter().cloned().collect();
    let mut asked = BTreeSet::new();
    let mut reasons = Vec::new();
    while let Some(address) = queue.pop_front() {
        if asked.len() >= ASKED_AT_MOST || !asked.insert(address.clone()) {
            continue;
        }
        match ask(transport.as_ref(), &address, &request).await {
            Ok(Asked::Granted(grant)) => return Ok(grant),
            Ok(Asked::Elsewhere {
                address: leader,
                reason,
            }) => {
                reasons.push(format!("{address}: {reason}"));
                if !leader.is_empty() {
                    queue.push_front(leader);
                }
            }
            Ok(Asked::Refused(reason)) => {
                return Err(JoinError::Refused {
                    node_id: request.node_id,
                    reason,
                });
            }
            Err(reason) => reasons.push(format!("{address}: {reason}")),
        }
    }
    Err(JoinError::Unavailable(reasons.join("; ")))
}

enum Asked {
    Granted(JoinGrant),
    Elsewhere { address: String, reason: String },
    Refused(String),
}

async fn ask(
    transport: &dyn Transport,
    address: &str,
    request: &JoinRequest,
) -> Result<Asked, String> {
    use v1::join_answer::Result as Wire;
    let connection = transport
        .connect(address, None)
        .await
        .map_err(|error| error.to_string())?;
    let mut client = client_on(connection, None)
        .await
        .map_err(|error| error.to_string())?;
    let key = EphemeralKey::generate().map_err(|error| error.to_string())?;
    let call = client.join(v1::JoinRequest {
        secrets_key: key.public_key().to_vec().into(),
        node_id: request.node_id,
        api_address: request.api_address.clone(),
        client_address: request.client_address.clone(),
        peer_address: request.peer_address.clone(),
    });
    let answer = tokio::time::timeout(ANSWER, call)
        .await
        .map_err(|_| "no answer in time".to_owned())?;
    let answer = answer.map_err(|status| chain(&status))?;
    match answer.into_inner().result {
        Some(Wire::Grant(grant)) => Ok(Asked::Granted(JoinGrant {
            secrets: key
                .open(SECRETS_PURPOSE, &grant.secrets)
                .map_err(|error| format!("the secrets it granted: {error}"))?,
            leader_id: grant.leader_id,
            leader_address: grant.leader_address,
        })),
        Some(Wire::Redirect(redirect)) => Ok(Asked::Elsewhere {
            address: redirect.address,
            reason: redirect.reason,
        }),
        Some(Wire::Refused(reason)) => Ok(Asked::Refused(reason)),
        None => Err("an empty answer".into()),
    }
}

/// The secrets as a joiner gets them: encrypted to the key of its request.
pub(crate) fn granted(secrets: &[u8], secrets_key: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    seal_to(secrets_key, SECRETS_PURPOSE, secrets)
}

/// Why a node did not get in here.
pub(crate) enum NotAdmitted {
    /// Another node leads (or none).
    Elsewhere { address: String, reason: String },
    /// It must not.
    Refused(String),
}

/// The leader's side: judges the joiner and pins it; returns once that is committed.
pub(crate) async fn admit(
    core: &Arc<Core>,
    peer: &PeerIdentity,
    request: v1::JoinRequest,
) -> Result<(), NotAdmitted> {
    let id = request.node_id;
    if peer.node_id != id {
        let reason = format!(
            "the evidence is of node {}, but node {id} asks to join",
            peer.node_id
        );
        return Err(NotAdmitted::Refused(reason));
    }
    match core.raft_leader() {
        Some(leader) if leader == core.config.node_id => {}
        Some(leader) => {
            let address = core
                .peers
                .member(leader)
                .map(|member| member.peer_address)
                .unwrap_or_default();
            let reason = format!(
                "node {} does not lead, node {leader} does",
                core.config.node_id
            );
            return Err(NotAdmitted::Elsewhere { address, reason });
        }
        None => {
            let reason = format!("node {} knows no leader", core.config.node_id);
            return Err(NotAdmitted::Elsewhere {
                address: String::new(),
                reason,
            });
        }
    }
    let membership = core.peers.membership();
    let Some(node) = membership.get_node(&id) else {
        return Err(NotAdmitted::Refused(format!(
            "node {id} was not admitted; an operator has to run `nautilus member add {id}` first"
        )));
    };
    // Who asks has no keys and so no log. A voter has made promises, and its own log,
    // read again from the start, may even name it as the only voter.
    if membership.voter_ids().any(|voter| voter == id) {
        return Err(NotAdmitted::Refused(format!(
            "node {id} is a voter and comes back with an empty disk: it has forgotten what it promised, and must not vote again; take it out with `nautilus member remove {id}`, and admit its machine under an id never used"
        )));
    }
    if peer.platform.is_empty() {
        return Err(NotAdmitted::Refused(format!(
            "node {id} shows no platform identity that could be pinned"
        )));
    }
    if !node.platform.is_empty() && node.platform != peer.platform {
        return Err(NotAdmitted::Refused(format!(
            "node {id} is pinned to platform {}, but asks from platform {}; remove the member and add it again if its machine was replaced",
            node.platform, peer.platform
        )));
    }
    let pinned = NodeInfo {
        peer_address: request.peer_address,
        api_address: request.api_address,
        client_address: request.client_address,
        platform: peer.platform.clone(),
        incarnation: node.incarnation,
    };
    // Written even when nothing changes: its commit proves that this node still leads.
    let change = ChangeMembers::SetNodes(BTreeMap::from([(id, pinned)]));
    cluster::submit(core, change)
        .await
        .map_err(|error| match error {
            ClusterError::Invalid(reason) => NotAdmitted::Refused(reason),
            ClusterError::Unavailable(reason) => NotAdmitted::Elsewhere {
                address: String::new(),
                reason,
            },
        })
}
