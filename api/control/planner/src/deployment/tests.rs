//! Deployments in a small cluster, whose sets keep their pods and whose pods get ready when
//! the test says so.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::object::time_field;
use crate::replicas::Replicas;
use crate::testing::{Cluster, at};
use crate::view::Within;

const HOUR_S: i64 = 3600;

fn key() -> Key {
    Key::new("n", "web")
}

fn web(replicas: i64, strategy: &Value) -> Value {
    json!({
        "metadata": {"namespace": "n", "name": "web", "uid": "web", "generation": 1},
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": strategy,
            "template": template("v1"),
        },
    })
}

fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": image}]},
    })
}

fn rolling(surge: &Value, unavailable: &Value) -> Value {
    let limits = json!({"maxSurge": surge, "maxUnavailable": unavailable});
    json!({"type": "RollingUpdate", "rollingUpdate": limits})
}

/// A cluster with the deployment, and the time there.
struct World {
    cluster: Cluster,
    now: i64,
    /// How many pods there were at most, and available at least, since this was reset.
    most: usize,
    least: usize,
}

impl World {
    fn new(replicas: i64, strategy: &Value) -> Self {
        let mut cluster = Cluster::default();
        cluster.put(DEPLOYMENTS, web(replicas, strategy));
        let mut world = Self {
            cluster,
            now: 0,
            most: 0,
            least: usize::MAX,
        };
        world.settle();
        world
    }

    fn deployment(&self) -> Arc<Value> {
        self.cluster
            .get(DEPLOYMENTS, "n", "web")
            .expect("it is there")
    }

    fn change(&mut self, change: &Value) {
        let generation = object::number(&self.deployment()["metadata"]["generation"]) + 1;
        self.cluster.merge(DEPLOYMENTS, &key(), change);
        let generation = json!({"metadata": {"generation": generation}});
        self.cluster.merge(DEPLOYMENTS, &key(), &generation);
    }

    fn roll(&mut self, image: &str) {
        self.change(&json!({"spec": {"template": template(image)}}));
    }

    fn sets(&self) -> Vec<Arc<Value>> {
        let mut sets = self.cluster.list(REPLICA_SETS, Within::Namespace("n"));
        sets.sort_by_key(|set| object::number(&json!(set["metadata"]["creationTimestamp"])));
        sets.sort_by_key(|set| image(set).to_owned());
        sets
    }

    /// Image and size of every set that has pods.
    fn sizes(&self) -> Vec<(String, i64)> {
        let sets = self.sets().into_iter();
        let sizes = sets.map(|set| (image(&set).to_owned(), replicas(&set)));
        sizes.filter(|(_, size)| *size > 0).collect()
    }

    fn pods(&self) -> Vec<Arc<Value>> {
        self.cluster.list(PODS, Within::Namespace("n"))
    }

    /// One look at every object.
    fn look(&mut self) -> bool {
        self.now += 1;
        let plan = self.cluster.plan(&Deployments, &key(), at(self.now));
        self.cluster.carry_out(&plan);
        let has_changed = self.look_at_sets();
        self.measure();
        has_changed || !plan.is_empty()
    }

    fn look_at_sets(&mut self) -> bool {
        let mut has_changed = false;
        for set in self.sets() {
            let set = Key::of(&set);
            self.count_generation(&set);
            let plan = self.cluster.plan(&Replicas::of_sets(), &set, at(self.now));
            self.cluster.carry_out(&plan);
            has_changed |= !plan.is_empty();
        }
        has_changed
    }

    /// The server counts changes of a spec.
    fn count_generation(&mut self, set: &Key) {
        let Some(own) = self.cluster.get(REPLICA_SETS, &set.namespace, &set.name) else {
            return;
        };
        let size = own["spec"]["replicas"].clone();
        if own["metadata"]["labels"]["counted"] != size {
            let generation = object::number(&own["metadata"]["generation"]) + 1;
            let change =
                json!({"metadata": {"generation": generation, "labels": {"counted": size}}});
            self.cluster.merge(REPLICA_SETS, set, &change);
        }
    }

