//! Which objects a quota is about.

use nautilus_machinery::resource::Resource;
use serde_json::Value;

use super::usage::Tracked;
use crate::values::{items, resources, text};

/// One requirement of a quota.
struct Scope<'a> {
    name: &'a str,
    operator: &'a str,
    values: &'a Value,
}

fn scopes(quota: &Value) -> impl Iterator<Item = Scope<'_>> {
    let plain = items(&quota["spec"]["scopes"]).map(|name| Scope {
        name: text(name),
        operator: "Exists",
        values: &Value::Null,
    });
    let selected = items(&quota["spec"]["scopeSelector"]["matchExpressions"]).map(|one| Scope {
        name: text(&one["scopeName"]),
        operator: text(&one["operator"]),
        values: &one["values"],
    });
    plain.chain(selected)
}

/// Whether the quota is about some objects only.
pub(super) fn has_any(quota: &Value) -> bool {
    scopes(quota).next().is_some()
}

/// Whether the object is in every scope of the quota.
pub(super) fn matches(quota: &Value, resource: &Resource, object: &Value) -> bool {
    let tracked = Tracked::of(&resource.group, &resource.plural);
    scopes(quota).all(|scope| match tracked {
        Tracked::Pods => pod_matches(&scope, object),
        Tracked::Claims => claim_matches(&scope, object),
        _ => false,
    })
}

fn pod_matches(scope: &Scope<'_>, pod: &Value) -> bool {
    match scope.name {
        "Terminating" => is_terminating(pod),
        "NotTerminating" => !is_terminating(pod),
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => {
            let class = text(&pod["spec"]["priorityClassName"]);
            selects(scope, Some(class).filter(|class| !class.is_empty()))
        }
        "CrossNamespacePodAffinity" => looks_across_namespaces(pod),
        _ => false,
    }
}

fn claim_matches(scope: &Scope<'_>, claim: &Value) -> bool {
    if scope.name != "VolumeAttributesClass" {
        return false;
    }
    let names: Vec<&str> = [
        "/spec/volumeAttributesClassName",
        "/status/currentVolumeAttributesClassName",
        "/status/modifyVolumeStatus/targetVolumeAttributesClassName",
    ]
    .iter()
    .filter_map(|path| claim.pointer(path))
    .map(text)
    .filter(|name| !name.is_empty())
    .collect();
    if names.is_empty() {
        return selects(scope, None);
    }
    names.iter().any(|name| selects(scope, Some(name)))
}

/// A requirement on one label, as selectors read it.
fn selects(scope: &Scope<'_>, value: Option<&str>) -> bool {
    let listed = |value: &str| items(scope.values).any(|own| own == value);
    match (scope.operator, value) {
        ("Exists", value) => value.is_some(),
        ("DoesNotExist", value) => value.is_none(),
        ("In", Some(value)) => listed(value),
        ("NotIn", Some(value)) => !listed(value),
        ("NotIn", None) => true,
        _ => false,
    }
}

/// A pod that ends by itself.
pub(super) fn is_terminating(pod: &Value) -> bool {
    pod["spec"]["activeDeadlineSeconds"]
        .as_i64()
        .is_some_and(|seconds| seconds >= 0)
}

/// A pod that asks for neither processors nor memory.
fn is_best_effort(pod: &Value) -> bool {
    let asks = |owner: &Value| {
        ["requests", "limits"].iter().any(|side| {
            resources(&owner["resources"][*side])
                .iter()
                .any(|(name, amount)| {
                    matches!(name.as_str(), "cpu" | "memory")
                        && !amount.is_zero()
                        && !amount.is_negative()
                })
        })
    };
    let spec = &pod["spec"];
    let containers = items(&spec["containers"]).chain(items(&spec["initContainers"]));
    !asks(spec) && !containers.into_iter().any(asks)
}

fn looks_across_namespaces(pod: &Value) -> bool {
    let wide = |term: &Value| {
        items(&term["namespaces"]).next().is_some() || !term["namespaceSelector"].is_null()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let affinity = &pod["spec"]["affinity"][*kind];
        items(&affinity["requiredDuringSchedulingIgnoredDuringExecution"]).any(wide)
            || items(&affinity["preferredDuringSchedulingIgnoredDuringExecution"])
                .any(|weighted| wide(&weighted["podAffinityTerm"]))
    })
}
