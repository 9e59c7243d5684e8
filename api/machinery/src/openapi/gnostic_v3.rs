//! The protobuf form of an OpenAPI v3 document, `openapi.v3.Document` of the gnostic
//! models: what `kubectl` asks for before it validates.
//!
//! Bytes are those of the reference's own conversion: fields in ascending order, zero
//! values left out, extensions and enumerations as YAML text. What v3 has and Kubernetes'
//! documents have not (links, callbacks, servers) is not written.

use serde_json::{Map, Value};

use super::gnostic::{any, double, named};
use crate::codec::writer::{bytes, varint_field};

/// The protobuf form of the whole document.
pub fn document(v3: &Value) -> Vec<u8> {
    let mut output = Vec::new();
    text(&mut output, 1, &v3["openapi"]);
    let mut info = Vec::new();
    text(&mut info, 1, &v3["info"]["title"]);
    text(&mut info, 6, &v3["info"]["version"]);
    bytes(&mut output, 2, &info);
    let mut paths = Vec::new();
    for (path, item) in entries(&v3["paths"]) {
        bytes(&mut paths, 1, &named(path, &path_item(item)));
    }
    bytes(&mut output, 4, &paths);
    let mut schemas = Vec::new();
    for (name, body) in entries(&v3["components"]["schemas"]) {
        bytes(&mut schemas, 1, &named(name, &schema_or_reference(body)));
    }
    let mut components = Vec::new();
    bytes(&mut components, 1, &schemas);
    bytes(&mut output, 5, &components);
    output
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Empty text is proto3's zero value, which is not written.
fn text(output: &mut Vec<u8>, number: u32, value: &Value) {
    if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
        bytes(output, number, text.as_bytes());
    }
}

fn flag(output: &mut Vec<u8>, number: u32, value: &Value) {
    if value == &Value::Bool(true) {
        varint_field(output, number, 1);
    }
}

fn whole(output: &mut Vec<u8>, number: u32, value: &Value) {
    if let Some(whole) = value.as_i64().filter(|whole| *whole != 0) {
        varint_field(output, number, whole.cast_unsigned());
    }
}

fn extensions(output: &mut Vec<u8>, number: u32, value: &Value) {
    for (key, value) in entries(value).filter(|(key, _)| key.starts_with("x-")) {
        bytes(output, number, &named(key, &any(value)));
    }
}

fn path_item(item: &Value) -> Vec<u8> {
    let mut output = Vec::new();
    for (key, number) in [
        ("get", 4),
        ("put", 5),
        ("post", 6),
        ("delete", 7),
        ("patch", 10),
    ] {
        if let Some(own) = item.get(key) {
            bytes(&mut output, number, &operation(own));
        }
    }
    for own in items(&item["parameters"]) {
        bytes(&mut output, 13, &parameter(own));
    }
    output
}

fn operation(own: &Value) -> Vec<u8> {
    let mut output = Vec::new();
    for tag in items(&own["tags"]) {
        text(&mut output, 1, tag);
    }
    text(&mut output, 3, &own["description"]);
    text(&mut output, 5, &own["operationId"]);
    for own in items(&own["parameters"]) {
        bytes(&mut output, 6, &parameter(own));
    }
    if let Some(body) = own.get("requestBody") {
        let mut request = Vec::new();
        bytes(&mut request, 2, &content(&body["content"]));
        flag(&mut request, 3, &body["required"]);
        bytes(&mut output, 7, &within(1, &request));
    }
    let mut responses = Vec::new();
    for (code, response) in entries(&own["responses"]) {
        let mut answer = Vec::new();
        text(&mut answer, 1, &response["description"]);
        if let Some(own) = response.get("content") {
            bytes(&mut answer, 3, &content(own));
        }
        bytes(&mut responses, 2, &named(code, &within(1, &answer)));
    }
    bytes(&mut output, 8, &responses);
    extensions(&mut output, 13, own);
    output
}

/// The content as a field of a message of its own.
fn within(number: u32, content: &[u8]) -> Vec<u8> {
    let mut outer = Vec::new();
    bytes(&mut outer, number, content);
    outer
}

fn content(own: &Value) -> Vec<u8> {
    let mut output = Vec::new();
    for (media, body) in entries(own) {
        let body = within(1, &schema_or_reference(&body["schema"]));
        bytes(&mut output, 1, &named(media, &body));
    }
    output
}

