//! What makes a schema structural: types on its spine, value validations that only
//! restrict what the spine specifies, and nothing else in alternatives.

use nautilus_machinery::validation::Errors;
use serde_json::Value;

use crate::schema::{Additional, Schema};

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What is wrong with a schema of a kind, sorted by message.
pub(crate) fn check(path: &str, schema: &Schema) -> Errors {
    let mut errors = Errors::new();
    invariants(&mut errors, path, schema, Level::Root);
    completeness(&mut errors, schema, schema, path, path);
    let mut causes = errors.into_causes();
    causes.sort_by_key(|cause| format!("{}: {}", cause.field, cause.message));
    let mut sorted = Errors::new();
    for cause in causes {
        sorted.other(&cause.field, &cause.reason, cause.message);
    }
    sorted
}

/// Whether `anyOf` says nothing but what `x-kubernetes-int-or-string` says.
fn is_int_or_string(any_of: &[Schema]) -> bool {
    let only = |schema: &Schema, kind: &str| {
        schema.kind == kind && schema.properties.is_empty() && schema.any_of.is_empty()
    };
    matches!(any_of, [first, second] if only(first, "integer") && only(second, "string"))
}

fn invariants(errors: &mut Errors, path: &str, schema: &Schema, level: Level) {
    if schema.kind == "array" && schema.items.is_none() {
        errors.required(&format!("{path}.items"), "must be specified");
    }
    if let Some(items) = &schema.items {
        invariants(errors, &format!("{path}.items"), items, Level::Item);
    }
    for (name, field) in &schema.properties {
        invariants(
            errors,
            &format!("{path}.properties[{name}]"),
            field,
            Level::Field,
        );
    }
    if let Some(additional) = &schema.additional {
        let path = format!("{path}.additionalProperties");
        if level == Level::Root {
            errors.forbidden(&path, "must not be used at the root");
        }
        if let Additional::Each(each) = additional {
            invariants(errors, &path, each, Level::Field);
        }
    }
    if schema.int_or_string {
        for (set, name) in [
            (
                schema.preserve_unknown,
                "x-kubernetes-preserve-unknown-fields",
            ),
            (schema.embedded, "x-kubernetes-embedded-resource"),
        ] {
            if set {
                errors.invalid(
                    &format!("{path}.{name}"),
                    &Value::Bool(true),
                    "must be false if x-kubernetes-int-or-string is true",
                );
            }
        }
    }
    let skip_any = is_int_or_string(&schema.any_of);
    let skip_first_all = schema
        .all_of
        .first()
        .is_some_and(|first| is_int_or_string(&first.any_of));
    value_validation(errors, path, schema, skip_any, skip_first_all);
    types(errors, path, schema, level);
    metadata(errors, path, schema, level);
}

fn types(errors: &mut Errors, path: &str, schema: &Schema, level: Level) {
    let at = format!("{path}.type");
    if schema.embedded && schema.kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        if schema.kind.is_empty() {
            errors.required(&at, detail);
        } else {
            errors.invalid_text(&at, &schema.kind, detail);
        }
    } else if schema.kind.is_empty() && !schema.int_or_string && !schema.preserve_unknown {
        errors.required(
            &at,
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        );
    }
    if schema.embedded && schema.additional.is_some() {
        errors.forbidden(
            &format!("{path}.additionalProperties"),
            "must not be used if x-kubernetes-embedded-resource is set",
        );
    }
    if level == Level::Root && !schema.kind.is_empty() && schema.kind != "object" {
        errors.invalid_text(&at, &schema.kind, "must be object at the root");
    }
    if schema.embedded && !schema.preserve_unknown && schema.properties.is_empty() {
        errors.required(
            &format!("{path}.properties"),
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        );
    }
}

fn metadata(errors: &mut Errors, path: &str, schema: &Schema, level: Level) {
    let is_resource = level == Level::Root || schema.embedded;
    for name in ["kind", "apiVersion"] {
        if let Some(field) = schema.properties.get(name).filter(|_| is_resource)
            && field.kind != "string"
        {
            errors.invalid_text(
                &format!("{path}.properties[{name}].type"),
                &field.kind,
                "must be string",
            );
        }
    }
    let Some(metadata) = schema.properties.get("metadata") else {
        return;
    };
    let at = format!("{path}.properties[metadata]");
    if is_resource && metadata.kind != "object" {
        errors.invalid_text(&format!("{at}.type"), &metadata.kind, "must be object");
    }
    if level != Level::Root {
        return;
    }
    let named = metadata
        .properties
        .keys()
        .all(|name| name == "name" || name == "generateName");
    let plain = metadata.description.is_empty()
        && metadata.title.is_empty()
        && !metadata.nullable
        && metadata.items.is_none()
        && metadata.additional.is_none()
        && !metadata.preserve_unknown
        && !metadata.embedded
        && !metadata.int_or_string
        && metadata.list_type.is_none()
        && metadata.map_type.is_none()
        && metadata.rules.is_empty()
        && !metadata.documented
        && !has_value_validation(metadata);
    if !named || !plain {
        errors.forbidden(
            &at,
            "must not specify anything other than name and generateName, but metadata is implicitly specified",
        );
    }
}

