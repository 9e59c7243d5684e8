//! Answers that were compared with a kube-apiserver's of the release served, and differed.

use nautilus_rest::RequestLimits;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::{World, parts, text};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

async fn world_with_a() -> World {
    let world = World::start().await;
    world
        .config_map("a", &json!({ "l": "1" }), &json!({ "k": "v" }))
        .await;
    world
}

async fn patch(world: &World, path: &str, media: &str, body: &Value) -> (StatusCode, Value) {
    let body = body.to_string();
    parts(world.send(Method::PATCH, path, media, body).await).await
}

/// The texts of an answer's warnings.
async fn warnings(world: &World, method: Method, path: &str, body: &Value) -> Vec<String> {
    let answer = world
        .send(method, path, "application/json", body.to_string())
        .await;
    let values = answer.headers().get_all("warning").iter();
    values
        .map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_version_of_the_future_is_named_by_its_cause() {
    let world = world_with_a().await;
    let (status, answer) = world
        .get(&format!("{CONFIG_MAPS}?resourceVersion=99999999"))
        .await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(
        answer["details"]["causes"],
        json!([{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }])
    );
    let message = text(&answer["message"]);
    let expected = "Timeout: Too large resource version: 99999999, current: ";
    assert!(message.starts_with(expected), "{message}");
}

#[tokio::test]
async fn the_items_of_a_list_are_of_the_lists_kind() {
    let world = world_with_a().await;
    for accept in ["application/json", "application/yaml"] {
        let request = world
            .client
            .get(format!("{}{CONFIG_MAPS}", world.base))
            .header("accept", accept);
        let text = request.send().await.unwrap().text().await.unwrap();
        let list: Value = serde_yaml_ng::from_str(&text).unwrap();
        assert_eq!(list["kind"], "ConfigMapList");
        let items = list["items"].as_array().unwrap();
        let item = items.iter().find(|item| item["metadata"]["name"] == "a");
        let mut names: Vec<&String> = item.unwrap().as_object().unwrap().keys().collect();
        names.sort();
        assert_eq!(names, ["data", "metadata"]);
    }
    // One page is made of the cache, the other of the history.
    let version = text(&world.get(CONFIG_MAPS).await.1["metadata"]["resourceVersion"]);
    let exact = format!("?resourceVersion={version}&resourceVersionMatch=Exact");
    let (_, cached) = world.get(CONFIG_MAPS).await;
    let (_, read) = world.get(&format!("{CONFIG_MAPS}{exact}")).await;
    assert_eq!(read["items"], cached["items"]);
}

#[tokio::test]
async fn a_patch_makes_no_object_of_another_kind() {
    let world = world_with_a().await;
    let path = format!("{CONFIG_MAPS}/a");
    for change in [json!({ "kind": "Secret" }), json!({ "apiVersion": "v2" })] {
        let (status, answer) = patch(&world, &path, MERGE, &change).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        assert_eq!(answer["details"]["causes"][0]["field"], "patch");
        let (status, answer) = patch(&world, &path, STRATEGIC, &change).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(
            (&answer["kind"], &answer["apiVersion"]),
            (&json!("ConfigMap"), &json!("v1"))
        );
    }
}

#[tokio::test]
async fn a_patch_that_does_not_fit_is_shown_with_what_is_wrong() {
    let world = world_with_a().await;
    let path = format!("{CONFIG_MAPS}/a");
    let (status, answer) = patch(&world, &path, MERGE, &json!({ "data": { "k": 1 } })).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let message = text(&answer["message"]);
    assert!(
        message.starts_with(" \"\" is invalid: patch: Invalid value: \"{"),
        "{message}"
    );
    assert!(message.contains("json: cannot unmarshal"), "{message}");
    let strict = format!("{path}?fieldValidation=Strict");
    let (status, answer) = patch(&world, &strict, STRATEGIC, &json!({ "no": 1 })).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let message = text(&answer["message"]);
    let expected = "strict decoding error: unknown field \"no\"";
    assert!(message.ends_with(expected), "{message}");
    // A test that fails says no more than that.
    let test = json!([{ "op": "test", "path": "/data/k", "value": "w" }]);
    let (status, answer) = patch(&world, &path, "application/json-patch+json", &test).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer["details"]["causes"].is_null(), "{answer}");
}

#[tokio::test]
async fn a_body_names_the_object_of_its_path() {
    let world = world_with_a().await;
    let refused = |status: StatusCode, answer: &Value| {
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        text(&answer["message"])
    };
    let path = format!("{CONFIG_MAPS}/a");
    let (status, answer) = world.call(Method::PUT, &path, &json!({})).await;
    assert_eq!(
        refused(status, &answer),
        "the name of the object (a based on URL) was undeterminable: name must be provided"
    );
    let binding = json!({ "target": { "name": "n" } });
    let path = format!("{PODS}/p/binding");
    let (status, answer) = world.call(Method::POST, &path, &binding).await;
    assert_eq!(
        refused(status, &answer),
        "name in URL does not match name in Binding object"
    );
}

