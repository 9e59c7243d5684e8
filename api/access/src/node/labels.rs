//! Which labels a kubelet may set on its own node: none by which workloads are steered.

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
/// Labels that differ and that a kubelet does not set.
pub(super) fn forbidden_labels(new: &Value, old: &Value) -> Vec<String> {
    let (new, old) = (&new["metadata"]["labels"], &old["metadata"]["labels"]);
    let keys = |labels: &Value| -> Vec<String> {
        let map = labels.as_object();
        map.map_or_else(Vec::new, |map| map.keys().cloned().collect())
    };
    let all: BTreeSet<String> = keys(new).into_iter().chain(keys(old)).collect();
    all.into_iter()
        .filter(|key| new.get(key) != old.get(key))
        .filter(|key| is_forbidden(key))
        .collect()
}

fn is_forbidden(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within = |of: &str| {
        domain == of
            || domain
                .strip_suffix(of)
                .is_some_and(|prefix| prefix.ends_with('.'))
    };
    let kubelets =
        KUBELET_LABELS.contains(&label) || KUBELET_DOMAINS.iter().any(|domain| within(domain));
    within(RESTRICTED_LABELS) || ((within("kubernetes.io") || within("k8s.io")) && !kubelets)
}
