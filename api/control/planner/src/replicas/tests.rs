//! ReplicaSets and ReplicationControllers in a small cluster.

use proptest::prelude::*;

use super::*;
use crate::object::time_field;
use crate::testing::{Cluster, at};

const WEB: (&str, &str) = ("n", "web");

fn key() -> Key {
    Key::new(WEB.0, WEB.1)
}

fn web(replicas: i64) -> Value {
    json!({
        "metadata": {"namespace": "n", "name": "web", "uid": "web", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web", "tier": "front"}},
                "spec": {"containers": [{"name": "c"}]},
            },
        },
    })
}

fn cluster(replicas: i64) -> Cluster {
    let mut cluster = Cluster::default();
    cluster.put(REPLICA_SETS, web(replicas));
    cluster
}

fn pods(cluster: &Cluster) -> Vec<Arc<Value>> {
    cluster.list(PODS, Within::Namespace("n"))
}

fn status(cluster: &Cluster) -> Value {
    let set = cluster
        .get(REPLICA_SETS, WEB.0, WEB.1)
        .expect("it is there");
    set["status"].clone()
}

fn ready(since: i64) -> Value {
    json!({"status": {"phase": "Running", "conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": time_field(at(since))},
    ]}})
}

fn refusal(write: Write) -> Failed {
    Failed {
        write,
        code: 403,
        reason: "Forbidden".to_owned(),
        message: "pods \"web-\" is forbidden: exceeded quota".to_owned(),
        namespace_ends: false,
    }
}

#[test]
fn there_are_as_many_pods_as_asked_for() {
    let mut cluster = cluster(3);
    let sets = Replicas::of_sets();
    cluster.settle(&sets, &key(), at(1));
    let found = pods(&cluster);
    assert_eq!(found.len(), 3);
    for pod in &found {
        assert_eq!(
            pod["metadata"]["labels"],
            json!({"app": "web", "tier": "front"})
        );
        assert!(object::is_controlled_by(pod, "web"));
    }
    assert_eq!(
        status(&cluster),
        json!({"replicas": 3, "fullyLabeledReplicas": 3, "observedGeneration": 1,
            "terminatingReplicas": 0})
    );
    let told = format!("Created pod: {}", object::name(&found[2]));
    assert_eq!(cluster.events[2], ("SuccessfulCreate", told));

    cluster.events.clear();
    cluster.merge(
        REPLICA_SETS,
        &key(),
        &json!({"spec": {"replicas": 1}, "metadata": {"generation": 2}}),
    );
    cluster.merge(PODS, &Key::of(&found[1]), &ready(0));
    cluster.settle(&sets, &key(), at(2));
    let left = pods(&cluster);
    assert_eq!(left.len(), 1, "the one that is ready");
    assert_eq!(object::name(&left[0]), object::name(&found[1]));
    let told = format!("Deleted pod: {}", object::name(&found[0]));
    assert_eq!(cluster.events[0], ("SuccessfulDelete", told));

    cluster.merge(
        REPLICA_SETS,
        &key(),
        &json!({"spec": {"replicas": 0}, "metadata": {"generation": 3}}),
    );
    cluster.settle(&sets, &key(), at(3));
    assert_eq!(
        status(&cluster),
        json!({"replicas": 0, "observedGeneration": 3, "terminatingReplicas": 0})
    );
}

#[test]
fn a_plan_makes_a_burst_at_most_and_the_next_goes_on() {
    let mut cluster = cluster(BATCH_PODS as i64 + 7);
    let sets = Replicas::of_sets();
    let made = |plan: &Plan| {
        let is_creation = |write: &&Write| matches!(write, Write::Told(..));
        plan.writes().filter(is_creation).count()
    };
    let first = cluster.plan(&sets, &key(), at(0));
    assert_eq!(made(&first), BATCH_PODS);
    cluster.carry_out(&first);
    let second = cluster.plan(&sets, &key(), at(0));
    assert_eq!(made(&second), 7);
}

#[test]
fn pods_that_have_ended_or_are_leaving_are_replaced() {
    let mut cluster = cluster(2);
    let sets = Replicas::of_sets();
    cluster.settle(&sets, &key(), at(0));
    let found = pods(&cluster);
    cluster.merge(
        PODS,
        &Key::of(&found[0]),
        &json!({"status": {"phase": "Failed"}}),
    );
    let leaving = json!({"metadata": {"deletionTimestamp": time_field(at(0))}});
    cluster.merge(PODS, &Key::of(&found[1]), &leaving);
    cluster.settle(&sets, &key(), at(0));
    assert_eq!(pods(&cluster).len(), 4);
    assert_eq!(status(&cluster)["terminatingReplicas"], 1);
    assert_eq!(status(&cluster)["replicas"], 2);
}

