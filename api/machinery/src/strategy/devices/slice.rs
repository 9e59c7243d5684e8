//! What a driver offers: a slice of a pool of devices, with counters that devices share.
//!
//! Invariants: driver, pool and node of a slice never change; a device's capacities and
//! taints that stay as they were are not judged again.

use serde_json::Value;

use super::capacity::policy;
use super::names::{Form, binding, driver, few, label, pool, qualified, taint, unique};
use crate::strategy::defaults::list_mut;
use crate::strategy::{internal, pod};
use crate::validation::{At, Errors, dns_label, dns_subdomain};

const IMMUTABLE: &str = "field is immutable";
const MAX_DEVICES: usize = 128;
/// With taints or counters.
const MAX_RICH_DEVICES: usize = 64;
const MAX_COUNTER_SETS: usize = 8;
const MAX_COUNTERS: usize = 32;
const MAX_CONSUMED_SETS: usize = 2;
const MAX_ATTRIBUTES: usize = 32;
const MAX_ATTRIBUTE_VALUES: usize = 48;
const MAX_VALUE_BYTES: usize = 64;
const MAX_TAINTS: usize = 16;
const ONE_WAY: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, \
`perDeviceNodeSelection` is required";
const ONE_OF_DEVICE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required \
when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
const NODE_TERM: &str = "io.k8s.api.core.v1.NodeSelectorTerm";
const VALUES: &[&str] = &["int", "bool", "string", "version"];
const LISTS: &[&str] = &["ints", "bools", "strings", "versions"];

/// Fields whose features are off.
pub(super) fn drop_unserved(slice: &mut Value) {
    let Some(spec) = slice.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    for name in ["partitionTypeAttribute", "skipNodeOperations"] {
        spec.shift_remove(name);
    }
    for device in list_mut(spec, "devices") {
        device.shift_remove("nodeAllocatableResources");
        for own in list_mut(device, "consumesCounters") {
            own.shift_remove("compatibilityGroups");
        }
        let attributes = device.get_mut("attributes").and_then(Value::as_object_mut);
        for (_, own) in attributes.into_iter().flatten() {
            if let Some(own) = own.as_object_mut() {
                own.retain(|name, _| !LISTS.contains(&name.as_str()));
            }
        }
    }
}

/// Checks a slice against what it was.
pub(super) fn spec(old: Option<&At<'_>>, at: &At<'_>, errors: &mut Errors) {
    let (own_driver, own_pool, node) = (at.get("driver"), at.get("pool"), at.get("nodeName"));
    let pool_name = own_pool.get("name");
    driver(&own_driver, Form::Own, errors);
    pool(&pool_name, Form::Own, errors);
    own_pool.get("resourceSliceCount").positive(errors);
    let generation = own_pool.get("generation");
    if generation.int().unwrap_or(0) < 0 {
        generation.invalid(errors, "must be greater than or equal to zero");
    }
    if let Some(old) = old {
        pool_name.unchanged(errors, old.get("pool.name").value, IMMUTABLE);
        own_driver.unchanged(errors, old.get("driver").value, IMMUTABLE);
        node.unchanged(errors, old.get("nodeName").value, IMMUTABLE);
    }
    nodes(at, errors);
    let (devices, counters) = (at.get("devices"), at.get("sharedCounters"));
    if devices.is_set() && counters.is_set() {
        at.invalid_as(
            errors,
            "",
            "only one of `sharedCounters` or `devices` is allowed",
        );
    }
    let is_rich =
        |own: At<'_>| !own.get("taints").is_empty() || !own.get("consumesCounters").is_empty();
    let max = match devices.items().any(is_rich) {
        true => MAX_RICH_DEVICES,
        false => MAX_DEVICES,
    };
    if few(&devices, max, errors) {
        let mut seen = std::collections::BTreeSet::new();
        for own in devices.items() {
            let name = own.str("name");
            device(
                before(old, name),
                &own,
                at.flag("perDeviceNodeSelection"),
                errors,
            );
            if !seen.insert(name.to_owned()) {
                own.duplicate_as(errors, name);
            }
        }
    }
    if few(&counters, MAX_COUNTER_SETS, errors) {
        for own in counters.items() {
            counted(&own, "name", errors);
        }
        unique(&counters, |own| own.str("name").to_owned(), errors);
    }
}

