//! Pods that nobody else takes away: of nodes that are gone, of nodes out of service, those
//! that were to end before they had a node, and ended ones beyond [`KEPT_PODS`].
//! <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-garbage-collection>
//!
//! Invariants
//! - A node is gone when this leader has missed it for [`QUARANTINE_S`].
//! - What has not ended is `Failed` before it is gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nautilus_machinery::timestamp::Instant;
use serde_json::{Value, json};

use crate::controller::{Change, Controller};
use crate::kind::{self, Kind};
use crate::object;
use crate::plan::{Delete, Plan, Write};
use crate::pods;
use crate::view::{Key, View, Within};

/// Ended pods that are kept.
const KEPT_PODS: usize = 12_500;
/// Seconds for which a node is missed before its pods are.
const QUARANTINE_S: i64 = 40;
/// Nodes that are missed at once; pods of others wait.
const MAX_MISSED_NODES: usize = 10_000;
/// Pods that are taken away together.
const BATCH_PODS: usize = 100;
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The collector of pods. A key is a pod; a node, in no namespace; or all ended pods.
#[derive(Default)]
pub struct PodGc {
    /// Since when nodes that pods name are missed.
    missed: Mutex<BTreeMap<String, Instant>>,
}

fn ended_pods() -> Key {
    Key::new("", "")
}

impl Controller for PodGc {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn follows(&self) -> &'static [Kind] {
        &[kind::PODS, kind::NODES]
    }

    fn concerns(&self, view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        match change.kind {
            kind::PODS => {
                let Some(pod) = &change.after else {
                    return;
                };
                let was_finished = change
                    .before
                    .as_ref()
                    .is_some_and(|pod| object::is_finished(pod));
                if object::is_finished(pod) && !was_finished {
                    keys.push(ended_pods());
                }
                let node = node_of(pod);
                let found = view.get(kind::NODES, "", node);
                if !node.is_empty() && found.is_none() {
                    keys.push(Key::new("", node));
                }
                if object::is_deleted(pod)
                    && (node.is_empty() || found.is_some_and(|node| is_out_of_service(&node)))
                {
                    keys.push(Key::of(pod));
                }
            }
            kind::NODES => {
                let name = object::name(change.object());
                match &change.after {
                    None => keys.push(Key::new("", name)),
                    Some(node) if is_out_of_service(node) => {
                        let pods = view.list(kind::PODS, Within::Node(name));
                        let ending = pods.iter().filter(|pod| object::is_deleted(pod));
                        keys.extend(ending.map(|pod| Key::of(pod)));
                    }
                    Some(_) => {}
                }
            }
            _ => {}
        }
    }

    fn reconcile(&self, view: &dyn View, key: &Key, now: Instant) -> Plan {
        let mut plan = Plan::default();
        match (key.namespace.as_str(), key.name.as_str()) {
            ("", "") => take_ended(view, now, &mut plan),
            ("", node) => self.take_orphans(view, node, now, &mut plan),
            (namespace, name) => {
                let pod = view.get(kind::PODS, namespace, name);
                if let Some(pod) = pod.filter(|pod| is_stuck(view, pod)) {
                    take(&[pod], None, now, &mut plan);
                }
            }
        }
        plan
    }
}

fn node_of(pod: &Value) -> &str {
    pod["spec"]["nodeName"].as_str().unwrap_or_default()
}

fn is_out_of_service(node: &Value) -> bool {
    let mut taints = object::items(&node["spec"]["taints"]);
    !object::is_ready(node) && taints.any(|own| own["key"] == OUT_OF_SERVICE)
}

/// Whether a pod is to end and no kubelet will say that it has.
fn is_stuck(view: &dyn View, pod: &Value) -> bool {
    let node = node_of(pod);
    let found = || view.get(kind::NODES, "", node);
    object::is_deleted(pod)
        && (node.is_empty() || found().is_some_and(|node| is_out_of_service(&node)))
}

impl PodGc {
    fn take_orphans(&self, view: &dyn View, node: &str, now: Instant, plan: &mut Plan) {
        let orphans = view.list(kind::PODS, Within::Node(node));
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        if orphans.is_empty() || view.get(kind::NODES, "", node).is_some() {
            missed.remove(node);
            return;
        }
        if missed.len() >= MAX_MISSED_NODES && !missed.contains_key(node) {
            plan.again(Duration::from_secs(QUARANTINE_S.unsigned_abs()));
            return;
        }
        let since = *missed.entry(node.to_owned()).or_insert(now);
        match u64::try_from(since.seconds + QUARANTINE_S - now.seconds) {
            Ok(left) if left > 0 => plan.again(Duration::from_secs(left)),
            _ => {
                let condition = json!({
                    "type": pods::DISRUPTION_TARGET,
                    "status": "True",
                    "reason": "DeletionByPodGC",
                    "message": "PodGC: node no longer exists",
                });
                take(&orphans, Some(&condition), now, plan);
            }
        }
    }
}

