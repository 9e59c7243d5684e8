//! Which labels and annotations a kubelet may set on its own node: none by which workloads
//! are steered, and none in which the quorum notes what it holds of the node.

use std::collections::BTreeSet;

use serde_json::Value;

/// The prefix of labels that only administrators set.
const RESTRICTED_LABELS: &str = "node-restriction.kubernetes.io";
/// Labels of Kubernetes that a kubelet sets.
const KUBELET_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
/// Whole domains of such labels.
const KUBELET_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// The domain of what the quorum says of nodes: whose they are, their stake, when they go.
const QUORUM_DOMAIN: &str = "nautilus.io";

/// Labels that differ and that a kubelet does not set.
pub(super) fn forbidden_labels(new: &Value, old: &Value) -> Vec<String> {
    forbidden("labels", new, old, is_forbidden)
}

/// Annotations that differ and that a kubelet does not set.
pub(super) fn forbidden_annotations(new: &Value, old: &Value) -> Vec<String> {
    forbidden("annotations", new, old, |key| is_within(key, QUORUM_DOMAIN))
}

fn forbidden(
    field: &str,
    new: &Value,
    old: &Value,
    is_forbidden: impl Fn(&str) -> bool,
) -> Vec<String> {
    let (new, old) = (&new["metadata"][field], &old["metadata"][field]);
    let maps = [new, old].into_iter().filter_map(Value::as_object);
    let all: BTreeSet<&String> = maps.flat_map(|map| map.keys()).collect();
    all.into_iter()
        .filter(|key| new.get(key) != old.get(key) && is_forbidden(key))
        .cloned()
        .collect()
}

/// Whether a key is of a domain or of one below it.
fn is_within(key: &str, of: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let above = domain.strip_suffix(of);
    above.is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('.'))
}

fn is_forbidden(label: &str) -> bool {
    let kubelets = KUBELET_LABELS.contains(&label)
        || KUBELET_DOMAINS
            .iter()
            .any(|domain| is_within(label, domain));
    let kubernetes = is_within(label, "kubernetes.io") || is_within(label, "k8s.io");
    is_within(label, RESTRICTED_LABELS)
        || is_within(label, QUORUM_DOMAIN)
        || (kubernetes && !kubelets)
}
