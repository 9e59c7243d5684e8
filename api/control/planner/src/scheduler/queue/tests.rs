//! A queue, step by step and in any order of steps.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::at;

fn read(pod: Value) -> Arc<PodInfo> {
    Arc::new(PodInfo::new(Arc::new(pod)))
}

fn object(name: &str, priority: i32) -> Value {
    json!({
        "metadata": {"namespace": "n", "name": name, "uid": format!("uid-{name}")},
        "spec": {"priority": priority},
    })
}

fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
    read(object(name, priority))
}

fn gated(name: &str) -> Arc<PodInfo> {
    let mut pod = object(name, 0);
    pod["spec"]["schedulingGates"] = json!([{"name": "g"}]);
    read(pod)
}

fn key(name: &str) -> Key {
    Key::new("n", name)
}

fn fit() -> Plugins {
    [Plugin::NodeResourcesFit].into_iter().collect()
}

impl Queue {
    fn next(&mut self, now_s: i64) -> Option<String> {
        self.pop(at(now_s)).map(|attempt| attempt.key.name)
    }

    /// Pops a pod that is turned away.
    fn turn_away(&mut self, now_s: i64) -> Attempt {
        let attempt = self.pop(at(now_s)).expect("one waits");
        self.reject(&attempt, fit(), at(now_s));
        attempt
    }

    fn node_changes(&mut self, now_s: i64) {
        self.hear(fit(), at(now_s), "NodeAdd", |_, _| true);
    }
}

#[test]
fn the_more_important_and_then_the_older_is_next() {
    let mut queue = Queue::default();
    for (name, priority, at_s) in [("a", 0, 2), ("b", 0, 1), ("c", 5, 3), ("d", -1, 0)] {
        queue.add(pod(name, priority), at(at_s));
    }
    let order: Vec<_> = std::iter::from_fn(|| queue.next(9)).collect();
    assert_eq!(order, ["c", "b", "a", "d"]);
}

#[test]
fn a_pod_turned_away_waits_for_a_change_that_may_help() {
    let mut queue = Queue::default();
    queue.add(pod("a", 0), at(0));
    queue.turn_away(0);
    assert_eq!(queue.lengths().unschedulable, 1);
    assert_eq!(queue.rejected_by(Plugin::NodeResourcesFit), 1);
    assert_eq!(queue.next(100), None);
    let ports = [Plugin::NodePorts].into_iter().collect();
    queue.hear(ports, at(100), "NodeAdd", |_, _| true);
    queue.hear(fit(), at(100), "NodeAdd", |_, _| false);
    assert_eq!(queue.next(100), None);
    queue.node_changes(100);
    assert_eq!(queue.next(100).as_deref(), Some("a"));
    assert_eq!(queue.rejected_by(Plugin::NodeResourcesFit), 0);
}

#[test]
fn while_others_wait_the_backoff_doubles_up_to_ten_seconds() {
    let mut queue = Queue::default();
    queue.add(pod("a", 9), at(0));
    let mut now_s = 0;
    for backoff_s in [1, 2, 4, 8, 10, 10] {
        queue.turn_away(now_s);
        queue.add(pod("other", 0), at(now_s));
        queue.node_changes(now_s);
        assert_eq!(queue.lengths().backoff, 1);
        assert_eq!(queue.next(now_s + backoff_s - 1).as_deref(), Some("other"));
        queue.add(pod("other", 0), at(now_s));
        now_s += backoff_s;
        queue.flush(at(now_s));
        assert_eq!(queue.lengths().active, 2);
        queue.remove(&key("other"));
    }
}

#[test]
fn a_queue_that_is_idle_does_not_wait_for_a_backoff() {
    let mut queue = Queue::default();
    queue.add(pod("a", 0), at(0));
    queue.turn_away(0);
    queue.node_changes(0);
    assert_eq!(queue.next(0).as_deref(), Some("a"));
}

#[test]
fn a_pod_whose_attempt_failed_waits_for_its_backoff_and_then_comes_by_itself() {
    let mut queue = Queue::default();
    queue.add(pod("a", 0), at(0));
    let attempt = queue.pop(at(0)).expect("a");
    queue.fail(&attempt, at(0));
    assert_eq!(queue.next(0), None);
    assert_eq!(queue.due(), Some(at(1)));
    assert_eq!(queue.next(1).as_deref(), Some("a"));
}

#[test]
fn a_decision_forgets_failures() {
    let mut queue = Queue::default();
    queue.add(pod("a", 0), at(0));
    for now_s in [0, 1, 3] {
        let attempt = queue.pop(at(now_s)).expect("its backoff is over");
        queue.fail(&attempt, at(now_s));
    }
    queue.turn_away(7);
    queue.add(pod("b", 0), at(7));
    queue.node_changes(7);
    queue.flush(at(8));
    assert_eq!(queue.lengths().active, 2);
}

#[test]
fn nobody_waits_for_more_than_five_minutes() {
    let mut queue = Queue::default();
    queue.add(pod("a", 0), at(0));
    queue.turn_away(0);
    assert_eq!(queue.due(), Some(at(300)));
    assert_eq!(queue.next(299), None);
    assert_eq!(queue.next(300).as_deref(), Some("a"));
}

