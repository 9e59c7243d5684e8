//! Disruption budgets against small clusters.

use super::*;
use crate::testing::{Cluster, at};

fn budget(spec: &Value) -> Value {
    let mut budget = json!({
        "metadata": {"namespace": "n", "name": "b", "generation": 3},
        "spec": {"selector": {"matchLabels": {"app": "web"}}},
    });
    for (field, value) in spec.as_object().into_iter().flatten() {
        budget["spec"][field] = value.clone();
    }
    budget
}

fn pod(number: usize, ready: &str, owner: &Value) -> Value {
    json!({
        "metadata": {
            "namespace": "n", "name": format!("p{number}"), "labels": {"app": "web"},
            "ownerReferences": [owner],
        },
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    })
}

fn owner(api_version: &str, kind: &str, name: &str) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind, "name": name, "uid": format!("{name}-uid"),
        "controller": true,
    })
}

/// A deployment of four behind a replica set, three of whose pods are ready.
fn cluster(spec: &Value) -> (Cluster, Key) {
    let mut cluster = Cluster::default();
    let deployment = json!({
        "metadata": {"namespace": "n", "name": "d", "uid": "d-uid"}, "spec": {"replicas": 4},
    });
    cluster.put(kind::DEPLOYMENTS, deployment);
    let set = json!({
        "metadata": {
            "namespace": "n", "name": "rs", "uid": "rs-uid",
            "ownerReferences": [owner("apps/v1", "Deployment", "d")],
        },
        "spec": {"replicas": 2},
    });
    cluster.put(kind::REPLICA_SETS, set);
    for (number, ready) in ["True", "True", "True", "False"].iter().enumerate() {
        cluster.put(
            kind::PODS,
            pod(number, ready, &owner("apps/v1", "ReplicaSet", "rs")),
        );
    }
    let key = Key::of(&cluster.put(kind::DISRUPTION_BUDGETS, budget(spec)));
    (cluster, key)
}

fn status(cluster: &Cluster, key: &Key) -> Value {
    let budget = cluster.get(kind::DISRUPTION_BUDGETS, &key.namespace, &key.name);
    budget.expect("a budget")["status"].clone()
}

#[test]
fn what_is_allowed_follows_from_the_scale_and_the_healthy() {
    for (spec, wanted, allowed, expected) in [
        (json!({"minAvailable": 2}), 2, 1, 4),
        (json!({"minAvailable": 3}), 3, 0, 4),
        (json!({"minAvailable": "30%"}), 2, 1, 4),
        (json!({"maxUnavailable": 2}), 2, 1, 4),
        (json!({"maxUnavailable": 9}), 0, 3, 4),
        (json!({"maxUnavailable": "30%"}), 2, 1, 4),
        (json!({"minAvailable": "100%"}), 4, 0, 4),
    ] {
        let (mut cluster, key) = cluster(&spec);
        assert_eq!(cluster.settle(&Budgets, &key, at(5)), 1);
        let status = status(&cluster, &key);
        let (state, reason) = match allowed {
            0 => ("False", "InsufficientPods"),
            _ => ("True", "SufficientPods"),
        };
        assert_eq!(
            status,
            json!({
                "currentHealthy": 3, "desiredHealthy": wanted, "disruptionsAllowed": allowed,
                "expectedPods": expected, "observedGeneration": 3,
                "conditions": [{
                    "type": "DisruptionAllowed", "status": state, "reason": reason,
                    "message": "", "lastTransitionTime": object::time_field(at(5)),
                    "observedGeneration": 3,
                }],
            }),
            "{spec}"
        );
    }
}

#[test]
fn an_evicted_pod_is_missing_until_it_is_deleted_or_its_time_is_over() {
    let (mut cluster, key) = cluster(&json!({"minAvailable": 1}));
    cluster.settle(&Budgets, &key, at(0));
    let charge = json!({"status": {"disruptedPods": {
        "p0": object::time_field(at(10)), "gone": object::time_field(at(10)),
    }}});
    cluster.merge(kind::DISRUPTION_BUDGETS, &key, &charge);
    cluster.settle(&Budgets, &key, at(20));
    assert_eq!(status(&cluster, &key)["disruptionsAllowed"], 1);
    let left = json!({"p0": object::time_field(at(10))});
    assert_eq!(status(&cluster, &key)["disruptedPods"], left);
    let plan = cluster.plan(&Budgets, &key, at(20));
    assert_eq!(plan.again_in, Some(Duration::from_secs(111)));
    let mut later = cluster.clone();
    later.settle(&Budgets, &key, at(131));
    assert_eq!(status(&later, &key)["disruptionsAllowed"], 2);
    assert_eq!(status(&later, &key).get("disruptedPods"), None);
    assert_eq!(later.events[0].0, "NotDeleted");
    let deleted = json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}});
    cluster.merge(kind::PODS, &Key::new("n", "p0"), &deleted);
    cluster.settle(&Budgets, &key, at(21));
    assert_eq!(status(&cluster, &key).get("disruptedPods"), None);
    assert_eq!(status(&cluster, &key)["currentHealthy"], 2);
}

