//! What a client learns about the API before it uses it.

use reqwest::StatusCode;

use crate::world::{World, text};

#[tokio::test]
async fn kubectl_gets_aggregated_discovery() {
    let world = World::start().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                  application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,\
                  application/json";
    let request = world
        .client
        .get(format!("{}/api", world.base))
        .header("accept", accept);
    let answer = request.send().await.unwrap();
    assert_eq!(
        answer.headers()["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
}

#[tokio::test]
async fn older_clients_get_plain_discovery() {
    let world = World::start().await;
    let (_, list) = world.get("/api/v1").await;
    let names: Vec<String> = list["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| text(&r["name"]))
        .collect();
    assert!(names.contains(&"pods/binding".to_owned()), "{names:?}");
}

#[tokio::test]
async fn a_known_document_is_not_sent_again() {
    let world = World::start().await;
    let first = world
        .client
        .get(format!("{}/apis", world.base))
        .send()
        .await
        .unwrap();
    let tag = first.headers()["etag"].clone();
    let again = world
        .client
        .get(format!("{}/apis", world.base))
        .header("if-none-match", tag);
    assert_eq!(
        again.send().await.unwrap().status(),
        StatusCode::NOT_MODIFIED
    );
}

#[tokio::test]
async fn an_openapi_document_is_had_by_its_hash() {
    let world = World::start().await;
    let (_, index) = world.get("/openapi/v3").await;
    let link = text(&index["paths"]["api/v1"]["serverRelativeURL"]);
    let answer = world
        .client
        .get(format!("{}{link}", world.base))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["cache-control"], "public, immutable");
    let document: serde_json::Value = answer.json().await.unwrap();
    assert!(document["paths"]["/api/v1/namespaces/{namespace}/pods"].is_object());
}

#[tokio::test]
async fn kubectl_gets_openapi_v2_as_protobuf_once() {
    let world = World::start().await;
    let ask = || {
        let accept = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
        let url = format!("{}/openapi/v2", world.base);
        world.client.get(url).header("accept", accept)
    };
    let first = ask().send().await.unwrap();
    let headers = first.headers().clone();
    assert_eq!(
        headers["content-type"],
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    );
    assert_eq!(headers["vary"], "Accept");
    // Field 1, three bytes: the version of the form.
    assert!(first.bytes().await.unwrap().starts_with(b"\x0a\x032.0"));
    let again = ask().header("if-none-match", &headers["etag"]);
    assert_eq!(
        again.send().await.unwrap().status(),
        StatusCode::NOT_MODIFIED
    );
}

#[tokio::test]
async fn kubectl_gets_openapi_v3_as_protobuf() {
    let world = World::start().await;
    let accept = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
    let url = format!("{}/openapi/v3/apis/apps/v1", world.base);
    let answer = world.client.get(url).header("accept", accept).send();
    let answer = answer.await.unwrap();
    assert_eq!(
        answer.headers()["content-type"],
        "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
    );
    // Field 1, five bytes: the version of the form.
    assert!(answer.bytes().await.unwrap().starts_with(b"\x0a\x053.0.0"));
}

#[tokio::test]
async fn openapi_v2_is_json_unless_asked_otherwise() {
    let world = World::start().await;
    let (_, document) = world.get("/openapi/v2").await;
    assert_eq!(document["swagger"], "2.0");
    assert!(document["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
    let url = format!("{}/openapi/v2", world.base);
    let other = world.client.get(url).header("accept", "text/html");
    assert_eq!(
        other.send().await.unwrap().status(),
        StatusCode::NOT_ACCEPTABLE
    );
}

#[tokio::test]
async fn every_answer_tells_who_leads() {
    let world = World::start().await;
    let answer = world
        .client
        .get(format!("{}/version", world.base))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["x-nautilus-leader-id"], "1");
    assert_eq!(answer.headers()["x-nautilus-term"], "1");
    assert_eq!(answer.headers()["x-nautilus-leader-evidence"], "abcd");
    assert!(answer.headers().contains_key("audit-id"));
}

#[tokio::test]
async fn readiness_lists_its_checks_when_asked() {
    let world = World::start().await;
    let (status, text) = world.get("/readyz?verbose").await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        text.as_str().unwrap().contains("[+]read-barrier ok"),
        "{text}"
    );
}

#[tokio::test]
async fn a_change_of_leadership_is_told_to_who_watches() {
    let world = World::start().await;
    let mut changes = world.watch("/nautilus/v1/leader?watch=true").await;
    assert_eq!(changes.next().await.unwrap()["term"], 1);
    world.kv.lead(2, false);
    let change = changes.next().await.unwrap();
    assert_eq!((&change["term"], &change["id"]), (&2.into(), &1.into()));
}

#[tokio::test]
async fn a_master_sees_the_node_and_its_members() {
    let world = World::start().await;
    let (_, status) = world.get("/nautilus/v1/status").await;
    assert_eq!(
        (&status["cluster"], &status["role"]),
        (&"test".into(), &"leader".into())
    );
    let (_, members) = world.get("/nautilus/v1/members").await;
    assert_eq!(members["members"][0]["role"], "voter");
}