/// The device of that name in the slice as it was.
fn before<'a>(old: Option<&At<'a>>, name: &str) -> Option<&'a Value> {
    let devices = old?.value.get("devices")?.as_array()?;
    devices.iter().find(|device| device["name"] == name)
}

/// Where the devices can be used: one way of saying it.
fn nodes(at: &At<'_>, errors: &mut Errors) {
    let empty = "must be either unset or set to a non-empty string";
    let mut ways = named_or_selected(at, empty, errors);
    let selector = at.get("nodeSelector");
    if selector.is_set() {
        let terms = selector.get("nodeSelectorTerms");
        if terms.len() != 1 {
            let shown = internal::show_list(NODE_TERM, terms.value);
            terms.invalid_shown(errors, &shown, "must have exactly one node selector term");
        }
    }
    for (name, way) in [
        ("allNodes", "`allNodes`"),
        ("perDeviceNodeSelection", "`perDeviceNodeSelection`"),
    ] {
        if is_chosen(&at.get(name), errors) {
            ways.push(way);
        }
    }
    match ways.len() {
        0 => at.required(errors, ONE_WAY),
        1 => {}
        _ => {
            let detail = format!("{ONE_WAY}, but multiple fields are set");
            at.invalid_as(errors, format!("{{{}}}", ways.join(", ")), &detail);
        }
    }
}

