//! The kinds with few rules: config maps, secrets, namespaces, leases, events.
//!
//! Source: `pkg/apis/{core,coordination}/validation` and `pkg/registry/core` of
//! v1.37.

use serde_json::{Value, json};

use super::Context;
use crate::codec::{base64_bytes, base64_text};
use crate::resource::Resource;
use crate::status::ApiError;
use crate::validation::{self, At, Errors};

/// Most bytes of data in a config map or secret.
pub(crate) const MAX_DATA_BYTES: usize = 1024 * 1024;
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

pub(super) fn validate_config_map(at: &At<'_>, errors: &mut Errors) {
    let mut size_bytes = 0;
    let (data, binary) = (at.get("data"), at.get("binaryData"));
    for (key, entry) in data.entries() {
        for message in validation::config_key(key) {
            entry.invalid_as(errors, key, &message);
        }
        if binary.has(key) {
            entry.invalid_as(errors, key, "duplicate of key present in binaryData");
        }
        size_bytes += entry.len();
    }
    for (key, entry) in binary.entries() {
        for message in validation::config_key(key) {
            entry.invalid_as(errors, key, &message);
        }
        size_bytes += decoded_len(entry.text());
    }
    if size_bytes > MAX_DATA_BYTES {
        errors.too_long("[]", MAX_DATA_BYTES);
    }
}

pub(super) fn validate_config_map_update(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    immutable(old, new, &["data", "binaryData"], errors);
}

