//! ResourceQuota: what a namespace may hold, what an object takes of it, and what is
//! taken by all that is there.
//!
//! The store's writer asks [`charge`] and writes the quotas it gives back in the same
//! transaction as the object: usage never falls behind. Deletions are not charged; the
//! leader counts anew ([`recount`]) when something is gone.
//!
//! Invariants
//! - An object is charged to a quota only if the quota tracks something of its kind and
//!   its scopes match, and never beyond the hard limit.
//! - [`recount`] over all objects equals the sum of their charges.

mod scopes;
mod usage;

use std::collections::{BTreeMap, BTreeSet};

use nautilus_machinery::quantity::Quantity;
use nautilus_machinery::resource::Resource;
use nautilus_machinery::status::ApiError;
use serde_json::{Value, json};

use crate::attributes::{Attributes, Operation};
use crate::values::{Resources, add, resources, resources_value};

pub use usage::{Tracked, usage};

/// Kinds that never were under quota: they are not stored, or were exempt from the start.
const IGNORED: [(&str, &str); 10] = [
    ("", "bindings"),
    ("", "componentstatuses"),
    ("", "events"),
    ("events.k8s.io", "events"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
];

/// Whether the request may change what is taken.
pub fn handles(asked: &Attributes<'_>, object: &Value) -> bool {
    let (group, plural): (&str, &str) = (&asked.resource.group, &asked.resource.plural);
    if asked.namespace.is_none() || !asked.resource.namespaced || IGNORED.contains(&(group, plural))
    {
        return false;
    }
    let (new, changed) = (
        asked.operation == Operation::Create,
        asked.operation == Operation::Update,
    );
    match (Tracked::of(group, plural), asked.subresource) {
        (Tracked::Pods, None) => {
            let moves = asked
                .old
                .is_some_and(|old| scopes::is_terminating(old) != scopes::is_terminating(object));
            new || changed && moves
        }
        (Tracked::Pods, Some("resize")) | (Tracked::Claims, Some("status")) => changed,
        (Tracked::Services | Tracked::Claims | Tracked::DeviceClaims, None) => new || changed,
        (Tracked::Count, None) => new,
        _ => false,
    }
}

/// What the object takes, of the quotas that matter: each changed quota with its place
/// among those given. 403 where there is not enough. `now_s`: seconds since 1970.
pub fn charge(
    asked: &Attributes<'_>,
    object: &Value,
    quotas: &[Value],
    now_s: i64,
) -> Result<Vec<(usize, Value)>, ApiError> {
    let resource = asked.resource;
    let refuse = |why: &str| asked.forbidden(Some(object), why);
    let mut interesting = Vec::new();
    for (index, quota) in quotas.iter().enumerate() {
        let hard = resources(&quota["status"]["hard"]);
        let tracked = tracked_names(resource, &hard);
        if tracked.is_empty() || !scopes::matches(quota, resource, object) {
            continue;
        }
        let name = quota["metadata"]["name"].as_str().unwrap_or_default();
        if let Some(missing) = usage::missing_amounts(resource, object, &tracked) {
            return Err(refuse(&format!("failed quota: {name}: {missing}")));
        }
        let used = resources(&quota["status"]["used"]);
        if tracked.iter().any(|tracked| !used.contains_key(tracked)) {
            let tracked: Vec<&str> = tracked.iter().map(String::as_str).collect();
            return Err(refuse(&format!(
                "status unknown for quota: {name}, resources: {}",
                tracked.join(",")
            )));
        }
        interesting.push((index, hard, used));
    }
    if interesting.is_empty() {
        return Ok(Vec::new());
    }
    let taken = usage(resource, object, now_s);
    let negative: Vec<&str> = taken
        .iter()
        .filter(|(_, amount)| amount.is_negative())
        .map(|(name, _)| name.as_str())
        .collect();
    if !negative.is_empty() {
        return Err(refuse(&format!(
            "quota usage is negative for resource(s): {}",
            negative.join(",")
        )));
    }
    let before = asked.old.map(|old| (old, usage(resource, old, now_s)));
    let mut changed = Vec::new();
    for (index, hard, used) in interesting {
        let mut delta = match &before {
            Some((old, before)) if scopes::matches(&quotas[index], resource, old) => {
                grown(&taken, before)
            }
            _ => taken.clone(),
        };
        delta.retain(|name, amount| !amount.is_zero() && hard.contains_key(name));
        if delta.is_empty() {
            continue;
        }
        let mut sum = used.clone();
        add(&mut sum, &delta);
        if asked.subresource != Some("status") {
            let name = quotas[index]["metadata"]["name"].as_str();
            check(&delta, &sum, &used, &hard)
                .map_err(|why| refuse(&format!("exceeded quota: {}, {why}", name.unwrap_or(""))))?;
        }
        let mut quota = quotas[index].clone();
        quota["status"]["used"] = resources_value(&sum);
        changed.push((index, quota));
    }
    Ok(changed)
}

/// By how much each amount grew.
fn grown(new: &Resources, old: &Resources) -> Resources {
    new.iter()
        .map(|(name, amount)| {
            let grown = old
                .get(name)
                .map_or_else(|| amount.clone(), |old| amount.minus(old));
            let grown = if grown.is_negative() {
                Quantity::of_count(0)
            } else {
                grown
            };
            (name.clone(), grown)
        })
        .collect()
}

fn check(
    delta: &Resources,
    sum: &Resources,
    used: &Resources,
    hard: &Resources,
) -> Result<(), String> {
    let exceeded: BTreeSet<&str> = delta
        .keys()
        .filter(|name| match (sum.get(*name), hard.get(*name)) {
            (Some(sum), Some(hard)) => sum > hard,
            _ => false,
        })
        .map(String::as_str)
        .collect();
    if exceeded.is_empty() {
        return Ok(());
    }
    let text = |amounts: &Resources| {
        let texts: Vec<String> = amounts
            .iter()
            .filter(|(name, _)| exceeded.contains(name.as_str()))
            .map(|(name, amount)| format!("{name}={}", amount.canonical()))
            .collect();
        texts.join(",")
    };
    Err(format!(
        "requested: {}, used: {}, limited: {}",
        text(delta),
        text(used),
        text(hard)
    ))
}

/// The names of a hard limit that are about this kind.
fn tracked_names(resource: &Resource, hard: &Resources) -> BTreeSet<String> {
    hard.keys()
        .filter(|name| usage::tracks(resource, name))
        .cloned()
        .collect()
}

/// Whether any hard limit of the quota is about this kind.
pub fn concerns(quota: &Value, resource: &Resource) -> bool {
    resources(&quota["spec"]["hard"])
        .keys()
        .any(|name| usage::tracks(resource, name))
}

/// Whether a kind's objects count by their number alone, whatever they are.
pub fn counts_only(resource: &Resource) -> bool {
    Tracked::of(&resource.group, &resource.plural) == Tracked::Count
}

/// The quota's status, counted anew. `objects` gives the objects of a kind in the
/// quota's namespace, `count` their number where that is all ([`counts_only`]).
pub fn recount<'r>(
    quota: &Value,
    kinds: impl IntoIterator<Item = &'r Resource>,
    now_s: i64,
    mut objects: impl FnMut(&Resource) -> Vec<Value>,
    mut count: impl FnMut(&Resource) -> u64,
) -> Value {
    let hard = resources(&quota["spec"]["hard"]);
    let mut used: Resources = hard
        .keys()
        .map(|name| (name.clone(), Quantity::of_count(0)))
        .collect();
    let mut seen = BTreeSet::new();
    for resource in kinds {
        let place = (resource.group.to_string(), resource.plural.to_string());
        let tracked = tracked_names(resource, &hard);
        if tracked.is_empty() || !seen.insert(place) {
            continue;
        }
        let mut sum: BTreeMap<String, Quantity> = BTreeMap::new();
        if counts_only(resource) {
            if !scopes::has_any(quota) {
                let number = Quantity::of_count(count(resource));
                sum.extend(tracked.iter().map(|name| (name.clone(), number.clone())));
            }
        } else {
            for object in objects(resource) {
                if scopes::matches(quota, resource, &object) {
                    add(&mut sum, &usage(resource, &object, now_s));
                }
            }
        }
        sum.retain(|name, _| tracked.contains(name));
        add(&mut used, &sum);
    }
    json!({ "hard": resources_value(&hard), "used": resources_value(&used) })
}

/// Whether a status says what another says, in whatever form.
pub fn same_status(one: &Value, other: &Value) -> bool {
    ["hard", "used"]
        .iter()
        .all(|field| resources(&one[*field]) == resources(&other[*field]))
}

#[cfg(test)]
mod tests;
