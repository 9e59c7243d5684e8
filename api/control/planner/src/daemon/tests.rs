//! DaemonSets in a small cluster.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::object::time_field;
use crate::testing::{Cluster, at};

fn key() -> Key {
    Key::new("n", "agent")
}

fn agent(strategy: &Value) -> Value {
    json!({
        "metadata": {"namespace": "n", "name": "agent", "uid": "agent", "generation": 1},
        "spec": {
            "revisionHistoryLimit": 10,
            "selector": {"matchLabels": {"app": "agent"}},
            "updateStrategy": strategy,
            "template": template("v1"),
        },
    })
}

fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "agent"}},
        "spec": {"containers": [{"name": "c", "image": image}]},
    })
}

fn rolling(surge: &Value, unavailable: &Value) -> Value {
    let limits = json!({"maxSurge": surge, "maxUnavailable": unavailable});
    json!({"type": "RollingUpdate", "rollingUpdate": limits})
}

struct World {
    cluster: Cluster,
    now: i64,
}

impl World {
    fn new(nodes: usize, strategy: &Value) -> Self {
        let mut cluster = Cluster::default();
        for index in 0..nodes {
            cluster.put(
                NODES,
                json!({"metadata": {"name": format!("node-{index}")}}),
            );
        }
        cluster.put(DAEMON_SETS, agent(strategy));
        let mut world = Self { cluster, now: 0 };
        world.settle();
        world
    }

    fn settle(&mut self) {
        self.now += 1;
        self.cluster.settle(&DaemonSets, &key(), at(self.now));
    }

    fn set(&self) -> Arc<Value> {
        self.cluster
            .get(DAEMON_SETS, "n", "agent")
            .expect("it is there")
    }

    fn change(&mut self, change: &Value) {
        self.cluster.merge(DAEMON_SETS, &key(), change);
        let generation = object::number(&self.set()["metadata"]["generation"]) + 1;
        let generation = json!({"metadata": {"generation": generation}});
        self.cluster.merge(DAEMON_SETS, &key(), &generation);
    }

    fn roll(&mut self, image: &str) {
        self.change(&json!({"spec": {"template": template(image)}}));
    }

    fn pods(&self) -> Vec<Arc<Value>> {
        self.cluster.list(PODS, Within::Namespace("n"))
    }

    /// Node and image of every pod, in order.
    fn placed(&self) -> Vec<(String, String)> {
        let pods = self.pods().into_iter();
        let mut placed: Vec<_> = pods
            .map(|pod| {
                let image = &pod["spec"]["containers"][0]["image"];
                let node = pods::node_of(&pod).expect("it is for a node");
                (
                    node.to_owned(),
                    image.as_str().unwrap_or_default().to_owned(),
                )
            })
            .collect();
        placed.sort();
        placed
    }

    fn count(&self, image: &str) -> usize {
        self.placed().iter().filter(|(_, own)| own == image).count()
    }

    fn ready(&mut self, pod: &Value) {
        let since = time_field(at(self.now));
        let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": since});
        let status = json!({"phase": "Running", "conditions": [ready]});
        let node = pods::node_of(pod).expect("it is for a node");
        let change = json!({"spec": {"nodeName": node}, "status": status});
        self.cluster.merge(PODS, &Key::of(pod), &change);
    }

    fn ready_all(&mut self) {
        for pod in self.pods() {
            if !object::is_ready(&pod) {
                self.ready(&pod);
            }
        }
        self.settle();
    }

    fn revisions(&self) -> Vec<(i64, String)> {
        let revisions = self
            .cluster
            .list(CONTROLLER_REVISIONS, Within::Namespace("n"));
        let mut revisions: Vec<_> = revisions
            .iter()
            .map(|own| {
                let template = crate::history::template(own);
                let image = &template["spec"]["containers"][0]["image"];
                let image = image.as_str().unwrap_or_default().to_owned();
                (crate::history::number(own), image)
            })
            .collect();
        revisions.sort();
        revisions
    }
}

