//! Server-side apply, and who owns what after every kind of write.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::World;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SETTINGS: &str = "/api/v1/namespaces/default/configmaps/settings";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";

fn settings(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": data})
}

async fn apply(world: &World, path: &str, query: &str, config: &Value) -> (StatusCode, Value) {
    let path = format!("{path}?{query}");
    let answer = world
        .send(Method::PATCH, &path, APPLY, config.to_string())
        .await;
    crate::world::parts(answer).await
}

async fn merge(world: &World, path: &str, patch: &Value) -> Value {
    let answer = world
        .send(Method::PATCH, path, MERGE, patch.to_string())
        .await;
    let (status, object) = crate::world::parts(answer).await;
    assert_eq!(status, StatusCode::OK, "{object}");
    object
}

/// `manager operation [subresource]: fields`, one line each, without times.
fn owners(object: &Value) -> String {
    let entries = object["metadata"]["managedFields"].as_array();
    let mut lines = Vec::new();
    for entry in entries.into_iter().flatten() {
        assert_eq!(entry["fieldsType"], "FieldsV1");
        assert!(
            entry["time"].is_string() || entry["operation"] == "Apply",
            "{entry}"
        );
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        lines.push(format!(
            "{} {} {}: {}",
            text("manager"),
            text("operation"),
            text("subresource"),
            entry["fieldsV1"]
        ));
    }
    lines.join("\n")
}

#[tokio::test]
async fn an_apply_makes_the_object_and_the_next_one_changes_it() {
    let world = World::start().await;
    let (status, made) = apply(
        &world,
        SETTINGS,
        "fieldManager=a",
        &settings(&json!({"x": "1"})),
    )
    .await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(owners(&made), r#"a Apply : {"f:data":{"f:x":{}}}"#);
    let (status, changed) = apply(
        &world,
        SETTINGS,
        "fieldManager=a",
        &settings(&json!({"y": "2"})),
    )
    .await;
    assert_eq!(
        (status, &changed["data"]),
        (StatusCode::OK, &json!({"y": "2"}))
    );
    let (_, stored) = world.get(SETTINGS).await;
    assert_eq!(stored, changed);
}

#[tokio::test]
async fn an_apply_that_changes_nothing_writes_nothing() {
    let world = World::start().await;
    let config = settings(&json!({"x": "1"}));
    let (_, made) = apply(&world, SETTINGS, "fieldManager=a", &config).await;
    let (status, again) = apply(&world, SETTINGS, "fieldManager=a", &config).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(again, made);
}

#[tokio::test]
async fn a_conflict_names_the_manager_and_the_field() {
    let world = World::start().await;
    apply(
        &world,
        SETTINGS,
        "fieldManager=a",
        &settings(&json!({"x": "1", "y": "1"})),
    )
    .await;
    let mine = settings(&json!({"x": "2"}));
    let (status, answer) = apply(&world, SETTINGS, "fieldManager=b", &mine).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(
        answer,
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "Apply failed with 1 conflict: conflict with \"a\": .data.x",
            "reason": "Conflict",
            "details": {"causes": [{"reason": "FieldManagerConflict", "message": "conflict with \"a\"", "field": ".data.x"}]},
            "code": 409,
        })
    );
    let (status, forced) = apply(&world, SETTINGS, "fieldManager=b&force=true", &mine).await;
    assert_eq!(
        (status, &forced["data"]["x"]),
        (StatusCode::OK, &json!("2"))
    );
    assert_eq!(
        owners(&forced),
        "a Apply : {\"f:data\":{\"f:y\":{}}}\nb Apply : {\"f:data\":{\"f:x\":{}}}"
    );
}

#[tokio::test]
async fn two_conflicts_are_listed_by_their_owners() {
    let world = World::start().await;
    apply(
        &world,
        SETTINGS,
        "fieldManager=a",
        &settings(&json!({"x": "1", "y": "1"})),
    )
    .await;
    merge(
        &world,
        &format!("{SETTINGS}?fieldManager=c"),
        &json!({"data": {"z": "1"}}),
    )
    .await;
    let all = settings(&json!({"x": "2", "y": "2", "z": "2"}));
    let (status, answer) = apply(&world, SETTINGS, "fieldManager=b", &all).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(
        answer["message"],
        "Apply failed with 3 conflicts: conflicts with \"a\":\n- .data.x\n- .data.y\nconflicts with \
         \"c\" using v1:\n- .data.z"
    );
}

