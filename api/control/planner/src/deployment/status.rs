//! The status of a Deployment: counts, and how far its rollout has come.

use std::time::Duration;

use nautilus_machinery::timestamp::Instant;
use serde_json::{Value, json};

use super::has_progress_deadline;
use super::rollout::Rollout;
use super::set::ReplicaSet;
use crate::object;

/// A look at a rollout that may be stuck comes this much after its deadline.
const GRACE: Duration = Duration::from_secs(1);

const PROGRESSING: &str = "Progressing";
const PROGRESSED: &str = "ReplicaSetUpdated";
const DONE: &str = "NewReplicaSetAvailable";
const LATE: &str = "ProgressDeadlineExceeded";
const FAILURE: &str = "ReplicaFailure";

/// A condition as of now.
pub(super) fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Instant,
) -> Value {
    json!({
        "type": kind,
        "status": status,
        "lastUpdateTime": object::time_field(now),
        "lastTransitionTime": object::time_field(now),
        "reason": reason,
        "message": message,
    })
}

/// Sets a condition, unless its status and reason stand there already. It comes last.
pub(super) fn set_condition(status: &mut Value, mut condition: Value) {
    let kind = condition["type"].as_str().unwrap_or_default().to_owned();
    let own = object::items(&status["conditions"]).find(|own| own["type"] == condition["type"]);
    if let Some(own) = own
        && own["status"] == condition["status"]
    {
        if own["reason"] == condition["reason"] {
            return;
        }
        condition["lastTransitionTime"] = own["lastTransitionTime"].clone();
    }
    object::remove_condition(status, &kind);
    match status.get_mut("conditions").and_then(Value::as_array_mut) {
        Some(list) => list.push(condition),
        None => status["conditions"] = json!([condition]),
    }
}

/// Whether all pods are of the newest template and available, and no others are left.
pub(super) fn is_complete(deployment: &Value, status: &Value) -> bool {
    let wanted = super::replicas(deployment);
    ["updatedReplicas", "replicas", "availableReplicas"]
        .iter()
        .all(|field| object::number(&status[*field]) == wanted)
        && object::number(&status["observedGeneration"])
            >= object::number(&deployment["metadata"]["generation"])
}

/// The counts, and whether enough pods are available.
pub(super) fn counted(rollout: &Rollout<'_>) -> Value {
    let deployment = &rollout.next;
    let mut status = deployment["status"].clone();
    let sum = |field: &str| rollout.sets().map(|set| set.count(field)).sum::<i64>();
    let available = sum("availableReplicas");
    for (field, count) in [
        (
            "observedGeneration",
            object::number(&deployment["metadata"]["generation"]),
        ),
        ("replicas", sum("replicas")),
        (
            "updatedReplicas",
            rollout.new.iter().map(|set| set.count("replicas")).sum(),
        ),
        ("readyReplicas", sum("readyReplicas")),
        ("availableReplicas", available),
        ("unavailableReplicas", (rollout.total() - available).max(0)),
    ] {
        object::set_count(&mut status, field, count);
    }
    match terminating(rollout) {
        Some(count) if status["terminatingReplicas"] == count => {}
        Some(count) => status["terminatingReplicas"] = count.into(),
        None => {
            if let Some(fields) = status.as_object_mut() {
                fields.remove("terminatingReplicas");
            }
        }
    }
    let is_enough = available >= rollout.replicas() - rollout.max_unavailable();
    let (answer, reason, message) = match is_enough {
        true => (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        ),
        false => (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        ),
    };
    set_condition(
        &mut status,
        condition("Available", answer, reason, message, rollout.now),
    );
    status
}

/// Unknown while a set that was looked at does not say how many pods are on their way out.
fn terminating(rollout: &Rollout<'_>) -> Option<i64> {
    let of_set = |set: &ReplicaSet| match set.next["status"]["terminatingReplicas"].as_i64() {
        None if set.count("observedGeneration") == 0 => Some(0),
        count => count,
    };
    rollout.sets().map(of_set).sum()
}

