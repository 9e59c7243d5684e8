//! What of a service may change, and what goes with its type.
//!
//! Source: `pkg/registry/core/service`, `pkg/apis/core/validation` of v1.37.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::service::{
    default_families, is_empty_list, is_external, is_headless, needs_health_check, text,
};
use crate::validation::{At, Errors};

/// What the client left out keeps its value: addresses are given once. What only the
/// older type had goes with it.
pub(super) fn prepare_update(subresource: Option<&str>, old: &Value, service: &mut Value) {
    if subresource.is_some() {
        return;
    }
    let (before, spec) = (&old["spec"], &mut service["spec"]);
    if !spec.is_object() {
        return;
    }
    let (was_external, external) = (
        text(before, "type") == "ExternalName",
        text(spec, "type") == "ExternalName",
    );
    if !was_external && !external {
        if text(spec, "clusterIP").is_empty() && is_empty_list(&spec["clusterIPs"]) {
            for key in ["clusterIP", "clusterIPs"] {
                spec[key] = before[key].clone();
            }
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if spec[key].is_null() {
                spec[key] = before[key].clone();
            }
        }
    }
    drop_dependent(before, spec, was_external, external);
    default_families(spec);
    if text(spec, "type") != "LoadBalancer" {
        service["status"]["loadBalancer"] = json!({});
    }
}

fn drop_dependent(before: &Value, spec: &mut Value, was_external: bool, external: bool) {
    let drop_same = |spec: &mut Value, keys: &[&str]| {
        if keys.iter().all(|key| spec[*key] == before[*key]) {
            for key in keys {
                spec[*key] = Value::Null;
            }
        }
    };
    if !was_external && external {
        drop_same(spec, &["clusterIP", "clusterIPs"]);
        drop_same(spec, &["ipFamilies"]);
        drop_same(spec, &["ipFamilyPolicy"]);
        drop_same(spec, &["internalTrafficPolicy"]);
    }
    let on_nodes = |spec: &Value| matches!(text(spec, "type"), "NodePort" | "LoadBalancer");
    if on_nodes(before) && !on_nodes(spec) {
        let ports = |spec: &Value| -> BTreeSet<i64> {
            let list = spec["ports"].as_array().into_iter().flatten();
            list.filter_map(|own| own["nodePort"].as_i64().filter(|port| *port != 0))
                .collect()
        };
        if ports(before).is_superset(&ports(spec)) {
            for own in spec["ports"].as_array_mut().into_iter().flatten() {
                own["nodePort"] = Value::Null;
            }
        }
    }
    if needs_health_check(before) && !needs_health_check(spec) {
        drop_same(spec, &["healthCheckNodePort"]);
    }
    if text(before, "type") == "LoadBalancer" && text(spec, "type") != "LoadBalancer" {
        drop_same(spec, &["allocateLoadBalancerNodePorts"]);
        drop_same(spec, &["loadBalancerClass"]);
    }
    if is_external(before) && !is_external(spec) {
        drop_same(spec, &["externalTrafficPolicy"]);
    }
}

const ONCE: &str = "may not change once set";

pub(super) fn validate_update(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let (old, new) = (old.get("spec"), new.get("spec"));
    let external = |spec: &At<'_>| spec.str("type") == "ExternalName";
    let (was_headless, headless) = (is_headless(old.value), is_headless(new.value));
    if !external(&old) && !external(&new) {
        if !was_headless || !headless {
            changed_addresses(&old, &new, errors);
        }
        if !was_headless && !headless {
            changed_families(&old, &new, errors);
        }
    }
    let balanced = |spec: &At<'_>| spec.str("type") == "LoadBalancer";
    let class = new.get("loadBalancerClass");
    if balanced(&old) && balanced(&new) && old.get("loadBalancerClass").value != class.value {
        class.invalid(errors, ONCE);
    }
    let health = new.get("healthCheckNodePort");
    if needs_health_check(old.value)
        && needs_health_check(new.value)
        && old.get("healthCheckNodePort").value != health.value
    {
        health.forbidden(errors, "field is immutable");
    }
}

fn changed_addresses(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let (before, after) = (old.get("clusterIPs"), new.get("clusterIPs"));
    if before.len() == after.len() {
        for (index, (old, new)) in before.items().zip(after.items()).enumerate() {
            if old.value != new.value {
                after.item(index).with(after.value).invalid(errors, ONCE);
            }
        }
        return;
    }
    if before.len() > after.len() {
        if after.is_empty() {
            after
                .item(0)
                .invalid(errors, "primary clusterIP can not be unset");
            return;
        }
        released(new, after.len(), "clusterIP", errors);
    }
    if !before.is_empty() && before.item(0).value != after.item(0).value {
        after.item(0).with(after.value).invalid(errors, ONCE);
    }
}

fn changed_families(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let (before, after) = (old.get("ipFamilies"), new.get("ipFamilies"));
    if before.len() == after.len() {
        for (old, new) in before.items().zip(after.items()) {
            if old.value != new.value {
                after.item(0).with(after.value).invalid(errors, ONCE);
            }
        }
        return;
    }
    if before.len() > after.len() {
        released(new, after.len(), "ipFamily", errors);
    }
    if !before.is_empty() && !after.is_empty() && before.item(0).value != after.item(0).value {
        let addresses = new.get("clusterIPs");
        after.item(0).with(addresses.value).invalid(errors, ONCE);
    }
}

fn released(spec: &At<'_>, left: usize, what: &str, errors: &mut Errors) {
    let policy = spec.get("ipFamilyPolicy");
    if left == 1 && policy.text() != "SingleStack" {
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        policy.invalid(errors, &detail);
    }
}