#[test]
fn every_node_has_a_pod() {
    let mut world = World::new(3, &rolling(&json!(0), &json!(1)));
    let expected: Vec<_> = (0..3)
        .map(|index| (format!("node-{index}"), "v1".to_owned()))
        .collect();
    assert_eq!(world.placed(), expected);
    assert_eq!(world.revisions(), [(1, "v1".to_owned())]);
    let pod = world.pods().remove(0);
    let hash = object::label(&pod, pods::HASH)
        .expect("it has a hash")
        .to_owned();
    let revision = world
        .cluster
        .get(CONTROLLER_REVISIONS, "n", &format!("agent-{hash}"));
    let revision = revision.expect("it is named for the hash");
    assert_eq!(object::label(&revision, pods::HASH), Some(&*hash));
    assert_eq!(
        world.set()["status"],
        json!({"observedGeneration": 1, "desiredNumberScheduled": 3, "currentNumberScheduled": 3,
            "updatedNumberScheduled": 3, "numberMisscheduled": 0, "numberReady": 0,
            "numberUnavailable": 3})
    );
    world.ready_all();
    let status = world.set()["status"].clone();
    assert_eq!(
        (&status["numberReady"], &status["numberAvailable"]),
        (&json!(3), &json!(3))
    );
    assert_eq!(status.get("numberUnavailable"), None);
    assert_eq!(world.cluster.events.len(), 3);
}

#[test]
fn nodes_come_change_and_go() {
    let mut world = World::new(2, &rolling(&json!(0), &json!(1)));
    world.ready_all();
    let node =
        |name: &str, taints: Value| json!({"metadata": {"name": name}, "spec": {"taints": taints}});
    let cordon = json!([{"key": "x", "effect": "NoSchedule"}]);
    let drain = json!([{"key": "x", "effect": "NoExecute"}]);
    for (change, expected, misplaced) in [
        (node("node-2", Value::Null), 3, 0),
        (node("node-3", cordon.clone()), 3, 0),
        (node("node-2", cordon), 3, 1),
        (node("node-2", drain), 2, 0),
    ] {
        let before = world.cluster.get(NODES, "", object::name(&change));
        let after = world.cluster.put(NODES, change.clone());
        let concerned = world
            .cluster
            .concerned(&DaemonSets, NODES, before.as_ref(), Some(&after));
        assert_eq!(concerned, [key()], "{change}");
        let same = world
            .cluster
            .concerned(&DaemonSets, NODES, Some(&after), Some(&after));
        assert_eq!(same, []);
        world.settle();
        assert_eq!(world.pods().len(), expected, "{change}");
        assert_eq!(
            world.set()["status"]["numberMisscheduled"],
            misplaced,
            "{change}"
        );
    }
    let gone = world.cluster.get(NODES, "", "node-0");
    world.cluster.remove(NODES, &Key::new("", "node-0"));
    assert_eq!(
        world
            .cluster
            .concerned(&DaemonSets, NODES, gone.as_ref(), None),
        [key()]
    );
    world.settle();
    assert_eq!(world.set()["status"]["desiredNumberScheduled"], 1);
    assert_eq!(
        world.pods().len(),
        2,
        "the collector of pods sees to what was bound"
    );
}

#[test]
fn a_pod_that_waits_for_a_node_that_is_gone_goes() {
    let mut world = World::new(2, &rolling(&json!(0), &json!(1)));
    world.cluster.remove(NODES, &Key::new("", "node-0"));
    world.settle();
    assert_eq!(world.placed(), [("node-1".to_owned(), "v1".to_owned())]);
}

#[test]
fn of_several_pods_on_a_node_the_oldest_stays() {
    let mut world = World::new(1, &rolling(&json!(0), &json!(1)));
    world.ready_all();
    let oldest = object::name(&world.pods()[0]).to_owned();
    let mut double = json!({
        "metadata": {"namespace": "n", "name": "a", "labels": {"app": "agent"},
            "creationTimestamp": time_field(at(5))},
        "spec": {"nodeName": "node-0", "containers": [{"image": "v1"}]},
    });
    world.cluster.put(PODS, double.clone());
    world.settle();
    let left = world.pods();
    assert_eq!((left.len(), object::name(&left[0])), (1, &*oldest));
    double["metadata"]["labels"] = json!({"app": "other"});
    world.cluster.put(PODS, double);
    world.settle();
    assert_eq!(world.pods().len(), 2, "it is not one of them");
}

