//! Tables of nodes with room for some units, and pods that take units.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::at;

/// Nodes that hold `capacity` units each.
struct Units {
    capacity: i64,
    nodes: Vec<Vec<Arc<PodInfo>>>,
    wanted: i64,
}

impl Room for Units {
    fn pods(&self, node: Slot) -> Vec<Arc<PodInfo>> {
        self.nodes[node as usize].clone()
    }

    fn take(&mut self, node: Slot, pod: &Arc<PodInfo>) {
        let at = self.nodes[node as usize]
            .iter()
            .position(|own| own.uid == pod.uid);
        self.nodes[node as usize].remove(at.expect("it is there"));
    }

    fn put(&mut self, node: Slot, pod: &Arc<PodInfo>) {
        self.nodes[node as usize].push(pod.clone());
    }

    fn fits(&mut self, node: Slot) -> Result<(), Vec<String>> {
        match self.used(node) + self.wanted <= self.capacity {
            true => Ok(()),
            false => Err(vec!["Insufficient cpu".to_owned()]),
        }
    }
}

impl Units {
    fn used(&self, node: Slot) -> i64 {
        let units = |pod: &Arc<PodInfo>| pod.object["spec"]["units"].as_i64().unwrap_or(0);
        self.nodes[node as usize].iter().map(units).sum()
    }

    fn all(&self) -> Vec<Slot> {
        (0..self.nodes.len() as Slot).collect()
    }
}

