//! Watches over the wire.

use std::time::Duration;

use nautilus_machinery::identity::User;
use nautilus_rest::RequestLimits;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::world::{World, text, within};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn pair(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

async fn label(world: &World, name: &str, value: &str) {
    let patch = json!({ "metadata": { "labels": { "app": value } } }).to_string();
    let path = format!("{MAPS}/{name}");
    world
        .send(Method::PATCH, &path, "application/merge-patch+json", patch)
        .await;
}

#[tokio::test]
async fn a_watch_without_version_begins_with_what_is_there() {
    let world = World::start().await;
    world.config_map("old", &json!({}), &json!({})).await;
    let mut events = world.watch(&format!("{MAPS}?watch=true")).await;
    assert_eq!(events.next_named().await, pair("ADDED", "old"));
    world.config_map("new", &json!({}), &json!({})).await;
    assert_eq!(events.next_named().await, pair("ADDED", "new"));
}

#[tokio::test]
async fn a_watch_resumes_after_the_version_it_saw() {
    let world = World::start().await;
    let seen = world.config_map("one", &json!({}), &json!({})).await;
    label(&world, "one", "a").await;
    world.config_map("two", &json!({}), &json!({})).await;
    world.delete(&format!("{MAPS}/one")).await;
    let version = text(&seen["metadata"]["resourceVersion"]);
    let path = format!("{MAPS}?watch=true&resourceVersion={version}");
    let mut events = world.watch(&path).await;
    assert_eq!(events.next_named().await, pair("MODIFIED", "one"));
    assert_eq!(events.next_named().await, pair("ADDED", "two"));
    assert_eq!(events.next_named().await, pair("DELETED", "one"));
}

#[tokio::test]
async fn a_deletion_carries_the_last_object_at_the_deletions_version() {
    let world = World::start().await;
    let made = world
        .config_map("one", &json!({}), &json!({ "a": "1" }))
        .await;
    let version = text(&made["metadata"]["resourceVersion"]);
    let mut events = world
        .watch(&format!("{MAPS}?watch=1&resourceVersion={version}"))
        .await;
    world.delete(&format!("{MAPS}/one")).await;
    let event = events.next().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["data"], json!({ "a": "1" }));
    let deleted: u64 = text(&event["object"]["metadata"]["resourceVersion"])
        .parse()
        .unwrap();
    assert!(deleted > version.parse().unwrap());
}

#[tokio::test]
async fn entering_and_leaving_a_selection_are_added_and_deleted() {
    let world = World::start().await;
    world
        .config_map("one", &json!({ "app": "b" }), &json!({}))
        .await;
    let mut events = world
        .watch(&format!("{MAPS}?watch=true&labelSelector=app%3Da"))
        .await;
    label(&world, "one", "a").await;
    assert_eq!(events.next_named().await, pair("ADDED", "one"));
    label(&world, "one", "b").await;
    let event = events.next().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    // As it last was in the selection.
    assert_eq!(event["object"]["metadata"]["labels"]["app"], "a");
}

#[tokio::test]
async fn bookmarks_come_to_who_allows_them() {
    let limits = RequestLimits {
        bookmark_interval: Duration::from_millis(50),
        ..RequestLimits::default()
    };
    let master = User::authenticated("admin", vec!["system:masters".into()]);
    let world = World::start_with(master, limits).await;
    let made = world.config_map("one", &json!({}), &json!({})).await;
    let version = text(&made["metadata"]["resourceVersion"]);
    let path = format!("{MAPS}?watch=true&allowWatchBookmarks=true&resourceVersion={version}");
    let mut events = world.watch(&path).await;
    let event = events.next().await.unwrap();
    assert_eq!(event["type"], "BOOKMARK");
    assert_eq!(event["object"]["kind"], "ConfigMap");
    let marked: u64 = text(&event["object"]["metadata"]["resourceVersion"])
        .parse()
        .unwrap();
    assert!(marked >= version.parse().unwrap());
}

#[tokio::test]
async fn a_streamed_list_is_closed_by_its_bookmark() {
    let world = World::start().await;
    world.config_map("one", &json!({}), &json!({})).await;
    let path = format!(
        "{MAPS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
         &allowWatchBookmarks=true"
    );
    let mut events = world.watch(&path).await;
    assert_eq!(events.next_named().await, pair("ADDED", "one"));
    let event = events.next().await.unwrap();
    assert_eq!(event["type"], "BOOKMARK");
    assert_eq!(
        event["object"]["metadata"]["annotations"],
        json!({ "k8s.io/initial-events-end": "true" })
    );
}

#[tokio::test]
async fn a_watch_from_a_compacted_version_is_told_to_list_again() {
    let world = World::start().await;
    let made = world.config_map("one", &json!({}), &json!({})).await;
    label(&world, "one", "a").await;
    label(&world, "one", "b").await;
    world.compact().await;
    let version = text(&made["metadata"]["resourceVersion"]);
    let mut events = world
        .watch(&format!("{MAPS}?watch=true&resourceVersion={version}"))
        .await;
    let event = events.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"]),
        (&json!("ERROR"), &json!(410))
    );
    assert_eq!(event["object"]["reason"], "Expired");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_watched_table_carries_its_columns_once() {
    let world = World::start().await;
    world.config_map("one", &json!({}), &json!({})).await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut events = world.watch_as(&format!("{MAPS}?watch=true"), accept).await;
    let first = events.next().await.unwrap();
    assert_eq!(first["object"]["rows"][0]["cells"][0], "one");
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    world.config_map("two", &json!({}), &json!({})).await;
    let second = events.next().await.unwrap();
    assert!(
        second["object"]["columnDefinitions"]
            .as_array()
            .is_none_or(Vec::is_empty)
    );
}

