//! What the leader does for the policy: notes what each member runs, and takes the vote
//! from nodes whose measurement the policy no longer names.
//!
//! Invariants: only a node that leads acts, one removal at a time, and never one that
//! leaves no majority (`quorum.rs`); whoever wants to hear of a retired node hears of it
//! at least once, from this leader or the next, until it says that it is done.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nautilus_attest_protocol::{Measurement, TeeKind};
use nautilus_consensus::{AttestedPeer, PromotionGuard};
use nautilus_machine::{Cluster, Kv, MemberRole};
use tokio_util::sync::CancellationToken;

use super::quorum::{Step, retirement};
use super::source::PolicySource;
use super::store::{self, NodeCode, RetiredNode, StoreError};
use super::unix_millis;

/// Between two looks at the members.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What follows when a node has lost its vote for its measurement, such as new data keys
/// that it does not have.
pub(crate) trait OnRetirement: Send + Sync + 'static {
    /// Called on the leader, after the node is no member any more; again after an error
    /// or a change of leader, so it must bear being called twice.
    fn retired<'a>(&'a self, node: &'a RetiredNode) -> BoxFuture<'a, anyhow::Result<()>>;
}

/// What a voter and a node that would become one run, as `own` and the others' evidence
/// say; `None` where nothing is known of it.
fn code_of(own: &NodeCode, attested: &AttestedPeer, id: u64) -> Option<NodeCode> {
    if id == own.id {
        return Some(own.clone());
    }
    let peer = attested(id)?;
    Some(NodeCode {
        id,
        tee: peer.tee.parse().ok()?,
        measurement: peer.measurement.parse::<Measurement>().ok()?,
    })
}

/// The leader's word before it gives a node a vote: its measurement must be good, and
/// the voters must stay as diverse as the policy asks.
pub(crate) fn promotion_guard(
    own: NodeCode,
    attested: AttestedPeer,
    policy: Arc<PolicySource>,
) -> PromotionGuard {
    Arc::new(move |id, voters| {
        let policy = policy.present();
        let code = |id| code_of(&own, &attested, id);
        if let Some(code) = code(id) {
            policy
                .evidence
                .judge_code(code.tee, &code.measurement, unix_millis())
                .map_err(|refused| format!("node {id} can't vote: {refused}"))?;
        }
        let Some(diversity) = policy.diversity else {
            return Ok(());
        };
        let kinds = voters.iter().copied().chain([id]);
        let kinds: Option<Vec<TeeKind>> = kinds.map(|id| Some(code(id)?.tee)).collect();
        let kinds = kinds.ok_or_else(|| {
            "the policy asks for diversity, and it is not known yet which TEE every voter has; \
             ask again in a moment"
                .to_owned()
        })?;
        diversity
            .judge(&kinds)
            .map_err(|refused| format!("node {id} can't vote: {refused}"))
    })
}

/// The leader's duties of one node.
pub(crate) struct Keeper {
    /// What this node runs itself.
    pub(crate) own: NodeCode,
    /// The quorum's rows.
    pub(crate) kv: Arc<dyn Kv>,
    /// The membership.
    pub(crate) cluster: Arc<dyn Cluster>,
    /// What the others run.
    pub(crate) attested: AttestedPeer,
    /// The policy in force.
    pub(crate) policy: Arc<PolicySource>,
    /// Who hears of retired nodes.
    pub(crate) on_retirement: Vec<Arc<dyn OnRetirement>>,
}

impl Keeper {
    /// Acts whenever this node leads, until told to stop.
    pub(crate) async fn run(self, stopped: CancellationToken) {
        let mut policy = self.policy.subscribe();
        let mut refused_before = Vec::new();
        loop {
            if self.kv.leadership().is_self {
                match self.round(&mut refused_before).await {
                    Ok(()) => {}
                    Err(error) => tracing::debug!(%error, "not done; it is tried again"),
                }
            }
            tokio::select! {
                () = stopped.cancelled() => return,
                // The source lives as long as the node.
                _ = policy.changed() => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    async fn round(&self, refused_before: &mut Vec<u64>) -> Result<(), StoreError> {
        let kv = self.kv.as_ref();
        let members = self.cluster.members();
        let present = store::nodes(kv)?;
        let known = members
            .iter()
            .filter_map(|member| code_of(&self.own, &self.attested, member.id));
        for code in known {
            if !present.contains(&code) {
                store::put_node(kv, &code).await?;
            }
        }
        for former in &present {
            if !members.iter().any(|member| member.id == former.id) {
                store::forget_node(kv, former.id).await?;
            }
        }
        let voters: Vec<u64> = members
            .iter()
            .filter(|member| member.role == MemberRole::Voter)
            .map(|member| member.id)
            .collect();
        self.retire(&voters, refused_before).await?;
        self.tell().await
    }

    /// Takes the next step for voters whose measurement is retired.
    async fn retire(
        &self,
        voters: &[u64],
        refused_before: &mut Vec<u64>,
    ) -> Result<(), StoreError> {
        let kv = self.kv.as_ref();
        let policy = self.policy.present();
        let codes = store::nodes(kv)?;
        let step = retirement(&policy.evidence, self.own.id, voters, &codes, unix_millis());
        let refused = match step {
            Step::Nothing => Vec::new(),
            Step::HandOver { to } => {
                tracing::warn!(
                    to,
                    epoch = policy.epoch,
                    "this node's measurement is retired; handing leadership over"
                );
                if let Err(error) = self.cluster.transfer(to).await {
                    tracing::warn!(to, %error, "leadership was not handed over");
                }
                Vec::new()
            }
            Step::Remove(code) => {
                self.remove(code, policy.epoch).await?;
                Vec::new()
            }
            Step::Refuse { nodes } => {
                if nodes != *refused_before {
                    tracing::error!(
                        ?nodes,
                        epoch = policy.epoch,
                        "the policy retires these voters' measurements, but without them no majority \
                         would be left; they stay until others have taken their place"
                    );
                }
                nodes
            }
        };
        metrics::gauge!("nautilus_policy_retired_voters").set(refused.len() as f64);
        *refused_before = refused;
        Ok(())
    }

    async fn remove(&self, code: NodeCode, epoch: u64) -> Result<(), StoreError> {
        let node = RetiredNode {
            id: code.id,
            tee: code.tee,
            measurement: code.measurement,
            epoch,
            done: false,
        };
        // First the note: what follows must not be forgotten if this leader is lost.
        store::put_retired(self.kv.as_ref(), &node).await?;
        match self.cluster.remove(node.id).await {
            Ok(()) => {
                tracing::warn!(node = node.id, epoch, measurement = %node.measurement, "took the vote from a node whose measurement is retired");
                metrics::counter!("nautilus_policy_votes_taken_total").increment(1);
            }
            Err(error) => {
                tracing::warn!(node = node.id, %error, "a retired node keeps its vote for now");
            }
        }
        Ok(())
    }

    /// Tells who wants to hear of retired nodes, until they are done.
    async fn tell(&self) -> Result<(), StoreError> {
        let kv = self.kv.as_ref();
        let members = self.cluster.members();
        for mut node in store::retired(kv)? {
            let is_member = members.iter().any(|member| member.id == node.id);
            if node.done || is_member {
                continue;
            }
            let mut done = true;
            for listener in &self.on_retirement {
                if let Err(error) = listener.retired(&node).await {
                    tracing::warn!(node = node.id, error = %format!("{error:#}"), "what follows from a node's retirement is not done; it is tried again");
                    done = false;
                }
            }
            if done {
                node.done = true;
                store::put_retired(kv, &node).await?;
            }
        }
        Ok(())
    }
}
