//! OpenAPI v3 documents, from the schema and the table of kinds: an index, and
//! one document for each group and version. [`v2`] makes the older form of them.
//!
//! Pure: the same release gives the same bytes. Documents state paths (with the
//! query parameters that clients look for), types, and Kubernetes' extensions;
//! they hold no descriptions yet.

pub mod gnostic;
pub mod v2;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::discovery;
use crate::resource::{Index, Resource, Subresource};
use crate::schema::{self, Field, SchemaOr, Shape, Type};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const REFERENCE: &str = "#/components/schemas/";
const PATCH_TYPES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
const BODY_TYPES: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];

/// `api/v1`, or `apis/<group>/<version>`: the name of a document.
pub fn document_name(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// `GET /openapi/v3`: where each document is, with its hash.
pub fn index(kinds: &Index) -> Value {
    let mut paths = Map::new();
    for (group, version) in discovery::group_versions(kinds) {
        let name = document_name(group, version);
        let Some(document) = document(kinds, group, version) else {
            continue;
        };
        let hash = discovery::entity_tag(document.to_string().as_bytes());
        let url = format!("/openapi/v3/{name}?hash={hash}");
        paths.insert(name, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// One group and version's document; `None` for what is not served.
pub fn document(kinds: &Index, group: &str, version: &str) -> Option<Value> {
    let served: Vec<&Resource> = kinds
        .all()
        .iter()
        .map(AsRef::as_ref)
        .filter(|resource| resource.group == group && resource.version == version)
        .collect();
    if served.is_empty() {
        return None;
    }
    let mut paths = Map::new();
    let mut wanted = BTreeSet::new();
    for resource in served {
        add_paths(&mut paths, resource);
        wanted.insert(resource.schema.to_owned());
        if resource.has_verb("list") {
            wanted.insert(resource.list_schema());
        }
        let bodies = resource.subresources.iter().filter(|sub| has_body(sub));
        wanted.extend(bodies.map(|sub| sub.schema.clone()));
    }
    for name in [schema::DELETE_OPTIONS, schema::STATUS, schema::WATCH_EVENT] {
        wanted.insert(name.to_owned());
    }
    paths.sort_keys();
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": schema::release()},
        "paths": paths,
        "components": {"schemas": schemas(wanted, (group, version))},
    }))
}

fn add_paths(paths: &mut Map<String, Value>, resource: &Resource) {
    let root = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    let base = if resource.namespaced {
        if resource.has_verb("list") {
            let mut everywhere = Map::new();
            everywhere.insert("get".to_owned(), list_operation(resource));
            everywhere.insert("parameters".to_owned(), list_parameters());
            paths.insert(
                format!("{root}/{}", resource.plural),
                Value::Object(everywhere),
            );
        }
        format!("{root}/namespaces/{{namespace}}/{}", resource.plural)
    } else {
        format!("{root}/{}", resource.plural)
    };
    paths.insert(base.clone(), collection_path(resource));
    if !resource.has_verb("get") {
        return;
    }
    let own = [
        ("get", "get"),
        ("put", "update"),
        ("patch", "patch"),
        ("delete", "delete"),
    ];
    let item = item_path(
        resource,
        &own,
        &resource.verbs,
        &resource.schema,
        &kind_of(resource),
    );
    paths.insert(format!("{base}/{{name}}"), item);
    for sub in resource.subresources.iter().filter(|sub| has_body(sub)) {
        let operations = [
            ("get", "get"),
            ("post", "create"),
            ("put", "update"),
            ("patch", "patch"),
        ];
        let item = item_path(
            resource,
            &operations,
            &sub.verbs,
            &sub.schema,
            &kind_of_sub(sub),
        );
        paths.insert(format!("{base}/{{name}}/{}", sub.name), item);
    }
}

/// Connections have options, in the query, and no bodies.
fn has_body(sub: &Subresource) -> bool {
    !sub.kind.ends_with("Options")
}

fn kind_of(resource: &Resource) -> Value {
    json!({"group": resource.group, "kind": resource.kind, "version": resource.version})
}

fn kind_of_sub(sub: &Subresource) -> Value {
    json!({"group": sub.group, "kind": sub.kind, "version": sub.version})
}

fn collection_path(resource: &Resource) -> Value {
    let mut path = Map::new();
    if resource.has_verb("list") {
        path.insert("get".to_owned(), list_operation(resource));
    }
    if resource.has_verb("create") {
        let operation = operation(
            "post",
            &resource.schema,
            &resource.schema,
            &kind_of(resource),
        );
        path.insert("post".to_owned(), operation);
    }
    if resource.has_verb("deletecollection") {
        let mut operation = operation(
            "deletecollection",
            schema::STATUS,
            schema::DELETE_OPTIONS,
            &kind_of(resource),
        );
        add_selection(&mut operation);
        path.insert("delete".to_owned(), operation);
    }
    let parameters = if resource.namespaced {
        vec![path_parameter("namespace")]
    } else {
        vec![]
    };
    path.insert("parameters".to_owned(), Value::Array(parameters));
    Value::Object(path)
}

fn item_path(
    resource: &Resource,
    operations: &[(&str, &str)],
    verbs: &[String],
    body: &str,
    kind: &Value,
) -> Value {
    let mut path = Map::new();
    for (method, verb) in operations {
        if !verbs.iter().any(|own| own == verb) {
            continue;
        }
        let operation = match *method {
            "delete" => operation("delete", schema::STATUS, schema::DELETE_OPTIONS, kind),
            method => operation(method, body, body, kind),
        };
        path.insert((*method).to_owned(), operation);
    }
    let mut parameters = vec![path_parameter("name")];
    if resource.namespaced {
        parameters.push(path_parameter("namespace"));
    }
    path.insert("parameters".to_owned(), Value::Array(parameters));
    Value::Object(path)
}

fn list_operation(resource: &Resource) -> Value {
    let mut operation = operation("list", &resource.list_schema(), "", &kind_of(resource));
    operation["parameters"] = list_parameters();
    operation
}

fn operation(action: &str, answer: &str, body: &str, kind: &Value) -> Value {
    let mut operation = json!({
        "responses": {"200": {"description": "OK", "content": content(BODY_TYPES, answer)}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": kind,
    });
    let body_types = match action {
        "get" | "list" => return operation,
        "patch" => PATCH_TYPES,
        _ => BODY_TYPES,
    };
    let body = if action == "patch" {
        format!("{META}Patch")
    } else {
        body.to_owned()
    };
    operation["requestBody"] =
        json!({"content": content(body_types, &body), "required": action != "delete"});
    let names: &[&str] = match action {
        "delete" | "deletecollection" => &[
            "dryRun",
            "gracePeriodSeconds",
            "orphanDependents",
            "propagationPolicy",
        ],
        "patch" => &["dryRun", "fieldManager", "fieldValidation", "force"],
        _ => &["dryRun", "fieldManager", "fieldValidation"],
    };
    operation["parameters"] = names.iter().map(|name| query_parameter(name)).collect();
    operation
}

fn content(types: &[&str], schema: &str) -> Value {
    let reference = json!({"schema": {"$ref": format!("{REFERENCE}{schema}")}});
    types
        .iter()
        .map(|name| ((*name).to_owned(), reference.clone()))
        .collect()
}

/// What a deletion of many takes besides its own: the parameters of a list.
fn add_selection(operation: &mut Value) {
    let list = list_parameters();
    let chosen = list.as_array().into_iter().flatten().filter(|parameter| {
        !["watch", "allowWatchBookmarks"]
            .iter()
            .any(|name| parameter["name"] == *name)
    });
    if let Some(parameters) = operation["parameters"].as_array_mut() {
        parameters.extend(chosen.cloned());
    }
}

fn list_parameters() -> Value {
    [
        "allowWatchBookmarks",
        "continue",
        "fieldSelector",
        "labelSelector",
        "limit",
        "resourceVersion",
        "resourceVersionMatch",
        "sendInitialEvents",
        "timeoutSeconds",
        "watch",
    ]
    .iter()
    .map(|name| query_parameter(name))
    .collect()
}

fn query_parameter(name: &str) -> Value {
    let kind = match name {
        "allowWatchBookmarks" | "force" | "orphanDependents" | "sendInitialEvents" | "watch" => {
            "boolean"
        }
        "gracePeriodSeconds" | "limit" | "timeoutSeconds" => "integer",
        _ => "string",
    };
    json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
}

fn path_parameter(name: &str) -> Value {
    let schema = json!({"type": "string", "uniqueItems": true});
    json!({"name": name, "in": "path", "required": true, "schema": schema})
}

/// The named types and all they refer to.
fn schemas(wanted: BTreeSet<String>, own: (&str, &str)) -> Value {
    let mut pending: Vec<String> = wanted.into_iter().collect();
    let mut done = Map::new();
    done.insert(format!("{META}Patch"), json!({"type": "object"}));
    while let Some(name) = pending.pop() {
        if done.contains_key(&name) {
            continue;
        }
        if let Some(leaf) = leaf_schema(&name) {
            done.insert(name, leaf);
            continue;
        }
        let Some(found) = schema::find(&name) else {
            continue;
        };
        done.insert(name, type_schema(found, own, &mut pending));
    }
    done.sort_keys();
    Value::Object(done)
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

fn type_schema(found: &Type, own: (&str, &str), pending: &mut Vec<String>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    add_properties(found, &mut properties, &mut required, pending);
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
            // Options and events of watches are of this document's group too.
            let shared = ["DeleteOptions", "WatchEvent"].contains(&kind.as_str());
            let pair = (group.as_str(), version.as_str());
            let pairs = std::iter::once(pair).chain((shared && own != pair).then_some(own));
            pairs.map(
                move |(group, version)| json!({"group": group, "kind": kind, "version": version}),
            )
        })
        .collect();
    if !kinds.is_empty() {
        document["x-kubernetes-group-version-kind"] = json!(kinds);
    }
    document
}

fn add_properties(
    found: &Type,
    properties: &mut Map<String, Value>,
    required: &mut Vec<String>,
    pending: &mut Vec<String>,
) {
    for field in &found.fields {
        if field.inlined
            && let Some(inner) = crate::fields::message_of(&field.shape)
        {
            add_properties(inner, properties, required, pending);
            continue;
        }
        properties.insert(field.name.clone(), field_schema(field, pending));
        if field.required {
            required.push(field.name.clone());
        }
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
            pending.push(name.clone());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::built_in;

    #[test]
    fn every_reference_is_defined() {
        fn references(value: &Value, found: &mut BTreeSet<String>) {
            match value {
                Value::Object(map) => {
                    for (key, inner) in map {
                        match inner.as_str() {
                            Some(text) if key == "$ref" => {
                                found.insert(text.replace(REFERENCE, ""));
                            }
                            _ => references(inner, found),
                        }
                    }
                }
                Value::Array(list) => list.iter().for_each(|inner| references(inner, found)),
                _ => {}
            }
        }
        for (group, version) in discovery::group_versions(built_in()) {
            let document = document(built_in(), group, version).expect("served");
            let mut found = BTreeSet::new();
            references(&document, &mut found);
            let schemas = document["components"]["schemas"]
                .as_object()
                .expect("schemas");
            for name in found {
                assert!(schemas.contains_key(&name), "{group}/{version}: {name}");
            }
        }
    }

    #[test]
    fn kubectl_finds_field_validation_on_patch() {
        let document = document(built_in(), "", "v1").expect("served");
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/configmaps/{name}"]["patch"];
        let names: Vec<&str> = patch["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        assert_eq!(
            names,
            ["dryRun", "fieldManager", "fieldValidation", "force"]
        );
        assert_eq!(
            patch["x-kubernetes-group-version-kind"]["kind"],
            "ConfigMap"
        );
    }

    #[test]
    fn a_keyed_list_states_its_keys() {
        let document = document(built_in(), "", "v1").expect("served");
        let containers = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]
            ["containers"];
        assert_eq!(
            containers.to_string(),
            r##"{"type":"array","items":{"$ref":"#/components/schemas/io.k8s.api.core.v1.Container"},"x-kubernetes-list-map-keys":["name"],"x-kubernetes-list-type":"map","x-kubernetes-patch-merge-key":"name","x-kubernetes-patch-strategy":"merge"}"##
        );
    }

    #[test]
    fn the_index_names_each_document_with_its_hash() {
        let index = index(built_in());
        let url = index["paths"]["api/v1"]["serverRelativeURL"]
            .as_str()
            .unwrap_or_default();
        assert!(url.starts_with("/openapi/v3/api/v1?hash="), "{url}");
    }
}
