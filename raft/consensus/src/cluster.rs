//! The port `Cluster`: members and status; changes are made by whoever leads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nautilus_machine::{Cluster, ClusterError, Member, MemberRole, NewMember, NodeId, NodeStatus};
use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};

use crate::node_core::Core;
use crate::peers::{Lane, chain, never_sent};
use crate::state_machine::hex;
use crate::types::{LogId, NodeInfo, TypeConfig};
use crate::wire::v1;

/// How long a change looks for a leader and waits for it.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a learner may take to catch up before its promotion is given up.
const CATCH_UP: Duration = Duration::from_secs(20);
/// A learner that is no further behind than this has caught up.
const CAUGHT_UP_ENTRIES: u64 = 256;
/// How long a change waits for another one, such as the registration of a restart.
const UNDER_WAY: Duration = Duration::from_secs(2);
const UNDER_WAY_PAUSE: Duration = Duration::from_millis(20);
/// How long a transfer of leadership may take.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(5);

/// A change of the membership or of who leads it.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Admit(NewMember),
    Promote(NodeId),
    Remove(NodeId),
    Transfer(NodeId),
    Update(NewMember),
}

pub(crate) struct ClusterPort(pub(crate) Arc<Core>);

impl Cluster for ClusterPort {
    fn status(&self) -> NodeStatus {
        let core = &self.0;
        let metrics = core.raft.metrics().borrow_watched().clone();
        let checkpoint = core.store().checkpoint();
        NodeStatus {
            id: core.config.node_id,
            role: format!("{:?}", metrics.state).to_lowercase(),
            term: metrics.current_term,
            last_log: core.log.bounds().1.unwrap_or_default(),
            applied: core.applied().unwrap_or_default(),
            revision: core.store().revision(),
            checkpoint: checkpoint.map(|(position, digest)| (position.index, hex(&digest.0))),
            digest: hex(&core.store().digest().0),
        }
    }

    fn members(&self) -> Vec<Member> {
        self.0.peers.members()
    }

    fn add(&self, member: NewMember) -> BoxFuture<'_, Result<(), ClusterError>> {
        change(&self.0, Change::Admit(member)).boxed()
    }

    fn promote(&self, id: NodeId) -> BoxFuture<'_, Result<(), ClusterError>> {
        change(&self.0, Change::Promote(id)).boxed()
    }

    fn remove(&self, id: NodeId) -> BoxFuture<'_, Result<(), ClusterError>> {
        change(&self.0, Change::Remove(id)).boxed()
    }

    fn transfer(&self, id: NodeId) -> BoxFuture<'_, Result<(), ClusterError>> {
        change(&self.0, Change::Transfer(id)).boxed()
    }

    fn update(&self, id: NodeId, peer_address: String) -> BoxFuture<'_, Result<(), ClusterError>> {
        change(&self.0, Change::Update(NewMember { id, peer_address })).boxed()
    }
}

/// Every change may be asked for again: the second time finds it done.
async fn change(core: &Arc<Core>, change: Change) -> Result<(), ClusterError> {
    let deadline = Instant::now() + CHANGE_TIMEOUT;
    let mut reason = "no leader is known".to_owned();
    while Instant::now() < deadline {
        let result = match core.raft_leader() {
            Some(id) if id == core.config.node_id => change_here(core, &change).await,
            Some(id) => change_there(core, id, &change).await,
            None => Err(ClusterError::Unavailable(reason.clone())),
        };
        match result {
            Err(ClusterError::Unavailable(text)) => reason = text,
            done_or_invalid => return done_or_invalid,
        }
        core.leadership_moves(deadline).await;
    }
    Err(ClusterError::Unavailable(reason))
}

async fn change_there(
    core: &Arc<Core>,
    leader: NodeId,
    change: &Change,
) -> Result<(), ClusterError> {
    use v1::change_member_answer::Result as Wire;
    use v1::change_member_request::Change as Asked;
    let asked = match change.clone() {
        Change::Admit(NewMember { id, peer_address }) => {
            Asked::Admit(v1::Admit { id, peer_address })
        }
        Change::Update(NewMember { id, peer_address }) => {
            Asked::Update(v1::Admit { id, peer_address })
        }
        Change::Promote(id) => Asked::Promote(id),
        Change::Remove(id) => Asked::Remove(id),
        Change::Transfer(id) => Asked::Transfer(id),
    };
    let mut client = core.peers.client(leader, Lane::Bulk);
    let answer = client
        .change_member(v1::ChangeMemberRequest {
            change: Some(asked),
        })
        .await;
    let answer = answer.map_err(|status| {
        let sent = if never_sent(&status) {
            ""
        } else {
            " (it may have been done)"
        };
        ClusterError::Unavailable(format!("node {leader}: {}{sent}", chain(&status)))
    })?;
    match answer.into_inner().result {
        Some(Wire::Done(_)) => Ok(()),
        Some(Wire::Invalid(reason)) => Err(ClusterError::Invalid(reason)),
        Some(Wire::Unavailable(reason)) => Err(ClusterError::Unavailable(reason)),
        None => Err(ClusterError::Unavailable(format!(
            "node {leader} gave an empty answer"
        ))),
    }
}

