//! One metric of an autoscaler: what it proposes, and what its status says.

use nautilus_machinery::quantity::Quantity;
use serde_json::{Map, Value, json};

use super::measure::{Source, milli};
use super::replicas::{Goal, Measured, Proposal};
use crate::object;

/// What a metric proposes.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) replicas: i64,
    /// What people are told it is.
    pub(super) name: String,
    /// Its entry in `status.currentMetrics`.
    pub(super) status: Value,
}

/// Why it proposes nothing.
#[derive(Debug)]
pub(super) struct Unknown {
    /// Of the condition and the event.
    pub(super) reason: &'static str,
    pub(super) why: String,
    /// The same, as part of the whole.
    pub(super) context: String,
}

/// Reads a metric. `there` is the number of replicas that there are.
pub(super) fn read(
    metric: &Value,
    source: Source<'_>,
    measured: &Measured<'_>,
    there: i64,
) -> Result<Found, Unknown> {
    let kind = metric["type"].as_str().unwrap_or_default();
    let unknown = |reason: &'static str, of: String, why: String| Unknown {
        reason,
        context: format!("failed to get {of} value: {why}"),
        why,
    };
    match kind {
        "Resource" => {
            let own = &metric["resource"];
            let resource = text(own, "name");
            let found = resource_metric(metric, own, "", source, measured);
            let told = |why| {
                unknown(
                    "FailedGetResourceMetric",
                    format!("{resource} resource metric"),
                    why,
                )
            };
            found.map_err(told)
        }
        "ContainerResource" => {
            let own = &metric["containerResource"];
            let container = text(own, "container");
            let found = resource_metric(metric, own, container, source, measured);
            let of = format!("{container} container metric");
            found.map_err(|why| unknown("FailedGetContainerResourceMetric", of, why))
        }
        "Pods" => {
            let found = pods_metric(metric, source, measured);
            let of = "pods metric".to_owned();
            found.map_err(|why| unknown("FailedGetPodsMetric", of, why))
        }
        "Object" => {
            let found = object_metric(metric, source, measured, there);
            let of = "object metric".to_owned();
            found.map_err(|why| unknown("FailedGetObjectMetric", of, why))
        }
        "External" => {
            let found = external_metric(metric, source, measured, there);
            let name = text(&metric["external"]["metric"], "name");
            let of = format!("{name} external metric");
            found.map_err(|why| unknown("FailedGetExternalMetric", of, why))
        }
        other => {
            let why = format!("unknown metric source type {other:?}");
            Err(Unknown {
                reason: "InvalidMetricSourceType",
                context: why.clone(),
                why,
            })
        }
    }
}

fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    of[field].as_str().unwrap_or_default()
}

fn resource_metric(
    metric: &Value,
    own: &Value,
    container: &str,
    source: Source<'_>,
    measured: &Measured<'_>,
) -> Result<Found, String> {
    let resource = text(own, "name");
    let target = &own["target"];
    let samples = || {
        let samples = source.resource(metric, resource, container);
        samples.map_err(|why| format!("unable to get metrics for resource {resource}: {why}"))
    };
    let form = match resource {
        "memory" => Form::Binary,
        _ => Form::Decimal,
    };
    let mut current = Map::new();
    let (proposal, name) = if target["averageValue"].is_null() {
        let Some(percent) = target["averageUtilization"].as_i64() else {
            return Err(
                "invalid resource metric source: neither an average utilization target \
                        nor an average value (usage) target was set"
                    .to_owned(),
            );
        };
        let goal = Goal::Percent {
            percent,
            resource,
            container,
        };
        let proposal = samples().and_then(|own| measured.by_pods(&goal, resource, own));
        let failed = |why| format!("failed to get {resource} utilization: {why}");
        let proposal = proposal.map_err(failed)?;
        current.insert("averageUtilization".to_owned(), proposal.percent.into());
        let of = if container.is_empty() {
            ""
        } else {
            "container "
        };
        let name = format!("{resource} {of}resource utilization (percentage of request)");
        (proposal, name)
    } else {
        let goal = Goal::Milli(milli(&target["averageValue"]));
        let proposal = samples().and_then(|own| measured.by_pods(&goal, resource, own));
        let failed = |why| format!("failed to get {resource} usage: {why}");
        (proposal.map_err(failed)?, format!("{resource} resource"))
    };
    let average = quantity(proposal.milli, form);
    current.insert("averageValue".to_owned(), average.into());
    let status = match container {
        "" => json!({"type": "Resource", "resource": {"name": resource, "current": current}}),
        container => json!({"type": "ContainerResource", "containerResource": {
            "name": resource, "container": container, "current": current,
        }}),
    };
    Ok(Found {
        replicas: proposal.replicas,
        name,
        status,
    })
}

fn pods_metric(
    metric: &Value,
    source: Source<'_>,
    measured: &Measured<'_>,
) -> Result<Found, String> {
    let own = &metric["pods"];
    let name = text(&own["metric"], "name");
    let goal = Goal::Milli(milli(&own["target"]["averageValue"]));
    let samples = source.pods(metric);
    let samples = samples.map_err(|why| format!("unable to get metric {name}: {why}"))?;
    let proposal = measured.by_pods(&goal, "", samples)?;
    let current = json!({"averageValue": quantity(proposal.milli, Form::Decimal)});
    Ok(Found {
        replicas: proposal.replicas,
        name: format!("pods metric {name}"),
        status: json!({"type": "Pods", "pods": {"metric": own["metric"], "current": current}}),
    })
}