    fn measure(&mut self) {
        let pods = self.pods();
        let available = pods.iter().filter(|pod| object::is_ready(pod)).count();
        self.most = self.most.max(pods.len());
        self.least = self.least.min(available);
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            if !self.look() {
                return;
            }
        }
        panic!("it never settles: {:?}", self.sizes());
    }

    fn ready(&mut self, pod: &Key) {
        let since = time_field(at(self.now));
        let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": since});
        let change = json!({"status": {"phase": "Running", "conditions": [ready]}});
        self.cluster.merge(PODS, pod, &change);
    }

    fn ready_all(&mut self) {
        for pod in self.pods() {
            if !object::is_ready(&pod) {
                self.ready(&Key::of(&pod));
            }
        }
    }

    /// Until nothing is left to do, with pods that get ready.
    fn run(&mut self) {
        for _ in 0..50 {
            self.settle();
            self.ready_all();
        }
        self.settle();
    }

    fn condition(&self, kind: &str) -> (String, String, String) {
        let deployment = self.deployment();
        let own = object::condition(&deployment, kind)
            .cloned()
            .unwrap_or_default();
        let text = |field: &str| own[field].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"), text("message"))
    }

    fn told(&mut self) -> Vec<String> {
        let told = std::mem::take(&mut self.cluster.events).into_iter();
        let told = told.filter(|(reason, _)| !reason.starts_with("Successful"));
        told.map(|(_, message)| message).collect()
    }
}

fn image(set: &Value) -> &str {
    let image = &set["spec"]["template"]["spec"]["containers"][0]["image"];
    image.as_str().unwrap_or_default()
}

#[test]
fn a_deployment_makes_a_set_and_is_complete_once_its_pods_are_available() {
    let mut world = World::new(3, &rolling(&json!("25%"), &json!("25%")));
    let set = world.sets().remove(0);
    let name = object::name(&set).to_owned();
    let hash = object::label(&set, TEMPLATE_HASH)
        .expect("it has a hash")
        .to_owned();
    assert_eq!(name, format!("web-{hash}"));
    assert_eq!(
        set["spec"]["selector"]["matchLabels"],
        json!({"app": "web", TEMPLATE_HASH: hash})
    );
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels, &json!({"app": "web", TEMPLATE_HASH: hash}));
    assert_eq!(
        set["metadata"]["annotations"],
        json!({
            "deployment.kubernetes.io/revision": "1",
            "deployment.kubernetes.io/desired-replicas": "3",
            "deployment.kubernetes.io/max-replicas": "4",
        })
    );
    assert_eq!(
        world.told(),
        [format!("Scaled up replica set {name} from 0 to 3")]
    );
    let deployment = world.deployment();
    let revision = object::annotation(&deployment, "deployment.kubernetes.io/revision");
    assert_eq!(revision, Some("1"));
    let unavailable = world.condition("Available");
    assert_eq!(
        (&*unavailable.0, &*unavailable.1),
        ("False", "MinimumReplicasUnavailable")
    );
    let status = &deployment["status"];
    assert_eq!(status["unavailableReplicas"], 3);
    let (answer, reason, message) = world.condition("Progressing");
    assert_eq!((&*answer, &*reason), ("True", "ReplicaSetUpdated"));
    assert_eq!(message, format!("ReplicaSet {name:?} is progressing."));

    world.run();
    let mut status = world.deployment()["status"].clone();
    object::remove_condition(&mut status, "Available");
    object::remove_condition(&mut status, "Progressing");
    assert_eq!(
        status,
        json!({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3,
            "readyReplicas": 3, "availableReplicas": 3, "terminatingReplicas": 0})
    );
    let (answer, reason, message) = world.condition("Progressing");
    assert_eq!((&*answer, &*reason), ("True", "NewReplicaSetAvailable"));
    assert_eq!(
        message,
        format!("ReplicaSet {name:?} has successfully progressed.")
    );
    assert_eq!(world.condition("Available").1, "MinimumReplicasAvailable");
}

#[test]
fn a_rolling_update_stays_within_its_bounds() {
    for (replicas, surge, unavailable, most, least) in [
        (4, json!("25%"), json!("25%"), 5, 3),
        (4, json!(0), json!(1), 4, 3),
        (4, json!(1), json!(0), 5, 4),
        (1, json!("25%"), json!("25%"), 2, 1),
        (1, json!(0), json!("1%"), 1, 0),
        (10, json!(3), json!(2), 13, 8),
        (3, json!("100%"), json!(0), 6, 3),
    ] {
        let mut world = World::new(replicas, &rolling(&surge, &unavailable));
        world.run();
        (world.most, world.least) = (0, usize::MAX);
        world.roll("v2");
        world.run();
        assert_eq!(
            world.sizes(),
            [("v2".to_owned(), replicas)],
            "{surge} {unavailable}"
        );
        assert_eq!(
            (world.most, world.least),
            (most, least),
            "{replicas} {surge} {unavailable}"
        );
        assert_eq!(world.condition("Progressing").1, "NewReplicaSetAvailable");
    }
}

