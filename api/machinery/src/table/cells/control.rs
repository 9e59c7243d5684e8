//! Kinds that say who may do what, how much, and by which rules.

use serde_json::{Value, json};

use super::*;

pub(super) fn quota(object: &Value, now: i64) -> Vec<Value> {
    let status = &object["status"];
    let mut hard: Vec<(&String, &Value)> =
        status["hard"].as_object().into_iter().flatten().collect();
    hard.sort_by(|left, right| left.0.cmp(right.0));
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, amount) in hard {
        let used = status["used"][resource].as_str().unwrap_or("0");
        let entry = format!("{resource}: {used}/{}", amount.as_str().unwrap_or("0"));
        match resource.starts_with("limits.") {
            true => limits.push(entry),
            false => requests.push(entry),
        }
    }
    vec![
        name(object),
        json!(requests.join(", ")),
        json!(limits.join(", ")),
        age(object, now),
    ]
}

pub(super) fn role_binding(object: &Value, now: i64) -> Vec<Value> {
    let role = &object["roleRef"];
    let of_kind = |kind: &str| {
        let subjects = list(&object["subjects"]).iter();
        let names = subjects.filter(|own| own["kind"] == kind).map(|own| {
            let own_name = text(own, "name");
            match kind {
                "ServiceAccount" => format!("{}/{own_name}", text(own, "namespace")),
                _ => own_name.to_owned(),
            }
        });
        json!(names.collect::<Vec<_>>().join(", "))
    };
    vec![
        name(object),
        json!(format!("{}/{}", text(role, "kind"), text(role, "name"))),
        age(object, now),
        of_kind("User"),
        of_kind("Group"),
        of_kind("ServiceAccount"),
    ]
}

pub(super) fn signing_request(object: &Value, now: i64) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let conditions = list(&status["conditions"]);
    let has = |kind: &str| conditions.iter().any(|own| own["type"] == kind);
    let mut state = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !text(status, "certificate").is_empty() {
        state.push_str(",Issued");
    }
    let asked = spec["expirationSeconds"].as_i64();
    vec![
        name(object),
        age(object, now),
        json!(or(text(spec, "signerName"), NONE)),
        json!(text(spec, "username")),
        json!(asked.map_or(NONE.to_owned(), duration::human)),
        json!(state),
    ]
}

pub(super) fn trust_bundle(object: &Value, _now: i64) -> Vec<Value> {
    let signer = or(text(&object["spec"], "signerName"), NONE);
    vec![name(object), json!(signer)]
}

pub(super) fn pod_certificate(object: &Value, _now: i64) -> Vec<Value> {
    let spec = &object["spec"];
    let known = ["Issued", "Denied", "Failed"];
    let states = list(&object["status"]["conditions"]).iter();
    let state = states
        .map(|own| text(own, "type"))
        .rfind(|own| known.contains(own));
    vec![
        name(object),
        json!(text(spec, "podName")),
        json!(text(spec, "serviceAccountName")),
        json!(text(spec, "nodeName")),
        json!(text(spec, "signerName")),
        json!(state.unwrap_or("Pending")),
        labels(&spec["unverifiedUserAnnotations"]),
    ]
}

pub(super) fn webhooks(object: &Value, now: i64) -> Vec<Value> {
    let webhooks = list(&object["webhooks"]).len();
    vec![name(object), json!(webhooks), age(object, now)]
}

pub(super) fn validating_policy(object: &Value, now: i64) -> Vec<Value> {
    policy(object, "validations", now)
}

pub(super) fn mutating_policy(object: &Value, now: i64) -> Vec<Value> {
    policy(object, "mutations", now)
}

fn policy(object: &Value, rules: &str, now: i64) -> Vec<Value> {
    let spec = &object["spec"];
    let parameter = match &spec["paramKind"] {
        Value::Null => UNSET.to_owned(),
        kind => format!("{}/{}", text(kind, "apiVersion"), text(kind, "kind")),
    };
    vec![
        name(object),
        json!(list(&spec[rules]).len()),
        json!(parameter),
        age(object, now),
    ]
}

pub(super) fn policy_binding(object: &Value, now: i64) -> Vec<Value> {
    let spec = &object["spec"];
    let reference = &spec["paramRef"];
    let parameter = match (text(reference, "name"), text(reference, "namespace")) {
        ("", _) if !reference["selector"].is_null() => go_selector(&reference["selector"]),
        ("", _) => UNSET.to_owned(),
        (own, "") => format!("*/{own}"),
        (own, namespace) => format!("{namespace}/{own}"),
    };
    vec![
        name(object),
        json!(text(spec, "policyName")),
        json!(parameter),
        age(object, now),
    ]
}