#[test]
fn a_rolling_update_keeps_to_its_limit() {
    for (limit, steps) in [
        (json!(1), 3),
        (json!(2), 2),
        (json!("100%"), 1),
        (json!(0), 3),
    ] {
        let mut world = World::new(3, &rolling(&json!(0), &limit));
        world.ready_all();
        world.roll("v2");
        let mut rounds = 0;
        loop {
            world.settle();
            let available = world
                .pods()
                .iter()
                .filter(|pod| object::is_ready(pod))
                .count();
            let most = match limit.as_i64() {
                Some(limit) => limit.max(1) as usize,
                None => 3,
            };
            assert!(available >= 3 - most, "{limit}");
            if world.count("v1") == 0 && available == 3 {
                break;
            }
            rounds += 1;
            world.ready_all();
        }
        assert_eq!(rounds, steps, "{limit}");
        assert_eq!(world.set()["status"]["updatedNumberScheduled"], 3);
    }
}

#[test]
fn old_pods_that_are_not_available_are_replaced_at_once() {
    let mut world = World::new(3, &rolling(&json!(0), &json!(1)));
    let first = world.pods().remove(0);
    world.ready(&first);
    world.roll("v2");
    world.settle();
    assert_eq!((world.count("v1"), world.count("v2")), (1, 2));
    let kept = world.cluster.get(PODS, "n", object::name(&first));
    assert!(kept.is_some(), "the one that serves");
}

#[test]
fn a_surge_has_the_new_pod_serve_before_the_old_one_goes() {
    let mut world = World::new(3, &rolling(&json!(1), &json!(0)));
    world.ready_all();
    world.roll("v2");
    world.settle();
    assert_eq!((world.count("v1"), world.count("v2")), (3, 1));
    world.ready_all();
    assert_eq!((world.count("v1"), world.count("v2")), (2, 2));
    for _ in 0..3 {
        let available = world
            .pods()
            .iter()
            .filter(|pod| object::is_ready(pod))
            .count();
        assert!(available >= 3);
        world.ready_all();
    }
    assert_eq!((world.count("v1"), world.count("v2")), (0, 3));
}

#[test]
fn an_old_pod_that_does_not_serve_makes_way_for_a_surge() {
    let mut world = World::new(2, &rolling(&json!(1), &json!(0)));
    world.roll("v2");
    world.settle();
    assert_eq!((world.count("v1"), world.count("v2")), (0, 2));
}

#[test]
fn a_surging_set_that_moves_serves_from_its_old_node_until_the_new_one_does() {
    let mut world = World::new(2, &rolling(&json!(1), &json!(0)));
    let zone = json!({"metadata": {"labels": {"zone": "a"}}});
    world.cluster.merge(NODES, &Key::new("", "node-0"), &zone);
    world.change(&json!({"spec": {"template": {"spec": {"nodeSelector": {"zone": "a"}}}}}));
    world.settle();
    world.ready_all();
    assert_eq!(world.placed().len(), 1);
    assert_eq!(world.placed()[0].0, "node-0");
}

#[test]
fn on_delete_waits_for_people() {
    let mut world = World::new(2, &json!({"type": "OnDelete"}));
    world.ready_all();
    world.roll("v2");
    world.settle();
    assert_eq!((world.count("v1"), world.count("v2")), (2, 0));
    assert_eq!(world.set()["status"].get("updatedNumberScheduled"), None);
    let first = Key::of(&world.pods()[0]);
    world.cluster.remove(PODS, &first);
    world.settle();
    assert_eq!((world.count("v1"), world.count("v2")), (1, 1));
}

#[test]
fn revisions_are_renumbered_and_those_unused_are_dropped() {
    let mut world = World::new(1, &rolling(&json!(0), &json!(1)));
    let limit = json!({"spec": {"revisionHistoryLimit": 1}});
    for image in ["v2", "v1"] {
        world.roll(image);
        world.settle();
    }
    let expected = |own: &[(i64, &str)]| -> Vec<(i64, String)> {
        own.iter()
            .map(|(number, image)| (*number, (*image).to_owned()))
            .collect()
    };
    assert_eq!(world.revisions(), expected(&[(2, "v2"), (3, "v1")]));
    world.roll("v3");
    world.settle();
    assert_eq!(
        world.revisions(),
        expected(&[(2, "v2"), (3, "v1"), (4, "v3")])
    );
    world.change(&limit);
    world.settle();
    assert_eq!(world.revisions(), expected(&[(3, "v1"), (4, "v3")]));
}

