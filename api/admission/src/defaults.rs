//! The small plugins that fill something in: tolerations, the taint of a new node,
//! default classes, finalizers of what is in use, topology labels, runtime classes.

use nautilus_machinery::status::ApiError;
use serde_json::{Value, json};

use crate::attributes::{Attributes, Operation};
use crate::values::{items, list_at, resources, text};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Seconds that a pod stays on a node that is not there, where it says nothing.
const TOLERATION_SECONDS: u32 = 300;
/// Labels of a node that its pods carry.
const TOPOLOGY_LABELS: [&str; 2] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];
/// What marks the default storage class, now and before.
pub const DEFAULT_STORAGE_CLASS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];
/// What marks the default ingress class.
pub const DEFAULT_INGRESS_CLASS: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];
/// The class of a claim as it was once given.
const BETA_STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// DefaultTolerationSeconds: pods leave a dead node after five minutes.
pub fn tolerations(pod: &mut Value) {
    for key in [NOT_READY, UNREACHABLE] {
        let tolerated = items(&pod["spec"]["tolerations"]).any(|toleration| {
            matches!(text(&toleration["effect"]), "" | "NoExecute")
                && (toleration["key"] == key || text(&toleration["key"]).is_empty())
        });
        if !tolerated {
            list_at(&mut pod["spec"], "tolerations").push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": TOLERATION_SECONDS,
            }));
        }
    }
}

/// TaintNodesByCondition: nothing is scheduled on a node before it is ready.
pub fn taint_node(node: &mut Value) {
    let there = items(&node["spec"]["taints"])
        .any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule");
    if !there {
        list_at(&mut node["spec"], "taints")
            .push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
}

/// The default among classes: the newest of those so annotated.
pub fn default_class<'c>(
    classes: impl IntoIterator<Item = &'c Value>,
    annotations: &[&str],
) -> Option<&'c str> {
    let marked = classes.into_iter().filter(|class| {
        annotations
            .iter()
            .any(|name| class["metadata"]["annotations"][*name] == "true")
    });
    let name = |class: &'c Value| text(&class["metadata"]["name"]);
    // Times are of one form, so that their texts compare as they do.
    let time = |class: &'c Value| text(&class["metadata"]["creationTimestamp"]);
    marked
        .max_by(|a, b| time(a).cmp(time(b)).then(name(b).cmp(name(a))))
        .map(name)
}

/// The class a claim names; `None` where it leaves that open.
pub fn storage_class(claim: &Value) -> Option<&str> {
    claim["metadata"]["annotations"][BETA_STORAGE_CLASS]
        .as_str()
        .or_else(|| claim["spec"]["storageClassName"].as_str())
}

/// Whether an ingress names its class.
pub fn has_ingress_class(ingress: &Value) -> bool {
    !ingress["spec"]["ingressClassName"].is_null()
        || !ingress["metadata"]["annotations"]["kubernetes.io/ingress.class"].is_null()
}

