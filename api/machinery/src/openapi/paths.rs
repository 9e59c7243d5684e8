//! The paths of a document: of each kind its collections, its objects and their
//! subresources, with the methods that its verbs stand for.

use serde_json::{Map, Value, json};

use super::{META, REFERENCE, has_body, kind_of, list_model_name, model_name};
use crate::resource::{Resource, Subresource};
use crate::schema::{self, Shape};

const JSON_PATCH_TYPES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
];
const PATCH_TYPES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
/// Kinds made at run time have no protobuf form.
const JSON_TYPES: &[&str] = &["application/json", "application/yaml"];
const BODY_TYPES: &[&str] = &[
    "application/json",
    "application/vnd.kubernetes.protobuf",
    "application/yaml",
];

/// A method, the verb it stands for, and what a path's name says of it.
const OBJECT: &[(&str, &str, &str)] = &[
    ("get", "get", "read"),
    ("put", "update", "replace"),
    ("patch", "patch", "patch"),
    ("delete", "delete", "delete"),
];
const SUBRESOURCE: &[(&str, &str, &str)] = &[
    ("get", "get", "read"),
    ("post", "create", "create"),
    ("put", "update", "replace"),
    ("patch", "patch", "patch"),
];
const CONNECTION: &[(&str, &str, &str)] = &[
    ("get", "get", "Get"),
    ("post", "create", "Post"),
    ("put", "update", "Put"),
    ("patch", "patch", "Patch"),
    ("delete", "delete", "Delete"),
];

/// Adds a kind's paths.
pub(super) fn add(paths: &mut Map<String, Value>, resource: &Resource) {
    let root = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    let base = if resource.namespaced {
        if resource.has_verb("list") {
            let mut everywhere = Map::new();
            everywhere.insert("get".to_owned(), list(resource, &Scope::Everywhere));
            everywhere.insert("parameters".to_owned(), list_parameters());
            let path = format!("{root}/{}", resource.plural);
            paths.insert(path, Value::Object(everywhere));
        }
        format!("{root}/namespaces/{{namespace}}/{}", resource.plural)
    } else {
        format!("{root}/{}", resource.plural)
    };
    paths.insert(base.clone(), collection(resource));
    if !resource.has_verb("get") {
        return;
    }
    let mut item = Map::new();
    for (method, verb, word) in OBJECT {
        if resource.has_verb(verb) {
            let kind = own_kind(resource);
            let name = operation_id(resource, word, "");
            let body = model_name(resource);
            let operation = match *method {
                "delete" => {
                    let answer = if resource.returns_deleted {
                        body
                    } else {
                        schema::STATUS.to_owned()
                    };
                    operation(
                        resource,
                        "delete",
                        &name,
                        &answer,
                        schema::DELETE_OPTIONS,
                        &kind,
                    )
                }
                method => operation(resource, method, &name, &body, &body, &kind),
            };
            item.insert((*method).to_owned(), operation);
        }
    }
    item.insert("parameters".to_owned(), named_parameters(resource));
    paths.insert(format!("{base}/{{name}}"), Value::Object(item));
    for sub in &resource.subresources {
        let path = format!("{base}/{{name}}/{}", sub.name);
        if sub.name == "proxy" {
            paths.insert(format!("{path}/{{path}}"), connection(resource, sub, true));
        }
        let item = match has_body(sub) && sub.name != "log" {
            true => subresource(resource, sub),
            false => connection(resource, sub, false),
        };
        paths.insert(path, item);
    }
}

fn own_kind(resource: &Resource) -> Value {
    kind_of(&resource.group, &resource.version, &resource.kind)
}

fn subresource(resource: &Resource, sub: &Subresource) -> Value {
    let mut item = Map::new();
    let body = match sub.schema.as_str() {
        "" => model_name(resource),
        schema => schema.to_owned(),
    };
    for (method, verb, word) in SUBRESOURCE {
        if sub.verbs.iter().any(|own| own == verb) {
            let kind = kind_of(&sub.group, &sub.version, &sub.kind);
            let name = operation_id(resource, word, &sub.name);
            let operation = operation(resource, method, &name, &body, &body, &kind);
            item.insert((*method).to_owned(), operation);
        }
    }
    item.insert("parameters".to_owned(), named_parameters(resource));
    Value::Object(item)
}

