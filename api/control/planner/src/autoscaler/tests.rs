//! Autoscalers and what the API answers them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::look::target;
use super::*;
use crate::object;
use crate::testing::{Cluster, at};

struct World {
    cluster: Cluster,
    scalers: Autoscalers,
}

fn key() -> Key {
    Key::new("n", "h")
}

const PODS_PATH: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/n/pods?labelSelector=app%3Dweb";

impl World {
    /// An autoscaler of a Deployment with ready pods that each ask for a CPU.
    fn of(spec: &Value, replicas: usize) -> Self {
        let cpu =
            json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}});
        let mut scaler = json!({
            "metadata": {"namespace": "n", "name": "h", "generation": 3},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "minReplicas": 1,
                "maxReplicas": 10,
                "metrics": [{"type": "Resource", "resource": cpu}],
            },
        });
        nautilus_machinery::patch::merge(&mut scaler["spec"], spec);
        let mut cluster = Cluster::default();
        cluster.put(AUTOSCALERS, scaler);
        for nth in 0..replicas {
            let long_ago = object::time_field(at(-3600));
            cluster.put(PODS, json!({
                "metadata": {"namespace": "n", "name": format!("p{nth}"), "labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
                "status": {
                    "phase": "Running",
                    "startTime": long_ago,
                    "conditions": [
                        {"type": "Ready", "status": "True", "lastTransitionTime": long_ago},
                    ],
                },
            }));
        }
        let mut world = Self {
            cluster,
            scalers: Autoscalers::default(),
        };
        world.scaled_to(replicas);
        world
    }

    fn scaler(&self) -> Arc<Value> {
        self.cluster
            .get(AUTOSCALERS, "n", "h")
            .expect("it is there")
    }

    fn scaled_to(&mut self, replicas: usize) {
        let scale = json!({
            "metadata": {"namespace": "n", "name": "web", "resourceVersion": "7"},
            "spec": {"replicas": replicas},
            "status": {"replicas": replicas, "selector": "app=web"},
        });
        let question = Question::Scale(target(&self.scaler()));
        self.cluster.answers.insert(question, Ok(scale));
    }

    fn answers(&mut self, path: &str, items: &Value) {
        let question = Question::Get(path.to_owned());
        self.cluster
            .answers
            .insert(question, Ok(json!({"items": items})));
    }

    fn pods_use(&mut self, usage: &[&str]) {
        let pod = |(nth, cpu): (usize, &&str)| {
            json!({
                "metadata": {"name": format!("p{nth}")},
                "timestamp": object::time_field(at(0)),
                "window": "30s",
                "containers": [{"name": "c", "usage": {"cpu": cpu}}],
            })
        };
        let items: Vec<Value> = usage.iter().enumerate().map(pod).collect();
        self.answers(PODS_PATH, &items.into());
    }

    fn at(&mut self, seconds: i64) -> Plan {
        let plan = self.cluster.plan(&self.scalers, &key(), at(seconds));
        self.cluster.carry_out(&plan);
        plan
    }

    fn status(&self, field: &str) -> Value {
        self.scaler()["status"][field].clone()
    }

    fn condition(&self, kind: &str) -> String {
        let scaler = self.scaler();
        let own = object::condition(&scaler, kind)
            .cloned()
            .unwrap_or_default();
        let text = |field: &str| own[field].as_str().unwrap_or_default().to_owned();
        format!("{} {}: {}", text("status"), text("reason"), text("message"))
    }

    fn told(&mut self) -> Vec<String> {
        let events = std::mem::take(&mut self.cluster.events).into_iter();
        events
            .map(|(reason, message)| format!("{reason}: {message}"))
            .collect()
    }

    fn asked(&self) -> Vec<String> {
        let questions = self.scalers.asks(&self.cluster, &key()).into_iter();
        let mut paths: Vec<String> = questions
            .filter_map(|question| match question {
                Question::Get(path) => Some(path),
                Question::Scale(_) => None,
            })
            .collect();
        paths.sort();
        paths
    }
}

