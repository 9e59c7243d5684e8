//! Horizontal pod autoscalers.
//!
//! Source: `pkg/apis/autoscaling` of v1.37.

use serde_json::{Map, Value, json};

use super::defaults::{made, object_mut, set_default};
use super::resources::container_resource_name;
use super::rules::{PLAIN, Rules};
use super::workloads::no_status;
use crate::validation::{At, Errors, dns_label, path_segment};

/// An hour, in seconds.
const MAX_STABILIZATION_SECONDS: i64 = 3600;
/// Half an hour, in seconds.
const MAX_PERIOD_SECONDS: i64 = 1800;
const SOURCES: &[&str] = &[
    "ContainerResource",
    "External",
    "Object",
    "Pods",
    "Resource",
];

/// Autoscalers.
pub(crate) static HORIZONTAL_POD_AUTOSCALER: Rules = Rules {
    has_status: true,
    counts_generation: true,
    default: default_autoscaler,
    prepare_create: |object, _| no_status(object),
    validate: validate_autoscaler,
    validate_subresource: |_, _, new, errors| {
        let at = new.get("status");
        for condition in at.get("conditions").items() {
            condition.get("observedGeneration").not_negative(errors);
        }
        at.get("currentReplicas").not_negative(errors);
        at.get("desiredReplicas").not_negative(errors);
    },
    ..PLAIN
};

fn default_autoscaler(object: &mut Value) {
    let Some(spec) = object.as_object_mut().and_then(|map| made(map, "spec")) else {
        return;
    };
    set_default(spec, "minReplicas", json!(1));
    // The older version has one target for processors in place of a list.
    let metrics = spec.get("metrics").and_then(Value::as_array);
    let older = spec.contains_key("targetCPUUtilizationPercentage");
    if metrics.is_none_or(Vec::is_empty) && !older {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        spec.insert("metrics".into(), json!([metric]));
    }
    if let Some(behavior) = object_mut(spec, "behavior") {
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        rules(behavior, "scaleUp", json!([pods, percent]), Some(0));
        rules(behavior, "scaleDown", json!([percent]), None);
    }
}

fn rules(behavior: &mut Map<String, Value>, name: &str, policies: Value, window: Option<i64>) {
    let Some(own) = made(behavior, name) else {
        return;
    };
    set_default(own, "selectPolicy", json!("Max"));
    if let Some(seconds) = window {
        set_default(own, "stabilizationWindowSeconds", json!(seconds));
    }
    if own.get("policies").is_none_or(Value::is_null) {
        own.insert("policies".into(), policies);
    }
}

fn validate_autoscaler(at: &At<'_>, errors: &mut Errors) {
    let spec = at.get("spec");
    let (least, most) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    if least.int().is_some_and(|own| own < 0) {
        least.invalid(errors, "must be greater than or equal to 0");
    }
    let highest = most.int().unwrap_or(0);
    if highest == 0 {
        most.required(errors, "");
    } else if highest < 0 {
        most.invalid(errors, "must be greater than or equal to 1");
    }
    if least.int().is_some_and(|least| highest < least) {
        most.invalid_int(errors, "must be greater than or equal to `minReplicas`");
    }
    reference(&spec.get("scaleTargetRef"), true, errors);
    let metrics = spec.get("metrics");
    for metric in metrics.items() {
        metric_spec(&metric, errors);
    }
    let beyond = metrics
        .items()
        .any(|metric| ["Object", "External"].contains(&metric.str("type")));
    if least.int() == Some(0) && !beyond {
        let detail = "must specify at least one Object or External metric to support scaling to \
                      zero replicas";
        metrics.forbidden(errors, detail);
    }
    let behavior = spec.get("behavior");
    for name in ["scaleUp", "scaleDown"] {
        let own = behavior.get(name);
        if own.is_set() {
            scaling_rules(&own, errors);
        }
    }
}

fn reference(at: &At<'_>, needs_group: bool, errors: &mut Errors) {
    at.get("kind").need_check(errors, path_segment);
    at.get("name").need_check(errors, path_segment);
    let version = at.get("apiVersion");
    if version.text().matches('/').count() > 1 {
        let detail = format!("unexpected GroupVersion string: {}", version.text());
        version.invalid_text(errors, &detail);
    } else if needs_group && !version.text().contains('/') {
        version.invalid_text(errors, "apiVersion must specify API group");
    }
}

