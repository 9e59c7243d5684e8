//! Kinds of storage and devices.

use serde_json::{Value, json};

use super::*;

/// The class an older annotation or the field names.
fn class<'a>(object: &'a Value, field: &'a Value) -> &'a str {
    let annotations = &object["metadata"]["annotations"];
    annotations["volume.beta.kubernetes.io/storage-class"]
        .as_str()
        .or_else(|| field.as_str())
        .unwrap_or_default()
}

fn modes(modes: &Value) -> String {
    let all = strings(modes);
    let words = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let present = words.iter().filter(|(mode, _)| all.contains(mode));
    let present: Vec<&str> = present.map(|(_, word)| *word).collect();
    present.join(",")
}

/// The phase, unless the object is being deleted.
fn phase(object: &Value) -> &str {
    match &object["metadata"]["deletionTimestamp"] {
        Value::Null => text(&object["status"], "phase"),
        _ => "Terminating",
    }
}

fn capacity(amounts: &Value) -> &str {
    amounts["storage"].as_str().unwrap_or("0")
}

fn or_unset(value: &Value) -> &str {
    value.as_str().unwrap_or(UNSET)
}

pub(super) fn volume(object: &Value, now: i64) -> Vec<Value> {
    let spec = &object["spec"];
    let claim = match &spec["claimRef"] {
        Value::Null => String::new(),
        claim => format!("{}/{}", text(claim, "namespace"), text(claim, "name")),
    };
    vec![
        name(object),
        json!(capacity(&spec["capacity"])),
        json!(modes(&spec["accessModes"])),
        json!(text(spec, "persistentVolumeReclaimPolicy")),
        json!(phase(object)),
        json!(claim),
        json!(class(object, &spec["storageClassName"])),
        json!(or_unset(&spec["volumeAttributesClassName"])),
        json!(text(&object["status"], "reason")),
        age(object, now),
        json!(or_unset(&spec["volumeMode"])),
    ]
}

pub(super) fn claim(object: &Value, now: i64) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let bound = !text(spec, "volumeName").is_empty();
    let (amount, access) = match bound {
        true => (capacity(&status["capacity"]), modes(&status["accessModes"])),
        false => ("", String::new()),
    };
    vec![
        name(object),
        json!(phase(object)),
        json!(text(spec, "volumeName")),
        json!(amount),
        json!(access),
        json!(class(object, &spec["storageClassName"])),
        json!(or_unset(&spec["volumeAttributesClassName"])),
        age(object, now),
        json!(or_unset(&spec["volumeMode"])),
    ]
}

/// Storage classes; which of a list is the default is not for a row to know.
pub(super) fn storage_class(object: &Value, now: i64) -> Vec<Value> {
    vec![
        name(object),
        json!(text(object, "provisioner")),
        json!(object["reclaimPolicy"].as_str().unwrap_or("Delete")),
        json!(object["volumeBindingMode"].as_str().unwrap_or("Immediate")),
        json!(object["allowVolumeExpansion"] == true),
        age(object, now),
    ]
}

pub(super) fn attributes_class(object: &Value, now: i64) -> Vec<Value> {
    let driver = json!(text(object, "driverName"));
    vec![name(object), driver, age(object, now)]
}

pub(super) fn attachment(object: &Value, now: i64) -> Vec<Value> {
    let spec = &object["spec"];
    vec![
        name(object),
        json!(text(spec, "attacher")),
        json!(text(&spec["source"], "persistentVolumeName")),
        json!(text(spec, "nodeName")),
        json!(object["status"]["attached"] == true),
        age(object, now),
    ]
}

pub(super) fn csi_node(object: &Value, now: i64) -> Vec<Value> {
    let drivers = list(&object["spec"]["drivers"]).len();
    vec![name(object), json!(drivers), age(object, now)]
}

pub(super) fn csi_driver(object: &Value, now: i64) -> Vec<Value> {
    let spec = &object["spec"];
    let tokens = match spec["tokenRequests"].as_array() {
        None => UNSET.to_owned(),
        Some(requests) => {
            let audiences: Vec<&str> = requests.iter().map(|r| text(r, "audience")).collect();
            audiences.join(",")
        }
    };
    let modes = strings(&spec["volumeLifecycleModes"]).join(",");
    vec![
        name(object),
        json!(spec["attachRequired"].as_bool().unwrap_or(true)),
        json!(spec["podInfoOnMount"] == true),
        json!(spec["storageCapacity"] == true),
        json!(tokens),
        json!(spec["requiresRepublish"] == true),
        json!(or(&modes, NONE)),
        age(object, now),
    ]
}

pub(super) fn resource_claim(object: &Value, now: i64) -> Vec<Value> {
    let deleted = !object["metadata"]["deletionTimestamp"].is_null();
    let status = &object["status"];
    let allocated = !status["allocation"].is_null();
    let reserved = allocated && !list(&status["reservedFor"]).is_empty();
    let states: Vec<&str> = [
        (deleted, "deleted"),
        (!allocated && !deleted, "pending"),
        (allocated, "allocated"),
        (reserved, "reserved"),
    ]
    .iter()
    .filter_map(|(is, word)| is.then_some(*word))
    .collect();
    vec![name(object), json!(states.join(",")), age(object, now)]
}

pub(super) fn resource_slice(object: &Value, now: i64) -> Vec<Value> {
    let spec = &object["spec"];
    vec![
        name(object),
        json!(text(spec, "nodeName")),
        json!(text(spec, "driver")),
        json!(text(&spec["pool"], "name")),
        age(object, now),
    ]
}

pub(super) fn device_taint(object: &Value, now: i64) -> Vec<Value> {
    let taint = &object["spec"]["taint"];
    let added = match &taint["timeAdded"] {
        Value::Null => String::new(),
        time => since(time, now),
    };
    vec![
        name(object),
        json!(text(taint, "key")),
        json!(text(taint, "value")),
        json!(text(taint, "effect")),
        json!(added),
        age(object, now),
    ]
}
