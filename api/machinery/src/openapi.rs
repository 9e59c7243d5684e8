//! OpenAPI v3 documents, from the schema and the table of kinds: an index, and
//! one document for each group and version. [`v2`] makes the older form of them,
//! [`gnostic`] and [`gnostic_v3`] write them in protobuf.
//!
//! Pure: the same kinds give the same bytes. Documents state paths (with the query
//! parameters that clients look for), types, and Kubernetes' extensions; descriptions
//! come from the crate of Kubernetes' types ([`descriptions`]).

pub mod descriptions;
pub mod gnostic;
pub mod gnostic_v3;
mod paths;
mod types;
pub mod v2;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::discovery;
use crate::resource::{Index, Resource, Subresource};
use crate::schema;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const REFERENCE: &str = "#/components/schemas/";

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
    let mut own = Map::new();
    for resource in &served {
        paths::add(&mut paths, resource);
        if resource.schema.is_empty() {
            types::add_dynamic(&mut own, resource);
        } else {
            wanted.insert(resource.schema.clone());
            if resource.has_verb("list") {
                wanted.insert(resource.list_schema());
            }
        }
        let bodies = resource.subresources.iter().filter(|sub| has_body(sub));
        wanted.extend(bodies.map(|sub| sub.schema.clone()));
    }
    for name in [
        "DeleteOptions",
        "ListMeta",
        "ObjectMeta",
        "Status",
        "WatchEvent",
    ] {
        wanted.insert(format!("{META}{name}"));
    }
    paths.sort_keys();
    let mut schemas = types::schemas(wanted, (group, version));
    schemas.append(&mut own);
    schemas.sort_keys();
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": schema::release()},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

/// The name of a kind's type: of one made at run time its group from the last part to
/// the first, its version and kind.
pub fn model_name(resource: &Resource) -> String {
    if !resource.schema.is_empty() {
        return resource.schema.clone();
    }
    let mut parts: Vec<&str> = resource.group.rsplit('.').collect();
    parts.extend([resource.version.as_str(), resource.kind.as_str()]);
    parts.join(".")
}

/// The name of the type of a kind's lists.
fn list_model_name(resource: &Resource) -> String {
    format!("{}List", model_name(resource))
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

    #[test]
    fn a_kind_made_at_run_time_has_its_types_in_both_versions() {
        let schema = json!({
            "type": "object", "required": ["spec"],
            "properties": {
                "spec": {"type": "object", "properties": {
                    "size": {"type": "integer", "minimum": 1, "x-kubernetes-validations": [{"rule": "self > 0"}]},
                    "any": {"x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {}}},
                    "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                }},
            },
        });
        let resource = Resource {
            group: "stable.example.org".to_owned(),
            version: "v1".to_owned(),
            kind: "Widget".to_owned(),
            plural: "widgets".to_owned(),
            verbs: vec!["get".to_owned(), "list".to_owned(), "patch".to_owned()],
            openapi: Some(std::sync::Arc::new(schema)),
            ..Resource::default()
        };
        let kinds = Index::new(vec![std::sync::Arc::new(resource)]);
        let v3 = document(&kinds, "stable.example.org", "v1").expect("served");
        let widget = &v3["components"]["schemas"]["org.example.stable.v1.Widget"];
        assert_eq!(
            widget["properties"]["spec"]["properties"]["size"]["minimum"],
            1
        );
        assert!(widget["properties"]["metadata"].is_object());
        let patch = &v3["paths"]["/apis/stable.example.org/v1/namespaces/{namespace}/widgets/{name}"]
            ["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Widget");
        let v2 = v2::document(&kinds);
        let spec = &v2["definitions"]["org.example.stable.v1.Widget"]["properties"]["spec"];
        assert_eq!(
            spec["properties"].to_string(),
            r#"{"size":{"type":"integer"},"any":{"x-kubernetes-preserve-unknown-fields":true},"port":{"x-kubernetes-int-or-string":true}}"#
        );
        assert!(gnostic::document(&v2).is_ok());
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
