//! Versions of a defined kind that a webhook converts into each other: gears count their
//! teeth from one in `v1`, and from zero in `v1beta1`, in which they are stored.

use std::sync::Arc;
use std::time::Duration;

use axum::routing::post;
use axum::{Json, Router};
use nautilus_machine::types::KeyRange;
use nautilus_machine::{Kv as _, RangeRequest};
use parking_lot::Mutex;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::definitions::{DEFINITIONS, MERGE, WIDGETS, Workshop, definition, widget};
use crate::webhooks::listen;
use crate::world::{World, text, within};

const NEW: &str = "/apis/example.org/v1/namespaces/default/gears";
const OLD: &str = "/apis/example.org/v1beta1/namespaces/default/gears";

/// How many objects each review asked about.
type Reviews = Arc<Mutex<Vec<usize>>>;

/// A webhook's answer to a review.
fn convert(review: &Value) -> Value {
    let request = &review["request"];
    let wanted = text(&request["desiredAPIVersion"]);
    let step = if wanted == "example.org/v1" { 1 } else { -1 };
    let objects = request["objects"].as_array().unwrap();
    let mut converted = Vec::new();
    for object in objects {
        let name = text(&object["metadata"]["name"]);
        if name == "broken" {
            return json!({
                "uid": request["uid"],
                "result": {"status": "Failed", "message": "it has no teeth"},
            });
        }
        let mut object = object.clone();
        object["apiVersion"] = json!(wanted);
        object["spec"]["size"] = json!(object["spec"]["size"].as_i64().unwrap() + step);
        object["metadata"]["generation"] = json!(99);
        object["metadata"]["labels"] = json!({"in": wanted.replace('/', "_")});
        if name == "renamed" {
            object["metadata"]["name"] = json!("other");
        }
        converted.push(object);
    }
    json!({
        "uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": converted,
    })
}

