//! Which pods go first when there are too many.
//!
//! Invariant: the order is total. What the reference leaves to chance (pods whose ages
//! are of the same magnitude) is settled by what it asks next, and at last by uid.
//!
//! Source: `ActivePodsWithRanks` of `pkg/controller/controller_utils.go`, v1.37.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use nautilus_machinery::timestamp::Instant;
use serde_json::Value;

use crate::object;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` of pods that are least missed. `related` are the pods beside which they
/// are crowded on a node.
pub(super) fn first_to_go(
    pods: &[Arc<Value>],
    count: usize,
    related: impl FnOnce() -> Vec<Arc<Value>>,
    now: Instant,
) -> Vec<Arc<Value>> {
    let mut pods = pods.to_vec();
    if count == 0 || count >= pods.len() {
        pods.truncate(count);
        return pods;
    }
    let mut neighbors: BTreeMap<String, usize> = BTreeMap::new();
    for pod in related().iter().filter(|pod| object::is_active(pod)) {
        *neighbors.entry(node(pod).to_owned()).or_default() += 1;
    }
    pods.sort_by_cached_key(|pod| {
        let crowd = neighbors.get(node(pod)).copied().unwrap_or_default();
        rank(pod, crowd, now)
    });
    pods.truncate(count);
    pods
}

/// Greater is kept longer.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_assigned: bool,
    phase: u8,
    is_ready: bool,
    deletion_cost: i32,
    crowd: Reverse<usize>,
    ready_for: Option<u32>,
    restarts: Reverse<i64>,
    sidecar_restarts: Reverse<i64>,
    age: Option<u32>,
    uid: String,
}

fn rank(pod: &Value, crowd: usize, now: Instant) -> Rank {
    let ready = object::condition(pod, "Ready").filter(|own| own["status"] == "True");
    let ready_since = ready.and_then(|own| object::time(&own["lastTransitionTime"]));
    Rank {
        is_assigned: !node(pod).is_empty(),
        phase: match pod["status"]["phase"].as_str() {
            Some("Running") => 2,
            Some("Unknown") => 1,
            _ => 0,
        },
        is_ready: ready.is_some(),
        deletion_cost: deletion_cost(pod),
        crowd: Reverse(crowd),
        ready_for: magnitude(ready_since, now),
        restarts: Reverse(most_restarts(&pod["status"]["containerStatuses"], |_| true)),
        sidecar_restarts: Reverse(sidecar_restarts(pod)),
        age: magnitude(object::created(pod), now),
        uid: object::uid(pod).to_owned(),
    }
}

fn node(pod: &Value) -> &str {
    pod["spec"]["nodeName"].as_str().unwrap_or_default()
}

/// What the pod's annotation says it costs to remove it; 0 for nothing that is a number in
/// its plain form.
fn deletion_cost(pod: &Value) -> i32 {
    let text = object::annotation(pod, DELETION_COST).unwrap_or_default();
    let is_plain =
        text == "0" || text.starts_with(['-', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
    let cost = text.parse().ok();
    cost.filter(|_| is_plain).unwrap_or_default()
}

/// The binary magnitude of the time since then; none where it is not known.
fn magnitude(since: Option<Instant>, now: Instant) -> Option<u32> {
    let since = since?;
    let nanoseconds =
        |at: Instant| i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanoseconds);
    let elapsed = nanoseconds(now) - nanoseconds(since);
    Some(elapsed.checked_ilog2().map_or(0, |magnitude| magnitude + 1))
}

fn sidecar_restarts(pod: &Value) -> i64 {
    let is_sidecar = |name: &Value| {
        object::items(&pod["spec"]["initContainers"])
            .any(|own| own["restartPolicy"] == "Always" && &own["name"] == name)
    };
    most_restarts(&pod["status"]["initContainerStatuses"], is_sidecar)
}

fn most_restarts(statuses: &Value, counts: impl Fn(&Value) -> bool) -> i64 {
    let counted = object::items(statuses).filter(|own| counts(&own["name"]));
    let restarts = counted.map(|own| object::number(&own["restartCount"]));
    restarts.max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::time_field;
    use crate::testing::at;
    use nautilus_machinery::patch;
    use serde_json::json;

    fn pod(change: &Value) -> Value {
        let mut pod = json!({
            "metadata": {"uid": "m", "creationTimestamp": time_field(at(0))},
            "spec": {"nodeName": "a", "initContainers": [
                {"name": "setup"}, {"name": "proxy", "restartPolicy": "Always"},
            ]},
            "status": {
                "phase": "Running",
                "conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": time_field(at(10))},
                ],
                "containerStatuses": [{"name": "c", "restartCount": 1}],
            },
        });
        patch::merge(&mut pod, change);
        pod
    }

    fn ready_since(seconds: i64) -> Value {
        let since = time_field(at(seconds));
        json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": since},
        ]}})
    }

    fn cost(text: &str) -> Value {
        json!({"metadata": {"annotations": {DELETION_COST: text}}})
    }

    #[test]
    fn each_rule_decides_before_the_next() {
        let worse_in_all_that_follows = [
            json!({"spec": {"nodeName": null}}),
            json!({"status": {"phase": "Pending"}}),
            json!({"status": {"phase": "Unknown"}}),
            json!({"status": {"conditions": null}}),
            cost("-5"),
            cost("-4"),
            ready_since(99),
            json!({"status": {"containerStatuses": [{"name": "c", "restartCount": 9}]}}),
            json!({"status": {"initContainerStatuses": [{"name": "proxy", "restartCount": 9}]}}),
            json!({"metadata": {"creationTimestamp": null}}),
            json!({"metadata": {"creationTimestamp": time_field(at(99))}}),
            json!({"metadata": {"uid": "a"}}),
            json!({}),
        ];
        let ranks: Vec<Rank> = worse_in_all_that_follows
            .iter()
            .map(|change| rank(&pod(change), 1, at(100)))
            .collect();
        assert!(ranks.is_sorted(), "{ranks:#?}");
        for pair in ranks.windows(2) {
            assert_ne!(pair[0], pair[1]);
        }
    }

    #[test]
    fn only_the_magnitude_of_ages_counts() {
        let rank = |change: &Value| rank(&pod(change), 0, at(100));
        assert_eq!(rank(&ready_since(20)), rank(&ready_since(30)));
        assert!(rank(&ready_since(90)) < rank(&ready_since(30)));
        assert!(rank(&ready_since(200)) < rank(&ready_since(99)));
    }

    #[test]
    fn costs_are_numbers_in_their_plain_form() {
        for (text, expected) in [
            ("7", 7),
            ("-7", -7),
            ("0", 0),
            ("+7", 0),
            ("07", 0),
            ("", 0),
            ("many", 0),
            ("3000000000", 0),
        ] {
            assert_eq!(deletion_cost(&pod(&cost(text))), expected, "{text}");
        }
    }

    #[test]
    fn restarts_of_what_only_sets_up_do_not_count() {
        let statuses = |name: &str| {
            pod(&json!({"status": {"initContainerStatuses": [{"name": name, "restartCount": 9}]}}))
        };
        assert_eq!(sidecar_restarts(&statuses("setup")), 0);
        assert_eq!(sidecar_restarts(&statuses("proxy")), 9);
    }

    #[test]
    fn the_crowded_go_before_the_lonely() {
        let on = |uid: &str, node: &str| {
            Arc::new(pod(
                &json!({"metadata": {"uid": uid}, "spec": {"nodeName": node}}),
            ))
        };
        let pods = [on("1", "a"), on("2", "b"), on("3", "b")];
        let mut related = pods.to_vec();
        let mut gone = pod(&json!({"spec": {"nodeName": "a"}}));
        gone["metadata"]["deletionTimestamp"] = time_field(at(0));
        related.extend([Arc::new(gone.clone()), Arc::new(gone)]);
        let uids = |count: usize| -> Vec<String> {
            let gone = first_to_go(&pods, count, || related.clone(), at(100));
            gone.iter().map(|pod| object::uid(pod).to_owned()).collect()
        };
        assert_eq!(uids(0), [""; 0]);
        assert_eq!(uids(1), ["2"]);
        assert_eq!(uids(2), ["2", "3"]);
        assert_eq!(uids(3), ["1", "2", "3"]);
    }
}
