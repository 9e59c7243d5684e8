//! Strategic merge: lists whose elements have a key are merged by it, lists of
//! primitives as sets, and directives in the patch delete, replace, retain and
//! order. Which field does what stands in the schema.
//!
//! Semantics: `k8s.io/apimachinery/pkg/util/strategicpatch` of v1.37, applied to
//! an object (not to another patch).

use serde_json::{Map, Value};

use crate::schema::{self, Field, Shape, Type};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Why a patch can't be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StrategicError {
    /// The patch is no object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// `$patch` with another word than `delete` or `replace`.
    #[error("unknown patch type: {0}")]
    Directive(String),
    /// An element of a keyed list has no key.
    #[error("map: {element} does not contain declared merge key: {key}")]
    NoMergeKey {
        /// The element.
        element: String,
        /// The key it lacks.
        key: String,
    },
    /// A list of another form than its field's.
    #[error("{0} is not a list of the form it should have")]
    List(String),
    /// `$retainKeys` does not list a field of the patch.
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    /// `$setElementOrder` does not fit its list.
    #[error("invalid patch format of setElementOrder list")]
    ElementOrder,
}

/// Where in the schema a merge is: a type, a map's elements, or nowhere.
#[derive(Clone, Copy)]
enum Place<'a> {
    Type(&'a Type),
    Elements(&'a Shape),
    Unknown,
}

impl<'a> Place<'a> {
    fn of(shape: &'a Shape) -> Self {
        match shape {
            Shape::Message(name) => schema::find(name).map_or(Place::Unknown, Place::Type),
            Shape::Map(element) => Place::Elements(element),
            Shape::List(element) => Place::of(element),
            _ => Place::Unknown,
        }
    }

    fn field(self, name: &str) -> Option<&'a Field> {
        match self {
            Place::Type(found) => found.field(name),
            _ => None,
        }
    }

    fn below(self, name: &str) -> Self {
        match self {
            Place::Type(found) => found
                .field(name)
                .map_or(Place::Unknown, |field| Place::of(&field.shape)),
            Place::Elements(element) => Place::of(element),
            Place::Unknown => Place::Unknown,
        }
    }
}

/// Applies `patch` to an object of the type.
pub fn apply(found: &Type, original: &Value, patch: &Value) -> Result<Value, StrategicError> {
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(StrategicError::NotAnObject);
    };
    merge_map(Place::Type(found), original.clone(), patch).map(Value::Object)
}

fn merge_map(
    place: Place<'_>,
    mut original: Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<Map<String, Value>, StrategicError> {
    match patch.get(PATCH) {
        Some(Value::String(word)) if word == "replace" => {
            let mut replaced = patch.clone();
            replaced.shift_remove(PATCH);
            return Ok(replaced);
        }
        Some(Value::String(word)) if word == "delete" => return Ok(Map::new()),
        Some(other) => return Err(StrategicError::Directive(other.to_string())),
        None => {}
    }
    retain_keys(&mut original, patch)?;
    let mut ordered: Vec<&str> = Vec::new();
    for (key, order) in patch {
        if let Some(name) = key.strip_prefix(ELEMENT_ORDER) {
            ordered.push(name);
            merge_ordered(place, &mut original, patch, name, order)?;
        }
    }
    for (key, value) in patch {
        let directive = key == PATCH || key == RETAIN_KEYS || key.starts_with(ELEMENT_ORDER);
        if directive || ordered.contains(&key.as_str()) {
            continue;
        }
        if let Some(name) = key.strip_prefix(DELETE_FROM) {
            delete_primitives(&mut original, name, value)?;
            continue;
        }
        merge_field(place, &mut original, key, value)?;
    }
    Ok(original)
}

fn merge_field(
    place: Place<'_>,
    original: &mut Map<String, Value>,
    key: &str,
    value: &Value,
) -> Result<(), StrategicError> {
    if value.is_null() {
        original.shift_remove(key);
        return Ok(());
    }
    let merged = match (original.get_mut(key).map(Value::take), value) {
        (Some(Value::Object(_)), Value::Object(patch))
            if place.field(key).is_some_and(|field| field.patch_replace) =>
        {
            Value::Object(patch.clone())
        }
        (Some(Value::Object(own)), Value::Object(patch)) => {
            Value::Object(merge_map(place.below(key), own, patch)?)
        }
        (Some(Value::Array(own)), Value::Array(patch)) => {
            Value::Array(merge_list(place, key, own, patch)?)
        }
        (_, value) => match without_directives(value) {
            Some(plain) => plain,
            None => {
                original.shift_remove(key);
                return Ok(());
            }
        },
    };
    original.insert(key.to_owned(), merged);
    Ok(())
}

/// A patch's value as it stands where there was none: without nulls in maps and
/// without directives. `None` for what holds a `$patch`: there is nothing to
/// delete or to replace.
fn without_directives(value: &Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(PATCH) => None,
        Value::Object(map) => {
            let kept = map
                .iter()
                .filter(|(key, value)| !is_directive(key) && !value.is_null())
                .filter_map(|(key, value)| Some((key.clone(), without_directives(value)?)))
                .collect();
            Some(Value::Object(kept))
        }
        Value::Array(list) => Some(Value::Array(
            list.iter().filter_map(without_directives).collect(),
        )),
        other => Some(other.clone()),
    }
}

