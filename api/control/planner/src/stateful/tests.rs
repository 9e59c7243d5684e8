//! Sets whose pods start, fail, end and change, as a kubelet would have them do.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::{Cluster, at};
use crate::view::Within;

struct World {
    cluster: Cluster,
    key: Key,
    now: i64,
}

impl World {
    fn new(spec: &Value) -> Self {
        let mut set = json!({
            "metadata": {"namespace": "n", "name": "web", "generation": 1},
            "spec": {
                "replicas": 3,
                "serviceName": "web",
                "podManagementPolicy": "OrderedReady",
                "revisionHistoryLimit": 10,
                "selector": {"matchLabels": {"app": "web"}},
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "one"}]},
                },
            },
        });
        nautilus_machinery::patch::merge(&mut set["spec"], spec);
        let mut cluster = Cluster::default();
        cluster.put(STATEFUL_SETS, set);
        let mut world = Self {
            cluster,
            key: Key::new("n", "web"),
            now: 0,
        };
        world.settle();
        world
    }

    fn settle(&mut self) {
        let (key, now) = (self.key.clone(), at(self.now));
        self.cluster.settle(&StatefulSets, &key, now);
    }

    fn change(&mut self, spec: &Value) {
        let key = self.key.clone();
        self.cluster
            .merge(STATEFUL_SETS, &key, &json!({ "spec": spec }));
        self.settle();
    }

    fn image(&mut self, image: &str) {
        let containers = json!([{"name": "c", "image": image}]);
        self.change(&json!({"template": {"spec": {"containers": containers}}}));
    }

    /// What a kubelet writes of a pod.
    fn pod_is(&mut self, name: &str, phase: &str, ready: &str) {
        let since = object::time_field(at(self.now));
        let status = json!({"phase": phase, "conditions": [
            {"type": "Ready", "status": ready, "lastTransitionTime": since},
        ]});
        let change = json!({ "status": status });
        self.cluster.merge(PODS, &Key::new("n", name), &change);
        self.settle();
    }

    fn start(&mut self, name: &str) {
        self.pod_is(name, "Running", "True");
    }

    /// Starts every pod that is there or comes, until none is left that does not run.
    fn start_all(&mut self) {
        while let Some(pod) = self.waiting().first() {
            self.start(&pod.clone());
        }
    }

    fn waiting(&self) -> Vec<String> {
        let pods = self.cluster.list(PODS, Within::All);
        let waiting = pods.iter().filter(|pod| !object::is_ready(pod));
        waiting.map(|pod| object::name(pod).to_owned()).collect()
    }

    fn pods(&self) -> Vec<String> {
        let keys = self.cluster.keys(PODS, Within::All);
        keys.into_iter().map(|key| key.name).collect()
    }

    fn pod(&self, name: &str) -> Arc<Value> {
        self.cluster.get(PODS, "n", name).unwrap()
    }

    fn images(&self) -> Vec<String> {
        let pods = self.cluster.list(PODS, Within::All);
        let image = |pod: &Arc<Value>| {
            pod["spec"]["containers"][0]["image"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        pods.iter().map(image).collect()
    }

    fn set(&self) -> Arc<Value> {
        self.cluster.get(STATEFUL_SETS, "n", "web").unwrap()
    }

    fn revisions(&self) -> usize {
        self.cluster.keys(CONTROLLER_REVISIONS, Within::All).len()
    }
}

fn with_claims(whens: [&str; 2]) -> Value {
    let [scaled, deleted] = whens;
    json!({
        "volumeClaimTemplates": [{
            "metadata": {"name": "data", "labels": {"tier": "x"}},
            "spec": {"accessModes": ["ReadWriteOnce"]},
        }],
        "persistentVolumeClaimRetentionPolicy": {"whenScaled": scaled, "whenDeleted": deleted},
    })
}

#[test]
fn pods_start_one_after_the_other() {
    let mut world = World::new(&json!({"ordinals": {"start": 5}}));
    assert_eq!(world.pods(), ["web-5"]);
    world.pod_is("web-5", "Running", "False");
    assert_eq!(world.pods(), ["web-5"]);
    world.start("web-5");
    assert_eq!(world.pods(), ["web-5", "web-6"]);
    world.start_all();
    assert_eq!(world.pods(), ["web-5", "web-6", "web-7"]);
    let pod = world.pod("web-6");
    let set = world.set();
    let revision = set["status"]["updateRevision"].as_str().unwrap();
    assert_eq!(
        pod["metadata"]["labels"],
        json!({
            "app": "web",
            "apps.kubernetes.io/pod-index": "6",
            "statefulset.kubernetes.io/pod-name": "web-6",
            "controller-revision-hash": revision,
        })
    );
    assert_eq!(pod["spec"]["hostname"], "web-6");
    assert_eq!(pod["spec"]["subdomain"], "web");
    assert!(object::is_controlled_by(&pod, object::uid(&set)));
    assert_eq!(
        set["status"],
        json!({
            "observedGeneration": 1, "replicas": 3, "readyReplicas": 3, "availableReplicas": 3,
            "currentReplicas": 3, "updatedReplicas": 3, "collisionCount": 0,
            "currentRevision": revision, "updateRevision": revision,
        })
    );
    let told = (
        "SuccessfulCreate",
        "Create Pod web-5 in StatefulSet web successful".to_owned(),
    );
    assert!(world.cluster.events.contains(&told));
}

#[test]
fn parallel_pods_start_together() {
    let world = World::new(&json!({"podManagementPolicy": "Parallel"}));
    assert_eq!(world.pods(), ["web-0", "web-1", "web-2"]);
}

#[test]
fn pods_that_are_too_many_go_last_first_and_one_by_one() {
    let mut world = World::new(&json!({}));
    world.start_all();
    let held = json!({"metadata": {"finalizers": ["x/y"]}});
    for pod in ["web-1", "web-2"] {
        world.cluster.merge(PODS, &Key::new("n", pod), &held);
    }
    world.change(&json!({"replicas": 1}));
    assert!(object::is_deleted(&world.pod("web-2")));
    assert!(!object::is_deleted(&world.pod("web-1")));
    world.cluster.remove(PODS, &Key::new("n", "web-2"));
    world.settle();
    assert!(object::is_deleted(&world.pod("web-1")));
    world.cluster.remove(PODS, &Key::new("n", "web-1"));
    world.settle();
    assert_eq!(world.pods(), ["web-0"]);
}

#[test]
fn the_first_unhealthy_pod_may_go_before_it_is_well() {
    let mut world = World::new(&json!({}));
    world.start_all();
    world.pod_is("web-2", "Running", "False");
    world.change(&json!({"replicas": 2}));
    assert_eq!(world.pods(), ["web-0", "web-1"]);
    // But not while another before it is ill.
    world.change(&json!({"replicas": 3}));
    world.start_all();
    world.pod_is("web-1", "Running", "False");
    world.pod_is("web-2", "Running", "False");
    world.change(&json!({"replicas": 1}));
    assert_eq!(world.pods(), ["web-0", "web-1", "web-2"]);
    world.start("web-1");
    assert_eq!(world.pods(), ["web-0"]);
}

#[test]
fn an_update_takes_the_last_pod_first_down_to_its_partition() {
    let mut world = World::new(&json!({}));
    world.start_all();
    world.change(&json!({"updateStrategy": {"rollingUpdate": {"partition": 1}}}));
    world.image("two");
    assert_eq!(world.images(), ["one", "one", "two"]);
    world.start("web-2");
    assert_eq!(world.images(), ["one", "two", "two"]);
    world.start("web-1");
    assert_eq!(world.images(), ["one", "two", "two"]);
    let status = world.set()["status"].clone();
    assert_eq!(status["updatedReplicas"], 2);
    assert_eq!(status["currentReplicas"], 1);
    assert_ne!(status["currentRevision"], status["updateRevision"]);
    // A pod below the partition comes back as it was.
    world.cluster.remove(PODS, &Key::new("n", "web-0"));
    world.settle();
    assert_eq!(world.images(), ["one", "two", "two"]);
    world.start_all();
    world.change(&json!({"updateStrategy": {"rollingUpdate": {"partition": 0}}}));
    world.start_all();
    assert_eq!(world.images(), ["two"; 3]);
    let status = world.set()["status"].clone();
    assert_eq!(status["currentRevision"], status["updateRevision"]);
}

#[test]
fn no_more_pods_are_renewed_at_once_than_may_be_unavailable() {
    for (policy, max, expected) in [
        ("OrderedReady", json!(2), 2),
        ("Parallel", json!(2), 2),
        ("Parallel", json!("70%"), 2),
        ("Parallel", json!("10%"), 1),
    ] {
        let rolling = json!({"rollingUpdate": {"maxUnavailable": max}});
        let mut world =
            World::new(&json!({"podManagementPolicy": policy, "updateStrategy": rolling}));
        world.start_all();
        world.image("two");
        let renewed = world.images().iter().filter(|own| *own == "two").count();
        // Ordered, the first of the two is back before the second is made.
        let missing = 3 - world.pods().len();
        assert_eq!(renewed + missing, expected, "{policy} {rolling}");
        world.start_all();
        assert_eq!(world.images(), ["two"; 3]);
    }
}

#[test]
fn pods_that_are_ill_and_old_go_at_once_where_order_does_not_count() {
    let mut world = World::new(&json!({"podManagementPolicy": "Parallel"}));
    world.start("web-2");
    world.image("two");
    assert_eq!(world.images(), ["two", "two", "one"]);
    let mut world = World::new(&json!({}));
    world.image("two");
    // In order an update that cannot start waits for somebody.
    assert_eq!(world.images(), ["one"]);
}

#[test]
fn pods_are_renewed_when_others_delete_them() {
    let mut world =
        World::new(&json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}));
    world.start_all();
    world.image("two");
    assert_eq!(world.images(), ["one"; 3]);
    world.cluster.remove(PODS, &Key::new("n", "web-1"));
    world.settle();
    assert_eq!(world.images(), ["one", "two", "one"]);
}

