//! Quotas and ranges of limits.
//!
//! Source: `ValidateResourceQuota`, `ValidateLimitRange` of v1.37.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::pod::defaults::round_list;
use super::resources;
use super::rules::{PLAIN, Rules};
use super::workloads::no_status;
use crate::quantity::Quantity;
use crate::validation::{At, Errors, qualified_name};

const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "VolumeAttributesClass",
    "CrossNamespacePodAffinity",
];
const COMPUTE: &[&str] = &[
    "cpu",
    "memory",
    "limits.cpu",
    "limits.memory",
    "requests.cpu",
    "requests.memory",
];

/// Quotas.
pub(crate) static RESOURCE_QUOTA: Rules = Rules {
    has_status: true,
    default: |object| {
        for path in ["/spec/hard", "/status/hard", "/status/used"] {
            round_list(object.pointer_mut(path));
        }
    },
    prepare_create: |object, _| no_status(object),
    validate: |at, errors| {
        let spec = at.get("spec");
        amounts(&spec.get("hard"), errors);
        scopes(&spec, errors);
        scope_selector(&spec, errors);
    },
    validate_update: |old, new, errors| {
        let set = |at: &At<'_>| -> BTreeSet<String> {
            at.items().map(|own| own.text().to_owned()).collect()
        };
        let (before, after) = (old.get("spec.scopes"), new.get("spec.scopes"));
        if set(&before) != set(&after) {
            after.invalid(errors, "field is immutable");
        }
    },
    validate_subresource: |_, _, new, errors| {
        amounts(&new.get("status.hard"), errors);
        amounts(&new.get("status.used"), errors);
    },
    ..PLAIN
};

/// Ranges of limits.
pub(crate) static LIMIT_RANGE: Rules = Rules {
    default: default_range,
    validate: |at, errors| {
        let mut kinds = BTreeSet::new();
        for limit in at.get("spec.limits").items() {
            let kind = limit.get("type");
            limit_type(&kind, errors);
            if !kinds.insert(kind.text().to_owned()) {
                kind.duplicate(errors);
            }
            limit_item(&limit, errors);
        }
    },
    ..PLAIN
};

fn amounts(at: &At<'_>, errors: &mut Errors) {
    for (name, entry) in at.entries() {
        resources::quota_resource_name(&entry, name, errors);
        resources::amount(&entry, name, errors);
    }
}

/// Whether a scope says something about that resource.
fn concerns(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => {
            ["persistentvolumeclaims", "requests.storage"].contains(&resource)
        }
        _ if SCOPES.contains(&scope) => resource == "pods" || COMPUTE.contains(&resource),
        _ => true,
    }
}

fn unconcerned(spec: &At<'_>, scope: &str) -> usize {
    let hard = spec.get("hard");
    hard.entries()
        .filter(|(name, _)| resources::is_standard_quota(name) && !concerns(scope, name))
        .count()
}

fn conflicting(names: &BTreeSet<&str>) -> usize {
    [
        ("BestEffort", "NotBestEffort"),
        ("NotTerminating", "Terminating"),
    ]
    .iter()
    .filter(|(one, other)| names.contains(one) && names.contains(other))
    .count()
}

fn scopes(spec: &At<'_>, errors: &mut Errors) {
    let at = spec.get("scopes");
    let mut names = BTreeSet::new();
    for scope in at.items() {
        let name = scope.value.as_str().unwrap_or_default();
        if !SCOPES.contains(&name) {
            at.invalid(errors, "unsupported scope");
        }
        for _ in 0..unconcerned(spec, name) {
            at.invalid(errors, "unsupported scope applied to resource");
        }
        names.insert(name);
    }
    for _ in 0..conflicting(&names) {
        at.invalid(errors, "conflicting scopes");
    }
}

fn scope_selector(spec: &At<'_>, errors: &mut Errors) {
    let selector = spec.get("scopeSelector");
    let list = selector.get("matchExpressions");
    let mut names = BTreeSet::new();
    for requirement in list.items() {
        let name = requirement.value["scopeName"].as_str().unwrap_or_default();
        let own = list.with(requirement.value);
        if !SCOPES.contains(&name) {
            own.get("scopeName")
                .invalid_text(errors, "unsupported scope");
        }
        for _ in 0..unconcerned(spec, name) {
            let shown = super::internal::show("io.k8s.api.core.v1.ScopeSelector", selector.value);
            list.invalid_shown(errors, &shown, "unsupported scope applied to resource");
        }
        let (operator, values) = (own.get("operator"), own.get("values"));
        let by_name = ["PriorityClass", "VolumeAttributesClass"].contains(&name);
        if SCOPES.contains(&name) && !by_name && operator.text() != "Exists" {
            let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                          ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                          ResourceQuotaScopeNotBestEffort or \
                          ResourceQuotaScopeCrossNamespacePodAffinity";
            operator.invalid_text(errors, detail);
        }
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                values.required(errors, detail);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                values.invalid(errors, detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => operator.invalid_text(errors, "not a valid selector operator"),
        }
        names.insert(name);
    }
    for _ in 0..conflicting(&names) {
        list.with(&spec.value["scopes"])
            .invalid(errors, "conflicting scopes");
    }
}

