//! Nodes that fall silent and come back, against small clusters.

use std::sync::Arc;

use super::*;
use crate::testing::{Cluster, at};

fn node(conditions: &[(&str, &str)]) -> Value {
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|(kind, status)| {
            let beat = object::time_field(at(0));
            json!({"type": kind, "status": status, "lastHeartbeatTime": beat})
        })
        .collect();
    json!({"metadata": {"name": "m"}, "status": {"conditions": conditions}})
}

fn lease(renewed: &str) -> Value {
    let metadata = json!({"namespace": LEASES, "name": "m"});
    json!({"metadata": metadata, "spec": {"renewTime": renewed}})
}

fn key() -> Key {
    Key::new("", "m")
}

fn seen(cluster: &Cluster) -> Arc<Value> {
    cluster.get(kind::NODES, "", "m").expect("a node")
}

fn taints_of(cluster: &Cluster) -> Vec<String> {
    let node = seen(cluster);
    taints::of(&node)
        .map(|own| {
            let text = |field: &str| own[field].as_str().unwrap_or_default().to_owned();
            let key = text("key")
                .trim_start_matches("node.kubernetes.io/")
                .to_owned();
            format!("{key}:{}", text("effect"))
        })
        .collect()
}

#[test]
fn a_node_is_silent_once_neither_its_lease_nor_its_status_was_renewed() {
    let health = Health::default();
    let mut cluster = Cluster::default();
    cluster.put(
        kind::NODES,
        node(&[("Ready", "True"), ("MemoryPressure", "False")]),
    );
    cluster.put(kind::LEASES, lease("1"));
    // This side sees it for the first time late.
    let plan = cluster.plan(&health, &key(), at(100));
    assert_eq!(
        (plan.is_empty(), plan.again_in),
        (true, Some(Duration::from_secs(51)))
    );
    cluster.put(kind::LEASES, lease("2"));
    assert!(cluster.plan(&health, &key(), at(149)).is_empty());
    let beat = json!({"status": {"conditions": [
        {"type": "Ready", "status": "True", "lastHeartbeatTime": object::time_field(at(9))},
        {"type": "MemoryPressure", "status": "False"},
    ]}});
    cluster.merge(kind::NODES, &key(), &beat);
    assert!(cluster.plan(&health, &key(), at(190)).is_empty());
    assert!(cluster.plan(&health, &key(), at(240)).is_empty());
    cluster.settle(&health, &key(), at(241));
    let silent = seen(&cluster);
    let ready = object::condition(&silent, "Ready").expect("Ready");
    assert_eq!(ready["status"], "Unknown");
    assert_eq!(ready["reason"], "NodeStatusUnknown");
    assert_eq!(ready["message"], "Kubelet stopped posting node status.");
    assert_eq!(ready["lastHeartbeatTime"], object::time_field(at(9)));
    assert_eq!(ready["lastTransitionTime"], object::time_field(at(241)));
    let pressure = object::condition(&silent, "MemoryPressure").expect("MemoryPressure");
    assert_eq!(pressure["status"], "Unknown");
    let disk = object::condition(&silent, "DiskPressure").expect("DiskPressure");
    assert_eq!(disk["reason"], "NodeStatusNeverUpdated");
    assert_eq!(taints_of(&cluster), ["unreachable:NoSchedule"]);
    let told = (
        "NodeNotReady",
        "Node m status is now: NodeNotReady".to_owned(),
    );
    assert!(cluster.events.contains(&told));
    cluster.merge(kind::NODES, &key(), &node(&[("Ready", "True")]));
    cluster.settle(&health, &key(), at(250));
    assert_eq!(taints_of(&cluster), [""; 0]);
}

#[test]
fn a_node_that_never_said_anything_is_given_its_start() {
    let health = Health::default();
    let mut cluster = Cluster::default();
    cluster.put(kind::NODES, json!({"metadata": {"name": "m"}}));
    cluster.settle(&health, &key(), at(60));
    assert_eq!(readiness(&seen(&cluster)), None);
    cluster.settle(&health, &key(), at(61));
    let node = seen(&cluster);
    let ready = object::condition(&node, "Ready").expect("Ready");
    assert_eq!(ready["reason"], "NodeStatusNeverUpdated");
    assert_eq!(ready["lastHeartbeatTime"], object::time_field(at(0)));
}

#[test]
fn a_new_node_is_announced_once_and_one_that_goes_too() {
    let health = Health::default();
    let mut cluster = Cluster::default();
    cluster.put(kind::NODES, node(&[("Ready", "True")]));
    cluster.settle(&health, &key(), at(10));
    cluster.settle(&health, &key(), at(11));
    cluster.remove(kind::NODES, &key());
    cluster.settle(&health, &key(), at(12));
    cluster.settle(&health, &key(), at(13));
    let expected = [
        (
            "RegisteredNode",
            "Node m event: Registered Node m in Controller".to_owned(),
        ),
        (
            "RemovingNode",
            "Node m event: Removing Node m from Controller".to_owned(),
        ),
    ];
    assert_eq!(cluster.events, expected);
    let (next_leader, mut later) = (Health::default(), Cluster::default());
    later.put(kind::NODES, node(&[("Ready", "True")]));
    later.settle(&next_leader, &key(), at(1000));
    assert_eq!(later.events, []);
}

