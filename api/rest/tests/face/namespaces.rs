//! Namespaces: what they need to be there, and how they go.

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::world::World;

async fn make_namespace(world: &World, name: &str) {
    let object = json!({ "metadata": { "name": name } });
    let (status, answer) = world
        .call(Method::POST, "/api/v1/namespaces", &object)
        .await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
}

#[tokio::test]
async fn nothing_is_created_in_a_missing_namespace() {
    let world = World::start().await;
    let object = json!({ "metadata": { "name": "settings" } });
    let path = "/api/v1/namespaces/nowhere/configmaps";
    let (status, answer) = world.call(Method::POST, path, &object).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(answer["message"], "namespaces \"nowhere\" not found");
}

#[tokio::test]
async fn nothing_is_created_in_a_terminating_namespace() {
    let world = World::start().await;
    make_namespace(&world, "a").await;
    let (status, marked) = world.delete("/api/v1/namespaces/a").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(marked["status"]["phase"], "Terminating");
    let object = json!({ "metadata": { "name": "settings" } });
    let (status, answer) = world
        .call(Method::POST, "/api/v1/namespaces/a/configmaps", &object)
        .await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.ends_with("because it is being terminated"),
        "{message}"
    );
}

#[tokio::test]
async fn a_deleted_namespace_takes_its_objects_along() {
    let world = World::start().await;
    make_namespace(&world, "a").await;
    let object = json!({ "metadata": { "name": "settings" } });
    world
        .call(Method::POST, "/api/v1/namespaces/a/configmaps", &object)
        .await;
    world.delete("/api/v1/namespaces/a").await;
    let mut events = world
        .watch("/api/v1/namespaces?watch=true&fieldSelector=metadata.name%3Da")
        .await;
    assert_eq!(events.next_named().await.0, "ADDED");
    let stop = CancellationToken::new();
    let running = tokio::spawn(nautilus_rest::run_controllers(
        world.context.clone(),
        6443,
        stop.clone(),
    ));
    while events.next_named().await.0 != "DELETED" {}
    let (_, left) = world.get("/api/v1/namespaces/a/configmaps").await;
    assert_eq!(left["items"], json!([]));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn every_namespace_gets_its_default_account() {
    let world = World::start().await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(nautilus_rest::run_controllers(
        world.context.clone(),
        6443,
        stop.clone(),
    ));
    let mut events = world
        .watch("/api/v1/namespaces/a/serviceaccounts?watch=true")
        .await;
    make_namespace(&world, "a").await;
    assert_eq!(
        events.next_named().await,
        ("ADDED".to_owned(), "default".to_owned())
    );
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_fresh_quorum_has_the_api_as_a_service() {
    let world = World::start().await;
    let (status, service) = world
        .get("/api/v1/namespaces/default/services/kubernetes")
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(service["spec"]["ports"][0]["port"], 443);
}

#[tokio::test]
async fn a_new_leader_empties_what_the_old_one_left() {
    let world = World::start().await;
    make_namespace(&world, "a").await;
    world.kv.lead(2, false);
    let stop = CancellationToken::new();
    let running = tokio::spawn(nautilus_rest::run_controllers(
        world.context.clone(),
        6443,
        stop.clone(),
    ));
    world.delete("/api/v1/namespaces/a").await;
    let path = "/api/v1/namespaces?watch=true&fieldSelector=metadata.name%3Da";
    let mut events = world.watch(path).await;
    assert_eq!(events.next_named().await.0, "ADDED");
    world.kv.lead(3, true);
    while events.next_named().await.0 != "DELETED" {}
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_namespace_says_what_holds_it_and_waits_for_pods_first() {
    let world = World::start().await;
    make_namespace(&world, "a").await;
    let account = json!({ "metadata": { "name": "default" } });
    let path = "/api/v1/namespaces/a/serviceaccounts";
    world.call(Method::POST, path, &account).await;
    let pod = json!({
        "metadata": { "name": "p", "finalizers": ["example.org/hold"] },
        "spec": { "containers": [{ "name": "c", "image": "i" }] },
    });
    let (status, answer) = world
        .call(Method::POST, "/api/v1/namespaces/a/pods", &pod)
        .await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let settings = json!({ "metadata": { "name": "settings" } });
    let path = "/api/v1/namespaces/a/configmaps";
    world.call(Method::POST, path, &settings).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(nautilus_rest::run_controllers(
        world.context.clone(),
        6443,
        stop.clone(),
    ));
    let mut events = world
        .watch("/api/v1/namespaces?watch=true&fieldSelector=metadata.name%3Da")
        .await;
    world.delete("/api/v1/namespaces/a").await;
    loop {
        let event = events.next().await.unwrap();
        let conditions = &event["object"]["status"]["conditions"];
        if let Some(held) = conditions.get(4) {
            assert_eq!(held["type"], "NamespaceFinalizersRemaining");
            let message = held["message"].as_str().unwrap();
            assert!(message.ends_with("example.org/hold in 1 resource instances"));
            break;
        }
    }
    let (status, _) = world.get(&format!("{path}/settings")).await;
    assert_eq!(status, StatusCode::OK, "what guards a pod outlives it");
    let released = json!({ "metadata": { "finalizers": null } }).to_string();
    let pod = "/api/v1/namespaces/a/pods/p";
    let media = "application/merge-patch+json";
    world.send(Method::PATCH, pod, media, released).await;
    while events.next_named().await.0 != "DELETED" {}
    stop.cancel();
    running.await.unwrap();
}