#[test]
fn sizes_are_told_step_by_step() {
    let mut world = World::new(2, &rolling(&json!(1), &json!(0)));
    world.run();
    world.told();
    let old = object::name(&world.sets()[0]).to_owned();
    world.roll("v2");
    world.run();
    let new = object::name(&world.sets()[1]).to_owned();
    assert_eq!(
        world.told(),
        [
            format!("Scaled up replica set {new} from 0 to 1"),
            format!("Scaled down replica set {old} from 2 to 1"),
            format!("Scaled up replica set {new} from 1 to 2"),
            format!("Scaled down replica set {old} from 1 to 0"),
        ]
    );
}

#[test]
fn recreating_has_no_pods_of_two_templates_at_once() {
    let mut world = World::new(3, &json!({"type": "Recreate"}));
    world.run();
    world.roll("v2");
    let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    let held = Key::of(&world.pods()[0]);
    world.cluster.merge(PODS, &held, &hold);
    world.settle();
    assert_eq!(world.sizes(), []);
    assert_eq!(
        world.sets().len(),
        1,
        "the new set waits until the last pod is gone"
    );
    let gone = world
        .cluster
        .get(PODS, "n", &held.name)
        .expect("it is held");
    world.cluster.remove(PODS, &held);
    assert_eq!(
        world
            .cluster
            .concerned(&Deployments, PODS, Some(&gone), None),
        [key()]
    );
    world.run();
    assert_eq!(world.sizes(), [("v2".to_owned(), 3)]);
}

#[test]
fn pods_of_a_rolling_deployment_concern_their_sets_alone() {
    let world = World::new(1, &rolling(&json!(1), &json!(0)));
    let pod = world.pods().remove(0);
    assert_eq!(
        world
            .cluster
            .concerned(&Deployments, PODS, Some(&pod), None),
        []
    );
    let set = world.sets().remove(0);
    assert_eq!(
        world
            .cluster
            .concerned(&Deployments, REPLICA_SETS, None, Some(&set)),
        [key()]
    );
}

#[test]
fn a_change_of_size_during_a_rollout_is_shared_in_proportion() {
    let mut world = World::new(10, &rolling(&json!(3), &json!(2)));
    world.run();
    world.roll("v2");
    world.settle();
    assert_eq!(world.sizes(), [("v1".to_owned(), 8), ("v2".to_owned(), 5)]);
    world.change(&json!({"spec": {"replicas": 15}}));
    let plan = world.cluster.plan(&Deployments, &key(), at(world.now));
    world.cluster.carry_out(&plan);
    assert_eq!(world.sizes(), [("v1".to_owned(), 11), ("v2".to_owned(), 7)]);
    world.change(&json!({"spec": {"replicas": 0}}));
    let plan = world.cluster.plan(&Deployments, &key(), at(world.now));
    world.cluster.carry_out(&plan);
    assert_eq!(world.sizes(), []);
    world.settle();
    world.change(&json!({"spec": {"replicas": 2}}));
    world.run();
    assert_eq!(world.sizes(), [("v2".to_owned(), 2)]);
}

#[test]
fn a_paused_deployment_is_scaled_and_not_rolled() {
    let mut world = World::new(2, &rolling(&json!(1), &json!(0)));
    world.run();
    world.change(&json!({"spec": {"paused": true, "replicas": 4, "template": template("v2")}}));
    world.run();
    assert_eq!(world.sizes(), [("v1".to_owned(), 4)]);
    let paused = world.condition("Progressing");
    assert_eq!((&*paused.0, &*paused.1), ("Unknown", "DeploymentPaused"));
    world.change(&json!({"spec": {"paused": null}}));
    world.look();
    assert_eq!(world.condition("Progressing").1, "NewReplicaSetCreated");
    world.run();
    assert_eq!(world.sizes(), [("v2".to_owned(), 4)]);
}

#[test]
fn a_rollout_that_makes_no_progress_times_out_and_recovers() {
    let mut world = World::new(2, &rolling(&json!(1), &json!(0)));
    world.run();
    world.roll("v2");
    world.settle();
    let since = world.now;
    let plan = world.cluster.plan(&Deployments, &key(), at(since));
    let after = plan.again_in.expect("it is looked at again");
    assert!((500..=601).contains(&after.as_secs()), "{after:?}");
    world.now += HOUR_S;
    world.settle();
    let (answer, reason, message) = world.condition("Progressing");
    assert_eq!((&*answer, &*reason), ("False", "ProgressDeadlineExceeded"));
    let new = object::name(&world.sets()[1]).to_owned();
    assert_eq!(
        message,
        format!("ReplicaSet {new:?} has timed out progressing.")
    );
    assert_eq!(
        world
            .cluster
            .plan(&Deployments, &key(), at(world.now))
            .again_in,
        None
    );
    world.run();
    assert_eq!(world.condition("Progressing").1, "NewReplicaSetAvailable");
    world.now += HOUR_S;
    world.settle();
    assert_eq!(world.condition("Progressing").1, "NewReplicaSetAvailable");
}

