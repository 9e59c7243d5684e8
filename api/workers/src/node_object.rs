//! The Kubernetes `Node` that stands for a worker: pure, object in, object out.
//!
//! Invariants
//! - Only what is ours is touched: the `Ready` condition, the not-ready, unreachable and
//!   stake's taints, our labels and annotations, a cordon for the stake's sake. The rest of
//!   an existing object, whoever wrote it, stays.
//! - A condition's `lastTransitionTime` moves only with its status.

use aws_lc_rs::digest;
use serde_json::{Map, Value, json};

use crate::lifecycle::{Readiness, Stake};
use crate::machine::Machine;
use crate::removal;
use crate::tier::StakeTier;

/// Annotation with the worker's own `node_id`.
pub const NODE_ID_ANNOTATION: &str = "nautilus.io/node-id";
/// Annotation with the owner of the worker's token.
pub const OWNER_ANNOTATION: &str = "nautilus.io/owner";
/// Label of every worker's node.
pub const WORKER_LABEL: &str = "nautilus.io/worker";

/// Label with what the stake permits.
pub const STAKE_TIER_LABEL: &str = "nautilus.io/stake-tier";

/// <https://kubernetes.io/docs/reference/labels-annotations-taints/#node-kubernetes-io-not-ready>
const NOT_READY_TAINT: &str = "node.kubernetes.io/not-ready";
/// <https://kubernetes.io/docs/reference/labels-annotations-taints/#node-kubernetes-io-unreachable>
const UNREACHABLE_TAINT: &str = "node.kubernetes.io/unreachable";
/// The kubelet's default of pods on one node; the worker's kubelet reports its own.
const DEFAULT_POD_CAPACITY: &str = "110";
/// Workers run Linux on a platform with a TEE, which today means x86-64; the
/// registration says neither, and the worker's kubelet corrects both.
const OPERATING_SYSTEM: &str = "linux";
const ARCHITECTURE: &str = "amd64";
/// Longest Kubernetes name (a DNS subdomain), in bytes.
const NAME_LIMIT_BYTES: usize = 253;
/// Longest value of a label, in bytes.
const LABEL_LIMIT_BYTES: usize = 63;

/// What a node object says of its worker.
#[derive(Debug, Clone, Copy)]
pub struct NodeFacts<'a> {
    /// As the worker calls itself.
    pub node_id: &'a str,
    /// The object's name, from [`node_name`].
    pub node_name: &'a str,
    /// The owner of its token.
    pub owner: &'a str,
    /// What its `Ready` condition becomes.
    pub readiness: Readiness,
    /// State of its stake.
    pub stake: Stake,
    /// From when on it is removed, in RFC 3339, where its stake is gone.
    pub remove_from: Option<&'a str>,
    /// What a registration says: unchanged where there is none.
    pub told: Option<(StakeTier, &'a Machine)>,
}

/// The `Node` name of a worker: its id where that is a name already, else the nearest
/// name with a piece of the id's hash, so that no two ids share one.
pub fn node_name(node_id: &str) -> String {
    if is_subdomain(node_id) {
        return node_id.to_owned();
    }
    let hash = digest::digest(&digest::SHA256, node_id.as_bytes());
    let suffix = hex::encode(&hash.as_ref()[..5]);
    let mut name: String = node_id
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                c
            } else {
                '-'
            }
        })
        .take(NAME_LIMIT_BYTES - suffix.len() - 1)
        .collect();
    name = name.trim_matches('-').to_owned();
    if name.is_empty() {
        format!("worker-{suffix}")
    } else {
        format!("{name}-{suffix}")
    }
}