/// Takes away the ended pods that are too many: evicted ones first, then the oldest.
fn take_ended(view: &dyn View, now: Instant, plan: &mut Plan) {
    let mut ended = view.list(kind::PODS, Within::All);
    ended.retain(|pod| object::is_finished(pod));
    let Some(more) = ended.len().checked_sub(KEPT_PODS) else {
        return;
    };
    ended.sort_by_cached_key(|pod| {
        let is_evicted = pod["status"]["phase"] == "Failed" && pod["status"]["reason"] == "Evicted";
        let created = object::created(pod).map_or(0, |at| at.seconds);
        (!is_evicted, created, object::name(pod).to_owned())
    });
    ended.truncate(more);
    take(&ended, None, now, plan);
}

/// Takes pods away, as failed where they have not ended, with a condition of why.
fn take(pods: &[Arc<Value>], why: Option<&Value>, now: Instant, plan: &mut Plan) {
    for batch in pods.chunks(BATCH_PODS) {
        let unfinished = batch.iter().filter(|pod| !object::is_finished(pod));
        plan.together(unfinished.map(|pod| fail(pod, why, now)).collect());
        let deletes = batch.iter().filter(|pod| !is_taken(pod)).map(|pod| {
            Write::Delete(Delete {
                grace_seconds: Some(0),
                ..Delete::of(kind::PODS, pod)
            })
        });
        plan.together(deletes.collect());
    }
}

/// Whether nothing but finalizers holds a pod.
fn is_taken(pod: &Value) -> bool {
    let grace = &pod["metadata"]["deletionGracePeriodSeconds"];
    object::is_deleted(pod) && object::is_finished(pod) && *grace == 0
}

