//! The status of disruption budgets, by which evictions are allowed, and the pods that were
//! to be disrupted and were not.
//! <https://kubernetes.io/docs/concepts/workloads/pods/disruptions/>
//!
//! Invariants
//! - What can't be counted allows no disruption.
//! - A pod that an eviction was charged for counts as gone for [`DELETION_TIMEOUT_S`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use nautilus_machinery::conditions;
use nautilus_machinery::selector::LabelSelector;
use nautilus_machinery::timestamp::Instant;
use serde_json::{Map, Value, json};

use crate::controller::{Change, Controller};
use crate::kind::{self, Kind};
use crate::object;
use crate::plan::{Plan, Write};
use crate::pods::{self, Rounding};
use crate::view::{Key, Question, Target, View, Within};

pub(crate) const ACCOUNT: &str = "disruption-controller";
/// Who its Events come from.
pub(crate) const COMPONENT: &str = "controllermanager";
/// Seconds that an eviction has to delete its pod.
const DELETION_TIMEOUT_S: i64 = 120;
/// Seconds after which a pod that is to be disrupted, and still is not deleted, stays.
const STALE_AFTER_S: i64 = 120;

/// The status of budgets. A key is a budget.
pub struct Budgets;

impl Controller for Budgets {
    fn name(&self) -> &'static str {
        ACCOUNT
    }

    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn follows(&self) -> &'static [Kind] {
        &[
            kind::DISRUPTION_BUDGETS,
            kind::PODS,
            kind::REPLICATION_CONTROLLERS,
            kind::REPLICA_SETS,
            kind::DEPLOYMENTS,
            kind::STATEFUL_SETS,
        ]
    }

    fn concerns(&self, view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        if change.kind == kind::DISRUPTION_BUDGETS {
            keys.push(Key::of(change.object()));
            return;
        }
        if change.kind != kind::PODS || !is_counted_anew(change) {
            return;
        }
        let namespace = object::namespace(change.object());
        for budget in view.list(kind::DISRUPTION_BUDGETS, Within::Namespace(namespace)) {
            if let Some(selector) = selector(&budget)
                && change.versions().any(|pod| selector.matches(pod))
            {
                keys.push(Key::of(&budget));
            }
        }
    }

    fn asks(&self, view: &dyn View, key: &Key) -> Vec<Question> {
        let budget = view.get(kind::DISRUPTION_BUDGETS, &key.namespace, &key.name);
        let Some(budget) = budget.filter(|budget| needs_scale(budget)) else {
            return Vec::new();
        };
        let mut questions: Vec<Question> = selected(view, &budget)
            .iter()
            .filter_map(|pod| {
                let owner = object::controller(pod)?;
                known_scale(view, &key.namespace, owner)
                    .is_none()
                    .then(|| question(&key.namespace, owner))
            })
            .collect();
        questions.sort();
        questions.dedup();
        questions
    }

    fn reconcile(&self, view: &dyn View, key: &Key, now: Instant) -> Plan {
        let mut plan = Plan::default();
        let budget = view.get(kind::DISRUPTION_BUDGETS, &key.namespace, &key.name);
        let Some(budget) = budget else {
            return plan;
        };
        let pods = selected(view, &budget);
        let mut told = Vec::new();
        if pods.is_empty() {
            let message = "No matching pods found".to_owned();
            told.push(Write::event(
                kind::DISRUPTION_BUDGETS,
                &budget,
                "NoPods",
                message,
            ));
        }
        let status = match expected(view, &budget, &pods) {
            Ok(expected) => {
                if expected.has_unmanaged {
                    told.push(warn_of_unmanaged(&budget));
                }
                let disrupted = disrupted(&budget, &pods, now, &mut told);
                if let Some(end) = disrupted.values().map(|since| ends(*since)).min() {
                    let left = u64::try_from(end - now.seconds).unwrap_or_default();
                    plan.again(Duration::from_secs(left + 1));
                }
                counted(&budget, &pods, &expected, &disrupted, now)
            }
            Err(why) => {
                told.push(Write::warning(
                    kind::DISRUPTION_BUDGETS,
                    &budget,
                    "CalculateExpectedPodCountFailed",
                    format!("Failed to calculate the number of expected pods: {why}"),
                ));
                refused(&budget, &why, now)
            }
        };
        if status != budget["status"] {
            let mut next = object::identity(&budget);
            next["status"] = status;
            plan.then(Write::status(kind::DISRUPTION_BUDGETS, next));
        }
        plan.together(told);
        plan
    }
}

