//! The OpenAPI v2 ("Swagger") document, made of the v3 documents: one document
//! for all groups, which clients read that validate before they send. `kubectl`
//! does so for the items of a `v1` `List`.
//!
//! What v2 says otherwise: bodies are parameters, media types stand on the
//! operation, references may have siblings, and there are no alternatives of
//! types, nor (in the reference's documents) defaults.

use serde_json::{Map, Value, json};

use super::defined::{self, Form};
use super::{DEFINITIONS, REFERENCE, document as v3_document};
use crate::resource::Index;
use crate::{discovery, schema};

const KINDS: &str = "x-kubernetes-group-version-kind";

/// `GET /openapi/v2`: every group and version in one document.
pub fn document(kinds: &Index) -> Value {
    let mut paths = Map::new();
    let mut definitions = Map::new();
    let all = discovery::group_versions(kinds).into_iter();
    for v3 in all.filter_map(|(group, version)| v3_document(kinds, group, version)) {
        for (path, item) in entries(&v3["paths"]) {
            paths.insert(path.clone(), path_item(item));
        }
        for (name, schema) in entries(&v3["components"]["schemas"]) {
            merge(&mut definitions, name, definition(schema));
        }
    }
    for kind in kinds.all() {
        defined::add(&mut definitions, kind, Form::V2);
    }
    for definition in definitions.values_mut() {
        if let Some(Value::Array(kinds)) = definition.get_mut(KINDS) {
            kinds.sort_by_key(|kind| format!("{}/{}", kind["group"], kind["version"]));
        }
    }
    paths.sort_keys();
    definitions.sort_keys();
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": schema::release()},
        "paths": paths,
        "definitions": definitions,
    })
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// Options and events of watches are kinds of every group: each v3 document
/// names its own, this one names them all.
fn merge(definitions: &mut Map<String, Value>, name: &str, definition: Value) {
    let Some(known) = definitions.get_mut(name) else {
        definitions.insert(name.to_owned(), definition);
        return;
    };
    let (Some(Value::Array(all)), Some(more)) =
        (known.get_mut(KINDS), definition[KINDS].as_array())
    else {
        return;
    };
    for kind in more {
        if !all.contains(kind) {
            all.push(kind.clone());
        }
    }
}

fn path_item(v3: &Value) -> Value {
    entries(v3)
        .map(|(key, value)| {
            let value = match key.as_str() {
                "parameters" => parameters(value),
                _ => operation(value),
            };
            (key.clone(), value)
        })
        .collect()
}

fn operation(v3: &Value) -> Value {
    let mut v2 = Map::new();
    for name in ["tags", "operationId"] {
        v2.insert(name.to_owned(), v3[name].clone());
    }
    let mut all = Vec::new();
    let consumed = match v3.get("requestBody") {
        Some(body) => {
            let (types, schema) = content(&body["content"]);
            let mut parameter = json!({"in": "body", "name": "body"});
            if body["required"] == true {
                parameter["required"] = json!(true);
            }
            parameter["schema"] = schema;
            all.push(parameter);
            types
        }
        None => vec!["*/*"],
    };
    v2.insert("consumes".to_owned(), json!(consumed));
    if let Value::Array(more) = parameters(&v3["parameters"]) {
        all.extend(more);
    }
    if !all.is_empty() {
        v2.insert("parameters".to_owned(), Value::Array(all));
    }
    let mut produced = Vec::new();
    let mut responses = Map::new();
    for (code, response) in entries(&v3["responses"]) {
        let mut answer = json!({"description": response["description"]});
        if response.get("content").is_some() {
            let (types, schema) = content(&response["content"]);
            produced = types;
            answer["schema"] = schema;
        }
        responses.insert(code.clone(), answer);
    }
    v2.insert("produces".to_owned(), json!(produced));
    v2.insert("responses".to_owned(), Value::Object(responses));
    v2.insert("schemes".to_owned(), json!(["https"]));
    let extensions = entries(v3).filter(|(key, _)| key.starts_with("x-"));
    v2.extend(extensions.map(|(key, value)| (key.clone(), value.clone())));
    Value::Object(v2)
}