fn fail(pod: &Value, why: Option<&Value>, now: Instant) -> Write {
    let mut status = match why {
        Some(condition) => {
            let status = pods::with_condition(pod, condition.clone(), now);
            json!({ "conditions": status["conditions"] })
        }
        None => json!({}),
    };
    status["phase"] = "Failed".into();
    let generation = &pod["metadata"]["generation"];
    if !generation.is_null() {
        status["observedGeneration"] = generation.clone();
    }
    let version = &pod["metadata"]["resourceVersion"];
    let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
    Write::patch_status(kind::PODS, pod, patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cluster, at};

    fn pod(name: &str, node: &str, phase: &str) -> Value {
        json!({
            "metadata": {"namespace": "n", "name": name, "finalizers": ["f"]},
            "spec": {"nodeName": node},
            "status": {"phase": phase},
        })
    }

    fn deleting(mut pod: Value) -> Value {
        pod["metadata"]["deletionTimestamp"] = object::time_field(at(0));
        pod
    }

    /// What a pod has become of whom the collector may be told.
    fn phase_after(cluster: &mut Cluster, gc: &PodGc, key: &Key, now: Instant) -> (String, bool) {
        let plan = cluster.plan(gc, key, now);
        cluster.carry_out(&plan);
        let pod = &cluster.list(kind::PODS, Within::All)[0];
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        let deletes =
            |write: &Write| matches!(write, Write::Delete(own) if own.grace_seconds == Some(0));
        (phase.to_owned(), plan.writes().any(deletes))
    }

    #[test]
    fn pods_of_a_node_that_is_gone_are_taken_after_a_while() {
        let (gc, mut cluster) = (PodGc::default(), Cluster::default());
        let orphan = cluster.put(kind::PODS, pod("p", "gone", "Running"));
        let node = Key::new("", "gone");
        let keys = cluster.concerned(&gc, kind::PODS, None, Some(&orphan));
        assert_eq!(keys, std::slice::from_ref(&node));
        let running = ("Running".to_owned(), false);
        assert_eq!(phase_after(&mut cluster, &gc, &node, at(100)), running);
        let plan = cluster.plan(&gc, &node, at(139));
        assert_eq!(
            (plan.is_empty(), plan.again_in),
            (true, Some(Duration::from_secs(1)))
        );
        let mut back = cluster.clone();
        back.put(kind::NODES, json!({"metadata": {"name": "gone"}}));
        assert_eq!(phase_after(&mut back, &gc, &node, at(140)), running);
        // It was there in between: its time begins anew.
        assert_eq!(phase_after(&mut cluster, &gc, &node, at(140)), running);
        let failed = ("Failed".to_owned(), true);
        assert_eq!(phase_after(&mut cluster, &gc, &node, at(180)), failed);
        let orphan = cluster
            .get(kind::PODS, "n", "p")
            .expect("its finalizer holds it");
        let why = object::condition(&orphan, pods::DISRUPTION_TARGET).expect("why");
        assert_eq!(why["reason"], "DeletionByPodGC");
        assert_eq!(why["message"], "PodGC: node no longer exists");
    }

    #[test]
    fn a_pod_that_no_kubelet_ends_is_ended() {
        let node = |ready: &str, taint: &str| {
            json!({
                "metadata": {"name": "m"},
                "spec": {"taints": [{"key": taint, "effect": "NoExecute"}]},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            })
        };
        for (case, pod, node, expected) in [
            ("no node", deleting(pod("p", "", "Pending")), None, true),
            ("not to end", pod("p", "", "Pending"), None, false),
            (
                "out of service",
                deleting(pod("p", "m", "Running")),
                Some(node("Unknown", OUT_OF_SERVICE)),
                true,
            ),
            (
                "not to end",
                pod("p", "m", "Running"),
                Some(node("Unknown", OUT_OF_SERVICE)),
                false,
            ),
            (
                "ready",
                deleting(pod("p", "m", "Running")),
                Some(node("True", OUT_OF_SERVICE)),
                false,
            ),
            (
                "another taint",
                deleting(pod("p", "m", "Running")),
                Some(node("Unknown", "x")),
                false,
            ),
        ] {
            let (gc, mut cluster) = (PodGc::default(), Cluster::default());
            let pod = cluster.put(kind::PODS, pod);
            let node = node.map(|node| cluster.put(kind::NODES, node));
            let key = Key::of(&pod);
            let mut keys = cluster.concerned(&gc, kind::PODS, None, Some(&pod));
            if let Some(node) = &node {
                let of_node = cluster.concerned(&gc, kind::NODES, None, Some(node));
                assert_eq!(of_node, keys, "{case}");
            }
            keys.retain(|own| *own == key);
            assert_eq!(keys.len(), usize::from(expected), "{case}");
            let after = phase_after(&mut cluster, &gc, &key, at(0));
            assert_eq!(after.1, expected, "{case}");
            assert_eq!(after.0 == "Failed", expected, "{case}");
        }
    }

    #[test]
    fn what_only_a_finalizer_holds_is_not_deleted_again() {
        let (gc, mut cluster) = (PodGc::default(), Cluster::default());
        let mut held = deleting(pod("p", "", "Failed"));
        held["metadata"]["deletionGracePeriodSeconds"] = 0.into();
        let key = Key::of(&cluster.put(kind::PODS, held));
        assert!(cluster.plan(&gc, &key, at(0)).is_empty());
    }

    #[test]
    fn ended_pods_beyond_the_limit_go_evicted_and_old_ones_first() {
        let (gc, mut cluster) = (PodGc::default(), Cluster::default());
        for number in 0..KEPT_PODS {
            cluster.put(kind::PODS, pod(&format!("p{number:06}"), "m", "Succeeded"));
        }
        assert!(cluster.plan(&gc, &ended_pods(), at(0)).is_empty());
        let mut evicted = pod("z", "m", "Failed");
        evicted["status"]["reason"] = "Evicted".into();
        cluster.put(kind::PODS, evicted);
        let mut old = pod("y", "m", "Failed");
        old["metadata"]["creationTimestamp"] = object::time_field(at(-100));
        let old = cluster.put(kind::PODS, old);
        cluster.put(kind::PODS, pod("running", "m", "Running"));
        let keys = cluster.concerned(&gc, kind::PODS, None, Some(&old));
        assert!(keys.contains(&ended_pods()));
        let plan = cluster.plan(&gc, &ended_pods(), at(0));
        let names: Vec<&str> = plan
            .writes()
            .map(|write| match write {
                Write::Delete(delete) => delete.name.as_str(),
                other => panic!("nothing but deletions: {other:?}"),
            })
            .collect();
        assert_eq!(names, ["z", "y"]);
    }
}