/// Which of a node's name and a selector of nodes are set; `empty` refuses an empty name.
fn named_or_selected(at: &At<'_>, empty: &str, errors: &mut Errors) -> Vec<&'static str> {
    let mut ways = Vec::new();
    let node = at.get("nodeName");
    if node.is_set() && node.is_empty() {
        node.invalid(errors, empty);
    } else if node.is_set() {
        ways.push("`nodeName`");
        node.check(errors, dns_subdomain);
    }
    let selector = at.get("nodeSelector");
    if selector.is_set() {
        ways.push("`nodeSelector`");
        pod::node_selector(&selector, errors);
    }
    ways
}

/// Whether a flag is set; it is never set to false.
fn is_chosen(at: &At<'_>, errors: &mut Errors) -> bool {
    if at.is_set() && !at.is_true() {
        at.invalid(errors, "must be either unset or set to true");
    }
    at.is_true()
}

fn device(old: Option<&Value>, at: &At<'_>, by_device: bool, errors: &mut Errors) {
    label(&at.get("name"), errors);
    let (attributes, capacity) = (at.get("attributes"), at.get("capacity"));
    let count = attributes.len() + capacity.len();
    if count > MAX_ATTRIBUTES {
        let detail = format!(
            "the total number of attributes and capacities must not exceed {MAX_ATTRIBUTES}"
        );
        at.invalid_as(errors, count, &detail);
    }
    if attributes.len() > MAX_ATTRIBUTE_VALUES {
        let detail =
            format!("the total number of attribute values must not exceed {MAX_ATTRIBUTE_VALUES}");
        at.invalid_as(errors, attributes.len(), &detail);
    }
    for (name, own) in attributes.entries() {
        qualified(&attributes, name, Form::Own, errors);
        attribute(&own, errors);
    }
    let stays = |name: &str, at: &At<'_>| old.is_some_and(|old| &old[name] == at.value);
    if !stays("capacity", &capacity) {
        let shared = at.flag("allowMultipleAllocations");
        for (name, own) in capacity.entries() {
            qualified(&capacity, name, Form::Own, errors);
            let own_policy = own.get("requestPolicy");
            if own_policy.is_set() && shared {
                policy(&own.get("value"), &own_policy, errors);
            } else if own_policy.is_set() {
                own_policy.forbidden(errors, "allowMultipleAllocations must be true");
            }
        }
    }
    let taints = at.get("taints");
    if !stays("taints", &taints) && few(&taints, MAX_TAINTS, errors) {
        for own in taints.items() {
            taint(None, &own, errors);
        }
    }
    let consumed = at.get("consumesCounters");
    if few(&consumed, MAX_CONSUMED_SETS, errors) {
        for own in consumed.items() {
            counted(&own, "counterSet", errors);
        }
        unique(&consumed, |own| own.str("counterSet").to_owned(), errors);
    }
    nodes_of_device(at, by_device, errors);
    binding(at, errors);
}

fn nodes_of_device(at: &At<'_>, by_device: bool, errors: &mut Errors) {
    let names = ["nodeName", "nodeSelector", "allNodes"];
    if !by_device {
        if names.iter().any(|name| at.has(name)) {
            let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if \
                          `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            at.invalid_as(errors, Value::Null, detail);
        }
        return;
    }
    let mut ways = named_or_selected(at, "must not be empty", errors);
    if is_chosen(&at.get("allNodes"), errors) {
        ways.push("`allNodes`");
    }
    match ways.len() {
        0 => at.required(errors, ONE_OF_DEVICE),
        1 => {}
        _ => at.invalid_as(errors, format!("{{{}}}", ways.join(", ")), ONE_OF_DEVICE),
    }
}

/// A set of counters, by its name's field.
fn counted(at: &At<'_>, name: &str, errors: &mut Errors) {
    at.get(name).need_check(errors, dns_label);
    let counters = at.get("counters");
    if counters.is_empty() {
        counters.required(errors, "");
    }
    few(&counters, MAX_COUNTERS, errors);
    for (name, _) in counters.entries() {
        for message in dns_label(name) {
            counters.invalid_as(errors, name, &message);
        }
    }
}

fn attribute(at: &At<'_>, errors: &mut Errors) {
    let text = at.get("string");
    if text.len() > MAX_VALUE_BYTES {
        text.too_long(errors, MAX_VALUE_BYTES);
    }
    let version = at.get("version");
    if version.is_set() && !is_version(version.text()) {
        version.invalid(
            errors,
            "must be a string compatible with semver.org spec 2.0.0",
        );
    }
    if version.len() > MAX_VALUE_BYTES {
        version.too_long(errors, MAX_VALUE_BYTES);
    }
    let set: Vec<&str> = VALUES.iter().filter(|name| at.has(name)).copied().collect();
    let known: Vec<String> = VALUES
        .iter()
        .chain(LISTS)
        .map(|name| format!("`{name}`"))
        .collect();
    let known = known.join(", ");
    match set.as_slice() {
        [] => at.invalid_as(errors, "", &format!("must specify one of: {known}")),
        [_] => {}
        several => {
            let shown = format!("{{{}}}", several.join(", "));
            at.invalid_as(
                errors,
                shown,
                &format!("must specify exactly one of: {known}"),
            );
        }
    }
}

/// Whether a text is a semantic version.
fn is_version(text: &str) -> bool {
    let (text, build) = match text.split_once('+') {
        Some((text, build)) => (text, Some(build)),
        None => (text, None),
    };
    let (numbers, release) = match text.split_once('-') {
        Some((numbers, release)) => (numbers, Some(release)),
        None => (text, None),
    };
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let number = |part: &str| digits(part) && (part == "0" || !part.starts_with('0'));
    let word = |part: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !part.is_empty() && part.bytes().all(known)
    };
    let parts: Vec<&str> = numbers.split('.').collect();
    parts.len() == 3
        && parts.into_iter().all(number)
        && release.is_none_or(|own| {
            own.split('.')
                .all(|part| word(part) && (!digits(part) || number(part)))
        })
        && build.is_none_or(|own| own.split('.').all(word))
}
