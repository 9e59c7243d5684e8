//! The types of kinds that are defined by objects: what a definition's schema says, with
//! what every object has, in the forms of v3 and of v2.
//!
//! v2 has no alternatives and no `nullable`, and its clients take what is described for
//! all there is: so what may hold more, or null, is left open there. The reference's
//! documents are the measure (`tests/golden/published.json`).

use serde_json::{Map, Value, json};

use super::types::SAMPLE;
use super::{DEFINITIONS, META, REFERENCE, descriptions, kind_of, list_model_name, model_name};
use crate::resource::Resource;

const CONVENTIONS: &str =
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";

/// What documents a type is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    V2,
    V3,
}

/// Adds the types of a kind and of its list, if it is a defined one.
pub(super) fn add(schemas: &mut Map<String, Value>, resource: &Resource, form: Form) {
    let Some(defined) = &resource.defined else {
        return;
    };
    let (schema, keeps_unknown) = defined.schema();
    schemas.insert(
        model_name(resource),
        object(resource, schema, keeps_unknown, form),
    );
    schemas.insert(list_model_name(resource), list(resource, form));
}

/// The type of objects with this schema, and all unknown fields if they are kept.
fn object(resource: &Resource, schema: &Value, keeps_unknown: bool, form: Form) -> Value {
    let described = match (schema, form) {
        (Value::Object(map), Form::V2) => !keeps_unknown && !is_set(map, PRESERVE),
        (schema, _) => schema.is_object(),
    };
    let mut made = json!({"type": "object"});
    if described {
        made = schema.clone();
        each(&mut made, &|own| {
            unfold(own);
            if form == Form::V2 {
                open(own);
            }
            embed(own, form);
        });
        for name in ["apiVersion", "kind"] {
            made["properties"][name] = text(of_every_object(name));
        }
        made["properties"]["metadata"] = object_metadata(form);
    }
    identify(&mut made, resource, &resource.kind);
    made
}

fn list(resource: &Resource, form: Form) -> Value {
    let name = resource.list_kind();
    let mut made = json!({
        "description": format!("{name} is a list of {}", resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": text(of_every_object("apiVersion")),
            "items": {
                "description": format!("List of {}. More info: {CONVENTIONS}", resource.plural),
                "type": "array",
                "items": reference(&model_name(resource), form),
            },
            "kind": text(of_every_object("kind")),
            "metadata": described(
                &format!("Standard list metadata. More info: {CONVENTIONS}#types-kinds"),
                "ListMeta",
                form,
            ),
        },
    });
    identify(&mut made, resource, &name);
    made
}

/// Which kind it is, and by which fields its objects are selected.
fn identify(made: &mut Value, resource: &Resource, name: &str) {
    let kind = kind_of(&resource.group, &resource.version, name);
    made["x-kubernetes-group-version-kind"] = json!([kind]);
    let paths = resource.selectable.iter().map(|field| field.path.as_str());
    let fields: Vec<Value> = paths
        .filter(|path| !path.starts_with("metadata."))
        .map(|path| json!({"fieldPath": path}))
        .collect();
    if !fields.is_empty() {
        made["x-kubernetes-selectable-fields"] = json!(fields);
    }
}

fn reference(name: &str, form: Form) -> Value {
    let root = match form {
        Form::V2 => DEFINITIONS,
        Form::V3 => REFERENCE,
    };
    json!({"$ref": format!("{root}{name}")})
}

/// A reference to a type of metadata, with a description: in v3 nothing stands beside a
/// reference.
fn described(text: &str, name: &str, form: Form) -> Value {
    let mut target = reference(&format!("{META}{name}"), form);
    match form {
        Form::V2 => {
            target["description"] = json!(text);
            target
        }
        Form::V3 => json!({"description": text, "allOf": [target]}),
    }
}

fn object_metadata(form: Form) -> Value {
    described(of_every_object("metadata"), "ObjectMeta", form)
}

fn of_every_object(field: &str) -> &'static str {
    descriptions::of_field(SAMPLE, field).unwrap_or_default()
}

fn text(description: &str) -> Value {
    json!({"description": description, "type": "string"})
}

fn is_set(schema: &Map<String, Value>, flag: &str) -> bool {
    schema.get(flag).is_some_and(|value| value == true)
}