#[tokio::test]
async fn a_watch_ends_at_its_timeout() {
    let world = World::start().await;
    let mut events = world
        .watch(&format!("{MAPS}?watch=true&timeoutSeconds=1"))
        .await;
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_stop_ends_watches_in_order() {
    let world = World::start().await;
    world.config_map("one", &json!({}), &json!({})).await;
    let mut events = world.watch(&format!("{MAPS}?watch=true")).await;
    assert_eq!(events.next_named().await, pair("ADDED", "one"));
    world.shutdown.cancel();
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn one_object_is_watched_by_its_path() {
    let world = World::start().await;
    world.config_map("one", &json!({}), &json!({})).await;
    world.config_map("two", &json!({}), &json!({})).await;
    let path = "/api/v1/watch/namespaces/default/configmaps/two";
    let mut events = world.watch(path).await;
    assert_eq!(events.next_named().await, pair("ADDED", "two"));
    label(&world, "one", "a").await;
    label(&world, "two", "a").await;
    assert_eq!(events.next_named().await, pair("MODIFIED", "two"));
}

/// Speaks HTTP/1.1 by hand: opens a WebSocket and gives its first message.
async fn first_message(world: &World, path: &str) -> Value {
    let stream = TcpStream::connect(world.base.trim_start_matches("http://"))
        .await
        .unwrap();
    let mut stream = BufReader::new(stream);
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: nautilus\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert!(line.starts_with("HTTP/1.1 101"), "{line}");
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).await.unwrap();
    }
    // A final text frame, not masked, its length in two further bytes.
    let mut frame = [0; 4];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[..2], [0x81, 126]);
    let mut message = vec![0; usize::from(u16::from_be_bytes([frame[2], frame[3]]))];
    stream.read_exact(&mut message).await.unwrap();
    serde_json::from_slice(&message).unwrap()
}

#[tokio::test]
async fn a_watch_is_spoken_over_a_websocket() {
    let world = World::start().await;
    world.config_map("one", &json!({}), &json!({})).await;
    let event = within(first_message(&world, &format!("{MAPS}?watch=true"))).await;
    assert_eq!(event["type"], "ADDED");
    assert_eq!(event["object"]["metadata"]["name"], "one");
}

#[tokio::test]
async fn a_watch_in_protobuf_comes_in_frames_with_their_length() {
    let world = World::start().await;
    world.config_map("one", &json!({}), &json!({})).await;
    let answer = world
        .client
        .get(format!("{}{MAPS}?watch=true&timeoutSeconds=1", world.base))
        .header("accept", "application/vnd.kubernetes.protobuf;stream=watch")
        .send()
        .await
        .unwrap();
    assert_eq!(
        answer.headers()["content-type"],
        "application/vnd.kubernetes.protobuf;stream=watch"
    );
    let body = within(answer.bytes()).await.unwrap();
    let length = u32::from_be_bytes(body[..4].try_into().unwrap());
    assert_eq!(usize::try_from(length).unwrap(), body.len() - 4);
    assert_eq!(&body[4..11], b"\x0a\x05ADDED");
}

async fn pod(world: &World, name: &str, node: &str) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "i" }] },
    });
    let (status, made) = world
        .call(Method::POST, "/api/v1/namespaces/default/pods", &pod)
        .await;
    assert_eq!(status, 201, "{made}");
}

#[tokio::test]
async fn a_kubelet_sees_the_pods_of_its_node_alone() {
    let world = World::start().await;
    pod(&world, "here-1", "n1").await;
    pod(&world, "there", "n2").await;
    let path = "/api/v1/pods?watch=true&fieldSelector=spec.nodeName%3Dn1";
    let mut events = world.watch(path).await;
    assert_eq!(events.next_named().await, pair("ADDED", "here-1"));
    pod(&world, "there-2", "n2").await;
    pod(&world, "here-2", "n1").await;
    assert_eq!(events.next_named().await, pair("ADDED", "here-2"));
    let (_, list) = world
        .get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn2")
        .await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_shared_protobuf_frame_is_that_of_the_list() {
    let world = World::start().await;
    let path = format!("{MAPS}?watch=true&timeoutSeconds=1&resourceVersion=1");
    world.config_map("one", &json!({}), &json!({})).await;
    let get = |path: String, accept: &'static str| {
        let request = world.client.get(format!("{}{path}", world.base));
        request.header("accept", accept).send()
    };
    let watch = get(path, "application/vnd.kubernetes.protobuf;stream=watch").await;
    let watched = within(watch.unwrap().bytes()).await.unwrap();
    let list = get(MAPS.to_owned(), "application/vnd.kubernetes.protobuf").await;
    let listed = within(list.unwrap().bytes()).await.unwrap();
    let object = get(format!("{MAPS}/one"), "application/vnd.kubernetes.protobuf").await;
    let object = within(object.unwrap().bytes()).await.unwrap();
    let holds = |whole: &[u8], part: &[u8]| whole.windows(part.len()).any(|window| window == part);
    // The message stands in both, without the object's own envelope in the list.
    assert!(holds(&watched, &object));
    let message = &object[object.len() / 2..object.len() - 4];
    assert!(holds(&listed, message), "{listed:?}");
    assert_eq!(&listed[..4], b"k8s\0");
}
