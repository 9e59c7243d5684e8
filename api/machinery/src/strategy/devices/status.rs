//! What a claim was given, who uses it, and what drivers say of it.
//!
//! Invariant: an allocation is written once and given back whole.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::claim::{Requests, config, raw, reference, references};
use super::names::{Form, binding, driver, few, label, pool, share, tolerations, unique};
use crate::strategy::pod;
use crate::validation::common::{conditions, interface_address};
use crate::validation::{At, Errors};

const MAX_RESERVATIONS: usize = 256;
const MAX_RESULTS: usize = 32;
const MAX_ALLOCATED_CONFIGS: usize = 64;
const MAX_CONDITIONS: usize = 8;
const MAX_DATA_BYTES: usize = 10 * 1024;
const MAX_ADDRESSES: usize = 16;
const MAX_INTERFACE_BYTES: usize = 256;
const MAX_HARDWARE_ADDRESS_BYTES: usize = 128;

/// A device, or a share of one.
type DeviceId = [String; 4];

fn id(of: &Value) -> DeviceId {
    ["driver", "pool", "device", "shareID"]
        .map(|part| of[part].as_str().unwrap_or_default().to_owned())
}

fn allocated(claim: &Value) -> BTreeSet<DeviceId> {
    let results = &claim["status"]["allocation"]["devices"]["results"];
    results.as_array().into_iter().flatten().map(id).collect()
}

/// Drops what drivers said of devices that are given back, and operations to skip, a feature
/// that is off.
pub(super) fn prepare(old: &Value, claim: &mut Value) {
    let results = claim.pointer_mut("/status/allocation/devices/results");
    for result in results.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(result) = result.as_object_mut() {
            result.shift_remove("skipNodeOperations");
        }
    }
    let (before, after) = (allocated(old), allocated(claim));
    if let Some(devices) = claim.pointer_mut("/status/devices")
        && let Some(list) = devices.as_array_mut()
    {
        list.retain(|device| {
            let id = id(device);
            after.contains(&id) || !before.contains(&id)
        });
        if list.is_empty() {
            *devices = Value::Null;
        }
    }
}

/// Checks a claim's status.
pub(super) fn claim(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let names = Requests::of(&new.value["spec"]);
    let (before, status) = (old.get("status"), new.get("status"));
    let (allocation, users) = (status.get("allocation"), status.get("reservedFor"));
    if few(&users, MAX_RESERVATIONS, errors) {
        for user in users.items() {
            for name in ["resource", "name", "uid"] {
                user.get(name).need(errors);
            }
        }
        unique(&users, |user| user.str("uid").to_owned(), errors);
    }
    let known = allocated(new.value);
    let devices = status.get("devices");
    for own in devices.items() {
        device(&own, &known, errors);
    }
    unique(&devices, |own| id(own.value), errors);
    if !users.is_empty() && allocation.is_null() {
        let detail = "may not be specified when `allocated` is not set";
        users.forbidden(errors, detail);
    } else if new.get("metadata").has("deletionTimestamp") {
        let had = before.get("reservedFor");
        let knows = |user: &Value| had.value.as_array().is_some_and(|list| list.contains(user));
        if users.items().any(|user| !knows(user.value)) {
            let detail = "new entries may not be added while `deallocationRequested` or \
                          `deletionTimestamp` are set";
            users.forbidden(errors, detail);
        }
    }
    let had = before.get("allocation");
    if had.is_null() && allocation.is_set() {
        results(&allocation, &names, errors);
    } else if allocation.is_set() && had.value != allocation.value {
        allocation.invalid_as(errors, Value::Null, "field cannot be modified once set");
    }
}

fn results(at: &At<'_>, names: &Requests<'_>, errors: &mut Errors) {
    let devices = at.get("devices");
    let results = devices.get("results");
    if few(&results, MAX_RESULTS, errors) {
        for own in results.items() {
            reference(&own.get("request"), names, errors);
            driver(&own.get("driver"), Form::Declared, errors);
            pool(&own.get("pool"), Form::Declared, errors);
            label(&own.get("device"), errors);
            binding(&own, errors);
            tolerations(&own.get("tolerations"), errors);
            share(&own.get("shareID"), errors);
        }
    }
    let configs = devices.get("config");
    if few(&configs, MAX_ALLOCATED_CONFIGS, errors) {
        for own in configs.items() {
            own.get("source")
                .choice(errors, &["FromClaim", "FromClass"]);
            references(&own.get("requests"), names, errors);
            config(&own, errors);
        }
    }
    let nodes = at.get("nodeSelector");
    if nodes.is_set() {
        pod::node_selector(&nodes, errors);
    }
}

fn device(at: &At<'_>, known: &BTreeSet<DeviceId>, errors: &mut Errors) {
    driver(&at.get("driver"), Form::Own, errors);
    pool(&at.get("pool"), Form::Own, errors);
    label(&at.get("device"), errors);
    share(&at.get("shareID"), errors);
    let id = id(at.value);
    if !known.contains(&id) {
        let [driver, pool, device, share] = id;
        let shown = json!({"Driver": driver, "Pool": pool, "Device": device, "ShareID": share});
        at.invalid_as(errors, shown, "must be an allocated device in the claim");
    }
    conditions_of(at, errors);
    let data = at.get("data");
    if data.is_set() {
        raw(&data, MAX_DATA_BYTES, errors);
    }
    network(&at.get("networkData"), errors);
}

/// A few conditions of a status.
pub(super) fn conditions_of(at: &At<'_>, errors: &mut Errors) {
    let own = at.get("conditions");
    few(&own, MAX_CONDITIONS, errors);
    conditions(&own, errors);
}

fn network(at: &At<'_>, errors: &mut Errors) {
    for (name, max_bytes) in [
        ("interfaceName", MAX_INTERFACE_BYTES),
        ("hardwareAddress", MAX_HARDWARE_ADDRESS_BYTES),
    ] {
        let own = at.get(name);
        if own.len() > max_bytes {
            own.too_long(errors, max_bytes);
        }
    }
    let addresses = at.get("ips");
    if few(&addresses, MAX_ADDRESSES, errors) {
        for own in addresses.items() {
            interface_address(&own, errors);
        }
        unique(&addresses, |own| own.text().to_owned(), errors);
    }
}
