//! What is passed on to nodes, pods and services: what is refused before anybody is
//! asked, and what a server behind sees and is seen of. A kubelet itself takes part in
//! `tests/tests/streaming.rs`.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::{Html, IntoResponse, Redirect, Response};
use nautilus_machinery::identity::User;
use nautilus_rest::RequestLimits;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::world::{World, own_address, parts, plain_client, text, within};

async fn create(world: &World, path: &str, object: &Value) -> Value {
    let (status, created) = world.call(Method::POST, path, object).await;
    assert_eq!(status, StatusCode::CREATED, "{created}");
    created
}

async fn pod(world: &World, name: &str, containers: &[&str], node: Option<&str>) {
    let containers: Vec<Value> = containers
        .iter()
        .map(|name| json!({ "name": name, "image": "x" }))
        .collect();
    let mut object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name }, "spec": { "containers": containers },
    });
    if let Some(node) = node {
        object["spec"]["nodeName"] = node.into();
    }
    create(world, "/api/v1/namespaces/default/pods", &object).await;
}

async fn message(world: &World, path: &str) -> (u16, String) {
    let (status, answer) = world.get(path).await;
    (status.as_u16(), text(&answer["message"]))
}

#[tokio::test]
async fn a_container_that_is_not_there_is_named() {
    let world = World::start().await;
    pod(&world, "two", &["a", "b"], Some("gone")).await;
    let path = "/api/v1/namespaces/default/pods/two";
    let refusals = [
        (
            "log",
            400,
            "a container name must be specified for pod two, choose one of: [a b]",
        ),
        (
            "log?container=x",
            400,
            "container x is not valid for pod two",
        ),
        (
            "exec?container=x&command=true",
            400,
            "container x is not valid for pod two",
        ),
        ("log?container=a", 404, "nodes \"gone\" not found"),
        ("attach?container=a", 404, "nodes \"gone\" not found"),
        ("portforward", 404, "nodes \"gone\" not found"),
    ];
    for (what, code, expected) in refusals {
        let refusal = message(&world, &format!("{path}/{what}")).await;
        assert_eq!(refusal, (code, expected.to_owned()), "{what}");
    }
    let missing = message(&world, "/api/v1/namespaces/default/pods/none/log").await;
    assert_eq!(missing, (404, "pods \"none\" not found".to_owned()));
}

#[tokio::test]
async fn a_pod_without_a_node_has_said_nothing() {
    let world = World::start().await;
    pod(&world, "waits", &["a"], None).await;
    let path = "/api/v1/namespaces/default/pods/waits";
    let (status, log) = world.get(&format!("{path}/log")).await;
    assert_eq!(
        (status, log),
        (StatusCode::NO_CONTENT, Value::String(String::new()))
    );
    let refusal = message(&world, &format!("{path}/exec?command=true")).await;
    assert_eq!(
        refusal,
        (400, "pod waits does not have a host assigned".to_owned())
    );
}

#[tokio::test]
async fn senseless_options_are_named_before_anybody_is_asked() {
    let world = World::start().await;
    let path = "/api/v1/namespaces/default/pods/any/log?tailLines=-1&stream=Stdout";
    let (status, answer) = world.get(path).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let fields: Vec<String> = answer["details"]["causes"]
        .as_array()
        .expect("causes")
        .iter()
        .map(|cause| text(&cause["field"]))
        .collect();
    assert_eq!(fields, ["tailLines", "stream"]);
}

#[tokio::test]
async fn an_unreachable_kubelet_is_told_of() {
    let world = World::start().await;
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n" } });
    create(&world, "/api/v1/nodes", &node).await;
    pod(&world, "p", &["a"], Some("n")).await;
    let path = "/api/v1/namespaces/default/pods/p/log";
    let refusal = message(&world, path).await;
    assert_eq!(
        refusal,
        (
            500,
            "no preferred addresses found; known addresses: []".to_owned()
        )
    );
    let status = json!({ "status": {
        "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": 1 } },
    } });
    let patch = "application/merge-patch+json";
    let path_of_node = "/api/v1/nodes/n/status";
    let patched = world
        .send(Method::PATCH, path_of_node, patch, status.to_string())
        .await;
    assert_eq!(patched.status(), StatusCode::OK);
    let (code, said) = message(&world, path).await;
    assert_eq!(code, 500);
    assert!(
        said.ends_with("dial tcp 127.0.0.1:1: connect: connection refused"),
        "{said}"
    );
    // Nobody gets at this machine through the address of a node.
    let refusal = message(&world, "/api/v1/nodes/n/proxy/healthz").await;
    assert_eq!(refusal, (400, "address not allowed".to_owned()));
}

#[tokio::test]
async fn who_may_only_get_opens_no_stream() {
    let jane = User::authenticated("jane", vec!["dev".into()]);
    let world = World::start_with(jane, RequestLimits::default()).await;
    let path = "/api/v1/namespaces/default/pods/p/exec?command=true";
    let (status, answer) = world.get(path).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(
        answer["message"],
        "pods \"p\" is forbidden: User \"jane\" cannot get resource \"pods/exec\" in API group \
         \"\" in the namespace \"default\""
    );
}

