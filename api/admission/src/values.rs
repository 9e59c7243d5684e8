//! Short words for walking through objects and lists of resources.

use std::collections::BTreeMap;

use nautilus_machinery::quantity::Quantity;
use serde_json::{Value, json};

/// Amounts by the resource's name.
pub type Resources = BTreeMap<String, Quantity>;

/// The elements of a list; none of what is no list.
pub fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A text; empty for what is none.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A list's place, made where there is none.
pub fn list_at<'a>(object: &'a mut Value, field: &str) -> &'a mut Vec<Value> {
    let place = &mut object[field];
    if !place.is_array() {
        *place = json!([]);
    }
    match place {
        Value::Array(list) => list,
        _ => unreachable!("it was made a list above"),
    }
}

/// The amounts of a `requests`, `limits`, `hard`... object; what can't be read is not
/// there.
pub fn resources(value: &Value) -> Resources {
    let amounts = value.as_object().into_iter().flatten();
    amounts
        .filter_map(|(name, amount)| Some((name.clone(), Quantity::of_json(amount)?)))
        .collect()
}

/// The amounts as an object.
pub fn resources_value(resources: &Resources) -> Value {
    resources
        .iter()
        .map(|(name, amount)| (name.clone(), json!(amount.canonical())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Adds each amount.
pub fn add(sum: &mut Resources, more: &Resources) {
    for (name, amount) in more {
        let own = sum.entry(name.clone());
        own.and_modify(|own| *own = own.plus(amount))
            .or_insert_with(|| amount.clone());
    }
}

/// Keeps the larger of each amount.
pub fn raise(least: &mut Resources, other: &Resources) {
    for (name, amount) in other {
        match least.get(name) {
            Some(own) if own >= amount => {}
            _ => {
                least.insert(name.clone(), amount.clone());
            }
        }
    }
}

/// Several complaints as one text, in the reference's form.
pub fn aggregate(messages: Vec<String>) -> Option<String> {
    let mut unique: Vec<String> = Vec::new();
    for message in messages {
        if !unique.contains(&message) {
            unique.push(message);
        }
    }
    match unique.len() {
        0 => None,
        1 => unique.pop(),
        _ => Some(format!("[{}]", unique.join(", "))),
    }
}
