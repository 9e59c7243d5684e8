//! Objects of defined kinds: what is made of them when they are read, and what is wrong
//! with them when they are written.

use nautilus_cel::Budget;
use nautilus_machinery::validation::Errors;
use serde_json::Value;

use crate::defaults::{apply_defaults, prune_nulls};
use crate::definition::{Scale, Version};
use crate::lists::check_lists;
use crate::metadata::{coerce_metadata, validate_embedded};
use crate::path::find_field;
use crate::prune::prune;
use crate::validate::{validate, validate_update};

const NOT_CHECKED: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
/// Errors after which rules would only confuse.
const BLOCKING: &[&str] = &[
    "FieldValueNotFound",
    "FieldValueRequired",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldValueTypeInvalid",
];

/// Makes of a decoded object what is stored: metadata in order, unknown fields gone,
/// defaults set. Gives the paths of unknown fields.
pub fn normalize(
    version: &Version,
    keep_unknown: bool,
    object: &mut Value,
) -> Result<Vec<String>, Errors> {
    let mut unknown = coerce_metadata(object, &version.schema)?;
    if !keep_unknown {
        unknown.extend(prune(object, &version.schema, true));
        unknown.sort();
    }
    fill(version, object);
    Ok(unknown)
}

/// Sets defaults in an object that was stored before the schema had them.
pub fn fill(version: &Version, object: &mut Value) {
    prune_nulls(object, Some(&version.schema));
    apply_defaults(object, &version.schema);
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Findings {
    /// What refuses the object.
    pub errors: Errors,
    /// What the client is warned of.
    pub warnings: Vec<String>,
}

/// Checks a new object, or a changed one beside what it was.
pub fn check(version: &Version, object: &Value, old: Option<&Value>) -> Findings {
    let mut errors = Errors::new();
    match old {
        Some(old) => validate_update(&mut errors, "", &version.schema, old, object),
        None => validate(&mut errors, "", &version.schema, object),
    }
    if let Some(scale) = &version.scale {
        count(&mut errors, &scale.spec_replicas, object);
        scale_status(&mut errors, scale, object);
    }
    validate_embedded(&mut errors, "", object, &version.schema);
    finish(errors, version, object, old)
}

/// Checks a changed status beside what the object was.
pub fn check_status(version: &Version, object: &Value, old: &Value) -> Findings {
    let mut errors = Errors::new();
    let schema = version.schema.properties.get("status");
    if let (Some(schema), Some(status)) = (schema, object.get("status")) {
        match old.get("status") {
            Some(before) => validate_update(&mut errors, "status", schema, before, status),
            None => validate(&mut errors, "status", schema, status),
        }
    }
    if let Some(scale) = &version.scale {
        scale_status(&mut errors, scale, object);
    }
    finish(errors, version, object, Some(old))
}

fn finish(mut errors: Errors, version: &Version, object: &Value, old: Option<&Value>) -> Findings {
    let lists = |value: &Value| {
        let mut errors = Errors::new();
        check_lists(&mut errors, "", &version.schema, value);
        errors
    };
    let repeated = lists(object);
    if !repeated.is_empty() && old.is_none_or(|old| lists(old).is_empty()) {
        errors.extend(repeated);
    }
    let mut warnings = Vec::new();
    if let Some(rules) = &version.rules {
        let causes = errors.into_causes();
        let blocked = causes
            .iter()
            .any(|cause| BLOCKING.contains(&cause.reason.as_str()));
        errors = Errors::new();
        for cause in causes {
            errors.other(&cause.field, &cause.reason, cause.message);
        }
        if blocked {
            errors.other(
                "<nil>",
                "FieldValueInvalid",
                format!("Invalid value: null: {NOT_CHECKED}"),
            );
        } else {
            let outcome = rules.evaluate("", object, old, &mut Budget::per_object());
            errors.extend(outcome.errors);
            warnings = outcome.warnings;
        }
    }
    Findings { errors, warnings }
}

fn scale_status(errors: &mut Errors, scale: &Scale, object: &Value) {
    count(errors, &scale.status_replicas, object);
    if let Some(path) = &scale.label_selector {
        match find_field(object, path) {
            None | Some(Value::Null | Value::String(_)) => {}
            Some(other) => errors.invalid(
                path,
                other,
                &format!(
                    "{path} accessor error: {other} is of the type {}, expected string",
                    go_type(other)
                ),
            ),
        }
    }
}

/// A number of replicas.
fn count(errors: &mut Errors, path: &str, object: &Value) {
    let Some(value) = find_field(object, path) else {
        return;
    };
    match value.as_i64() {
        Some(count) if count < 0 => {
            errors.invalid(path, value, "should be a non-negative integer");
        }
        Some(count) if count > i64::from(i32::MAX) => errors.invalid(
            path,
            value,
            &format!("should be less than or equal to {}", i32::MAX),
        ),
        Some(_) => {}
        None => errors.invalid(
            path,
            &Value::from(0),
            &format!(
                "{path} accessor error: {value} is of the type {}, expected int64",
                go_type(value)
            ),
        ),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