/// A new object. `now` is RFC 3339 with seconds, `uid` a UUID.
pub fn create(facts: &NodeFacts<'_>, uid: &str, now: &str) -> Value {
    let mut node = json!({
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {
            "name": facts.node_name,
            "uid": uid,
            "creationTimestamp": now,
            "labels": {},
            "annotations": {},
        },
        "spec": {},
        "status": {
            "capacity": {"pods": DEFAULT_POD_CAPACITY},
            "allocatable": {"pods": DEFAULT_POD_CAPACITY},
            "addresses": [{"type": "Hostname", "address": facts.node_name}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
            "nodeInfo": {
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
                "kernelVersion": "",
                "osImage": "",
                "containerRuntimeVersion": "",
                "kubeletVersion": "",
                "kubeProxyVersion": "",
                "operatingSystem": OPERATING_SYSTEM,
                "architecture": ARCHITECTURE,
            },
        },
    });
    update(&mut node, facts, now);
    node
}

/// Brings what is ours up to date; `true` when that changed the object.
pub fn update(node: &mut Value, facts: &NodeFacts<'_>, now: &str) -> bool {
    let before = node.clone();
    let metadata = object(node, "metadata");
    let labels = child(metadata, "labels");
    for (label, value) in [
        ("kubernetes.io/hostname", short_label(facts.node_name)),
        ("kubernetes.io/os", OPERATING_SYSTEM.to_owned()),
        ("kubernetes.io/arch", ARCHITECTURE.to_owned()),
        // As kubelets name them too: the node controller would add them, with a write for each.
        ("beta.kubernetes.io/os", OPERATING_SYSTEM.to_owned()),
        ("beta.kubernetes.io/arch", ARCHITECTURE.to_owned()),
        ("node-role.kubernetes.io/worker", String::new()),
        (WORKER_LABEL, "true".to_owned()),
    ] {
        labels.entry(label).or_insert(Value::String(value));
    }
    let annotations = child(metadata, "annotations");
    annotations.insert(NODE_ID_ANNOTATION.to_owned(), facts.node_id.into());
    annotations.insert(OWNER_ANNOTATION.to_owned(), facts.owner.into());
    if let Some((tier, machine)) = facts.told {
        tell(node, tier, machine);
    }
    set_condition(object(node, "status"), facts.readiness, now);
    set_taints(object(node, "spec"), facts.readiness, now);
    leave_or_stay(node, facts, now);
    *node != before
}

/// What a registration says. Of the machine a kubelet knows better: where one has told its
/// version, its word stands.
fn tell(node: &mut Value, tier: StakeTier, machine: &Machine) {
    let has_kubelet = node["status"]["nodeInfo"]["kubeletVersion"]
        .as_str()
        .is_some_and(|version| !version.is_empty());
    let labels = child(object(node, "metadata"), "labels");
    labels.insert(STAKE_TIER_LABEL.to_owned(), tier.as_str().into());
    if has_kubelet {
        return;
    }
    for (label, value) in &machine.topology {
        labels.insert((*label).to_owned(), value.as_str().into());
    }
    for part in ["capacity", "allocatable"] {
        let resources = child(object(node, "status"), part);
        for (resource, quantity) in &machine.capacity {
            resources.insert((*resource).to_owned(), quantity.as_str().into());
        }
    }
}

fn leave_or_stay(node: &mut Value, facts: &NodeFacts<'_>, now: &str) {
    let mut spec = std::mem::take(object(node, "spec"));
    let metadata = object(node, "metadata");
    removal::apply(metadata, &mut spec, facts.stake, facts.remove_from, now);
    if spec.get("taints") == Some(&json!([])) {
        spec.shift_remove("taints");
    }
    *object(node, "spec") = spec;
}

/// The status, reason and message of the `Ready` condition.
fn condition_of(readiness: Readiness) -> (&'static str, &'static str, &'static str) {
    match readiness {
        Readiness::Ready => ("True", "WorkerReady", "the worker is sending heartbeats"),
        Readiness::AwaitingBeat => (
            "False",
            "WorkerRegistered",
            "the worker has registered and is yet to send its first heartbeat",
        ),
        Readiness::StakeSlashed => ("False", "StakeSlashed", "the worker's stake was slashed"),
        Readiness::StakeWithdrawn => (
            "False",
            "StakeWithdrawn",
            "the worker's stake was withdrawn",
        ),
        Readiness::TokenExpired => ("False", "TokenExpired", "the worker's token has expired"),
        Readiness::Silent | Readiness::Evicted => (
            "Unknown",
            "NodeStatusUnknown",
            "the worker stopped sending heartbeats",
        ),
    }
}

fn set_condition(status: &mut Map<String, Value>, readiness: Readiness, now: &str) {
    let (state, reason, message) = condition_of(readiness);
    let conditions = list(status, "conditions");
    let Some(ready) = conditions
        .iter_mut()
        .find(|condition| condition["type"] == "Ready")
    else {
        conditions.push(json!({
            "type": "Ready",
            "status": state,
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
            "reason": reason,
            "message": message,
        }));
        return;
    };
    if ready["status"] == state && ready["reason"] == reason {
        return;
    }
    if ready["status"] != state {
        ready["lastTransitionTime"] = now.into();
    }
    // The worker was heard now, unless it is its silence that changes the condition.
    if !matches!(readiness, Readiness::Silent | Readiness::Evicted) {
        ready["lastHeartbeatTime"] = now.into();
    }
    ready["status"] = state.into();
    ready["reason"] = reason.into();
    ready["message"] = message.into();
}

/// As the node lifecycle controller taints: `Ready=False` is not-ready, `Ready=Unknown` is
/// unreachable, each as NoSchedule and as NoExecute; the latter for a silent worker only when
/// it is evicted.
fn set_taints(spec: &mut Map<String, Value>, readiness: Readiness, now: &str) {
    let both = ["NoSchedule", "NoExecute"].as_slice();
    let (key, effects) = match readiness {
        Readiness::Ready => ("", [].as_slice()),
        Readiness::AwaitingBeat
        | Readiness::StakeSlashed
        | Readiness::StakeWithdrawn
        | Readiness::TokenExpired => (NOT_READY_TAINT, both),
        Readiness::Silent => (UNREACHABLE_TAINT, &both[..1]),
        Readiness::Evicted => (UNREACHABLE_TAINT, both),
    };
    let taints = list(spec, "taints");
    taints.retain(|taint| {
        let text = |field: &str| taint[field].as_str().unwrap_or_default();
        let ours = [NOT_READY_TAINT, UNREACHABLE_TAINT].contains(&text("key"));
        !ours || (text("key") == key && effects.contains(&text("effect")))
    });
    for effect in effects {
        if !taints
            .iter()
            .any(|taint| taint["key"] == key && taint["effect"] == *effect)
        {
            taints.push(json!({"key": key, "effect": effect, "timeAdded": now}));
        }
    }
}

/// `node[key]` as an object, made one if it is not.
fn object<'a>(node: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !node.is_object() {
        *node = Value::Object(Map::new());
    }
    match node {
        Value::Object(fields) => child(fields, key),
        _ => unreachable!("made an object above"),
    }
}