#[tokio::test]
async fn every_write_has_an_owner() {
    let world = World::start().await;
    let body = json!({"metadata": {"name": "settings", "labels": {"l": "1"}}, "data": {"a": "1"}});
    let path = format!("{MAPS}?fieldManager=maker");
    let (_, made) = world.call(Method::POST, &path, &body).await;
    assert_eq!(
        owners(&made),
        r#"maker Update : {"f:data":{".":{},"f:a":{}},"f:metadata":{"f:labels":{".":{},"f:l":{}}}}"#
    );
    let mut changed = made.clone();
    changed["data"] = json!({"a": "1", "b": "2"});
    let path = format!("{SETTINGS}?fieldManager=changer");
    let (status, changed) = world.call(Method::PUT, &path, &changed).await;
    assert_eq!(status, StatusCode::OK, "{changed}");
    let patched = merge(
        &world,
        &format!("{SETTINGS}?fieldManager=patcher"),
        &json!({"data": {"a": "3"}}),
    )
    .await;
    assert_eq!(
        owners(&patched),
        "changer Update : {\"f:data\":{\"f:b\":{}}}\nmaker Update : {\"f:data\":{},\"f:metadata\":{\"f:labels\":{\".\":{},\"f:l\":{}}}}\npatcher Update : {\"f:data\":{\"f:a\":{}}}"
    );
}

#[tokio::test]
async fn a_writer_without_a_name_is_called_by_its_program() {
    let world = World::start().await;
    let (status, made) = world
        .call(Method::POST, MAPS, &settings(&json!({"a": "1"})))
        .await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(made["metadata"]["managedFields"][0]["manager"], "unknown");
}

#[tokio::test]
async fn an_update_that_changes_nothing_keeps_version_and_times() {
    let world = World::start().await;
    let (_, made) = world
        .call(Method::POST, MAPS, &settings(&json!({"a": "1"})))
        .await;
    let (status, same) = world.call(Method::PUT, SETTINGS, &made).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(same, made);
}

#[tokio::test]
async fn an_empty_list_of_entries_forgets_the_owners() {
    let world = World::start().await;
    for empty in [json!([]), json!([{}])] {
        world.delete(SETTINGS).await;
        apply(
            &world,
            SETTINGS,
            "fieldManager=a",
            &settings(&json!({"x": "1"})),
        )
        .await;
        let object = merge(
            &world,
            SETTINGS,
            &json!({"metadata": {"managedFields": empty}}),
        )
        .await;
        assert_eq!(owners(&object), "", "{empty}");
        let (status, taken) = apply(
            &world,
            SETTINGS,
            "fieldManager=b",
            &settings(&json!({"y": "2"})),
        )
        .await;
        assert_eq!(status, StatusCode::OK, "{taken}");
        assert_eq!(
            owners(&taken),
            "b Apply : {\"f:data\":{\"f:y\":{}}}\nbefore-first-apply Update : {\"f:data\":{\".\":{},\"f:x\":{}}}"
        );
    }
}

#[tokio::test]
async fn status_and_spec_have_owners_of_their_own() {
    let world = World::start().await;
    let path = "/api/v1/nodes/n";
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {"podCIDR": "10.0.0.0/24"}, "status": {"phase": "Running"}});
    let (status, made) = apply(&world, path, "fieldManager=admin", &node).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(
        owners(&made),
        r#"admin Apply : {"f:spec":{"f:podCIDR":{}}}"#
    );
    let ready = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let (status, changed) = apply(
        &world,
        &format!("{path}/status"),
        "fieldManager=kubelet",
        &ready,
    )
    .await;
    assert_eq!(status, StatusCode::OK, "{changed}");
    assert_eq!(
        owners(&changed),
        "admin Apply : {\"f:spec\":{\"f:podCIDR\":{}}}\nkubelet Apply status: {\"f:status\":{\"f:conditions\":{\"k:{\\\"type\\\":\\\"Ready\\\"}\":{\".\":{},\"f:status\":{},\"f:type\":{}}}}}"
    );
    assert!(changed["spec"]["unschedulable"].is_null(), "{changed}");
}

