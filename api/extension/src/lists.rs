//! Lists that are sets or maps hold no element or key twice.

use std::collections::BTreeMap;

use nautilus_machinery::validation::Errors;
use serde_json::{Map, Value};

use crate::schema::Schema;

/// Adds an error for each element that is there before.
pub fn check_lists(errors: &mut Errors, path: &str, schema: &Schema, value: &Value) {
    match value {
        Value::Array(items) => {
            match schema.list_type.as_deref() {
                Some("set") => {
                    for at in repeated(items.iter().map(Value::to_string)) {
                        errors.duplicate(&format!("{path}[{at}]"), &items[at]);
                    }
                }
                Some("map") => check_map(errors, path, schema, items),
                _ => {}
            }
            if let Some(each) = schema.items.as_deref() {
                for (at, item) in items.iter().enumerate() {
                    check_lists(errors, &format!("{path}[{at}]"), each, item);
                }
            }
        }
        Value::Object(entries) => {
            for (name, value) in entries {
                if let Some(each) = schema.each_value() {
                    check_lists(errors, &format!("{path}[{name}]"), each, value);
                }
                if let Some(field) = schema.properties.get(name) {
                    let path = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}.{name}")
                    };
                    check_lists(errors, &path, field, value);
                }
            }
        }
        _ => {}
    }
}

fn check_map(errors: &mut Errors, path: &str, schema: &Schema, items: &[Value]) {
    let odd = items
        .iter()
        .position(|item| !item.is_object() && !item.is_null());
    if let Some(at) = odd {
        let detail = "must be an object for an array of list-type map";
        return errors.invalid(&format!("{path}[{at}]"), &items[at], detail);
    }
    let keys: Vec<Value> = items
        .iter()
        .map(|item| Value::Object(key_of(item, &schema.list_map_keys)))
        .collect();
    for at in repeated(keys.iter().map(canonical)) {
        errors.duplicate(&format!("{path}[{at}]"), &keys[at]);
    }
}

/// The fields of an item that are its key.
pub(crate) fn key_of(item: &Value, names: &[String]) -> Map<String, Value> {
    let mut key = Map::new();
    for name in names {
        if let Some(value) = item.get(name) {
            key.insert(name.clone(), value.clone());
        }
    }
    key
}

fn canonical(key: &Value) -> String {
    let sorted: BTreeMap<&String, &Value> = key.as_object().into_iter().flatten().collect();
    format!("{sorted:?}")
}

/// The places of second appearances.
fn repeated(items: impl Iterator<Item = String>) -> Vec<usize> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut places = Vec::new();
    for (at, item) in items.enumerate() {
        let times = seen.entry(item).or_default();
        *times += 1;
        if *times == 2 {
            places.push(at);
        }
    }
    places
}
