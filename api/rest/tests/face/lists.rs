//! Lists, pages, tables, encodings.

use nautilus_machine::Kv as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::{World, text};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("a list");
    items
        .iter()
        .map(|item| text(&item["metadata"]["name"]))
        .collect()
}

async fn world_with(count: usize) -> World {
    let world = World::start().await;
    for number in 0..count {
        world
            .config_map(&format!("map-{number}"), &json!({}), &json!({}))
            .await;
    }
    world
}

#[tokio::test]
async fn pages_of_one_list_show_one_revision_whatever_is_written_between() {
    let world = world_with(5).await;
    let (_, first) = world.get(&format!("{MAPS}?limit=2")).await;
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    world.config_map("map-2a", &json!({}), &json!({})).await;
    world.delete(&format!("{MAPS}/map-3")).await;
    let token = text(&first["metadata"]["continue"]);
    let (_, rest) = world
        .get(&format!("{MAPS}?limit=10&continue={token}"))
        .await;
    assert_eq!(names(&rest), ["map-2", "map-3", "map-4"]);
    assert_eq!(
        rest["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn a_token_of_a_compacted_list_expires_with_a_token_that_goes_on() {
    let world = world_with(4).await;
    let (_, first) = world.get(&format!("{MAPS}?limit=2")).await;
    world.delete(&format!("{MAPS}/map-3")).await;
    world.compact().await;
    let token = text(&first["metadata"]["continue"]);
    let (status, expired) = world.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!(
        (status, &expired["reason"]),
        (StatusCode::GONE, &json!("Expired"))
    );
    let token = text(&expired["metadata"]["continue"]);
    let (_, rest) = world.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!(names(&rest), ["map-2"]);
}

#[tokio::test]
async fn a_token_expires_where_only_other_kinds_have_changed() {
    let world = world_with(4).await;
    let (_, first) = world.get(&format!("{MAPS}?limit=2")).await;
    let secret = json!({"metadata": {"name": "a"}});
    let secrets = "/api/v1/namespaces/default/secrets";
    let (status, _) = world.call(Method::POST, secrets, &secret).await;
    assert_eq!(status, StatusCode::CREATED);
    world.compact().await;
    let token = text(&first["metadata"]["continue"]);
    let (status, _) = world.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!(status, StatusCode::GONE);
}

#[tokio::test]
async fn an_exact_version_shows_the_past() {
    let world = world_with(2).await;
    let revision = world.kv.revision();
    world.config_map("late", &json!({}), &json!({})).await;
    let query = format!("?resourceVersion={revision}&resourceVersionMatch=Exact");
    let (_, list) = world.get(&format!("{MAPS}{query}")).await;
    assert_eq!(names(&list), ["map-0", "map-1"]);
}

#[tokio::test]
async fn a_version_the_quorum_has_not_reached_is_refused() {
    let world = world_with(1).await;
    let (status, answer) = world.get(&format!("{MAPS}?resourceVersion=999999")).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert!(
        text(&answer["message"]).contains("Too large resource version"),
        "{answer}"
    );
}

#[tokio::test]
async fn labels_and_names_select() {
    let world = world_with(2).await;
    world
        .config_map("labelled", &json!({ "app": "a" }), &json!({}))
        .await;
    let (_, list) = world
        .get(&format!("{MAPS}?labelSelector=app%20in%20(a,b)"))
        .await;
    assert_eq!(names(&list), ["labelled"]);
    let (_, list) = world
        .get(&format!("{MAPS}?fieldSelector=metadata.name%3Dmap-1"))
        .await;
    assert_eq!(names(&list), ["map-1"]);
}

#[tokio::test]
async fn a_limit_counts_what_the_selector_lets_through() {
    let world = world_with(3).await;
    for name in ["x-1", "x-2", "x-3"] {
        world
            .config_map(name, &json!({ "app": "a" }), &json!({}))
            .await;
    }
    let (_, first) = world
        .get(&format!("{MAPS}?labelSelector=app%3Da&limit=2"))
        .await;
    assert_eq!(names(&first), ["x-1", "x-2"]);
    let token = text(&first["metadata"]["continue"]);
    let path = format!("{MAPS}?labelSelector=app%3Da&limit=2&continue={token}");
    assert_eq!(names(&world.get(&path).await.1), ["x-3"]);
}

#[tokio::test]
async fn kubectl_gets_a_table() {
    let world = world_with(1).await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let (_, table) = world.get_as(MAPS, accept).await;
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"][0]["cells"][0], "map-0");
}

#[tokio::test]
async fn metadata_alone_comes_without_data() {
    let world = World::start().await;
    world
        .config_map("map", &json!({}), &json!({ "a": "1" }))
        .await;
    let accept = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let (_, object) = world.get_as(&format!("{MAPS}/map"), accept).await;
    assert_eq!(object["kind"], "PartialObjectMetadata");
    assert!(object["data"].is_null());
}

#[tokio::test]
async fn a_list_comes_in_protobuf_to_who_prefers_it() {
    let world = world_with(1).await;
    let accept = "application/vnd.kubernetes.protobuf,application/json";
    let request = world
        .client
        .get(format!("{}{MAPS}", world.base))
        .header("accept", accept);
    let answer = request.send().await.unwrap();
    assert_eq!(
        answer.headers()["content-type"],
        "application/vnd.kubernetes.protobuf"
    );
    let body = answer.bytes().await.unwrap();
    assert_eq!(&body[..4], b"k8s\0");
    assert!(body.windows(13).any(|window| window == b"ConfigMapList"));
}

#[tokio::test]
async fn a_match_without_a_version_is_invalid() {
    let world = World::start().await;
    let (status, answer) = world
        .get(&format!("{MAPS}?resourceVersionMatch=Exact"))
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        answer["message"],
        "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: \
         resourceVersionMatch is forbidden unless resourceVersion is provided"
    );
}
