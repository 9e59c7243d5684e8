//! Metadata: `apiVersion`, `kind` and `metadata` of the object itself and of objects
//! embedded in it (`x-kubernetes-embedded-resource`).

use nautilus_machinery::fields;
use nautilus_machinery::schema::OBJECT_META;
use nautilus_machinery::validation::{self, Errors, NameRule};
use serde_json::Value;

use crate::schema::{Additional, Schema};

/// Writes metadata as a typed server would: unknown fields go, empty ones too. Gives the
/// paths that were dropped; an error names what metadata cannot hold.
pub fn coerce_metadata(value: &mut Value, schema: &Schema) -> Result<Vec<String>, Errors> {
    let mut dropped = Vec::new();
    coerce(value, schema, true, "", &mut dropped)?;
    dropped.sort();
    Ok(dropped)
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn coerce(
    value: &mut Value,
    schema: &Schema,
    embedded: bool,
    path: &str,
    dropped: &mut Vec<String>,
) -> Result<(), Errors> {
    match value {
        Value::Object(entries) => {
            for (name, value) in entries.iter_mut() {
                let at = joined(path, name);
                if embedded || schema.embedded {
                    match name.as_str() {
                        "apiVersion" | "kind" if !value.is_string() => {
                            let mut errors = Errors::new();
                            errors.invalid(&at, value, "must be a string");
                            return Err(errors);
                        }
                        "metadata" => {
                            coerce_one(value, &at, dropped)?;
                            continue;
                        }
                        _ => {}
                    }
                }
                if let Some(field) = schema.properties.get(name) {
                    coerce(value, field, false, &at, dropped)?;
                } else if let Some(Additional::Each(each)) = &schema.additional {
                    coerce(value, each, false, &at, dropped)?;
                }
            }
        }
        Value::Array(items) => {
            if let Some(each) = schema.items.as_deref() {
                for (at, item) in items.iter_mut().enumerate() {
                    coerce(item, each, false, &format!("{path}[{at}]"), dropped)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn coerce_one(metadata: &mut Value, path: &str, dropped: &mut Vec<String>) -> Result<(), Errors> {
    if metadata.is_null() {
        return Ok(());
    }
    match fields::conform(OBJECT_META, metadata) {
        Ok(conformed) => {
            for message in
                fields::unknown_and_duplicate(OBJECT_META, metadata.to_string().as_bytes())
            {
                if let Some(name) = message.strip_prefix("unknown field \"") {
                    dropped.push(format!("{path}.{}", name.trim_end_matches('"')));
                }
            }
            *metadata = conformed;
            Ok(())
        }
        Err(error) => {
            let mut errors = Errors::new();
            errors.invalid(path, metadata, &error.to_string());
            Err(errors)
        }
    }
}

/// Checks metadata of embedded objects; the object's own is the machinery's to check.
pub fn validate_embedded(errors: &mut Errors, path: &str, value: &Value, schema: &Schema) {
    match value {
        Value::Object(entries) => {
            if schema.embedded {
                validate_one(errors, path, value);
            }
            for (name, value) in entries {
                if let Some(field) = schema.properties.get(name) {
                    validate_embedded(errors, &joined(path, name), value, field);
                } else if let Some(Additional::Each(each)) = &schema.additional {
                    validate_embedded(errors, &format!("{path}[{name}]"), value, each);
                }
            }
        }
        Value::Array(items) => {
            if let Some(each) = schema.items.as_deref() {
                for (at, item) in items.iter().enumerate() {
                    validate_embedded(errors, &format!("{path}[{at}]"), item, each);
                }
            }
        }
        _ => {}
    }
}

fn validate_one(errors: &mut Errors, path: &str, object: &Value) {
    for name in ["apiVersion", "kind"] {
        let at = joined(path, name);
        match &object[name] {
            Value::Null => errors.required(&at, ""),
            Value::String(text) if text.is_empty() => {
                errors.invalid_text(&at, text, "must not be empty");
            }
            Value::String(text) if name == "kind" => {
                let wrong = validation::dns_1035_label(&text.to_lowercase());
                if !wrong.is_empty() {
                    let detail = format!(
                        "may have mixed case, but should otherwise match: {}",
                        wrong.join(",")
                    );
                    errors.invalid_text(&at, text, &detail);
                }
            }
            Value::String(text) if text.matches('/').count() > 1 => {
                errors.invalid_text(
                    &at,
                    text,
                    &format!("unexpected GroupVersion string: {text}"),
                );
            }
            Value::String(_) => {}
            other => errors.invalid(&at, other, "must be a string"),
        }
    }
    let metadata = &object["metadata"];
    if metadata.is_null() {
        return;
    }
    let at = joined(path, "metadata");
    if let Some(name) = metadata["name"].as_str().filter(|name| !name.is_empty()) {
        errors.each(
            &format!("{at}.name"),
            name,
            NameRule::PathSegment.check(name, false),
        );
    }
    validation::labels(errors, &format!("{at}.labels"), metadata.get("labels"));
    validation::annotations(
        errors,
        &format!("{at}.annotations"),
        metadata.get("annotations"),
    );
}