#[tokio::test]
async fn elements_of_a_list_are_owned_by_their_keys() {
    let world = World::start().await;
    let path = "/api/v1/namespaces/default/services/web";
    let service = |ports: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": ports}});
    let (status, made) = apply(
        &world,
        path,
        "fieldManager=a",
        &service(json!([{"port": 80, "name": "http"}])),
    )
    .await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(
        owners(&made),
        r#"a Apply : {"f:spec":{"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:name":{},"f:port":{}}}}}"#
    );
    let (status, both) = apply(
        &world,
        path,
        "fieldManager=b",
        &service(json!([{"port": 443, "name": "https"}])),
    )
    .await;
    assert_eq!(status, StatusCode::OK, "{both}");
    let ports = |object: &Value| -> Vec<i64> {
        let ports = object["spec"]["ports"].as_array().unwrap();
        ports
            .iter()
            .map(|port| port["port"].as_i64().unwrap())
            .collect()
    };
    assert_eq!(ports(&both), [80, 443]);
    let (_, left) = apply(&world, path, "fieldManager=a", &service(json!([]))).await;
    assert_eq!(ports(&left), [443]);
    let twice = service(json!([{"port": 1}, {"port": 1}]));
    let (status, answer) = apply(&world, path, "fieldManager=a", &twice).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(
        answer["message"],
        "failed to create typed patch object (/web; /v1, Kind=Service): .spec.ports: duplicate \
         entries for key [port=1,protocol=\"TCP\"]"
    );
}

#[tokio::test]
async fn what_makes_no_configuration_is_refused() {
    let world = World::start().await;
    let good = settings(&json!({"x": "1"}));
    let mut other = good.clone();
    other["kind"] = json!("Secret");
    let mut owned = good.clone();
    owned["metadata"]["managedFields"] = json!([]);
    let mut unknown = good.clone();
    unknown["dada"] = json!({});
    let mut renamed = good.clone();
    renamed["metadata"]["name"] = json!("other");
    let mut gone = good.clone();
    gone["metadata"]["uid"] = json!("u");
    let cases = [
        (
            "",
            &good,
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ),
        (
            "fieldManager=a",
            &other,
            400,
            "invalid object type: /v1, Kind=Secret",
        ),
        (
            "fieldManager=a",
            &owned,
            400,
            "metadata.managedFields must be nil",
        ),
        (
            "fieldManager=a",
            &unknown,
            500,
            "failed to create typed patch object (/settings; /v1, Kind=ConfigMap): .dada: field not declared in schema",
        ),
        (
            "fieldManager=a",
            &renamed,
            400,
            "the name of the object (other) does not match the name on the URL (settings)",
        ),
        (
            "fieldManager=a",
            &gone,
            409,
            "Operation cannot be fulfilled on configmaps \"settings\": uid mismatch: the provided object specified uid u, and no existing object was found",
        ),
    ];
    for (query, config, code, message) in cases {
        let (status, answer) = apply(&world, SETTINGS, query, config).await;
        assert_eq!(
            (status.as_u16(), answer["message"].as_str().unwrap()),
            (code, message)
        );
    }
    let answer = world
        .send(
            Method::PATCH,
            &format!("{SETTINGS}?fieldManager=a"),
            APPLY,
            "a: [",
        )
        .await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let path = format!("{SETTINGS}?force=true");
    let answer = world.send(Method::PATCH, &path, MERGE, "{}").await;
    let (status, answer) = crate::world::parts(answer).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        answer["message"],
        "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch"
    );
}

