//! Where pods go in small clusters: volumes, nominations, turns, and messages.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Cycle, PodInfo, Profile, Snapshot, schedule};
use crate::controller::Change;
use crate::kind::{self, Kind};
use crate::object;
use crate::view::Key;

fn put(snapshot: &mut Snapshot, kind: Kind, object: &Value) {
    let after = Some(Arc::new(object.clone()));
    let before = None;
    snapshot.apply(&Change {
        kind,
        before,
        after,
    });
}

fn take(snapshot: &mut Snapshot, kind: Kind, object: &Value) {
    let before = Some(Arc::new(object.clone()));
    let after = None;
    snapshot.apply(&Change {
        kind,
        before,
        after,
    });
}

fn node(name: &str, labels: &Value) -> Value {
    json!({
        "metadata": {"name": name, "labels": labels},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}},
    })
}

/// Nodes `a` in zone `x` and `b` in zone `y`.
fn two_nodes() -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (name, zone) in [("a", "x"), ("b", "y")] {
        let labels = json!({"topology.kubernetes.io/zone": zone, "kubernetes.io/hostname": name});
        put(&mut snapshot, kind::NODES, &node(name, &labels));
    }
    snapshot
}

fn pod(name: &str, mut spec: Value) -> Arc<PodInfo> {
    let metadata = json!({"namespace": "n", "name": name, "uid": name});
    let mut pod = json!({ "metadata": metadata, "spec": spec.take() });
    if pod["spec"]["containers"].is_null() {
        pod["spec"]["containers"] = json!([{"name": "c"}]);
    }
    Arc::new(PodInfo::new(Arc::new(pod)))
}

fn asks_for(name: &str, cpu: &str, priority: i64) -> Arc<PodInfo> {
    let container = json!({"resources": {"requests": {"cpu": cpu}}});
    pod(
        name,
        json!({"containers": [container], "priority": priority}),
    )
}

fn with_claims(claims: &[&str]) -> Arc<PodInfo> {
    let volumes = claims.iter();
    let volumes = volumes.map(|own| json!({"persistentVolumeClaim": {"claimName": own}}));
    let volumes: Vec<Value> = volumes.collect();
    pod("pod", json!({ "volumes": volumes }))
}

/// A node's name, or why there is none.
fn place(snapshot: &mut Snapshot, pod: &PodInfo) -> String {
    match schedule(snapshot, pod, &Profile::default()) {
        Ok(chosen) => chosen.node,
        Err(unschedulable) => unschedulable.message(""),
    }
}

/// Node by node: why it will not do.
fn refused(snapshot: &Snapshot, pod: &PodInfo) -> Vec<Option<String>> {
    let profile = Profile::default();
    let cycle = Cycle::new(snapshot, pod, &profile).unwrap_or_else(|own| panic!("{own:?}"));
    let mut nodes: Vec<_> = snapshot.nodes().collect();
    nodes.sort_by_key(|own| own.name.clone());
    let nodes = nodes.into_iter();
    nodes
        .map(|node| {
            cycle
                .filter(snapshot, node)
                .map(|own| own.reasons.join(", "))
        })
        .collect()
}

fn claim(name: &str, class: &str, more: &Value) -> Value {
    let mut claim = json!({
        "metadata": {"namespace": "n", "name": name, "uid": format!("uid-{name}")},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "5Gi"}}},
    });
    nautilus_machinery::patch::merge(&mut claim, more);
    claim
}

fn bound_claim(name: &str, volume: &str) -> Value {
    let annotations = json!({"pv.kubernetes.io/bind-completed": "yes"});
    let more = json!({"metadata": {"annotations": annotations}, "spec": {"volumeName": volume}});
    claim(name, "fast", &more)
}

fn volume(name: &str, size: &str, more: &Value) -> Value {
    let mut volume = json!({
        "metadata": {"name": name},
        "spec": {"storageClassName": "local", "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"]},
        "status": {"phase": "Available"},
    });
    nautilus_machinery::patch::merge(&mut volume, more);
    volume
}

fn only_on(host: &str) -> Value {
    let expression = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [host]});
    let terms = json!([{"matchExpressions": [expression]}]);
    json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}})
}

fn class(name: &str, provisioner: &str, more: &Value) -> Value {
    let mut class = json!({"metadata": {"name": name}, "provisioner": provisioner,
        "volumeBindingMode": "WaitForFirstConsumer"});
    nautilus_machinery::patch::merge(&mut class, more);
    class
}