/// Whether a pod's change may change what is counted of it.
pub(crate) fn is_counted_anew(change: &Change) -> bool {
    let (Some(before), Some(after)) = (&change.before, &change.after) else {
        return true;
    };
    let counts = |pod: &Value| {
        (
            pod["metadata"]["labels"].clone(),
            pod["metadata"]["ownerReferences"].clone(),
            object::is_ready(pod),
            object::is_deleted(pod),
        )
    };
    counts(before) != counts(after)
}

/// Which pods a budget is for; `None`: no pod.
pub(crate) fn selector(budget: &Value) -> Option<LabelSelector> {
    let selector = &budget["spec"]["selector"];
    selector
        .is_object()
        .then(|| LabelSelector::of_object(selector).ok())?
}

fn selected(view: &dyn View, budget: &Value) -> Vec<Arc<Value>> {
    let Some(selector) = selector(budget) else {
        return Vec::new();
    };
    let mut pods = view.list(kind::PODS, Within::Namespace(object::namespace(budget)));
    pods.retain(|pod| selector.matches(pod));
    pods
}

/// Whether it takes more than the pods that there are to say how many there should be.
fn needs_scale(budget: &Value) -> bool {
    let spec = &budget["spec"];
    !spec["maxUnavailable"].is_null() || spec["minAvailable"].is_string()
}

/// The uid and the scale of a pod's controller, where the view has it: of a replica set's
/// deployment, that one's.
fn known_scale(view: &dyn View, namespace: &str, owner: &Value) -> Option<(String, i64)> {
    let text = |field: &str| owner[field].as_str().unwrap_or_default();
    let group = text("apiVersion")
        .split_once('/')
        .map_or("", |(group, _)| group);
    let kind = match (group, text("kind")) {
        ("", "ReplicationController") => kind::REPLICATION_CONTROLLERS,
        ("apps" | "extensions", "ReplicaSet") => kind::REPLICA_SETS,
        ("apps", "StatefulSet") => kind::STATEFUL_SETS,
        ("apps" | "extensions", "Deployment") => kind::DEPLOYMENTS,
        _ => return None,
    };
    let found = view.get(kind, namespace, text("name"))?;
    if object::uid(&found) != text("uid") {
        return None;
    }
    if kind == kind::REPLICA_SETS
        && let Some(deployment) = object::controller(&found)
        && deployment["kind"] == "Deployment"
    {
        return known_scale(view, namespace, deployment);
    }
    let replicas = found["spec"]["replicas"].as_i64().unwrap_or(1);
    Some((object::uid(&found).to_owned(), replicas))
}

fn question(namespace: &str, owner: &Value) -> Question {
    let text = |field: &str| owner[field].as_str().unwrap_or_default().to_owned();
    Question::Scale(Target {
        api_version: text("apiVersion"),
        kind: text("kind"),
        namespace: namespace.to_owned(),
        name: text("name"),
    })
}

/// How many pods there should be, and how many of them healthy.
struct Expected {
    pods: i64,
    healthy: i64,
    has_unmanaged: bool,
}

fn expected(view: &dyn View, budget: &Value, pods: &[Arc<Value>]) -> Result<Expected, String> {
    let spec = &budget["spec"];
    let nonsense = |part: &Value| format!("invalid value for IntOrString: {part}");
    if !needs_scale(budget) {
        let healthy = spec["minAvailable"].as_i64();
        return Ok(Expected {
            pods: healthy.map_or(0, |_| i64::try_from(pods.len()).unwrap_or(i64::MAX)),
            healthy: healthy.unwrap_or_default(),
            has_unmanaged: false,
        });
    }
    let (total, has_unmanaged) = scale(view, budget, pods)?;
    let part = |part: &Value| pods::scaled(part, total, Rounding::Up).ok_or_else(|| nonsense(part));
    let healthy = match &spec["maxUnavailable"] {
        Value::Null => part(&spec["minAvailable"])?,
        most => (total - part(most)?).max(0),
    };
    Ok(Expected {
        pods: total,
        healthy,
        has_unmanaged,
    })
}