/// The same with the progress of the rollout.
pub(super) fn judged(rollout: &Rollout<'_>) -> Value {
    let deployment = &rollout.next;
    let mut status = counted(rollout);
    if !has_progress_deadline(deployment) {
        object::remove_condition(&mut status, PROGRESSING);
    } else if let Some(progress) = progress(rollout, &status) {
        if progress["reason"] == PROGRESSED {
            // Said again, it is as of now.
            object::remove_condition(&mut status, PROGRESSING);
        }
        set_condition(&mut status, progress);
    }
    match failure(rollout) {
        Some(failure) => set_condition(&mut status, failure),
        None => object::remove_condition(&mut status, FAILURE),
    }
    status
}

/// What is to be said of the progress; nothing new: `None`.
fn progress(rollout: &Rollout<'_>, status: &Value) -> Option<Value> {
    let deployment = &rollout.next;
    let current = object::condition(deployment, PROGRESSING);
    let reason = current.and_then(|own| own["reason"].as_str());
    let is_done = reason == Some(DONE);
    if is_done && object::number(&status["replicas"]) == object::number(&status["updatedReplicas"])
    {
        return None;
    }
    let name = match &rollout.new {
        Some(set) => format!("ReplicaSet {:?}", set.name()),
        None => format!("Deployment {:?}", object::name(deployment)),
    };
    let say = |answer: &str, reason: &str, message: String| {
        condition(PROGRESSING, answer, reason, &message, rollout.now)
    };
    if is_complete(deployment, status) {
        let message = format!("{name} has successfully progressed.");
        return Some(say("True", DONE, message));
    }
    if has_progressed(&deployment["status"], status) {
        let mut next = say("True", PROGRESSED, format!("{name} is progressing."));
        if let Some(current) = current.filter(|own| own["status"] == "True") {
            next["lastTransitionTime"] = current["lastTransitionTime"].clone();
        }
        return Some(next);
    }
    let is_late = !is_done && left(deployment, rollout.now).is_some_and(|left| left < 0);
    (is_late || reason == Some(LATE)).then(|| {
        let message = format!("{name} has timed out progressing.");
        say("False", LATE, message)
    })
}

fn has_progressed(before: &Value, after: &Value) -> bool {
    let of = |status: &Value, field: &str| object::number(&status[field]);
    let old = |status: &Value| of(status, "replicas") - of(status, "updatedReplicas");
    old(after) < old(before)
        || ["updatedReplicas", "readyReplicas", "availableReplicas"]
            .iter()
            .any(|field| of(after, field) > of(before, field))
}

/// Nanoseconds until the deadline for progress, counted from the last.
fn left(deployment: &Value, now: Instant) -> Option<i128> {
    let progress = object::condition(deployment, PROGRESSING)?;
    let since = object::time(&progress["lastUpdateTime"])?;
    let deadline_s = object::number(&deployment["spec"]["progressDeadlineSeconds"]);
    let nanoseconds =
        |at: Instant| i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanoseconds);
    let deadline = i128::from(deadline_s) * 1_000_000_000;
    Some(nanoseconds(since) + deadline - nanoseconds(now))
}

/// When to look again whether the rollout is stuck: `status` is what becomes of that of
/// `deployment`.
pub(super) fn next_check(deployment: &Value, status: &Value, now: Instant) -> Option<Duration> {
    let next = json!({"spec": deployment["spec"], "status": status});
    let progress = object::condition(&next, PROGRESSING)?;
    if progress["reason"] == LATE
        || progress["reason"] == DONE
        || !has_progress_deadline(deployment)
        || is_complete(deployment, status)
    {
        return None;
    }
    let left = u64::try_from(left(&next, now)?.max(0)).ok()?;
    Some(Duration::from_nanos(left) + GRACE)
}

/// A failure of the new set, or else of an old one.
fn failure(rollout: &Rollout<'_>) -> Option<Value> {
    let sets = rollout.new.iter().chain(&rollout.old);
    let mut failures = sets.filter_map(|set| object::condition(&set.next, FAILURE));
    failures.next().map(|own| {
        json!({
            "type": FAILURE,
            "status": own["status"],
            "lastUpdateTime": own["lastTransitionTime"],
            "lastTransitionTime": own["lastTransitionTime"],
            "reason": own["reason"],
            "message": own["message"],
        })
    })
}