#[test]
fn a_pod_that_ended_is_made_again() {
    let mut world = World::new(&json!({}));
    world.start_all();
    for phase in ["Failed", "Succeeded"] {
        let uid = object::uid(&world.pod("web-1")).to_owned();
        world.pod_is("web-1", phase, "False");
        assert_ne!(object::uid(&world.pod("web-1")), uid);
        world.start("web-1");
    }
}

#[test]
fn an_earlier_template_has_its_earlier_revision_and_old_ones_go() {
    let mut world = World::new(&json!({"revisionHistoryLimit": 1}));
    world.start_all();
    let first = world.set()["status"]["updateRevision"].clone();
    for image in ["two", "three", "four"] {
        world.image(image);
        world.start_all();
    }
    assert_eq!(world.revisions(), 2);
    world.image("three");
    world.start_all();
    world.image("four");
    world.start_all();
    assert_eq!(world.revisions(), 2);
    world.image("one");
    assert_eq!(world.set()["status"]["updateRevision"], first);
}

#[test]
fn a_name_that_something_else_has_is_not_used() {
    let mut world = World::new(&json!({"replicas": 0}));
    let status = world.set()["status"].clone();
    let name = status["updateRevision"].as_str().unwrap().to_owned();
    let stranger = json!({
        "metadata": {"namespace": "n", "name": name, "ownerReferences": [{"uid": "x", "controller": true}]},
        "data": {"x": 1},
    });
    world.cluster.put(CONTROLLER_REVISIONS, stranger);
    world.settle();
    let status = world.set()["status"].clone();
    assert_eq!(status["collisionCount"], 1);
    assert_ne!(status["updateRevision"], name);
}

