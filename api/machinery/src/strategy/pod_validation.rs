//! Checks of pods, with the paths and words of the reference
//! (`pkg/apis/core/validation` of v1.37) for what people commonly get wrong.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::quantity::Quantity;
use crate::validation::{self, Errors};

const UPDATABLE: &str = "pod updates may not change fields other than \
`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
`spec.tolerations` (only additions to existing tolerations),\
`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn validate(pod: &Value, errors: &mut Errors) {
    let spec = &pod["spec"];
    let volumes = validate_volumes(spec, errors);
    let mut names = BTreeSet::new();
    if list(spec, "containers").is_empty() {
        errors.required("spec.containers", "");
    }
    for kind in ["containers", "initContainers", "ephemeralContainers"] {
        for (at, container) in list(spec, kind).iter().enumerate() {
            let path = format!("spec.{kind}[{at}]");
            validate_container(container, &path, &volumes, errors);
            if kind == "initContainers" && container["restartPolicy"] != "Always" {
                for key in [
                    "lifecycle",
                    "livenessProbe",
                    "readinessProbe",
                    "startupProbe",
                ] {
                    if !container[key].is_null() {
                        let detail =
                            "may not be set for init containers without restartPolicy=Always";
                        errors.forbidden(&format!("{path}.{key}"), detail);
                    }
                }
            }
            let name = text(container, "name");
            if !name.is_empty() && !names.insert(name) {
                errors.duplicate(&format!("{path}.name"), &container["name"]);
            }
        }
    }
    enumerated(
        errors,
        spec,
        "spec",
        "restartPolicy",
        &["Always", "OnFailure", "Never"],
    );
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    enumerated(errors, spec, "spec", "dnsPolicy", &dns);
    validation::labels(errors, "spec.nodeSelector", spec.get("nodeSelector"));
    named(
        errors,
        spec,
        "serviceAccountName",
        validation::dns_subdomain,
    );
    named(errors, spec, "nodeName", validation::dns_subdomain);
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64()
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        errors.invalid(
            "spec.activeDeadlineSeconds",
            &json!(seconds),
            "must be between 1 and 2147483647, inclusive",
        );
    }
    named(errors, spec, "hostname", validation::dns_label);
    named(errors, spec, "subdomain", validation::dns_label);
    named(errors, spec, "priorityClassName", validation::dns_subdomain);
    validate_tolerations(spec, errors);
}

fn named(errors: &mut Errors, spec: &Value, key: &str, check: fn(&str) -> Vec<String>) {
    let value = text(spec, key);
    if !value.is_empty() {
        errors.each(&format!("spec.{key}"), value, check(value));
    }
}

fn enumerated(errors: &mut Errors, owner: &Value, path: &str, key: &str, known: &[&str]) {
    let value = text(owner, key);
    let path = format!("{path}.{key}");
    if value.is_empty() {
        errors.required(&path, "");
    } else if !known.contains(&value) {
        errors.not_supported(&path, value, known);
    }
}

fn validate_volumes(spec: &Value, errors: &mut Errors) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, volume) in list(spec, "volumes").iter().enumerate() {
        let path = format!("spec.volumes[{at}]");
        let mut sources: Vec<&str> = volume
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, value)| *key != "name" && !value.is_null())
            .map(|(key, _)| key.as_str())
            .collect();
        // The reference looks at this one first.
        sources.sort_by_key(|source| *source != "emptyDir");
        if sources.is_empty() {
            errors.required(&path, "must specify a volume type");
        }
        for extra in sources.iter().skip(1) {
            errors.forbidden(
                &format!("{path}.{extra}"),
                "may not specify more than 1 volume type",
            );
        }
        for (source, key) in [
            ("secret", "secretName"),
            ("configMap", "name"),
            ("hostPath", "path"),
            ("persistentVolumeClaim", "claimName"),
        ] {
            if sources.first() == Some(&source) && text(&volume[source], key).is_empty() {
                errors.required(&format!("{path}.{source}.{key}"), "");
            }
        }
        let name = text(volume, "name");
        if name.is_empty() {
            errors.required(&format!("{path}.name"), "");
        } else {
            errors.each(&format!("{path}.name"), name, validation::dns_label(name));
        }
        if !names.insert(name.to_owned()) {
            errors.duplicate(&format!("{path}.name"), &volume["name"]);
        }
    }
    names
}

fn validate_container(
    container: &Value,
    path: &str,
    volumes: &BTreeSet<String>,
    errors: &mut Errors,
) {
    let name = text(container, "name");
    if name.is_empty() {
        errors.required(&format!("{path}.name"), "");
    } else {
        errors.each(&format!("{path}.name"), name, validation::dns_label(name));
    }
    if text(container, "image").is_empty() {
        errors.required(&format!("{path}.image"), "");
    }
    let known = ["File", "FallbackToLogsOnError"];
    enumerated(errors, container, path, "terminationMessagePolicy", &known);
    validate_ports(container, path, errors);
    for (at, variable) in list(container, "env").iter().enumerate() {
        validate_variable(variable, &format!("{path}.env[{at}]"), errors);
    }
    validate_mounts(container, path, volumes, errors);
    enumerated(
        errors,
        container,
        path,
        "imagePullPolicy",
        &["Always", "IfNotPresent", "Never"],
    );
    validate_resources(
        &container["resources"],
        &format!("{path}.resources"),
        errors,
    );
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if !container[probe].is_null() {
            validate_probe(&container[probe], &format!("{path}.{probe}"), errors);
        }
    }
}

fn validate_ports(container: &Value, path: &str, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    for (at, port) in list(container, "ports").iter().enumerate() {
        let path = format!("{path}.ports[{at}]");
        let name = text(port, "name");
        if !name.is_empty() {
            let wrong = validation::port_name(name);
            if wrong.is_empty() && !names.insert(name) {
                errors.duplicate(&format!("{path}.name"), &port["name"]);
            }
            errors.each(&format!("{path}.name"), name, wrong);
        }
        match port["containerPort"].as_i64().unwrap_or(0) {
            0 => errors.required(&format!("{path}.containerPort"), ""),
            number => check_port(&format!("{path}.containerPort"), number, errors),
        }
        match port["hostPort"].as_i64().unwrap_or(0) {
            0 => {}
            number => check_port(&format!("{path}.hostPort"), number, errors),
        }
        enumerated(errors, port, &path, "protocol", &["SCTP", "TCP", "UDP"]);
    }
}

fn check_port(path: &str, number: i64, errors: &mut Errors) {
    for message in validation::port_number(number) {
        errors.invalid(path, &json!(number), &message);
    }
}

fn validate_variable(variable: &Value, path: &str, errors: &mut Errors) {
    let name = text(variable, "name");
    if name.is_empty() {
        errors.required(&format!("{path}.name"), "");
    } else {
        errors.each(&format!("{path}.name"), name, validation::env_name(name));
    }
    let Some(from) = variable["valueFrom"].as_object() else {
        return;
    };
    let path = format!("{path}.valueFrom");
    if from.is_empty() {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, \
                      `secretKeyRef` or `fileKeyRef`";
        errors.invalid_text(&path, "", detail);
    } else if !text(variable, "value").is_empty() {
        errors.invalid_text(&path, "", "may not be specified when `value` is not empty");
    } else if from.len() > 1 {
        errors.invalid_text(
            &path,
            "",
            "may not have more than one field specified at a time",
        );
    }
    for source in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(reference) = from.get(source)
            && text(reference, "key").is_empty()
        {
            errors.required(&format!("{path}.{source}.key"), "");
        }
    }
}

fn validate_mounts(container: &Value, path: &str, volumes: &BTreeSet<String>, errors: &mut Errors) {
    let mut points = BTreeSet::new();
    for (at, mount) in list(container, "volumeMounts").iter().enumerate() {
        let path = format!("{path}.volumeMounts[{at}]");
        let (name, point) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.required(&format!("{path}.name"), "");
        }
        if !volumes.contains(name) {
            errors.not_found(&format!("{path}.name"), name);
        }
        if point.is_empty() {
            errors.required(&format!("{path}.mountPath"), "");
        }
        if !points.insert(point) {
            errors.invalid_text(&format!("{path}.mountPath"), point, "must be unique");
        }
    }
}

fn validate_resources(resources: &Value, root: &str, errors: &mut Errors) {
    let amounts = |key: &str| -> Vec<(String, Quantity)> {
        let map = resources[key].as_object().into_iter().flatten();
        map.filter_map(|(name, value)| Some((name.clone(), Quantity::parse(value.as_str()?).ok()?)))
            .collect()
    };
    let limits = amounts("limits");
    for (key, list) in [("limits", &limits), ("requests", &amounts("requests"))] {
        for (name, quantity) in list {
            let path = format!("{root}.{key}[{name}]");
            let value = json!(quantity.canonical());
            let standard = ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str())
                || name.starts_with("hugepages-");
            if !standard && !name.contains('/') {
                let detail = "must be a standard resource type or fully qualified";
                errors.invalid_text(&path, name, detail);
                errors.invalid_text(&path, name, "must be a standard resource for containers");
            }
            if quantity.is_negative() {
                errors.invalid(&path, &value, NOT_NEGATIVE);
            }
            if !standard && !quantity.is_integer() {
                errors.invalid(&path, &value, "must be an integer");
            }
            let limit = limits
                .iter()
                .find(|(own, _)| own == name)
                .map(|(_, limit)| limit);
            if key == "requests" && limit.is_none() && !standard && name.contains('/') {
                let detail = "Limit must be set for non overcommitable resources";
                errors.required(&format!("{root}.limits"), detail);
            }
            if key == "requests"
                && let Some(limit) = limit
                && quantity > limit
            {
                errors.invalid(
                    &format!("{root}.requests"),
                    &value,
                    &format!(
                        "must be less than or equal to {name} limit of {}",
                        limit.canonical()
                    ),
                );
            }
        }
    }
}

fn validate_probe(probe: &Value, path: &str, errors: &mut Errors) {
    let handlers: Vec<&str> = ["exec", "httpGet", "tcpSocket", "grpc"]
        .into_iter()
        .filter(|name| !probe[*name].is_null())
        .collect();
    if handlers.is_empty() {
        errors.required(path, "must specify a handler type");
    }
    for extra in handlers.iter().skip(1) {
        errors.forbidden(
            &format!("{path}.{extra}"),
            "may not specify more than 1 handler type",
        );
    }
    for handler in ["httpGet", "tcpSocket"] {
        if handlers.first() == Some(&handler) {
            validate_probe_port(
                &probe[handler]["port"],
                &format!("{path}.{handler}.port"),
                errors,
            );
        }
    }
    for key in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        if let Some(number) = probe[key].as_i64().filter(|number| *number < 0) {
            errors.invalid(&format!("{path}.{key}"), &json!(number), NOT_NEGATIVE);
        }
    }
    if !path.ends_with("readinessProbe")
        && let Some(number) = probe["successThreshold"]
            .as_i64()
            .filter(|number| *number != 1)
    {
        errors.invalid(
            &format!("{path}.successThreshold"),
            &json!(number),
            "must be 1",
        );
    }
}

fn validate_probe_port(port: &Value, path: &str, errors: &mut Errors) {
    match port {
        Value::String(name) => errors.each(path, name, validation::port_name(name)),
        number => check_port(path, number.as_i64().unwrap_or(0), errors),
    }
}

fn validate_tolerations(spec: &Value, errors: &mut Errors) {
    for (at, toleration) in list(spec, "tolerations").iter().enumerate() {
        let path = format!("spec.tolerations[{at}]");
        let (key, operator, effect) = (
            text(toleration, "key"),
            text(toleration, "operator"),
            text(toleration, "effect"),
        );
        if !key.is_empty() {
            errors.each(&format!("{path}.key"), key, validation::qualified_name(key));
        } else if operator != "Exists" {
            errors.invalid_text(
                &format!("{path}.operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and \
                 all keys\"",
            );
        }
        if !toleration["tolerationSeconds"].is_null() && effect != "NoExecute" {
            errors.invalid_text(
                &format!("{path}.effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        let value = text(toleration, "value");
        match operator {
            "" | "Equal" => {
                let wrong = validation::label_value(value);
                if !wrong.is_empty() {
                    errors.invalid_text(&format!("{path}.operator"), value, &wrong.join(";"));
                }
            }
            "Exists" if !value.is_empty() => errors.invalid_text(
                &format!("{path}.operator"),
                value,
                "value must be empty when `operator` is 'Exists'",
            ),
            "Exists" => {}
            other => {
                errors.not_supported(&format!("{path}.operator"), other, &["Equal", "Exists"]);
            }
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        if !effect.is_empty() && !effects.contains(&effect) {
            errors.not_supported(&format!("{path}.effect"), effect, &effects);
        }
    }
}

pub(super) fn validate_create(pod: &Value, errors: &mut Errors) {
    let spec = &pod["spec"];
    if !list(spec, "ephemeralContainers").is_empty() {
        errors.forbidden("spec.ephemeralContainers", "cannot be set on create");
    }
    if !text(spec, "nodeName").is_empty() && !list(spec, "schedulingGates").is_empty() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.forbidden("spec.nodeName", detail);
    }
}

pub(super) fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    let (old, new) = (&old["spec"], &new["spec"]);
    for kind in ["containers", "initContainers"] {
        if list(old, kind).len() != list(new, kind).len() {
            let detail = "pod updates may not add or remove containers";
            errors.forbidden(&format!("spec.{kind}"), detail);
            return;
        }
        for (at, container) in list(new, kind).iter().enumerate() {
            let image = text(container, "image");
            if image.trim() != image {
                errors.invalid_text(
                    &format!("spec.{kind}[{at}].image"),
                    image,
                    "must not have leading or trailing whitespace",
                );
            }
        }
    }
    let (before, after) = (
        old["activeDeadlineSeconds"].as_i64(),
        new["activeDeadlineSeconds"].as_i64(),
    );
    match (before, after) {
        (Some(before), Some(after)) if before < after => errors.invalid(
            "spec.activeDeadlineSeconds",
            &json!(after),
            "must be less than or equal to previous value",
        ),
        (Some(_), None) => errors.invalid(
            "spec.activeDeadlineSeconds",
            &Value::Null,
            "must not update from a positive integer to nil value",
        ),
        _ => {}
    }
    validate_added_tolerations(old, new, errors);
    if list(new, "schedulingGates")
        .iter()
        .any(|gate| !list(old, "schedulingGates").contains(gate))
    {
        let detail = "only deletion is allowed, but found new scheduling gate";
        errors.forbidden("spec.schedulingGates", detail);
    }
    if old != &without_updatable(old, new) {
        errors.forbidden("spec", UPDATABLE);
    }
}

fn validate_added_tolerations(old: &Value, new: &Value, errors: &mut Errors) {
    let bare = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(map) = toleration.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        toleration
    };
    let present: Vec<Value> = list(new, "tolerations").iter().map(bare).collect();
    if list(old, "tolerations")
        .iter()
        .any(|toleration| !present.contains(&bare(toleration)))
    {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.forbidden("spec.tolerations", detail);
    }
}

/// The new spec with the fields that may change set back to their old values.
fn without_updatable(old: &Value, new: &Value) -> Value {
    let mut munged = new.clone();
    for kind in ["containers", "initContainers"] {
        for at in 0..list(old, kind).len() {
            munged[kind][at]["image"] = old[kind][at]["image"].clone();
        }
    }
    let gated = !list(old, "schedulingGates").is_empty();
    let free = ["activeDeadlineSeconds", "tolerations", "schedulingGates"];
    let while_gated: &[&str] = if gated {
        &["nodeSelector", "affinity"]
    } else {
        &[]
    };
    if let Some(map) = munged.as_object_mut() {
        for key in free.iter().chain(while_gated) {
            match old.get(*key) {
                Some(value) => map.insert((*key).to_owned(), value.clone()),
                None => map.remove(*key),
            };
        }
        if old["terminationGracePeriodSeconds"]
            .as_i64()
            .is_some_and(|seconds| seconds < 0)
        {
            let value = old["terminationGracePeriodSeconds"].clone();
            map.insert("terminationGracePeriodSeconds".to_owned(), value);
        }
    }
    munged
}