fn default_range(object: &mut Value) {
    let limits = object["spec"]["limits"]
        .as_array_mut()
        .into_iter()
        .flatten();
    for limit in limits {
        for list in [
            "max",
            "min",
            "default",
            "defaultRequest",
            "maxLimitRequestRatio",
        ] {
            round_list(limit.get_mut(list));
        }
        if limit["type"] != "Container" {
            continue;
        }
        for (to, from) in [
            ("default", "max"),
            ("defaultRequest", "default"),
            ("defaultRequest", "min"),
        ] {
            let Some(source) = limit[from].as_object().cloned() else {
                continue;
            };
            if limit[to].is_null() {
                limit[to] = json!({});
            }
            for (name, value) in source {
                if limit[to][&name].is_null() {
                    limit[to][&name] = value;
                }
            }
        }
    }
}

fn limit_type(at: &At<'_>, errors: &mut Errors) {
    if at.check(errors, qualified_name) && !at.text().contains('/') {
        let known = ["Pod", "Container", "PersistentVolumeClaim"];
        if !known.contains(&at.text()) {
            let detail = "must be a standard limit type or fully qualified";
            at.invalid_text(errors, detail);
        }
    }
}

fn limit_item(limit: &At<'_>, errors: &mut Errors) {
    let kind = limit.str("type");
    let of_containers = ["Pod", "Container"].contains(&kind);
    let mut names = BTreeSet::new();
    let mut lists = vec!["max", "min"];
    if kind == "Pod" {
        for list in ["default", "defaultRequest"] {
            if !limit.get(list).is_empty() {
                let detail = "may not be specified when `type` is 'Pod'";
                limit.get(list).forbidden(errors, detail);
            }
        }
    } else {
        lists.extend(["default", "defaultRequest"]);
    }
    lists.push("maxLimitRequestRatio");
    for list in &lists {
        for (name, entry) in limit.get(list).entries() {
            if of_containers {
                resources::container_resource_name(&entry, name, errors);
            } else {
                resources::resource_name(&entry, name, errors);
            }
            names.insert(name.to_owned());
        }
    }
    if kind == "PersistentVolumeClaim"
        && !limit.get("min").has("storage")
        && !limit.get("max").has("storage")
    {
        let detail =
            "either minimum or maximum storage value is required, but neither was provided";
        limit.get("limits").required(errors, detail);
    }
    for name in names {
        limit_amounts(limit, &name, kind == "Pod", errors);
    }
}

fn limit_amounts(limit: &At<'_>, name: &str, is_pod: bool, errors: &mut Errors) {
    let amount = |list: &str| {
        let text = limit.value[list][name].as_str()?;
        Quantity::parse(text).ok()
    };
    let (min, max) = (amount("min"), amount("max"));
    let (default, request) = match is_pod {
        true => (None, None),
        false => (amount("default"), amount("defaultRequest")),
    };
    let mut exceed = |low: &Option<Quantity>,
                      high: &Option<Quantity>,
                      list: &str,
                      shown: &Option<Quantity>,
                      words: (&str, &str)| {
        if let (Some(low), Some(high), Some(shown)) = (low, high, shown)
            && low > high
        {
            let place = limit.get(list);
            let detail = format!(
                "{} value {} is greater than {} value {}",
                words.0,
                low.canonical(),
                words.1,
                high.canonical()
            );
            place
                .key(name)
                .invalid_as(errors, shown.canonical(), &detail);
        }
    };
    exceed(&min, &max, "min", &min, ("min", "max"));
    exceed(
        &min,
        &request,
        "defaultRequest",
        &request,
        ("min", "default request"),
    );
    exceed(
        &request,
        &max,
        "defaultRequest",
        &request,
        ("default request", "max"),
    );
    exceed(
        &request,
        &default,
        "defaultRequest",
        &request,
        ("default request", "default limit"),
    );
    exceed(&min, &default, "default", &min, ("min", "default"));
    exceed(&default, &max, "default", &max, ("default", "max"));
    ratio(
        limit,
        name,
        &min,
        &max,
        amount("maxLimitRequestRatio"),
        errors,
    );
    if let (Some(default), Some(request)) = (&default, &request)
        && !resources::is_overcommitted(name)
        && default != request
    {
        let detail = format!(
            "default value {} must equal to defaultRequest value {} in {name}",
            default.canonical(),
            request.canonical()
        );
        let place = limit.get("defaultRequest");
        place
            .key(name)
            .invalid_as(errors, request.canonical(), &detail);
    }
}

fn ratio(
    limit: &At<'_>,
    name: &str,
    min: &Option<Quantity>,
    max: &Option<Quantity>,
    ratio: Option<Quantity>,
    errors: &mut Errors,
) {
    let Some(ratio) = ratio else { return };
    let (list, shown) = (limit.get("maxLimitRequestRatio"), ratio.canonical());
    let at = list.key(name);
    if ratio < Quantity::of_count(1) {
        at.invalid_as(
            errors,
            shown.as_str(),
            &format!("ratio {shown} is less than 1"),
        );
    }
    if let (Some(min), Some(max)) = (min, max) {
        let most = max.as_f64() / min.as_f64();
        if ratio.as_f64() > most {
            let detail = format!("ratio {shown} is greater than max/min = {most:.6}");
            at.invalid_as(errors, shown.as_str(), &detail);
        }
    }
}