/// Makes a change on this node, which must lead.
pub(crate) async fn change_here(core: &Arc<Core>, change: &Change) -> Result<(), ClusterError> {
    if core.raft_leader() != Some(core.config.node_id) {
        return Err(ClusterError::Unavailable(format!(
            "node {} does not lead",
            core.config.node_id
        )));
    }
    match change {
        Change::Admit(member) => admit(core, member).await,
        Change::Promote(id) => promote(core, *id).await,
        Change::Remove(id) => remove(core, *id).await,
        Change::Transfer(id) => transfer(core, *id).await,
        Change::Update(member) => update(core, member).await,
    }
}

async fn admit(core: &Core, new: &NewMember) -> Result<(), ClusterError> {
    if new.id == 0 || new.peer_address.is_empty() {
        return Err(ClusterError::Invalid(
            "a member needs an id above 0 and a peer address".into(),
        ));
    }
    if let Some(member) = core.peers.member(new.id) {
        if member.peer_address == new.peer_address {
            return Ok(());
        }
        return Err(ClusterError::Invalid(format!(
            "node {} is a member already, at {}; remove it first, or choose another id",
            new.id, member.peer_address
        )));
    }
    let info = NodeInfo {
        peer_address: new.peer_address.clone(),
        ..NodeInfo::default()
    };
    let change = ChangeMembers::AddNodes(BTreeMap::from([(new.id, info)]));
    submit(core, change).await
}

/// Changes a member's peer address; what was pinned when it joined stays.
async fn update(core: &Core, member: &NewMember) -> Result<(), ClusterError> {
    if member.peer_address.is_empty() {
        return Err(ClusterError::Invalid(
            "a member needs a peer address".into(),
        ));
    }
    let metrics = core.raft.metrics();
    let membership = metrics.borrow_watched().membership_config.clone();
    let info = membership.membership().get_node(&member.id).cloned();
    let Some(mut info) = info else {
        return Err(ClusterError::Invalid(format!(
            "node {} is not a member",
            member.id
        )));
    };
    if info.peer_address == member.peer_address {
        return Ok(());
    }
    info.peer_address.clone_from(&member.peer_address);
    submit(
        core,
        ChangeMembers::SetNodes(BTreeMap::from([(member.id, info)])),
    )
    .await
}

