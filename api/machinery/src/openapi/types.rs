//! The types of a document.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{META, REFERENCE, descriptions};
use crate::schema::{self, Field, SchemaOr, Shape, Type};

const KINDS: &str = "x-kubernetes-group-version-kind";
/// A type whose fields say what they are in every kind.
pub(super) const SAMPLE: &str = "io.k8s.api.core.v1.ConfigMap";

/// The named types and all they refer to; options and events are of the `own` group and
/// version too.
pub(super) fn schemas(wanted: BTreeSet<String>, own: Option<(&str, &str)>) -> Map<String, Value> {
    let mut pending: Vec<String> = wanted.into_iter().collect();
    let mut done = Map::new();
    let patch = format!("{META}Patch");
    let body = described(&patch, json!({"type": "object"}));
    done.insert(patch, body);
    while let Some(name) = pending.pop() {
        if done.contains_key(&name) {
            continue;
        }
        if let Some(leaf) = leaf_schema(&name) {
            let leaf = described(&name, leaf);
            done.insert(name, leaf);
            continue;
        }
        let Some(found) = schema::find(&name) else {
            continue;
        };
        done.insert(name, type_schema(found, own, &mut pending));
    }
    done
}

/// The type with its description before all else.
fn described(name: &str, body: Value) -> Value {
    let list = name
        .rsplit('.')
        .next()
        .and_then(|kind| kind.strip_suffix("List"));
    let text = descriptions::of_type(name).map(str::to_owned);
    let text = text.or_else(|| list.map(|kind| format!("{kind}List is a list of {kind}.")));
    with_text(text.as_deref(), body)
}

/// What a list's fields are: those of every object, and the objects.
fn of_list(owner: &Type, field: &str) -> Option<String> {
    let kind = owner.short_name().strip_suffix("List")?;
    match field {
        "apiVersion" | "kind" => descriptions::of_field(SAMPLE, field).map(str::to_owned),
        "metadata" => Some("The list's own metadata.".to_owned()),
        "items" => Some(format!("The objects of kind {kind}.")),
        _ => None,
    }
}

fn with_text(text: Option<&str>, body: Value) -> Value {
    let (Some(text), Value::Object(map)) = (text.filter(|text| !text.is_empty()), &body) else {
        return body;
    };
    let mut output = Map::new();
    output.insert("description".to_owned(), json!(text));
    output.extend(map.clone());
    Value::Object(output)
}

fn leaf_name(shape: &Shape) -> Option<&'static str> {
    Some(match shape {
        Shape::Time => "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
        Shape::MicroTime => "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
        Shape::Duration => "io.k8s.apimachinery.pkg.apis.meta.v1.Duration",
        Shape::FieldsV1 => "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
        Shape::Quantity => "io.k8s.apimachinery.pkg.api.resource.Quantity",
        Shape::IntOrString => "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
        Shape::Raw => "io.k8s.apimachinery.pkg.runtime.RawExtension",
        Shape::Json => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
        Shape::SchemaOr(SchemaOr::Schemas) => {
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray"
        }
        Shape::SchemaOr(SchemaOr::Bool) => {
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool"
        }
        Shape::SchemaOr(SchemaOr::Strings) => {
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray"
        }
        _ => return None,
    })
}

fn leaf_schema(name: &str) -> Option<Value> {
    Some(match name.rsplit('.').next()? {
        "Time" | "MicroTime" => json!({"type": "string", "format": "date-time"}),
        "Duration" => json!({"type": "string"}),
        "FieldsV1" | "RawExtension" => json!({"type": "object"}),
        // Anything.
        "JSON"
        | "JSONSchemaPropsOrArray"
        | "JSONSchemaPropsOrBool"
        | "JSONSchemaPropsOrStringArray" => json!({}),
        "Quantity" => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        "IntOrString" => json!({
            "format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}],
        }),
        _ => return None,
    })
}

fn type_schema(found: &Type, own: Option<(&str, &str)>, pending: &mut Vec<String>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    add_properties(found, found, &mut properties, &mut required, pending);
    properties.sort_keys();
    let mut document = json!({"type": "object"});
    if !properties.is_empty() {
        document["properties"] = Value::Object(properties);
    }
    if !required.is_empty() {
        document["required"] = json!(required);
    }
    if let Some(map_type) = &found.map_type {
        document["x-kubernetes-map-type"] = json!(map_type);
    }
    if let Some(unions) = &found.unions {
        document["x-kubernetes-unions"] = unions.clone();
    }
    let kinds: Vec<Value> = found
        .kinds
        .iter()
        .flat_map(|(group, version, kind)| {
            let shared = ["DeleteOptions", "WatchEvent"].contains(&kind.as_str());
            let pair = (group.as_str(), version.as_str());
            let more = own.filter(|own| shared && *own != pair);
            let pairs = std::iter::once(pair).chain(more);
            pairs.map(
                move |(group, version)| json!({"group": group, "kind": kind, "version": version}),
            )
        })
        .collect();
    if !kinds.is_empty() {
        document[KINDS] = json!(kinds);
    }
    described(&found.name, document)
}

