//! Extension servers: one stands beside the face, on TLS, and takes users from the front
//! proxy alone.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::StreamExt as _;
use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, LOCATION, UPGRADE};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use reqwest::{Method, StatusCode};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::world::{World, own_address, provider, text, within};

const APISERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const WIDGETS: &str = "/apis/example.org/v1/namespaces/default/widgets";

/// An extension server's answers.
async fn widgets(mut request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let aggregated = request
        .headers()
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("APIGroupDiscoveryList"));
    if request.headers().contains_key(UPGRADE) {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            let mut said = [0; 4];
            stream.read_exact(&mut said).await.unwrap();
            said.reverse();
            stream.write_all(&said).await.unwrap();
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        for (name, value) in [(CONNECTION, "Upgrade"), (UPGRADE, "backwards")] {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        return response;
    }
    match path.as_str() {
        "/apis" if aggregated => (
            [(
                CONTENT_TYPE,
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            )],
            json!({ "kind": "APIGroupDiscoveryList", "items": [{
                "metadata": { "name": "example.org" },
                "versions": [{ "version": "v1", "resources": [{ "resource": "widgets" }] }],
            }] })
            .to_string(),
        )
            .into_response(),
        "/apis/example.org/v1" => axum::Json(json!({
            "kind": "APIResourceList", "groupVersion": "example.org/v1", "resources": [
                { "name": "widgets", "singularName": "widget", "namespaced": true,
                  "kind": "Widget", "verbs": ["get", "list", "watch"] },
            ],
        }))
        .into_response(),
        "/openapi/v3" => axum::Json(json!({ "paths": { "apis/example.org/v1": {
            "serverRelativeURL": "/openapi/v3/apis/example.org/v1?hash=ABC",
        } } }))
        .into_response(),
        "/openapi/v3/apis/example.org/v1" => {
            axum::Json(json!({ "openapi": "3.0.0" })).into_response()
        }
        "/openapi/v2" => axum::Json(json!({ "swagger": "2.0",
            "paths": { "/apis/example.org/v1/widgets": { "get": {} }, "/api/v1/stolen": {} },
            "definitions": { "org.example.v1.Widget": { "type": "object" } },
        }))
        .into_response(),
        "/apis/example.org/v1/away" => (
            StatusCode::FOUND,
            [(LOCATION, "https://elsewhere.example/")],
        )
            .into_response(),
        _ if query.contains("watch=true") => {
            let lines = futures_util::stream::iter(["{\"type\":\"ADDED\"}\n"])
                .map(Ok::<_, Infallible>)
                .chain(futures_util::stream::pending());
            Body::from_stream(lines).into_response()
        }
        _ => {
            let headers: Vec<(String, String)> = request
                .headers()
                .iter()
                .map(|(name, value)| {
                    (
                        name.to_string(),
                        String::from_utf8_lossy(value.as_bytes()).into_owned(),
                    )
                })
                .collect();
            axum::Json(json!({ "path": path, "query": query, "headers": headers })).into_response()
        }
    }
}

/// Serves [`widgets`] to clients of the front proxy's authority; the authority of its own
/// certificate, as PEM.
async fn extension_server(
    address: std::net::IpAddr,
    front_proxy: &str,
    stop: CancellationToken,
) -> (SocketAddr, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["ext.default.svc".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(front_proxy.as_bytes()).unwrap();
    roots.add(authority).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(widgets);
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, app) = (acceptor.clone(), app.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = hyper::service::service_fn(move |request: hyper::Request<_>| {
                    app.clone().oneshot(request.map(Body::new))
                });
                let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
            });
        }
    }));
    (address, certificate.pem())
}

async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), found)
        .await
        .unwrap_or_else(|_| panic!("waited for {what}"))
}

/// The condition of an APIService, as status, reason and message.
async fn condition(world: &World, name: &str) -> Option<[String; 3]> {
    let (_, service) = world.get(&format!("{APISERVICES}/{name}")).await;
    let condition = service["status"]["conditions"].as_array()?.first()?.clone();
    Some(["status", "reason", "message"].map(|field| text(&condition[field])))
}

