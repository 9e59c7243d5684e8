//! The kinds with few rules: config maps, secrets, namespaces, nodes, leases,
//! events.
//!
//! Source: `pkg/apis/{core,coordination}/validation` and `pkg/registry/core` of
//! v1.37.

use serde_json::{Value, json};

use super::Context;
use crate::codec::{base64_bytes, base64_text};
use crate::resource::Resource;
use crate::status::ApiError;
use crate::validation::{self, Errors};

/// Most bytes of data in a config map or secret.
pub const MAX_DATA_BYTES: usize = 1024 * 1024;
const IMMUTABLE: &str = "field is immutable when `immutable` is set";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// Namespaces that may not be deleted.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn entries<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a str)> {
    let map = value[key].as_object().into_iter().flatten();
    map.map(|(key, value)| (key, value.as_str().unwrap_or_default()))
}

fn decoded_len(base64: &str) -> usize {
    base64_bytes(base64).map_or(0, |bytes| bytes.len())
}

pub(super) fn validate_config_map(object: &Value, errors: &mut Errors) {
    let mut size_bytes = 0;
    for (key, value) in entries(object, "data") {
        errors.each(&format!("data[{key}]"), key, validation::config_key(key));
        if !object["binaryData"][key].is_null() {
            let detail = "duplicate of key present in binaryData";
            errors.invalid_text(&format!("data[{key}]"), key, detail);
        }
        size_bytes += value.len();
    }
    for (key, value) in entries(object, "binaryData") {
        errors.each(
            &format!("binaryData[{key}]"),
            key,
            validation::config_key(key),
        );
        size_bytes += decoded_len(value);
    }
    if size_bytes > MAX_DATA_BYTES {
        errors.too_long("[]", MAX_DATA_BYTES);
    }
}

pub(super) fn validate_config_map_update(old: &Value, new: &Value, errors: &mut Errors) {
    immutable(old, new, &["data", "binaryData"], errors);
}

fn immutable(old: &Value, new: &Value, keys: &[&str], errors: &mut Errors) {
    if old["immutable"] != true {
        return;
    }
    if new["immutable"] != true {
        errors.forbidden("immutable", IMMUTABLE);
    }
    for key in keys {
        let (before, after) = (&old[*key], &new[*key]);
        if before != after {
            errors.forbidden(key, IMMUTABLE);
        }
    }
}

pub(super) fn default_secret(secret: &mut Value) {
    let strings: Vec<(String, String)> = entries(secret, "stringData")
        .map(|(key, value)| (key.clone(), base64_text(value.as_bytes())))
        .collect();
    for (key, value) in strings {
        secret["data"][key] = json!(value);
    }
    if let Some(map) = secret.as_object_mut() {
        map.remove("stringData");
    }
    if text(secret, "type").is_empty() {
        secret["type"] = json!("Opaque");
    }
}

pub(super) fn validate_secret(secret: &Value, errors: &mut Errors) {
    let mut size_bytes = 0;
    for (key, value) in entries(secret, "data") {
        errors.each(&format!("data[{key}]"), key, validation::config_key(key));
        size_bytes += decoded_len(value);
    }
    if size_bytes > MAX_DATA_BYTES {
        errors.too_long("data", MAX_DATA_BYTES);
    }
    let missing = |key: &str| secret["data"][key].is_null();
    let mut require = |keys: &[&str]| {
        for key in keys.iter().filter(|key| missing(key)) {
            errors.required(&format!("data[{key}]"), "");
        }
    };
    match text(secret, "type") {
        "kubernetes.io/dockercfg" => require(&[".dockercfg"]),
        "kubernetes.io/dockerconfigjson" => require(&[".dockerconfigjson"]),
        "kubernetes.io/basic-auth" if missing("username") && missing("password") => {
            require(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" if text(&secret["data"], "ssh-privatekey").is_empty() => {
            errors.required("data[ssh-privatekey]", "");
        }
        "kubernetes.io/tls" => require(&["tls.crt", "tls.key"]),
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            if text(&secret["metadata"]["annotations"], key).is_empty() {
                errors.required(&format!("metadata.annotations[{key}]"), "");
            }
        }
        _ => {}
    }
    for (kind, key) in [
        ("kubernetes.io/dockercfg", ".dockercfg"),
        ("kubernetes.io/dockerconfigjson", ".dockerconfigjson"),
    ] {
        let content = base64_bytes(text(&secret["data"], key)).unwrap_or_default();
        if text(secret, "type") == kind && !missing(key) {
            let parsed = serde_json::from_slice::<serde_json::Map<String, Value>>(&content);
            if let Err(error) = parsed {
                let path = format!("data[{key}]");
                errors.invalid_text(&path, "<secret contents redacted>", &error.to_string());
            }
        }
    }
}