/// `owner` has the fields of `found`, as its own or inlined.
fn add_properties(
    owner: &Type,
    found: &Type,
    properties: &mut Map<String, Value>,
    required: &mut Vec<String>,
    pending: &mut Vec<String>,
) {
    for field in &found.fields {
        if field.inlined
            && let Some(inner) = crate::fields::message_of(&field.shape)
        {
            add_properties(owner, inner, properties, required, pending);
            continue;
        }
        let text = descriptions::of_field(&owner.name, &field.name);
        let text = match field.enumeration.as_slice() {
            [] => text.map(str::to_owned),
            values => Some(enumerated(text.unwrap_or_default(), values)),
        };
        let text = text.or_else(|| of_list(owner, &field.name));
        let property = with_text(text.as_deref(), field_schema(field, pending));
        // Nothing stands beside the reference: it stands alone.
        let property = match &property["allOf"][0] {
            alone if property.as_object().is_some_and(|map| map.len() == 1) && !alone.is_null() => {
                alone.clone()
            }
            _ => property,
        };
        properties.insert(field.name.clone(), property);
        if field.required {
            required.push(field.name.clone());
        }
    }
}

/// The text with the values that the field may have.
fn enumerated(text: &str, values: &[String]) -> String {
    let values: Vec<String> = values
        .iter()
        .map(|value| format!(" - `{value:?}`"))
        .collect();
    let values = format!("Possible enum values:\n{}", values.join("\n"));
    match text {
        "" => values,
        text => format!("{text}\n\n{values}"),
    }
}

/// Where the values of an enumeration stand: at the innermost of lists and maps.
fn innermost(document: &mut Value) -> &mut Value {
    let inner = ["items", "additionalProperties"]
        .into_iter()
        .find(|name| document.get(name).is_some());
    match inner {
        Some(name) => innermost(&mut document[name]),
        None => document,
    }
}

fn field_schema(field: &Field, pending: &mut Vec<String>) -> Value {
    let mut document = shape_schema(&field.shape, pending);
    if document.get("$ref").is_some() {
        document = json!({"allOf": [document]});
        if !field.pointer && matches!(field.shape, Shape::Message(_)) {
            document["default"] = json!({});
        }
    }
    if let Some(default) = default_of(field) {
        document["default"] = default;
    }
    if !field.enumeration.is_empty() {
        innermost(&mut document)["enum"] = json!(field.enumeration);
    }
    if let Some(list_type) = &field.list_type {
        if !field.list_keys.is_empty() {
            document["x-kubernetes-list-map-keys"] = json!(field.list_keys);
        }
        document["x-kubernetes-list-type"] = json!(list_type);
    }
    if let Some(map_type) = &field.map_type {
        document["x-kubernetes-map-type"] = json!(map_type);
    }
    if let Some(key) = &field.merge_key {
        document["x-kubernetes-patch-merge-key"] = json!(key);
    }
    match (field.patch_merge, field.retain_keys) {
        (true, true) => document["x-kubernetes-patch-strategy"] = json!("merge,retainKeys"),
        (true, false) => document["x-kubernetes-patch-strategy"] = json!("merge"),
        (false, true) => document["x-kubernetes-patch-strategy"] = json!("retainKeys"),
        (false, false) if field.patch_replace => {
            document["x-kubernetes-patch-strategy"] = json!("replace");
        }
        (false, false) => {}
    }
    document
}

/// The stated default, or the zero value of what is always written.
fn default_of(field: &Field) -> Option<Value> {
    if field.default.is_some() || field.pointer || field.omit_empty || field.omit_zero {
        return field.default.clone();
    }
    match field.shape {
        Shape::String => Some(json!("")),
        Shape::Bool => Some(json!(false)),
        Shape::Int32 | Shape::Int64 => Some(json!(0)),
        _ => None,
    }
}

fn shape_schema(shape: &Shape, pending: &mut Vec<String>) -> Value {
    if let Some(name) = leaf_name(shape) {
        pending.push(name.to_owned());
        return json!({"$ref": format!("{REFERENCE}{name}")});
    }
    match shape {
        Shape::Bool => json!({"type": "boolean"}),
        Shape::Int32 => json!({"type": "integer", "format": "int32"}),
        Shape::Int64 => json!({"type": "integer", "format": "int64"}),
        Shape::Double => json!({"type": "number", "format": "double"}),
        Shape::Bytes => json!({"type": "string", "format": "byte"}),
        Shape::Message(name) => {
            pending.push(name.to_string());
            json!({"$ref": format!("{REFERENCE}{name}")})
        }
        Shape::List(element) => json!({"type": "array", "items": element_schema(element, pending)}),
        Shape::Map(element) => {
            json!({"type": "object", "additionalProperties": element_schema(element, pending)})
        }
        _ => json!({"type": "string"}),
    }
}

fn element_schema(element: &Shape, pending: &mut Vec<String>) -> Value {
    shape_schema(element, pending)
}
