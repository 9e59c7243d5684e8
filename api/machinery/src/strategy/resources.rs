//! Names and amounts of resources: what containers and pods request, what quotas
//! and limit ranges speak of.
//!
//! Source: `validateResourceRequirements` and `pkg/apis/core/helper` of v1.37.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::quantity::Quantity;
use crate::validation::{At, Errors, dns_label, qualified_name};

const COUNTED: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
const MEASURED: &[&str] = &[
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
];

/// Whether the name is one of a size of huge pages.
pub(crate) fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_quota_huge_page(name: &str) -> bool {
    is_huge_page(name) || name.starts_with("requests.hugepages-")
}

/// Whether Kubernetes itself gives the name its meaning.
pub(crate) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether more of it may be requested than there is.
pub(crate) fn is_overcommitted(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// Whether the name is one that a vendor gives a device.
pub(crate) fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && qualified_name(&format!("requests.{name}")).is_empty()
}

fn is_standard(name: &str) -> bool {
    name == "storage" || is_standard_quota(name)
}

/// Whether a quota may limit it without a group's name.
pub(crate) fn is_standard_quota(name: &str) -> bool {
    COUNTED.contains(&name) || MEASURED.contains(&name) || is_quota_huge_page(name)
}

/// Whether there are only whole ones.
pub(crate) fn is_counted(name: &str) -> bool {
    COUNTED.contains(&name) || is_extended(name)
}

/// Checks the name of any resource; the place's own text is not looked at.
pub(crate) fn resource_name(at: &At<'_>, name: &str, errors: &mut Errors) -> bool {
    let wrong = qualified_name(name);
    for message in &wrong {
        at.invalid_as(errors, name, message);
    }
    if !wrong.is_empty() {
        return false;
    }
    let good = name.contains('/') || is_standard(name);
    if !good {
        let detail = "must be a standard resource type or fully qualified";
        at.invalid_as(errors, name, detail);
    }
    good
}

/// Checks the name of a resource that containers use.
pub(crate) fn container_resource_name(at: &At<'_>, name: &str, errors: &mut Errors) {
    resource_name(at, name, errors);
    if !name.contains('/') {
        let known = ["cpu", "memory", "ephemeral-storage"].contains(&name) || is_huge_page(name);
        if !known {
            at.invalid_as(errors, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        let detail = "doesn't follow extended resource name standard";
        at.invalid_as(errors, name, detail);
    }
}

/// Checks the name of a resource that a pod as a whole uses.
fn pod_resource_name(at: &At<'_>, name: &str, errors: &mut Errors) {
    if resource_name(at, name, errors) && !["cpu", "memory"].contains(&name) && !is_huge_page(name)
    {
        errors.not_supported(&at.path(), name, &["cpu", "hugepages-", "memory"]);
    }
}

/// Checks the name of a resource that a quota limits.
pub(crate) fn quota_resource_name(at: &At<'_>, name: &str, errors: &mut Errors) {
    resource_name(at, name, errors);
    if !name.contains('/') && !is_standard_quota(name) {
        at.invalid_as(errors, name, "must be a standard resource for quota");
    }
}

/// Checks an amount: not below zero, and whole where only whole ones exist.
pub(crate) fn amount(at: &At<'_>, name: &str, errors: &mut Errors) {
    let Some(quantity) = at.quantity() else {
        return;
    };
    if quantity.is_negative() {
        let detail = "must be greater than or equal to 0";
        at.invalid_as(errors, quantity.canonical(), detail);
    }
    if is_counted(name) && !quantity.is_integer() {
        at.invalid_as(errors, quantity.canonical(), "must be an integer");
    }
}

/// Whose requirements are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// One container's.
    Container,
    /// The whole pod's.
    Pod,
}

/// Checks limits and requests, and the claims a container uses.
pub(crate) fn requirements(at: &At<'_>, of: Of, claims: &BTreeSet<&str>, errors: &mut Errors) {
    if at.value.as_object().is_none_or(serde_json::Map::is_empty) {
        return;
    }
    let (limits, requests) = (at.get("limits"), at.get("requests"));
    let (mut pages, mut compute) = (false, false);
    for list in [&limits, &requests] {
        for (name, entry) in list.entries() {
            match of {
                Of::Container => container_resource_name(&entry, name, errors),
                Of::Pod => pod_resource_name(&entry, name, errors),
            }
            amount(&entry, name, errors);
            if std::ptr::eq(list, &requests) {
                within_limit(&limits, &requests, name, &entry, errors);
            }
            if is_huge_page(name) {
                pages = true;
                whole_pages(&entry, name, errors);
            }
            compute |= matches!(name, "cpu" | "memory");
        }
    }
    if pages && !compute {
        at.forbidden(errors, "HugePages require cpu or memory");
    }
    claim_names(&at.get("claims"), claims, errors);
}

fn within_limit(
    limits: &At<'_>,
    requests: &At<'_>,
    name: &str,
    entry: &At<'_>,
    errors: &mut Errors,
) {
    let (Some(request), limit) = (entry.quantity(), limits.key(name)) else {
        return;
    };
    let Some(limit) = limit.quantity() else {
        if !is_overcommitted(name) {
            let detail = "Limit must be set for non overcommitable resources";
            limits.required(errors, detail);
        }
        return;
    };
    let how = match is_overcommitted(name) {
        false if request != limit => "equal to",
        true if request > limit => "less than or equal to",
        _ => return,
    };
    let detail = format!("must be {how} {name} limit of {}", limit.canonical());
    requests.invalid_as(errors, request.canonical(), &detail);
}

fn whole_pages(at: &At<'_>, name: &str, errors: &mut Errors) {
    let size = name.strip_prefix("hugepages-").unwrap_or_default();
    let Some(own) = at.quantity() else {
        return;
    };
    let whole = Quantity::parse(size).is_ok_and(|size| own.is_multiple_of(&size));
    if !whole {
        let shown = own.canonical();
        let detail = format!("{shown} is not positive integer multiple of {name}");
        at.invalid_as(errors, shown, &detail);
    }
}

fn claim_names(at: &At<'_>, claims: &BTreeSet<&str>, errors: &mut Errors) {
    let mut names: BTreeSet<String> = BTreeSet::new();
    for claim in at.items() {
        let (name, request) = (claim.str("name"), claim.get("request"));
        if name.is_empty() {
            claim.required(errors, "");
            continue;
        }
        if names.contains(name) {
            claim.duplicate_as(errors, name);
        } else {
            let mut key = name.to_owned();
            if !request.is_empty() {
                request.check(errors, dns_label);
                key = format!("{name}/{}", request.text());
            }
            if names.contains(&key) {
                claim.duplicate_as(errors, key.as_str());
            } else if request.is_empty() {
                let own = |key: &&String| key.split_once('/').is_some_and(|(of, _)| of == name);
                for _ in names.iter().filter(own) {
                    claim.duplicate_as(errors, name);
                }
            }
            names.insert(key);
        }
        if !claims.contains(name) {
            let known: Vec<&str> = claims.iter().copied().collect();
            let which = match known.as_slice() {
                [] => " which is empty".to_owned(),
                known => format!(": {}", known.join(", ")),
            };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{which}");
            errors.not_found_because(&claim.path(), name, &detail);
        }
    }
}

/// The sum of what containers ask for: those that start first and end count where they
/// ask for more than all that run together.
pub(crate) fn aggregate(spec: &At<'_>, list: &str) -> Vec<(String, Quantity)> {
    let mut sum: Vec<(String, Quantity)> = Vec::new();
    for container in spec.get("containers").items() {
        for (name, amount) in amounts(container.value, list) {
            add(&mut sum, name, &amount);
        }
    }
    let mut sidecars: Vec<(String, Quantity)> = Vec::new();
    let mut most: Vec<(String, Quantity)> = Vec::new();
    for container in spec.get("initContainers").items() {
        let mut own = Vec::new();
        if container.str("restartPolicy") == "Always" {
            for (name, amount) in amounts(container.value, list) {
                add(&mut sum, name, &amount);
                add(&mut sidecars, name, &amount);
            }
            own.clone_from(&sidecars);
        } else {
            for (name, amount) in amounts(container.value, list) {
                own.push((name.to_owned(), amount));
            }
            for (name, amount) in &sidecars {
                add(&mut own, name, amount);
            }
        }
        for (name, amount) in own {
            raise(&mut most, &name, &amount);
        }
    }
    for (name, amount) in most {
        raise(&mut sum, &name, &amount);
    }
    sum
}

fn amounts<'a>(container: &'a Value, list: &str) -> impl Iterator<Item = (&'a str, Quantity)> {
    let map = container["resources"][list]
        .as_object()
        .into_iter()
        .flatten();
    map.filter_map(|(name, value)| Some((name.as_str(), Quantity::parse(value.as_str()?).ok()?)))
}