/// The finalizer that keeps a new object of this kind while something uses it.
pub fn protection(asked: &Attributes<'_>) -> Option<&'static str> {
    if asked.operation != Operation::Create {
        return None;
    }
    [
        ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
        ("", "persistentvolumes", "kubernetes.io/pv-protection"),
        (
            "storage.k8s.io",
            "volumeattributesclasses",
            "kubernetes.io/vac-protection",
        ),
    ]
    .iter()
    .find(|(group, plural, _)| asked.is(group, plural))
    .map(|(.., finalizer)| *finalizer)
}

/// Adds a finalizer unless it is there.
pub fn add_finalizer(object: &mut Value, finalizer: &str) {
    let finalizers = list_at(&mut object["metadata"], "finalizers");
    if !finalizers.iter().any(|own| own == finalizer) {
        finalizers.push(json!(finalizer));
    }
}

/// PodTopologyLabels: what is bound to a node carries where that node is. `object` is a
/// pod with a node, or a binding.
pub fn topology_labels(object: &mut Value, node: &Value) {
    for label in TOPOLOGY_LABELS {
        if let Some(value) = node["metadata"]["labels"][label].as_str() {
            object["metadata"]["labels"][label] = json!(value);
        }
    }
}

/// PersistentVolumeClaimResize: only a bound claim of a class that allows it grows.
/// `class` is the class the claim names, if there is one.
pub fn check_resize(
    asked: &Attributes<'_>,
    claim: &Value,
    class: Option<&Value>,
) -> Result<(), ApiError> {
    let Some(old) = asked.old else {
        return Ok(());
    };
    let size = |claim: &Value| {
        resources(&claim["spec"]["resources"]["requests"])
            .get("storage")
            .cloned()
    };
    let grows = match (size(claim), size(old)) {
        (Some(new), Some(old)) => new > old,
        (Some(new), None) => !new.is_zero() && !new.is_negative(),
        (None, _) => false,
    };
    if !grows {
        return Ok(());
    }
    if old["status"]["phase"] != "Bound" {
        let why = "Only bound persistent volume claims can be expanded";
        return Err(asked.forbidden(Some(claim), why));
    }
    let same = storage_class(claim).is_some_and(|name| !name.is_empty())
        && storage_class(claim) == storage_class(old);
    if same && class.is_some_and(|class| class["allowVolumeExpansion"] == true) {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that \
               provisions the pvc must support resize";
    Err(asked.forbidden(Some(claim), why))
}

/// 403: the pod's runtime class is not there.
pub fn missing_runtime_class(asked: &Attributes<'_>, pod: &Value) -> ApiError {
    let name = text(&pod["spec"]["runtimeClassName"]);
    asked.forbidden(
        Some(pod),
        &format!("pod rejected: RuntimeClass \"{name}\" not found"),
    )
}

/// RuntimeClass: the class's overhead, node selector and tolerations become the pod's.
pub fn set_runtime_class(
    asked: &Attributes<'_>,
    pod: &mut Value,
    class: &Value,
) -> Result<(), ApiError> {
    let overhead = &class["overhead"]["podFixed"];
    if !class["overhead"].is_null() {
        let own = resources(&pod["spec"]["overhead"]);
        if !own.is_empty() && own != resources(overhead) {
            return Err(other_overhead(asked, pod));
        }
        if !overhead.is_null() {
            pod["spec"]["overhead"] = overhead.clone();
        }
    }
    let scheduling = &class["scheduling"];
    let selector = scheduling["nodeSelector"].as_object().into_iter().flatten();
    for (key, value) in selector {
        let own = &pod["spec"]["nodeSelector"][key];
        if !own.is_null() && own != value {
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; \
                 pod.spec.nodeSelector[{key}] = {}",
                text(value),
                text(own)
            );
            return Err(asked.forbidden(Some(pod), &why));
        }
        pod["spec"]["nodeSelector"][key] = value.clone();
    }
    if items(&scheduling["tolerations"]).next().is_some() {
        let all: Vec<Value> = items(&pod["spec"]["tolerations"])
            .chain(items(&scheduling["tolerations"]))
            .cloned()
            .collect();
        pod["spec"]["tolerations"] = json!(merge_tolerations(&all));
    }
    Ok(())
}

fn other_overhead(asked: &Attributes<'_>, pod: &Value) -> ApiError {
    let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
    asked.forbidden(Some(pod), why)
}

/// Refuses an overhead that is not the runtime class's.
pub fn check_overhead(
    asked: &Attributes<'_>,
    pod: &Value,
    class: Option<&Value>,
) -> Result<(), ApiError> {
    let own = &pod["spec"]["overhead"];
    match class.filter(|class| !class["overhead"].is_null()) {
        Some(class) if resources(&class["overhead"]["podFixed"]) != resources(own) => {
            Err(other_overhead(asked, pod))
        }
        None if !own.is_null() => {
            let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined \
                       Overhead";
            Err(asked.forbidden(Some(pod), why))
        }
        _ => Ok(()),
    }
}

/// Both lists without what another toleration covers.
fn merge_tolerations(all: &[Value]) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::new();
    for (index, toleration) in all.iter().enumerate() {
        let covered = merged.iter().any(|other| covers(other, toleration))
            || all[index + 1..]
                .iter()
                .any(|other| other != toleration && covers(other, toleration));
        if !covered {
            merged.push(toleration.clone());
        }
    }
    merged
}

fn covers(wide: &Value, narrow: &Value) -> bool {
    if wide == narrow {
        return true;
    }
    let (operator, effect) = (text(&wide["operator"]), text(&wide["effect"]));
    let any_key = text(&wide["key"]).is_empty() && operator == "Exists";
    if text(&wide["key"]) != text(&narrow["key"]) && !any_key {
        return false;
    }
    if !effect.is_empty() && effect != text(&narrow["effect"]) {
        return false;
    }
    if effect == "NoExecute"
        && let Some(most) = wide["tolerationSeconds"].as_i64()
        && narrow["tolerationSeconds"]
            .as_i64()
            .is_none_or(|own| own > most)
    {
        return false;
    }
    match operator {
        "" | "Equal" => {
            narrow["operator"] == "Equal" && text(&narrow["value"]) == text(&wide["value"])
        }
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_default_classes_the_newest_counts() {
        let class = |name: &str, time: &str| {
            json!({"metadata": {
                "name": name, "creationTimestamp": time,
                "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"},
            }})
        };
        let classes = [
            class("old", "2024-01-01T00:00:00Z"),
            class("b", "2025-01-01T00:00:00Z"),
            class("a", "2025-01-01T00:00:00Z"),
        ];
        assert_eq!(default_class(&classes, &DEFAULT_INGRESS_CLASS), Some("a"));
    }

    #[test]
    fn a_pod_that_tolerates_everything_gets_no_more_tolerations() {
        let mut pod = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        tolerations(&mut pod);
        assert_eq!(items(&pod["spec"]["tolerations"]).count(), 1);
        let mut pod = json!({"spec": {}});
        tolerations(&mut pod);
        tolerations(&mut pod);
        assert_eq!(items(&pod["spec"]["tolerations"]).count(), 2);
    }

    #[test]
    fn a_toleration_that_another_covers_is_left_out() {
        let all = [
            json!({"key": "a", "operator": "Equal", "value": "1"}),
            json!({"key": "a", "operator": "Exists"}),
        ];
        assert_eq!(merge_tolerations(&all), all[1..]);
    }
}
