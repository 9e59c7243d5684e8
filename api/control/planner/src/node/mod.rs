//! Whether nodes live, and what follows for their pods: conditions and taints
//! ([`health`]), which lost nodes are to be emptied and how fast ([`zones`]), the pods that
//! do not tolerate a taint ([`eviction`]), and how long kubelets keep secrets
//! ([`secrets_ttl`]), and nodes' ranges of addresses ([`cidrs`]).
//!
//! Each condition and taint has one owner:
//!
//! | what | of an ordinary node | of a worker's node |
//! |---|---|---|
//! | `Ready` gone `Unknown` | [`health`] | the workers' face |
//! | not-ready and unreachable, `NoSchedule` | [`health`] | the workers' face |
//! | the same, `NoExecute` | [`zones`] | the workers' face |
//! | pressure, network and unschedulable, `NoSchedule` | [`health`] | [`health`] |
//! | stakes' taints, and the pods that go for them | | the workers' face, and the removal of nodes |
//! | pods that go for other taints | [`eviction`] | [`eviction`] |
//! | pods of lost nodes are not ready | [`health`] | [`health`] |
//!
//! Invariant: time is that of this side. What nodes write of their own clocks is only ever
//! compared with what they wrote before.

mod cidrs;
mod eviction;
mod health;
mod secrets_ttl;
mod taints;
mod zones;

pub use cidrs::{NodeIpam, PodRanges};
pub use eviction::TaintEviction;
pub use health::Health;
pub use secrets_ttl::SecretsTtl;
pub use zones::Zones;

use serde_json::Value;

use crate::object;

/// The account of all that looks after nodes.
const ACCOUNT: &str = "node-controller";
/// Annotation of a worker's node, which the workers' face judges.
const WORKER: &str = "nautilus.io/node-id";

/// Whether a node is a worker's.
fn is_workers(node: &Value) -> bool {
    object::annotation(node, WORKER).is_some()
}

/// Whether a node's `Ready` is `True`, `False` or `Unknown`; `None` where nobody said.
fn readiness(node: &Value) -> Option<&str> {
    object::condition(node, "Ready")?["status"].as_str()
}
