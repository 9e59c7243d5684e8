//! Which pods make room for their like of the update's revision.
//!
//! Invariant: no more pods are taken than `maxUnavailable` allows beside those that are
//! unavailable anyway; those that are so and old go first where the order does not count.

use serde_json::Value;

use super::revisions::revision_of;
use super::{Replica, Sync};
use crate::object;
use crate::pods::{self, Rounding};

/// The pods to be deleted, last ordinal first.
pub(super) fn replace<'p>(sync: &Sync<'_>, replicas: &'p [Replica]) -> Vec<&'p Value> {
    let strategy = &sync.set["spec"]["updateStrategy"];
    if strategy["type"] == "OnDelete" {
        return Vec::new();
    }
    let rolling = &strategy["rollingUpdate"];
    let partition = rolling["partition"].as_u64().unwrap_or_default();
    let partition = usize::try_from(partition).unwrap_or(usize::MAX);
    let is_old = |pod: &Value| revision_of(pod) != Some(&sync.revisions.update.name);
    let unavailable = replicas
        .iter()
        .filter(|own| sync.is_unavailable(own.pod()))
        .count();
    let budget = max_unavailable(&rolling["maxUnavailable"], sync.ordinals.count)
        .saturating_sub(unavailable);
    let old = || {
        let candidates = replicas.iter().skip(partition).rev();
        candidates.filter_map(|own| match own {
            Replica::There(pod) if is_old(pod) && !object::is_deleted(pod) => Some(&**pod),
            _ => None,
        })
    };
    if sync.in_order {
        return old().take(budget).collect();
    }
    let is_available = |pod: &Value| object::is_available(pod, sync.min_ready_seconds, sync.now);
    let mut gone: Vec<&Value> = old().filter(|pod| !is_available(pod)).collect();
    gone.extend(old().filter(|pod| is_available(pod)).take(budget));
    gone
}

/// Pods that may be unavailable: at least one.
fn max_unavailable(given: &Value, replicas: i64) -> usize {
    let pods = pods::scaled(given, replicas, Rounding::Down).unwrap_or(1);
    usize::try_from(pods).unwrap_or_default().max(1)
}