/// A subresource that answers with a stream: logs, and what is connected to.
fn connection(resource: &Resource, sub: &Subresource, with_path: bool) -> Value {
    let mut item = Map::new();
    let is_log = sub.name == "log";
    for (method, verb, word) in CONNECTION {
        if !sub.verbs.iter().any(|own| own == verb) {
            continue;
        }
        let action = if is_log { "get" } else { "connect" };
        let name = match is_log {
            true => operation_id(resource, "read", &sub.name),
            false => {
                let scope = if resource.namespaced {
                    "Namespaced"
                } else {
                    ""
                };
                let (group, kind) = (group_id(resource), &resource.kind);
                format!("connect{group}{word}{scope}{kind}{}", capital(&sub.name))
            }
        };
        let name = if with_path {
            format!("{name}WithPath")
        } else {
            name
        };
        let types: &[&str] = match is_log {
            true => &[
                "application/json",
                "application/vnd.kubernetes.protobuf",
                "application/yaml",
                "text/plain",
            ],
            false => &["*/*"],
        };
        let text = json!({"schema": {"type": "string"}});
        let content: Map<String, Value> = types
            .iter()
            .map(|media| ((*media).to_owned(), text.clone()))
            .collect();
        let operation = json!({
            "tags": [tag(resource)],
            "operationId": name,
            "responses": {
                "200": {"description": "OK", "content": content},
                "401": {"description": "Unauthorized"},
            },
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind_of(&sub.group, &sub.version, &sub.kind),
        });
        item.insert((*method).to_owned(), operation);
    }
    let options = match is_log {
        true => "io.k8s.api.core.v1.PodLogOptions",
        false => sub.schema.as_str(),
    };
    let mut parameters = match named_parameters(resource) {
        Value::Array(list) => list,
        _ => Vec::new(),
    };
    if with_path {
        parameters.push(path_parameter("path"));
    }
    let fields = schema::find(options).map_or(&[][..], |found| found.fields.as_slice());
    for field in fields.iter().filter(|field| !field.type_meta) {
        let kind = match &field.shape {
            Shape::Bool => "boolean",
            Shape::Int32 | Shape::Int64 => "integer",
            _ => "string",
        };
        if !(with_path && field.name == "path") {
            let schema = json!({"type": kind, "uniqueItems": true});
            parameters.push(json!({"name": field.name, "in": "query", "schema": schema}));
        }
    }
    item.insert("parameters".to_owned(), Value::Array(parameters));
    Value::Object(item)
}

fn collection(resource: &Resource) -> Value {
    let mut path = Map::new();
    let body = model_name(resource);
    if resource.has_verb("list") {
        path.insert("get".to_owned(), list(resource, &Scope::Own));
    }
    if resource.has_verb("create") {
        let name = operation_id(resource, "create", "");
        let operation = operation(resource, "post", &name, &body, &body, &own_kind(resource));
        path.insert("post".to_owned(), operation);
    }
    if resource.has_verb("deletecollection") {
        let name = collection_id(resource);
        let mut operation = operation(
            resource,
            "deletecollection",
            &name,
            schema::STATUS,
            schema::DELETE_OPTIONS,
            &own_kind(resource),
        );
        add_selection(&mut operation);
        path.insert("delete".to_owned(), operation);
    }
    let parameters = match resource.namespaced {
        true => vec![path_parameter("namespace")],
        false => Vec::new(),
    };
    path.insert("parameters".to_owned(), Value::Array(parameters));
    Value::Object(path)
}

enum Scope {
    Own,
    Everywhere,
}

fn list(resource: &Resource, scope: &Scope) -> Value {
    let name = match scope {
        Scope::Own => operation_id(resource, "list", ""),
        Scope::Everywhere => format!(
            "list{}{}ForAllNamespaces",
            group_id(resource),
            resource.kind
        ),
    };
    let answer = list_model_name(resource);
    let mut operation = operation(resource, "list", &name, &answer, "", &own_kind(resource));
    operation["parameters"] = list_parameters();
    operation
}

