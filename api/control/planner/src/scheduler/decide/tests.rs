//! A cluster that hears of decisions late, and whatever may happen to it.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::kind::{NODES, PODS};
use crate::testing::at;

/// The objects, and a scheduler that is told of them.
struct World {
    scheduler: Scheduler,
    objects: BTreeMap<(Kind, Key), Arc<Value>>,
    now_s: i64,
    uids: u64,
}

impl World {
    fn new() -> Self {
        Self {
            scheduler: Scheduler::new(vec![Profile::default()]),
            objects: BTreeMap::new(),
            now_s: 0,
            uids: 0,
        }
    }

    fn put(&mut self, kind: Kind, mut object: Value) {
        let key = Key::of(&object);
        let before = self.objects.get(&(kind, key.clone())).cloned();
        if object["metadata"]["uid"].is_null() {
            self.uids += 1;
            object["metadata"]["uid"] = match &before {
                Some(before) => before["metadata"]["uid"].clone(),
                None => format!("uid-{}", self.uids).into(),
            };
        }
        let after = Arc::new(object);
        self.objects.insert((kind, key), after.clone());
        let change = Change {
            kind,
            before,
            after: Some(after),
        };
        self.scheduler.hear(&change, at(self.now_s));
    }

    fn remove(&mut self, kind: Kind, key: &Key) {
        if let Some(before) = self.objects.remove(&(kind, key.clone())) {
            let change = Change {
                kind,
                before: Some(before),
                after: None,
            };
            self.scheduler.hear(&change, at(self.now_s));
        }
    }

    fn change(&mut self, kind: Kind, key: &Key, change: impl FnOnce(&mut Value)) {
        if let Some(object) = self.objects.get(&(kind, key.clone())) {
            let mut object = (**object).clone();
            change(&mut object);
            self.put(kind, object);
        }
    }

    fn next(&mut self) -> Option<Decision> {
        self.scheduler.next(at(self.now_s))
    }

    fn place(&mut self) -> Placement {
        match self.next() {
            Some(Decision::Place(placement)) => placement,
            other => panic!("{other:?}"),
        }
    }

    fn wait(&mut self) -> Wait {
        match self.next() {
            Some(Decision::Wait(wait)) => wait,
            other => panic!("{other:?}"),
        }
    }

    /// The API binds a pod, if it may.
    fn bind(&mut self, placement: &Placement) -> bool {
        let pod = &placement.attempt.pod;
        let found = self.objects.get(&(PODS, pod.key()));
        let may = found
            .is_some_and(|own| object::uid(own) == pod.uid && own["spec"]["nodeName"].is_null());
        if may {
            self.change(PODS, &pod.key(), |own| {
                own["spec"]["nodeName"] = placement.chosen.node.as_str().into();
                own["status"] = json!({});
            });
        }
        may
    }
}

fn node(name: &str, cpu: u32) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": cpu.to_string(), "memory": "1Gi", "pods": "10"}},
    })
}

fn pod(name: &str, priority: i32, cpu: u32) -> Value {
    json!({
        "metadata": {"namespace": "n", "name": name, "labels": {"app": name}},
        "spec": {
            "schedulerName": "default-scheduler",
            "priority": priority,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu.to_string()}}}],
        },
        "status": {},
    })
}

fn key(name: &str) -> Key {
    Key::new("n", name)
}

fn node_key(name: &str) -> Key {
    Key::new("", name)
}

#[test]
fn a_pod_counts_on_its_node_before_its_binding_is_seen_and_not_after_it_failed() {
    let mut world = World::new();
    world.put(NODES, node("a", 2));
    world.put(PODS, pod("first", 0, 2));
    world.put(PODS, pod("second", 0, 2));
    let first = world.place();
    assert_eq!(first.chosen.node, "a");
    assert_eq!(
        world.wait().message,
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
         1 No preemption victims found for incoming pod."
    );
    world.scheduler.failed(&first, at(0));
    assert_eq!(world.place().attempt.pod.name, "second");
    world.now_s = 20;
    assert_eq!(world.wait().attempt.pod.name, "first");
}

#[test]
fn the_first_node_ends_the_wait_for_nodes() {
    let mut world = World::new();
    world.put(PODS, pod("a", 0, 1));
    assert_eq!(world.wait().message, "no nodes available to schedule pods");
    assert!(world.next().is_none());
    world.put(NODES, node("a", 1));
    assert_eq!(world.place().chosen.node, "a");
}