#[test]
fn a_revision_that_is_there_twice_is_made_one() {
    let mut world = World::new(1, &rolling(&json!(0), &json!(1)));
    let first = world
        .cluster
        .list(CONTROLLER_REVISIONS, Within::All)
        .remove(0);
    let mut double = (*first).clone();
    double["metadata"]["name"] = "agent-double".into();
    double["metadata"]["uid"] = Value::Null;
    double["metadata"]["labels"] = json!({"app": "agent"});
    double["revision"] = 5.into();
    world.cluster.put(CONTROLLER_REVISIONS, double);
    world.settle();
    assert_eq!(world.revisions(), [(5, "v1".to_owned())]);
    let pods = world.pods();
    assert_eq!(object::label(&pods[0], pods::HASH), Some("agent-double"));
}

#[test]
fn a_name_that_is_taken_is_avoided() {
    let world = World::new(0, &rolling(&json!(0), &json!(1)));
    let mut taken = (*world.cluster.list(CONTROLLER_REVISIONS, Within::All)[0]).clone();
    taken["data"] = json!({});
    taken["metadata"]["labels"] = Value::Null;
    taken["metadata"]["ownerReferences"] = Value::Null;
    let mut cluster = Cluster::default();
    cluster.put(DAEMON_SETS, agent(&rolling(&json!(0), &json!(1))));
    cluster.put(CONTROLLER_REVISIONS, taken);
    cluster.settle(&DaemonSets, &key(), at(0));
    let set = cluster.get(DAEMON_SETS, "n", "agent").expect("it is there");
    assert_eq!(set["status"]["collisionCount"], 1);
    assert_eq!(
        cluster
            .list(CONTROLLER_REVISIONS, Within::Controlled("n", "agent"))
            .len(),
        1
    );
}

#[test]
fn a_pod_that_fails_is_replaced_after_pauses_that_double() {
    let mut world = World::new(1, &rolling(&json!(0), &json!(1)));
    world.cluster.events.clear();
    for (failures, pause_s) in [(1, 0), (2, 1), (3, 2), (4, 4)] {
        let pod = world.pods().remove(0);
        let failed = json!({
            "metadata": {"creationTimestamp": time_field(at(world.now))},
            "status": {"phase": "Failed"},
        });
        world.cluster.merge(PODS, &Key::of(&pod), &failed);
        if pause_s > 0 {
            let plan = world.cluster.plan(&DaemonSets, &key(), at(world.now));
            assert_eq!(plan.again_in, Some(Duration::from_secs(pause_s)));
            let is_removal = |write: &Write| matches!(write, Write::Told(..));
            assert!(!plan.writes().any(is_removal), "it is left alone");
            world.cluster.carry_out(&plan);
            world.now += pause_s as i64 - 1;
        }
        world.settle();
        let next = world.pods();
        assert_eq!(next.len(), 1);
        assert_ne!(object::name(&next[0]), object::name(&pod));
        assert_eq!(pods::failures(&next[0], at(0)), failures);
        let (reason, message) = &world.cluster.events[0];
        let name = object::name(&pod);
        let expected =
            format!("Found failed daemon pod n/{name} on node node-0, will try to kill it");
        assert_eq!((*reason, message), ("FailedDaemonPod", &expected));
        world.cluster.events.clear();
    }
}

#[test]
fn a_pod_that_ends_well_is_made_anew() {
    let mut world = World::new(1, &rolling(&json!(0), &json!(1)));
    world.cluster.events.clear();
    let pod = world.pods().remove(0);
    let ended = json!({"status": {"phase": "Succeeded"}});
    world.cluster.merge(PODS, &Key::of(&pod), &ended);
    world.settle();
    assert_eq!(world.pods().len(), 1);
    let reasons: Vec<&str> = world
        .cluster
        .events
        .iter()
        .map(|(reason, _)| *reason)
        .collect();
    assert_eq!(
        reasons,
        ["SucceededDaemonPod", "SuccessfulDelete", "SuccessfulCreate"]
    );
}