#[test]
fn the_scale_of_other_controllers_is_asked_for() {
    let (mut cluster, key) = cluster(&json!({"maxUnavailable": 1}));
    let custom = owner("example.com/v1", "Farm", "f");
    cluster.put(kind::PODS, pod(9, "True", &custom));
    let target = question("n", &custom);
    assert_eq!(Budgets.asks(&cluster, &key), std::slice::from_ref(&target));
    for (answer, expected, message) in [
        (
            Ok(json!({"metadata": {"uid": "f-uid"}, "spec": {"replicas": 3}})),
            3,
            "",
        ),
        (
            Ok(json!({"metadata": {"uid": "other"}, "spec": {"replicas": 3}})),
            0,
            "found no controllers for pod \"p9\"",
        ),
        (Err((403, "no".to_owned())), 0, "no"),
    ] {
        let mut cluster = cluster.clone();
        cluster.answers.insert(target.clone(), answer);
        cluster.settle(&Budgets, &key, at(0));
        let status = status(&cluster, &key);
        assert_eq!(status["conditions"][0]["message"], message);
        if message.is_empty() {
            assert_eq!(status["expectedPods"], 4 + expected);
        } else {
            assert_eq!(status["disruptionsAllowed"], 0);
            assert_eq!(status["conditions"][0]["reason"], "SyncFailed");
            let reason = cluster.events.last().map(|event| event.0);
            assert_eq!(reason, Some("CalculateExpectedPodCountFailed"));
        }
    }
    let (integers, key) = self::cluster(&json!({"minAvailable": 1}));
    assert_eq!(Budgets.asks(&integers, &key), []);
}

#[test]
fn pods_without_a_controller_are_told_and_no_pod_is_none() {
    let (mut cluster, key) = cluster(&json!({"maxUnavailable": 1}));
    let mut alone = pod(9, "True", &json!({}));
    alone["metadata"]["ownerReferences"] = Value::Null;
    cluster.put(kind::PODS, alone);
    cluster.settle(&Budgets, &key, at(0));
    let (reason, message) = cluster.events[0].clone();
    assert_eq!(reason, "UnmanagedPods");
    let selector = "(selector: &LabelSelector{MatchLabels:map[string]string{app: web,},\
                    MatchExpressions:[]LabelSelectorRequirement{},})";
    assert!(message.contains(selector), "{message}");
    assert_eq!(status(&cluster, &key)["expectedPods"], 4);
    let nobody = json!({"spec": {"selector": null}});
    cluster.merge(kind::DISRUPTION_BUDGETS, &key, &nobody);
    cluster.settle(&Budgets, &key, at(0));
    assert_eq!(cluster.events.last().map(|event| event.0), Some("NoPods"));
    assert_eq!(status(&cluster, &key)["disruptionsAllowed"], 0);
}

#[test]
fn a_pod_concerns_the_budgets_that_select_it_where_it_counts_anew() {
    let (mut cluster, key) = cluster(&json!({"minAvailable": 1}));
    let before = cluster.get(kind::PODS, "n", "p0").expect("a pod");
    let concerned = |cluster: &Cluster, after: &Arc<Value>| {
        cluster.concerned(&Budgets, kind::PODS, Some(&before), Some(after))
    };
    let pod = Key::new("n", "p0");
    let phase = cluster.merge(kind::PODS, &pod, &json!({"status": {"phase": "Running"}}));
    assert_eq!(concerned(&cluster, &phase), []);
    let other = cluster.merge(
        kind::PODS,
        &pod,
        &json!({"metadata": {"labels": {"app": "x"}}}),
    );
    assert_eq!(concerned(&cluster, &other), [key]);
}

#[test]
fn a_pod_that_was_not_disrupted_is_a_target_no_more() {
    for (condition, waits, is_reset) in [
        (
            json!({"status": "True", "reason": "EvictionByEvictionAPI"}),
            true,
            true,
        ),
        (
            json!({"status": "True", "reason": "TerminationByKubelet"}),
            false,
            false,
        ),
        (json!({"status": "False", "reason": "x"}), false, false),
    ] {
        let mut cluster = Cluster::default();
        let mut target = condition.clone();
        target["type"] = pods::DISRUPTION_TARGET.into();
        target["lastTransitionTime"] = object::time_field(at(0));
        let metadata = json!({"namespace": "n", "name": "p"});
        let pod = json!({"metadata": metadata, "status": {"conditions": [target]}});
        let pod = cluster.put(kind::PODS, pod);
        let key = Key::of(&pod);
        let keys = cluster.concerned(&StaleDisruptions, kind::PODS, None, Some(&pod));
        assert_eq!(keys.len(), usize::from(waits), "{condition}");
        let plan = cluster.plan(&StaleDisruptions, &key, at(119));
        assert_eq!(plan.again_in.is_some(), waits, "{condition}");
        assert!(plan.is_empty());
        cluster.settle(&StaleDisruptions, &key, at(120));
        let pod = cluster.get(kind::PODS, "n", "p").expect("a pod");
        let changed = pod["status"]["conditions"][0] != target;
        assert_eq!(changed, is_reset, "{condition}");
        assert_eq!(
            object::is_true(&pod, pods::DISRUPTION_TARGET),
            !is_reset && condition["status"] == "True"
        );
    }
}