#[test]
fn a_claim_that_is_not_ready_keeps_its_pod_from_every_node() {
    let at_once = class("now", "d", &json!({"volumeBindingMode": "Immediate"}));
    let ends = json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}});
    let lost = json!({"status": {"phase": "Lost"}, "spec": {"volumeName": "gone"}});
    for (more, expected) in [
        (None, "persistentvolumeclaim \"c\" not found"),
        (Some(ends), "persistentvolumeclaim \"c\" is being deleted"),
        (
            Some(lost),
            "persistentvolumeclaim \"c\" bound to non-existent persistentvolume \"gone\"",
        ),
        (
            Some(json!({})),
            "pod has unbound immediate PersistentVolumeClaims",
        ),
    ] {
        let mut snapshot = two_nodes();
        put(&mut snapshot, kind::STORAGE_CLASSES, &at_once);
        if let Some(more) = more {
            put(&mut snapshot, kind::CLAIMS, &claim("c", "now", &more));
        }
        let expected = format!("0/2 nodes are available: {expected}.");
        assert_eq!(place(&mut snapshot, &with_claims(&["c"])), expected);
    }
    let ephemeral = pod("pod", json!({"volumes": [{"name": "v", "ephemeral": {}}]}));
    let expected = "0/2 nodes are available: waiting for ephemeral volume controller to create \
                    the persistentvolumeclaim \"pod-v\".";
    assert_eq!(place(&mut two_nodes(), &ephemeral), expected);
}

#[test]
fn a_pod_goes_where_its_bound_volume_is() {
    let mut snapshot = two_nodes();
    put(&mut snapshot, kind::CLAIMS, &bound_claim("c", "v"));
    let gone = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
    let zone_missing = "0/2 nodes are available: persistentvolume \"v\" not found.";
    assert_eq!(place(&mut snapshot, &with_claims(&["c"])), zone_missing);
    let mut without_zones = Profile::default();
    without_zones
        .filters
        .retain(|own| own != super::Plugin::VolumeZone);
    let result = schedule(&mut snapshot, &with_claims(&["c"]), &without_zones);
    let message = result.expect_err("the volume is gone").message("");
    assert_eq!(message, format!("0/2 nodes are available: 2 {gone}."));
    put(
        &mut snapshot,
        kind::VOLUMES,
        &volume("v", "5Gi", &only_on("b")),
    );
    let other = "node(s) didn't match PersistentVolume's node affinity";
    assert_eq!(
        refused(&snapshot, &with_claims(&["c"])),
        [Some(other.to_owned()), None]
    );
    let zone = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "z__y"}}});
    put(&mut snapshot, kind::VOLUMES, &volume("v", "5Gi", &zone));
    let other = "node(s) had no available volume zone";
    assert_eq!(
        refused(&snapshot, &with_claims(&["c"])),
        [Some(other.to_owned()), None]
    );
}

#[test]
fn claims_that_wait_get_the_smallest_volumes_of_the_node_each_its_own() {
    let mut snapshot = two_nodes();
    let local = class("local", "kubernetes.io/no-provisioner", &json!({}));
    put(&mut snapshot, kind::STORAGE_CLASSES, &local);
    for name in ["c", "d"] {
        put(
            &mut snapshot,
            kind::CLAIMS,
            &claim(name, "local", &json!({})),
        );
    }
    for (name, size, host) in [
        ("v1", "9Gi", "b"),
        ("v2", "7Gi", "b"),
        ("v3", "4Gi", "b"),
        ("v4", "6Gi", "a"),
    ] {
        put(
            &mut snapshot,
            kind::VOLUMES,
            &volume(name, size, &only_on(host)),
        );
    }
    let pod = with_claims(&["c", "d"]);
    let none = "node(s) didn't find available persistent volumes to bind";
    assert_eq!(refused(&snapshot, &pod), [Some(none.to_owned()), None]);
    let chosen = schedule(&mut snapshot, &pod, &Profile::default()).expect("b will do");
    let bindings = chosen.volumes.bindings.iter();
    let names = bindings.map(|(volume, claim)| (object::name(volume), object::name(claim)));
    assert_eq!(Vec::from_iter(names), [("v2", "c"), ("v1", "d")]);
    assert!(chosen.volumes.provisions.is_empty());

    let reference = json!({"namespace": "n", "name": "d", "uid": "uid-d"});
    let taken = volume("v1", "9Gi", &json!({"spec": {"claimRef": reference}}));
    snapshot.reserve(kind::VOLUMES, Arc::new(taken));
    let one = with_claims(&["c"]);
    let chosen = schedule(&mut snapshot, &one, &Profile::default()).expect("one is left");
    let volume_of = |own: &super::Chosen| object::name(&own.volumes.bindings[0].0).to_owned();
    // Both nodes have one; the fuller one is the better: 5 of 6 against 5 of 7.
    assert_eq!(volume_of(&chosen), "v2");
    snapshot.release(kind::VOLUMES, &Key::new("", "v1"));
    assert_eq!(refused(&snapshot, &pod), [Some(none.to_owned()), None]);
}

