//! Pods as their owners make and count them.

use std::time::Duration;

use nautilus_machinery::conditions;
use nautilus_machinery::timestamp::Instant;
use serde_json::{Map, Value, json};

use crate::kind::{self, Kind};
use crate::object;
use crate::plan::{Failed, NAME, Write};

/// Bytes of a name, at most.
const MAX_NAME_BYTES: usize = 253;

/// Pods that are made at once, at most.
pub const BATCH_PODS: usize = 500;

/// A pod of `owner` from a template, to be named by the server.
pub fn from_template(owners: Kind, owner: &Value, template: &Value) -> Value {
    let mut metadata = Map::new();
    metadata.insert("namespace".to_owned(), object::namespace(owner).into());
    let prefix = name_prefix(object::name(owner));
    metadata.insert("generateName".to_owned(), prefix.into());
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"].get(field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let owners = json!([object::controller_reference(owners, owner)]);
    metadata.insert("ownerReferences".to_owned(), owners);
    json!({"metadata": metadata, "spec": template["spec"]})
}

/// What the names of an owner's pods begin with: its own, with a dash where that fits.
pub fn name_prefix(owner: &str) -> String {
    let dash = if owner.len() < MAX_NAME_BYTES {
        "-"
    } else {
        ""
    };
    format!("{owner}{dash}")
}

/// A pod to be made, of which `owner`'s events tell.
pub fn create(owner_kind: Kind, owner: &Value, pod: Value) -> Write {
    let message = format!("Created pod: {NAME}");
    Write::create(kind::PODS, pod).told(owner_kind, owner, "SuccessfulCreate", message)
}

/// A pod to be removed, of which `owner`'s events tell.
pub fn delete(owner_kind: Kind, owner: &Value, pod: &Value) -> Write {
    let message = format!("Deleted pod: {}", object::name(pod));
    Write::delete(kind::PODS, pod).told(owner_kind, owner, "SuccessfulDelete", message)
}

/// What a pod that could not be made or removed means to its owner.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// `FailedCreate`, `FailedDelete`.
    pub reason: &'static str,
    /// For a condition.
    pub message: String,
    /// For people.
    pub event: Write,
}

/// Reads a failure to make or remove a pod. `None` for another write, and where the
/// namespace is on its way out: nothing could be made there anyway.
pub fn failure(owner_kind: Kind, owner: &Value, failed: &Failed) -> Option<Failure> {
    if failed.namespace_ends {
        return None;
    }
    let why = &failed.message;
    let (reason, message, told) = match &failed.write {
        Write::Create { kind, .. } if *kind == kind::PODS => (
            "FailedCreate",
            why.clone(),
            format!("Error creating: {why}"),
        ),
        Write::Delete(delete) if delete.kind == kind::PODS => (
            "FailedDelete",
            format!("unable to delete pods: {why}"),
            format!("Error deleting: {why}"),
        ),
        _ => return None,
    };
    Some(Failure {
        reason,
        message,
        event: Write::warning(owner_kind, owner, reason, told),
    })
}

/// How long until the first of the pods that are ready, but for less than
/// `min_ready_seconds`, is available.
pub fn until_available<'a>(
    pods: impl IntoIterator<Item = &'a Value>,
    min_ready_seconds: i64,
    now: Instant,
) -> Option<Duration> {
    let waits = pods.into_iter().filter_map(|pod| {
        let ready = object::condition(pod, "Ready").filter(|own| own["status"] == "True")?;
        let since = object::time(&ready["lastTransitionTime"])?;
        let left = since.seconds.saturating_add(min_ready_seconds) - now.seconds;
        u64::try_from(left).ok().filter(|left| *left > 0)
    });
    waits.min().map(Duration::from_secs)
}

/// A number, or a percentage of `total`: `rounded` up or down. Nothing for nonsense.
pub fn scaled(part: &Value, total: i64, rounded: Rounding) -> Option<i64> {
    if let Some(number) = part.as_i64() {
        return Some(number);
    }
    let percent: i64 = part.as_str()?.strip_suffix('%')?.parse().ok()?;
    let hundredths = percent.checked_mul(total)?;
    Some(match rounded {
        Rounding::Down => hundredths.div_euclid(100),
        Rounding::Up => hundredths.checked_add(99)?.div_euclid(100),
    })
}