#[test]
fn an_orphan_counts_and_a_stray_does_not() {
    let mut cluster = cluster(2);
    let sets = Replicas::of_sets();
    cluster.settle(&sets, &key(), at(0));
    let stray = Key::of(&pods(&cluster)[0]);
    cluster.merge(
        PODS,
        &stray,
        &json!({"metadata": {"labels": {"app": "debug"}}}),
    );
    let orphan = json!({"metadata": {"namespace": "n", "name": "a", "labels": {"app": "web"}}});
    cluster.put(PODS, orphan);
    cluster.settle(&sets, &key(), at(0));
    let found = pods(&cluster);
    assert_eq!(found.len(), 3, "no pod was made");
    assert!(object::is_controlled_by(&found[0], "web"));
    let stray = cluster
        .get(PODS, &stray.namespace, &stray.name)
        .expect("it is kept");
    assert_eq!(object::controller(&stray), None);
    assert_eq!(status(&cluster)["fullyLabeledReplicas"], 1);
}

#[test]
fn a_set_on_its_way_out_leaves_its_pods_alone() {
    let mut cluster = cluster(2);
    let sets = Replicas::of_sets();
    cluster.settle(&sets, &key(), at(0));
    let leaving = json!({
        "metadata": {"deletionTimestamp": time_field(at(0)), "generation": 2},
        "spec": {"replicas": 5},
    });
    cluster.merge(REPLICA_SETS, &key(), &leaving);
    cluster.settle(&sets, &key(), at(0));
    assert_eq!(pods(&cluster).len(), 2);
    assert_eq!(status(&cluster)["observedGeneration"], 2);
}

#[test]
fn a_pod_is_available_after_its_time_and_looked_at_then() {
    let mut cluster = cluster(1);
    let sets = Replicas::of_sets();
    cluster.merge(
        REPLICA_SETS,
        &key(),
        &json!({"spec": {"minReadySeconds": 10}}),
    );
    cluster.settle(&sets, &key(), at(0));
    assert_eq!(cluster.plan(&sets, &key(), at(0)).again_in, None);
    let pod = Key::of(&pods(&cluster)[0]);
    cluster.merge(PODS, &pod, &ready(5));
    let plan = cluster.plan(&sets, &key(), at(7));
    assert_eq!(plan.again_in, Some(Duration::from_secs(8)));
    cluster.carry_out(&plan);
    assert_eq!(status(&cluster)["readyReplicas"], 1);
    assert_eq!(status(&cluster)["availableReplicas"], Value::Null);
    let plan = cluster.plan(&sets, &key(), at(15));
    assert_eq!(plan.again_in, None);
    cluster.carry_out(&plan);
    assert_eq!(status(&cluster)["availableReplicas"], 1);
    assert!(cluster.plan(&sets, &key(), at(20)).is_empty());
}

#[test]
fn a_refusal_stands_in_the_status_until_pods_can_be_made() {
    let mut cluster = cluster(2);
    let sets = Replicas::of_sets();
    let failed = refusal(Write::create(PODS, json!({})));
    let report = sets.report(&cluster, &key(), at(9), &failed);
    cluster.carry_out(&report);
    let expected = json!([{
        "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
        "message": failed.message, "lastTransitionTime": time_field(at(9)),
    }]);
    assert_eq!(status(&cluster)["conditions"], expected);
    assert_eq!(status(&cluster)["observedGeneration"], 1);
    let message = format!("Error creating: {}", failed.message);
    assert_eq!(cluster.events, [("FailedCreate", message)]);

    let again = sets.report(&cluster, &key(), at(19), &failed);
    assert!(
        again.writes().all(|write| matches!(write, Write::Event(_))),
        "the first failure stands"
    );
    cluster.settle(&sets, &key(), at(20));
    assert_eq!(status(&cluster).get("conditions"), None);
}