#[test]
fn a_volume_is_made_where_its_class_and_its_driver_have_room() {
    let pod = with_claims(&["c"]);
    let in_y = json!({"matchLabels": {"topology.kubernetes.io/zone": "y"}});
    let zone_of = |values: &[&str]| {
        let expression = json!({"key": "topology.kubernetes.io/zone", "values": values});
        json!({"allowedTopologies": [{"matchLabelExpressions": [expression]}]})
    };
    let none = Some("node(s) didn't find available persistent volumes to bind".to_owned());
    let full = Some("node(s) did not have enough free storage".to_owned());
    for (more, capacity, annotation, expected) in [
        (json!({}), None, None, [None, None]),
        (zone_of(&["y"]), None, None, [none.clone(), None]),
        (json!({}), Some("9Gi"), None, [full.clone(), None]),
        (json!({}), Some("4Gi"), None, [full.clone(), full]),
        (json!({}), None, Some("a"), [None, none]),
    ] {
        let mut snapshot = two_nodes();
        put(
            &mut snapshot,
            kind::STORAGE_CLASSES,
            &class("fast", "d", &more),
        );
        let mut own = claim("c", "fast", &json!({}));
        if let Some(node) = annotation {
            own["metadata"]["annotations"] = json!({"volume.kubernetes.io/selected-node": node});
        }
        put(&mut snapshot, kind::CLAIMS, &own);
        if let Some(capacity) = capacity {
            let driver = json!({"metadata": {"name": "d"}, "spec": {"storageCapacity": true}});
            put(&mut snapshot, kind::CSI_DRIVERS, &driver);
            let room = json!({"metadata": {"namespace": "d", "name": "r"}, "capacity": capacity,
                "storageClassName": "fast", "nodeTopology": in_y});
            put(&mut snapshot, kind::CSI_CAPACITIES, &room);
        }
        assert_eq!(refused(&snapshot, &pod), expected, "{more} {capacity:?}");
        if let Ok(chosen) = schedule(&mut snapshot, &pod, &Profile::default()) {
            assert_eq!(object::name(&chosen.volumes.provisions[0]), "c");
        }
    }
}

#[test]
fn a_claim_for_one_pod_is_free_again_when_the_pod_is_gone() {
    let mut snapshot = two_nodes();
    put(
        &mut snapshot,
        kind::VOLUMES,
        &volume("v", "5Gi", &json!({})),
    );
    let mut own = bound_claim("c", "v");
    own["spec"]["accessModes"] = json!(["ReadWriteOncePod"]);
    put(&mut snapshot, kind::CLAIMS, &own);
    let first = with_claims(&["c"]);
    let mut second = (*first).clone();
    second.uid = "other".into();
    snapshot.assume(&first, "a");
    let expected = "0/2 nodes are available: 2 node(s) unavailable due to PersistentVolumeClaim \
                    with ReadWriteOncePod access mode already in-use by another pod.";
    assert_eq!(place(&mut snapshot, &second), expected);
    let profile = Profile::default();
    let mut cycle = Cycle::new(&snapshot, &second, &profile).expect("nodes are looked at");
    let slot = snapshot.node("a").expect("it is there").slot;
    cycle.remove_pod(&snapshot, &first, slot);
    assert_eq!(cycle.filter(&snapshot, snapshot.at(slot)), None);
    snapshot.forget("pod");
    assert_eq!(refused(&snapshot, &second), [None, None]);
}

