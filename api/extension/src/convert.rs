//! Conversion between a kind's versions by a webhook: what it is asked, and what of its
//! answer counts.
//!
//! Source: `ConversionReview` of `apiextensions.k8s.io`; texts are the reference's.
//!
//! Invariant: of metadata a conversion changes labels and annotations alone.

use nautilus_machinery::review::ReviewVersion;
use nautilus_machinery::status::quote;
use nautilus_machinery::validation::common::labels;
use nautilus_machinery::validation::{At, Errors};
use serde_json::{Value, json};

const GROUP: &str = "apiextensions.k8s.io";

/// Why objects could not be converted, in words that name the version they are in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("conversion webhook for {of} {why}")]
pub struct ConversionError {
    /// As `example.org/v1, Kind=Widget`.
    pub of: String,
    /// What went wrong, from the verb on.
    pub why: String,
}

impl ConversionError {
    /// The webhook failed while this object was converted.
    pub fn failed(original: &Value, why: &str) -> Self {
        Self {
            of: version_and_kind(original),
            why: format!("failed: {why}"),
        }
    }
}

/// The review that asks for objects in another version.
pub fn conversion_review(
    version: ReviewVersion,
    uid: &str,
    api_version: &str,
    objects: &[Value],
) -> Value {
    json!({
        "kind": "ConversionReview",
        "apiVersion": format!("{GROUP}/{}", version.as_str()),
        "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": objects},
    })
}

/// The converted objects of the answer to [`conversion_review`], in the order of
/// `originals`, with the metadata that they had.
pub fn converted_objects(
    version: ReviewVersion,
    review: &mut Value,
    uid: &str,
    api_version: &str,
    originals: &[Value],
) -> Result<Vec<Value>, ConversionError> {
    let Some(first) = originals.first() else {
        return Ok(Vec::new());
    };
    let wrong = |why: String| ConversionError {
        of: version_and_kind(first),
        why,
    };
    let answer =
        answer(version, review, uid).map_err(|why| ConversionError::failed(first, &why))?;
    if answer.len() != originals.len() {
        return Err(wrong(format!(
            "returned {} objects, expected {}",
            answer.len(),
            originals.len()
        )));
    }
    let all = originals.iter().zip(answer).enumerate();
    all.map(|(index, (original, mut converted))| {
        check(original, &mut converted, api_version).map_err(|why| {
            wrong(format!(
                "returned invalid converted object at index {index}: {why}"
            ))
        })?;
        Ok(converted)
    })
    .collect()
}

/// What the webhook gave, if it succeeded.
fn answer(version: ReviewVersion, review: &mut Value, uid: &str) -> Result<Vec<Value>, String> {
    let checked = version == ReviewVersion::V1;
    let known =
        review["kind"] == "ConversionReview" && review["apiVersion"] == format!("{GROUP}/v1");
    if checked && !known {
        return Err(format!(
            "expected webhook response of {GROUP}/v1, Kind=ConversionReview, got {}",
            version_and_kind(review)
        ));
    }
    let response = &mut review["response"];
    if !response.is_object() {
        return Err("no response provided".to_owned());
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found = text(&response["uid"]);
    if checked && found != uid {
        return Err(format!(
            "expected response.uid={}, got {}",
            quote(uid),
            quote(&found)
        ));
    }
    let result = &response["result"];
    match (result["status"].as_str(), text(&result["message"])) {
        (Some("Success"), _) => {}
        (status, message) if message.is_empty() => {
            let status = status.unwrap_or_default();
            return Err(format!(
                "response.result.status was '{status}', not 'Success'"
            ));
        }
        (_, message) => return Err(message),
    }
    match response["convertedObjects"].take() {
        Value::Array(objects) => Ok(objects),
        _ => Ok(Vec::new()),
    }
}

/// Checks one object, and gives it the metadata of the original but for labels and
/// annotations.
fn check(original: &Value, converted: &mut Value, api_version: &str) -> Result<(), String> {
    let text = |object: &Value, field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let (own, kind) = (text(converted, "apiVersion"), text(converted, "kind"));
    if own != api_version {
        return Err(format!(
            "invalid groupVersion (expected {api_version}, received {own})"
        ));
    }
    let wanted = text(original, "kind");
    if kind != wanted {
        return Err(format!("invalid kind (expected {wanted}, received {kind})"));
    }
    for (field, what) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let before = text(&original["metadata"], field);
        let after = text(&converted["metadata"], field);
        if before != after {
            return Err(format!("must have the same {what}: {before} != {after}"));
        }
    }
    if !converted["metadata"].is_object() {
        return Err("missing metadata in converted object".to_owned());
    }
    let mut metadata = original["metadata"].clone();
    for field in ["labels", "annotations"] {
        match converted["metadata"][field].take() {
            Value::Null => {
                if let Some(entries) = metadata.as_object_mut() {
                    entries.shift_remove(field);
                }
            }
            Value::Object(entries) => {
                if let Some((key, _)) = entries.iter().find(|(_, value)| !value.is_string()) {
                    return Err(format!(
                        "metadata.{field}[{key}] must be a string in converted object"
                    ));
                }
                metadata[field] = Value::Object(entries);
            }
            _ => return Err(format!("invalid metadata.{field} in converted object")),
        }
    }
    converted["metadata"] = metadata;
    check_labels(original, converted)
}

