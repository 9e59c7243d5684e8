//! Nodes, their pods and a driver that attaches what it is asked for.

use super::*;
use crate::testing::{Cluster, at};

const HANDLE: &str = "kubernetes.io/csi/csi.example^h";

struct World {
    cluster: Cluster,
    attacher: Attacher,
}

impl World {
    fn new(modes: &[&str]) -> Self {
        let mut cluster = Cluster::default();
        for node in ["a", "b"] {
            cluster.put(NODES, json!({"metadata": {"name": node}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
        }
        let reference = json!({"namespace": "n", "name": "c", "uid": "1"});
        let csi = json!({"driver": "csi.example", "volumeHandle": "h"});
        cluster.put(VOLUMES, json!({"metadata": {"name": "v"}, "spec": {"claimRef": reference, "csi": csi, "accessModes": modes}}));
        cluster.put(
            CLAIMS,
            json!({
                "metadata": {"namespace": "n", "name": "c", "uid": "1"},
                "spec": {"volumeName": "v"}, "status": {"phase": "Bound"},
            }),
        );
        let attacher = Attacher::default();
        Self { cluster, attacher }
    }

    fn pod(&mut self, name: &str, node: &str) {
        let volumes = json!([{"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]);
        let pod = json!({
            "metadata": {"namespace": "n", "name": name},
            "spec": {"nodeName": node, "volumes": volumes},
            "status": {"phase": "Running"},
        });
        self.cluster.put(PODS, pod);
    }

    fn remove_pod(&mut self, name: &str) {
        self.cluster.remove(PODS, &Key::new("n", name));
    }

    /// Looks at both nodes once.
    fn look(&mut self, now: i64) {
        for node in ["a", "b"] {
            let plan = self
                .cluster
                .plan(&self.attacher, &Key::new("", node), at(now));
            self.cluster.carry_out(&plan);
        }
    }

    /// The driver does what is asked.
    fn drive(&mut self) {
        for key in self.cluster.keys(VOLUME_ATTACHMENTS, Within::All) {
            let done = json!({"status": {"attached": true}});
            self.cluster.merge(VOLUME_ATTACHMENTS, &key, &done);
        }
    }

    fn node_says(&mut self, node: &str, change: &Value) {
        self.cluster.merge(NODES, &Key::new("", node), change);
    }

    /// The nodes with attachments, and those whose status names one.
    fn nodes(&self) -> (Vec<String>, Vec<String>) {
        let attachments = self.cluster.list(VOLUME_ATTACHMENTS, Within::All);
        let mut attached: Vec<String> = attachments
            .iter()
            .filter_map(|own| own["spec"]["nodeName"].as_str().map(str::to_owned))
            .collect();
        attached.sort();
        let nodes = self.cluster.list(NODES, Within::All);
        let named = nodes.iter().filter(|node| {
            object::items(&node["status"]["volumesAttached"]).any(|own| own["name"] == HANDLE)
        });
        (
            attached,
            named.map(|node| object::name(node).to_owned()).collect(),
        )
    }

    fn told(&self, reason: &str) -> Vec<&str> {
        let events = self.cluster.events.iter().filter(|(own, _)| *own == reason);
        events.map(|(_, message)| message.as_str()).collect()
    }
}

fn only(node: &str) -> Vec<String> {
    vec![node.to_owned()]
}

const NONE: Vec<String> = Vec::new();

#[test]
fn a_pods_volume_is_attached_and_named_once_its_driver_says_so() {
    let mut world = World::new(&["ReadWriteOnce"]);
    world.pod("p", "a");
    world.look(0);
    assert_eq!(world.nodes(), (only("a"), NONE));
    let attachment = world.cluster.list(VOLUME_ATTACHMENTS, Within::All)[0].clone();
    // As the kubelet computes it: SHA-256 of `hcsi.examplea`.
    let name = "csi-69aea06b539b3583f0b4dbb4890634042a9d48a2c55537f07b540a59c51e406b";
    assert_eq!(object::name(&attachment), name);
    assert_eq!(
        attachment["spec"],
        json!({"attacher": "csi.example", "nodeName": "a", "source": {"persistentVolumeName": "v"}})
    );
    world.drive();
    world.look(0);
    assert_eq!(world.nodes(), (only("a"), only("a")));
    let message = "AttachVolume.Attach succeeded for volume \"v\" ";
    assert_eq!(world.told("SuccessfulAttachVolume"), [message]);
    let plan = world
        .cluster
        .plan(&world.attacher, &Key::new("", "a"), at(0));
    assert!(plan.is_empty());
}

#[test]
fn a_volume_is_detached_only_when_it_is_unmounted() {
    let mut world = World::new(&["ReadWriteOnce"]);
    world.pod("p", "a");
    world.look(0);
    world.drive();
    world.look(0);
    world.node_says("a", &json!({"status": {"volumesInUse": [HANDLE]}}));
    world.remove_pod("p");
    // However long it takes.
    for now in [0, 2 * UNMOUNT_S] {
        world.look(now);
        assert_eq!(world.nodes(), (only("a"), only("a")));
    }
    world.node_says("a", &json!({"status": {"volumesInUse": []}}));
    world.look(0);
    assert_eq!(world.nodes(), (NONE, NONE));
}

#[test]
fn a_volume_for_one_node_waits_for_the_other_to_give_it_up() {
    let mut world = World::new(&["ReadWriteOnce"]);
    world.pod("p", "a");
    world.look(0);
    world.pod("q", "b");
    world.look(0);
    assert_eq!(world.nodes().0, only("a"));
    let message = "Waiting for detach for volume \"v\" Volume is already used by pod(s) p";
    assert_eq!(world.told("FailedAttachVolume"), [message]);
    let gone = world.cluster.list(VOLUME_ATTACHMENTS, Within::All)[0].clone();
    world.remove_pod("p");
    world.look(0);
    let woken = world
        .cluster
        .concerned(&world.attacher, VOLUME_ATTACHMENTS, Some(&gone), None);
    assert_eq!(woken, [Key::new("", "a"), Key::new("", "b")]);
    world.look(0);
    assert_eq!(world.nodes().0, only("b"));
    // One for many nodes is attached to both.
    let mut world = World::new(&["ReadWriteMany"]);
    world.pod("p", "a");
    world.pod("q", "b");
    world.look(0);
    assert_eq!(world.nodes().0, ["a", "b"]);
}

#[test]
fn a_node_that_cannot_unmount_loses_its_volumes_in_the_end() {
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}], "volumesInUse": [HANDLE]}});
    for (change, gone_at_once) in [
        (
            json!({"spec": {"taints": [{"key": OUT_OF_SERVICE, "effect": "NoExecute"}]}}),
            true,
        ),
        (json!({}), false),
    ] {
        let mut world = World::new(&["ReadWriteOnce"]);
        world.pod("p", "a");
        world.look(0);
        world.node_says("a", &unready);
        world.node_says("a", &change);
        world.remove_pod("p");
        world.look(0);
        assert_eq!(world.nodes().0.is_empty(), gone_at_once, "{change}");
        world.look(UNMOUNT_S - 1);
        assert_eq!(world.nodes().0.is_empty(), gone_at_once, "{change}");
        world.look(UNMOUNT_S);
        assert_eq!(world.nodes().0, NONE);
    }
}

#[test]
fn a_node_that_is_gone_has_its_time_too() {
    let mut world = World::new(&["ReadWriteOnce"]);
    world.pod("p", "a");
    world.look(0);
    world.cluster.remove(NODES, &Key::new("", "a"));
    world.look(0);
    assert_eq!(world.nodes().0, only("a"));
    world.look(UNMOUNT_S - 1);
    assert_eq!(world.nodes().0, only("a"));
    world.look(UNMOUNT_S);
    assert_eq!(world.nodes().0, NONE);
}

#[test]
fn drivers_that_attach_nothing_are_not_asked_and_errors_are_told() {
    let mut world = World::new(&["ReadWriteOnce"]);
    world.cluster.put(
        CSI_DRIVERS,
        json!({"metadata": {"name": "csi.example"}, "spec": {"attachRequired": false}}),
    );
    world.pod("p", "a");
    world.look(0);
    assert_eq!(world.nodes().0, NONE);
    world
        .cluster
        .remove(CSI_DRIVERS, &Key::new("", "csi.example"));
    world.look(0);
    let key = world.cluster.keys(VOLUME_ATTACHMENTS, Within::All)[0].clone();
    let failed = json!({"status": {"attached": false, "attachError": {"message": "no disk"}}});
    world.cluster.merge(VOLUME_ATTACHMENTS, &key, &failed);
    world.look(0);
    let message = "AttachVolume.Attach failed for volume \"v\" : no disk";
    assert_eq!(world.told("FailedAttachVolume"), [message]);
}

#[test]
fn a_pod_counts_until_its_containers_have_ended() {
    for (status, expected) in [
        (json!({"phase": "Succeeded"}), true),
        (json!({"phase": "Running"}), false),
        (
            json!({"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}),
            false,
        ),
    ] {
        let pod = json!({"status": status});
        assert_eq!(is_terminated(&pod), expected, "{status}");
    }
    let ending = |state: Value| {
        json!({
            "metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"},
            "status": {"phase": "Running", "containerStatuses": [{"state": state}]},
        })
    };
    assert!(!is_terminated(&ending(json!({"running": {}}))));
    assert!(is_terminated(&ending(json!({"terminated": {}}))));
}

#[test]
fn heartbeats_of_nodes_wake_nobody() {
    let mut world = World::new(&[]);
    let key = Key::new("", "a");
    let before = world.cluster.get(NODES, "", "a").unwrap();
    let beat = json!({"status": {"images": [1]}});
    let after = world.cluster.merge(NODES, &key, &beat);
    let woken = |world: &World, after: &Arc<Value>| {
        let attacher = &world.attacher;
        world
            .cluster
            .concerned(attacher, NODES, Some(&before), Some(after))
            .len()
    };
    assert_eq!(woken(&world, &after), 0);
    let after = world
        .cluster
        .merge(NODES, &key, &json!({"status": {"volumesInUse": [HANDLE]}}));
    assert_eq!(woken(&world, &after), 1);
}

#[test]
fn attachments_that_others_made_are_left_to_them() {
    let mut world = World::new(&[]);
    let strange = json!({
        "metadata": {"name": "mine"},
        "spec": {"attacher": "x", "nodeName": "a", "source": {"persistentVolumeName": "x"}},
    });
    world.cluster.put(VOLUME_ATTACHMENTS, strange);
    world.look(0);
    assert_eq!(world.nodes().0, only("a"));
}