/// Name, priority, units, seconds at which it started.
type Pod = (&'static str, i32, i64, i64);

fn object((name, priority, units, started_s): Pod) -> Value {
    json!({
        "metadata": {"namespace": "n", "name": name, "uid": name, "labels": {"name": name}},
        "spec": {"priority": priority, "units": units},
        "status": {"startTime": object::time_field(at(started_s))},
    })
}

fn read(pod: Value) -> Arc<PodInfo> {
    Arc::new(PodInfo::new(Arc::new(pod)))
}

fn preemptor() -> PodInfo {
    PodInfo::new(Arc::new(json!({"spec": {"priority": 100}})))
}

fn room(wanted: i64, nodes: &[&[Pod]]) -> Units {
    let pods = |own: &&[Pod]| own.iter().copied().map(|pod| read(object(pod))).collect();
    Units {
        capacity: 10,
        nodes: nodes.iter().map(pods).collect(),
        wanted,
    }
}

fn budget(names: &[&str], allowed: i64) -> Value {
    json!({
        "metadata": {"namespace": "n"},
        "spec": {"selector": {"matchExpressions": [
            {"key": "name", "operator": "In", "values": names},
        ]}},
        "status": {"disruptionsAllowed": allowed},
    })
}

fn preempt(room: &mut Units, budgets: &[Value]) -> Preemption {
    let preemptor = preemptor();
    let wants = Preemptor {
        pod: &preemptor,
        nominated: None,
    };
    let (nodes, all) = (room.all(), room.nodes.len());
    wants.preempt(room, &nodes, all, &Budgets::of(budgets), 0, at(1000))
}

/// The node that is chosen, its victims, and how many budgets that breaks.
fn chosen(room: &mut Units, budgets: &[Value]) -> (Slot, Vec<String>, usize) {
    match preempt(room, budgets) {
        Preemption::Found(found) => {
            let names = found.victims.iter().map(|pod| pod.name.clone());
            (found.node, names.collect(), found.violations)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_as_many_go_as_must_and_the_least_important_ones() {
    for (wanted, pods, victims) in [
        (5, &[("a", 1, 5, 0), ("b", 2, 5, 0)][..], &["a"][..]),
        // The one that ran for longer stays.
        (5, &[("a", 1, 5, 7), ("b", 1, 5, 3)], &["a"]),
        (6, &[("a", 1, 5, 7), ("b", 1, 5, 3)], &["b", "a"]),
        // One that is small comes back though others go.
        (
            8,
            &[("a", 1, 5, 0), ("b", 1, 1, 0), ("c", 2, 4, 0)],
            &["c", "a"],
        ),
        // Nobody as important as the pod goes.
        (5, &[("a", 100, 5, 0), ("b", 99, 5, 0)], &["b"]),
    ] {
        let mut room = room(wanted, &[pods]);
        let found = chosen(&mut room, &[]);
        assert_eq!(
            found,
            (0, victims.iter().map(|own| (*own).to_owned()).collect(), 0)
        );
    }
}

#[test]
fn what_a_budget_protects_comes_back_first() {
    let pods: &[Pod] = &[("a", 1, 5, 0), ("b", 2, 5, 0)];
    for (budgets, victims, violations) in [
        (vec![budget(&["a"], 0)], "b", 0),
        (vec![budget(&["a"], 1)], "a", 0),
        (vec![budget(&["a", "b"], 0)], "a", 1),
        // It may lose one, and the most important is counted first.
        (vec![budget(&["a", "b"], 1)], "b", 0),
        (vec![budget(&["a"], 0), budget(&["b"], 0)], "a", 1),
    ] {
        let mut room = room(5, &[pods]);
        let found = chosen(&mut room, &budgets);
        assert_eq!(
            found,
            (0, vec![victims.to_owned()], violations),
            "{budgets:?}"
        );
    }
}

#[test]
fn a_budget_that_let_a_pod_go_is_not_asked_again() {
    let mut own = budget(&["a"], 0);
    own["status"]["disruptedPods"] = json!({"a": "2027-01-15T08:00:00Z"});
    let mut room = room(5, &[&[("a", 1, 5, 0), ("b", 2, 5, 0)]]);
    assert_eq!(chosen(&mut room, &[own]), (0, vec!["a".to_owned()], 0));
}

#[test]
fn the_node_is_chosen_by_each_criterion_in_its_turn() {
    for (nodes, budgets, expected) in [
        // Budgets.
        (
            [&[("a", 1, 9, 0)][..], &[("b", 9, 9, 0)][..]],
            vec![budget(&["a"], 0)],
            1,
        ),
        // The most important victim.
        (
            [&[("a", 9, 9, 0)], &[("b", 1, 4, 0), ("c", 8, 5, 0)]],
            vec![],
            1,
        ),
        // The sum of priorities, in which fewer victims weigh less.
        (
            [&[("a", 5, 5, 0), ("b", -9, 5, 0)], &[("c", 5, 9, 0)]],
            vec![],
            1,
        ),
        (
            [
                &[("a", 5, 5, 0), ("b", 4, 5, 0)],
                &[("c", 5, 5, 0), ("d", 3, 5, 0)],
            ],
            vec![],
            1,
        ),
        // The time of running: of the most important ones alone.
        ([&[("a", 5, 9, 3)], &[("b", 5, 9, 7)]], vec![], 1),
        (
            [
                &[("a", 5, 5, 7), ("b", 4, 5, 1)],
                &[("c", 5, 5, 3), ("d", 4, 5, 9)],
            ],
            vec![],
            0,
        ),
        // The first.
        ([&[("a", 5, 9, 3)], &[("b", 5, 9, 3)]], vec![], 0),
    ] {
        let mut room = room(6, &nodes);
        assert_eq!(chosen(&mut room, &budgets).0, expected, "{nodes:?}");
    }
}

#[test]
fn nodes_where_no_room_can_be_made_say_why() {
    let mut full = room(
        6,
        &[&[("a", 100, 9, 0)], &[("b", 200, 5, 0), ("c", 1, 5, 0)]],
    );
    let preemptor = preemptor();
    let wants = Preemptor {
        pod: &preemptor,
        nominated: None,
    };
    let nodes = full.all();
    let outcome = wants.preempt(&mut full, &nodes, 5, &Budgets::of([]), 0, at(0));
    assert_eq!(
        outcome.message(|_| String::new()),
        "preemption: 0/5 nodes are available: 1 Insufficient cpu, 1 No preemption victims found \
         for incoming pod, 3 Preemption is not helpful for scheduling."
    );
    let mut found = room(6, &[&[("a", 1, 9, 0)]]);
    assert_eq!(
        preempt(&mut found, &[]).message(|node| format!("n{node}")),
        "preemption: found a potential placement for pod on node n0, preempting 1 victims"
    );
}

#[test]
fn who_may_not_or_need_not_preempts_nobody() {
    let ending = |reason: &str| {
        let mut own = object(("a", 1, 9, 0));
        own["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z".into();
        let why = json!([{"type": "DisruptionTarget", "status": "True", "reason": reason}]);
        own["status"]["conditions"] = why;
        read(own)
    };
    let waits = "not eligible due to a terminating pod on the nominated node.";
    for (policy, nominated, reason, expected) in [
        (
            "Never",
            None,
            "",
            Some("not eligible due to preemptionPolicy=Never."),
        ),
        (
            "PreemptLowerPriority",
            Some(0),
            "PreemptionByScheduler",
            Some(waits),
        ),
        ("PreemptLowerPriority", None, "PreemptionByScheduler", None),
        (
            "PreemptLowerPriority",
            Some(0),
            "EvictionByEvictionAPI",
            None,
        ),
    ] {
        let mut room = room(6, &[&[]]);
        room.nodes[0].push(ending(reason));
        let preemptor = json!({"spec": {"priority": 100, "preemptionPolicy": policy}});
        let preemptor = PodInfo::new(Arc::new(preemptor));
        let wants = Preemptor {
            pod: &preemptor,
            nominated,
        };
        let outcome = wants.preempt(&mut room, &[0], 1, &Budgets::of([]), 0, at(0));
        match (outcome, expected) {
            (Preemption::NotEligible(why), Some(expected)) => assert_eq!(why, expected),
            (Preemption::Found(_), None) => {}
            (other, _) => panic!("{policy} {reason}: {other:?}"),
        }
    }
}

#[test]
fn enough_candidates_end_the_search() {
    let node: &[Pod] = &[("a", 5, 9, 0)];
    let mut nodes = vec![node; 299];
    nodes.push(&[("b", 1, 9, 0)]);
    let mut many = room(6, &nodes);
    let all = many.all();
    let preemptor = preemptor();
    let wants = Preemptor {
        pod: &preemptor,
        nominated: None,
    };
    for (offset, expected) in [(0, 0), (150, 150), (250, 299)] {
        let outcome = wants.preempt(&mut many, &all, 300, &Budgets::of([]), offset, at(0));
        assert!(
            matches!(&outcome, Preemption::Found(found) if found.node == expected),
            "{offset}: {outcome:?}"
        );
    }
}

proptest! {
    #[test]
    fn the_room_is_left_as_it_was_and_no_victim_could_stay(
        pods in prop::collection::vec((-2..120i32, 1..6i64, 0..5i64), 0..8),
        wanted in 1..10i64,
        protected in 0..4i64,
    ) {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let pods: Vec<Pod> = pods
            .into_iter()
            .zip(names)
            .map(|((priority, units, started), name)| (name, priority, units, started))
            .collect();
        let mut tried = room(wanted, &[&pods]);
        let before = tried.used(0);
        let budgets = [budget(&["a", "b", "c"], protected)];
        let outcome = preempt(&mut tried, &budgets);
        prop_assert_eq!(tried.used(0), before);
        if let Preemption::Found(found) = outcome {
            found.victims.iter().for_each(|pod| tried.take(0, pod));
            prop_assert!(tried.fits(0).is_ok());
            for victim in &found.victims {
                prop_assert!(victim.priority < 100);
                tried.put(0, victim);
                prop_assert!(tried.fits(0).is_err(), "{} could stay", victim.name);
                tried.take(0, victim);
            }
        }
    }
}
