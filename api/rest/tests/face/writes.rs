//! Creates, updates, patches, deletes.

use nautilus_machine::Kv as _;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::world::World;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_stale_resource_version_conflicts_in_the_words_clients_match() {
    let world = World::start().await;
    let stale = world
        .config_map("settings", &json!({}), &json!({ "a": "1" }))
        .await;
    let mut fresh = stale.clone();
    fresh["data"]["a"] = "2".into();
    let path = format!("{MAPS}/settings");
    assert_eq!(
        world.call(Method::PUT, &path, &fresh).await.0,
        StatusCode::OK
    );
    let (status, answer) = world.call(Method::PUT, &path, &stale).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(
        answer["message"],
        "Operation cannot be fulfilled on configmaps \"settings\": the object has been modified; \
         please apply your changes to the latest version and try again"
    );
}

#[tokio::test]
async fn an_update_without_resource_version_replaces_whatever_stands() {
    let world = World::start().await;
    world
        .config_map("settings", &json!({}), &json!({ "a": "1" }))
        .await;
    let object = json!({ "metadata": { "name": "settings" }, "data": { "b": "2" } });
    let (status, answer) = world
        .call(Method::PUT, &format!("{MAPS}/settings"), &object)
        .await;
    assert_eq!(
        (status, &answer["data"]),
        (StatusCode::OK, &json!({ "b": "2" }))
    );
}

#[tokio::test]
async fn a_second_creation_of_a_name_is_refused() {
    let world = World::start().await;
    let object = json!({ "metadata": { "name": "settings" } });
    world.config_map("settings", &json!({}), &json!({})).await;
    let (status, answer) = world.call(Method::POST, MAPS, &object).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(answer["message"], "configmaps \"settings\" already exists");
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_still_answered_as_created() {
    let world = World::start().await;
    world.kv.lose_next_answer();
    let created = world
        .config_map("settings", &json!({}), &json!({ "a": "1" }))
        .await;
    let (_, stored) = world.get(&format!("{MAPS}/settings")).await;
    assert_eq!(stored, created);
}

#[tokio::test]
async fn an_update_whose_answer_was_lost_is_applied_once() {
    let world = World::start().await;
    let mut object = world
        .config_map("settings", &json!({}), &json!({ "a": "1" }))
        .await;
    object["data"]["a"] = "2".into();
    let before = world.kv.revision();
    world.kv.lose_next_answer();
    let (status, answer) = world
        .call(Method::PUT, &format!("{MAPS}/settings"), &object)
        .await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(
        answer["metadata"]["resourceVersion"],
        (before + 1).to_string()
    );
}

#[tokio::test]
async fn kubectl_creates_a_config_map_in_protobuf() {
    let world = World::start().await;
    let field = |number: u8, content: &[u8]| {
        let mut bytes = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        bytes.extend_from_slice(content);
        bytes
    };
    let metadata = [field(1, b"settings"), field(3, b""), field(8, b"")].concat();
    let entry = [field(1, b"key"), field(2, b"value")].concat();
    let raw = [field(1, &metadata), field(2, &entry)].concat();
    let meta = [field(1, b"v1"), field(2, b"ConfigMap")].concat();
    let body = [
        b"k8s\0".to_vec(),
        field(1, &meta),
        field(2, &raw),
        field(3, b""),
        field(4, b""),
    ];
    let answer = world
        .send(
            Method::POST,
            MAPS,
            "application/vnd.kubernetes.protobuf",
            body.concat(),
        )
        .await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let (_, stored) = world.get(&format!("{MAPS}/settings")).await;
    assert_eq!(stored["data"], json!({ "key": "value" }));
}

#[tokio::test]
async fn an_object_is_created_from_yaml() {
    let world = World::start().await;
    let body = "metadata:\n  name: settings\ndata:\n  key: value\n";
    let answer = world
        .send(Method::POST, MAPS, "application/yaml", body)
        .await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let (_, stored) = world.get(&format!("{MAPS}/settings")).await;
    assert_eq!(stored["data"], json!({ "key": "value" }));
}

#[tokio::test]
async fn a_body_of_ten_mebibytes_is_refused_with_the_limit() {
    let world = World::start().await;
    let body = vec![b' '; 10 * 1024 * 1024];
    let answer = world
        .send(Method::POST, MAPS, "application/json", body)
        .await;
    let (status, answer) = crate::world::parts(answer).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        answer["message"],
        "Request entity too large: limit is 3145728"
    );
    assert_eq!(answer["reason"], "RequestEntityTooLarge");
}

#[tokio::test]
async fn malformed_json_is_refused_with_the_place() {
    let world = World::start().await;
    let answer = world
        .send(Method::POST, MAPS, "application/json", "{\"metadata\": {")
        .await;
    let (status, answer) = crate::world::parts(answer).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("line 1 column 14"), "{message}");
}

#[tokio::test]
async fn a_strict_creation_names_the_unknown_field() {
    let world = World::start().await;
    let object = json!({ "metadata": { "name": "settings" }, "dada": {} });
    let path = format!("{MAPS}?fieldValidation=Strict");
    let (status, answer) = world.call(Method::POST, &path, &object).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.contains("strict decoding error: unknown field \"dada\""),
        "{message}"
    );
}