/// The scales of all controllers of the pods together, and whether pods have none.
fn scale(view: &dyn View, budget: &Value, pods: &[Arc<Value>]) -> Result<(i64, bool), String> {
    let namespace = object::namespace(budget);
    let mut scales: BTreeMap<String, i64> = BTreeMap::new();
    // Those whose scale is known already, by their own uid.
    let mut known: BTreeMap<&str, ()> = BTreeMap::new();
    let mut has_unmanaged = false;
    for pod in pods {
        let Some(owner) = object::controller(pod) else {
            has_unmanaged = true;
            continue;
        };
        let uid = owner["uid"].as_str().unwrap_or_default();
        if known.insert(uid, ()).is_some() {
            continue;
        }
        let scale = match known_scale(view, namespace, owner) {
            Some(scale) => Some(scale),
            None => asked_scale(view, namespace, owner)?,
        };
        let none = || format!("found no controllers for pod {:?}", object::name(pod));
        let (uid, replicas) = scale.ok_or_else(none)?;
        scales.insert(uid, replicas);
    }
    Ok((scales.values().sum(), has_unmanaged))
}

fn asked_scale(
    view: &dyn View,
    namespace: &str,
    owner: &Value,
) -> Result<Option<(String, i64)>, String> {
    match view.answer(&question(namespace, owner)) {
        Some(Ok(scale)) => {
            let replicas = scale["spec"]["replicas"].as_i64().unwrap_or_default();
            let is_same = scale["metadata"]["uid"] == owner["uid"];
            Ok(is_same.then(|| (object::uid(scale).to_owned(), replicas)))
        }
        Some(Err((404, message))) if !message.ends_with("not found") => Err(message.clone()),
        None | Some(Err((404, _))) => Ok(None),
        Some(Err((_, message))) => Err(message.clone()),
    }
}

/// When a pod that an eviction was charged for counts again.
fn ends(since: Instant) -> i64 {
    since.seconds.saturating_add(DELETION_TIMEOUT_S)
}

/// The pods that evictions were charged for and that are yet to be deleted.
fn disrupted(
    budget: &Value,
    pods: &[Arc<Value>],
    now: Instant,
    told: &mut Vec<Write>,
) -> BTreeMap<String, Instant> {
    let charged = &budget["status"]["disruptedPods"];
    let mut left = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !object::is_deleted(pod)) {
        let name = object::name(pod);
        let Some(since) = charged.get(name).and_then(object::time) else {
            continue;
        };
        if ends(since) < now.seconds {
            let namespace = object::namespace(budget);
            let message = format!(
                "Pod was expected by PDB {namespace}/{namespace} to be deleted but it wasn't"
            );
            told.push(Write::warning(kind::PODS, pod, "NotDeleted", message));
        } else {
            left.insert(name.to_owned(), since);
        }
    }
    left
}

fn counted(
    budget: &Value,
    pods: &[Arc<Value>],
    expected: &Expected,
    disrupted: &BTreeMap<String, Instant>,
    now: Instant,
) -> Value {
    let is_healthy = |pod: &&Arc<Value>| {
        let goes = disrupted
            .get(object::name(pod))
            .is_some_and(|since| ends(*since) > now.seconds);
        !object::is_deleted(pod) && !goes && object::is_ready(pod)
    };
    let healthy = pods.iter().filter(is_healthy).count();
    let healthy = i64::try_from(healthy).unwrap_or(i64::MAX);
    let allowed = match expected.pods > 0 {
        true => (healthy - expected.healthy).max(0),
        false => 0,
    };
    let mut status = json!({
        "currentHealthy": healthy,
        "desiredHealthy": expected.healthy,
        "disruptionsAllowed": allowed,
        "expectedPods": expected.pods,
    });
    if !disrupted.is_empty() {
        let times = disrupted
            .iter()
            .map(|(name, since)| (name.clone(), object::time_field(*since)));
        status["disruptedPods"] = times.collect::<Map<_, _>>().into();
    }
    let generation = &budget["metadata"]["generation"];
    if !generation.is_null() {
        status["observedGeneration"] = generation.clone();
    }
    let (state, reason) = match allowed > 0 {
        true => ("True", "SufficientPods"),
        false => ("False", "InsufficientPods"),
    };
    let before = &budget["status"]["conditions"];
    if before.is_array() {
        status["conditions"] = before.clone();
    }
    set_condition(&mut status, state, reason, "", now);
    status
}