/// A shop with gears and their webhook.
async fn open() -> (Workshop, Reviews) {
    let shop = Workshop::open().await;
    let reviews = Reviews::default();
    let seen = reviews.clone();
    let answer = move |Json(review): Json<Value>| {
        let objects = review["request"]["objects"].as_array().map_or(0, Vec::len);
        seen.lock().push(objects);
        let response = convert(&review);
        async move {
            Json(json!({
                "kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
                "response": response,
            }))
        }
    };
    let router = Router::new().route("/convert", post(answer));
    let (port, ca) = listen(&shop.world, router).await;
    let mut gears = definition();
    gears["metadata"]["name"] = json!("gears.example.org");
    gears["spec"]["names"] = json!({"plural": "gears", "kind": "Gear"});
    // Objects are stored in the version that is not preferred.
    gears["spec"]["versions"][0]["storage"] = json!(false);
    gears["spec"]["versions"][1]["storage"] = json!(true);
    gears["spec"]["conversion"] = json!({
        "strategy": "Webhook",
        "webhook": {
            "clientConfig": {"url": format!("https://127.0.0.1:{port}/convert"), "caBundle": ca},
            "conversionReviewVersions": ["v1"],
        },
    });
    let (status, made) = shop.world.call(Method::POST, DEFINITIONS, &gears).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let served = async {
        while shop.world.get(OLD).await.0 != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(served).await;
    (shop, reviews)
}

/// A gear of a path's version.
fn gear(path: &str, name: &str, size: i64) -> Value {
    let mut gear = widget(name, &json!({"size": size}));
    gear["kind"] = json!("Gear");
    gear["apiVersion"] = json!(if path == NEW {
        "example.org/v1"
    } else {
        "example.org/v1beta1"
    });
    gear
}

async fn make(world: &World, path: &str, name: &str, size: i64) -> Value {
    let (status, made) = world
        .call(Method::POST, path, &gear(path, name, size))
        .await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    made
}

async fn size(world: &World, path: &str, name: &str) -> Value {
    world.get(&format!("{path}/{name}")).await.1["spec"]["size"].clone()
}

#[tokio::test]
async fn every_version_is_read_and_written_through_the_webhook() {
    let (shop, _) = open().await;
    let world = &shop.world;
    let made = make(world, NEW, "a", 5).await;
    assert_eq!(
        (&made["spec"]["size"], &made["apiVersion"]),
        (&json!(5), &json!("example.org/v1"))
    );
    let range = KeyRange::prefix("/nautilus/registry/example.org/gears/");
    let rows = world.kv.range(&RangeRequest::newest(range)).unwrap().kvs;
    let stored: Value = serde_json::from_slice(&rows[0].value).unwrap();
    assert_eq!(stored["apiVersion"], "example.org/v1beta1");
    assert_eq!(stored["spec"]["size"], 4);
    assert_eq!(size(world, OLD, "a").await, 4);
    let (_, read) = world.get(&format!("{NEW}/a")).await;
    assert_eq!(read["spec"]["size"], 5);
    // Labels are the webhook's to change, the rest of the metadata is not.
    assert_eq!(read["metadata"]["labels"], json!({"in": "example.org_v1"}));
    assert_eq!(read["metadata"]["generation"], 1);
    assert_eq!(read["metadata"]["uid"], made["metadata"]["uid"]);

    let mut events = world.watch(&format!("{NEW}?watch=true")).await;
    let event = events.next().await.expect("an event");
    assert_eq!(
        (&event["type"], &event["object"]["spec"]["size"]),
        (&json!("ADDED"), &json!(5))
    );
    let patch = json!({"spec": {"size": 8}}).to_string();
    let patched = world
        .send(Method::PATCH, &format!("{OLD}/a"), MERGE, patch)
        .await;
    assert_eq!(patched.status(), StatusCode::OK);
    let event = events.next().await.expect("an event");
    assert_eq!(
        (&event["type"], &event["object"]["spec"]["size"]),
        (&json!("MODIFIED"), &json!(9))
    );
    // Rules of a version are those of its own form: 8 would shrink from 9.
    let patch = json!({"spec": {"size": 8}}).to_string();
    let refused = world
        .send(Method::PATCH, &format!("{NEW}/a"), MERGE, patch)
        .await;
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);

    assert_eq!(world.delete(&format!("{NEW}/a")).await.0, StatusCode::OK);
    let event = events.next().await.expect("an event");
    assert_eq!(
        (&event["type"], &event["object"]["spec"]["size"]),
        (&json!("DELETED"), &json!(9))
    );
}

#[tokio::test]
async fn a_list_is_converted_at_once() {
    let (shop, reviews) = open().await;
    for name in ["a", "b", "c"] {
        make(&shop.world, OLD, name, 3).await;
    }
    assert_eq!(*reviews.lock(), [0; 0]);
    let (status, list) = shop.world.get(NEW).await;
    assert_eq!(status, StatusCode::OK, "{list}");
    let sizes: Vec<&Value> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["spec"]["size"])
        .collect();
    assert_eq!(sizes, [4, 4, 4]);
    assert_eq!(*reviews.lock(), [3]);
}

