//! The pods of DaemonSets: each is for one node, and tolerates what befalls nodes.

use std::time::Duration;

use nautilus_machinery::timestamp::Instant;
use serde_json::{Value, json};

use crate::kind::DAEMON_SETS;
use crate::object;
use crate::pods;

/// The label that says of which revision's template a pod is.
pub(super) const HASH: &str = "controller-revision-hash";
const GENERATION: &str = "pod-template-generation";
const SET_GENERATION: &str = "deprecated.daemonset.template.generation";
const NODE_NAME: &str = "metadata.name";
/// How many pods failed on the node in a row before this one.
const FAILURES: &str = "nautilus.io/daemon-failures";

/// The first pod that fails is replaced at once; the next after this, the next after twice
/// that ...
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// ... and at last after this.
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);
/// A pod that lived for this long failed of another reason than those before it.
const FORGOTTEN_AFTER_S: i64 = 30 * 60;

const NODE_TROUBLES: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_TROUBLE: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// A pod's spec with the tolerations that every pod of a DaemonSet has.
pub(super) fn tolerant(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let own = object::items(&spec["tolerations"]).cloned();
    let mut tolerations: Vec<Value> = own.collect();
    let is_on_host = spec["hostNetwork"] == true;
    let troubles = NODE_TROUBLES.into_iter();
    for (key, effect) in troubles.chain(is_on_host.then_some(NETWORK_TROUBLE)) {
        let wanted = json!({"key": key, "operator": "Exists", "effect": effect});
        let is_same = |own: &Value| {
            ["key", "operator", "effect"]
                .iter()
                .all(|field| own[*field] == wanted[*field])
                && own["value"].as_str().unwrap_or_default().is_empty()
        };
        match tolerations.iter_mut().find(|own| is_same(own)) {
            Some(own) => *own = wanted,
            None => tolerations.push(wanted),
        }
    }
    spec["tolerations"] = tolerations.into();
    spec
}

/// A new pod for a node.
pub(super) fn on_node(set: &Value, hash: &str, node: &str, failures: u32) -> Value {
    let mut pod = pods::from_template(DAEMON_SETS, set, &set["spec"]["template"]);
    pod["spec"] = tolerant(&pod["spec"]);
    let required = &mut pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    *required = json!({"nodeSelectorTerms": [
        {"matchFields": [{"key": NODE_NAME, "operator": "In", "values": [node]}]},
    ]});
    let labels = &mut pod["metadata"]["labels"];
    if let Some(generation) = generation(set) {
        labels[GENERATION] = generation.to_string().into();
    }
    labels[HASH] = hash.into();
    if failures > 0 {
        pod["metadata"]["annotations"][FAILURES] = failures.to_string().into();
    }
    pod
}

fn generation(set: &Value) -> Option<i64> {
    object::annotation(set, SET_GENERATION)?.parse().ok()
}

/// Whether a pod is of the set's present template.
pub(super) fn is_updated(pod: &Value, set: &Value, hash: &str) -> bool {
    let of_generation = || {
        let own = object::label(pod, GENERATION);
        generation(set).is_some_and(|number| own == Some(&number.to_string()))
    };
    object::label(pod, HASH) == Some(hash) || of_generation()
}

/// Whether a pod is on its node.
pub(super) fn is_bound(pod: &Value) -> bool {
    pod["spec"]["nodeName"]
        .as_str()
        .is_some_and(|name| !name.is_empty())
}

/// The node a pod is on, or for.
pub(super) fn node_of(pod: &Value) -> Option<&str> {
    if is_bound(pod) {
        return pod["spec"]["nodeName"].as_str();
    }
    let required =
        &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let terms = object::items(&required["nodeSelectorTerms"]);
    let mut fields = terms.flat_map(|term| object::items(&term["matchFields"]));
    let named = fields.find(|own| own["key"] == NODE_NAME && own["operator"] == "In")?;
    let mut names = object::items(&named["values"]);
    let name = names.next().and_then(Value::as_str);
    name.filter(|_| names.next().is_none())
}

/// Those on their nodes come first, and then the oldest.
pub(super) fn age(pod: &Value) -> (bool, i64, String) {
    let created = object::created(pod).map_or(i64::MIN, |at| at.seconds);
    (!is_bound(pod), created, object::name(pod).to_owned())
}

