//! Autoscalers: stored as `autoscaling/v2`, served as `autoscaling/v1` too. What v1 has no
//! field for stands in annotations of its form, as the reference writes them.
//!
//! Source: `pkg/apis/autoscaling/v1/conversion.go` of v1.37.
//!
//! Invariant: to v1 and back is the identity on what v2 says, the order of metrics apart.

use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
/// Annotations that stand for fields.
const ROUND_TRIP: [&str; 6] = [
    METRICS,
    CURRENT_METRICS,
    CONDITIONS,
    BEHAVIOR,
    "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
    "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
];
/// What an autoscaler of v1 without any metric aims at, in percent.
const DEFAULT_UTILIZATION: i64 = 80;
/// Levels of a behavior that are renamed.
const MAX_DEPTH: usize = 8;

/// The `autoscaling/v2` form of a `v1` object.
pub fn to_v2(mut object: Value) -> Value {
    let annotation = |object: &Value, name: &str| -> Option<Value> {
        let text = object["metadata"]["annotations"][name].as_str()?;
        serde_json::from_str(text).ok()
    };
    let listed = |object: &Value, name: &str| match annotation(object, name) {
        Some(Value::Array(list)) => Some(list),
        _ => None,
    };
    let metrics = listed(&object, METRICS).unwrap_or_default();
    let mut metrics: Vec<Value> = metrics.iter().map(|m| metric_to_v2(m, "target")).collect();
    if let Some(percent) = take(&mut object, "spec", "targetCPUUtilizationPercentage") {
        metrics.push(cpu_metric(&percent));
    }
    if metrics.is_empty() {
        metrics.push(cpu_metric(&json!(DEFAULT_UTILIZATION)));
    }
    object["spec"]["metrics"] = json!(metrics);
    if let Some(behavior) = annotation(&object, BEHAVIOR) {
        let behavior = renamed(behavior, MAX_DEPTH, &lowered);
        if behavior.as_object().is_some_and(|map| !map.is_empty()) {
            object["spec"]["behavior"] = behavior;
        }
    }
    let percent = take(&mut object, "status", "currentCPUUtilizationPercentage");
    if let Some(current) = listed(&object, CURRENT_METRICS) {
        let current = current.iter().map(|m| metric_to_v2(m, "current"));
        object["status"]["currentMetrics"] = current.collect();
    } else if let Some(percent) = percent {
        let current = json!({"averageUtilization": percent});
        object["status"]["currentMetrics"] =
            json!([{"type": "Resource", "resource": {"name": "cpu", "current": current}}]);
    }
    if let Some(conditions) = listed(&object, CONDITIONS) {
        object["status"]["conditions"] = json!(conditions);
    }
    without_annotations(&mut object);
    object["apiVersion"] = json!("autoscaling/v2");
    object
}

/// The `autoscaling/v1` form of a `v2` object.
pub fn to_v1(mut object: Value) -> Value {
    without_annotations(&mut object);
    let list = |value: Option<Value>| match value {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    let metrics = list(take(&mut object, "spec", "metrics"));
    let is_cpu = |metric: &&Value| {
        metric["type"] == "Resource"
            && metric["resource"]["name"] == "cpu"
            && !metric["resource"]["target"]["averageUtilization"].is_null()
    };
    if let Some(metric) = metrics.iter().find(is_cpu) {
        let percent = &metric["resource"]["target"]["averageUtilization"];
        object["spec"]["targetCPUUtilizationPercentage"] = percent.clone();
    }
    let others: Vec<Value> = metrics
        .iter()
        .filter(|metric| !is_cpu(metric))
        .map(|metric| metric_to_v1(metric, "target"))
        .collect();
    let current = list(take(&mut object, "status", "currentMetrics"));
    for metric in &current {
        let percent = &metric["resource"]["current"]["averageUtilization"];
        if metric["resource"]["name"] == "cpu" && !percent.is_null() {
            object["status"]["currentCPUUtilizationPercentage"] = percent.clone();
        }
    }
    let current: Vec<Value> = current
        .iter()
        .map(|metric| metric_to_v1(metric, "current"))
        .collect();
    let conditions = list(take(&mut object, "status", "conditions"));
    let behavior = take(&mut object, "spec", "behavior");
    for (name, list) in [
        (METRICS, others),
        (CURRENT_METRICS, current),
        (CONDITIONS, conditions),
    ] {
        if !list.is_empty() {
            object["metadata"]["annotations"][name] = json!(json!(list).to_string());
        }
    }
    if let Some(behavior) = behavior.filter(|behavior| !behavior.is_null()) {
        let behavior = renamed(behavior, MAX_DEPTH, &raised);
        object["metadata"]["annotations"][BEHAVIOR] = json!(behavior.to_string());
    }
    object["apiVersion"] = json!("autoscaling/v1");
    object
}

fn take(object: &mut Value, part: &str, field: &str) -> Option<Value> {
    object.get_mut(part)?.as_object_mut()?.shift_remove(field)
}

fn without_annotations(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    if let Some(annotations) = metadata
        .get_mut("annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.retain(|name, _| !ROUND_TRIP.contains(&name.as_str()));
        if annotations.is_empty() {
            metadata.shift_remove("annotations");
        }
    }
}

fn cpu_metric(percent: &Value) -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": percent});
    json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
}

