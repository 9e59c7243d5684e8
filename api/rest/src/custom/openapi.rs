//! OpenAPI of defined kinds: paths as of any kind, types from their definitions, with
//! the definitions' descriptions.

use nautilus_machinery::openapi;
use nautilus_machinery::resource::{Index, Resource};
use nautilus_machinery::schema::OBJECT_META;
use serde_json::{Map, Value, json};

/// The name of a kind's type: the group's parts in reverse, version and kind.
fn type_name(resource: &Resource) -> String {
    let mut parts: Vec<&str> = resource.group.split('.').collect();
    parts.reverse();
    format!("{}.{}.{}", parts.join("."), resource.version, resource.kind)
}

/// The document of a group and version of defined kinds; `None` if a built-in kind is in it,
/// or none is defined.
pub(crate) fn document(kinds: &Index, group: &str, version: &str) -> Option<Value> {
    let own: Vec<&Resource> = kinds
        .all()
        .iter()
        .map(AsRef::as_ref)
        .filter(|kind| kind.group == group && kind.version == version)
        .collect();
    if own.is_empty() || own.iter().any(|kind| kind.defined.is_none()) {
        return None;
    }
    // The machinery writes paths over the kinds with the names of their types.
    let named = own
        .iter()
        .map(|kind| {
            std::sync::Arc::new(Resource {
                group: kind.group.clone(),
                version: kind.version.clone(),
                kind: kind.kind.clone(),
                plural: kind.plural.clone(),
                singular: kind.singular.clone(),
                namespaced: kind.namespaced,
                verbs: kind.verbs.clone(),
                subresources: kind
                    .subresources
                    .iter()
                    .map(|sub| {
                        let mut sub = sub.clone();
                        if sub.schema.is_empty() {
                            sub.schema = type_name(kind);
                        }
                        sub
                    })
                    .collect(),
                schema: type_name(kind),
                ..Resource::default()
            })
        })
        .collect();
    let mut document = openapi::document(&Index::new(named), group, version)?;
    // By this clients know what patches may be sent: the types of defined kinds do not
    // say how a strategic merge would go.
    for path in document["paths"].as_object_mut().into_iter().flatten() {
        let content = path.1.pointer_mut("/patch/requestBody/content");
        if let Some(content) = content.and_then(Value::as_object_mut) {
            content.shift_remove("application/strategic-merge-patch+json");
        }
    }
    for kind in own {
        let name = type_name(kind);
        let (object, list) = types(kind, &name);
        document["components"]["schemas"][&name] = object;
        document["components"]["schemas"][format!("{name}List")] = list;
    }
    Some(document)
}

/// The object's type and its list's.
fn types(kind: &Resource, name: &str) -> (Value, Value) {
    let gvk = |kind_name: &str| json!([{"group": kind.group, "version": kind.version, "kind": kind_name}]);
    let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let meta =
        "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";
    let api_version = json!({
        "type": "string",
        "description": format!("APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: {meta}#resources"),
    });
    let kind_field = json!({
        "type": "string",
        "description": format!("Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: {meta}#types-kinds"),
    });
    let mut object = kind
        .defined
        .as_ref()
        .map_or(Value::Null, |defined| defined.schema().0.clone());
    clean(&mut object);
    if !object.is_object() {
        object = json!({"type": "object"});
    }
    if !object["properties"].is_object() {
        object["properties"] = Value::Object(Map::new());
    }
    object["properties"]["apiVersion"] = api_version.clone();
    object["properties"]["kind"] = kind_field.clone();
    object["properties"]["metadata"] = json!({
        "description": format!("Standard object's metadata. More info: {meta}#metadata"),
        "allOf": [reference(OBJECT_META)],
    });
    object["x-kubernetes-group-version-kind"] = gvk(&kind.kind);
    let list = json!({
        "description": format!("{} is a list of {}", kind.list_kind(), kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": api_version,
            "items": {
                "description": format!("List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", kind.plural),
                "type": "array",
                "items": reference(name),
            },
            "kind": kind_field,
            "metadata": {
                "description": format!("Standard list metadata. More info: {meta}#types-kinds"),
                "allOf": [reference("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta")],
            },
        },
        "x-kubernetes-group-version-kind": gvk(&kind.list_kind()),
    });
    (object, list)
}

/// What a definition's schema says as OpenAPI: int-or-string has no type of its own.
fn clean(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else {
        return;
    };
    fields.retain(|_, value| !value.is_null());
    for (key, value) in fields.iter_mut() {
        match key.as_str() {
            "properties" => {
                for (_, inner) in value.as_object_mut().into_iter().flatten() {
                    clean(inner);
                }
            }
            "items" | "additionalProperties" | "not" => clean(value),
            "allOf" | "anyOf" | "oneOf" => {
                for inner in value.as_array_mut().into_iter().flatten() {
                    clean(inner);
                }
            }
            _ => {}
        }
    }
}