fn has_value_validation(schema: &Schema) -> bool {
    !schema.format.is_empty()
        || schema.maximum.is_some()
        || schema.minimum.is_some()
        || schema.max_length.is_some()
        || schema.min_length.is_some()
        || schema.pattern.is_some()
        || schema.max_items.is_some()
        || schema.min_items.is_some()
        || schema.max_properties.is_some()
        || schema.min_properties.is_some()
        || schema.multiple_of.is_some()
        || !schema.required.is_empty()
        || !schema.one_of_values.is_empty()
        || !schema.all_of.is_empty()
        || !schema.any_of.is_empty()
        || !schema.one_of.is_empty()
        || schema.not.is_some()
}

fn value_validation(
    errors: &mut Errors,
    path: &str,
    schema: &Schema,
    skip_any: bool,
    skip_first_all: bool,
) {
    if !skip_any {
        for (at, any) in schema.any_of.iter().enumerate() {
            nested(errors, &format!("{path}.anyOf[{at}]"), any, false);
        }
    }
    for (at, all) in schema.all_of.iter().enumerate() {
        let skip = skip_first_all && at == 0;
        nested(errors, &format!("{path}.allOf[{at}]"), all, skip);
    }
    for (at, one) in schema.one_of.iter().enumerate() {
        nested(errors, &format!("{path}.oneOf[{at}]"), one, false);
    }
    if let Some(not) = &schema.not {
        nested(errors, &format!("{path}.not"), not, false);
    }
    if let Some((pattern, Err(why))) = &schema.pattern {
        errors.invalid_text(
            &format!("{path}.pattern"),
            pattern,
            &format!("must be a valid regular expression, but isn't: {why}"),
        );
    }
}

/// A schema in an alternative: value validations only.
fn nested(errors: &mut Errors, path: &str, schema: &Schema, skip_any: bool) {
    value_validation(errors, path, schema, skip_any, false);
    if let Some(items) = &schema.items {
        nested(errors, &format!("{path}.items"), items, false);
    }
    for (name, field) in &schema.properties {
        nested(errors, &format!("{path}.properties[{name}]"), field, false);
    }
    let mut forbid = |set: bool, field: &str, detail: &str| {
        if set {
            errors.forbidden(&format!("{path}.{field}"), detail);
        }
    };
    let additional = match &schema.additional {
        Some(Additional::Any(allowed)) => *allowed,
        other => other.is_some(),
    };
    forbid(
        !schema.kind.is_empty(),
        "type",
        "must be empty to be structural",
    );
    forbid(
        additional,
        "additionalProperties",
        "must be undefined to be structural",
    );
    forbid(
        schema.default.is_some(),
        "default",
        "must be undefined to be structural",
    );
    forbid(
        !schema.title.is_empty(),
        "title",
        "must be empty to be structural",
    );
    forbid(
        !schema.description.is_empty(),
        "description",
        "must be empty to be structural",
    );
    forbid(
        schema.nullable,
        "nullable",
        "must be false to be structural",
    );
    forbid(
        schema.preserve_unknown,
        "x-kubernetes-preserve-unknown-fields",
        "must be false to be structural",
    );
    forbid(
        schema.embedded,
        "x-kubernetes-embedded-resource",
        "must be false to be structural",
    );
    forbid(
        schema.int_or_string,
        "x-kubernetes-int-or-string",
        "must be false to be structural",
    );
    forbid(
        !schema.list_map_keys.is_empty(),
        "x-kubernetes-list-map-keys",
        "must be empty to be structural",
    );
    forbid(
        schema.list_type.is_some(),
        "x-kubernetes-list-type",
        "must be undefined to be structural",
    );
    forbid(
        schema.map_type.is_some(),
        "x-kubernetes-map-type",
        "must be undefined to be structural",
    );
    forbid(
        !schema.rules.is_empty(),
        "x-kubernetes-validations",
        "must be empty to be structural",
    );
    forbid(
        schema.properties.contains_key("metadata"),
        "properties[metadata]",
        "must not be specified in a nested context",
    );
}

/// Every field that an alternative restricts is on the spine.
fn completeness(errors: &mut Errors, value: &Schema, spine: &Schema, at: &str, from: &str) {
    let alternatives = [
        ("allOf", &value.all_of),
        ("anyOf", &value.any_of),
        ("oneOf", &value.one_of),
    ];
    for (name, schemas) in alternatives {
        for (index, schema) in schemas.iter().enumerate() {
            nested_completeness(
                errors,
                schema,
                Some(spine),
                at,
                &format!("{from}.{name}[{index}]"),
            );
        }
    }
    if let Some(not) = &value.not {
        nested_completeness(errors, not, Some(spine), at, &format!("{from}.not"));
    }
}

fn nested_completeness(
    errors: &mut Errors,
    value: &Schema,
    spine: Option<&Schema>,
    at: &str,
    from: &str,
) {
    let Some(spine) = spine else {
        return errors.required(at, &format!("because it is defined in {from}"));
    };
    completeness(errors, value, spine, at, from);
    if let Some(items) = &value.items {
        nested_completeness(
            errors,
            items,
            spine.items.as_deref(),
            &format!("{at}.items"),
            &format!("{from}.items"),
        );
    }
    for (name, field) in &value.properties {
        nested_completeness(
            errors,
            field,
            spine.properties.get(name),
            &format!("{at}.properties[{name}]"),
            &format!("{from}.properties[{name}]"),
        );
    }
}