#[tokio::test]
async fn what_a_webhook_fails_at_is_told_in_its_words() {
    let (shop, _) = open().await;
    let world = &shop.world;
    let of = "conversion webhook for example.org/v1beta1, Kind=Gear";
    for (name, why) in [
        ("broken", "failed: it has no teeth"),
        (
            "renamed",
            "returned invalid converted object at index 0: must have the same name: renamed != other",
        ),
    ] {
        make(world, OLD, name, 3).await;
        let path = format!("{NEW}/{name}");
        let patch = json!({"spec": {"size": 4}}).to_string();
        for (status, refused) in [
            world.get(&path).await,
            world.get(NEW).await,
            crate::world::parts(world.send(Method::PATCH, &path, MERGE, patch).await).await,
            world.delete(&path).await,
        ] {
            assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{refused}");
            assert_eq!(refused["message"], format!("{of} {why}"));
        }
        let (status, gone) = world.delete(&format!("{OLD}/{name}")).await;
        assert_eq!(status, StatusCode::OK, "{gone}");
    }
    let path = format!("{DEFINITIONS}/gears.example.org");
    make(world, OLD, "broken", 3).await;
    assert_eq!(world.delete(&path).await.0, StatusCode::OK);
    let gone = async {
        while world.get(&path).await.0 != StatusCode::NOT_FOUND {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(gone).await;
    assert_eq!(world.get(WIDGETS).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_name_that_is_taken_is_told_whatever_the_version() {
    let (shop, _) = open().await;
    make(&shop.world, NEW, "a", 5).await;
    for path in [NEW, OLD] {
        let (status, again) = shop
            .world
            .call(Method::POST, path, &gear(path, "a", 5))
            .await;
        assert_eq!(status, StatusCode::CONFLICT, "{again}");
        assert_eq!(again["reason"], "AlreadyExists");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_writes_what_is_stored_in_the_present_version() {
    let (shop, _) = open().await;
    let world = &shop.world;
    for name in ["a", "b"] {
        make(world, NEW, name, 5).await;
    }
    let stored = || {
        let range = KeyRange::prefix("/nautilus/registry/example.org/gears/");
        let rows = world.kv.range(&RangeRequest::newest(range)).unwrap().kvs;
        let versions = rows.iter().map(|row| {
            let object: Value = serde_json::from_slice(&row.value).unwrap();
            object["apiVersion"].as_str().unwrap().to_owned()
        });
        versions.collect::<Vec<_>>()
    };
    assert_eq!(stored(), ["example.org/v1beta1"; 2]);
    let path = format!("{DEFINITIONS}/gears.example.org");
    let turned = json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": true},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": false},
    ]);
    let media = "application/json-patch+json";
    let turned = world
        .send(Method::PATCH, &path, media, turned.to_string())
        .await;
    assert_eq!(turned.status(), StatusCode::OK);
    // The kinds are made anew by their watch.
    let follows = async {
        while make_in(world, "c").await != "example.org/v1" {
            world.delete(&format!("{NEW}/c")).await;
        }
    };
    within(follows).await;

    let migrations = "/apis/storagemigration.k8s.io/v1/storageversionmigrations";
    let migration = json!({
        "metadata": {"name": "gears"},
        "spec": {"resource": {"group": "example.org", "resource": "gears"}},
    });
    let (status, made) = world.call(Method::POST, migrations, &migration).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let ends = async {
        loop {
            let (_, seen) = world.get(&format!("{migrations}/gears")).await;
            let conditions = seen["status"]["conditions"].as_array().cloned();
            if let Some(end) = conditions
                .into_iter()
                .flatten()
                .find(|own| own["type"] != "Running")
            {
                return (end, seen["status"]["resourceVersion"].clone());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (end, noted) = within(ends).await;
    assert_eq!(
        (&end["type"], &end["reason"]),
        (
            &json!("Succeeded"),
            &json!("StorageVersionMigrationSucceeded")
        )
    );
    assert!(noted.is_string(), "{noted}");
    assert_eq!(stored(), ["example.org/v1"; 3]);
    assert_eq!(size(world, NEW, "a").await, 5);
}

/// The version in which a new gear is stored.
async fn make_in(world: &World, name: &str) -> String {
    make(world, NEW, name, 1).await;
    let key = format!("/nautilus/registry/example.org/gears/default/{name}");
    let range = KeyRange::single(key);
    let rows = world.kv.range(&RangeRequest::newest(range)).unwrap().kvs;
    let object: Value = serde_json::from_slice(&rows[0].value).unwrap();
    object["apiVersion"].as_str().unwrap().to_owned()
}