/// The condition of a pod that is about to be disrupted.
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// Sets a condition of a pod that was seen, in the version that was seen; its time moves with
/// its status alone.
pub fn set_condition(pod: &Value, condition: Value, now: Instant) -> Write {
    let status = with_condition(pod, condition, now);
    let version = &pod["metadata"]["resourceVersion"];
    let patch = json!({
        "metadata": {"resourceVersion": version},
        "status": {"conditions": status["conditions"]},
    });
    Write::patch_status(kind::PODS, pod, patch)
}

/// A pod's status with a condition as it is set at `now`.
pub fn with_condition(pod: &Value, mut condition: Value, now: Instant) -> Value {
    condition["lastTransitionTime"] = object::time_field(now);
    let generation = &pod["metadata"]["generation"];
    if !generation.is_null() {
        condition["observedGeneration"] = generation.clone();
    }
    let mut status = pod["status"].clone();
    conditions::set(&mut status, &condition);
    status
}

/// What becomes of the part of a pod in a percentage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// It is left out.
    Down,
    /// It counts whole.
    Up,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    #[test]
    fn percentages_are_rounded_as_asked() {
        for (part, total, down, up) in [
            (json!(3), 10, Some(3), Some(3)),
            (json!("25%"), 10, Some(2), Some(3)),
            (json!("50%"), 10, Some(5), Some(5)),
            (json!("x"), 10, None, None),
        ] {
            assert_eq!(scaled(&part, total, Rounding::Down), down, "{part}");
            assert_eq!(scaled(&part, total, Rounding::Up), up, "{part}");
        }
    }

    #[test]
    fn the_next_pod_to_be_available_is_waited_for() {
        let ready = |since: i64, status: &str| {
            let since = object::time_field(at(since));
            json!({"status": {"conditions": [
                {"type": "Ready", "status": status, "lastTransitionTime": since},
            ]}})
        };
        let pods = [
            ready(0, "True"),
            ready(7, "True"),
            ready(5, "True"),
            ready(4, "False"),
        ];
        let wait = |now: i64| until_available(&pods, 10, at(now));
        assert_eq!(wait(9), Some(Duration::from_secs(1)));
        assert_eq!(wait(10), Some(Duration::from_secs(5)));
        assert_eq!(wait(17), None);
    }

    fn owner() -> Value {
        json!({"metadata": {"namespace": "n", "name": "web", "uid": "1"}})
    }

    #[test]
    fn a_pod_is_what_the_template_says() {
        let template = json!({
            "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}, "finalizers": ["e/f"],
                "name": "ignored"},
            "spec": {"containers": [{"name": "c"}]},
        });
        let pod = from_template(kind::REPLICA_SETS, &owner(), &template);
        let expected = json!({
            "metadata": {
                "namespace": "n",
                "generateName": "web-",
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "1",
                    "controller": true, "blockOwnerDeletion": true,
                }],
                "labels": {"a": "b"}, "annotations": {"c": "d"}, "finalizers": ["e/f"],
            },
            "spec": {"containers": [{"name": "c"}]},
        });
        assert_eq!(pod, expected);
        let longest = "a".repeat(MAX_NAME_BYTES);
        assert_eq!(name_prefix(&longest), longest);
        assert_eq!(name_prefix(&longest[1..]), format!("{}-", &longest[1..]));
    }

    #[test]
    fn failures_are_told_in_the_words_people_know() {
        let pod = json!({"metadata": {"namespace": "n", "name": "p", "uid": "2"}});
        let failed = |write, namespace_ends| Failed {
            write,
            code: 403,
            reason: "Forbidden".to_owned(),
            message: "pods \"web-\" is forbidden".to_owned(),
            namespace_ends,
        };
        let read = |failed: &Failed| {
            failure(kind::REPLICA_SETS, &owner(), failed).map(|own| {
                let Write::Event(event) = own.event else {
                    panic!("no event")
                };
                assert!(event.warning && event.reason == own.reason);
                (own.message, event.message)
            })
        };
        let create = Write::create(kind::PODS, pod.clone());
        let (message, told) = read(&failed(create.clone(), false)).expect("it is a failure");
        assert_eq!(message, "pods \"web-\" is forbidden");
        assert_eq!(told, "Error creating: pods \"web-\" is forbidden");
        let (message, told) =
            read(&failed(Write::delete(kind::PODS, &pod), false)).expect("it is a failure");
        assert_eq!(message, "unable to delete pods: pods \"web-\" is forbidden");
        assert_eq!(told, "Error deleting: pods \"web-\" is forbidden");
        assert_eq!(read(&failed(create, true)), None);
        assert_eq!(read(&failed(Write::create(kind::JOBS, pod), false)), None);
    }
}