#[test]
fn siblings_of_a_deployment_crowd_a_node() {
    let mut cluster = Cluster::default();
    let deployment = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "d",
        "uid": "d", "controller": true}]);
    let owned = |mut object: Value, owners: &Value, uid: &str| {
        object["metadata"]["ownerReferences"] = owners.clone();
        object["metadata"]["uid"] = uid.into();
        object
    };
    cluster.put(REPLICA_SETS, owned(web(1), &deployment, "web"));
    let mut old = owned(web(2), &deployment, "old");
    old["metadata"]["name"] = "old".into();
    cluster.put(REPLICA_SETS, old);
    for (name, node, owner) in [("1", "b", "web"), ("2", "a", "web"), ("3", "a", "old")] {
        let owners = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner,
            "uid": owner, "controller": true}]);
        let pod = json!({
            "metadata": {"namespace": "n", "name": name, "labels": {"app": "web"}},
            "spec": {"nodeName": node},
        });
        cluster.put(PODS, owned(pod, &owners, name));
    }
    cluster.settle(&Replicas::of_sets(), &key(), at(0));
    assert!(
        cluster.get(PODS, "n", "2").is_none(),
        "it shared a node with the old set's"
    );
    assert!(cluster.get(PODS, "n", "1").is_some());
}

#[test]
fn a_replication_controller_is_the_same_by_plain_labels() {
    let mut cluster = Cluster::default();
    let mut controller = web(2);
    controller["spec"]["selector"] = json!({"app": "web"});
    cluster.put(REPLICATION_CONTROLLERS, controller);
    let controllers = Replicas::of_replication_controllers();
    cluster.settle(&controllers, &key(), at(0));
    let found = pods(&cluster);
    assert_eq!(found.len(), 2);
    let owner = object::controller(&found[0]).expect("it has one");
    assert_eq!(
        (&owner["apiVersion"], &owner["kind"]),
        (&json!("v1"), &json!("ReplicationController"))
    );
    let own = cluster
        .get(REPLICATION_CONTROLLERS, "n", "web")
        .expect("it is there");
    assert_eq!(
        own["status"],
        json!({"replicas": 2, "fullyLabeledReplicas": 2, "observedGeneration": 1})
    );
    let concerned = |pod| cluster.concerned(&controllers, PODS, None, Some(pod));
    assert_eq!(concerned(&found[0]), [key()]);
    assert_eq!(
        cluster.concerned(&Replicas::of_sets(), PODS, None, Some(&found[0])),
        []
    );
}

/// What may happen to a cluster besides.
#[derive(Debug, Clone)]
enum Step {
    Scale(i64),
    Fail(usize),
    Ready(usize),
    Delete(usize),
    Stray(usize),
    Orphan,
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6_i64).prop_map(Step::Scale),
        (0..8_usize).prop_map(Step::Fail),
        (0..8_usize).prop_map(Step::Ready),
        (0..8_usize).prop_map(Step::Delete),
        (0..8_usize).prop_map(Step::Stray),
        Just(Step::Orphan),
        Just(Step::Look),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_number_is_reached(steps in prop::collection::vec(step(), 0..30)) {
        let mut cluster = cluster(3);
        let sets = Replicas::of_sets();
        let mut wanted = 3;
        for (turn, step) in steps.into_iter().enumerate() {
            let found = pods(&cluster);
            let pick = |index: usize| found.get(index).map(|pod| Key::of(pod));
            match step {
                Step::Scale(replicas) => {
                    wanted = replicas;
                    let change = json!({"spec": {"replicas": replicas}});
                    cluster.merge(REPLICA_SETS, &key(), &change);
                }
                Step::Fail(index) => drop(pick(index).map(|pod| {
                    cluster.merge(PODS, &pod, &json!({"status": {"phase": "Failed"}}))
                })),
                Step::Ready(index) => drop(pick(index).map(|pod| {
                    cluster.merge(PODS, &pod, &ready(turn as i64))
                })),
                Step::Delete(index) => drop(pick(index).map(|pod| cluster.remove(PODS, &pod))),
                Step::Stray(index) => drop(pick(index).map(|pod| {
                    let change = json!({"metadata": {"labels": {"app": "debug"}}});
                    cluster.merge(PODS, &pod, &change)
                })),
                Step::Orphan => {
                    let labels = json!({"app": "web"});
                    cluster.put(PODS, json!({"metadata": {"namespace": "n", "labels": labels}}));
                }
                Step::Look => {
                    let plan = cluster.plan(&sets, &key(), at(turn as i64));
                    cluster.carry_out(&plan);
                }
            }
        }
        cluster.settle(&sets, &key(), at(100));
        let own = cluster.list(PODS, Within::Controlled("n", "web"));
        let active = own.iter().filter(|pod| object::is_active(pod)).count();
        prop_assert_eq!(active as i64, wanted);
        prop_assert_eq!(&status(&cluster)["replicas"], &json!(wanted));
    }
}
