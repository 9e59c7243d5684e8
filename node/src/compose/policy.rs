//! The policy's parts of one node: its first record, its routes, its keeper.

use std::sync::Arc;

use axum::Router;
use nautilus_attest_protocol::Policy;
use nautilus_attest_protocol::policy::{OperatorKey, PublicKey};
use nautilus_machine::Kv;

use super::identity::Identity;
use super::{Node, RETRY_PAUSE};
use crate::config::NodeConfig;
use crate::exit::Failure;
use crate::policy::face::{Face, policy_router};
use crate::policy::store::{self, Record, StoreError};
use crate::policy::{Keeper, OnRetirement, promotion_guard, unix_millis};

/// Writes the configuration's policy as the first one, unless the quorum has one: the
/// configuration is believed at genesis only.
pub(super) async fn found(
    kv: &dyn Kv,
    config: &NodeConfig,
    identity: &Identity,
) -> anyhow::Result<()> {
    let Some(document) = first(config, identity) else {
        tracing::warn!(
            "no operator has an Ed25519 or P-256 key, so nobody could change a policy: the nodes \
             judge by their configurations"
        );
        return Ok(());
    };
    document
        .check_governed()
        .map_err(|error| Failure::Usage.error(error))?;
    let record = Record {
        document,
        approvals: Vec::new(),
        at_ms: unix_millis(),
    };
    loop {
        match store::found(kv, &record).await {
            Ok(true) => {
                tracing::info!(
                    operators = record.document.operators.len(),
                    threshold = record.document.threshold,
                    "wrote the first policy"
                );
                return Ok(());
            }
            Ok(false) => return Ok(()),
            Err(error @ StoreError::Damaged { .. }) => return Err(Failure::Fatal.error(error)),
            Err(error) => tracing::warn!(%error, "the first policy is not written yet"),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// The policy a configuration founds a quorum with: epoch 1.
fn first(config: &NodeConfig, identity: &Identity) -> Option<Policy> {
    let keys = config.operators.iter().filter_map(|operator| {
        match PublicKey::from_spki(operator.public_key_der.clone()) {
            Ok(public_key) => Some(OperatorKey {
                name: operator.user.clone(),
                public_key,
            }),
            Err(error) => {
                tracing::warn!(user = %operator.user, %error, "this operator can't sign policies");
                None
            }
        }
    });
    let mut policy = Policy::of_evidence(identity.policy().clone());
    policy.epoch = 1;
    policy.operators = keys.collect();
    let count = u32::try_from(policy.operators.len()).unwrap_or(u32::MAX);
    policy.threshold = config.operators_threshold.min(count);
    (count > 0).then_some(policy)
}

/// The routes.
pub(super) fn router(node: &Node, config: &NodeConfig, kv: &Arc<dyn Kv>) -> Router {
    policy_router(Face {
        cluster_id: config.cluster_id.clone(),
        kv: Arc::clone(kv),
        cluster: node.consensus.cluster(),
        source: Arc::clone(&node.policy),
    })
}

/// The leader's duties, and its word before a node gets a vote.
pub(super) fn keeper(
    node: &Node,
    config: &NodeConfig,
    kv: &Arc<dyn Kv>,
    on_retirement: Vec<Arc<dyn OnRetirement>>,
) -> Keeper {
    let own = node.identity.code(config.node_id);
    let attested = node.consensus.attested_peers();
    node.consensus.set_promotion_guard(promotion_guard(
        own.clone(),
        Arc::clone(&attested),
        Arc::clone(&node.policy),
    ));
    Keeper {
        own,
        kv: Arc::clone(kv),
        cluster: node.consensus.cluster(),
        attested,
        policy: Arc::clone(&node.policy),
        on_retirement,
    }
}