fn add(sum: &mut Vec<(String, Quantity)>, name: &str, amount: &Quantity) {
    match sum.iter_mut().find(|(own, _)| own == name) {
        Some((_, own)) => *own = own.plus(amount),
        None => sum.push((name.to_owned(), amount.clone())),
    }
}

fn raise(sum: &mut Vec<(String, Quantity)>, name: &str, amount: &Quantity) {
    match sum.iter_mut().find(|(own, _)| own == name) {
        Some((_, own)) if amount > own => *own = amount.clone(),
        Some(_) => {}
        None => sum.push((name.to_owned(), amount.clone())),
    }
}

/// Checks a pod's own requirements against those of its containers.
pub(crate) fn pod_level(spec: &At<'_>, claims: &BTreeSet<&str>, errors: &mut Errors) {
    let at = spec.get("resources");
    if at.is_null() {
        return;
    }
    if spec.get("os").str("name") == "windows" {
        at.forbidden(errors, "may not be set for a windows pod");
        return;
    }
    let own_claims = at.get("claims");
    if own_claims.is_set() {
        let detail = "claims may not be set for Resources at pod-level";
        own_claims.forbidden(errors, detail);
    }
    requirements(&at, Of::Pod, claims, errors);
    for (list, word) in [("requests", "requests"), ("limits", "limits")] {
        let own = at.get(list);
        for (name, sum) in aggregate(spec, list) {
            if list == "limits" && !is_huge_page(&name) {
                continue;
            }
            let entry = own.key(&name);
            let Some(pod) = entry.quantity().filter(|pod| &sum > pod) else {
                continue;
            };
            let detail = format!(
                "must be greater than or equal to aggregate container {word} of {}",
                sum.canonical()
            );
            entry.invalid_as(errors, pod.canonical(), &detail);
        }
    }
    let limits = at.get("limits");
    let containers = at.get("containers");
    for (index, container) in spec.get("containers").items().enumerate() {
        for (name, limit) in amounts(container.value, "limits") {
            let Some(pod) = limits.key(name).quantity().filter(|pod| &limit > pod) else {
                continue;
            };
            let place = containers.item(index);
            let place = place.key(name);
            let detail = format!(
                "must be less than or equal to pod limits of {}",
                pod.canonical()
            );
            place
                .get("limits")
                .invalid_as(errors, limit.canonical(), &detail);
        }
    }
}
