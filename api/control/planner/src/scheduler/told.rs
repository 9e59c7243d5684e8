//! What pods are told of decisions: conditions, nominations and Events, in the words of
//! kube-scheduler.

use nautilus_machinery::timestamp::Instant;
use serde_json::{Value, json};

use super::decide::{Placement, Wait};
use super::pod::PodInfo;
use crate::kind::PODS;
use crate::object;
use crate::plan::{Event, Write};
use crate::pods::{self, DISRUPTION_TARGET};

/// Why a pod has no node, as a condition's reason says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No node will do.
    Unschedulable,
    /// One would, but something failed.
    SchedulerError,
}

/// A pod that was given a node.
pub fn scheduled(placement: &Placement) -> Event {
    let PodInfo {
        object,
        namespace,
        name,
        ..
    } = &*placement.attempt.pod;
    Event {
        regarding: object::reference(PODS, object),
        warning: false,
        reason: "Scheduled",
        message: format!(
            "Successfully assigned {namespace}/{name} to {}",
            placement.chosen.node
        ),
    }
}

/// A pod that was given none.
pub fn not_scheduled(pod: &PodInfo, message: &str) -> Event {
    Event {
        regarding: object::reference(PODS, &pod.object),
        warning: true,
        reason: "FailedScheduling",
        message: message.to_owned(),
    }
}

/// A pod that is on its way out.
pub fn skipped(pod: &PodInfo) -> Event {
    let message = format!("skip schedule deleting pod: {}", pod.key());
    not_scheduled(pod, &message)
}

/// A pod that goes for another one.
pub fn preempted(victim: &PodInfo, wait: &Wait) -> Event {
    let node = wait.nominated.as_deref().unwrap_or_default();
    Event {
        regarding: object::reference(PODS, &victim.object),
        warning: false,
        reason: "Preempted",
        message: format!("Preempted by pod {} on node {node}", wait.attempt.pod.uid),
    }
}

/// The status of a pod without a node, where it says something else: why, and which node is
/// being made free for it (empty: none; `None`: as it is). What was said late, of a pod that has
/// got one since, counts no more.
pub fn unscheduled(
    seen: &Value,
    reason: Reason,
    message: &str,
    nominated: Option<&str>,
    now: Instant,
) -> Option<Write> {
    let node = seen["spec"]["nodeName"].as_str().unwrap_or_default();
    if !node.is_empty() {
        return None;
    }
    let reason = match reason {
        Reason::Unschedulable => "Unschedulable",
        Reason::SchedulerError => "SchedulerError",
    };
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
    });
    status(seen, &condition, nominated, now)
}

/// The status of a pod that goes for another one, where it does not say so yet.
pub fn disrupted(seen: &Value, scheduler_name: &str, now: Instant) -> Option<Write> {
    let message = format!("{scheduler_name}: preempting to accommodate a higher priority pod");
    let condition = json!({
        "type": DISRUPTION_TARGET, "status": "True", "reason": "PreemptionByScheduler",
        "message": message,
    });
    status(seen, &condition, None, now)
}

/// No node is being made free for a pod any more.
pub fn displaced(seen: &Value) -> Option<Write> {
    nomination(seen, "").map(|nominated| {
        let patch = json!({"status": {"nominatedNodeName": nominated}});
        Write::patch_status(PODS, seen, patch)
    })
}

/// The change of a status, in the version that was seen: it holds all conditions.
fn status(seen: &Value, condition: &Value, nominated: Option<&str>, now: Instant) -> Option<Write> {
    let kind = condition["type"].as_str().unwrap_or_default();
    let says = object::condition(seen, kind).is_some_and(|own| {
        let mut fields = ["status", "reason", "message"].into_iter();
        fields.all(|field| own[field] == condition[field])
    });
    let nominated = nominated.and_then(|node| nomination(seen, node));
    if says && nominated.is_none() {
        return None;
    }
    let mut changed = json!({"conditions": seen["status"]["conditions"]});
    if !says {
        let status = pods::with_condition(seen, condition.clone(), now);
        changed["conditions"] = status["conditions"].clone();
    }
    if let Some(node) = nominated {
        changed["nominatedNodeName"] = node;
    }
    let version = &seen["metadata"]["resourceVersion"];
    let patch = json!({"metadata": {"resourceVersion": version}, "status": changed});
    Some(Write::patch_status(PODS, seen, patch))
}

/// `nominatedNodeName` in a patch, where it is another; null takes it away.
fn nomination(seen: &Value, node: &str) -> Option<Value> {
    let own = seen["status"]["nominatedNodeName"].as_str();
    let wanted = Some(node).filter(|own| !own.is_empty());
    (own.filter(|own| !own.is_empty()) != wanted).then(|| wanted.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    fn pod(status: &Value) -> Value {
        json!({
            "metadata": {"namespace": "n", "name": "a", "uid": "u", "resourceVersion": "7",
                "generation": 3},
            "status": status,
        })
    }

    fn patch(write: Option<Write>) -> Value {
        match write {
            Some(Write::Patch { patch, .. }) => patch,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pod_is_told_once_why_it_has_no_node() {
        let tell = |seen: &Value, message: &str, nominated: Option<&str>| {
            unscheduled(seen, Reason::Unschedulable, message, nominated, at(9))
        };
        let other = json!({"type": "Other", "status": "True"});
        let before = pod(&json!({"conditions": [other]}));
        let told = patch(tell(&before, "no", Some("")));
        assert_eq!(
            told,
            json!({"metadata": {"resourceVersion": "7"}, "status": {"conditions": [other, {
                "type": "PodScheduled", "observedGeneration": 3, "status": "False",
                "lastTransitionTime": object::time_field(at(9)),
                "reason": "Unschedulable", "message": "no",
            }]}})
        );
        let after = pod(&told["status"]);
        assert_eq!(tell(&after, "no", None), None);
        assert_eq!(tell(&after, "no", Some("")), None);
        let nominated = patch(tell(&after, "no", Some("node")));
        assert_eq!(nominated["status"]["nominatedNodeName"], "node");
        assert_eq!(
            nominated["status"]["conditions"],
            after["status"]["conditions"]
        );
        assert!(tell(&after, "why", None).is_some());
        let mut bound = after;
        bound["spec"]["nodeName"] = "node".into();
        assert_eq!(tell(&bound, "why", None), None);
    }

    #[test]
    fn a_nomination_ends_where_there_is_one() {
        assert_eq!(displaced(&pod(&json!({}))), None);
        let own = pod(&json!({"nominatedNodeName": "node"}));
        let patch = patch(displaced(&own));
        assert_eq!(patch, json!({"status": {"nominatedNodeName": null}}));
    }
}