#[test]
fn room_that_is_made_for_a_pod_is_its_own() {
    let mut world = World::new();
    world.put(NODES, node("a", 2));
    world.put(PODS, pod("low", 1, 2));
    let low = world.place();
    assert!(world.bind(&low));
    world.put(PODS, pod("high", 10, 2));
    let wait = world.wait();
    assert_eq!(wait.nominated.as_deref(), Some("a"));
    assert_eq!(wait.victims.len(), 1);
    assert!(wait.message.ends_with(
        "preemption: found a potential placement for pod on node a, preempting 1 victims"
    ));
    world.change(PODS, &key("low"), |own| {
        own["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z".into();
        own["status"]["conditions"] = json!([
            {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"},
        ]);
    });
    world.scheduler.preempted(&key("high"), false, at(0));
    // Others of less importance find the node as if it were full already.
    world.put(PODS, pod("middle", 5, 2));
    let middle = world.wait();
    assert!(middle.victims.is_empty(), "{middle:?}");
    world.remove(PODS, &key("low"));
    let high = world.place();
    assert_eq!(high.attempt.pod.name, "high");
    assert!(world.bind(&high));
    assert_eq!(world.wait().attempt.pod.name, "middle");
}

#[test]
fn a_pod_whose_victims_end_preempts_no_more() {
    let mut world = World::new();
    world.put(NODES, node("a", 2));
    for name in ["one", "two"] {
        world.put(PODS, pod(name, 1, 1));
        let placement = world.place();
        assert!(world.bind(&placement));
    }
    world.put(PODS, pod("high", 10, 1));
    let victim = world.wait().victims[0].name.clone();
    assert!(world.next().is_none(), "it is held");
    world.change(PODS, &key(&victim), |own| {
        own["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z".into();
        own["status"]["conditions"] = json!([
            {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"},
        ]);
    });
    world.scheduler.preempted(&key("high"), true, at(0));
    let wait = world.wait();
    assert!(wait.victims.is_empty() && wait.nominated.is_none());
    assert!(
        wait.message
            .ends_with("preemption: not eligible due to a terminating pod on the nominated node.")
    );
}

#[test]
fn who_was_nominated_for_less_loses_the_nomination() {
    let mut world = World::new();
    world.put(NODES, node("a", 2));
    world.put(PODS, pod("low", 1, 2));
    let low = world.place();
    assert!(world.bind(&low));
    world.put(PODS, pod("middle", 5, 2));
    assert_eq!(world.wait().nominated.as_deref(), Some("a"));
    world.put(PODS, pod("high", 10, 2));
    let wait = world.wait();
    let displaced: Vec<&str> = wait.displaced.iter().map(|own| own.name.as_str()).collect();
    assert_eq!(displaced, ["middle"]);
    assert_eq!(
        world
            .scheduler
            .snapshot()
            .nomination(&wait.displaced[0].uid),
        None
    );
}

#[test]
fn a_pod_that_goes_before_it_is_bound_leaves_its_room() {
    for is_gone in [false, true] {
        let mut world = World::new();
        world.put(NODES, node("a", 2));
        world.put(PODS, pod("first", 0, 2));
        world.place();
        world.put(PODS, pod("second", 0, 2));
        world.wait();
        match is_gone {
            true => world.remove(PODS, &key("first")),
            false => world.change(PODS, &key("first"), |own| {
                own["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z".into();
            }),
        }
        assert_eq!(world.place().attempt.pod.name, "second");
    }
}

#[test]
fn pods_of_others_and_pods_that_end_get_no_node() {
    let mut world = World::new();
    world.put(NODES, node("a", 2));
    let mut other = pod("other", 0, 1);
    other["spec"]["schedulerName"] = "another".into();
    world.put(PODS, other);
    let mut done = pod("done", 0, 1);
    done["status"]["phase"] = "Succeeded".into();
    world.put(PODS, done);
    assert!(world.next().is_none());
    let mut ends = pod("ends", 0, 1);
    ends["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z".into();
    world.put(PODS, ends);
    assert!(matches!(world.next(), Some(Decision::Skip(pod)) if pod.name == "ends"));
    assert!(world.next().is_none());
}

#[test]
fn the_decision_is_explained_node_by_node() {
    let mut world = World::new();
    world.put(NODES, node("a", 1));
    world.put(NODES, node("b", 4));
    world.put(PODS, pod("p", 3, 2));
    let asked = |world: &World| world.scheduler.explain("n", "p").expect("it is there");
    let before = asked(&world);
    assert_eq!(before["state"], "Active");
    assert_eq!(before["best"], "b");
    assert_eq!(before["nodes"][0]["node"], "b");
    assert!(before["nodes"][0]["scores"]["NodeResourcesFit"]["score"].is_i64());
    assert_eq!(
        before["nodes"][1],
        json!({"plugin": "NodeResourcesFit", "reasons": ["Insufficient cpu"],
            "preemptionHelps": false, "node": "a", "fits": false})
    );
    let placement = world.place();
    assert_eq!(asked(&world)["state"], "Binding");
    assert!(world.bind(&placement));
    assert_eq!(asked(&world)["state"], "Bound");
    assert_eq!(asked(&world)["node"], "b");
    assert!(world.scheduler.explain("n", "q").is_none());
}

/// What may happen.
#[derive(Debug, Clone)]
enum Happens {
    Node(u8, u32, bool, bool),
    NodeGone(u8),
    Pod(u8, i32, u32, bool, bool),
    PodGone(u8),
    Decide,
    /// The oldest placement under way is carried out, or fails.
    Bind(bool),
    Passes(i64),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        2 => (0..3u8, 0..6u32, any::<bool>(), any::<bool>())
            .prop_map(|(n, cpu, cordon, taint)| Happens::Node(n, cpu, cordon, taint)),
        1 => (0..3u8).prop_map(Happens::NodeGone),
        4 => (0..6u8, 0..3i32, 1..4u32, any::<bool>(), any::<bool>())
            .prop_map(|(n, priority, cpu, picks, tolerates)| {
                Happens::Pod(n, priority, cpu, picks, tolerates)
            }),
        2 => (0..6u8).prop_map(Happens::PodGone),
        6 => Just(Happens::Decide),
        4 => any::<bool>().prop_map(Happens::Bind),
        1 => (1..5i64).prop_map(Happens::Passes),
    ]
}

/// What stands in the world after a story, with what is under way carried out.
struct Story {
    world: World,
    under_way: Vec<Placement>,
}

impl Story {
    fn step(&mut self, step: &Happens) {
        let world = &mut self.world;
        match step {
            Happens::Node(number, cpu, cordon, taint) => {
                let mut own = node(&format!("node-{number}"), *cpu);
                own["spec"]["unschedulable"] = (*cordon).into();
                if *taint {
                    own["spec"]["taints"] = json!([{"key": "t", "effect": "NoSchedule"}]);
                }
                world.put(NODES, own);
            }
            Happens::NodeGone(number) => {
                world.remove(NODES, &node_key(&format!("node-{number}")));
            }
            Happens::Pod(number, priority, cpu, picks, tolerates) => {
                let name = format!("pod-{number}");
                if world.objects.contains_key(&(PODS, key(&name))) {
                    return;
                }
                let mut own = pod(&name, *priority, *cpu);
                if *picks {
                    own["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "node-1"});
                }
                if *tolerates {
                    own["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
                }
                world.put(PODS, own);
            }
            Happens::PodGone(number) => world.remove(PODS, &key(&format!("pod-{number}"))),
            Happens::Decide => self.decide(),
            Happens::Bind(_) if self.under_way.is_empty() => {}
            Happens::Bind(succeeds) => {
                let placement = self.under_way.remove(0);
                if !(*succeeds && world.bind(&placement)) {
                    world.scheduler.failed(&placement, at(world.now_s));
                }
            }
            Happens::Passes(seconds) => world.now_s += seconds,
        }
    }

    fn decide(&mut self) {
        match self.world.next() {
            Some(Decision::Place(placement)) => self.under_way.push(placement),
            Some(Decision::Wait(wait)) => {
                for victim in &wait.victims {
                    self.world.remove(PODS, &victim.key());
                }
                let now = at(self.world.now_s);
                self.world
                    .scheduler
                    .preempted(&wait.attempt.key, false, now);
            }
            Some(Decision::Skip(_) | Decision::Fail(_)) | None => {}
        }
    }

    /// Lets everything come to its end.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.decide();
            if !self.under_way.is_empty() {
                self.step(&Happens::Bind(true));
            }
            if self.world.scheduler.is_idle() {
                self.world.now_s += 1;
            }
        }
    }

    /// Of each node, the CPUs that pods hold that are bound to it or on their way.
    fn check_room(&self) -> Result<(), TestCaseError> {
        for own in self.world.scheduler.snapshot().nodes() {
            let mut uids = BTreeSet::new();
            prop_assert!(
                own.pods.iter().all(|pod| uids.insert(&pod.uid)),
                "twice on {}",
                own.name
            );
        }
        let mut waiting = BTreeSet::new();
        for placement in &self.under_way {
            let uid = &placement.attempt.pod.uid;
            prop_assert!(
                waiting.insert(uid),
                "placed twice: {}",
                placement.attempt.key
            );
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever happened in whatever order, a pod that still waits in the end is one for
    /// which a scheduler that sees everything for the first time finds no node either: no
    /// change that helps is missed, and nothing counts that is not there.
    #[test]
    fn nobody_waits_who_could_run(steps in prop::collection::vec(happens(), 0..60)) {
        let mut story = Story { world: World::new(), under_way: Vec::new() };
        for step in &steps {
            story.step(step);
            story.check_room()?;
        }
        story.settle();
        prop_assert!(story.under_way.is_empty());
        let mut fresh = Scheduler::new(vec![Profile::default()]);
        for ((kind, _), own) in &story.world.objects {
            let change = Change { kind: *kind, before: None, after: Some(own.clone()) };
            fresh.hear(&change, at(story.world.now_s));
        }
        while let Some(decision) = fresh.next(at(story.world.now_s)) {
            if let Decision::Place(placement) = decision {
                return Err(TestCaseError::fail(format!(
                    "{} waits, though {} will do",
                    placement.attempt.key, placement.chosen.node
                )));
            }
        }
    }
}
