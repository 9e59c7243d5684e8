//! Patches: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386) and Kubernetes'
//! strategic merge patch ([`strategic`]).
//!
//! Invariant: the result conforms to the object's type, or there is none. Work
//! and growth are bounded by the patch's operations and [`MAX_COPIED_BYTES`].

pub mod strategic;

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation, TestOperation};
use serde_json::{Map, Value};

use crate::fields;
use crate::schema;
use crate::status::ApiError;

/// Most operations of a JSON patch.
pub const MAX_OPERATIONS: usize = 10_000;
/// Most bytes that the `copy` operations of one JSON patch may add.
pub const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// The forms a patch may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    StrategicMerge,
}

/// Applies a patch to an object of type `schema`.
pub fn apply(
    kind: PatchKind,
    schema: &str,
    original: &Value,
    patch: &Value,
) -> Result<Value, ApiError> {
    fields::conform_owned(schema, apply_loosely(kind, schema, original, patch)?)
}

/// The patched object before unknown fields are dropped: what a strict request has
/// to be judged by.
pub fn apply_loosely(
    kind: PatchKind,
    schema: &str,
    original: &Value,
    patch: &Value,
) -> Result<Value, ApiError> {
    let patched = match kind {
        PatchKind::Json => apply_json(original, patch)?,
        PatchKind::Merge => {
            if !patch.is_object() {
                return Err(ApiError::bad_request(
                    "the merge patch is not a JSON object",
                ));
            }
            let mut patched = original.clone();
            merge(&mut patched, patch);
            patched
        }
        PatchKind::StrategicMerge => {
            let Some(found) = schema::find(schema) else {
                return Err(ApiError::internal(format!("no type {schema}")));
            };
            strategic::apply(found, original, patch).map_err(|error| {
                ApiError::bad_request(format!(
                    "the strategic merge patch can't be applied: {error}"
                ))
            })?
        }
    };
    Ok(patched)
}

fn apply_json(original: &Value, patch: &Value) -> Result<Value, ApiError> {
    let count = patch.as_array().map_or(0, Vec::len);
    if count > MAX_OPERATIONS {
        return Err(ApiError::too_large(MAX_OPERATIONS).with_message(format!(
            "Request entity too large: The allowed maximum operations in a JSON patch is \
             {MAX_OPERATIONS}, got {count}"
        )));
    }
    let operations: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|error| match patch {
            // An operation that can't be: the reference meets it when it applies the patch.
            Value::Array(operations) if operations.iter().all(Value::is_object) => rejected(),
            _ => ApiError::bad_request(format!("error decoding patch: {error}")),
        })?;
    let mut patched = original.clone();
    let mut copied_bytes = 0;
    for operation in operations.0 {
        if let PatchOperation::Copy(copy) = &operation {
            let source = patched.pointer(copy.from.as_str()).unwrap_or(&Value::Null);
            copied_bytes += source.to_string().len();
            if copied_bytes > MAX_COPIED_BYTES {
                return Err(rejected());
            }
        }
        let operation = tolerant(operation, &patched);
        json_patch::patch(&mut patched, &[operation]).map_err(|_| rejected())?;
    }
    Ok(patched)
}

/// A field that an object does not have is null to the reference: it may be replaced,
/// copied, and tested for.
fn tolerant(operation: PatchOperation, object: &Value) -> PatchOperation {
    let is_missing = |path: &str| {
        let parent = path
            .rsplit_once('/')
            .and_then(|(parent, _)| object.pointer(parent));
        parent.is_some_and(Value::is_object) && object.pointer(path).is_none()
    };
    let add = |path, value| PatchOperation::Add(AddOperation { path, value });
    match operation {
        PatchOperation::Replace(replace) if is_missing(replace.path.as_str()) => {
            add(replace.path, replace.value)
        }
        PatchOperation::Copy(copy) if is_missing(copy.from.as_str()) => add(copy.path, Value::Null),
        PatchOperation::Test(test) if test.value.is_null() && is_missing(test.path.as_str()) => {
            PatchOperation::Test(TestOperation {
                path: PointerBuf::root(),
                value: object.clone(),
            })
        }
        operation => operation,
    }
}

/// 422 in the words of the reference, which keeps to itself what went wrong.
fn rejected() -> ApiError {
    ApiError::unprocessable("the server rejected our request due to an error in our request")
}

/// RFC 7386.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            target.shift_remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
#[path = "patch/tests.rs"]
mod tests;
