//! How defaults are filled in: only where a field is absent, null, empty or zero.

use serde_json::{Map, Value, json};

/// The objects in a list of an object.
pub(crate) fn list_mut<'a>(
    map: &'a mut Map<String, Value>,
    name: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    map.get_mut(name)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

/// An object in an object.
pub(crate) fn object_mut<'a>(
    map: &'a mut Map<String, Value>,
    name: &str,
) -> Option<&'a mut Map<String, Value>> {
    map.get_mut(name).and_then(Value::as_object_mut)
}

/// Sets a field that is absent, null or an empty text.
pub(crate) fn set_default(map: &mut Map<String, Value>, key: &str, value: Value) {
    let absent = map.get(key).is_none_or(|own| own.is_null() || own == "");
    if absent {
        map.insert(key.to_owned(), value);
    }
}

/// Sets a number that is absent or zero.
pub(crate) fn set_nonzero(map: &mut Map<String, Value>, key: &str, value: i64) {
    if map.get(key).and_then(Value::as_i64).unwrap_or(0) == 0 {
        map.insert(key.to_owned(), json!(value));
    }
}

/// The object at a field, made if there is none.
pub(crate) fn made<'a>(
    map: &'a mut Map<String, Value>,
    key: &str,
) -> Option<&'a mut Map<String, Value>> {
    let own = map.entry(key.to_owned()).or_insert(Value::Null);
    if own.is_null() {
        *own = json!({});
    }
    own.as_object_mut()
}

/// An empty list is as none.
pub(crate) fn drop_empty(map: &mut Map<String, Value>, name: &str) {
    if map.get(name).is_some_and(|own| own == &json!([])) {
        map.shift_remove(name);
    }
}