#[test]
fn a_pod_with_gates_waits_until_they_are_gone() {
    let mut queue = Queue::default();
    queue.add(gated("a"), at(0));
    assert_eq!(queue.lengths().gated, 1);
    assert_eq!(queue.next(1000), None);
    queue.update(pod("a", 0), at(1000), "TargetPodUpdate", |_| false);
    assert_eq!(queue.lengths().gated, 0);
    assert_eq!(queue.next(1000).as_deref(), Some("a"));
}

#[test]
fn a_pod_that_changes_is_looked_at_again_if_that_undoes_a_rejection() {
    let mut queue = Queue::default();
    queue.add(pod("a", 0), at(0));
    queue.turn_away(0);
    queue.update(pod("a", 0), at(9), "TargetPodUpdate", |_| false);
    assert_eq!(queue.next(9), None);
    queue.update(pod("a", 0), at(9), "TargetPodUpdate", |plugin| {
        plugin == Plugin::NodeResourcesFit
    });
    assert_eq!(queue.next(9).as_deref(), Some("a"));
}

#[test]
fn another_pod_of_the_same_name_is_another_pod() {
    let mut queue = Queue::default();
    queue.add(pod("a", 0), at(0));
    let attempt = queue.pop(at(0)).expect("a");
    let mut other = object("a", 0);
    other["metadata"]["uid"] = "other".into();
    queue.update(read(other), at(0), "TargetPodUpdate", |_| false);
    queue.fail(&attempt, at(0));
    let next = queue.pop(at(0)).expect("the other is not in flight");
    assert_eq!((next.number, next.pod.uid.as_str()), (1, "other"));
}

#[test]
fn a_pod_that_is_held_misses_no_change() {
    for (changes, at_once, expected) in [
        (false, false, None),
        (true, false, Some("a")),
        (false, true, Some("a")),
    ] {
        let mut queue = Queue::default();
        queue.add(pod("a", 0), at(0));
        queue.turn_away(0);
        queue.hold(&key("a"));
        if changes {
            queue.node_changes(50);
        }
        assert_eq!(queue.next(200), None, "it is held");
        queue.release(&key("a"), at_once, at(200));
        assert_eq!(queue.next(200).as_deref(), expected);
    }
}

/// What may happen to one of three pods.
#[derive(Debug, Clone, Copy)]
enum Happens {
    Add(u8),
    AddGated(u8),
    Ungate(u8),
    Remove(u8),
    TurnAway,
    Fail,
    Place,
    Hold(u8),
    Release(u8),
    Helps,
    Passes(i64),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        (0..3u8).prop_map(Happens::Add),
        (0..3u8).prop_map(Happens::AddGated),
        (0..3u8).prop_map(Happens::Ungate),
        (0..3u8).prop_map(Happens::Remove),
        Just(Happens::TurnAway),
        Just(Happens::Fail),
        Just(Happens::Place),
        (0..3u8).prop_map(Happens::Hold),
        (0..3u8).prop_map(Happens::Release),
        Just(Happens::Helps),
        (0..20i64).prop_map(Happens::Passes),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_each_pod_is_in_one_place_and_comes_out_in_the_end(
        story in prop::collection::vec(happens(), 0..60),
    ) {
        let mut queue = Queue::default();
        let mut there: BTreeMap<String, bool> = BTreeMap::new();
        let mut now_s = 0;
        let name = |number: u8| format!("p{number}");
        for step in story {
            let now = at(now_s);
            match step {
                Happens::Add(number) => {
                    queue.add(pod(&name(number), i32::from(number)), now);
                    there.insert(name(number), true);
                }
                Happens::AddGated(number) => {
                    queue.add(gated(&name(number)), now);
                    there.insert(name(number), false);
                }
                Happens::Ungate(number) => {
                    if there.contains_key(&name(number)) {
                        queue.update(pod(&name(number), 0), now, "TargetPodUpdate", |_| false);
                        there.insert(name(number), true);
                    }
                }
                Happens::Remove(number) => {
                    queue.remove(&key(&name(number)));
                    there.remove(&name(number));
                }
                Happens::TurnAway | Happens::Fail | Happens::Place => {
                    let Some(attempt) = queue.pop(now) else { continue };
                    prop_assert_eq!(there.get(&attempt.key.name), Some(&true));
                    match step {
                        Happens::TurnAway => queue.reject(&attempt, fit(), now),
                        Happens::Fail => queue.fail(&attempt, now),
                        _ => {
                            queue.remove(&attempt.key);
                            there.remove(&attempt.key.name);
                        }
                    }
                }
                Happens::Hold(number) => queue.hold(&key(&name(number))),
                Happens::Release(number) => queue.release(&key(&name(number)), false, now),
                Happens::Helps => queue.node_changes(now_s),
                Happens::Passes(seconds) => now_s += seconds,
            }
            let Lengths { active, backoff, unschedulable, gated } = queue.lengths();
            prop_assert_eq!(active + backoff + unschedulable + gated, there.len());
            prop_assert!(queue.rejected_by(Plugin::NodeResourcesFit) <= unschedulable);
        }
        for number in 0..3 {
            queue.release(&key(&name(number)), false, at(now_s));
        }
        let mut out: Vec<String> = std::iter::from_fn(|| queue.next(now_s + 300)).collect();
        out.sort();
        let expected: Vec<String> = there.into_iter().filter_map(|(pod, free)| free.then_some(pod)).collect();
        prop_assert_eq!(out, expected);
    }
}