fn is_directive(key: &str) -> bool {
    key == PATCH
        || key == RETAIN_KEYS
        || key.starts_with(DELETE_FROM)
        || key.starts_with(ELEMENT_ORDER)
}

fn retain_keys(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), StrategicError> {
    let Some(list) = patch.get(RETAIN_KEYS) else {
        return Ok(());
    };
    let keys = list.as_array().ok_or(StrategicError::RetainKeys)?;
    let listed = |key: &str| keys.iter().any(|own| own == key);
    for (key, value) in patch {
        if !is_directive(key) && !value.is_null() && !listed(key) {
            return Err(StrategicError::RetainKeys);
        }
    }
    original.retain(|key, _| listed(key));
    Ok(())
}

fn delete_primitives(
    original: &mut Map<String, Value>,
    name: &str,
    value: &Value,
) -> Result<(), StrategicError> {
    let gone = value
        .as_array()
        .ok_or_else(|| StrategicError::List(name.to_owned()))?;
    if let Some(Value::Array(list)) = original.get_mut(name) {
        list.retain(|item| !gone.contains(item));
    }
    Ok(())
}

fn merge_list(
    place: Place<'_>,
    key: &str,
    original: Vec<Value>,
    patch: &[Value],
) -> Result<Vec<Value>, StrategicError> {
    let field = place.field(key);
    if !field.is_some_and(|field| field.patch_merge) {
        return Ok(patch.to_vec());
    }
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    let Some(merge_key) = field.and_then(|field| field.merge_key.as_deref()) else {
        let (merged, order) = merge_primitives(key, &original, patch)?;
        return Ok(in_order(merged, &order, &original, None));
    };
    let Some((original, patch)) = special_elements(key, original, patch, merge_key)? else {
        return Ok(patch
            .iter()
            .filter(|item| item.get(PATCH).is_none())
            .cloned()
            .collect());
    };
    let merged = merge_keyed(place.below(key), original.clone(), &patch, merge_key)?;
    Ok(in_order(merged, &patch, &original, Some(merge_key)))
}

type Lists = (Vec<Value>, Vec<Value>);

fn merge_primitives(
    key: &str,
    original: &[Value],
    patch: &[Value],
) -> Result<Lists, StrategicError> {
    let mut merged: Vec<Value> = Vec::new();
    for item in original.iter().chain(patch) {
        if item.is_object() || item.is_array() {
            return Err(StrategicError::List(key.to_owned()));
        }
        if !merged.contains(item) {
            merged.push(item.clone());
        }
    }
    Ok((merged, patch.to_vec()))
}