pub(crate) fn child<'a>(
    fields: &'a mut Map<String, Value>,
    key: &str,
) -> &'a mut Map<String, Value> {
    let value = fields.entry(key).or_insert(Value::Null);
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("made an object above"),
    }
}

pub(crate) fn list<'a>(fields: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let value = fields.entry(key).or_insert(Value::Null);
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    match value {
        Value::Array(items) => items,
        _ => unreachable!("made an array above"),
    }
}

/// A DNS-1123 subdomain, as names of nodes must be.
fn is_subdomain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= NAME_LIMIT_BYTES
        && text.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
}

/// The name as a label's value: cut where it is too long, never ending in a separator.
fn short_label(name: &str) -> String {
    let cut = &name[..name.len().min(LABEL_LIMIT_BYTES)];
    cut.trim_end_matches(['-', '.']).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts(readiness: Readiness) -> NodeFacts<'static> {
        NodeFacts {
            node_id: "worker-1",
            node_name: "worker-1",
            owner: "0xa1",
            readiness,
            stake: Stake::Active,
            remove_from: None,
            told: None,
        }
    }

    fn ready(node: &Value) -> &Value {
        let conditions = node["status"]["conditions"].as_array().expect("conditions");
        conditions
            .iter()
            .find(|condition| condition["type"] == "Ready")
            .expect("Ready")
    }

    fn taints(node: &Value) -> Vec<String> {
        let none = Vec::new();
        let taints = node["spec"]["taints"].as_array().unwrap_or(&none);
        taints
            .iter()
            .map(|taint| {
                let text = |key: &str| taint[key].as_str().unwrap_or_default().to_owned();
                format!("{}:{}", text("key"), text("effect"))
            })
            .collect()
    }

    #[test]
    fn a_new_worker_is_tainted_until_it_beats_and_again_when_it_falls_silent() {
        let mut node = create(
            &facts(Readiness::AwaitingBeat),
            "uid",
            "2026-01-01T00:00:00Z",
        );
        // Nothing is left for the node controller to write.
        let labels = &node["metadata"]["labels"];
        for label in ["os", "arch"] {
            let [old, new] = ["beta.kubernetes.io", "kubernetes.io"];
            assert_eq!(
                labels[format!("{old}/{label}")],
                labels[format!("{new}/{label}")]
            );
        }
        assert_eq!(ready(&node)["status"], "False");
        assert_eq!(
            taints(&node),
            [
                "node.kubernetes.io/not-ready:NoSchedule",
                "node.kubernetes.io/not-ready:NoExecute"
            ]
        );
        assert!(update(
            &mut node,
            &facts(Readiness::Ready),
            "2026-01-01T00:00:30Z"
        ));
        assert_eq!(ready(&node)["status"], "True");
        assert_eq!(ready(&node)["lastTransitionTime"], "2026-01-01T00:00:30Z");
        assert!(taints(&node).is_empty());
        assert!(update(
            &mut node,
            &facts(Readiness::Silent),
            "2026-01-01T00:02:00Z"
        ));
        assert_eq!(ready(&node)["status"], "Unknown");
        assert_eq!(ready(&node)["lastHeartbeatTime"], "2026-01-01T00:00:30Z");
        let unreachable = "node.kubernetes.io/unreachable:NoSchedule";
        assert_eq!(taints(&node), [unreachable]);
        update(
            &mut node,
            &facts(Readiness::Evicted),
            "2026-01-01T00:03:00Z",
        );
        assert_eq!(
            taints(&node),
            [unreachable, "node.kubernetes.io/unreachable:NoExecute"]
        );
        assert_eq!(ready(&node)["lastTransitionTime"], "2026-01-01T00:02:00Z");
        update(&mut node, &facts(Readiness::Silent), "2026-01-01T00:04:00Z");
        assert_eq!(taints(&node), [unreachable]);
    }

    #[test]
    fn what_others_wrote_into_the_object_stays() {
        let mut node = create(
            &facts(Readiness::AwaitingBeat),
            "uid",
            "2026-01-01T00:00:00Z",
        );
        node["metadata"]["labels"]["disk"] = "ssd".into();
        node["metadata"]["labels"]["kubernetes.io/arch"] = "arm64".into();
        node["spec"]["taints"] = json!([{"key": "gpu", "effect": "NoSchedule"}]);
        node["status"]["conditions"]
            .as_array_mut()
            .expect("conditions")
            .push(json!({"type": "DiskPressure", "status": "False"}));
        update(&mut node, &facts(Readiness::Ready), "2026-01-01T00:00:30Z");
        assert_eq!(node["metadata"]["labels"]["disk"], "ssd");
        assert_eq!(node["metadata"]["labels"]["kubernetes.io/arch"], "arm64");
        assert_eq!(taints(&node), ["gpu:NoSchedule"]);
        assert_eq!(
            node["status"]["conditions"]
                .as_array()
                .expect("conditions")
                .len(),
            2
        );
    }

    #[test]
    fn a_registration_tells_of_the_machine_until_a_kubelet_knows_better() {
        let machine = |cpu: &str| Machine {
            capacity: vec![("cpu", cpu.to_owned())],
            topology: vec![("topology.kubernetes.io/zone", "z1".to_owned())],
        };
        let (small, large) = (machine("2"), machine("8"));
        let told = |machine| NodeFacts {
            told: Some((StakeTier::Node, machine)),
            ..facts(Readiness::Ready)
        };
        let mut node = create(&told(&small), "uid", "2026-01-01T00:00:00Z");
        let labels = &node["metadata"]["labels"];
        assert_eq!(labels[STAKE_TIER_LABEL], "node");
        assert_eq!(labels["topology.kubernetes.io/zone"], "z1");
        assert_eq!(node["status"]["capacity"]["pods"], DEFAULT_POD_CAPACITY);
        let mut cpu_after = |machine| {
            update(&mut node, &told(machine), "2026-01-01T00:01:00Z");
            let cpu = node["status"]["allocatable"]["cpu"].clone();
            node["status"]["nodeInfo"]["kubeletVersion"] = "v1.37.2".into();
            cpu
        };
        assert_eq!(cpu_after(&large), "8");
        assert_eq!(cpu_after(&small), "8");
    }

    #[test]
    fn an_update_that_says_nothing_new_leaves_the_object_alone() {
        let mut node = create(&facts(Readiness::Ready), "uid", "2026-01-01T00:00:00Z");
        assert!(!update(
            &mut node,
            &facts(Readiness::Ready),
            "2026-01-01T00:00:30Z"
        ));
    }

    #[test]
    fn ids_that_differ_only_in_what_a_name_can_not_hold_get_different_names() {
        assert_eq!(node_name("worker-1.example"), "worker-1.example");
        assert_ne!(node_name("Worker_1"), node_name("worker-1"));
        assert_ne!(node_name("Worker_1"), node_name("worker_1"));
    }

    proptest! {
        #[test]
        fn every_id_gets_a_valid_name(node_id in "\\PC{1,300}") {
            prop_assert!(is_subdomain(&node_name(&node_id)), "{}", node_name(&node_id));
        }
    }
}