#[test]
fn broken_old_pods_do_not_hold_up_a_rollout() {
    let mut world = World::new(4, &rolling(&json!(1), &json!(1)));
    world.settle();
    world.roll("v2");
    world.settle();
    assert_eq!(world.condition("Available").0, "False");
    assert_eq!(world.sizes(), [("v1".to_owned(), 3), ("v2".to_owned(), 2)]);
    for _ in 0..10 {
        for pod in world.pods() {
            let image = &pod["spec"]["containers"][0]["image"];
            if image == "v2" && !object::is_ready(&pod) {
                world.ready(&Key::of(&pod));
            }
        }
        world.settle();
    }
    assert_eq!(world.sizes(), [("v2".to_owned(), 4)]);
}

#[test]
fn a_template_that_comes_back_has_its_set_back() {
    let mut world = World::new(1, &rolling(&json!(1), &json!(0)));
    world.run();
    let first = object::name(&world.sets()[0]).to_owned();
    for image in ["v2", "v1"] {
        world.roll(image);
        world.run();
    }
    let sets = world.sets();
    assert_eq!(sets.len(), 2);
    let notes = &sets[0]["metadata"]["annotations"];
    assert_eq!(object::name(&sets[0]), first);
    assert_eq!(notes["deployment.kubernetes.io/revision"], "3");
    assert_eq!(notes["deployment.kubernetes.io/revision-history"], "1");
    let own = world.deployment();
    assert_eq!(
        object::annotation(&own, "deployment.kubernetes.io/revision"),
        Some("3")
    );
}

#[test]
fn old_sets_are_kept_as_many_as_the_limit_says() {
    let mut world = World::new(1, &rolling(&json!(1), &json!(0)));
    world.change(&json!({"spec": {"revisionHistoryLimit": 2}}));
    for image in ["v2", "v3", "v4", "v5"] {
        world.roll(image);
        world.run();
    }
    let sets = world.sets();
    let images: Vec<&str> = sets.iter().map(|set| image(set)).collect();
    assert_eq!(images, ["v3", "v4", "v5"]);
}

#[test]
fn a_name_that_is_taken_is_avoided() {
    let mut world = World::new(1, &rolling(&json!(1), &json!(0)));
    let name = object::name(&world.sets()[0]).to_owned();
    let mut cluster = Cluster::default();
    cluster.put(DEPLOYMENTS, web(1, &rolling(&json!(1), &json!(0))));
    let foreign = json!({"metadata": {"namespace": "n", "name": name}, "spec": {"replicas": 0}});
    cluster.put(REPLICA_SETS, foreign);
    world.cluster = cluster;
    world.run();
    assert_eq!(world.deployment()["status"]["collisionCount"], 1);
    assert_eq!(world.sizes(), [("v1".to_owned(), 1)]);
}

#[test]
fn a_set_that_cannot_be_made_is_told() {
    let world = World::new(1, &rolling(&json!(1), &json!(0)));
    let failed = Failed {
        write: Write::create(REPLICA_SETS, json!({"metadata": {"name": "web-x"}})),
        code: 403,
        reason: "Forbidden".to_owned(),
        message: "exceeded quota".to_owned(),
        namespace_ends: false,
    };
    let mut cluster = world.cluster;
    cluster.events.clear();
    let plan = Deployments.report(&cluster, &key(), at(5), &failed);
    cluster.carry_out(&plan);
    let message = "Failed to create new replica set \"web-x\": exceeded quota";
    assert_eq!(
        cluster.events,
        [("ReplicaSetCreateError", message.to_owned())]
    );
    let own = cluster.get(DEPLOYMENTS, "n", "web").expect("it is there");
    let progress = object::condition(&own, "Progressing").expect("it is judged");
    assert_eq!(
        (&progress["status"], &progress["message"]),
        (&json!("False"), &json!(message))
    );
    let ends = Failed {
        namespace_ends: true,
        ..failed
    };
    assert!(
        Deployments
            .report(&cluster, &key(), at(5), &ends)
            .is_empty()
    );
}