/// A selector as Go's generated code prints it.
fn go_selector(selector: &Value) -> String {
    let mut labels: Vec<(&String, &Value)> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .collect();
    labels.sort_by(|left, right| left.0.cmp(right.0));
    let labels: String = labels
        .iter()
        .map(|(key, value)| format!("{key}: {},", value.as_str().unwrap_or_default()))
        .collect();
    let expressions: String = list(&selector["matchExpressions"])
        .iter()
        .map(|own| {
            format!(
                "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{}],}},",
                text(own, "key"),
                text(own, "operator"),
                strings(&own["values"]).join(" ")
            )
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},\
         MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

pub(super) fn priority_class(object: &Value, now: i64) -> Vec<Value> {
    vec![
        name(object),
        json!(int(&object["value"])),
        json!(object["globalDefault"] == true),
        age(object, now),
        json!(text(object, "preemptionPolicy")),
    ]
}

pub(super) fn runtime_class(object: &Value, now: i64) -> Vec<Value> {
    vec![
        name(object),
        json!(text(object, "handler")),
        age(object, now),
    ]
}

pub(super) fn flow_schema(object: &Value, now: i64) -> Vec<Value> {
    let spec = &object["spec"];
    let dangling = list(&object["status"]["conditions"])
        .iter()
        .find(|own| own["type"] == "Dangling");
    let method = match &spec["distinguisherMethod"] {
        Value::Null => NONE,
        method => text(method, "type"),
    };
    vec![
        name(object),
        json!(text(&spec["priorityLevelConfiguration"], "name")),
        json!(int(&spec["matchingPrecedence"])),
        json!(method),
        age(object, now),
        json!(dangling.map_or("?", |own| text(own, "status"))),
    ]
}

pub(super) fn priority_level(object: &Value, now: i64) -> Vec<Value> {
    let spec = &object["spec"];
    let limited = &spec["limited"];
    let queuing = &limited["limitResponse"]["queuing"];
    let number = |owner: &Value, key: &str| match owner {
        Value::Null => json!(NONE),
        owner => json!(int(&owner[key])),
    };
    vec![
        name(object),
        json!(text(spec, "type")),
        number(limited, "nominalConcurrencyShares"),
        number(queuing, "queues"),
        number(queuing, "handSize"),
        number(queuing, "queueLengthLimit"),
        age(object, now),
    ]
}

pub(super) fn component_status(object: &Value, _now: i64) -> Vec<Value> {
    let healthy = list(&object["conditions"])
        .iter()
        .find(|own| own["type"] == "Healthy")
        .unwrap_or(&Value::Null);
    let state = match text(healthy, "status") {
        "" => "Unknown",
        "True" => "Healthy",
        _ => "Unhealthy",
    };
    vec![
        name(object),
        json!(state),
        json!(text(healthy, "message")),
        json!(text(healthy, "error")),
    ]
}

pub(super) fn migration(object: &Value, _now: i64) -> Vec<Value> {
    let resource = &object["spec"]["resource"];
    let known = ["Running", "Failed", "Succeeded"];
    let conditions = list(&object["status"]["conditions"]).iter();
    let state = conditions
        .filter(|own| own["status"] == "True")
        .map(|own| text(own, "type"))
        .rfind(|own| known.contains(own));
    vec![
        name(object),
        json!(qualified(
            text(resource, "resource"),
            text(resource, "group")
        )),
        json!(state.unwrap_or("Unknown")),
    ]
}

pub(super) fn definition(object: &Value, _now: i64) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let served = list(&spec["versions"])
        .iter()
        .filter(|own| own["served"] == true)
        .map(|own| match own["storage"] == true {
            true => format!("{}(storage)", text(own, "name")),
            false => text(own, "name").to_owned(),
        });
    let mut served: Vec<String> = served.collect();
    served.sort();
    let names = &spec["names"];
    vec![
        name(object),
        json!(text(spec, "scope")),
        json!(served.join(",")),
        created(object),
        json!(text(spec, "group")),
        json!(text(names, "kind")),
        json!(strings(&names["shortNames"]).join(",")),
        json!(has_condition(status, "Established")),
    ]
}

pub(super) fn api_service(object: &Value, now: i64) -> Vec<Value> {
    let service = match &object["spec"]["service"] {
        Value::Null => "Local".to_owned(),
        service => format!("{}/{}", text(service, "namespace"), text(service, "name")),
    };
    let available = list(&object["status"]["conditions"])
        .iter()
        .find(|own| own["type"] == "Available");
    let available = match available.map(|own| (text(own, "status"), text(own, "reason"))) {
        None => "Unknown".to_owned(),
        Some(("True", _)) => "True".to_owned(),
        Some((status, "")) => status.to_owned(),
        Some((status, reason)) => format!("{status} ({reason})"),
    };
    vec![
        name(object),
        json!(service),
        json!(available),
        age(object, now),
    ]
}
