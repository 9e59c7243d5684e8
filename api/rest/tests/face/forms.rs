//! The forms of one answer: metadata alone, tables, gzip.

use std::io::Read as _;

use nautilus_machinery::codec::{self, MediaType};
use nautilus_machinery::schema::{PARTIAL_OBJECT_METADATA, PARTIAL_OBJECT_METADATA_LIST};
use serde_json::json;

use crate::world::{World, within};

const METADATA: &str =
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str =
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const PATH: &str = "/api/v1/namespaces/default/configmaps";

async fn get_as(world: &World, path: &str, accept: &str) -> Vec<u8> {
    let request = world.client.get(format!("{}{path}", world.base));
    let answer = within(request.header("accept", accept).send())
        .await
        .unwrap();
    assert_eq!(
        answer.headers()["content-type"],
        "application/vnd.kubernetes.protobuf"
    );
    within(answer.bytes()).await.unwrap().to_vec()
}

#[tokio::test]
async fn metadata_comes_in_protobuf_alone_and_in_lists() {
    let world = World::start().await;
    world
        .config_map("a", &json!({"x": "y"}), &json!({"k": "v"}))
        .await;
    let body = get_as(&world, &format!("{PATH}/a"), METADATA).await;
    let one = codec::decode(PARTIAL_OBJECT_METADATA, MediaType::Protobuf, &body).unwrap();
    assert_eq!(one["kind"], "PartialObjectMetadata");
    assert_eq!(one["metadata"]["labels"], json!({"x": "y"}));
    let body = get_as(&world, PATH, METADATA_LIST).await;
    let list = codec::decode(PARTIAL_OBJECT_METADATA_LIST, MediaType::Protobuf, &body).unwrap();
    assert_eq!(list["items"][0]["metadata"]["name"], "a");
    assert!(list["items"][0].get("data").is_none());
}

#[tokio::test]
async fn what_is_not_stored_is_no_table() {
    let world = World::start().await;
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"namespace": "default", "verb": "list", "resource": "pods"}},
    });
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for (accept, status) in [
        (table.to_owned(), 406),
        (format!("{table}, application/json"), 201),
    ] {
        let request = world
            .client
            .post(format!("{}{path}", world.base))
            .header("accept", accept)
            .header("content-type", "application/json")
            .body(review.to_string());
        let answer = within(request.send()).await.unwrap();
        assert_eq!(answer.status().as_u16(), status);
        let answer: serde_json::Value = within(answer.json()).await.unwrap();
        assert_ne!(answer["kind"], "Table", "{answer}");
    }
}

#[tokio::test]
async fn a_watch_of_metadata_comes_in_protobuf() {
    let world = World::start().await;
    world.config_map("a", &json!({}), &json!({"k": "v"})).await;
    let request = world
        .client
        .get(format!("{}{PATH}?watch=true", world.base))
        .header("accept", METADATA);
    let mut answer = within(request.send()).await.unwrap();
    let frame = within(answer.chunk()).await.unwrap().expect("an event");
    let text = String::from_utf8_lossy(&frame);
    assert!(text.contains("ADDED") && text.contains("PartialObjectMetadata"));
    assert!(!text.contains("ConfigMap"));
}

#[tokio::test]
async fn a_large_answer_is_gzip_to_who_takes_it() {
    let world = World::start().await;
    let large = "x".repeat(200_000);
    world
        .config_map("a", &json!({}), &json!({"k": large}))
        .await;
    let ask = |encoding: &str| {
        let request = world.client.get(format!("{}{PATH}", world.base));
        request
            .header("accept-encoding", encoding.to_owned())
            .send()
    };
    let plain = within(ask("identity")).await.unwrap();
    assert!(!plain.headers().contains_key("content-encoding"));
    let packed = within(ask("gzip")).await.unwrap();
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    let packed = within(packed.bytes()).await.unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.as_ref())
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, within(plain.text()).await.unwrap());
}