/// The media types of a body, and its schema: the same for all of them.
fn content(v3: &Value) -> (Vec<&str>, Value) {
    let types = entries(v3).map(|(media, _)| media.as_str()).collect();
    let schema = entries(v3).next().map(|(_, body)| &body["schema"]);
    (types, definition(schema.unwrap_or(&Value::Null)))
}

/// Parameters of paths and queries state their type beside their name.
fn parameters(v3: &Value) -> Value {
    let flat = |parameter: &Value| -> Value {
        let own = entries(parameter).filter(|(key, _)| *key != "schema");
        own.chain(entries(&parameter["schema"]))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    v3.as_array().into_iter().flatten().map(flat).collect()
}

/// What v2 says of a type, with what the reference says of it: the rest (defaults,
/// limits, alternatives) is for v3 alone.
fn definition(v3: &Value) -> Value {
    let mut v2 = Map::new();
    for (key, value) in entries(v3) {
        let value = match (key.as_str(), value) {
            // A reference that has siblings; v2 lets them stand together.
            ("allOf", Value::Array(all)) => {
                for part in all.iter().filter(|part| part.get("$ref").is_some()) {
                    v2.extend(definition(part).as_object().cloned().unwrap_or_default());
                }
                continue;
            }
            // Quantities and the like: text, which clients take numbers for too.
            ("oneOf", _) if v3.get("properties").is_none() => json!("string"),
            ("$ref", Value::String(target)) => json!(target.replace(REFERENCE, DEFINITIONS)),
            ("properties", Value::Object(properties)) => properties
                .iter()
                .map(|(name, property)| (name.clone(), definition(property)))
                .collect(),
            ("items" | "additionalProperties", value) => definition(value),
            ("description" | "format" | "required" | "type", value) => value.clone(),
            (key, value) if key.starts_with("x-kubernetes-") => value.clone(),
            _ => continue,
        };
        let key = if key == "oneOf" { "type" } else { key };
        v2.insert(key.to_owned(), value);
    }
    Value::Object(v2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_document_holds_the_paths_of_all_groups() {
        let document = document(crate::resource::built_in());
        for path in [
            "/api/v1/namespaces/{namespace}/pods/{name}",
            "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases",
            "/apis/events.k8s.io/v1/events",
        ] {
            assert!(document["paths"][path]["get"].is_object(), "{path}");
        }
    }

    #[test]
    fn a_patch_names_its_parameters_and_its_kind() {
        let document = document(crate::resource::built_in());
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/configmaps/{name}"]["patch"];
        assert_eq!(
            patch["consumes"].to_string(),
            r#"["application/apply-patch+yaml","application/json-patch+json","application/merge-patch+json","application/strategic-merge-patch+json"]"#
        );
        assert_eq!(
            patch["responses"].to_string(),
            r##"{"200":{"description":"OK","schema":{"$ref":"#/definitions/io.k8s.api.core.v1.ConfigMap"}},"201":{"description":"Created","schema":{"$ref":"#/definitions/io.k8s.api.core.v1.ConfigMap"}},"401":{"description":"Unauthorized"}}"##
        );
        assert_eq!(
            patch["parameters"][0].to_string(),
            r##"{"in":"body","name":"body","required":true,"schema":{"$ref":"#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.Patch"}}"##
        );
        assert_eq!(
            patch["x-kubernetes-group-version-kind"].to_string(),
            r#"{"group":"","kind":"ConfigMap","version":"v1"}"#
        );
    }

    #[test]
    fn options_are_a_kind_of_every_group() {
        let document = document(crate::resource::built_in());
        let options = &document["definitions"][schema::DELETE_OPTIONS][KINDS];
        for (group, version) in discovery::group_versions(crate::resource::built_in()) {
            let kind = json!({"group": group, "kind": "DeleteOptions", "version": version});
            let named = options.as_array().is_some_and(|all| all.contains(&kind));
            assert!(named, "{group}/{version} in {options}");
        }
    }
}