fn parameter(own: &Value) -> Vec<u8> {
    let mut output = Vec::new();
    text(&mut output, 1, &own["name"]);
    text(&mut output, 2, &own["in"]);
    text(&mut output, 3, &own["description"]);
    flag(&mut output, 4, &own["required"]);
    bytes(&mut output, 10, &schema_or_reference(&own["schema"]));
    within(1, &output)
}

fn schema_or_reference(own: &Value) -> Vec<u8> {
    match own.get("$ref") {
        Some(target) => {
            let mut reference = Vec::new();
            text(&mut reference, 1, target);
            text(&mut reference, 3, &own["description"]);
            within(2, &reference)
        }
        None => within(1, &schema(own)),
    }
}

fn schema(own: &Value) -> Vec<u8> {
    let mut output = Vec::new();
    let empty = Map::new();
    let map = own.as_object().unwrap_or(&empty);
    let get = |key: &str| map.get(key).unwrap_or(&Value::Null);
    flag(&mut output, 1, get("nullable"));
    text(&mut output, 9, get("title"));
    for (key, number, exclusive) in [
        ("multipleOf", 10, None),
        ("maximum", 11, Some(("exclusiveMaximum", 12))),
        ("minimum", 13, Some(("exclusiveMinimum", 14))),
    ] {
        if let Some(value) = get(key).as_f64().filter(|value| *value != 0.0) {
            double(&mut output, number, value);
        }
        if let Some((key, number)) = exclusive {
            flag(&mut output, number, get(key));
        }
    }
    whole(&mut output, 15, get("maxLength"));
    whole(&mut output, 16, get("minLength"));
    text(&mut output, 17, get("pattern"));
    whole(&mut output, 18, get("maxItems"));
    whole(&mut output, 19, get("minItems"));
    flag(&mut output, 20, get("uniqueItems"));
    whole(&mut output, 21, get("maxProperties"));
    whole(&mut output, 22, get("minProperties"));
    for name in items(get("required")) {
        text(&mut output, 23, name);
    }
    for value in items(get("enum")) {
        bytes(&mut output, 24, &any(value));
    }
    text(&mut output, 25, get("type"));
    for (key, number) in [("allOf", 26), ("oneOf", 27), ("anyOf", 28)] {
        for part in items(get(key)) {
            bytes(&mut output, number, &schema_or_reference(part));
        }
    }
    if let Some(not) = map.get("not") {
        bytes(&mut output, 29, &schema(not));
    }
    if let Some(element) = map.get("items") {
        bytes(&mut output, 30, &within(1, &schema_or_reference(element)));
    }
    if let Some(properties) = map.get("properties") {
        let mut all = Vec::new();
        for (name, property) in entries(properties) {
            bytes(&mut all, 1, &named(name, &schema_or_reference(property)));
        }
        bytes(&mut output, 31, &all);
    }
    match get("additionalProperties") {
        Value::Null => {}
        Value::Bool(any) => {
            let mut own = Vec::new();
            varint_field(&mut own, 2, u64::from(*any));
            bytes(&mut output, 32, &own);
        }
        element => bytes(&mut output, 32, &within(1, &schema_or_reference(element))),
    }
    if let Some(value) = map.get("default") {
        bytes(&mut output, 33, &default(value));
    }
    text(&mut output, 34, get("description"));
    text(&mut output, 35, get("format"));
    extensions(&mut output, 36, own);
    output
}

/// Only scalars have a form.
fn default(value: &Value) -> Vec<u8> {
    let mut output = Vec::new();
    match value {
        Value::Number(number) => double(&mut output, 1, number.as_f64().unwrap_or(0.0)),
        Value::Bool(value) => varint_field(&mut output, 2, u64::from(*value)),
        Value::String(text) => bytes(&mut output, 3, text.as_bytes()),
        _ => {}
    }
    output
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reference_stands_in_a_schema_s_place() {
        assert_eq!(
            schema_or_reference(&json!({"$ref": "#/a"})),
            b"\x12\x05\x0a\x03#/a"
        );
        // Type (25) and format (35) of a schema (1).
        let body = json!({"type": "string", "format": "byte"});
        assert_eq!(
            schema_or_reference(&body),
            b"\x0a\x10\xca\x01\x06string\x9a\x02\x04byte"
        );
    }

    #[test]
    fn an_empty_object_as_default_is_an_empty_message() {
        assert_eq!(schema(&json!({"default": {}})), b"\x8a\x02\x00");
        assert_eq!(schema(&json!({"default": "a"})), b"\x8a\x02\x03\x1a\x01a");
    }
}