/// The member of a metric that its type names.
const SOURCES: [&str; 5] = [
    "object",
    "pods",
    "resource",
    "containerResource",
    "external",
];

/// `amount` is `target` in a spec, `current` in a status.
fn metric_to_v1(metric: &Value, amount: &str) -> Value {
    let mut output = Map::new();
    output.insert("type".to_owned(), metric["type"].clone());
    for source in SOURCES {
        if let Some(own) = metric.get(source).filter(|own| !own.is_null()) {
            output.insert(source.to_owned(), source_to_v1(source, own, amount));
        }
    }
    Value::Object(output)
}

fn source_to_v1(source: &str, own: &Value, amount: &str) -> Value {
    let value = &own[amount];
    let named = |name: &str| format!("{amount}{name}");
    // What v1 cannot leave out.
    let always = |value: &Value| match value {
        Value::Null => json!("0"),
        value => value.clone(),
    };
    let mut output = Map::new();
    let mut set = |name: &str, value: Value| {
        if !value.is_null() {
            output.insert(name.to_owned(), value);
        }
    };
    let current = amount == "current";
    match source {
        "object" => {
            set("target", own["describedObject"].clone());
            set("metricName", own["metric"]["name"].clone());
            set(&named("Value"), always(&value["value"]));
            set("selector", own["metric"]["selector"].clone());
            set("averageValue", value["averageValue"].clone());
        }
        "pods" => {
            set("metricName", own["metric"]["name"].clone());
            set(&named("AverageValue"), always(&value["averageValue"]));
            set("selector", own["metric"]["selector"].clone());
        }
        "external" => {
            set("metricName", own["metric"]["name"].clone());
            set("metricSelector", own["metric"]["selector"].clone());
            let amount = match current {
                true => always(&value["value"]),
                false => value["value"].clone(),
            };
            set(&named("Value"), amount);
            set(&named("AverageValue"), value["averageValue"].clone());
        }
        _ => {
            set("name", own["name"].clone());
            set(
                &named("AverageUtilization"),
                value["averageUtilization"].clone(),
            );
            let average = match current {
                true => always(&value["averageValue"]),
                false => value["averageValue"].clone(),
            };
            set(&named("AverageValue"), average);
            if source == "containerResource" {
                set("container", own["container"].clone());
            }
        }
    }
    Value::Object(output)
}

fn metric_to_v2(metric: &Value, amount: &str) -> Value {
    let mut output = Map::new();
    output.insert("type".to_owned(), metric["type"].clone());
    for source in SOURCES {
        if let Some(own) = metric.get(source).filter(|own| !own.is_null()) {
            output.insert(source.to_owned(), source_to_v2(source, own, amount));
        }
    }
    Value::Object(output)
}