#[test]
fn a_template_as_an_earlier_release_wrote_it_renews_no_pod() {
    let mut world = World::new(&json!({}));
    world.start_all();
    let name = world.set()["status"]["updateRevision"]
        .as_str()
        .unwrap()
        .to_owned();
    // The set as a server serves it, with defaults; the revision without.
    let set = world.set();
    let mut defaulted = (*set).clone();
    let kind = nautilus_machinery::resource::find("apps", "v1", "statefulsets").unwrap();
    nautilus_machinery::strategy::default_decoded(kind, &mut defaulted).unwrap();
    assert_ne!(defaulted["spec"]["template"], set["spec"]["template"]);
    world.cluster.put(STATEFUL_SETS, defaulted);
    world.settle();
    assert_eq!(world.set()["status"]["updateRevision"], name);
    assert_eq!(world.revisions(), 1);
}

#[test]
fn a_pod_has_its_claims_and_mounts_them() {
    let mut world = World::new(&with_claims(["Retain", "Delete"]));
    let claim = world.cluster.get(CLAIMS, "n", "data-web-0").unwrap();
    assert_eq!(
        claim["metadata"]["labels"],
        json!({"tier": "x", "app": "web"})
    );
    assert!(object::is_controlled_by(&claim, object::uid(&world.set())));
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}}]);
    assert_eq!(world.pod("web-0")["spec"]["volumes"], volumes);
    // One that is lost while its pod waits is made again.
    world.cluster.remove(CLAIMS, &Key::new("n", "data-web-0"));
    world.pod_is("web-0", "Pending", "False");
    assert!(world.cluster.get(CLAIMS, "n", "data-web-0").is_some());
}