#[test]
fn pods_of_a_silent_node_are_not_ready_and_others_stay() {
    for (readiness, expected) in [("Unknown", "False"), ("False", "True"), ("True", "True")] {
        let health = Health::default();
        let mut cluster = Cluster::default();
        cluster.put(kind::NODES, node(&[("Ready", readiness)]));
        let pod = json!({
            "metadata": {"namespace": "n", "name": "p"},
            "spec": {"nodeName": "m"},
            "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "r"}]},
        });
        let pod = cluster.put(kind::PODS, pod);
        let keys = cluster.concerned(&health, kind::PODS, None, Some(&pod));
        assert_eq!(keys.len(), usize::from(readiness == "Unknown"));
        cluster.settle(&health, &key(), at(1000));
        let pod = cluster.get(kind::PODS, "n", "p").expect("a pod");
        let ready = object::condition(&pod, "Ready").expect("Ready");
        assert_eq!(
            (&ready["status"], &ready["reason"]),
            (&json!(expected), &json!("r"))
        );
        let told = ("NodeNotReady", "Node is not ready".to_owned());
        assert_eq!(cluster.events.contains(&told), expected == "False");
    }
}

#[test]
fn taints_follow_conditions_and_those_of_others_stay() {
    let health = Health::default();
    let mut cluster = Cluster::default();
    let mut cordoned = node(&[
        ("Ready", "False"),
        ("MemoryPressure", "True"),
        ("DiskPressure", "True"),
        ("PIDPressure", "False"),
        ("NetworkUnavailable", "True"),
    ]);
    cordoned["spec"] = json!({"unschedulable": true, "taints": [
        {"key": "mine", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/pid-pressure", "effect": "NoSchedule"},
        {"key": taints::UNREACHABLE, "effect": "NoExecute"},
    ]});
    cordoned["metadata"]["labels"] = json!({"kubernetes.io/os": "linux"});
    cluster.put(kind::NODES, cordoned);
    assert_eq!(cluster.settle(&health, &key(), at(1000)), 1);
    assert_eq!(
        taints_of(&cluster),
        [
            "mine:NoSchedule",
            "unreachable:NoExecute",
            "not-ready:NoSchedule",
            "memory-pressure:NoSchedule",
            "disk-pressure:NoSchedule",
            "network-unavailable:NoSchedule",
            "unschedulable:NoSchedule",
        ]
    );
    assert_eq!(
        object::label(&seen(&cluster), "beta.kubernetes.io/os"),
        Some("linux")
    );
}

#[test]
fn of_a_workers_node_only_what_the_workers_face_leaves_is_touched() {
    let health = Health::default();
    let mut cluster = Cluster::default();
    let mut worker = node(&[("Ready", "False"), ("MemoryPressure", "True")]);
    worker["metadata"]["annotations"] = json!({super::super::WORKER: "w"});
    worker["spec"]["taints"] = json!([{"key": taints::UNREACHABLE, "effect": "NoSchedule"}]);
    cluster.put(kind::NODES, worker);
    cluster.settle(&health, &key(), at(100));
    cluster.settle(&health, &key(), at(1000));
    assert_eq!(readiness(&seen(&cluster)), Some("False"));
    assert_eq!(
        taints_of(&cluster),
        ["unreachable:NoSchedule", "memory-pressure:NoSchedule"]
    );
}

#[test]
fn a_workers_node_is_looked_at_only_where_something_follows_for_it() {
    let mut cluster = Cluster::default();
    let worker = |conditions: &[(&str, &str)]| {
        let mut worker = node(conditions);
        worker["metadata"]["annotations"] = json!({super::super::WORKER: "w"});
        Arc::new(worker)
    };
    let [ready, lost] = ["True", "Unknown"].map(|status| worker(&[("Ready", status)]));
    let full = worker(&[("Ready", "True"), ("DiskPressure", "True")]);
    let ordinary = Arc::new(node(&[("Ready", "True")]));
    for (before, after, is_looked_at) in [
        (None, Some(&ready), false),
        (Some(&ready), None, false),
        (Some(&lost), Some(&ready), false),
        (Some(&ready), Some(&lost), true),
        (None, Some(&lost), true),
        (Some(&ready), Some(&full), true),
        (None, Some(&ordinary), true),
        (Some(&ordinary), None, true),
    ] {
        let keys = cluster.concerned(&Health::default(), kind::NODES, before, after);
        assert_eq!(
            keys.len(),
            usize::from(is_looked_at),
            "{before:?} {after:?}"
        );
    }
    let renewed = Arc::new(lease("2026-01-01T00:00:00Z"));
    for (node, keys) in [(&ready, 0), (&ordinary, 1)] {
        cluster.put(kind::NODES, (**node).clone());
        let concerned = cluster.concerned(&Health::default(), kind::LEASES, None, Some(&renewed));
        assert_eq!(concerned.len(), keys, "{node:?}");
    }
}