/// A schema, then those of its fields, elements and values. Alternatives only restrict
/// what these are.
fn each(schema: &mut Value, change: &impl Fn(&mut Map<String, Value>)) {
    let Value::Object(own) = schema else {
        return;
    };
    change(own);
    let fields = own.get_mut("properties").and_then(Value::as_object_mut);
    for (_, field) in fields.into_iter().flatten() {
        each(field, change);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = own.get_mut(name) {
            each(inner, change);
        }
    }
}

/// States in the terms of OpenAPI what an integer or string is.
fn unfold(schema: &mut Map<String, Value>) {
    let either = json!([{"type": "integer"}, {"type": "string"}]);
    let first = schema.get("allOf").and_then(|all| all.get(0));
    let is_stated =
        schema.get("anyOf") == Some(&either) || first.is_some_and(|first| first["anyOf"] == either);
    if !is_set(schema, INT_OR_STRING) || is_stated {
        return;
    }
    if !schema.contains_key("anyOf") {
        schema.insert("anyOf".to_owned(), either);
        return;
    }
    let all = schema.entry("allOf").or_insert_with(|| json!([]));
    if let Value::Array(all) = all {
        all.insert(0, json!({"anyOf": either}));
    }
}

/// Leaves out what v2 cannot say, and opens what its clients would take too narrowly.
fn open(schema: &mut Map<String, Value>) {
    for name in ["allOf", "anyOf", "oneOf", "not", "default"] {
        schema.shift_remove(name);
    }
    let nullable = |value: &Value| value["nullable"] == true;
    let is_nullable = schema
        .shift_remove("nullable")
        .is_some_and(|value| value == true);
    let is_open = is_set(schema, PRESERVE);
    if is_nullable || is_open {
        schema.shift_remove("items");
        schema.shift_remove("properties");
    }
    let untyped = match schema.get("type").and_then(Value::as_str) {
        Some("array") => !schema.contains_key("items"),
        Some("object") => is_open,
        _ => false,
    };
    if is_nullable || untyped {
        schema.shift_remove("type");
    }
    let may_lack: Vec<String> = schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, field)| nullable(field))
        .map(|(name, _)| name.clone())
        .collect();
    let all_may_lack = schema.get("additionalProperties").is_some_and(nullable);
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|name| {
            let named = |field: &String| name == field.as_str();
            !all_may_lack && !may_lack.iter().any(named)
        });
        if required.is_empty() {
            schema.shift_remove("required");
        }
    }
}

/// Adds what every object has to one within another.
fn embed(schema: &mut Map<String, Value>, form: Form) {
    let stays_open = form == Form::V2 && is_set(schema, PRESERVE);
    if !is_set(schema, EMBEDDED) || stays_open {
        return;
    }
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    properties["apiVersion"] = text(&format!(
        "apiVersion defines the versioned schema of this representation of an object. More info: {CONVENTIONS}#resources"
    ));
    properties["kind"] = text(&format!(
        "kind is a string value representing the type of this object. In CamelCase. More info: {CONVENTIONS}#types-kinds"
    ));
    properties["metadata"] = object_metadata(form);
    let required = schema.entry("required").or_insert_with(|| json!([]));
    for name in ["kind", "apiVersion"] {
        if let Value::Array(required) = required
            && !required.contains(&json!(name))
        {
            required.push(json!(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Selectable;

    const PUBLISHED: &str = include_str!("../../tests/golden/published.json");

    #[test]
    fn types_are_published_as_the_reference_publishes_them() {
        let cases: Vec<Value> = serde_json::from_str(PUBLISHED).expect("recorded");
        assert!(cases.len() > 10);
        for case in cases {
            let text = |name: &str| case[name].as_str().unwrap_or_default().to_owned();
            let selectable = case["selectable"].as_array().into_iter().flatten();
            let resource = Resource {
                group: text("group"),
                version: text("version"),
                kind: text("kind"),
                plural: text("plural"),
                list_kind: text("list_kind"),
                selectable: selectable
                    .map(|path| Selectable {
                        label: path.as_str().unwrap_or_default().to_owned(),
                        path: path.as_str().unwrap_or_default().to_owned(),
                        default: String::new(),
                    })
                    .collect(),
                ..Resource::default()
            };
            for (form, name) in [(Form::V2, "v2"), (Form::V3, "v3")] {
                let made = object(&resource, &case["schema"], false, form);
                assert_eq!(made, case[name]["object"], "{name} of {}", resource.kind);
                let made = list(&resource, form);
                assert_eq!(made, case[name]["list"], "{name} of {}List", resource.kind);
            }
        }
    }
}
