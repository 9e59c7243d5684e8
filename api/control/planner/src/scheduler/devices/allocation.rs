//! What is written of devices that a claim gets: `status.allocation`.
//!
//! Invariant: where the devices can be reached from some nodes only, the allocation says so.

use serde_json::{Map, Value, json};

use super::allocator::{Allocated, Picked};
use super::capacity::Amounts;
use super::claim::Claim;
use super::slice::Reach;
use crate::hash;
use crate::object;

/// The `status.allocation` of a claim that gets these devices on a node.
pub(super) fn allocation(claim: &Claim, own: &Allocated<'_>, node: &str) -> Value {
    let results = own.picked.iter().enumerate();
    let results: Vec<Value> = results
        .map(|(at, picked)| result(claim, picked, at))
        .collect();
    let mut devices = json!({});
    if !results.is_empty() {
        devices["results"] = results.into();
    }
    let config = config(claim, own);
    if !config.is_empty() {
        devices["config"] = config.into();
    }
    let mut allocation = json!({ "devices": devices });
    if let Some(selector) = node_selector(&own.picked, node) {
        allocation["nodeSelector"] = selector;
    }
    allocation
}

fn result(claim: &Claim, picked: &Picked<'_>, at: usize) -> Value {
    let id = &picked.device.id;
    let mut result = json!({
        "request": picked.ask.name,
        "driver": &*id.pool.driver,
        "pool": &*id.pool.pool,
        "device": &*id.device,
    });
    if picked.ask.is_admin {
        result["adminAccess"] = true.into();
    }
    for (field, own) in [
        ("tolerations", Some(&picked.ask.tolerations_written)),
        ("bindingConditions", picked.device.conditions.as_ref()),
        (
            "bindingFailureConditions",
            picked.device.failure_conditions.as_ref(),
        ),
    ] {
        if let Some(own) = own.filter(|own| object::items(own).next().is_some()) {
            result[field] = own.clone();
        }
    }
    if let Some(share) = &picked.share {
        result["shareID"] = share_id(claim, at).into();
        if !share.is_empty() {
            result["consumedCapacity"] = written(share);
        }
    }
    result
}

fn written(amounts: &Amounts) -> Value {
    let entries = amounts.iter();
    let entries = entries.map(|(name, own)| (name.clone(), own.canonical().into()));
    Value::Object(entries.collect::<Map<_, _>>())
}

/// Tells shares of one device from each other: a UUID (of version 8) by claim and place.
fn share_id(claim: &Claim, at: usize) -> String {
    let version = claim.object["metadata"]["resourceVersion"].as_str();
    let version = version.unwrap_or_default();
    let digits = hash::sha256(&format!("{}/{version}/{at}", claim.uid()));
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-8{}-8{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 15),
        part(15, 18),
        part(18, 30)
    )
}

/// Configurations of the classes that were taken, each once, then those of the claim that
/// are for what was taken. One that is for every request names none.
fn config(claim: &Claim, own: &Allocated<'_>) -> Vec<Value> {
    let entry = |source: &str, requests: Vec<String>, own: &Value| {
        let mut entry = own.clone();
        entry["source"] = source.into();
        entry["requests"] = requests.into();
        entry
    };
    let mut config: Vec<Value> = Vec::new();
    let mut classes: Vec<&str> = Vec::new();
    for (_, class) in &own.asks {
        if classes.contains(&class.name.as_str()) {
            continue;
        }
        classes.push(&class.name);
        let of_class = own.asks.iter().filter(|(_, own)| own.name == class.name);
        let requests: Vec<String> = of_class.map(|(ask, _)| ask.name.clone()).collect();
        let entries = object::items(&class.config);
        config.extend(entries.map(|own| entry("FromClass", requests.clone(), own)));
    }
    let names = claim.spec.requests.iter().zip(&own.asks);
    let names: Vec<[&str; 2]> = names
        .map(|(request, (ask, _))| [request.name.as_str(), ask.name.as_str()])
        .collect();
    let is_named = |requests: &Value, names: &[&str; 2]| {
        let mut requests = object::items(requests);
        requests.any(|own| names.iter().any(|name| own == *name))
    };
    for own in object::items(&claim.spec.config) {
        let requests = &own["requests"];
        let is_for_all = object::items(requests).next().is_none();
        if is_for_all || names.iter().any(|own| is_named(requests, own)) {
            let requests = object::items(requests).filter_map(Value::as_str);
            let requests = requests.map(str::to_owned).collect();
            config.push(entry("FromClaim", requests, own));
        }
    }
    for own in &mut config {
        if names.iter().all(|names| is_named(&own["requests"], names))
            && let Some(fields) = own.as_object_mut()
        {
            fields.shift_remove("requests");
        }
        if let Some(fields) = own.as_object_mut()
            && fields
                .get("requests")
                .is_some_and(|own| object::items(own).next().is_none())
        {
            fields.shift_remove("requests");
        }
    }
    config
}

/// The nodes that can reach all of the devices; `None`: every node.
fn node_selector(picked: &[Picked<'_>], node: &str) -> Option<Value> {
    let mut term = json!({});
    for own in picked {
        let reach = own.slice.reach_of(own.device);
        if own.device.binds_to_node || matches!(reach, Reach::Node(_)) {
            return Some(json!({"nodeSelectorTerms": [{"matchFields": [
                {"key": "metadata.name", "operator": "In", "values": [node]},
            ]}]}));
        }
        let Reach::Selected(_, selector) = reach else {
            continue;
        };
        let Some(first) = object::items(&selector["nodeSelectorTerms"]).next() else {
            continue;
        };
        for field in ["matchFields", "matchExpressions"] {
            for requirement in object::items(&first[field]) {
                let known: Vec<Value> = object::items(&term[field]).cloned().collect();
                if !known.iter().any(|own| is_same(own, requirement)) {
                    term[field] = known.into_iter().chain([requirement.clone()]).collect();
                }
            }
        }
    }
    let is_empty = term.as_object().is_none_or(Map::is_empty);
    (!is_empty).then(|| json!({"nodeSelectorTerms": [term]}))
}

fn is_same(one: &Value, two: &Value) -> bool {
    let values = |own: &Value| {
        let values = object::items(&own["values"]).filter_map(Value::as_str);
        values
            .map(str::to_owned)
            .collect::<std::collections::BTreeSet<_>>()
    };
    one["key"] == two["key"] && one["operator"] == two["operator"] && values(one) == values(two)
}