#[test]
fn pods_that_are_busy_get_more_beside_them() {
    let mut world = World::of(&json!({}), 2);
    assert_eq!(world.asked(), [PODS_PATH]);
    world.pods_use(&["900m", "700m"]);
    let plan = world.at(0);
    assert_eq!(plan.again_in, Some(PERIOD));
    let (_, scale) = world.cluster.scales.last().expect("it is scaled").clone();
    assert_eq!(scale["spec"]["replicas"], 4);
    assert_eq!(scale["metadata"]["resourceVersion"], "7");
    let reason = "cpu resource utilization (percentage of request) above target";
    assert_eq!(
        world.told(),
        [format!("SuccessfulRescale: New size: 4; reason: {reason}")]
    );
    let current = json!({"averageUtilization": 80, "averageValue": "800m"});
    let metrics = json!([{"type": "Resource", "resource": {"name": "cpu", "current": current}}]);
    assert_eq!(world.status("currentMetrics"), metrics);
    assert_eq!(
        (
            world.status("currentReplicas"),
            world.status("desiredReplicas")
        ),
        (json!(2), json!(4))
    );
    assert_eq!(world.status("lastScaleTime"), object::time_field(at(0)));
    assert_eq!(world.status("observedGeneration"), 3);
    for (kind, expected) in [
        (
            "AbleToScale",
            "True SucceededRescale: the HPA controller was able to update the target scale to 4",
        ),
        (
            "ScalingActive",
            "True ValidMetricFound: the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)",
        ),
        (
            "ScalingLimited",
            "False DesiredWithinRange: the desired count is within the acceptable range",
        ),
        (
            "ScaledToZero",
            "False NotScaledToZero: the HPA controller did not scale the workload to zero",
        ),
    ] {
        assert_eq!(world.condition(kind), expected);
    }
    // Less is waited with.
    world.scaled_to(4);
    world.pods_use(&["100m", "100m"]);
    world.at(15);
    assert!(
        world
            .condition("AbleToScale")
            .starts_with("True ScaleDownStabilized: ")
    );
    world.at(299);
    assert_eq!(world.cluster.scales.len(), 1);
    world.at(301);
    let (_, scale) = world.cluster.scales.last().expect("it is scaled");
    assert_eq!(scale["spec"]["replicas"], 1);
    assert_eq!(
        world.told(),
        ["SuccessfulRescale: New size: 1; reason: All metrics below target"]
    );
    // Nothing new is not written.
    world.scaled_to(1);
    world.pods_use(&["500m"]);
    world.cluster.remove(PODS, &Key::new("n", "p1"));
    world.at(700);
    assert!(world.at(715).is_empty());
}

#[test]
fn bounds_need_no_metrics() {
    for (spec, replicas, expected, reason) in [
        (
            json!({"maxReplicas": 3}),
            5,
            3,
            "Current number of replicas above Spec.MaxReplicas",
        ),
        (
            json!({"minReplicas": 8}),
            5,
            8,
            "Current number of replicas below Spec.MinReplicas",
        ),
    ] {
        let mut world = World::of(&spec, replicas);
        world.at(0);
        let (_, scale) = world.cluster.scales.last().expect("it is scaled").clone();
        assert_eq!(scale["spec"]["replicas"], expected);
        let told = format!("SuccessfulRescale: New size: {expected}; reason: {reason}");
        assert_eq!(world.told(), [told]);
    }
}

#[test]
fn what_is_unknown_is_told_and_takes_nothing_away() {
    let mut world = World::of(&json!({}), 2);
    let scale = Question::Scale(target(&world.scaler()));
    let found = world.cluster.answers[&scale].clone();
    let gone = "deployments.apps \"web\" not found".to_owned();
    world
        .cluster
        .answers
        .insert(scale.clone(), Err((404, gone)));
    world.at(0);
    let expected = "False FailedGetScale: the HPA controller was unable to get the target's current scale: deployments.apps \"web\" not found";
    assert_eq!(world.condition("AbleToScale"), expected);
    assert_eq!(
        world.told(),
        ["FailedGetScale: deployments.apps \"web\" not found"]
    );

    world.cluster.answers.insert(scale, found);
    let path = Question::Get(PODS_PATH.to_owned());
    world
        .cluster
        .answers
        .insert(path, Err((404, "page not found".to_owned())));
    world.at(0);
    let why = "failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)";
    let expected = format!(
        "False FailedGetResourceMetric: the HPA was unable to compute the replica count: {why}"
    );
    assert_eq!(world.condition("ScalingActive"), expected);
    let whole = format!(
        "invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: {why}"
    );
    let expected = [
        format!("FailedGetResourceMetric: {why}"),
        format!("FailedComputeMetricsReplicas: {whole}"),
    ];
    assert_eq!(world.told(), expected);
    assert_eq!(world.cluster.scales.len(), 0);
}