pub(super) fn validate_secret_update(old: &Value, new: &Value, errors: &mut Errors) {
    if old["type"] != new["type"] {
        errors.invalid("type", &new["type"], "field is immutable");
    }
    immutable(old, new, &["data"], errors);
}

pub(super) fn default_namespace(namespace: &mut Value) {
    let name = text(&namespace["metadata"], "name").to_owned();
    if !name.is_empty() {
        namespace["metadata"]["labels"][NAME_LABEL] = json!(name);
    }
}

pub(super) fn prepare_namespace(namespace: &mut Value, _context: &Context<'_>) {
    let finalizers = &mut namespace["spec"]["finalizers"];
    if finalizers.is_null() {
        *finalizers = json!([]);
    }
    if let Some(list) = finalizers.as_array_mut()
        && !list.iter().any(|own| own == "kubernetes")
    {
        list.push(json!("kubernetes"));
    }
    namespace["status"] = json!({"phase": "Active"});
}

/// Only `finalize` changes the finalizers of the spec, and nothing else there.
pub(super) fn keep_namespace(subresource: Option<&str>, old: &Value, namespace: &mut Value) {
    if subresource == Some("finalize") {
        namespace["status"] = old["status"].clone();
    } else {
        namespace["spec"] = old["spec"].clone();
    }
    if subresource == Some("status") && old["metadata"]["deletionTimestamp"].is_null() {
        namespace["status"]["phase"] = json!("Active");
    }
}

pub(super) fn may_delete_namespace(resource: &Resource, namespace: &Value) -> Result<(), ApiError> {
    let name = text(&namespace["metadata"], "name");
    if IMMORTAL.contains(&name) {
        let why = "this namespace may not be deleted";
        return Err(ApiError::forbidden_because(resource, name, why));
    }
    Ok(())
}

pub(super) fn mark_namespace_deleted(namespace: &mut Value) {
    namespace["status"]["phase"] = json!("Terminating");
}

/// Addresses of pods in both forms, and what can be allocated.
pub(super) fn default_node(node: &mut Value) {
    if node["status"]["allocatable"].is_null() && !node["status"]["capacity"].is_null() {
        node["status"]["allocatable"] = node["status"]["capacity"].clone();
    }
    let (one, first) = (
        text(&node["spec"], "podCIDR").to_owned(),
        node["spec"]["podCIDRs"][0]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    );
    if one.is_empty() && !first.is_empty() {
        node["spec"]["podCIDR"] = json!(first);
    } else if !one.is_empty() && first.is_empty() {
        node["spec"]["podCIDRs"] = json!([one]);
    }
}

pub(super) fn validate_node(node: &Value, errors: &mut Errors) {
    let mut seen = std::collections::BTreeSet::new();
    for (at, taint) in node["spec"]["taints"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let path = format!("spec.taints[{at}]");
        let (key, value, effect) = (
            text(taint, "key"),
            text(taint, "value"),
            text(taint, "effect"),
        );
        errors.each(&format!("{path}.key"), key, validation::qualified_name(key));
        errors.each(
            &format!("{path}.value"),
            value,
            validation::label_value(value),
        );
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        if effect.is_empty() {
            errors.required(&format!("{path}.effect"), "");
        } else if !effects.contains(&effect) {
            errors.not_supported(&format!("{path}.effect"), effect, &effects);
        }
        if !seen.insert((key, effect)) {
            errors.duplicate(&path, taint);
        }
    }
}