#[tokio::test]
async fn a_lenient_creation_warns_of_the_unknown_field() {
    let world = World::start().await;
    let object = json!({ "metadata": { "name": "settings" }, "dada": {} });
    let answer = world
        .send(Method::POST, MAPS, "application/json", object.to_string())
        .await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(
        answer.headers()["warning"],
        "299 - \"unknown field \\\"dada\\\"\""
    );
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let world = World::start().await;
    let object = json!({ "metadata": { "name": "settings" } });
    let before = world.kv.revision();
    let (status, _) = world
        .call(Method::POST, &format!("{MAPS}?dryRun=All"), &object)
        .await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(world.kv.revision(), before);
}

#[tokio::test]
async fn a_dry_run_by_the_delete_options_deletes_nothing() {
    let world = World::start().await;
    world.config_map("settings", &json!({}), &json!({})).await;
    let options = json!({ "dryRun": ["All"] });
    let path = format!("{MAPS}/settings");
    assert_eq!(
        world.call(Method::DELETE, &path, &options).await.0,
        StatusCode::OK
    );
    assert_eq!(world.get(&path).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_merge_patch_removes_what_it_sets_to_null() {
    let world = World::start().await;
    world
        .config_map("settings", &json!({}), &json!({ "a": "1", "b": "2" }))
        .await;
    let path = format!("{MAPS}/settings");
    let patch = json!({ "data": { "a": null } }).to_string();
    let answer = world
        .send(Method::PATCH, &path, "application/merge-patch+json", patch)
        .await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(world.get(&path).await.1["data"], json!({ "b": "2" }));
}

#[tokio::test]
async fn concurrent_patches_of_one_object_all_come_through() {
    let world = World::start().await;
    world.config_map("settings", &json!({}), &json!({})).await;
    let path = format!("{MAPS}/settings");
    let patches = (0..16).map(|number| {
        let patch = json!({ "data": { format!("key{number}"): "set" } }).to_string();
        world.send(Method::PATCH, &path, "application/merge-patch+json", patch)
    });
    for answer in futures_util::future::join_all(patches).await {
        assert_eq!(answer.status(), StatusCode::OK);
    }
    let (_, stored) = world.get(&path).await;
    assert_eq!(stored["data"].as_object().unwrap().len(), 16);
}

#[tokio::test]
async fn an_object_with_finalizers_goes_when_the_last_one_does() {
    let world = World::start().await;
    let path = format!("{MAPS}/settings");
    world.config_map("settings", &json!({}), &json!({})).await;
    let hold = json!({ "metadata": { "finalizers": ["example.com/hold"] } }).to_string();
    world
        .send(Method::PATCH, &path, "application/merge-patch+json", hold)
        .await;
    let (status, marked) = world.delete(&path).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        marked["metadata"]["deletionTimestamp"].is_string(),
        "{marked}"
    );
    assert_eq!(world.get(&path).await.0, StatusCode::OK);
    let release = json!({ "metadata": { "finalizers": null } }).to_string();
    world
        .send(
            Method::PATCH,
            &path,
            "application/merge-patch+json",
            release,
        )
        .await;
    assert_eq!(world.get(&path).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_delete_with_another_uid_is_refused() {
    let world = World::start().await;
    world.config_map("settings", &json!({}), &json!({})).await;
    let options = json!({ "preconditions": { "uid": "another" } });
    let (status, _) = world
        .call(Method::DELETE, &format!("{MAPS}/settings"), &options)
        .await;
    assert_eq!(status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_collection_is_deleted_by_label() {
    let world = World::start().await;
    world
        .config_map("one", &json!({ "app": "a" }), &json!({}))
        .await;
    world
        .config_map("two", &json!({ "app": "b" }), &json!({}))
        .await;
    let (status, _) = world.delete(&format!("{MAPS}?labelSelector=app%3Da")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        world.get(&format!("{MAPS}/one")).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(world.get(&format!("{MAPS}/two")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_binding_gives_a_pod_its_node() {
    let world = World::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({
        "metadata": { "name": "web" },
        "spec": { "containers": [{ "name": "web", "image": "web" }] },
    });
    let (status, answer) = world.call(Method::POST, pods, &pod).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let binding = json!({
        "metadata": { "name": "web" },
        "target": { "apiVersion": "v1", "kind": "Node", "name": "worker-1" },
    });
    let (status, answer) = world
        .call(Method::POST, &format!("{pods}/web/binding"), &binding)
        .await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let (_, stored) = world.get(&format!("{pods}/web")).await;
    assert_eq!(stored["spec"]["nodeName"], "worker-1");
}

#[tokio::test]
async fn a_strict_patch_names_the_unknown_field() {
    let world = World::start().await;
    let path = "/api/v1/namespaces/default/services/kubernetes?fieldValidation=Strict";
    for media in [
        "application/strategic-merge-patch+json",
        "application/merge-patch+json",
    ] {
        let patch = r#"{"spec":{"foo":1}}"#;
        let answer = world.send(Method::PATCH, path, media, patch).await;
        let (status, answer) = crate::world::parts(answer).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains("unknown field \"spec.foo\""), "{message}");
    }
}

#[tokio::test]
async fn a_lease_is_made_by_an_update_and_never_written_over_unseen() {
    let world = World::start().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/beat";
    let object = json!({ "metadata": { "name": "beat" }, "spec": { "holderIdentity": "a" } });
    let (status, answer) = world.call(Method::PUT, path, &object).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let (status, answer) = world.call(Method::PUT, path, &object).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.contains("must be specified for an update"),
        "{message}"
    );
}
