//! Kinds that definitions define.

use std::time::Duration;

use nautilus_machine::types::KeyRange;
use nautilus_machine::{Kv as _, RangeRequest};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::world::{World, parts, within};

pub(crate) const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub(crate) const WIDGETS: &str = "/apis/example.org/v1/namespaces/default/widgets";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
pub(crate) const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

pub(crate) fn definition() -> Value {
    let schema = json!({"openAPIV3Schema": {
        "type": "object",
        "description": "A thing that is wound.",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["size"],
                "properties": {
                    "size": {"type": "integer", "minimum": 1, "description": "How large it is."},
                    "colour": {"type": "string", "default": "blue", "enum": ["blue", "red"]},
                    "replicas": {"type": "integer"},
                    "parts": {
                        "type": "array", "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {
                            "type": "object", "required": ["name"],
                            "properties": {
                                "name": {"type": "string"},
                                "count": {"type": "integer"},
                            },
                        },
                    },
                },
                "x-kubernetes-validations": [
                    {"rule": "self.size < 100", "message": "too large"},
                    {"rule": "self.size >= oldSelf.size", "messageExpression": "oldSelf.size > 4 ? 'shrinks from more than 4' : 'shrinks'"},
                ],
            },
            "status": {
                "type": "object",
                "properties": {"replicas": {"type": "integer"}, "phase": {"type": "string"}},
            },
        },
    }});
    let version = |name: &str, storage: bool| {
        json!({
            "name": name, "served": true, "storage": storage, "schema": schema,
            "subresources": {
                "status": {},
                "scale": {
                    "specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas",
                },
            },
            "additionalPrinterColumns": [
                {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            ],
            "selectableFields": [{"jsonPath": ".spec.colour"}],
        })
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.org"},
        "spec": {
            "group": "example.org",
            "scope": "Namespaced",
            "names": {
                "plural": "widgets", "kind": "Widget", "shortNames": ["wd"],
                "categories": ["all"],
            },
            "versions": [version("v1", true), version("v1beta1", false)],
        },
    })
}

pub(crate) fn widget(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "example.org/v1", "kind": "Widget",
        "metadata": {"name": name}, "spec": spec,
    })
}

/// A world whose leader looks after definitions, with the one of widgets.
pub(crate) struct Workshop {
    pub(crate) world: World,
    stop: CancellationToken,
}

