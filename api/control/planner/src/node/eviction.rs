//! Pods go from nodes whose `NoExecute` taints they do not tolerate, or no longer.
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#taint-based-evictions>
//!
//! Invariant: a toleration's seconds count from when the taint was added, or the pod came
//! to the node after that; where nobody noted when, from when this leader saw both.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nautilus_machinery::timestamp::Instant;
use serde_json::{Value, json};

use super::{ACCOUNT, taints};
use crate::controller::{Change, Controller};
use crate::kind::{self, Kind};
use crate::object;
use crate::plan::{Plan, Write};
use crate::pods;
use crate::view::{Key, View, Within};

/// The controller of evictions by taints. A key is a pod.
#[derive(Default)]
pub struct TaintEviction {
    /// Since when pods stand on nodes whose taints do not say since when they do: as many as
    /// there are such pods.
    seen: Mutex<BTreeMap<Key, (String, Instant)>>,
}

impl Controller for TaintEviction {
    fn name(&self) -> &'static str {
        ACCOUNT
    }

    fn component(&self) -> &'static str {
        "taint-eviction-controller"
    }

    fn follows(&self) -> &'static [Kind] {
        &[kind::PODS, kind::NODES]
    }

    fn concerns(&self, view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        match change.kind {
            kind::PODS => {
                let what = |pod: &Arc<Value>| {
                    let spec = &pod["spec"];
                    (spec["nodeName"].clone(), spec["tolerations"].clone())
                };
                let before = change.before.as_ref().map(what);
                if change.after.is_none() || before != change.after.as_ref().map(what) {
                    let node = change.object()["spec"]["nodeName"].as_str();
                    let node = node.and_then(|node| view.get(kind::NODES, "", node));
                    if node.is_some_and(|node| !taints::evicting(&node).is_empty()) {
                        keys.push(Key::of(change.object()));
                    }
                }
            }
            kind::NODES => {
                let evicting = |node: Option<&Arc<Value>>| -> Vec<Value> {
                    let taints = node.map(|node| taints::evicting(node));
                    taints.into_iter().flatten().cloned().collect()
                };
                if evicting(change.before.as_ref()) != evicting(change.after.as_ref()) {
                    let node = object::name(change.object());
                    keys.extend(view.keys(kind::PODS, Within::Node(node)));
                }
            }
            _ => {}
        }
    }

    fn reconcile(&self, view: &dyn View, key: &Key, now: Instant) -> Plan {
        let mut plan = Plan::default();
        let pod = view.get(kind::PODS, &key.namespace, &key.name);
        let pod = pod.filter(|pod| !object::is_deleted(pod));
        let node = pod
            .as_ref()
            .and_then(|pod| pod["spec"]["nodeName"].as_str());
        let node = node.and_then(|node| view.get(kind::NODES, "", node));
        let (Some(pod), Some(node)) = (pod, node) else {
            self.forget(key);
            return plan;
        };
        let taints = taints::evicting(&node);
        let Some(stays_s) = tolerated_s(&pod, &taints) else {
            self.forget(key);
            return plan;
        };
        let since = taints
            .iter()
            .filter_map(|own| object::time(&own["timeAdded"]))
            .max();
        let since = match since {
            Some(added) => added.seconds.max(bound_since(&pod)),
            None if stays_s == 0 => now.seconds,
            None => self.since(key, object::uid(&pod), now).seconds,
        };
        match u64::try_from(since.saturating_add(stays_s) - now.seconds) {
            Ok(left) if left > 0 && stays_s > 0 => plan.again(Duration::from_secs(left)),
            _ => evict(&pod, now, &mut plan),
        }
        plan
    }
}

impl TaintEviction {
    fn since(&self, key: &Key, uid: &str, now: Instant) -> Instant {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let own = seen.entry(key.clone());
        let own = own.or_insert_with(|| (uid.to_owned(), now));
        if own.0 != uid {
            *own = (uid.to_owned(), now);
        }
        own.1
    }