#[test]
fn a_failure_of_a_set_is_one_of_its_deployment() {
    let mut world = World::new(1, &rolling(&json!(1), &json!(0)));
    let set = Key::of(&world.sets()[0]);
    let failure = json!({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
        "message": "no", "lastTransitionTime": time_field(at(1))});
    world.cluster.merge(
        REPLICA_SETS,
        &set,
        &json!({"status": {"conditions": [failure]}}),
    );
    let plan = world.cluster.plan(&Deployments, &key(), at(9));
    world.cluster.carry_out(&plan);
    let own = world.deployment();
    let own = object::condition(&own, "ReplicaFailure").expect("it is handed on");
    assert_eq!(
        (&own["reason"], &own["lastUpdateTime"]),
        (&json!("FailedCreate"), &time_field(at(1)))
    );
    world.run();
    assert_eq!(
        object::condition(&world.deployment(), "ReplicaFailure"),
        None
    );
}

#[test]
fn an_old_client_rolls_back_by_an_annotation() {
    let to = |revision: &str| {
        json!({"metadata": {"annotations": {
            "deprecated.deployment.rollback.to": revision,
        }}})
    };
    let mut world = World::new(1, &rolling(&json!(1), &json!(0)));
    world.run();
    for image in ["v2", "v3"] {
        world.roll(image);
        world.run();
    }
    for (revision, expected, told) in [
        ("1", "v1", "Rolled back deployment \"web\" to revision 1"),
        ("0", "v3", "Rolled back deployment \"web\" to revision 3"),
        ("9", "v3", "Unable to find the revision to rollback to."),
        (
            "5",
            "v3",
            "The rollback revision contains the same template as current deployment \"web\"",
        ),
    ] {
        world.told();
        world.change(&to(revision));
        world.run();
        assert_eq!(world.sizes(), [(expected.to_owned(), 1)], "{revision}");
        let events = world.told();
        assert!(events.iter().any(|own| own == told), "{events:?}");
        let own = world.deployment();
        assert_eq!(
            object::annotation(&own, "deprecated.deployment.rollback.to"),
            None
        );
    }
}

#[test]
fn a_deployment_on_its_way_out_only_counts() {
    let mut world = World::new(2, &rolling(&json!(1), &json!(0)));
    world.run();
    let leaving = json!({"metadata": {"deletionTimestamp": time_field(at(0))},
        "spec": {"replicas": 9, "template": template("v2")}});
    world.change(&leaving);
    world.run();
    assert_eq!(world.sizes(), [("v1".to_owned(), 2)]);
    let status = &world.deployment()["status"];
    assert_eq!(status["observedGeneration"], 2);
    assert_eq!(status.get("updatedReplicas"), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// However pods fail and get ready between looks: never too many, never too few that
    /// were available taken away, and in the end the newest template.
    #[test]
    fn whatever_happens_a_rollout_keeps_its_bounds_and_ends(
        replicas in 1_i64..6,
        surge in 0_i64..3,
        unavailable in 0_i64..3,
        steps in prop::collection::vec((0_usize..4, 0_usize..8), 0..40),
    ) {
        let mut world = World::new(replicas, &rolling(&json!(surge), &json!(unavailable)));
        world.run();
        world.most = 0;
        let floor = replicas - if surge == 0 { unavailable.max(1) } else { unavailable };
        let mut version = 1;
        for (what, index) in steps {
            let pods = world.pods();
            let pod = pods.get(index).map(|pod| Key::of(pod));
            let available = |world: &World| {
                world.pods().iter().filter(|pod| object::is_ready(pod)).count() as i64
            };
            match (what, pod) {
                (0, _) if version < 4 => {
                    version += 1;
                    world.roll(&format!("v{version}"));
                }
                (1, Some(pod)) => world.ready(&pod),
                (2, Some(pod)) => world.cluster.remove(PODS, &pod),
                _ => {
                    // A status that is behind counts pods that are gone.
                    while world.look_at_sets() {}
                    let before = available(&world);
                    world.look();
                    let after = available(&world);
                    prop_assert!(after >= before.min(floor), "{before} -> {after} of {replicas}");
                }
            }
        }
        world.run();
        prop_assert!(world.most as i64 <= replicas + surge, "{} pods", world.most);
        prop_assert_eq!(world.sizes(), [(format!("v{version}"), replicas)]);
        prop_assert_eq!(world.condition("Progressing").1, "NewReplicaSetAvailable");
    }
}
