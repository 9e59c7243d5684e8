//! kubectl's annotation of its client-side apply: read once, so that a migration to
//! server-side apply meets no conflict with itself, and kept up to date after it.

use serde_json::{Map, Value, json};

use super::without_entries;
use crate::compare::compare;
use crate::schema::TypeView;
use crate::set::Set;
use crate::typed::{Duplicates, field_set, validate};
use crate::value::escaped;

/// The annotation.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Bytes of all annotations of an object, at most.
const MAX_ANNOTATIONS_BYTES: usize = 256 * 1024;

/// What client-side apply set and still stands; `None`: it never did, or in another
/// version.
pub(super) fn owned(view: &TypeView, live: &Value, api_version: &str) -> Option<Set> {
    let text = live["metadata"]["annotations"][LAST_APPLIED].as_str()?;
    let applied: Value = serde_json::from_str(text).ok()?;
    if applied["apiVersion"] != api_version {
        return None;
    }
    let live = without_entries(live);
    validate(view, &live, Duplicates::Refused).ok()?;
    validate(view, &applied, Duplicates::Refused).ok()?;
    let found = compare(view, &applied, &live).ok()?;
    let set = field_set(view, &applied)
        .difference(&found.modified)
        .difference(&found.added)
        .difference(&found.removed);
    Some(set)
}

/// Writes the annotation anew where the object has one.
pub(super) fn follow(object: &mut Value, config: &Value) {
    let annotations = object.pointer_mut("/metadata/annotations");
    let Some(annotations) = annotations.and_then(Value::as_object_mut) else {
        return;
    };
    let has = annotations
        .get(LAST_APPLIED)
        .and_then(Value::as_str)
        .is_some_and(|text| !text.is_empty());
    if !has {
        return;
    }
    annotations.insert(LAST_APPLIED.to_owned(), json!(configuration(config)));
    let bytes: usize = annotations
        .iter()
        .map(|(name, value)| name.len() + value.as_str().map_or(0, str::len))
        .sum();
    if bytes > MAX_ANNOTATIONS_BYTES {
        annotations.shift_remove(LAST_APPLIED);
    }
}

/// The configuration as one line of JSON, keys in order, without the annotation.
fn configuration(config: &Value) -> String {
    let mut config = sorted(config);
    let annotations = config.pointer_mut("/metadata/annotations");
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.shift_remove(LAST_APPLIED);
    }
    format!("{}\n", escaped(&config.to_string()))
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut fields: Vec<(&String, &Value)> = map.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            let fields = fields
                .into_iter()
                .map(|(name, value)| (name.clone(), sorted(value)));
            Value::Object(fields.collect::<Map<String, Value>>())
        }
        Value::Array(list) => Value::Array(list.iter().map(sorted).collect()),
        value => value.clone(),
    }
}