pub(super) fn validate_node_update(old: &Value, new: &Value, errors: &mut Errors) {
    let (before, after) = (
        text(&old["spec"], "providerID"),
        text(&new["spec"], "providerID"),
    );
    if !before.is_empty() && before != after {
        errors.forbidden(
            "spec.providerID",
            "node updates may not change providerID except from \"\" to valid",
        );
    }
    let (before, after) = (text(&old["spec"], "podCIDR"), text(&new["spec"], "podCIDR"));
    if !before.is_empty() && before != after {
        errors.forbidden(
            "spec.podCIDRs",
            "node updates may not change podCIDR except from \"\" to valid",
        );
    }
}

pub(super) fn validate_lease(lease: &Value, errors: &mut Errors) {
    let spec = &lease["spec"];
    if let Some(seconds) = spec["leaseDurationSeconds"]
        .as_i64()
        .filter(|seconds| *seconds <= 0)
    {
        errors.invalid(
            "spec.leaseDurationSeconds",
            &json!(seconds),
            "must be greater than 0",
        );
    }
    if let Some(count) = spec["leaseTransitions"].as_i64().filter(|count| *count < 0) {
        let detail = "must be greater than or equal to 0";
        errors.invalid("spec.leaseTransitions", &json!(count), detail);
    }
    let (preferred, strategy) = (text(spec, "preferredHolder"), text(spec, "strategy"));
    if !preferred.is_empty() && strategy.is_empty() {
        let detail = "may only be specified if `strategy` is defined";
        errors.forbidden("spec.preferredHolder", detail);
    }
}

/// The fields of an event under their names in its group.
struct EventNames {
    about: &'static str,
    controller: &'static str,
    message: &'static str,
}

pub(super) fn validate_event(event: &Value, errors: &mut Errors) {
    let names = EventNames {
        about: "involvedObject",
        controller: "reportingComponent",
        message: "message",
    };
    validate_any_event(event, &names, errors);
}

pub(super) fn validate_events_event(event: &Value, errors: &mut Errors) {
    let names = EventNames {
        about: "regarding",
        controller: "reportingController",
        message: "note",
    };
    validate_any_event(event, &names, errors);
    if event["eventTime"].is_null() {
        errors.required("eventTime", "");
    }
    let kind = text(event, "type");
    if !["Normal", "Warning"].contains(&kind) {
        errors.invalid_text("type", "", &format!("has invalid value: {kind}"));
    }
}

fn validate_any_event(event: &Value, names: &EventNames, errors: &mut Errors) {
    let namespace = text(&event["metadata"], "namespace");
    let about = text(&event[names.about], "namespace");
    let path = "involvedObject.namespace";
    let detail = "does not match event.namespace";
    if event["eventTime"].is_null() {
        let agrees = if about.is_empty() {
            ["", "default"].contains(&namespace)
        } else {
            about == namespace
        };
        if !agrees {
            errors.invalid_text(path, about, detail);
        }
        return;
    }
    if about.is_empty() && !["default", "kube-system"].contains(&namespace) {
        errors.invalid_text(path, about, detail);
    }
    let controller = text(event, names.controller);
    errors.each(
        names.controller,
        controller,
        validation::qualified_name(controller),
    );
    for (key, max) in [
        (names.controller, usize::MAX),
        ("reportingInstance", 128),
        ("action", 128),
        ("reason", 128),
    ] {
        let value = text(event, key);
        if value.is_empty() {
            errors.required(key, "");
        }
        if value.len() > max {
            errors.invalid_text(key, "", &format!("can have at most {max} characters"));
        }
    }
    if text(event, names.message).len() > 1024 {
        errors.invalid_text("message", "", "can have at most 1024 characters");
    }
}