fn object_metric(
    metric: &Value,
    source: Source<'_>,
    measured: &Measured<'_>,
    there: i64,
) -> Result<Found, String> {
    let own = &metric["object"];
    let (name, described) = (text(&own["metric"], "name"), &own["describedObject"]);
    let (kind, target) = (text(described, "kind"), &own["target"]);
    let value = || {
        let namespace = object::namespace(source.scaler);
        let place = format!("{kind} {namespace}/{}", text(described, "name"));
        let value = source.object(metric);
        value.map_err(|why| format!("unable to get metric {name} on {place}: {why}"))
    };
    let (proposal, field, told) = if target["type"] == "Value" && !target["value"].is_null() {
        let proposal = measured.by_value(value()?, milli(&target["value"]))?;
        (proposal, "value", format!("{kind} metric {name}"))
    } else if target["type"] == "AverageValue" && !target["averageValue"].is_null() {
        let failed = |why| format!("failed to get {name} object metric: {why}");
        let value = value().map_err(failed)?;
        let proposal = measured.by_part(value, milli(&target["averageValue"]), there);
        (proposal, "averageValue", external_name(&own["metric"]))
    } else {
        return Err(
            "invalid object metric source: neither a value target nor an average value \
                    target was set"
                .to_owned(),
        );
    };
    Ok(found(proposal, told, field, |current| {
        json!({"type": "Object", "object": {
            "metric": own["metric"], "describedObject": described, "current": current,
        }})
    }))
}

fn external_metric(
    metric: &Value,
    source: Source<'_>,
    measured: &Measured<'_>,
    there: i64,
) -> Result<Found, String> {
    let own = &metric["external"];
    let (name, target) = (text(&own["metric"], "name"), &own["target"]);
    let value = || {
        let namespace = object::namespace(source.scaler);
        let selector = shown(&own["metric"]["selector"]);
        let value = source.external(metric);
        value.map_err(|why| {
            format!("unable to get external metric {namespace}/{name}/{selector}: {why}")
        })
    };
    let (proposal, field) = if !target["averageValue"].is_null() {
        let failed = |why| format!("failed to get {name} external metric: {why}");
        let target = milli(&target["averageValue"]);
        let value = value().map_err(failed)?;
        (measured.by_part(value, target, there), "averageValue")
    } else if !target["value"].is_null() {
        let failed = |why| format!("failed to get external metric {name}: {why}");
        let target = milli(&target["value"]);
        let proposal = value().and_then(|value| measured.by_value(value, target));
        (proposal.map_err(failed)?, "value")
    } else {
        return Err(
            "invalid external metric source: neither a value target nor an average \
                    value target was set"
                .to_owned(),
        );
    };
    Ok(found(
        proposal,
        external_name(&own["metric"]),
        field,
        |current| json!({"type": "External", "external": {"metric": own["metric"], "current": current}}),
    ))
}

fn found(
    proposal: Proposal,
    name: String,
    field: &str,
    status: impl FnOnce(Value) -> Value,
) -> Found {
    Found {
        replicas: proposal.replicas,
        name,
        status: status(json!({field: quantity(proposal.milli, Form::Decimal)})),
    }
}

fn external_name(metric: &Value) -> String {
    let name = text(metric, "name");
    format!("external metric {name}({})", shown(&metric["selector"]))
}

/// A selector as Go shows it.
fn shown(selector: &Value) -> String {
    if selector.is_null() {
        return "nil".to_owned();
    }
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let mut labels: Vec<String> = labels
        .map(|(name, value)| format!("{name}: {},", value.as_str().unwrap_or_default()))
        .collect();
    labels.sort();
    let rules = object::items(&selector["matchExpressions"]).map(|rule| {
        let values: Vec<&str> = object::items(&rule["values"])
            .filter_map(Value::as_str)
            .collect();
        let (key, operator) = (text(rule, "key"), text(rule, "operator"));
        let values = values.join(" ");
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},")
    });
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},\
         MatchExpressions:[]LabelSelectorRequirement{{{}}},}}",
        labels.concat(),
        rules.collect::<String>()
    )
}

/// The form in which a quantity is written.
#[derive(Clone, Copy)]
enum Form {
    /// `500m`, `2k`.
    Decimal,
    /// `512Mi`, where it is whole.
    Binary,
}

/// Thousandths, written as a quantity.
fn quantity(milli: i64, form: Form) -> String {
    let parsed = Quantity::parse(&format!("{milli}m"));
    let binary = Quantity::parse("1Ki");
    match (parsed, binary, form) {
        (Ok(own), _, Form::Decimal) => own.plus(&Quantity::of_count(0)).canonical(),
        (Ok(own), Ok(binary), Form::Binary) => binary.plus(&own).minus(&binary).canonical(),
        _ => milli.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_written_in_their_form() {
        for (milli, decimal, binary) in [
            (0, "0", "0"),
            (500, "500m", "500m"),
            (2_000, "2", "2"),
            (3_000_000, "3k", "3000"),
            (1_073_741_824_000, "1073741824", "1Gi"),
            (1_073_741_824_500, "1073741824500m", "1073741824500m"),
        ] {
            assert_eq!(quantity(milli, Form::Decimal), decimal);
            assert_eq!(quantity(milli, Form::Binary), binary);
        }
    }

    #[test]
    fn selectors_are_shown_as_in_go() {
        assert_eq!(shown(&Value::Null), "nil");
        let rules = json!([{"key": "c", "operator": "In", "values": ["d", "e"]}]);
        let selector = json!({"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": rules});
        let expected = "&LabelSelector{MatchLabels:map[string]string{a: 1,b: 2,},\
                        MatchExpressions:[]LabelSelectorRequirement{\
                        LabelSelectorRequirement{Key:c,Operator:In,Values:[d e],},},}";
        assert_eq!(shown(&selector), expected);
    }
}