impl Workshop {
    pub(crate) async fn open() -> Self {
        let world = World::start().await;
        world.kv.lead(1, true);
        let stop = CancellationToken::new();
        tokio::spawn(nautilus_rest::run_controllers(
            world.context.clone(),
            6443,
            stop.clone(),
        ));
        let (status, made) = world.call(Method::POST, DEFINITIONS, &definition()).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        let served = async {
            while world.get(WIDGETS).await.0 != StatusCode::OK {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within(served).await;
        Self { world, stop }
    }

    async fn make(&self, name: &str, spec: &Value) -> Value {
        let object = widget(name, spec);
        let (status, made) = self.world.call(Method::POST, WIDGETS, &object).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        made
    }

    async fn patch(&self, name: &str, media: &str, body: &Value) -> (StatusCode, Value) {
        let path = format!("{WIDGETS}/{name}?fieldManager=test");
        parts(
            self.world
                .send(Method::PATCH, &path, media, body.to_string())
                .await,
        )
        .await
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn a_definition_is_established_and_its_kind_discovered() {
    let shop = Workshop::open().await;
    let (_, made) = shop
        .world
        .get(&format!("{DEFINITIONS}/widgets.example.org"))
        .await;
    let conditions = made["status"]["conditions"].as_array().unwrap();
    let of = |kind: &str| conditions.iter().find(|own| own["type"] == kind).unwrap();
    assert_eq!(of("NamesAccepted")["reason"], "NoConflicts");
    assert_eq!(of("Established")["reason"], "InitialNamesAccepted");
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(made["status"]["acceptedNames"]["singular"], "widget");
    assert_eq!(made["status"]["acceptedNames"]["listKind"], "WidgetList");
    let (_, group) = shop.world.get("/apis/example.org").await;
    assert_eq!(group["preferredVersion"]["version"], "v1");
    assert_eq!(group["versions"][1]["version"], "v1beta1");
    let (_, list) = shop.world.get("/apis/example.org/v1").await;
    let names: Vec<&Value> = list["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|own| &own["name"])
        .collect();
    assert_eq!(names, ["widgets", "widgets/status", "widgets/scale"]);
    assert_eq!(list["resources"][0]["shortNames"], json!(["wd"]));
    let (_, index) = shop.world.get("/openapi/v3").await;
    let link = index["paths"]["apis/example.org/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    let (status, document) = shop.world.get(link).await;
    assert_eq!(status, StatusCode::OK);
    let own = &document["components"]["schemas"]["org.example.v1.Widget"];
    assert_eq!(own["description"], "A thing that is wound.");
    let size = &own["properties"]["spec"]["properties"]["size"];
    assert_eq!(size["description"], "How large it is.");
    let path = "/apis/example.org/v1/namespaces/{namespace}/widgets/{name}";
    let patches = &document["paths"][path]["patch"]["requestBody"]["content"];
    assert!(patches[MERGE].is_object());
    assert!(patches[STRATEGIC].is_null());
    let (_, v2) = shop.world.get("/openapi/v2").await;
    assert!(v2["definitions"]["org.example.v1.Widget"].is_object());
    assert!(v2["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
}

#[tokio::test]
async fn objects_are_filled_in_checked_and_kept() {
    let shop = Workshop::open().await;
    let made = shop.make("a", &json!({"size": 3, "unknown": 1})).await;
    assert_eq!(made["spec"], json!({"size": 3, "colour": "blue"}));
    assert_eq!(made["metadata"]["generation"], 1);
    assert!(made["metadata"]["uid"].is_string());

    let unknown = widget("b", &json!({"size": 3, "unknown": 1}));
    let strict = format!("{WIDGETS}?fieldValidation=Strict");
    let (status, refused) = shop.world.call(Method::POST, &strict, &unknown).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
    assert_eq!(
        refused["message"],
        "Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: unknown field \"spec.unknown\""
    );
    let bad = widget("b", &json!({"size": 0, "colour": "green"}));
    let (status, refused) = shop.world.call(Method::POST, WIDGETS, &bad).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    for cause in [
        "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
        "spec.colour: Unsupported value: \"green\": supported values: \"blue\", \"red\"",
    ] {
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains(cause), "{message}");
    }
    let large = widget("b", &json!({"size": 200}));
    let (status, refused) = shop.world.call(Method::POST, WIDGETS, &large).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        refused["message"],
        "Widget.example.org \"b\" is invalid: spec: Invalid value: too large"
    );
    let (status, changed) = shop.patch("a", MERGE, &json!({"spec": {"size": 5}})).await;
    assert_eq!(status, StatusCode::OK, "{changed}");
    assert_eq!(changed["metadata"]["generation"], 2);
    let (status, refused) = shop.patch("a", MERGE, &json!({"spec": {"size": 4}})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("shrinks from more than 4"),
        "{refused}"
    );
    let (status, refused) = shop
        .patch("a", STRATEGIC, &json!({"spec": {"size": 6}}))
        .await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{refused}");
}

#[tokio::test]
async fn objects_are_listed_as_tables_by_selectors_and_in_every_version() {
    let shop = Workshop::open().await;
    shop.make("a", &json!({"size": 3})).await;
    shop.make("b", &json!({"size": 4, "colour": "red"})).await;
    let (status, table) = shop.world.get_as(WIDGETS, TABLE).await;
    assert_eq!(status, StatusCode::OK);
    let names: Vec<&Value> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|own| &own["name"])
        .collect();
    assert_eq!(names, ["Name", "Size", "Age"]);
    assert_eq!(table["rows"][1]["cells"][0], "b");
    assert_eq!(table["rows"][1]["cells"][1], 4);
    let red = format!("{WIDGETS}?fieldSelector=spec.colour%3Dred");
    let (_, list) = shop.world.get(&red).await;
    assert_eq!(list["kind"], "WidgetList");
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(list["items"][0]["metadata"]["name"], "b");
    let beta = WIDGETS.replace("/v1/", "/v1beta1/");
    let (_, list) = shop.world.get(&beta).await;
    assert_eq!(list["apiVersion"], "example.org/v1beta1");
    assert_eq!(list["items"][0]["apiVersion"], "example.org/v1beta1");
    assert_eq!(list["items"][0]["spec"]["size"], 3);
    let mut watch = shop.world.watch(&format!("{beta}?watch=true")).await;
    let event = watch.next().await.unwrap();
    assert_eq!(event["object"]["apiVersion"], "example.org/v1beta1");
}

#[tokio::test]
async fn objects_of_every_version_are_stored_in_one() {
    let shop = Workshop::open().await;
    let beta = WIDGETS.replace("/v1/", "/v1beta1/");
    let mut object = widget("a", &json!({"size": 3}));
    object["apiVersion"] = json!("example.org/v1beta1");
    let (status, made) = shop.world.call(Method::POST, &beta, &object).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(made["apiVersion"], "example.org/v1beta1");
    let all = RangeRequest::newest(KeyRange::prefix("/nautilus/registry/"));
    let rows = shop.world.kv.range(&all).unwrap().kvs;
    let stored: Vec<Value> = rows
        .iter()
        .filter_map(|row| serde_json::from_slice(&row.value).ok())
        .filter(|object: &Value| object["kind"] == "Widget")
        .collect();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0]["apiVersion"], "example.org/v1");
}

#[tokio::test]
async fn status_and_scale_are_written_apart() {
    let shop = Workshop::open().await;
    let mut object = shop.make("a", &json!({"size": 3, "replicas": 2})).await;
    object["status"] = json!({"replicas": 1, "phase": "Up"});
    object["spec"]["size"] = json!(9);
    let (status, kept) = shop
        .world
        .call(Method::PUT, &format!("{WIDGETS}/a/status"), &object)
        .await;
    assert_eq!(status, StatusCode::OK, "{kept}");
    assert_eq!(kept["spec"]["size"], 3);
    assert_eq!(kept["status"]["phase"], "Up");
    assert_eq!(kept["metadata"]["generation"], 1);
    let (status, mut scale) = shop.world.get(&format!("{WIDGETS}/a/scale")).await;
    assert_eq!(status, StatusCode::OK, "{scale}");
    assert_eq!(scale["kind"], "Scale");
    assert_eq!(scale["spec"]["replicas"], 2);
    assert_eq!(scale["status"]["replicas"], 1);
    scale["spec"]["replicas"] = json!(7);
    let (status, scaled) = shop
        .world
        .call(Method::PUT, &format!("{WIDGETS}/a/scale"), &scale)
        .await;
    assert_eq!(status, StatusCode::OK, "{scaled}");
    let (_, read) = shop.world.get(&format!("{WIDGETS}/a")).await;
    assert_eq!(read["spec"]["replicas"], 7);
    assert_eq!(read["status"]["phase"], "Up");
}

#[tokio::test]
async fn appliers_own_entries_of_lists_by_their_keys() {
    let shop = Workshop::open().await;
    let of = |parts: Value| widget("a", &json!({"size": 3, "parts": parts}));
    let apply = async |manager: &str, body: &Value| {
        let path = format!("{WIDGETS}/a?fieldManager={manager}");
        let sent = shop
            .world
            .send(Method::PATCH, &path, APPLY, body.to_string());
        parts(sent.await).await
    };
    let (status, made) = apply("one", &of(json!([{"name": "x", "count": 1}]))).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let mut other = of(json!([{"name": "y", "count": 2}]));
    other["spec"].as_object_mut().unwrap().remove("size");
    let (status, both) = apply("two", &other).await;
    assert_eq!(status, StatusCode::OK, "{both}");
    assert_eq!(both["spec"]["parts"].as_array().unwrap().len(), 2);
    let (status, conflict) = apply("two", &of(json!([{"name": "x", "count": 5}]))).await;
    assert_eq!(status, StatusCode::CONFLICT, "{conflict}");
    assert!(
        conflict["message"]
            .as_str()
            .unwrap()
            .contains(".spec.parts[name=\"x\"].count"),
        "{conflict}"
    );
    let (status, less) = apply("one", &of(json!([]))).await;
    assert_eq!(status, StatusCode::OK, "{less}");
    assert_eq!(less["spec"]["parts"], json!([{"name": "y", "count": 2}]));
}

#[tokio::test]
async fn what_is_wrong_with_a_definition_refuses_it() {
    let world = World::start().await;
    let mut wrong = definition();
    wrong["metadata"]["name"] = json!("other.example.org");
    wrong["spec"]["versions"][1]["storage"] = json!(true);
    let (status, refused) = world.call(Method::POST, DEFINITIONS, &wrong).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    let text = refused["message"].as_str().unwrap();
    assert!(
        text.contains("must be spec.names.plural+\".\"+spec.group"),
        "{text}"
    );
    assert!(
        text.contains("must have exactly one version marked as storage version"),
        "{text}"
    );
}

#[tokio::test]
async fn a_definition_goes_after_its_objects() {
    let shop = Workshop::open().await;
    let mut held = widget("held", &json!({"size": 3}));
    held["metadata"]["finalizers"] = json!(["example.org/hold"]);
    let (status, made) = shop.world.call(Method::POST, WIDGETS, &held).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    shop.make("free", &json!({"size": 3})).await;
    let path = format!("{DEFINITIONS}/widgets.example.org");
    let (status, going) = shop.world.delete(&path).await;
    assert_eq!(status, StatusCode::OK, "{going}");
    let alone = async {
        loop {
            let (_, list) = shop.world.get(WIDGETS).await;
            let left = list["items"].as_array().unwrap();
            if left.len() == 1 && !left[0]["metadata"]["deletionTimestamp"].is_null() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(alone).await;
    let (status, going) = shop.world.get(&path).await;
    assert_eq!(status, StatusCode::OK, "{going}");
    let late = widget("late", &json!({"size": 3}));
    let refused = shop.world.call(Method::POST, WIDGETS, &late);
    assert_eq!(refused.await.0, StatusCode::METHOD_NOT_ALLOWED);
    let (status, freed) = shop
        .patch("held", MERGE, &json!({"metadata": {"finalizers": null}}))
        .await;
    assert_eq!(status, StatusCode::OK, "{freed}");
    let gone = async {
        while shop.world.get(&path).await.0 != StatusCode::NOT_FOUND
            || shop.world.get(WIDGETS).await.0 != StatusCode::NOT_FOUND
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(gone).await;
}