async fn create(world: &World, path: &str, object: &Value) {
    let (status, created) = world.call(Method::POST, path, object).await;
    assert_eq!(status, StatusCode::CREATED, "{created}");
}

/// A world whose leader keeps what it should, with the front proxy's authority.
async fn kept() -> (World, String) {
    let world = World::start().await;
    world.kv.lead(1, true);
    tokio::spawn(nautilus_rest::run_controllers(
        world.context.clone(),
        6443,
        world.shutdown.clone(),
    ));
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let told = eventually("the ConfigMap", async || {
        let (status, told) = world.get(path).await;
        (status == StatusCode::OK).then_some(told)
    })
    .await;
    let data = &told["data"];
    assert_eq!(
        data["requestheader-allowed-names"],
        "[\"front-proxy-client\"]"
    );
    assert_eq!(
        data["requestheader-username-headers"],
        "[\"X-Remote-User\"]"
    );
    assert_eq!(data["client-ca-file"], world.authority.certificate_pem());
    let front_proxy = text(&data["requestheader-client-ca-file"]);
    assert_ne!(front_proxy, world.authority.certificate_pem());
    (world, front_proxy)
}

async fn register(world: &World, ca_bundle: &str) {
    let object = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": { "name": "v1.example.org" },
        "spec": {
            "group": "example.org", "version": "v1",
            "groupPriorityMinimum": 1000, "versionPriority": 15,
            "service": { "namespace": "default", "name": "ext", "port": 443 },
            "caBundle": BASE64.encode(ca_bundle),
        },
    });
    create(world, APISERVICES, &object).await;
}

async fn expose(world: &World, address: SocketAddr) {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "ext" },
        "spec": { "ports": [{ "port": 443, "targetPort": address.port() }] },
    });
    create(world, "/api/v1/namespaces/default/services", &service).await;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": "ext-1", "labels": { "kubernetes.io/service-name": "ext" } },
        "addressType": "IPv4",
        "ports": [{ "name": "", "port": address.port(), "protocol": "TCP" }],
        "endpoints": [{ "addresses": [address.ip().to_string()] }],
    });
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    create(world, path, &slice).await;
}

#[tokio::test]
async fn what_this_server_answers_itself_is_registered_and_always_available() {
    let (world, _) = kept().await;
    for name in ["v1.", "v1.apps", "v1.rbac.authorization.k8s.io"] {
        let judged = eventually(name, async || condition(&world, name).await).await;
        assert_eq!(
            judged,
            ["True", "Local", "Local APIServices are always available"]
        );
    }
    let (_, core) = world.get(&format!("{APISERVICES}/v1.")).await;
    assert_eq!(core["spec"]["groupPriorityMinimum"], 18_000);
    let label = &core["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"];
    assert_eq!(*label, "onstart");
}

