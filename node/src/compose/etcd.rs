//! The etcd face of a node: its parts put together from the configuration.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use metrics_exporter_prometheus::PrometheusHandle;
use nautilus_backup::ArchiveMaintenance;
use nautilus_etcd::{AuthOptions, EtcdContext, EtcdLimits, EtcdParts, TokenKind};

use super::Node;
use crate::config::{Etcd, NodeConfig, parse_duration};
use crate::exit::Failure;

/// The context that the face serves from.
pub(super) fn context(
    node: &Node,
    config: &NodeConfig,
    face: &Etcd,
    metrics: &PrometheusHandle,
) -> anyhow::Result<Arc<EtcdContext>> {
    let tokens = TokenKind::read(&face.auth_token, face.auth_token_ttl, parse_duration)
        .map_err(|error| Failure::Usage.error(format!("etcd.auth_token: {error}")))?;
    let metrics = metrics.clone();
    Ok(EtcdContext::new(EtcdParts {
        kv: node.consensus.kv(),
        leases: node.consensus.leases(),
        cluster: node.consensus.cluster(),
        maintenance: Arc::new(ArchiveMaintenance {
            store: node.consensus.maintenance(),
            source: super::faces::backup_source(node, config, &node.consensus.kv()),
        }),
        node_id: config.node_id,
        cluster_id: cluster_number(&config.cluster_id),
        limits: EtcdLimits {
            max_request_bytes: face.max_request_bytes,
            max_txn_ops: face.max_txn_ops,
            quota_bytes: face.quota_backend_bytes,
            max_concurrent_streams: face.max_concurrent_streams,
            watch_progress_interval: face.progress_notify_interval,
            ..EtcdLimits::default()
        },
        auth: AuthOptions {
            tokens,
            token_life: face.auth_token_ttl,
            bcrypt_cost: face.bcrypt_cost,
        },
        auto_compaction: face.auto_compaction,
        metrics_text: Arc::new(move || metrics.render()),
    }))
}

/// The number that etcd clients know the quorum by: from its name, the same on all nodes.
fn cluster_number(name: &str) -> u64 {
    let hash = digest(&SHA256, name.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_ref()[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quorums_of_different_names_have_different_numbers() {
        assert_ne!(cluster_number("alpha"), cluster_number("beta"));
        assert_eq!(cluster_number("alpha"), cluster_number("alpha"));
    }
}
