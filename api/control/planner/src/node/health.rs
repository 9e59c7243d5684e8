//! Nodes that fall silent, and the taints that their conditions call for.
//! <https://kubernetes.io/docs/concepts/architecture/nodes/>
//!
//! Invariants
//! - A node is silent when neither its lease nor its `Ready` was renewed for
//!   [`GRACE_S`], as seen from here: a leader that is new to a node gives it the whole time.
//! - Pods of a node that is silent are not ready.
//! - A worker's node is looked at only where something follows for it: there are ten
//!   thousands of them, and their own face judges and announces them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nautilus_machinery::timestamp::Instant;
use serde_json::{Value, json};

use super::{ACCOUNT, is_workers, readiness, taints};
use crate::controller::{Change, Controller};
use crate::kind::{self, Kind};
use crate::object;
use crate::plan::{Plan, Write};
use crate::pods;
use crate::view::{Key, View, Within};

/// Where nodes' leases stand.
const LEASES: &str = "kube-node-lease";
/// Seconds that a node may be silent.
const GRACE_S: i64 = 50;
/// Seconds that a node has from its creation to say something.
const STARTUP_GRACE_S: i64 = 60;
/// Seconds after its creation in which a node is announced: by the first leader that sees
/// it, and not by each that comes.
const NEWS_S: i64 = 60;
/// What becomes `Unknown` when a node is silent.
const KUBELETS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions, the status that calls for a taint, and its key.
const CONDITION_TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", taints::NOT_READY),
    ("Ready", "Unknown", taints::UNREACHABLE),
    (
        "MemoryPressure",
        "True",
        "node.kubernetes.io/memory-pressure",
    ),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    (
        "NetworkUnavailable",
        "True",
        "node.kubernetes.io/network-unavailable",
    ),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];
/// Labels that follow others of the node.
const FOLLOWING_LABELS: [(&str, &str); 2] = [
    ("kubernetes.io/os", "beta.kubernetes.io/os"),
    ("kubernetes.io/arch", "beta.kubernetes.io/arch"),
];

/// The controller of nodes' conditions. A key is a node.
#[derive(Default)]
pub struct Health {
    /// As many as there are ordinary nodes. A new leader starts without any.
    heard: Mutex<BTreeMap<String, Heard>>,
}

/// The last sign of life of a node.
struct Heard {
    uid: String,
    /// When `Ready` was told and the lease renewed, by the node's clock.
    told: [Option<String>; 2],
    /// When that was first seen here.
    at: Instant,
}

impl Controller for Health {
    fn name(&self) -> &'static str {
        ACCOUNT
    }

    fn follows(&self) -> &'static [Kind] {
        &[kind::NODES, kind::LEASES, kind::PODS]
    }

    fn concerns(&self, view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        match change.kind {
            kind::NODES if concerns_nobody(change) => {}
            kind::NODES => keys.push(Key::of(change.object())),
            kind::LEASES if object::namespace(change.object()) == LEASES => {
                let name = object::name(change.object());
                let node = view.get(kind::NODES, "", name);
                if node.is_none_or(|node| !is_workers(&node)) {
                    keys.push(Key::new("", name));
                }
            }
            kind::PODS => {
                if let Some(pod) = &change.after
                    && object::is_ready(pod)
                    && let Some(node) = pod["spec"]["nodeName"].as_str()
                    && view
                        .get(kind::NODES, "", node)
                        .is_some_and(|node| readiness(&node) == Some("Unknown"))
                {
                    keys.push(Key::new("", node));
                }
            }
            _ => {}
        }
    }

    fn reconcile(&self, view: &dyn View, key: &Key, now: Instant) -> Plan {
        let mut plan = Plan::default();
        let Some(node) = view.get(kind::NODES, "", &key.name) else {
            plan.together(self.forget(&key.name).into_iter().collect());
            return plan;
        };
        if !is_workers(&node) {
            let lease = view.get(kind::LEASES, LEASES, &key.name);
            let (at, news) = self.listen(&node, lease.as_deref(), now);
            plan.together(news.into_iter().collect());
            let grace_s = match readiness(&node) {
                Some(_) => GRACE_S,
                None => STARTUP_GRACE_S,
            };
            match u64::try_from(at.seconds.saturating_add(grace_s) - now.seconds) {
                Ok(left) => plan.again(Duration::from_secs(left + 1)),
                Err(_) => {
                    if silence(&node, now, &mut plan) {
                        // The rest follows from what stands there then.
                        return plan;
                    }
                }
            }
        }
        if readiness(&node) == Some("Unknown") {
            mark_pods(view, &node, now, &mut plan);
        }
        plan.together(follow_up(&node, now).into_iter().collect());
        plan
    }
}

/// Whether a change is that of a worker's node for which nothing follows from it.
fn concerns_nobody(change: &Change) -> bool {
    let unknown = |node: &&Value| readiness(node) == Some("Unknown");
    let was_unknown = change.before.as_deref().filter(unknown).is_some();
    match change.after.as_deref() {
        Some(node) if is_workers(node) => {
            (was_unknown || !unknown(&node)) && wanted(node, Instant::default()).is_none()
        }
        Some(_) => false,
        None => change.before.as_deref().is_some_and(is_workers),
    }
}