#[tokio::test]
async fn a_dry_run_of_an_apply_stores_nothing() {
    let world = World::start().await;
    let config = settings(&json!({"x": "1"}));
    let (status, _) = apply(&world, SETTINGS, "fieldManager=a&dryRun=All", &config).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(world.get(SETTINGS).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_apply_in_another_version_of_the_object_is_refused_by_its_resource_version() {
    let world = World::start().await;
    let (_, made) = apply(
        &world,
        SETTINGS,
        "fieldManager=a",
        &settings(&json!({"x": "1"})),
    )
    .await;
    apply(
        &world,
        SETTINGS,
        "fieldManager=a",
        &settings(&json!({"x": "2"})),
    )
    .await;
    let mut stale = settings(&json!({"x": "3"}));
    stale["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    let (status, answer) = apply(&world, SETTINGS, "fieldManager=a", &stale).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
}

#[tokio::test]
async fn a_configuration_in_yaml_with_a_key_twice_is_told_of() {
    let world = World::start().await;
    let yaml =
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata:\n  a: one\n  a: two\n";
    let path = format!("{SETTINGS}?fieldManager=a&fieldValidation=Strict");
    let answer = world.send(Method::PATCH, &path, APPLY, yaml).await;
    let (status, answer) = crate::world::parts(answer).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.starts_with("error strict decoding patch: "),
        "{message}"
    );
    assert!(
        message.contains("key \"a\" already set in map"),
        "{message}"
    );
}

#[tokio::test]
async fn kubectl_takes_over_what_its_client_side_apply_set() {
    let world = World::start().await;
    let applied = settings(&json!({"x": "1"}));
    let mut object = applied.clone();
    object["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": applied.to_string()});
    let path = format!("{MAPS}?fieldManager=kubectl-client-side-apply");
    assert_eq!(
        world.call(Method::POST, &path, &object).await.0,
        StatusCode::CREATED
    );
    let changed = settings(&json!({"x": "2"}));
    let (status, answer) = apply(&world, SETTINGS, "fieldManager=other", &changed).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    assert_eq!(
        answer["message"],
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using v1: .data.x"
    );
    let (status, taken) = apply(&world, SETTINGS, "fieldManager=kubectl", &changed).await;
    assert_eq!(status, StatusCode::OK, "{taken}");
    let annotation =
        &taken["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert_eq!(
        annotation.as_str().unwrap(),
        "{\"apiVersion\":\"v1\",\"data\":{\"x\":\"2\"},\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"settings\"}}\n"
    );
}

#[tokio::test]
async fn updates_of_many_managers_are_merged_when_there_are_too_many() {
    let world = World::start().await;
    world
        .call(Method::POST, MAPS, &settings(&json!({"k": "1"})))
        .await;
    for number in 0..14 {
        let patch = json!({"data": {format!("k{number:02}"): "1"}});
        merge(
            &world,
            &format!("{SETTINGS}?fieldManager=m{number:02}"),
            &patch,
        )
        .await;
    }
    let (_, object) = world.get(SETTINGS).await;
    let lines = owners(&object);
    assert_eq!(lines.lines().count(), 10, "{lines}");
    assert!(lines.contains("ancient-changes Update"), "{lines}");
}

#[tokio::test]
async fn the_scale_of_an_object_shares_the_owner_of_its_replicas() {
    let world = World::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments/web";
    let deployment = |replicas: Value| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web"}]}},
        }})
    };
    let (status, made) = apply(&world, path, "fieldManager=a", &deployment(json!(1))).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let scale = |replicas: i64| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": replicas}});
    let scale_path = format!("{path}/scale");
    let (status, answer) = apply(&world, &scale_path, "fieldManager=b", &scale(2)).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    assert_eq!(
        answer["message"],
        "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas"
    );
    let (status, answer) = apply(&world, &scale_path, "fieldManager=b&force=true", &scale(2)).await;
    assert_eq!(
        (status, &answer["kind"]),
        (StatusCode::OK, &json!("Scale")),
        "{answer}"
    );
    let (_, object) = world.get(path).await;
    assert_eq!(object["spec"]["replicas"], 2);
    let owners = owners(&object);
    assert!(
        owners.contains(r#"b Apply scale: {"f:spec":{"f:replicas":{}}}"#),
        "{owners}"
    );
    assert_eq!(owners.matches("f:replicas").count(), 1, "{owners}");
    let (status, answer) = apply(&world, path, "fieldManager=a", &deployment(json!(3))).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(
        answer["message"],
        "Apply failed with 1 conflict: conflict with \"b\" with subresource \"scale\": .spec.replicas"
    );
    // An update through the scale takes the replicas too.
    merge(
        &world,
        &format!("{scale_path}?fieldManager=c"),
        &json!({"spec": {"replicas": 5}}),
    )
    .await;
    let (_, object) = world.get(path).await;
    let owners = self::owners(&object);
    assert!(
        owners.contains(r#"c Update scale: {"f:spec":{"f:replicas":{}}}"#),
        "{owners}"
    );
    assert_eq!(owners.matches("f:replicas").count(), 1, "{owners}");
}

#[tokio::test]
async fn entries_of_another_version_are_followed() {
    let world = World::start().await;
    let path = |version: &str| {
        format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers/web")
    };
    let one = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}, "spec": {
        "maxReplicas": 3, "targetCPUUtilizationPercentage": 50, "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"},
    }});
    let (status, made) = apply(&world, &path("v1"), "fieldManager=a", &one).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let two = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}, "spec": {"maxReplicas": 4}});
    let (status, answer) = apply(&world, &path("v2"), "fieldManager=b", &two).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(
        answer["message"],
        "Apply failed with 1 conflict: conflict with \"a\": .spec.maxReplicas"
    );
    let mut less = one.clone();
    less["spec"]
        .as_object_mut()
        .unwrap()
        .remove("targetCPUUtilizationPercentage");
    let (status, object) = apply(&world, &path("v1"), "fieldManager=a", &less).await;
    assert_eq!(status, StatusCode::OK, "{object}");
    // What its owner no longer applies has its default again, in both versions.
    assert_eq!(object["spec"]["targetCPUUtilizationPercentage"], 80);
    let (_, object) = world.get(&path("v2")).await;
    let target = &object["spec"]["metrics"][0]["resource"]["target"];
    assert_eq!(target["averageUtilization"], 80, "{object}");
}
