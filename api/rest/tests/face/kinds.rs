//! Every kind of the table, in every form: `samples.json` holds one object of each that
//! the reference accepts.

use std::collections::BTreeSet;

use nautilus_machinery::codec::{self, MediaType};
use nautilus_machinery::resource::{self, Resource};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::world::{World, parts, text, within};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

fn samples() -> Vec<(&'static Resource, Value)> {
    let samples: Vec<Value> = serde_json::from_str(include_str!("samples.json")).unwrap();
    let find = |sample: Value| {
        let api_version = text(&sample["apiVersion"]);
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let kind = text(&sample["kind"]);
        let found = resource::find_kind(group, version, &kind).expect("in the table");
        (found.as_ref(), sample)
    };
    samples.into_iter().map(find).collect()
}

fn collection(resource: &Resource) -> String {
    let root = match resource.group.as_str() {
        "" => format!("/api/{}", resource.version),
        group => format!("/apis/{group}/{}", resource.version),
    };
    match resource.namespaced {
        true => format!("{root}/namespaces/default/{}", resource.plural),
        false => format!("{root}/{}", resource.plural),
    }
}

#[test]
fn there_is_a_sample_of_every_stored_kind() {
    let samples = samples();
    let sampled: BTreeSet<&str> = samples.iter().map(|(r, _)| r.schema.as_str()).collect();
    let stored = resource::all().iter().filter(|r| r.is_stored());
    let missing: Vec<&str> = stored
        .map(|r| r.schema.as_str())
        .filter(|schema| !sampled.contains(schema))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn every_kind_is_created_read_listed_watched_and_deleted() {
    let world = World::start().await;
    for (resource, sample) in samples() {
        let path = collection(resource);
        let name = text(&sample["metadata"]["name"]);
        let (code, list) = world.get(&path).await;
        assert_eq!(code, StatusCode::OK, "{path}: {list}");
        assert_eq!(list["kind"], resource.list_kind());
        let from = text(&list["metadata"]["resourceVersion"]);
        let mut events = world
            .watch(&format!("{path}?watch=true&resourceVersion={from}"))
            .await;

        let (code, created) = world
            .call(
                Method::POST,
                &format!("{path}?fieldValidation=Strict"),
                &sample,
            )
            .await;
        assert_eq!(code, StatusCode::CREATED, "{path}: {created}");
        let (code, read) = world.get(&format!("{path}/{name}")).await;
        assert_eq!((code, &read), (StatusCode::OK, &created), "{path}");
        assert_eq!(read["kind"], resource.kind);
        let (_, list) = world.get(&path).await;
        let listed = list["items"].as_array().unwrap();
        assert!(
            listed.iter().any(|item| item["metadata"]["name"] == *name),
            "{path}: {list}"
        );
        let event = events.next().await.expect("the watch goes on");
        assert_eq!(
            (&event["type"], &event["object"]),
            (&"ADDED".into(), &created)
        );

        let (code, gone) = world
            .delete(&format!("{path}/{name}?gracePeriodSeconds=0"))
            .await;
        assert_eq!(code, StatusCode::OK, "{path}: {gone}");
    }
}

#[tokio::test]
async fn every_kind_is_created_and_read_as_protobuf() {
    let world = World::start().await;
    for (resource, sample) in samples() {
        let path = collection(resource);
        let name = text(&sample["metadata"]["name"]);
        let json = codec::decode(
            &resource.schema,
            MediaType::Json,
            sample.to_string().as_bytes(),
        );
        let body = codec::encode_protobuf(&resource.schema, &json.unwrap()).unwrap();
        let created = world.send(Method::POST, &path, PROTOBUF, body).await;
        let (code, created) = parts(created).await;
        assert_eq!(code, StatusCode::CREATED, "{path}: {created}");
        let url = format!("{}{path}/{name}", world.base);
        let read = world.client.get(url).header("accept", PROTOBUF).send();
        let read = within(read).await.unwrap();
        assert_eq!(read.headers()["content-type"], PROTOBUF);
        let read = codec::decode(
            &resource.schema,
            MediaType::Protobuf,
            &within(read.bytes()).await.unwrap(),
        );
        let again = codec::encode_protobuf(&resource.schema, &read.unwrap()).unwrap();
        let expected = codec::encode_protobuf(&resource.schema, &created).unwrap();
        assert_eq!(again, expected, "{path}");
        // Limits and quotas would count for those that follow.
        world
            .delete(&format!("{path}/{name}?gracePeriodSeconds=0"))
            .await;
    }
}

#[tokio::test]
async fn a_scale_is_read_set_and_patched() {
    let world = World::start().await;
    let deployment = samples()
        .into_iter()
        .find(|(resource, _)| resource.plural == "deployments");
    let (_, deployment) = deployment.unwrap();
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let (code, created) = world.call(Method::POST, path, &deployment).await;
    assert_eq!(code, StatusCode::CREATED, "{created}");

    let scale = format!("{path}/sample/scale");
    let (code, mut read) = world.get(&scale).await;
    assert_eq!(code, StatusCode::OK, "{read}");
    assert_eq!(
        (&read["kind"], &read["apiVersion"]),
        (&"Scale".into(), &"autoscaling/v1".into())
    );
    assert_eq!(read["status"]["selector"], "a=b");
    let version = read["metadata"]["resourceVersion"].clone();

    read["spec"]["replicas"] = 4.into();
    let (code, set) = world.call(Method::PUT, &scale, &read).await;
    assert_eq!(
        (code, &set["spec"]["replicas"]),
        (StatusCode::OK, &4.into()),
        "{set}"
    );
    let (_, object) = world.get(&format!("{path}/sample")).await;
    assert_eq!(object["spec"]["replicas"], 4);
    assert_eq!(object["metadata"]["generation"], 2);

    // The version that the scale named is gone by now.
    read["metadata"]["resourceVersion"] = version;
    let (code, conflict) = world.call(Method::PUT, &scale, &read).await;
    assert_eq!(code, StatusCode::CONFLICT, "{conflict}");

    let patch = world.send(
        Method::PATCH,
        &scale,
        "application/merge-patch+json",
        r#"{"spec":{"replicas":2}}"#,
    );
    let (code, patched) = parts(patch.await).await;
    assert_eq!(
        (code, &patched["spec"]["replicas"]),
        (StatusCode::OK, &2.into()),
        "{patched}"
    );

    read["metadata"]["resourceVersion"] = "".into();
    read["spec"]["replicas"] = (-1).into();
    let (code, refused) = world.call(Method::PUT, &scale, &read).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    assert_eq!(refused["details"]["kind"], "Scale");
}

#[tokio::test]
async fn an_autoscaler_is_one_object_in_two_versions() {
    let world = World::start().await;
    let v1 = samples()
        .into_iter()
        .find(|(resource, _)| resource.api_version() == "autoscaling/v1");
    let (_, v1) = v1.unwrap();
    let path = |version: &str| {
        format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers")
    };
    let (code, created) = world.call(Method::POST, &path("v1"), &v1).await;
    assert_eq!(code, StatusCode::CREATED, "{created}");
    assert_eq!(created["spec"]["targetCPUUtilizationPercentage"], 50);
    let (code, v2) = world.get(&format!("{}/sample-v1", path("v2"))).await;
    assert_eq!(code, StatusCode::OK, "{v2}");
    assert_eq!(v2["apiVersion"], "autoscaling/v2");
    let target = &v2["spec"]["metrics"][0]["resource"]["target"];
    assert_eq!(target["averageUtilization"], 50);
}
