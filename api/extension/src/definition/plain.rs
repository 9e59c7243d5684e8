//! What is wrong with one schema of a definition by itself: what it may not hold, lists
//! and maps that contradict their items, rules before they are compiled.

use nautilus_machinery::validation::Errors;
use serde_json::{Value, json};

use super::schemas::Scope;
use crate::path::parse_field_path;
use crate::schema::{Schema, list, texts};

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
const REASONS: &[&str] = &[
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueInvalid",
    "FieldValueRequired",
];

/// What no schema of a definition may hold.
pub(super) fn plain(errors: &mut Errors, path: &str, json: &Value, scope: &Scope) {
    let kind = json["type"].as_str().unwrap_or_default();
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.not_supported(&format!("{path}.type"), kind, TYPES);
    }
    if let (false, Some(reason)) = (json["default"].is_null(), &scope.no_defaults) {
        errors.forbidden(
            &format!("{path}.default"),
            &format!("must not be set {reason}"),
        );
    }
    for key in [
        "id",
        "additionalItems",
        "patternProperties",
        "definitions",
        "dependencies",
        "$ref",
    ] {
        let empty = match &json[key] {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Object(entries) => entries.is_empty() && key != "additionalItems",
            _ => false,
        };
        if !empty {
            errors.forbidden(&format!("{path}.{key}"), &format!("{key} is not supported"));
        }
    }
    if kind == "null" {
        errors.forbidden(
            &format!("{path}.type"),
            "type cannot be set to null, use nullable as an alternative",
        );
    }
    if json["items"].is_array() {
        errors.forbidden(
            &format!("{path}.items"),
            "items must be a schema object and not an array",
        );
    }
    if scope.inside_metadata && json["x-kubernetes-embedded-resource"] == true {
        errors.forbidden(
            &format!("{path}.x-kubernetes-embedded-resource"),
            "must not be used inside of resource meta",
        );
    }
    if json["uniqueItems"] == true {
        errors.forbidden(
            &format!("{path}.uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        );
    }
    if json["x-kubernetes-preserve-unknown-fields"] == json!(false) {
        errors.invalid(
            &format!("{path}.x-kubernetes-preserve-unknown-fields"),
            &json!(false),
            "must be true or undefined",
        );
    }
}

/// A field that must be so where another is set.
fn required_type(
    errors: &mut Errors,
    path: &str,
    json: &Value,
    wanted: &str,
    because: &str,
) -> bool {
    let kind = json["type"].as_str().unwrap_or_default();
    if kind == wanted {
        return true;
    }
    let detail = format!("must be {wanted} if {because} is specified");
    if kind.is_empty() {
        errors.required(&format!("{path}.type"), &detail);
    } else {
        errors.invalid_text(&format!("{path}.type"), kind, &detail);
    }
    false
}

pub(super) fn lists(errors: &mut Errors, path: &str, json: &Value) {
    if let Some(map_type) = json["x-kubernetes-map-type"].as_str() {
        required_type(errors, path, json, "object", "x-kubernetes-map-type");
        if !matches!(map_type, "atomic" | "granular") {
            errors.not_supported(
                &format!("{path}.x-kubernetes-map-type"),
                map_type,
                &["atomic", "granular"],
            );
        }
    }
    let keys = texts(&json["x-kubernetes-list-map-keys"]);
    let Some(list_type) = json["x-kubernetes-list-type"].as_str() else {
        if !keys.is_empty() {
            errors.required(
                &format!("{path}.x-kubernetes-list-type"),
                "must be map if x-kubernetes-list-map-keys is non-empty",
            );
        }
        return;
    };
    let items = &json["items"];
    if required_type(errors, path, json, "array", "x-kubernetes-list-type") && list_type == "set" {
        set_items(errors, path, items);
    }
    if !matches!(list_type, "atomic" | "set" | "map") {
        errors.not_supported(
            &format!("{path}.x-kubernetes-list-type"),
            list_type,
            &["atomic", "set", "map"],
        );
    }
    if !keys.is_empty() && list_type != "map" {
        errors.invalid_text(
            &format!("{path}.x-kubernetes-list-type"),
            list_type,
            "must be map if x-kubernetes-list-map-keys is non-empty",
        );
    }
    if list_type == "map" {
        map_items(errors, path, items, &keys);
    }
    if matches!(list_type, "set" | "map") && items["nullable"] == true {
        errors.forbidden(
            &format!("{path}.items.nullable"),
            &format!("cannot be nullable when x-kubernetes-list-type is {list_type}"),
        );
    }
    if list_type == "map" {
        map_keys(errors, path, items, &keys);
    }
}

fn set_items(errors: &mut Errors, path: &str, items: &Value) {
    let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let list_type = items["x-kubernetes-list-type"].as_str();
    match items["type"].as_str() {
        Some("array") if list_type.is_some_and(|kind| kind != "atomic") => errors.invalid(
            &format!("{path}.items.x-kubernetes-list-type"),
            &items["x-kubernetes-list-type"],
            detail,
        ),
        Some("object") if items["x-kubernetes-map-type"] != "atomic" => errors.invalid(
            &format!("{path}.items.x-kubernetes-map-type"),
            &items["x-kubernetes-list-type"],
            detail,
        ),
        _ => {}
    }
}

fn map_items(errors: &mut Errors, path: &str, items: &Value, keys: &[String]) {
    let keys_path = format!("{path}.x-kubernetes-list-map-keys");
    if keys.is_empty() {
        errors.required(
            &keys_path,
            "must not be empty if x-kubernetes-list-type is map",
        );
    }
    if items.is_null() {
        return errors.required(
            &format!("{path}.items"),
            "must have a schema if x-kubernetes-list-type is map",
        );
    }
    if items["type"] != "object" {
        let kind = items["type"].as_str().unwrap_or_default();
        return errors.invalid_text(
            &format!("{path}.items.type"),
            kind,
            "must be object if parent array's x-kubernetes-list-type is map",
        );
    }
    for (at, key) in keys.iter().enumerate() {
        let field = &items["properties"][key];
        if field.is_null() {
            errors.invalid(
                &keys_path,
                &json!(keys),
                "entries must all be names of item properties",
            );
        } else if field["type"] == "array" || field["type"] == "object" {
            errors.invalid(
                &format!("{path}.items.properties[{key}].type"),
                &items["type"],
                "must be a scalar type if parent array's x-kubernetes-list-type is map",
            );
        }
        if keys[..at].contains(key) {
            errors.invalid(
                &keys_path,
                &json!(keys),
                "must not contain duplicate entries",
            );
        }
    }
}

fn map_keys(errors: &mut Errors, path: &str, items: &Value, keys: &[String]) {
    let required = texts(&items["required"]);
    for key in keys {
        let field = &items["properties"][key];
        if field.is_null() {
            continue;
        }
        if !required.contains(key) && field["default"].is_null() {
            errors.required(
                &format!("{path}.items.properties[{key}].default"),
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            );
        }
        if field["nullable"] == true {
            errors.forbidden(
                &format!("{path}.items.properties[{key}].nullable"),
                "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
            );
        }
    }
}

fn has_line_break(text: &str) -> bool {
    text.contains(['\n', '\r'])
}

/// What is wrong with rules before they are compiled.
pub(super) fn rule_texts(errors: &mut Errors, path: &str, json: &Value) {
    for (at, rule) in list(&json["x-kubernetes-validations"]).enumerate() {
        let path = format!("{path}.x-kubernetes-validations[{at}]");
        let text = |key: &str| rule[key].as_str().unwrap_or_default();
        let (source, message) = (text("rule").trim(), text("message"));
        if source.is_empty() {
            errors.required(&format!("{path}.rule"), "rule is not specified");
        } else if !message.is_empty() && message.trim().is_empty() {
            errors.invalid_text(
                &format!("{path}.message"),
                message,
                "must be non-empty if specified",
            );
        } else if has_line_break(message.trim()) {
            errors.invalid_text(
                &format!("{path}.message"),
                message,
                "must not contain line breaks",
            );
        } else if has_line_break(source) && message.trim().is_empty() {
            errors.required(
                &format!("{path}.message"),
                "message must be specified if rule contains line breaks",
            );
        }
        let expression = text("messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            errors.required(
                &format!("{path}.messageExpression"),
                "messageExpression must be non-empty if specified",
            );
        }
        if let Some(reason) = rule["reason"].as_str().filter(|r| !REASONS.contains(r)) {
            errors.not_supported(&format!("{path}.reason"), reason, REASONS);
        }
        field_path(
            errors,
            &format!("{path}.fieldPath"),
            text("fieldPath"),
            json,
        );
    }
}

fn field_path(errors: &mut Errors, at: &str, path: &str, json: &Value) {
    if path.is_empty() {
        return;
    }
    if path.trim().is_empty() {
        errors.invalid_text(at, path, "must be non-empty if specified");
    }
    if has_line_break(path) {
        errors.invalid_text(at, path, "must not contain line breaks");
    }
    let known = Schema::parse(json)
        .map(|schema| parse_field_path(path, &schema, true).is_ok())
        .unwrap_or(true);
    if !known {
        errors.invalid_text(at, path, "must be a valid path");
    }
}