fn source_to_v2(source: &str, own: &Value, amount: &str) -> Value {
    let named = |name: &str| own[format!("{amount}{name}")].clone();
    let (value, average, percent) = match source {
        "object" => (named("Value"), own["averageValue"].clone(), Value::Null),
        "pods" => (Value::Null, named("AverageValue"), Value::Null),
        "external" => (named("Value"), named("AverageValue"), Value::Null),
        _ => (
            Value::Null,
            named("AverageValue"),
            named("AverageUtilization"),
        ),
    };
    // v1 writes a zero where v2 has no value beside an average.
    let value = match (amount, source) {
        ("target", "object") if !average.is_null() && value == "0" => Value::Null,
        _ => value,
    };
    let mut amounts = Map::new();
    if amount == "target" {
        let kind = match source {
            _ if !percent.is_null() => "Utilization",
            "object" if average.is_null() => "Value",
            "external" if !value.is_null() => "Value",
            _ => "AverageValue",
        };
        amounts.insert("type".to_owned(), json!(kind));
    }
    for (name, value) in [
        ("value", value),
        ("averageValue", average),
        ("averageUtilization", percent),
    ] {
        if !value.is_null() {
            amounts.insert(name.to_owned(), value);
        }
    }
    let mut output = Map::new();
    if source == "object" {
        output.insert("describedObject".to_owned(), own["target"].clone());
    }
    if matches!(source, "object" | "pods" | "external") {
        let mut identifier = json!({"name": own["metricName"]});
        let selector = match source {
            "external" => &own["metricSelector"],
            _ => &own["selector"],
        };
        if !selector.is_null() {
            identifier["selector"] = selector.clone();
        }
        output.insert("metric".to_owned(), identifier);
    } else {
        output.insert("name".to_owned(), own["name"].clone());
        if source == "containerResource" {
            output.insert("container".to_owned(), own["container"].clone());
        }
    }
    output.insert(amount.to_owned(), Value::Object(amounts));
    Value::Object(output)
}

/// A behavior's names begin with capitals in the annotation, and nothing is left out.
fn renamed(value: Value, depth: usize, rename: &dyn Fn(&str) -> String) -> Value {
    let Some(depth) = depth.checked_sub(1) else {
        return Value::Null;
    };
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, inner)| !inner.is_null())
            .map(|(name, inner)| (rename(&name), renamed(inner, depth, rename)))
            .collect::<Map<String, Value>>()
            .into(),
        Value::Array(list) => list
            .into_iter()
            .map(|inner| renamed(inner, depth, rename))
            .collect(),
        other => other,
    }
}

fn raised(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

fn lowered(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_v2_says_survives_v1() {
        let v2 = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a", "annotations": {"own": "x"}},
            "spec": {
                "maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"},
                "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "5"}}},
                    {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "r", "selector": {"matchLabels": {"a": "b"}}}, "target": {"type": "Value", "value": "10k"}}},
                    {"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "30"}}},
                    {"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c", "target": {"type": "Utilization", "averageUtilization": 60}}},
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                ],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5, "policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}]}},
            },
            "status": {
                "currentReplicas": 1, "desiredReplicas": 2,
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageValue": "12m", "averageUtilization": 40}}}],
                "conditions": [{"type": "AbleToScale", "status": "True"}],
            },
        });
        let v1 = to_v1(v2.clone());
        assert_eq!(v1["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(v1["status"]["currentCPUUtilizationPercentage"], 40);
        assert!(v1["spec"].get("metrics").is_none());
        let behavior = v1["metadata"]["annotations"][BEHAVIOR].as_str();
        assert!(
            behavior.is_some_and(|text| text.contains("\"ScaleDown\"")),
            "{behavior:?}"
        );
        assert_eq!(to_v2(v1), v2);
    }

    #[test]
    fn an_autoscaler_of_v1_without_a_target_aims_at_the_default() {
        let v1 = json!({"apiVersion": "autoscaling/v1", "metadata": {"name": "a"}, "spec": {"maxReplicas": 3}});
        let v2 = to_v2(v1);
        assert_eq!(v2["spec"]["metrics"], json!([cpu_metric(&json!(80))]));
    }
}