#[test]
fn one_metric_that_is_known_is_enough_for_more() {
    let external = |target: i64| {
        json!({"type": "External", "external": {
            "metric": {"name": "queue", "selector": {"matchLabels": {"of": "a"}}},
            "target": {"type": "Value", "value": target.to_string()},
        }})
    };
    let resource = json!({"type": "Resource", "resource": {
        "name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"},
    }});
    for (target, is_scaled) in [(10, true), (100, false)] {
        let mut world = World::of(&json!({"metrics": [resource, external(target)]}), 3);
        let path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/n/queue?labelSelector=of%3Da";
        world.answers(path, &json!([{"value": "15"}, {"value": "5"}]));
        assert_eq!(world.asked(), [path, PODS_PATH]);
        world.at(0);
        assert_eq!(world.cluster.scales.len(), usize::from(is_scaled));
        let told = world.told();
        let is_told = told
            .iter()
            .any(|own| own.starts_with("FailedGetResourceMetric: "));
        assert!(is_told, "{told:?}");
        if is_scaled {
            let selector = "&LabelSelector{MatchLabels:map[string]string{of: a,},MatchExpressions:[]LabelSelectorRequirement{},}";
            let reason = format!("external metric queue({selector}) above target");
            let expected = format!("SuccessfulRescale: New size: 6; reason: {reason}");
            assert_eq!(told[0], expected);
        }
        assert_eq!(world.status("currentMetrics")[0], json!({"type": ""}));
    }
}

#[test]
fn metrics_of_pods_and_objects_are_asked_where_they_are() {
    let pods = json!({"type": "Pods", "pods": {
        "metric": {"name": "qps"}, "target": {"type": "AverageValue", "averageValue": "10"},
    }});
    let described =
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "front"});
    let object = json!({"type": "Object", "object": {
        "metric": {"name": "hits"}, "describedObject": described,
        "target": {"type": "AverageValue", "averageValue": "5"},
    }});
    let mut world = World::of(&json!({"metrics": [pods, object]}), 2);
    let custom = "/apis/custom.metrics.k8s.io";
    let kinds = "/apis/networking.k8s.io/v1";
    assert_eq!(world.asked(), [custom, kinds]);
    let mut answer = |path: &str, answer: Value| {
        world
            .cluster
            .answers
            .insert(Question::Get(path.to_owned()), Ok(answer));
    };
    answer(custom, json!({"versions": [{"version": "v1beta1"}]}));
    answer(
        kinds,
        json!({"resources": [
            {"name": "ingresses/status", "kind": "Ingress"}, {"name": "ingresses", "kind": "Ingress"},
        ]}),
    );
    let [of_pods, of_object] = [
        "/apis/custom.metrics.k8s.io/v1beta1/namespaces/n/pods/*/qps?labelSelector=app%3Dweb",
        "/apis/custom.metrics.k8s.io/v1beta1/namespaces/n/ingresses.networking.k8s.io/front/hits",
    ];
    let value = |pod: &str, value: &str| json!({"describedObject": {"name": pod}, "value": value});
    answer(
        of_pods,
        json!({"items": [value("p0", "12"), value("p1", "8500m")]}),
    );
    answer(of_object, json!({"items": [value("front", "33")]}));
    assert_eq!(world.asked(), [custom, of_object, of_pods, kinds]);
    world.at(0);
    let (_, scale) = world.cluster.scales.last().expect("it is scaled").clone();
    // Two replicas may become four at once.
    assert_eq!(scale["spec"]["replicas"], 4);
    let current = world.status("currentMetrics");
    assert_eq!(
        current[0]["pods"]["current"],
        json!({"averageValue": "10250m"})
    );
    assert_eq!(
        current[1]["object"]["current"],
        json!({"averageValue": "16500m"})
    );
    assert!(
        world
            .condition("ScalingLimited")
            .starts_with("True ScaleUpLimit: ")
    );
}