/// How many pods failed in a row before this one.
pub(super) fn failures(pod: &Value, now: Instant) -> u32 {
    let age_s = object::created(pod).map_or(0, |at| now.seconds - at.seconds);
    let noted = object::annotation(pod, FAILURES).and_then(|text| text.parse().ok());
    noted
        .filter(|_| age_s < FORGOTTEN_AFTER_S)
        .unwrap_or_default()
}

/// How long a pod that failed is left alone yet.
pub(super) fn pause(pod: &Value, now: Instant) -> Option<Duration> {
    let doublings = failures(pod, now).checked_sub(1)?;
    let pause = FIRST_PAUSE.checked_mul(2_u32.saturating_pow(doublings));
    let pause = pause.map_or(LONGEST_PAUSE, |pause| pause.min(LONGEST_PAUSE));
    let age_s = now.seconds - object::created(pod)?.seconds;
    let left = pause.checked_sub(Duration::from_secs(
        u64::try_from(age_s).unwrap_or_default(),
    ));
    left.filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::time_field;
    use crate::testing::at;

    #[test]
    fn a_pod_is_for_its_node_and_endures_its_troubles() {
        let set = json!({
            "metadata": {"namespace": "n", "name": "agent", "uid": "1",
                "annotations": {SET_GENERATION: "3"}},
            "spec": {"template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {
                    "affinity": {"podAffinity": {}, "nodeAffinity": {
                        "preferredDuringSchedulingIgnoredDuringExecution": [],
                        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
                        ]},
                    }},
                    "tolerations": [
                        {"key": "node.kubernetes.io/not-ready", "operator": "Exists",
                            "effect": "NoExecute", "tolerationSeconds": 5},
                        {"key": "own"},
                    ],
                },
            }},
        });
        let pod = on_node(&set, "abc", "node-1", 0);
        let expected = json!({"app": "agent", GENERATION: "3", HASH: "abc"});
        assert_eq!(pod["metadata"]["labels"], expected);
        assert_eq!(pod["metadata"].get("annotations"), None);
        assert_eq!(node_of(&pod), Some("node-1"));
        assert!(!is_bound(&pod) && is_updated(&pod, &set, "abc") && is_updated(&pod, &set, "x"));
        let affinity = &pod["spec"]["affinity"];
        assert!(affinity["podAffinity"].is_object());
        let node = &affinity["nodeAffinity"];
        assert!(node["preferredDuringSchedulingIgnoredDuringExecution"].is_array());
        let tolerations: Vec<&Value> = object::items(&pod["spec"]["tolerations"]).collect();
        assert_eq!(tolerations.len(), 7);
        let endless = json!({"key": "node.kubernetes.io/not-ready", "operator": "Exists",
            "effect": "NoExecute"});
        assert_eq!(tolerations[0], &endless);
        assert_eq!(tolerations[1], &json!({"key": "own"}));
        let pod = on_node(&set, "abc", "node-1", 2);
        assert_eq!(pod["metadata"]["annotations"], json!({FAILURES: "2"}));
    }

    #[test]
    fn a_pod_is_on_the_node_it_was_bound_to() {
        let mut pod = on_node(&json!({}), "abc", "node-1", 0);
        pod["spec"]["nodeName"] = "node-2".into();
        assert_eq!(node_of(&pod), Some("node-2"));
        assert_eq!(node_of(&json!({})), None);
        let two = json!({"spec": {"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchFields": [{"key": NODE_NAME, "operator": "In", "values": ["a", "b"]}]},
            ]},
        }}}});
        assert_eq!(node_of(&two), None);
    }

    #[test]
    fn pauses_double_and_are_forgotten() {
        let pod = |failures: &str| {
            json!({"metadata": {
                "creationTimestamp": time_field(at(0)),
                "annotations": {FAILURES: failures},
            }})
        };
        for (failures, now_s, expected_s) in [
            ("0", 0, None),
            ("1", 0, Some(1)),
            ("1", 1, None),
            ("4", 3, Some(5)),
            ("11", 0, Some(900)),
            ("4000000000", 0, Some(900)),
            ("11", 899, Some(1)),
            ("11", 1800, None),
            ("x", 0, None),
        ] {
            let left = pause(&pod(failures), at(now_s)).map(|left| left.as_secs());
            assert_eq!(left, expected_s, "{failures} {now_s}");
        }
        assert_eq!(failures(&pod("11"), at(1799)), 11);
        assert_eq!(failures(&pod("11"), at(1800)), 0);
    }
}