#[test]
fn disks_with_one_writer_are_not_shared_on_a_node() {
    let disk = |read_only: bool| json!({"volumes": [{"gcePersistentDisk": {"pdName": "d", "readOnly": read_only}}]});
    let taken = Some("node(s) had no available disk".to_owned());
    for (there, comes, expected) in [
        (disk(false), disk(true), taken),
        (disk(true), disk(true), None),
        (disk(false), json!({}), None),
    ] {
        let mut snapshot = two_nodes();
        snapshot.assume(&pod("there", there), "a");
        assert_eq!(refused(&snapshot, &pod("comes", comes)), [expected, None]);
    }
}

#[test]
fn a_node_takes_no_more_volumes_than_its_driver_says() {
    let mut snapshot = two_nodes();
    for name in ["c1", "c2", "c3"] {
        let of = name.replace('c', "v");
        put(&mut snapshot, kind::CLAIMS, &bound_claim(name, &of));
        let csi = json!({"spec": {"csi": {"driver": "d", "volumeHandle": of}}});
        put(&mut snapshot, kind::VOLUMES, &volume(&of, "5Gi", &csi));
    }
    let driver = json!({"name": "d", "allocatable": {"count": 2}});
    let csi_node = json!({"metadata": {"name": "a"}, "spec": {"drivers": [driver]}});
    put(&mut snapshot, kind::CSI_NODES, &csi_node);
    let mut there = (*with_claims(&["c1"])).clone();
    there.uid = "there".into();
    snapshot.assume(&Arc::new(there), "a");
    let full = Some("node(s) exceed max volume count".to_owned());
    let two = with_claims(&["c2", "c3"]);
    assert_eq!(refused(&snapshot, &two), [full.clone(), None]);
    // What is there already counts once.
    assert_eq!(
        refused(&snapshot, &with_claims(&["c1", "c2"])),
        [None, None]
    );
    let attached = json!({"metadata": {"name": "x"}, "spec": {"nodeName": "a", "attacher": "d",
        "source": {"persistentVolumeName": "v3"}}});
    put(&mut snapshot, kind::VOLUME_ATTACHMENTS, &attached);
    assert_eq!(refused(&snapshot, &with_claims(&["c2"])), [full, None]);
    take(&mut snapshot, kind::VOLUME_ATTACHMENTS, &attached);
    assert_eq!(refused(&snapshot, &with_claims(&["c2"])), [None, None]);
    let driver =
        json!({"metadata": {"name": "d"}, "spec": {"preventPodSchedulingIfMissing": true}});
    put(&mut snapshot, kind::CSI_DRIVERS, &driver);
    let missing = Some("d CSI driver is not installed on the node".to_owned());
    assert_eq!(refused(&snapshot, &with_claims(&["c2"])), [None, missing]);
}

#[test]
fn a_node_must_declare_what_a_pod_needs_of_its_kubelet() {
    let mut snapshot = two_nodes();
    let mut declares = node("a", &json!({}));
    declares["status"]["declaredFeatures"] = json!(["UserNamespacesHostNetworkSupport"]);
    put(&mut snapshot, kind::NODES, &declares);
    let missing = Some("node(s) didn't match Pod's required features".to_owned());
    let needs = pod("pod", json!({"hostNetwork": true, "hostUsers": false}));
    assert_eq!(refused(&snapshot, &needs), [None, missing]);
}

#[test]
fn nodes_have_their_turn_zone_by_zone() {
    let mut snapshot = Snapshot::default();
    for (name, zone) in [("a", "x"), ("b", "x"), ("c", "x"), ("d", "y")] {
        let labels = json!({"topology.kubernetes.io/zone": zone});
        put(&mut snapshot, kind::NODES, &node(name, &labels));
    }
    let order = snapshot.order();
    let names = order.iter().map(|slot| snapshot.at(*slot).name.as_str());
    assert_eq!(Vec::from_iter(names), ["a", "d", "b", "c"]);
    take(&mut snapshot, kind::NODES, &node("a", &json!({})));
    let order = snapshot.order();
    let names = order.iter().map(|slot| snapshot.at(*slot).name.as_str());
    assert_eq!(Vec::from_iter(names), ["b", "d", "c"]);
}