#[tokio::test]
async fn an_extension_server_is_asked_as_the_front_proxy_and_learns_who_asks() {
    let (world, front_proxy) = kept().await;
    let stop = CancellationToken::new();
    let (address, authority) = extension_server(own_address(), &front_proxy, stop.clone()).await;
    register(&world, &authority).await;
    let missing = [
        "False",
        "ServiceNotFound",
        "service/ext in \"default\" is not present",
    ];
    eventually("the verdict", async || {
        (condition(&world, "v1.example.org").await? == missing).then_some(())
    })
    .await;
    let (status, said) = world.get(WIDGETS).await;
    assert_eq!(
        (status, said),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "service unavailable\n".into()
        )
    );

    expose(&world, address).await;
    // The leader looks anew now and then; a touch of the APIService makes it look at once.
    let touch = json!({ "metadata": { "annotations": { "looked": "1" } } });
    let media = "application/merge-patch+json";
    let path = format!("{APISERVICES}/v1.example.org");
    world
        .send(Method::PATCH, &path, media, touch.to_string())
        .await;
    eventually("the extension server", async || {
        let judged = condition(&world, "v1.example.org").await?;
        (judged == ["True", "Passed", "all checks passed"]).then_some(())
    })
    .await;

    let asked = world
        .client
        .get(format!("{}{WIDGETS}?x=1", world.base))
        .header("x-remote-user", "somebody-else")
        .header("x-remote-group", "system:nobody")
        .header("authorization-x", "kept");
    let answer = eventually("its answer", async || {
        let answer = asked.try_clone()?.send().await.ok()?;
        let answer: Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
        answer["headers"].is_array().then_some(answer)
    })
    .await;
    assert_eq!(
        (&answer["path"], &answer["query"]),
        (&json!(WIDGETS), &json!("x=1"))
    );
    let seen = |name: &str| -> Vec<String> {
        let headers = answer["headers"].as_array().unwrap();
        let own = headers.iter().filter(|pair| pair[0] == name);
        own.map(|pair| text(&pair[1])).collect()
    };
    assert_eq!(seen("x-remote-user"), ["admin"]);
    assert_eq!(
        seen("x-remote-group"),
        ["system:masters", "system:authenticated"]
    );
    assert_eq!(seen("authorization-x"), ["kept"]);
    assert_eq!(seen("audit-id").len(), 1);

    discovered(&world).await;
    streamed(&world).await;

    let (status, refused) = world.get("/apis/example.org/v1/away").await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(
        text(&refused).contains("attempted to redirect"),
        "{refused}"
    );

    stop.cancel();
    let touch = json!({ "metadata": { "annotations": { "looked": "2" } } });
    world
        .send(Method::PATCH, &path, media, touch.to_string())
        .await;
    let judged = eventually("the end", async || {
        let judged = condition(&world, "v1.example.org").await?;
        (judged[0] == "False").then_some(judged)
    })
    .await;
    assert_eq!(judged[1], "FailedDiscoveryCheck");
    assert!(
        judged[2].starts_with("failing or missing response from https://")
            && judged[2].ends_with("connect: connection refused"),
        "{judged:?}"
    );
}

async fn discovered(world: &World) {
    let (_, list) = world.get("/apis").await;
    let groups = list["groups"].as_array().unwrap();
    let group = groups.iter().find(|group| group["name"] == "example.org");
    assert_eq!(group.unwrap()["preferredVersion"]["version"], "v1");
    let (_, group) = world.get("/apis/example.org").await;
    assert_eq!(group["versions"][0]["groupVersion"], "example.org/v1");
    let (_, resources) = world.get("/apis/example.org/v1").await;
    assert_eq!(resources["resources"][0]["name"], "widgets");
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    eventually("aggregated discovery", async || {
        let (_, list) = world.get_as("/apis", accept).await;
        let items = list["items"].as_array().unwrap().clone();
        let item = items
            .into_iter()
            .find(|item| item["metadata"]["name"] == "example.org")?;
        let version = &item["versions"][0];
        (version["freshness"] == "Current" && version["resources"][0]["resource"] == "widgets")
            .then_some(())
    })
    .await;
    let (_, index) = world.get("/openapi/v3").await;
    let link = text(&index["paths"]["apis/example.org/v1"]["serverRelativeURL"]);
    assert_eq!(link, "/openapi/v3/apis/example.org/v1?hash=ABC");
    let (_, document) = world.get(&link).await;
    assert_eq!(document["openapi"], "3.0.0");
    let (_, v2) = world.get("/openapi/v2").await;
    assert!(v2["paths"]["/apis/example.org/v1/widgets"].is_object());
    assert!(v2["paths"]["/api/v1/stolen"].is_null());
    assert!(v2["definitions"]["org.example.v1.Widget"].is_object());
}

async fn streamed(world: &World) {
    let mut events = world.watch(&format!("{WIDGETS}?watch=true")).await;
    assert_eq!(events.next().await.expect("an event")["type"], "ADDED");

    let request = world
        .client
        .get(format!("{}{WIDGETS}", world.base))
        .header("connection", "Upgrade")
        .header("upgrade", "backwards");
    let answer = within(request.send()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut stream = within(answer.upgrade()).await.unwrap();
    stream.write_all(b"1234").await.unwrap();
    let mut said = [0; 4];
    within(stream.read_exact(&mut said)).await.unwrap();
    assert_eq!(&said, b"4321");
}