#[test]
fn a_plan_makes_a_burst_at_most() {
    let mut cluster = Cluster::default();
    for index in 0..BURST_PODS + 3 {
        cluster.put(
            NODES,
            json!({"metadata": {"name": format!("node-{index}")}}),
        );
    }
    cluster.put(DAEMON_SETS, agent(&rolling(&json!(0), &json!(1))));
    let plan = cluster.plan(&DaemonSets, &key(), at(0));
    let made = plan
        .writes()
        .filter(|write| matches!(write, Write::Told(..)));
    assert_eq!(made.count(), BURST_PODS);
}

#[test]
fn a_pod_is_available_after_its_time() {
    let mut world = World::new(1, &rolling(&json!(0), &json!(1)));
    world.change(&json!({"spec": {"minReadySeconds": 10}}));
    world.settle();
    let pod = world.pods().remove(0);
    world.ready(&pod);
    let plan = world.cluster.plan(&DaemonSets, &key(), at(world.now + 3));
    assert_eq!(plan.again_in, Some(Duration::from_secs(7)));
    world.settle();
    assert_eq!(world.set()["status"].get("numberAvailable"), None);
    world.now += 10;
    world.settle();
    assert_eq!(world.set()["status"]["numberAvailable"], 1);
}

#[test]
fn a_set_on_its_way_out_is_left_alone() {
    let mut world = World::new(1, &rolling(&json!(0), &json!(1)));
    let leaving = json!({"metadata": {"deletionTimestamp": time_field(at(0))}});
    world.cluster.merge(DAEMON_SETS, &key(), &leaving);
    world
        .cluster
        .put(NODES, json!({"metadata": {"name": "node-9"}}));
    world.settle();
    assert_eq!(world.pods().len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// However pods get ready, fail and go between looks: no look takes the set below its
    /// limit or crowds a node, and in the end every node has one pod of the newest template.
    #[test]
    fn whatever_happens_an_update_keeps_its_bounds_and_ends(
        nodes in 1_usize..6,
        surge in 0_i64..3,
        unavailable in 0_i64..3,
        steps in prop::collection::vec((0_usize..5, 0_usize..8), 0..40),
    ) {
        let mut world = World::new(nodes, &rolling(&json!(surge), &json!(unavailable)));
        world.ready_all();
        let limit = if surge == 0 { unavailable.max(1) } else { unavailable };
        let floor = (nodes as i64 - limit).max(0);
        // Of a node it counts that one of its pods is available, not how many.
        let available = |world: &World| {
            let pods = world.pods();
            let ready = pods.iter().filter(|pod| object::is_ready(pod));
            let nodes: BTreeSet<_> = ready.filter_map(|pod| pods::node_of(pod)).collect();
            nodes.len() as i64
        };
        let mut version = 1;
        for (what, index) in steps {
            let pod = world.pods().get(index).cloned();
            match (what, pod) {
                (0, _) if version < 4 => {
                    version += 1;
                    world.roll(&format!("v{version}"));
                }
                (1, Some(pod)) => world.ready(&pod),
                (2, Some(pod)) => world.cluster.remove(PODS, &Key::of(&pod)),
                (3, Some(pod)) => {
                    let failed = json!({"status": {"phase": "Failed", "conditions": null}});
                    world.cluster.merge(PODS, &Key::of(&pod), &failed);
                }
                _ => {
                    world.now += 1;
                    let before = available(&world);
                    let plan = world.cluster.plan(&DaemonSets, &key(), at(world.now));
                    world.cluster.carry_out(&plan);
                    let after = available(&world);
                    prop_assert!(after >= before.min(floor), "{before} -> {after} of {nodes}");
                    let placed = world.placed();
                    let most = if surge == 0 { 1 } else { 2 };
                    for index in 0..nodes {
                        let node = format!("node-{index}");
                        let pods = placed.iter().filter(|(own, _)| *own == node).count();
                        prop_assert!(pods <= most, "{pods} pods on {node}");
                    }
                }
            }
        }
        for _ in 0..20 {
            // Failed pods have had their pauses.
            world.now += 1000;
            world.settle();
            world.ready_all();
        }
        prop_assert_eq!(world.pods().len(), nodes);
        prop_assert_eq!(world.count(&format!("v{version}")), nodes);
        prop_assert_eq!(&world.set()["status"]["updatedNumberScheduled"], &json!(nodes));
    }
}
