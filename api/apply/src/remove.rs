//! An object without some of its fields and elements.

use serde_json::{Map as Object, Value};

use crate::path::PathElement;
use crate::schema::{List, Map, Schema, TypeId, TypeView};
use crate::set::Set;
use crate::typed::{Kind, element_of, kind};

/// The object without the members of `set`; what is below a member goes with it.
pub fn remove(view: &TypeView, value: &Value, set: &Set) -> Value {
    remove_from(&view.schema, view.id, value, set)
}

fn remove_from(schema: &Schema, id: TypeId, value: &Value, set: &Set) -> Value {
    match (kind(schema.atom(id), Some(value)), value) {
        (Kind::Map(map), Value::Object(object)) if !map.atomic && !object.is_empty() => {
            fields(schema, map, object, set)
        }
        (Kind::List(list), Value::Array(items)) if list.associative && !items.is_empty() => {
            elements(schema, list, items, set)
        }
        (Kind::Scalar(_), _) => value.clone(),
        _ => Value::Null,
    }
}

fn fields(schema: &Schema, map: &Map, object: &Object<String, Value>, set: &Set) -> Value {
    let mut kept = Object::new();
    for (name, value) in object {
        let value = match (set.get(&PathElement::field(name)), map.child(name)) {
            (Some(node), _) if node.member => continue,
            (Some(node), Some(id)) if !node.below.is_empty() => {
                remove_from(schema, id, value, &node.below)
            }
            _ => value.clone(),
        };
        kept.insert(name.clone(), value);
    }
    match kept.is_empty() {
        true => Value::Null,
        false => Value::Object(kept),
    }
}

fn elements(schema: &Schema, list: &List, items: &[Value], set: &Set) -> Value {
    let mut kept = Vec::with_capacity(items.len());
    for item in items {
        let node = element_of(schema, list, item)
            .ok()
            .and_then(|element| set.get(&element));
        match node {
            Some(node) if node.member => {}
            Some(node) if !node.below.is_empty() => {
                kept.push(remove_from(schema, list.element, item, &node.below));
            }
            _ => kept.push(item.clone()),
        }
    }
    match kept.is_empty() {
        true => Value::Null,
        false => Value::Array(kept),
    }
}