async fn promote(core: &Core, id: NodeId) -> Result<(), ClusterError> {
    let member = core.peers.member(id);
    let member =
        member.ok_or_else(|| ClusterError::Invalid(format!("node {id} is not a member")))?;
    if member.role == MemberRole::Voter {
        return Ok(());
    }
    if member.platform.is_empty() {
        return Err(ClusterError::Invalid(format!(
            "node {id} has not joined yet; start it first"
        )));
    }
    let deadline = Instant::now() + CATCH_UP;
    while let Some(behind) = lag(core, id).filter(|behind| *behind > CAUGHT_UP_ENTRIES) {
        if Instant::now() > deadline {
            return Err(ClusterError::Invalid(format!(
                "node {id} is {behind} entries behind and did not catch up in time; ask again later"
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let guard = core.promotion_guard.read().clone();
    if let Some(guard) = guard {
        let voters: Vec<NodeId> = core.peers.membership().voter_ids().collect();
        guard(id, &voters).map_err(ClusterError::Invalid)?;
    }
    submit(core, ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await
}

/// How many entries a member is behind: more than there are for one that has not
/// acknowledged any yet. `None` when this node does not lead.
fn lag(core: &Core, id: NodeId) -> Option<u64> {
    let metrics = core.raft.metrics();
    let metrics = metrics.borrow_watched();
    let Some(matched) = metrics.replication.as_ref()?.get(&id)? else {
        return Some(u64::MAX);
    };
    let last = metrics.last_log_index.unwrap_or(0);
    Some(last.saturating_sub(matched.index))
}

async fn remove(core: &Core, id: NodeId) -> Result<(), ClusterError> {
    let Some(member) = core.peers.member(id) else {
        return Ok(());
    };
    let voters: Vec<_> = core
        .peers
        .members()
        .into_iter()
        .filter(|member| member.role == MemberRole::Voter)
        .collect();
    if member.role == MemberRole::Learner {
        return submit(core, ChangeMembers::RemoveNodes(BTreeSet::from([id]))).await;
    }
    if voters.len() == 1 {
        return Err(ClusterError::Invalid(format!(
            "node {id} is the only voter; a quorum can't be empty"
        )));
    }
    if id == core.config.node_id {
        hand_over(core).await;
        return Err(ClusterError::Unavailable(
            "leadership is being handed over; ask again".into(),
        ));
    }
    submit(core, ChangeMembers::RemoveVoters(BTreeSet::from([id]))).await
}

async fn transfer(core: &Core, id: NodeId) -> Result<(), ClusterError> {
    if id == core.config.node_id {
        return Ok(());
    }
    match core.peers.member(id) {
        Some(member) if member.role == MemberRole::Voter => {}
        Some(_) => {
            return Err(ClusterError::Invalid(format!(
                "node {id} is a learner; promote it first"
            )));
        }
        None => return Err(ClusterError::Invalid(format!("node {id} is not a member"))),
    }
    let stopped = |error: &dyn std::fmt::Display| ClusterError::Unavailable(error.to_string());
    core.raft
        .trigger()
        .transfer_leader(id)
        .await
        .map_err(|error| stopped(&error))?;
    let took_over =
        |metrics: &openraft::RaftMetrics<TypeConfig>| metrics.current_leader == Some(id);
    let waited = core
        .raft
        .wait(Some(TRANSFER_TIMEOUT))
        .metrics(took_over, "transfer")
        .await;
    waited
        .map(|_| ())
        .map_err(|_| ClusterError::Unavailable(format!("node {id} did not take over in time")))
}

/// Hands leadership to the voter that has most of the log; returns when another
/// one leads, or after a moment.
pub(crate) async fn hand_over(core: &Core) {
    let own = core.config.node_id;
    let voters = core
        .peers
        .members()
        .into_iter()
        .filter(|member| member.role == MemberRole::Voter);
    let heir = voters
        .filter(|member| member.id != own)
        .min_by_key(|member| lag(core, member.id).unwrap_or(u64::MAX))
        .map(|member| member.id);
    let Some(heir) = heir else { return };
    match transfer(core, heir).await {
        Ok(()) => tracing::info!(heir, "transferred leadership before stopping"),
        Err(error) => tracing::warn!(heir, %error, "leadership was not transferred"),
    }
}

/// Makes a change; waits a while for one that is under way.
pub(crate) async fn submit(
    core: &Core,
    change: ChangeMembers<NodeId, NodeInfo>,
) -> Result<(), ClusterError> {
    let deadline = Instant::now() + UNDER_WAY;
    loop {
        match submit_once(core, change.clone()).await {
            Err(UnderWay) if Instant::now() < deadline => {
                tokio::time::sleep(UNDER_WAY_PAUSE).await;
            }
            Err(UnderWay) => {
                return Err(ClusterError::Unavailable(
                    "another change of the membership is under way".into(),
                ));
            }
            Ok(result) => return result,
        }
    }
}

/// Another change is not committed yet.
struct UnderWay;

async fn submit_once(
    core: &Core,
    change: ChangeMembers<NodeId, NodeInfo>,
) -> Result<Result<(), ClusterError>, UnderWay> {
    match core.raft.change_membership(change, false).await {
        Ok(written) => Ok(learn(core, written.log_id).await),
        Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => {
            use openraft::errors::ChangeMembershipError as Refused;
            match error {
                Refused::InProgress(_) => Err(UnderWay),
                other => Ok(Err(ClusterError::Invalid(other.to_string()))),
            }
        }
        Err(other) => Ok(Err(ClusterError::Unavailable(other.to_string()))),
    }
}

/// Waits until this node knows the membership of the entry at `place`, which is
/// committed: who was told of a change can build the next one on it.
async fn learn(core: &Core, place: LogId) -> Result<(), ClusterError> {
    let known = |metrics: &openraft::RaftMetrics<TypeConfig>| {
        *metrics.membership_config.log_id() >= Some(place)
    };
    let wait = core.raft.wait(Some(UNDER_WAY));
    let waited = wait.metrics(known, "membership").await;
    let metrics = waited.map_err(|error| ClusterError::Unavailable(error.to_string()))?;
    core.peers.set_membership(metrics.membership_config);
    Ok(())
}