fn immutable(old: &At<'_>, new: &At<'_>, keys: &[&str], errors: &mut Errors) {
    if !old.flag("immutable") {
        return;
    }
    if !new.flag("immutable") {
        new.get("immutable").forbidden(errors, IMMUTABLE);
    }
    for key in keys {
        if old.get(key).value != new.get(key).value {
            new.get(key).forbidden(errors, IMMUTABLE);
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

pub(super) fn validate_secret(at: &At<'_>, errors: &mut Errors) {
    let data = at.get("data");
    let mut size_bytes = 0;
    for (key, entry) in data.entries() {
        for message in validation::config_key(key) {
            entry.invalid_as(errors, key, &message);
        }
        size_bytes += decoded_len(entry.text());
    }
    if size_bytes > MAX_DATA_BYTES {
        data.too_long(errors, MAX_DATA_BYTES);
    }
    let mut require = |keys: &[&str]| {
        for key in keys.iter().filter(|key| !data.has(key)) {
            data.key(key).required(errors, "");
        }
    };
    match at.str("type") {
        "kubernetes.io/dockercfg" => require(&[".dockercfg"]),
        "kubernetes.io/dockerconfigjson" => require(&[".dockerconfigjson"]),
        "kubernetes.io/basic-auth" if !data.has("username") && !data.has("password") => {
            require(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" if data.str("ssh-privatekey").is_empty() => {
            data.key("ssh-privatekey").required(errors, "");
        }
        "kubernetes.io/tls" => require(&["tls.crt", "tls.key"]),
        "kubernetes.io/service-account-token" => {
            let notes = at.get("metadata.annotations");
            notes.key("kubernetes.io/service-account.name").need(errors);
        }
        _ => {}
    }
    for (kind, key) in [
        ("kubernetes.io/dockercfg", ".dockercfg"),
        ("kubernetes.io/dockerconfigjson", ".dockerconfigjson"),
    ] {
        if at.str("type") != kind || !data.has(key) {
            continue;
        }
        let content = base64_bytes(data.str(key)).unwrap_or_default();
        if let Some(what) = not_a_json_object(&content) {
            data.key(key)
                .invalid_as(errors, "<secret contents redacted>", &what);
        }
    }
}

/// As Go's decoder says it, for the ways people get it wrong.
fn not_a_json_object(content: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(content);
    match serde_json::from_slice::<Value>(content) {
        Ok(Value::Object(_) | Value::Null) => None,
        Ok(other) => {
            let what = match other {
                Value::String(_) => "string",
                Value::Array(_) => "array",
                Value::Bool(_) => "bool",
                _ => "number",
            };
            Some(format!(
                "json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
            ))
        }
        Err(error) if error.is_eof() => Some("unexpected end of JSON input".to_owned()),
        Err(_) => {
            let first = text.trim_start().chars().next().unwrap_or(' ');
            Some(format!(
                "invalid character '{first}' looking for beginning of value"
            ))
        }
    }
}

pub(super) fn validate_secret_update(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let kind = new.get("type");
    if old.str("type") != kind.text() {
        kind.invalid_text(errors, "field is immutable");
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

pub(super) fn validate_namespace(at: &At<'_>, errors: &mut Errors) {
    let list = at.get("spec.finalizers");
    for own in list.items() {
        namespace_finalizer(&list, own.text(), errors);
    }
}

fn namespace_finalizer(at: &At<'_>, name: &str, errors: &mut Errors) {
    for message in validation::qualified_name(name) {
        at.invalid_as(errors, name, &message);
    }
    let standard = ["kubernetes", "orphan", "foregroundDeletion"];
    if !name.contains('/') && !standard.contains(&name) {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        at.invalid_as(errors, name, detail);
    }
}

pub(super) fn validate_namespace_subresource(
    subresource: &str,
    _: &At<'_>,
    new: &At<'_>,
    errors: &mut Errors,
) {
    if subresource == "finalize" {
        for own in new.get("spec.finalizers").items() {
            namespace_finalizer(&own, own.text(), errors);
        }
        return;
    }
    let phase = new.get("status.phase").named("status.Phase");
    let (only, when) = match new.get("metadata").has("deletionTimestamp") {
        false => ("Active", "empty"),
        true => ("Terminating", "not empty"),
    };
    if phase.text() != only {
        let detail = format!("may only be '{only}' if `deletionTimestamp` is {when}");
        phase.invalid_text(errors, &detail);
    }
}

/// Who is to lead is not coordinated here: the reference has that switched off.
pub(super) fn default_lease(lease: &mut Value) {
    if let Some(spec) = lease["spec"].as_object_mut() {
        spec.shift_remove("strategy");
        spec.shift_remove("preferredHolder");
    }
}

pub(super) fn validate_lease(at: &At<'_>, errors: &mut Errors) {
    let spec = at.get("spec");
    let seconds = spec.get("leaseDurationSeconds");
    if seconds.int().is_some_and(|seconds| seconds <= 0) {
        seconds.invalid(errors, "must be greater than 0");
    }
    spec.get("leaseTransitions").not_negative(errors);
}

/// The fields of an event under their names in its group.
struct EventNames {
    controller: &'static str,
    about: &'static str,
    message: &'static str,
}

const CORE_EVENT: EventNames = EventNames {
    controller: "reportingComponent",
    about: "involvedObject",
    message: "message",
};
const EVENT: EventNames = EventNames {
    controller: "reportingController",
    about: "regarding",
    message: "note",
};

pub(super) fn validate_event(at: &At<'_>, errors: &mut Errors) {
    validate_any_event(at, &CORE_EVENT, errors);
}

pub(super) fn validate_events_event(at: &At<'_>, errors: &mut Errors) {
    validate_any_event(at, &EVENT, errors);
}

pub(super) fn validate_events_event_create(at: &At<'_>, errors: &mut Errors) {
    validate_series(at, errors);
    at.get("eventTime").need(errors);
    let kind = at.str("type");
    if !["Normal", "Warning"].contains(&kind) {
        let detail = format!("has invalid value: {kind}");
        at.get("type").invalid_as(errors, "", &detail);
    }
    for (field, shown) in [
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedCount", "count"),
    ] {
        let own = at.get(field).named(shown);
        if own.is_set() && own.int() != Some(0) {
            own.invalid_as(errors, "", "needs to be unset");
        }
    }
    let source = at.get("deprecatedSource").named("source");
    if !source.str("component").is_empty() || !source.str("host").is_empty() {
        source.invalid_as(errors, "", "needs to be unset");
    }
}

fn validate_series(at: &At<'_>, errors: &mut Errors) {
    let series = at.get("series");
    if series.is_null() {
        return;
    }
    if series.get("count").int().unwrap_or(0) < 2 {
        series
            .get("count")
            .invalid_as(errors, "", "should be at least 2");
    }
    series.get("lastObservedTime").need(errors);
}

pub(super) fn validate_events_event_update(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    if old.get("series").value != new.get("series").value {
        validate_series(new, errors);
    }
    for (field, shown) in [
        ("regarding", "involvedObject"),
        ("reason", "reason"),
        ("note", "message"),
        ("deprecatedSource", "source"),
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedCount", "count"),
        ("reason", "reason"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingController", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ] {
        let own = new.get(field).named(shown);
        if own.value != old.get(field).value {
            own.invalid(errors, "field is immutable");
        }
    }
}

fn validate_any_event(at: &At<'_>, names: &EventNames, errors: &mut Errors) {
    let namespace = at.value["metadata"]["namespace"]
        .as_str()
        .unwrap_or_default();
    let about = at.value[names.about]["namespace"]
        .as_str()
        .unwrap_or_default();
    let agrees = match (at.has("eventTime"), about.is_empty()) {
        (false, true) => ["", "default"].contains(&namespace),
        (false, false) => about == namespace,
        (true, empty) => !empty || ["default", "kube-system"].contains(&namespace),
    };
    if !agrees {
        let place = at.get("involvedObject.namespace");
        place.invalid_as(errors, about, "does not match event.namespace");
    }
    if !at.has("eventTime") {
        return;
    }
    let controller = at.get(names.controller);
    controller.need(errors);
    controller.check(errors, validation::qualified_name);
    for key in ["reportingInstance", "action", "reason"] {
        let own = at.get(key);
        own.need(errors);
        if own.len() > 128 {
            own.invalid_as(errors, "", "can have at most 128 characters");
        }
    }
    if at.str(names.message).len() > 1024 {
        let own = at.get("message");
        own.invalid_as(errors, "", "can have at most 1024 characters");
    }
}
