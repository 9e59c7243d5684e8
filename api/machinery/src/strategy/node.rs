//! Nodes.
//!
//! Source: `ValidateNode`, `ValidateNodeUpdate`, `pkg/registry/core/node` of v1.37.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::warnings::Warnings;
use super::{internal, pod, resources};
use crate::validation::common::{legacy_cidr, parse_cidr};
use crate::validation::{At, Errors, label_value, qualified_name};

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Addresses of pods in both forms, and what can be allocated.
pub(super) fn default(node: &mut Value) {
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

/// Creation takes what a kubelet says of itself, but for what the server decides.
pub(super) fn prepare_update(subresource: Option<&str>, old: &Value, node: &mut Value) {
    if subresource.is_some() {
        return;
    }
    if let Some(spec) = node["spec"].as_object_mut()
        && old["spec"]["configSource"].is_null()
    {
        spec.remove("configSource");
    }
}

fn taints(at: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for taint in at.items() {
        taint.get("key").check(errors, qualified_name);
        let value = taint.get("value");
        let wrong = label_value(value.text());
        if !wrong.is_empty() {
            value.invalid_text(errors, &wrong.join(";"));
        }
        taint.get("effect").choice(errors, pod::EFFECTS);
        if !seen.insert((taint.str("key"), taint.str("effect"))) {
            let shown = internal::show("io.k8s.api.core.v1.Taint", taint.value);
            let detail = "taints must be unique by key and effect pair";
            errors.duplicate_shown(&taint.path(), &shown, detail);
        }
    }
}

/// What holds for each node, however it changes.
fn amounts(at: &At<'_>, errors: &mut Errors) {
    for list in ["status.capacity", "status.allocatable"] {
        let own = at.get(list);
        for (name, entry) in own.entries() {
            let place = own.get(name).with(entry.value);
            resources::amount(&place, name, errors);
        }
    }
}

fn declared_features(at: &At<'_>, errors: &mut Errors) {
    let mut before: Option<&str> = None;
    for feature in at.items() {
        let text = feature.value.as_str().unwrap_or_default();
        if !is_feature(text) {
            let detail = format!(
                "invalid feature name \"{text}\": must start with an UpperCamelCase segment, with \
                 subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), \
                 and contain only alphanumeric characters and slashes"
            );
            feature.invalid_text(errors, &detail);
        }
        match before {
            Some(before) if before == text => feature.duplicate(errors),
            Some(before) if before > text => {
                feature.invalid_text(errors, "list must be sorted alphabetically");
            }
            _ => {}
        }
        before = Some(text);
    }
}

fn is_feature(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.split('/').all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphabetic())
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
}

/// What is checked at each change; at a whole update the reference does it twice.
fn always(at: &At<'_>, errors: &mut Errors) {
    let own = at.get("metadata.taints");
    taints(&own.with(&at.value["spec"]["taints"]), errors);
    amounts(at, errors);
    declared_features(&at.get("status.declaredFeatures"), errors);
}

pub(super) fn validate(at: &At<'_>, errors: &mut Errors) {
    always(at, errors);
    let networks = at.get("spec.podCIDRs");
    for network in networks.items() {
        legacy_cidr(&network, errors);
    }
    let families: BTreeSet<bool> = networks
        .items()
        .filter_map(|network| parse_cidr(network.text()))
        .map(|(address, _)| address.is_ipv4())
        .collect();
    if networks.len() > 1 && (families.len() != 2 || networks.len() > 2) {
        let detail = "may specify no more than one CIDR for each IP family";
        networks.invalid(errors, detail);
    }
}

pub(super) fn validate_update(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    always(new, errors);
    let mut addresses = BTreeSet::new();
    for address in new.get("status.addresses").items() {
        let own = (
            address.str("type").to_owned(),
            address.str("address").to_owned(),
        );
        if !addresses.insert(own) {
            let shown = internal::show("io.k8s.api.core.v1.NodeAddress", address.value);
            errors.duplicate_shown(&address.path(), &shown, "");
        }
    }
    let (before, after) = (old.get("spec.podCIDRs"), new.get("spec.podCIDRs"));
    if !before.is_empty() && before.value != after.value {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        after.forbidden(errors, detail);
    }
    let (before, after) = (old.get("spec.providerID"), new.get("spec.providerID"));
    if !before.is_empty() && before.text() != after.text() {
        let detail = match after.is_empty() {
            true => "field cannot be cleared once set",
            false => "field cannot be modified once set",
        };
        after.invalid_as(errors, Value::Null, detail);
    }
    let (before, after) = (old.get("spec.externalID"), new.get("spec.externalID"));
    if before.text() != after.text() {
        after.forbidden(errors, "may not be updated");
    }
}

pub(super) fn validate_subresource(_: &str, old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    validate_update(old, new, errors);
}

pub(super) fn warn(_: &Value, node: &At<'_>, warnings: &mut Warnings) {
    let spec = node.get("spec");
    if spec.has("configSource") {
        warnings.add(&spec.get("configSource"), "the feature is removed");
    }
    if !spec.str("externalID").is_empty() {
        let why = "this field is deprecated, and is unused by Kubernetes";
        warnings.add(&spec.get("externalID"), why);
    }
    for network in spec.get("podCIDRs").items() {
        warnings.network(&network);
    }
}