fn scaling_rules(at: &At<'_>, errors: &mut Errors) {
    let window = at.get("stabilizationWindowSeconds");
    match window.int() {
        Some(own) if own < 0 => {
            window.invalid(errors, "must be greater than or equal to zero");
        }
        Some(own) if own > MAX_STABILIZATION_SECONDS => {
            let detail = format!("must be less than or equal to {MAX_STABILIZATION_SECONDS}");
            window.invalid(errors, &detail);
        }
        _ => {}
    }
    at.get("selectPolicy")
        .may_one_of(errors, &["Disabled", "Max", "Min"]);
    let policies = at.get("policies");
    if policies.is_empty() {
        policies.required(errors, "must specify at least one Policy");
    }
    for policy in policies.items() {
        policy.get("type").one_of(errors, &["Percent", "Pods"]);
        policy.get("value").positive(errors);
        let period = policy.get("periodSeconds");
        if period.positive(errors) && period.int().is_some_and(|own| own > MAX_PERIOD_SECONDS) {
            let detail = format!("must be less than or equal to {MAX_PERIOD_SECONDS}");
            period.invalid(errors, &detail);
        }
    }
    let tolerance = at.get("tolerance");
    if let Some(own) = tolerance.quantity().filter(|own| own.is_negative()) {
        let detail = "must be greater than or equal to 0";
        tolerance.invalid_as(errors, own.canonical(), detail);
    }
}

fn metric_spec(at: &At<'_>, errors: &mut Errors) {
    let kind = at.get("type");
    if kind.is_empty() {
        kind.required(errors, "must specify a metric source type");
    }
    kind.one_of(errors, SOURCES);
    let fields = [
        "object",
        "external",
        "pods",
        "resource",
        "containerResource",
    ];
    let present: Vec<&str> = fields.into_iter().filter(|name| at.has(name)).collect();
    if let Some(first) = present.first() {
        metric_source(first, &at.get(first), errors);
    }
    let expected = match kind.text() {
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        "External" => "external",
        "ContainerResource" => "containerResource",
        _ => "",
    };
    if !expected.is_empty() && !at.has(expected) {
        let detail = "must populate information for the given metric source";
        at.get(expected).required(errors, detail);
    }
    if present.len() != 1 {
        for extra in present.iter().filter(|name| **name != expected) {
            let detail = "must populate the given metric source only";
            at.get(extra).forbidden(errors, detail);
        }
    }
}

fn metric_source(name: &str, at: &At<'_>, errors: &mut Errors) {
    let target_at = at.get("target");
    let has = |name: &str| target_at.has(name);
    let both = has("averageUtilization") && has("averageValue");
    match name {
        "object" => {
            reference(&at.get("describedObject"), false, errors);
            identifier(&at.get("metric"), errors);
            target(&target_at, errors);
            if !has("value") && !has("averageValue") {
                let detail = "must set either a target value or averageValue";
                target_at.get("averageValue").required(errors, detail);
            }
        }
        "external" => {
            identifier(&at.get("metric"), errors);
            target(&target_at, errors);
            match (has("value"), has("averageValue")) {
                (false, false) => {
                    let detail = "must set either a target value for metric or a per-pod target";
                    target_at.get("averageValue").required(errors, detail);
                }
                (true, true) => {
                    let detail = "may not set both a target value for metric and a per-pod target";
                    target_at.get("value").forbidden(errors, detail);
                }
                _ => {}
            }
        }
        "pods" => {
            identifier(&at.get("metric"), errors);
            target(&target_at, errors);
            if !has("averageValue") {
                let detail = "must specify a positive target averageValue";
                target_at.get("averageValue").required(errors, detail);
            }
        }
        _ => {
            let own = at.get("name");
            if own.is_empty() {
                own.required(errors, "must specify a resource name");
            } else if name == "containerResource" {
                container_resource_name(&own, own.text(), errors);
            }
            if name == "containerResource" {
                let container = at.get("container");
                if container.is_empty() {
                    container.required(errors, "must specify a container");
                } else {
                    container.check(errors, dns_label);
                }
            }
            target(&target_at, errors);
            if !has("averageUtilization") && !has("averageValue") {
                let detail = "must set either a target raw value or a target utilization";
                target_at.get("averageUtilization").required(errors, detail);
            }
            if both {
                let detail = "may not set both a target raw value and a target utilization";
                target_at.get("averageValue").forbidden(errors, detail);
            }
        }
    }
}

fn identifier(at: &At<'_>, errors: &mut Errors) {
    let name = at.get("name");
    if name.is_empty() {
        name.required(errors, "must specify a metric name");
    } else {
        name.check(errors, path_segment);
    }
}

fn target(at: &At<'_>, errors: &mut Errors) {
    let kind = at.get("type");
    if kind.is_empty() {
        kind.required(errors, "must specify a metric target type");
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind.text()) {
        let detail = "must be either Utilization, Value, or AverageValue";
        kind.invalid_text(errors, detail);
    }
    for name in ["value", "averageValue"] {
        let own = at.get(name);
        if own
            .quantity()
            .is_some_and(|own| own.is_negative() || own.is_zero())
        {
            own.invalid(errors, "must be positive");
        }
    }
    let share = at.get("averageUtilization");
    if share.int().is_some_and(|own| own < 1) {
        share.invalid(errors, "must be greater than 0");
    }
}