/// Carries out the elements that only delete; `None` where the patch replaces
/// the whole list.
fn special_elements(
    key: &str,
    mut original: Vec<Value>,
    patch: &[Value],
    merge_key: &str,
) -> Result<Option<Lists>, StrategicError> {
    let mut plain = Vec::new();
    let mut replaces = false;
    for item in patch {
        let Some(map) = item.as_object() else {
            return Err(StrategicError::List(key.to_owned()));
        };
        match map.get(PATCH).map(|word| word.as_str().unwrap_or_default()) {
            None => plain.push(item.clone()),
            Some("replace") => replaces = true,
            Some("delete") => {
                let value = map.get(merge_key).ok_or_else(|| no_key(item, merge_key))?;
                original.retain(|own| own.get(merge_key) != Some(value));
            }
            Some(other) => return Err(StrategicError::Directive(other.to_owned())),
        }
    }
    Ok((!replaces).then_some((original, plain)))
}

fn no_key(element: &Value, key: &str) -> StrategicError {
    StrategicError::NoMergeKey {
        element: element.to_string(),
        key: key.to_owned(),
    }
}

fn merge_keyed(
    place: Place<'_>,
    mut original: Vec<Value>,
    patch: &[Value],
    merge_key: &str,
) -> Result<Vec<Value>, StrategicError> {
    for item in patch {
        let Some(value) = item.get(merge_key) else {
            return Err(no_key(item, merge_key));
        };
        let own = original
            .iter_mut()
            .find(|own| own.get(merge_key) == Some(value));
        match (own, item) {
            (Some(own), Value::Object(patch)) => {
                let Value::Object(map) = own.take() else {
                    return Err(no_key(item, merge_key));
                };
                *own = Value::Object(merge_map(place, map, patch)?);
            }
            // As it is: the reference leaves directives in new elements, where typing
            // the result drops them.
            _ => original.push(item.clone()),
        }
    }
    Ok(original)
}

/// Merges a list whose order the patch states.
fn merge_ordered(
    place: Place<'_>,
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    name: &str,
    order: &Value,
) -> Result<(), StrategicError> {
    let order = order.as_array().ok_or(StrategicError::ElementOrder)?;
    let merge_key = place
        .field(name)
        .and_then(|field| field.merge_key.as_deref());
    let list = |map: &Map<String, Value>| match map.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list.clone())),
        Some(_) => Err(StrategicError::List(name.to_owned())),
    };
    let (own, patched) = (list(original)?, list(patch)?);
    let listed = patched
        .iter()
        .flatten()
        .filter(|item| item.get(PATCH).is_none());
    let mut places = order.iter();
    for item in listed.filter(|_| !order.is_empty()) {
        if !places.any(|place| same_element(place, item, merge_key)) {
            return Err(StrategicError::ElementOrder);
        }
    }
    let before = own.clone().unwrap_or_default();
    if patch.get(name).is_some_and(Value::is_null) {
        original.shift_remove(name);
        return Ok(());
    }
    let merged = match (own, patched) {
        (None, None) => return Ok(()),
        (Some(own), None) => own,
        (None, Some(patched)) => match without_directives(&Value::Array(patched)) {
            Some(Value::Array(list)) => list,
            _ => return Ok(()),
        },
        (Some(own), Some(patched)) => merge_list(place, name, own, &patched)?,
    };
    let merged = in_order(merged, order, &before, merge_key);
    original.insert(name.to_owned(), Value::Array(merged));
    Ok(())
}

fn same_element(left: &Value, right: &Value, merge_key: Option<&str>) -> bool {
    match merge_key {
        Some(key) => left.get(key).is_some() && left.get(key) == right.get(key),
        None => left == right,
    }
}

fn position(list: &[Value], item: &Value, merge_key: Option<&str>) -> Option<usize> {
    list.iter()
        .position(|own| same_element(own, item, merge_key))
}

/// The elements that the patch names in the patch's order, the others in the
/// server's, and the two interleaved by the server's order where both are there.
fn in_order(
    merged: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    merge_key: Option<&str>,
) -> Vec<Value> {
    let (mut named, mut others): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|item| position(patch_order, item, merge_key).is_some());
    named.sort_by_key(|item| position(patch_order, item, merge_key));
    others.sort_by_key(|item| position(server_order, item, merge_key));
    let mut ordered = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (None, None) => return ordered,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(own)) => matches!(
                (
                    position(server_order, other, merge_key),
                    position(server_order, own, merge_key),
                ),
                (Some(other), Some(own)) if other < own
            ),
        };
        ordered.extend(if other_first {
            others.next()
        } else {
            named.next()
        });
    }
}