#[test]
fn where_enough_nodes_will_do_the_next_search_starts_behind_them() {
    let mut snapshot = Snapshot::default();
    for at in 0..300 {
        put(
            &mut snapshot,
            kind::NODES,
            &node(&format!("n{at:03}"), &json!({})),
        );
    }
    let profile = Profile {
        percentage_of_nodes_to_score: 1,
        ..Profile::default()
    };
    let mut nodes = Vec::new();
    for at in 0..4 {
        let pod = asks_for(&format!("p{at}"), "1", 0);
        let chosen = schedule(&mut snapshot, &pod, &profile).expect("all will do");
        assert_eq!((chosen.evaluated, chosen.feasible), (100, 100));
        snapshot.assume(&pod, &chosen.node);
        nodes.push(chosen.node);
    }
    assert_eq!(nodes, ["n000", "n100", "n200", "n001"]);
}

#[test]
fn room_that_is_being_made_is_not_for_lesser_pods() {
    let mut snapshot = two_nodes();
    snapshot.nominate(asks_for("waits", "4", 5), "a");
    let short = Some("Insufficient cpu".to_owned());
    let profile = Profile::default();
    for (priority, expected) in [(4, &short), (5, &short), (6, &None)] {
        let pod = asks_for("comes", "1", priority);
        let cycle = Cycle::new(&snapshot, &pod, &profile).expect("nodes are looked at");
        let node = snapshot.node("a").expect("it is there");
        let rejection = cycle.filter_beside_nominated(&snapshot, node);
        let reasons = rejection.map(|own| own.reasons.join(", "));
        assert_eq!(&reasons, expected, "{priority}");
    }
    assert_eq!(place(&mut snapshot, &asks_for("comes", "1", 4)), "b");
    snapshot.assume(&asks_for("waits", "4", 5), "b");
    let mut nominated = (*asks_for("comes", "1", 4)).clone();
    nominated.nominated_node = "a".into();
    let chosen = schedule(&mut snapshot, &nominated, &profile).expect("a is free again");
    assert_eq!((chosen.node.as_str(), chosen.evaluated), ("a", 1));
}

#[test]
fn an_assumed_pod_counts_until_it_is_forgotten_or_seen() {
    let mut snapshot = two_nodes();
    let comes = asks_for("p", "3", 0);
    snapshot.assume(&comes, "a");
    // A version from before the binding changes nothing.
    put(&mut snapshot, kind::PODS, &comes.object);
    assert!(snapshot.is_assumed("p"));
    let mut bound = (*comes.object).clone();
    bound["spec"]["nodeName"] = "a".into();
    put(&mut snapshot, kind::PODS, &bound);
    snapshot.forget("p");
    let node = snapshot.node("a").expect("it is there");
    assert_eq!((node.requested.milli_cpu, node.pods.len()), (3000, 1));
    bound["status"] = json!({"phase": "Succeeded"});
    put(&mut snapshot, kind::PODS, &bound);
    assert_eq!(
        snapshot.node("a").map(|own| own.requested.milli_cpu),
        Some(0)
    );
    snapshot.assume(&comes, "b");
    snapshot.forget("p");
    assert_eq!(snapshot.placed("p").map(|(_, node)| node), None);
}

#[test]
fn the_pods_of_an_unknown_node_count_once_it_is_there() {
    let mut snapshot = two_nodes();
    let mut early = (*asks_for("early", "3", 0).object).clone();
    early["spec"]["nodeName"] = "c".into();
    put(&mut snapshot, kind::PODS, &early);
    assert!(snapshot.node("c").is_none() && snapshot.len() == 2);
    put(&mut snapshot, kind::NODES, &node("c", &json!({})));
    assert_eq!(
        snapshot.node("c").map(|own| own.requested.milli_cpu),
        Some(3000)
    );
    take(&mut snapshot, kind::NODES, &node("c", &json!({})));
    assert!(snapshot.node("c").is_none() && snapshot.len() == 2);
    let asks = asks_for("p", "5", 0);
    let expected = "0/2 nodes are available: 2 Insufficient cpu.";
    assert_eq!(place(&mut snapshot, &asks), expected);
}

#[test]
fn nodes_that_a_pod_does_not_name_are_told_of_together() {
    let mut snapshot = two_nodes();
    let affinity = |name: &str| {
        let field = json!({"key": "metadata.name", "operator": "In", "values": [name]});
        let terms = json!({"nodeSelectorTerms": [{"matchFields": [field]}]});
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}})
    };
    let container = json!({"resources": {"requests": {"cpu": "5"}}});
    let named = pod(
        "p",
        json!({"affinity": affinity("a"), "containers": [container]}),
    );
    let expected = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't satisfy \
                    plugin(s) [NodeAffinity].";
    assert_eq!(place(&mut snapshot, &named), expected);
    let named = pod("p", json!({"affinity": affinity("b")}));
    assert_eq!(place(&mut snapshot, &named), "b");
    let unknown = pod("p", json!({"affinity": affinity("c")}));
    let expected = "0/2 nodes are available: 2 node(s) didn't satisfy plugin(s) [NodeAffinity].";
    assert_eq!(place(&mut snapshot, &unknown), expected);
}