/// Labels that a conversion changed are labels.
fn check_labels(original: &Value, converted: &Value) -> Result<(), String> {
    if original["metadata"]["labels"] == converted["metadata"]["labels"] {
        return Ok(());
    }
    let mut errors = Errors::new();
    let root = At::root(converted);
    labels(&root.get("metadata").get("labels"), &mut errors);
    let causes = errors.into_causes().into_iter();
    let texts: Vec<String> = causes
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect();
    match texts.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        _ => Err(format!("[{}]", texts.join(", "))),
    }
}

fn version_and_kind(object: &Value) -> String {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    format!("{}, Kind={}", text("apiVersion"), text("kind"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widget(version: &str, labels: &Value) -> Value {
        json!({
            "apiVersion": format!("example.org/{version}"), "kind": "Widget",
            "metadata": {"name": "a", "uid": "u", "generation": 3, "labels": labels},
        })
    }

    fn convert(response: &Value) -> Result<Vec<Value>, String> {
        let mut review = json!({
            "kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
            "response": response,
        });
        let originals = [widget("v1", &json!({"a": "b"}))];
        let v1 = ReviewVersion::V1;
        converted_objects(v1, &mut review, "id", "example.org/v2", &originals)
            .map_err(|error| error.to_string())
    }

    fn success(object: &Value) -> Result<Vec<Value>, String> {
        convert(&json!({
            "uid": "id", "result": {"status": "Success"}, "convertedObjects": [object],
        }))
    }

    #[test]
    fn labels_and_annotations_are_all_a_webhook_changes_of_metadata() {
        let mut object = widget("v2", &json!({"c": "d"}));
        object["metadata"]["generation"] = json!(9);
        object["metadata"]["annotations"] = json!({"e": "f"});
        object["spec"] = json!({"x": 1});
        let converted = success(&object).unwrap();
        let mut wanted = object;
        wanted["metadata"]["generation"] = json!(3);
        assert_eq!(converted, [wanted]);
        assert_eq!(
            success(&widget("v2", &Value::Null)).unwrap()[0]["metadata"].get("labels"),
            None
        );
    }

    #[test]
    fn what_does_not_count_is_said_as_the_reference_says_it() {
        let of = "conversion webhook for example.org/v1, Kind=Widget";
        let refused = |response: &Value| convert(response).unwrap_err();
        for (response, why) in [
            (json!(null), "failed: no response provided"),
            (
                json!({"uid": "x"}),
                "failed: expected response.uid=\"id\", got \"x\"",
            ),
            (
                json!({"uid": "id", "result": {"status": "Failed", "message": "no"}}),
                "failed: no",
            ),
            (
                json!({"uid": "id", "result": {"status": "Failed"}}),
                "failed: response.result.status was 'Failed', not 'Success'",
            ),
            (
                json!({"uid": "id", "result": {"status": "Success"}}),
                "returned 0 objects, expected 1",
            ),
        ] {
            assert_eq!(refused(&response), format!("{of} {why}"));
        }
        let mut renamed = widget("v2", &json!({}));
        renamed["metadata"]["name"] = json!("b");
        let at = format!("{of} returned invalid converted object at index 0");
        for (object, why) in [
            (
                widget("v3", &json!({})),
                "invalid groupVersion (expected example.org/v2, received example.org/v3)",
            ),
            (renamed, "must have the same name: a != b"),
            (
                widget("v2", &json!({"a": 1})),
                "metadata.labels[a] must be a string in converted object",
            ),
        ] {
            assert_eq!(success(&object).unwrap_err(), format!("{at}: {why}"));
        }
        let mut old = json!({"response": {
            "result": {"status": "Success"}, "convertedObjects": [widget("v2", &json!({}))],
        }});
        let (beta, wanted) = (ReviewVersion::V1Beta1, "example.org/v2");
        let originals = [widget("v1", &json!({}))];
        let converted = converted_objects(beta, &mut old, "id", wanted, &originals);
        assert!(converted.is_ok(), "{converted:?}");
        let bad = success(&widget("v2", &json!({"a": "/"}))).unwrap_err();
        assert!(bad.contains("metadata.labels: Invalid value"), "{bad}");
    }
}
