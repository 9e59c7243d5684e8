//! OpenAPI v3 documents, from the schema and the table of kinds: one document for each
//! group and version. [`v2`] makes the older form of them, [`gnostic`] and [`gnostic_v3`]
//! write them in protobuf.
//!
//! Pure: the same kinds give the same bytes. Documents state paths (with the query
//! parameters that clients look for), types, and Kubernetes' extensions; descriptions
//! come from the crate of Kubernetes' types ([`descriptions`]).

mod defined;
pub mod descriptions;
pub mod gnostic;
pub mod gnostic_v3;
mod paths;
mod types;
pub mod v2;

use std::collections::BTreeSet;

use defined::Form;
use serde_json::{Map, Value, json};

use crate::resource::{Index, Resource, Subresource};
use crate::schema;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const REFERENCE: &str = "#/components/schemas/";
const DEFINITIONS: &str = "#/definitions/";

/// `api/v1`, or `apis/<group>/<version>`: the name of a document.
pub fn document_name(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
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
    let mut own = Map::new();
    for resource in &served {
        paths::add(&mut paths, resource);
        defined::add(&mut own, resource, Form::V3);
        if resource.defined.is_none() {
            wanted.insert(resource.schema.clone());
            if resource.has_verb("list") {
                wanted.insert(resource.list_schema());
            }
        }
        let bodies = resource.subresources.iter().filter(|sub| has_body(sub));
        wanted.extend(bodies.map(|sub| sub.schema.clone()));
    }
    for name in ["DeleteOptions", "ListMeta", "ObjectMeta", "Status"] {
        wanted.insert(format!("{META}{name}"));
    }
    let is_built_in = served.iter().any(|resource| resource.defined.is_none());
    if is_built_in {
        wanted.insert(format!("{META}WatchEvent"));
    }
    paths.sort_keys();
    let mut schemas = types::schemas(wanted, is_built_in.then_some((group, version)));
    schemas.append(&mut own);
    schemas.sort_keys();
    let (title, release) = match is_built_in {
        true => ("Kubernetes", schema::release()),
        false => ("Kubernetes CRD Swagger", "v0.1.0"),
    };
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": title, "version": release},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

/// The name of a kind's type.
fn model_name(resource: &Resource) -> String {
    match resource.schema.as_str() {
        "" => defined_name(resource, &resource.kind),
        name => name.to_owned(),
    }
}

/// The name of the type of a kind's lists.
fn list_model_name(resource: &Resource) -> String {
    match resource.schema.as_str() {
        "" => defined_name(resource, &resource.list_kind()),
        _ => resource.list_schema(),
    }
}

/// The group from the last part to the first, the version, and the kind.
fn defined_name(resource: &Resource, kind: &str) -> String {
    let mut parts: Vec<&str> = resource.group.rsplit('.').collect();
    parts.extend([resource.version.as_str(), kind]);
    parts.join(".")
}

/// Connections have options, in the query, and no bodies.
fn has_body(sub: &Subresource) -> bool {
    !sub.kind.ends_with("Options")
}

fn kind_of(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "kind": kind, "version": version})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery;
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

    fn without_text(value: &Value) -> Value {
        let map = value.as_object().into_iter().flatten();
        map.filter(|(key, _)| *key != "description")
            .map(|(key, inner)| (key.clone(), inner.clone()))
            .collect::<Map<String, Value>>()
            .into()
    }

    #[test]
    fn a_keyed_list_states_its_keys() {
        let document = document(built_in(), "", "v1").expect("served");
        let containers = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]
            ["containers"];
        assert_eq!(
            without_text(containers).to_string(),
            r##"{"type":"array","items":{"$ref":"#/components/schemas/io.k8s.api.core.v1.Container"},"x-kubernetes-list-map-keys":["name"],"x-kubernetes-list-type":"map","x-kubernetes-patch-merge-key":"name","x-kubernetes-patch-strategy":"merge"}"##
        );
    }
}