/// `readCoreV1NamespacedPodStatus`.
fn operation_id(resource: &Resource, word: &str, sub: &str) -> String {
    let scope = if resource.namespaced {
        "Namespaced"
    } else {
        ""
    };
    let (group, kind) = (group_id(resource), &resource.kind);
    format!("{word}{group}{scope}{kind}{}", capital(sub))
}

fn collection_id(resource: &Resource) -> String {
    let scope = if resource.namespaced {
        "Namespaced"
    } else {
        ""
    };
    format!(
        "delete{}Collection{scope}{}",
        group_id(resource),
        resource.kind
    )
}

/// `CoreV1`, `RbacAuthorizationV1`.
fn group_id(resource: &Resource) -> String {
    let group = match resource.group.as_str() {
        "" => "core",
        group => group.strip_suffix(".k8s.io").unwrap_or(group),
    };
    let group: String = group.split('.').map(capital).collect();
    format!("{group}{}", capital(&resource.version))
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

fn tag(resource: &Resource) -> String {
    let group = match resource.group.as_str() {
        "" => "core",
        group => group.strip_suffix(".k8s.io").unwrap_or(group),
    };
    format!("{}_{}", group_words(group), resource.version)
}

/// `rbacAuthorization`.
fn group_words(group: &str) -> String {
    let mut parts = group.split('.');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |words, part| words + &capital(part))
}

fn operation(
    resource: &Resource,
    action: &str,
    name: &str,
    answer: &str,
    body: &str,
    kind: &Value,
) -> Value {
    let codes: &[(&str, &str)] = match action {
        "post" => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
        "put" | "patch" => &[("200", "OK"), ("201", "Created")],
        "delete" => &[("200", "OK"), ("202", "Accepted")],
        _ => &[("200", "OK")],
    };
    let is_dynamic = resource.defined.is_some();
    let types = if is_dynamic { JSON_TYPES } else { BODY_TYPES };
    let mut answers: Vec<&str> = types.to_vec();
    if action == "list" {
        answers.push("application/json;stream=watch");
        if !is_dynamic {
            answers.push("application/vnd.kubernetes.protobuf;stream=watch");
        }
    }
    let mut responses = Map::new();
    for (code, word) in codes {
        let answer = json!({"description": word, "content": content(&answers, answer)});
        responses.insert((*code).to_owned(), answer);
    }
    let unauthorized = json!({"description": "Unauthorized"});
    responses.insert("401".to_owned(), unauthorized);
    let mut operation = json!({
        "tags": [tag(resource)],
        "operationId": name,
        "responses": responses,
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": kind,
    });
    let body_types = match action {
        "get" | "list" => return operation,
        "patch" if is_dynamic => JSON_PATCH_TYPES,
        "patch" => PATCH_TYPES,
        _ => &["*/*"],
    };
    let body = if action == "patch" {
        format!("{META}Patch")
    } else {
        body.to_owned()
    };
    let mut request = json!({"content": content(body_types, &body)});
    if !action.starts_with("delete") {
        request["required"] = json!(true);
    }
    operation["requestBody"] = request;
    let names: &[&str] = match action {
        "delete" | "deletecollection" => &[
            "dryRun",
            "gracePeriodSeconds",
            "ignoreStoreReadErrorWithClusterBreakingPotential",
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
        "allowWatchBookmarks"
        | "force"
        | "ignoreStoreReadErrorWithClusterBreakingPotential"
        | "orphanDependents"
        | "sendInitialEvents"
        | "watch" => "boolean",
        "gracePeriodSeconds" | "limit" | "timeoutSeconds" => "integer",
        _ => "string",
    };
    json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
}

fn named_parameters(resource: &Resource) -> Value {
    let mut parameters = vec![path_parameter("name")];
    if resource.namespaced {
        parameters.push(path_parameter("namespace"));
    }
    Value::Array(parameters)
}

fn path_parameter(name: &str) -> Value {
    let schema = json!({"type": "string", "uniqueItems": true});
    json!({"name": name, "in": "path", "required": true, "schema": schema})
}