#[test]
fn a_pod_waits_for_the_end_of_a_claim_that_goes() {
    let mut world = World::new(&with_claims(["Retain", "Retain"]));
    world.start("web-0");
    let ending = json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}});
    let claim = Key::new("n", "data-web-1");
    world.cluster.merge(CLAIMS, &claim, &ending);
    world.cluster.remove(PODS, &Key::new("n", "web-1"));
    let plan = world.cluster.plan(&StatefulSets, &world.key, at(0));
    assert!(
        !plan
            .writes()
            .any(|write| matches!(write, Write::Create { .. }))
    );
    let gone = world.cluster.get(CLAIMS, "n", "data-web-1").unwrap();
    world.cluster.remove(CLAIMS, &claim);
    let woken = world
        .cluster
        .concerned(&StatefulSets, CLAIMS, Some(&gone), None);
    assert_eq!(woken, [world.key.clone()]);
    world.settle();
    assert_eq!(world.pods(), ["web-0", "web-1"]);
}

#[test]
fn claims_of_pods_that_are_too_many_go_with_them() {
    let mut world = World::new(&with_claims(["Delete", "Delete"]));
    world.start_all();
    let uid = object::uid(&world.pod("web-2")).to_owned();
    world.change(&json!({"replicas": 2}));
    let claim = world.cluster.get(CLAIMS, "n", "data-web-2").unwrap();
    assert!(object::is_controlled_by(&claim, &uid));
    // Back to three: the pod waits until the earlier one's claim is collected.
    world.change(&json!({"replicas": 3}));
    assert_eq!(world.pods(), ["web-0", "web-1"]);
    world.cluster.remove(CLAIMS, &Key::new("n", "data-web-2"));
    world.settle();
    assert_eq!(world.pods(), ["web-0", "web-1", "web-2"]);
}

#[test]
fn a_pod_counts_once_it_was_ready_for_long_enough() {
    let mut world = World::new(&json!({"minReadySeconds": 10}));
    world.start("web-0");
    assert_eq!(world.pods(), ["web-0"]);
    assert_eq!(world.set()["status"]["readyReplicas"], 1);
    assert_eq!(world.set()["status"]["availableReplicas"], 0);
    world.now = 4;
    let plan = world.cluster.plan(&StatefulSets, &world.key, at(4));
    assert_eq!(plan.again_in, Some(std::time::Duration::from_secs(6)));
    world.now = 10;
    world.settle();
    assert_eq!(world.pods(), ["web-0", "web-1"]);
}

#[test]
fn a_set_that_ends_makes_and_takes_nothing() {
    let mut world = World::new(&json!({}));
    world.start_all();
    let ending = json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}});
    let key = world.key.clone();
    world.cluster.merge(STATEFUL_SETS, &key, &ending);
    world.change(&json!({"replicas": 1}));
    world.pod_is("web-1", "Failed", "False");
    assert_eq!(world.pods().len(), 3);
}