#[test]
fn a_workloads_pods_are_spread_though_they_do_not_say_so() {
    let mut snapshot = two_nodes();
    let selector = json!({"matchLabels": {"app": "w"}});
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "w",
        "uid": "uid-w", "controller": true});
    let set = json!({"metadata": {"namespace": "n", "name": "w"}, "spec": {"selector": selector}});
    put(&mut snapshot, kind::REPLICA_SETS, &set);
    let replica = |name: &str| {
        let metadata = json!({"namespace": "n", "name": name, "uid": name,
            "labels": {"app": "w"}, "ownerReferences": [owner]});
        let pod = json!({"metadata": metadata, "spec": {"containers": [{"name": "c"}]}});
        Arc::new(PodInfo::new(Arc::new(pod)))
    };
    let spread = |snapshot: &Snapshot| {
        let explanation = super::explain(snapshot, &replica("next"), &Profile::default());
        let scores = explanation.scores.into_iter();
        let mut scores = scores.filter(|own| own.plugin == super::Plugin::PodTopologySpread);
        scores.next().map(|own| own.scores)
    };
    assert_eq!(spread(&snapshot), Some(vec![100, 100]));
    snapshot.assume(&replica("first"), "a");
    let [there, empty] = spread(&snapshot).expect("it is spread")[..] else {
        panic!("two nodes");
    };
    assert!(there < empty && empty == 100);
    take(&mut snapshot, kind::REPLICA_SETS, &set);
    assert_eq!(spread(&snapshot), None);
}

#[test]
fn a_profile_may_prefer_nodes_with_more_at_stake() {
    let mut snapshot = Snapshot::default();
    for (name, tier) in [
        ("a", "view"),
        ("b", "administration"),
        ("c", "node"),
        ("d", "other"),
    ] {
        let labels = json!({"nautilus.io/stake-tier": tier});
        put(&mut snapshot, kind::NODES, &node(name, &labels));
    }
    let profile = json!({"profiles": [{"plugins": {"score": {
        "disabled": [{"name": "*"}], "enabled": [{"name": "WorkerStake"}]}}}]});
    let profiles = Profile::read_all(&profile).expect("it is right");
    let explanation = super::explain(&snapshot, &pod("p", json!({})), &profiles[0]);
    assert_eq!(explanation.scores.len(), 1);
    assert_eq!(explanation.scores[0].scores, [33, 100, 66, 0]);
    let without = super::explain(&snapshot, &pod("p", json!({})), &Profile::default());
    let mut plugins = without.scores.iter().map(|own| own.plugin);
    assert!(plugins.all(|own| own != super::Plugin::WorkerStake));
}

#[test]
fn a_profile_may_prefer_idle_nodes() {
    let mut snapshot = Snapshot::default();
    for name in ["a", "b", "c", "d"] {
        let mut own = node(name, &json!({}));
        own["status"]["allocatable"] = json!({"cpu": "4", "memory": "8Gi", "pods": "9"});
        put(&mut snapshot, kind::NODES, &own);
    }
    let metrics = |name: &str, cpu: &str, memory: &str| json!({"metadata": {"name": name}, "usage": {"cpu": cpu, "memory": memory}});
    let list = json!({"items": [
        metrics("a", "1", "1Gi"), metrics("b", "1", "6Gi"), metrics("c", "9", "1Gi"),
        metrics("gone", "1", "1Gi"),
    ]});
    snapshot.set_metrics(&list);
    let profile = json!({"profiles": [{"plugins": {"score": {
        "disabled": [{"name": "*"}], "enabled": [{"name": "NodeLoad"}]}}}]});
    let profiles = Profile::read_all(&profile).expect("it is right");
    let explanation = super::explain(&snapshot, &pod("p", json!({})), &profiles[0]);
    assert_eq!(explanation.scores[0].scores, [75, 25, 0, 50]);
}