impl Health {
    /// When a node last gave a sign of life; and that it is there, where that is news.
    fn listen(
        &self,
        node: &Value,
        lease: Option<&Value>,
        now: Instant,
    ) -> (Instant, Option<Write>) {
        let text = |field: &Value| field.as_str().map(str::to_owned);
        let ready = object::condition(node, "Ready");
        let told = [
            ready.and_then(|own| text(&own["lastHeartbeatTime"])),
            lease.and_then(|own| text(&own["spec"]["renewTime"])),
        ];
        let (name, uid) = (object::name(node), object::uid(node));
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = heard.get_mut(name)
            && own.uid == uid
        {
            if own.told != told {
                (own.told, own.at) = (told, now);
            }
            return (own.at, None);
        }
        let created = object::created(node).unwrap_or(now);
        let at = match told {
            [None, None] if ready.is_none() => created,
            _ => now,
        };
        let uid = uid.to_owned();
        heard.insert(name.to_owned(), Heard { uid, told, at });
        let is_news = now.seconds - created.seconds <= NEWS_S;
        let message = format!("Node {name} event: Registered Node {name} in Controller");
        let news = || Write::event(kind::NODES, node, "RegisteredNode", message);
        (at, is_news.then(news))
    }

    /// Forgets a node that is gone, and says so.
    fn forget(&self, name: &str) -> Option<Write> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = heard.remove(name)?;
        let node = json!({"metadata": {"name": name, "uid": gone.uid}});
        let message = format!("Node {name} event: Removing Node {name} from Controller");
        Some(Write::event(kind::NODES, &node, "RemovingNode", message))
    }
}

/// Says of a silent node that nothing is known of it; whether that is new.
fn silence(node: &Value, now: Instant, plan: &mut Plan) -> bool {
    if readiness(node) == Some("Unknown") {
        return false;
    }
    let was_ready = object::is_ready(node);
    let mut conditions: Vec<Value> = object::items(&node["status"]["conditions"])
        .cloned()
        .collect();
    for kind in KUBELETS {
        let Some(own) = conditions.iter_mut().find(|own| own["type"] == kind) else {
            conditions.push(json!({
                "type": kind,
                "status": "Unknown",
                "reason": "NodeStatusNeverUpdated",
                "message": "Kubelet never posted node status.",
                "lastHeartbeatTime": node["metadata"]["creationTimestamp"],
                "lastTransitionTime": object::time_field(now),
            }));
            continue;
        };
        if own["status"] != "Unknown" {
            own["status"] = "Unknown".into();
            own["reason"] = "NodeStatusUnknown".into();
            own["message"] = "Kubelet stopped posting node status.".into();
            own["lastTransitionTime"] = object::time_field(now);
        }
    }
    let patch = json!({
        "metadata": {"resourceVersion": node["metadata"]["resourceVersion"]},
        "status": {"conditions": conditions},
    });
    let write = Write::patch_status(kind::NODES, node, patch);
    plan.then(match was_ready {
        true => {
            let message = format!("Node {} status is now: NodeNotReady", object::name(node));
            write.told(kind::NODES, node, "NodeNotReady", message)
        }
        false => write,
    });
    true
}

/// Pods of a silent node are not ready.
fn mark_pods(view: &dyn View, node: &Value, now: Instant, plan: &mut Plan) {
    let mut marks = Vec::new();
    let mut told = Vec::new();
    for pod in view.list(kind::PODS, Within::Node(object::name(node))) {
        let Some(ready) = object::condition(&pod, "Ready").filter(|own| own["status"] == "True")
        else {
            continue;
        };
        let mut ready = ready.clone();
        ready["status"] = "False".into();
        marks.push(pods::set_condition(&pod, ready, now));
        let message = "Node is not ready".to_owned();
        told.push(Write::warning(kind::PODS, &pod, "NodeNotReady", message));
    }
    plan.together(marks);
    plan.together(told);
}

/// The taints and labels that a node's conditions and labels call for, where it lacks them.
fn follow_up(node: &Value, now: Instant) -> Option<Write> {
    let mut patch = wanted(node, now)?;
    patch["metadata"]["resourceVersion"] = node["metadata"]["resourceVersion"].clone();
    Some(Write::patch(kind::NODES, node, patch))
}

/// [`follow_up`]'s patch, whatever the version.
fn wanted(node: &Value, now: Instant) -> Option<Value> {
    let is_others =
        |key: &str| is_workers(node) && [taints::NOT_READY, taints::UNREACHABLE].contains(&key);
    let mut wanted: Vec<&str> = CONDITION_TAINTS
        .into_iter()
        .filter(|(kind, status, key)| {
            let own = object::condition(node, kind);
            own.is_some_and(|own| own["status"] == *status) && !is_others(key)
        })
        .map(|(_, _, key)| key)
        .collect();
    if node["spec"]["unschedulable"] == true {
        wanted.push(UNSCHEDULABLE);
    }
    let drops = |taint: &Value| {
        let key = taint["key"].as_str().unwrap_or_default();
        let is_ours =
            key == UNSCHEDULABLE || CONDITION_TAINTS.iter().any(|(_, _, own)| *own == key);
        taint["effect"] == taints::NO_SCHEDULE
            && is_ours
            && !is_others(key)
            && !wanted.contains(&key)
    };
    let adds: Vec<(&str, &str)> = wanted
        .iter()
        .map(|key| (*key, taints::NO_SCHEDULE))
        .collect();
    let mut patch = json!({});
    if let Some(taints) = taints::changed(node, drops, &adds, now) {
        patch["spec"]["taints"] = taints;
    }
    for (label, follower) in FOLLOWING_LABELS {
        if let Some(value) = object::label(node, label)
            && object::label(node, follower) != Some(value)
        {
            patch["metadata"]["labels"][follower] = value.into();
        }
    }
    (patch != json!({})).then_some(patch)
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