#[tokio::test]
async fn a_pod_that_goes_at_once_is_shown_as_marked() {
    let world = World::start().await;
    let pod = json!({
        "metadata": { "name": "p" },
        "spec": { "containers": [{ "name": "c", "image": "i" }] },
    });
    let (status, answer) = world.call(Method::POST, PODS, &pod).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    for query in ["?dryRun=All", ""] {
        let (status, answer) = world
            .call(Method::DELETE, &format!("{PODS}/p{query}"), &json!({}))
            .await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let metadata = &answer["metadata"];
        assert!(metadata["deletionTimestamp"].is_string(), "{answer}");
        assert_eq!(metadata["deletionGracePeriodSeconds"], 0);
        assert_eq!(metadata["generation"], 2);
    }
    assert_eq!(
        world.get(&format!("{PODS}/p")).await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn an_object_that_goes_still_has_its_name() {
    let world = World::start().await;
    let object = json!({ "metadata": { "name": "held", "finalizers": ["a.example/b"] } });
    world.call(Method::POST, CONFIG_MAPS, &object).await;
    let uid = json!({ "preconditions": { "uid": "other" } });
    let path = format!("{CONFIG_MAPS}/held");
    let (status, answer) = world.call(Method::DELETE, &path, &uid).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(answer["details"]["kind"], "ConfigMap");
    world.delete(&path).await;
    let (status, answer) = world.call(Method::POST, CONFIG_MAPS, &object).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(
        answer["message"],
        "object is being deleted: configmaps \"held\" already exists"
    );
}

#[tokio::test]
async fn whoever_uses_what_is_deprecated_is_told_and_so_is_who_is_refused() {
    let world = World::start().await;
    let endpoints = "/api/v1/namespaces/default/endpoints";
    let told = "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 \
                EndpointSlice\"";
    for path in [endpoints.to_owned(), format!("{endpoints}/none")] {
        let warnings = warnings(&world, Method::GET, &path, &json!({})).await;
        assert_eq!(warnings, [told], "{path}");
    }
    let object = json!({ "metadata": { "name": "e" } });
    let created = warnings(&world, Method::POST, endpoints, &object).await;
    assert_eq!(created, [told]);
    let wrong = json!({ "metadata": { "name": "No" }, "odd": 1 });
    let refused = warnings(&world, Method::POST, CONFIG_MAPS, &wrong).await;
    assert_eq!(refused, ["299 - \"unknown field \\\"odd\\\"\""]);
}

#[tokio::test]
async fn numbers_below_one_ask_for_nothing() {
    let world = world_with_a().await;
    for query in ["limit=-1", "timeoutSeconds=-1"] {
        let (status, answer) = world.get(&format!("{CONFIG_MAPS}?{query}")).await;
        assert_eq!(status, StatusCode::OK, "{query}: {answer}");
        assert!(answer["metadata"]["continue"].is_null());
    }
    let (status, answer) = world.get(&format!("{CONFIG_MAPS}?limit=x")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(
        answer["message"],
        "strconv.ParseInt: parsing \"x\": invalid syntax"
    );
}

#[tokio::test]
async fn a_decision_about_a_certificate_says_when_it_was_made() {
    let world = World::start().await;
    let samples: Vec<Value> = serde_json::from_str(include_str!("samples.json")).unwrap();
    let request = samples
        .iter()
        .find(|sample| sample["kind"] == "CertificateSigningRequest");
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let (status, answer) = world.call(Method::POST, requests, request.unwrap()).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let approved = json!({
        "status": { "conditions": [{ "type": "Approved", "status": "True", "reason": "r" }] },
        "metadata": { "labels": { "a": "b" } },
    });
    let path = format!("{requests}/{}/approval", text(&answer["metadata"]["name"]));
    let (status, answer) = patch(&world, &path, MERGE, &approved).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let condition = &answer["status"]["conditions"][0];
    assert!(condition["lastUpdateTime"].is_string(), "{answer}");
    assert!(condition["lastTransitionTime"].is_string(), "{answer}");
}

#[tokio::test]
async fn a_status_is_written_without_labels_where_its_kind_says_so() {
    let world = World::start().await;
    let schemas = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    let schema = json!({
        "metadata": { "name": "own", "labels": { "a": "kept" } },
        "spec": { "priorityLevelConfiguration": { "name": "global-default" } },
    });
    let (status, answer) = world.call(Method::POST, schemas, &schema).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let change = json!({ "metadata": { "labels": { "a": "lost" } } });
    let path = format!("{schemas}/own/status");
    let (status, answer) = patch(&world, &path, MERGE, &change).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["metadata"]["labels"]["a"], "kept");
}

#[tokio::test]
async fn the_root_names_what_is_served() {
    let world = World::start().await;
    let (status, answer) = world.get("/").await;
    assert_eq!(status, StatusCode::OK);
    let paths = answer["paths"].as_array().unwrap();
    for path in [
        "/api/v1",
        "/apis/apps/v1",
        "/livez",
        "/openapi/v3",
        "/version",
    ] {
        assert!(paths.contains(&json!(path)), "{path}");
    }
    // Who may see it is asked as for any other path.
    let plain = nautilus_machinery::identity::User::authenticated("plain", Vec::new());
    let world = World::start_with(plain, RequestLimits::default()).await;
    let (status, answer) = world.get("/").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(
        answer["message"],
        "forbidden: User \"plain\" cannot get path \"/\""
    );
    let (_, version) = world.get("/version").await;
    assert_eq!(version["emulationMinor"], version["minor"]);
}
