//! Conversion between a kind's versions: what a webhook's answer must keep.

use serde_json::{Value, json};

/// Why an answer is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConversionError(pub String);

/// Takes the metadata that a conversion may change (labels and annotations) from the
/// converted object, and everything else of it from the original.
pub fn check_converted(
    original: &Value,
    converted: &mut Value,
    api_version: &str,
) -> Result<(), ConversionError> {
    let wrong = |what: String| Err(ConversionError(what));
    if converted["apiVersion"] != json!(api_version) {
        let found = converted["apiVersion"].as_str().unwrap_or_default();
        return wrong(format!(
            "invalid converted object: expected converted apiVersion {api_version}, got {found}"
        ));
    }
    if converted["kind"] != original["kind"] {
        return wrong(format!(
            "invalid converted object: expected converted kind {}, got {}",
            original["kind"].as_str().unwrap_or_default(),
            converted["kind"].as_str().unwrap_or_default()
        ));
    }
    for (field, what) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (before, after) = (&original["metadata"][field], &converted["metadata"][field]);
        if before != after {
            return wrong(format!(
                "invalid converted object: must have the same {what}: {} != {}",
                after.as_str().unwrap_or_default(),
                before.as_str().unwrap_or_default()
            ));
        }
    }
    if !converted["metadata"].is_object() {
        return wrong("missing metadata in converted object".to_owned());
    }
    let mut metadata = original["metadata"].clone();
    for field in ["labels", "annotations"] {
        let value = converted["metadata"][field].clone();
        match (metadata.as_object_mut(), value) {
            (Some(entries), Value::Null) => {
                entries.remove(field);
            }
            (Some(entries), value) => {
                entries.insert(field.to_owned(), value);
            }
            (None, _) => {}
        }
    }
    converted["metadata"] = metadata;
    Ok(())
}