#[test]
fn pods_of_a_set_name_it_and_a_stranger_in_their_place_is_left_alone() {
    let mut world = World::new(&json!({"replicas": 1}));
    world.cluster.remove(PODS, &Key::new("n", "web-0"));
    let stranger = json!({"metadata": {
        "namespace": "n", "name": "web-0", "ownerReferences": [{"uid": "x", "controller": true}],
    }});
    let stranger = world.cluster.put(PODS, stranger);
    world.settle();
    assert_eq!(world.pod("web-0"), stranger);
    let woken = world
        .cluster
        .concerned(&StatefulSets, PODS, Some(&stranger), None);
    assert_eq!(woken, [world.key.clone()]);
    // An orphan of the right name and labels is adopted, one of another name is not.
    for name in ["web-0", "web-x"] {
        let labels = json!({"app": "web"});
        let orphan = json!({"metadata": {"namespace": "n", "name": name, "labels": labels}});
        world.cluster.put(PODS, orphan);
    }
    world.settle();
    let uid = object::uid(&world.set()).to_owned();
    assert!(object::is_controlled_by(&world.pod("web-0"), &uid));
    assert!(!object::is_controlled_by(&world.pod("web-x"), &uid));
}

#[test]
fn a_refused_pod_is_told_of() {
    let world = World::new(&json!({}));
    let failed = Failed {
        write: Write::create(PODS, json!({"metadata": {"name": "web-1"}})),
        code: 403,
        reason: "Forbidden".to_owned(),
        message: "exceeded quota".to_owned(),
        namespace_ends: false,
    };
    let plan = StatefulSets.report(&world.cluster, &world.key, at(0), &failed);
    let expected = "Create Pod web-1 in StatefulSet web failed error: exceeded quota";
    let told = plan.writes().any(
        |write| matches!(write, Write::Event(event) if event.warning && event.message == expected),
    );
    assert!(told);
}

#[derive(Debug, Clone)]
enum Happening {
    Start(usize),
    Sicken(usize),
    End(usize),
    Vanish(usize),
    Scale(i64),
    Image(u8),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => any::<usize>().prop_map(Happening::Start),
        1 => any::<usize>().prop_map(Happening::Sicken),
        1 => any::<usize>().prop_map(Happening::End),
        1 => any::<usize>().prop_map(Happening::Vanish),
        1 => (0_i64..5).prop_map(Happening::Scale),
        1 => (0_u8..3).prop_map(Happening::Image),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever happens to pods and to the set, in the end every replica runs the newest
    /// template; and in order, no pod is made before those ahead of it are well.
    #[test]
    fn any_order_of_events_ends_well(
        in_order in any::<bool>(),
        happenings in proptest::collection::vec(happening(), 0..25),
    ) {
        let policy = if in_order { "OrderedReady" } else { "Parallel" };
        let mut world = World::new(&json!({"podManagementPolicy": policy}));
        let (mut wanted, mut image) = (3, "one".to_owned());
        for happening in happenings {
            let pods = world.pods();
            let pick = |at: usize| (!pods.is_empty()).then(|| pods[at % pods.len()].clone());
            match happening {
                Happening::Start(at) => if let Some(pod) = pick(at) { world.start(&pod); },
                Happening::Sicken(at) => if let Some(pod) = pick(at) { world.pod_is(&pod, "Running", "False"); },
                Happening::End(at) => if let Some(pod) = pick(at) { world.pod_is(&pod, "Failed", "False"); },
                Happening::Vanish(at) => if let Some(pod) = pick(at) {
                    world.cluster.remove(PODS, &Key::new("n", pod));
                    world.settle();
                },
                Happening::Scale(to) => { wanted = to; world.change(&json!({"replicas": to})); }
                Happening::Image(of) => { image = format!("image-{of}"); world.image(&image.clone()); }
            }
            if in_order {
                let mut ahead_well = true;
                for pod in world.pods().iter().filter(|pod| !pods.contains(pod)) {
                    let own = identity::ordinal(pod).unwrap();
                    ahead_well &= (0..own).all(|ordinal| world.pods().contains(&format!("web-{ordinal}")));
                }
                prop_assert!(ahead_well);
            }
        }
        world.start_all();
        prop_assert_eq!(world.pods().len() as i64, wanted);
        prop_assert!(world.images().iter().all(|own| *own == image));
        let status = world.set()["status"].clone();
        prop_assert_eq!(status["currentRevision"].clone(), status["updateRevision"].clone());
        prop_assert!(world.revisions() <= 4 + 10);
    }
}