#[test]
fn nothing_is_scaled_from_a_zero_that_others_made() {
    let external = json!([{"type": "External", "external": {
        "metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "10"},
    }}]);
    let path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/n/queue";
    let mut world = World::of(&json!({"minReplicas": 0, "metrics": external}), 0);
    world.answers(path, &json!([{"value": "25"}]));
    world.at(0);
    let expected =
        "False ScalingDisabled: scaling is disabled since the replica count of the target is zero";
    assert_eq!(
        (world.condition("ScalingActive"), world.cluster.scales.len()),
        (expected.to_owned(), 0)
    );

    let mut world = World::of(&json!({"minReplicas": 0, "metrics": external}), 2);
    world.answers(path, &json!([{"value": "0"}]));
    world.at(0);
    world.at(301);
    assert_eq!(
        world
            .cluster
            .scales
            .last()
            .map(|(_, own)| own["spec"]["replicas"].clone()),
        Some(json!(0))
    );
    assert!(
        world
            .condition("ScaledToZero")
            .starts_with("True ScaledToZero: ")
    );
    world.scaled_to(0);
    world.answers(path, &json!([{"value": "25"}]));
    world.at(316);
    assert_eq!(
        world
            .cluster
            .scales
            .last()
            .map(|(_, own)| own["spec"]["replicas"].clone()),
        Some(json!(3))
    );
    assert!(
        world
            .condition("ScaledToZero")
            .starts_with("False NotScaledToZero: ")
    );
}

#[test]
fn pods_have_one_autoscaler() {
    let mut world = World::of(&json!({}), 2);
    world.pods_use(&["900m", "900m"]);
    world.at(0);
    let mut other = (*world.scaler()).clone();
    other["metadata"] = json!({"namespace": "n", "name": "a"});
    world.cluster.put(AUTOSCALERS, other);
    world.told();
    let other = Key::new("n", "a");
    let plan = world.cluster.plan(&world.scalers, &other, at(1));
    world.cluster.carry_out(&plan);
    let why = "pods by selector app=web are controlled by more than one HPA (e.g. [n/a n/h])";
    let expected = [
        format!("AmbiguousSelector: {why}"),
        format!("FailedComputeMetricsReplicas: {why}"),
    ];
    assert_eq!(world.told(), expected);
    // Its end sets them free.
    world.cluster.remove(AUTOSCALERS, &key());
    world.at(2);
    let plan = world.cluster.plan(&world.scalers, &other, at(3));
    world.cluster.carry_out(&plan);
    assert!(world.told()[0].starts_with("SuccessfulRescale: "));
}

#[test]
fn a_scale_that_is_refused_is_told_and_not_remembered() {
    let mut world = World::of(&json!({}), 2);
    world.pods_use(&["900m", "900m"]);
    let plan = world.cluster.plan(&world.scalers, &key(), at(0));
    let scale = plan.writes().find_map(|write| match write {
        Write::Told(write, _) => Some((**write).clone()),
        _ => None,
    });
    let failed = Failed {
        write: scale.expect("it is scaled"),
        code: 403,
        reason: "Forbidden".to_owned(),
        message: "no".to_owned(),
        namespace_ends: false,
    };
    let told = world.scalers.report(&world.cluster, &key(), at(0), &failed);
    world.cluster.carry_out(&told);
    let reason = "cpu resource utilization (percentage of request) above target";
    assert_eq!(
        world.told(),
        [format!(
            "FailedRescale: New size: 4; reason: {reason}; error: no"
        )]
    );
    let expected =
        "False FailedUpdateScale: the HPA controller was unable to update the target scale: no";
    assert_eq!(world.condition("AbleToScale"), expected);
    world.scalers.memories.with(&key(), |memory, _| {
        assert_eq!(memory.added.within(at(1), 60).count(), 0);
    });
}

#[test]
fn an_autoscaler_is_looked_at_when_its_spec_changes() {
    let world = World::of(&json!({}), 1);
    let before = world.scaler();
    let changed = |field: &str| {
        let mut after = (*before).clone();
        after[field]["x"] = 1.into();
        Some(Arc::new(after))
    };
    for (before, after, expected) in [
        (None, Some(before.clone()), 1),
        (Some(before.clone()), changed("status"), 0),
        (Some(before.clone()), changed("spec"), 1),
        (Some(before.clone()), None, 1),
    ] {
        let keys =
            world
                .cluster
                .concerned(&world.scalers, AUTOSCALERS, before.as_ref(), after.as_ref());
        assert_eq!(keys.len(), expected);
    }
}