/// Says back what it was asked; `/page` has links, `/away` leads elsewhere.
async fn echo(request: Request) -> Response {
    let path = request.uri().to_string();
    if path == "/page" {
        return Html("<a href=\"/rewriteme\">x</a>").into_response();
    }
    if path == "/away" {
        return Redirect::temporary("/elsewhere").into_response();
    }
    let method = request.method().to_string();
    let headers: HeaderMap = request.headers().clone();
    let names: Vec<(String, String)> = headers
        .iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await;
    let body = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
    let headers: serde_json::Map<String, Value> = names
        .into_iter()
        .map(|(name, value)| (name, value.into()))
        .collect();
    axum::Json(json!({ "method": method, "path": path, "headers": headers, "body": body }))
        .into_response()
}

/// A pod `web` that serves the echo, behind the Service `web`.
pub(crate) async fn web(world: &World) {
    let listener = TcpListener::bind((own_address(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(echo);
    tokio::spawn(async move { axum::serve(listener, app).await });
    let port = address.port();
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "web" },
        "spec": { "nodeName": "n", "containers": [
            { "name": "a", "image": "x", "ports": [{ "containerPort": port }] },
        ] },
    });
    create(world, "/api/v1/namespaces/default/pods", &object).await;
    let ip = address.ip().to_string();
    let status = json!({ "status": { "podIP": ip, "podIPs": [{ "ip": ip }] } });
    let path = "/api/v1/namespaces/default/pods/web/status";
    let media = "application/merge-patch+json";
    let patched = world
        .send(Method::PATCH, path, media, status.to_string())
        .await;
    assert_eq!(patched.status(), StatusCode::OK);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
        "spec": { "ports": [{ "name": "http", "port": 80, "targetPort": port }] },
    });
    create(world, "/api/v1/namespaces/default/services", &service).await;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": "web-1", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": port, "protocol": "TCP" }],
        "endpoints": [{
            "addresses": [ip], "conditions": { "ready": true },
            "targetRef": { "kind": "Pod", "name": "web", "namespace": "default" },
        }],
    });
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    create(world, path, &slice).await;
}

#[tokio::test]
async fn pods_and_services_are_reached_by_any_method_and_learn_no_credential() {
    let world = World::start().await;
    web(&world).await;
    let base = "/api/v1/namespaces/default";
    for place in [
        "pods/web/proxy".to_owned(),
        "services/web:http/proxy".to_owned(),
        "services/web:80/proxy".to_owned(),
        "services/http:web:http/proxy".to_owned(),
    ] {
        let sent = world
            .client
            .put(format!(
                "{}{base}/{place}/a//b/?x=%201&watch=true",
                world.base
            ))
            .header("authorization", "Bearer secret")
            .header("x-own", "kept")
            .header("connection", "x-hop, close")
            .header("x-hop", "this hop only")
            .body("content");
        let (status, seen) = parts(within(sent.send()).await.unwrap()).await;
        assert_eq!(status, StatusCode::OK, "{place}: {seen}");
        assert_eq!(seen["method"], "PUT");
        assert_eq!(seen["path"], "/a/b/?x=%201&watch=true", "{place}");
        assert_eq!(seen["body"], "content");
        assert_eq!(seen["headers"]["x-own"], "kept");
        for gone in ["authorization", "x-hop"] {
            assert_eq!(seen["headers"][gone], Value::Null, "{gone}: {seen}");
        }
        assert_eq!(seen["headers"]["x-forwarded-for"], "127.0.0.1");
        assert_eq!(
            seen["headers"]["x-forwarded-uri"],
            format!("{base}/{place}/a/b/")
        );
    }
}

#[tokio::test]
async fn links_and_redirections_lead_through_the_proxy_again() {
    let world = World::start().await;
    web(&world).await;
    let base = "/api/v1/namespaces/default/pods/web/proxy";
    let (_, page) = world.get(&format!("{base}/page")).await;
    assert_eq!(page, format!("<a href=\"{base}/rewriteme\">x</a>"));
    let client = plain_client(reqwest::redirect::Policy::none());
    for (path, status, leads) in [
        ("/away", 307, format!("{base}/elsewhere")),
        ("?a=b", 301, format!("{base}/?a=b")),
    ] {
        let asked = client.get(format!("{}{base}{path}", world.base)).send();
        let answer = within(asked).await.unwrap();
        assert_eq!(answer.status().as_u16(), status);
        assert_eq!(answer.headers()["location"], leads.as_str());
    }
}

#[tokio::test]
async fn a_service_without_endpoints_is_unavailable() {
    let world = Arc::new(World::start().await);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "none" },
        "spec": { "ports": [{ "port": 80 }] },
    });
    create(&world, "/api/v1/namespaces/default/services", &service).await;
    let base = "/api/v1/namespaces/default/services";
    for (path, code, said) in [
        (
            "none/proxy/x",
            503,
            "no endpoints available for service \"none\"",
        ),
        (
            "none:81/proxy/x",
            503,
            "no service port 81 found for service \"none\"",
        ),
        ("gone:80/proxy/x", 404, "services \"gone\" not found"),
        (
            "ftp:none:80/proxy/x",
            400,
            "invalid service request \"ftp:none:80\"",
        ),
    ] {
        let refusal = message(&world, &format!("{base}/{path}")).await;
        assert_eq!(refusal, (code, said.to_owned()), "{path}");
    }
}