/// The status of a budget that can't be counted.
fn refused(budget: &Value, why: &str, now: Instant) -> Value {
    let mut status = budget["status"].clone();
    if !status.is_object() {
        status = json!({"currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
    }
    status["disruptionsAllowed"] = 0.into();
    set_condition(&mut status, "False", "SyncFailed", why, now);
    status
}

fn set_condition(status: &mut Value, state: &str, reason: &str, message: &str, now: Instant) {
    let mut condition = json!({
        "type": "DisruptionAllowed",
        "status": state,
        "reason": reason,
        "message": message,
        "lastTransitionTime": object::time_field(now),
    });
    let observed = &status["observedGeneration"];
    if !observed.is_null() {
        condition["observedGeneration"] = observed.clone();
    }
    conditions::set(status, &condition);
}

fn warn_of_unmanaged(budget: &Value) -> Write {
    let message = format!(
        "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a \
         result, the status of the PDB cannot be calculated correctly, which may result in \
         undefined behavior. To account for these pods please set \".spec.minAvailable\" field of \
         the PDB to an integer value.",
        written_selector(&budget["spec"]["selector"])
    );
    Write::warning(kind::DISRUPTION_BUDGETS, budget, "UnmanagedPods", message)
}

/// A selector as the reference's messages have it.
fn written_selector(selector: &Value) -> String {
    let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
    let mut written = "&LabelSelector{MatchLabels:map[string]string{".to_owned();
    let labels = selector["matchLabels"].as_object();
    let labels: BTreeMap<&String, &Value> = labels.into_iter().flatten().collect();
    for (label, value) in labels {
        // Writing to a string never fails.
        let _ = write!(written, "{label}: {},", text(value));
    }
    written.push_str("},MatchExpressions:[]LabelSelectorRequirement{");
    for own in object::items(&selector["matchExpressions"]) {
        let values: Vec<String> = object::items(&own["values"]).map(text).collect();
        let _ = write!(
            written,
            "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{}],}},",
            text(&own["key"]),
            text(&own["operator"]),
            values.join(" ")
        );
    }
    written.push_str("},}");
    written
}

/// Pods that were to be disrupted, and were not. A key is a pod.
pub struct StaleDisruptions;

impl Controller for StaleDisruptions {
    fn name(&self) -> &'static str {
        ACCOUNT
    }

    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn follows(&self) -> &'static [Kind] {
        &[kind::PODS]
    }

    fn concerns(&self, _view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        if let Some(pod) = &change.after
            && stale_from(pod).is_some()
        {
            keys.push(Key::of(pod));
        }
    }

    fn reconcile(&self, view: &dyn View, key: &Key, now: Instant) -> Plan {
        let mut plan = Plan::default();
        let pod = view.get(kind::PODS, &key.namespace, &key.name);
        let Some((pod, from)) = pod.and_then(|pod| stale_from(&pod).map(|from| (pod, from))) else {
            return plan;
        };
        match u64::try_from(from - now.seconds) {
            Ok(left) if left > 0 => plan.again(Duration::from_secs(left)),
            _ => {
                let condition = json!({"type": pods::DISRUPTION_TARGET, "status": "False"});
                plan.then(pods::set_condition(&pod, condition, now));
            }
        }
        plan
    }
}

/// From when on a pod's being a target of a disruption is stale, in Unix seconds.
fn stale_from(pod: &Value) -> Option<i64> {
    let target = object::condition(pod, pods::DISRUPTION_TARGET)?;
    let is_stale = target["status"] == "True"
        && target["reason"] != "TerminationByKubelet"
        && object::is_active(pod);
    let since = object::time(&target["lastTransitionTime"])?;
    is_stale.then(|| since.seconds.saturating_add(STALE_AFTER_S))
}

#[cfg(test)]
#[path = "disruption_tests.rs"]
mod tests;
