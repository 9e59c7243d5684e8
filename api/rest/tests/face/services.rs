//! Services: what they are given, and that nothing is given twice or lost.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::{World, text};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

fn service(name: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["ports"] = json!([{ "port": 80 }]);
    json!({ "metadata": { "name": name }, "spec": spec })
}

async fn create(world: &World, name: &str, spec: &Value) -> (StatusCode, Value) {
    let service = service(name, spec);
    world.call(Method::POST, SERVICES, &service).await
}

#[tokio::test]
async fn a_service_is_given_an_address_and_a_node_port() {
    let world = World::start().await;
    let (status, made) = create(&world, "a", &json!({ "type": "NodePort" })).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let address = text(&made["spec"]["clusterIP"]);
    assert!(address.starts_with("10."), "{made}");
    assert_eq!(made["spec"]["clusterIPs"], json!([address]));
    let port = made["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    assert!((30_000..=32_767).contains(&port), "{port}");

    let (status, object) = world.get(&format!("{ADDRESSES}/{address}")).await;
    assert_eq!(status, StatusCode::OK);
    let parent = json!({ "resource": "services", "namespace": "default", "name": "a" });
    assert_eq!(object["spec"]["parentRef"], parent);

    let taken = json!({ "type": "NodePort", "clusterIP": address });
    let (status, answer) = create(&world, "b", &taken).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    let why = "failed to allocate IP";
    assert!(text(&answer["message"]).contains(why), "{answer}");
    let (status, _) = world.get(&format!("{SERVICES}/b")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);

    world.delete(&format!("{SERVICES}/a")).await;
    let (status, answer) = create(&world, "b", &taken).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
}

#[tokio::test]
async fn a_dry_run_takes_nothing() {
    let world = World::start().await;
    let before = world.get(ADDRESSES).await.1;
    let path = format!("{SERVICES}?dryRun=All");
    let object = service("a", &json!({}));
    let (status, made) = world.call(Method::POST, &path, &object).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert!(!text(&made["spec"]["clusterIP"]).is_empty());
    let after = world.get(ADDRESSES).await.1;
    assert_eq!(before["items"], after["items"]);
}

#[tokio::test]
async fn what_a_service_gives_up_is_free_again() {
    let world = World::start().await;
    let (_, made) = create(&world, "a", &json!({ "type": "NodePort" })).await;
    let address = text(&made["spec"]["clusterIP"]);
    let external = json!({
        "metadata": { "name": "a", "resourceVersion": made["metadata"]["resourceVersion"] },
        "spec": { "type": "ExternalName", "externalName": "example.org" },
    });
    let path = format!("{SERVICES}/a");
    let (status, changed) = world.call(Method::PUT, &path, &external).await;
    assert_eq!(status, StatusCode::OK, "{changed}");
    let (status, _) = world.get(&format!("{ADDRESSES}/{address}")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let port = &made["spec"]["ports"][0]["nodePort"];
    let wanted = json!({
        "metadata": { "name": "b" },
        "spec": {
            "type": "NodePort", "clusterIP": address,
            "ports": [{ "port": 80, "nodePort": port }],
        },
    });
    let (status, answer) = world.call(Method::POST, SERVICES, &wanted).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
}

#[tokio::test]
async fn services_made_at_once_share_nothing() {
    let world = World::start().await;
    let spec = json!({ "type": "NodePort" });
    let names: Vec<String> = (0..40).map(|at| format!("s{at}")).collect();
    let made = names.iter().map(|name| create(&world, name, &spec));
    let made = futures_util::future::join_all(made).await;
    let mut addresses = BTreeSet::new();
    let mut ports = BTreeSet::new();
    for (status, service) in &made {
        assert_eq!(*status, StatusCode::CREATED, "{service}");
        addresses.insert(text(&service["spec"]["clusterIP"]));
        ports.insert(service["spec"]["ports"][0]["nodePort"].as_u64());
    }
    assert_eq!((addresses.len(), ports.len()), (40, 40));
}
