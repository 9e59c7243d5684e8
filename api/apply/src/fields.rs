//! Field sets in their wire form, `fieldsV1`, and questions that can be answered
//! on the wire form without reading all of it.
//!
//! Invariant: `decode(encode(set)) == set`.

use serde_json::{Map, Value};

use crate::path::{KeyError, PathElement};
use crate::set::Set;

/// The name of this form, in `fieldsType`.
pub const FIELDS_TYPE: &str = "FieldsV1";

/// The wire form.
pub fn encode(set: &Set) -> Value {
    Value::Object(encode_nodes(set, false))
}

fn encode_nodes(set: &Set, own: bool) -> Map<String, Value> {
    let mut map = Map::new();
    if own && !set.nodes().is_empty() {
        map.insert(".".to_owned(), Value::Object(Map::new()));
    }
    for node in set.nodes() {
        let below = encode_nodes(&node.below, node.member);
        map.insert(node.element.to_key(), Value::Object(below));
    }
    map
}

/// Reads the wire form; absent means empty.
pub fn decode(fields: &Value) -> Result<Set, String> {
    match fields {
        Value::Null => Ok(Set::default()),
        Value::Object(map) => Ok(decode_nodes(map)?.unwrap_or_default()),
        _ => Err("error decoding set: expected an object".to_owned()),
    }
}

/// The set below; `None` where there is none, so that the node itself is meant.
fn decode_nodes(map: &Map<String, Value>) -> Result<Option<Set>, String> {
    let mut set: Option<Set> = None;
    for (key, value) in map.iter().filter(|(key, _)| key.as_str() != ".") {
        let element = match PathElement::from_key(key) {
            Ok(element) => element,
            Err(KeyError::Unknown) => continue,
            Err(KeyError::Malformed(why)) => {
                return Err(format!(
                    "error decoding set: parsing key as path element: {why}"
                ));
            }
        };
        let below = match value {
            Value::Null => None,
            Value::Object(below) => decode_nodes(below)?,
            _ => return Err("error decoding set: expected an object".to_owned()),
        };
        let member = below.is_none() || value.get(".").is_some();
        set.get_or_insert_default()
            .add(element, member, below.unwrap_or_default());
    }
    Ok(set)
}

/// Whether any path of `set`, or a parent or child of it, is in the wire form:
/// if not, nothing about these fields has to be read.
pub fn may_touch(fields: &Value, set: &Set) -> bool {
    let Value::Object(map) = fields else {
        return false;
    };
    set.nodes().iter().any(|node| {
        let Some(below) = map.get(&node.element.to_key()) else {
            return false;
        };
        node.member || may_touch(below, &node.below)
    })
}

/// Whether every path of `set` is in the wire form.
pub fn holds(fields: &Value, set: &Set) -> bool {
    let Value::Object(map) = fields else {
        return set.is_empty();
    };
    set.nodes().iter().all(|node| {
        let Some(below) = map.get(&node.element.to_key()) else {
            return false;
        };
        let member = below
            .as_object()
            .is_some_and(|below| below.is_empty() || below.contains_key("."));
        (!node.member || member) && holds(below, &node.below)
    })
}