    fn forget(&self, key: &Key) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.remove(key);
    }
}

/// For how many seconds a pod stays in spite of the taints; `None`: for good.
fn tolerated_s(pod: &Value, taints: &[&Value]) -> Option<i64> {
    let mut least: Option<i64> = None;
    for taint in taints {
        let mut tolerations = object::items(&pod["spec"]["tolerations"]);
        let Some(used) = tolerations.find(|own| taints::tolerates(own, taint)) else {
            return Some(0);
        };
        if let Some(seconds) = used["tolerationSeconds"].as_i64() {
            let seconds = seconds.max(0);
            least = Some(least.map_or(seconds, |least| least.min(seconds)));
        }
    }
    least
}

/// When a pod came to its node, in Unix seconds.
fn bound_since(pod: &Value) -> i64 {
    let scheduled = object::condition(pod, "PodScheduled").filter(|own| own["status"] == "True");
    let since = scheduled.and_then(|own| object::time(&own["lastTransitionTime"]));
    since
        .or_else(|| object::created(pod))
        .map_or(0, |at| at.seconds)
}

fn evict(pod: &Arc<Value>, now: Instant, plan: &mut Plan) {
    let reason = "DeletionByTaintManager";
    let is_marked = object::condition(pod, pods::DISRUPTION_TARGET)
        .is_some_and(|own| own["status"] == "True" && own["reason"] == reason);
    if !is_marked {
        let condition = json!({
            "type": pods::DISRUPTION_TARGET,
            "status": "True",
            "reason": reason,
            "message": "Taint manager: deleting due to NoExecute taint",
        });
        plan.then(pods::set_condition(pod, condition, now));
    }
    let message = format!("Marking for deletion Pod {}", Key::of(pod));
    let delete = Write::delete(kind::PODS, pod);
    plan.then(delete.told(kind::PODS, pod, "TaintManagerEviction", message));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cluster, at};

    fn cluster(taints: &Value, tolerations: &Value) -> (Cluster, Key) {
        let mut cluster = Cluster::default();
        let node = json!({"metadata": {"name": "m"}, "spec": {"taints": taints}});
        cluster.put(kind::NODES, node);
        let pod = json!({
            "metadata": {"namespace": "n", "name": "p", "finalizers": ["f"]},
            "spec": {"nodeName": "m", "tolerations": tolerations},
        });
        let key = Key::of(&cluster.put(kind::PODS, pod));
        (cluster, key)
    }

    fn taint(key: &str, added: Option<i64>) -> Value {
        let added = added.map_or(Value::Null, |added| object::time_field(at(added)));
        json!({"key": key, "effect": "NoExecute", "timeAdded": added})
    }

    fn toleration(key: &str, seconds: Option<i64>) -> Value {
        json!({"key": key, "operator": "Exists", "tolerationSeconds": seconds})
    }

    #[test]
    fn a_pod_goes_when_it_tolerates_a_taint_no_longer() {
        let (a, b) = ("a", "b");
        // At second 100: what is evicted (0), when, and what stays (-).
        for (case, taints, tolerations, again_s) in [
            ("not tolerated", vec![taint(a, Some(90))], vec![], Some(0)),
            (
                "tolerated",
                vec![taint(a, Some(90))],
                vec![toleration(a, None)],
                None,
            ),
            (
                "for a while",
                vec![taint(a, Some(90))],
                vec![toleration(a, Some(30))],
                Some(20),
            ),
            (
                "no longer",
                vec![taint(a, Some(70))],
                vec![toleration(a, Some(30))],
                Some(0),
            ),
            (
                "for no time",
                vec![taint(a, None)],
                vec![toleration(a, Some(0))],
                Some(0),
            ),
            (
                "the shorter counts",
                vec![taint(a, Some(95)), taint(b, Some(95))],
                vec![toleration(a, Some(60)), toleration(b, Some(30))],
                Some(25),
            ),
            (
                "one is not tolerated",
                vec![taint(a, Some(95)), taint(b, Some(95))],
                vec![toleration(a, None)],
                Some(0),
            ),
            (
                "nobody noted when",
                vec![taint(a, None)],
                vec![toleration(a, Some(30))],
                Some(30),
            ),
            (
                "a stake's taint is others'",
                vec![taint("nautilus.io/stake-slashed", None)],
                vec![],
                None,
            ),
            (
                "another effect",
                vec![json!({"key": a, "effect": "NoSchedule"})],
                vec![],
                None,
            ),
        ] {
            let (cluster, key) = cluster(&taints.into(), &tolerations.into());
            let plan = cluster.plan(&TaintEviction::default(), &key, at(100));
            let found = match plan.is_empty() {
                true => plan.again_in.map(|left| left.as_secs()),
                false => Some(0),
            };
            assert_eq!(found, again_s, "{case}");
        }
    }

    #[test]
    fn the_time_of_a_pod_that_comes_later_begins_when_it_comes() {
        let (mut cluster, key) = cluster(
            &json!([taint("a", Some(0))]),
            &json!([toleration("a", Some(30))]),
        );
        let scheduled = json!({
            "type": "PodScheduled", "status": "True",
            "lastTransitionTime": object::time_field(at(90)),
        });
        cluster.merge(
            kind::PODS,
            &key,
            &json!({"status": {"conditions": [scheduled]}}),
        );
        let plan = cluster.plan(&TaintEviction::default(), &key, at(100));
        assert_eq!(plan.again_in, Some(Duration::from_secs(20)));
    }

    #[test]
    fn a_time_that_nobody_noted_is_kept_while_the_pod_stands_there() {
        let eviction = TaintEviction::default();
        let (mut cluster, key) = cluster(
            &json!([taint("a", None)]),
            &json!([toleration("a", Some(30))]),
        );
        cluster.plan(&eviction, &key, at(0));
        let plan = cluster.plan(&eviction, &key, at(29));
        assert_eq!(
            (plan.is_empty(), plan.again_in),
            (true, Some(Duration::from_secs(1)))
        );
        // The taint goes and comes back.
        let mut without = cluster.clone();
        without.merge(
            kind::NODES,
            &Key::new("", "m"),
            &json!({"spec": {"taints": null}}),
        );
        without.plan(&eviction, &key, at(29));
        let plan = cluster.plan(&eviction, &key, at(30));
        assert_eq!(plan.again_in, Some(Duration::from_secs(30)));
        cluster.settle(&eviction, &key, at(60));
        let pod = cluster
            .get(kind::PODS, "n", "p")
            .expect("its finalizer holds it");
        assert!(object::is_deleted(&pod) && object::is_true(&pod, pods::DISRUPTION_TARGET));
        let told = (
            "TaintManagerEviction",
            "Marking for deletion Pod n/p".to_owned(),
        );
        assert_eq!(cluster.events, [told]);
    }

    #[test]
    fn a_change_of_taints_concerns_the_nodes_pods() {
        let (cluster, key) = cluster(&json!([taint("a", None)]), &json!([]));
        let eviction = TaintEviction::default();
        let node = cluster.get(kind::NODES, "", "m");
        let pod = cluster.get(kind::PODS, "n", "p");
        let concerned = |kind, before: Option<&Arc<Value>>, after: Option<&Arc<Value>>| {
            cluster.concerned(&eviction, kind, before, after)
        };
        assert_eq!(
            concerned(kind::NODES, None, node.as_ref()),
            std::slice::from_ref(&key)
        );
        assert_eq!(concerned(kind::NODES, node.as_ref(), node.as_ref()), []);
        assert_eq!(concerned(kind::PODS, None, pod.as_ref()), [key]);
        assert_eq!(concerned(kind::PODS, pod.as_ref(), pod.as_ref()), []);
    }
}
