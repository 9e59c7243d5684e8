//! Webhooks: a server of its own answers reviews over TLS.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nautilus_rest::{ConnectionLimits, ServingCertificate, serve_tls, server_config};
use parking_lot::Mutex;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::connects::web;
use crate::world::{World, own_address, parts, within};

type Answerer = Arc<dyn Fn(&Value) -> Value + Send + Sync>;

/// A server of webhooks: what it was asked, and where it listens.
pub(crate) struct Hooks {
    seen: Arc<Mutex<Vec<Value>>>,
    port: u16,
    ca: String,
}

#[derive(Clone)]
struct Serving {
    seen: Arc<Mutex<Vec<Value>>>,
    answer: Answerer,
}

async fn serve(State(serving): State<Serving>, Json(review): Json<Value>) -> Json<Value> {
    let request = review["request"].clone();
    let mut response = (serving.answer)(&request);
    serving.seen.lock().push(request.clone());
    if let Some(delay) = response["delayMs"].as_u64() {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    // In the old version nobody need say which review is answered.
    if review["apiVersion"] == "admission.k8s.io/v1beta1" {
        response["warnings"] = json!(["spoken in v1beta1"]);
        return Json(json!({"response": response}));
    }
    response["uid"] = request["uid"].clone();
    Json(json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response,
    }))
}

/// Serves webhooks over TLS; gives the port, and who vouches for it in base64.
pub(crate) async fn listen(world: &World, router: Router) -> (u16, String) {
    let names = vec!["127.0.0.1".to_owned(), "*.default.svc".to_owned()];
    let certificate = ServingCertificate::issue(world.authority.clone(), names).unwrap();
    let tls = server_config(&world.authority, certificate).unwrap();
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(serve_tls(
        listener,
        tls,
        router,
        ConnectionLimits::default(),
        Arc::default(),
        world.shutdown.clone(),
    ));
    (port, BASE64.encode(world.authority.certificate_pem()))
}

impl Hooks {
    pub(crate) async fn start(
        world: &World,
        answer: impl Fn(&Value) -> Value + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::<Mutex<Vec<Value>>>::default();
        let serving = Serving {
            seen: seen.clone(),
            answer: Arc::new(answer),
        };
        let router = Router::new().route("/", post(serve)).with_state(serving);
        let (port, ca) = listen(world, router).await;
        Self { seen, port, ca }
    }

    pub(crate) fn webhook(&self, name: &str) -> Value {
        json!({
            "name": name,
            "clientConfig": {
                "url": format!("https://127.0.0.1:{}/", self.port), "caBundle": self.ca,
            },
            "rules": [{
                "operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"],
                "resources": ["configmaps"], "scope": "*",
            }],
            "failurePolicy": "Fail", "sideEffects": "None", "timeoutSeconds": 5,
            "admissionReviewVersions": ["v1"],
        })
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

/// Registers webhooks and waits until they are asked: a dry run of an object that none of
/// the tests uses.
async fn register(world: &World, plural: &str, hooks: &Hooks, webhooks: Value) {
    let configuration = json!({"metadata": {"name": "hooks"}, "webhooks": webhooks});
    let (status, made) = world
        .call(Method::POST, &format!("{GROUP}/{plural}"), &configuration)
        .await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    within(async {
        while hooks.seen.lock().is_empty() {
            let probe = json!({"metadata": {"name": "probe"}});
            world
                .call(Method::POST, &format!("{MAPS}?dryRun=All"), &probe)
                .await;
        }
    })
    .await;
    hooks.seen.lock().clear();
}

async fn make(world: &World, name: &str) -> (StatusCode, Value) {
    world
        .call(Method::POST, MAPS, &json!({"metadata": {"name": name}}))
        .await
}

pub(crate) fn patch(patch: &Value) -> Value {
    let encoded = BASE64.encode(patch.to_string());
    json!({"allowed": true, "patch": encoded, "patchType": "JSONPatch"})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mutating_webhook_s_patch_is_stored() {
    let world = World::start().await;
    let hooks = Hooks::start(&world, |request| match request["operation"].as_str() {
        Some("CREATE") => {
            patch(&json!([{"op": "add", "path": "/metadata/labels", "value": {"seen": "yes"}}]))
        }
        _ => json!({"allowed": true, "warnings": ["careful"]}),
    })
    .await;
    let webhooks = json!([hooks.webhook("label.example.com")]);
    register(&world, "mutatingwebhookconfigurations", &hooks, webhooks).await;
    let (status, made) = make(&world, "a").await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(made["metadata"]["labels"], json!({"seen": "yes"}));
    let request = hooks.seen.lock()[0].clone();
    assert_eq!(request["userInfo"]["username"], "admin");
    assert_eq!(request["object"]["kind"], "ConfigMap");
    assert_eq!(request["resource"]["resource"], "configmaps");
    assert_eq!(request["oldObject"], Value::Null);
    let answer = world
        .send(
            Method::DELETE,
            &format!("{MAPS}/a"),
            "application/json",
            "{}",
        )
        .await;
    assert_eq!(answer.status(), StatusCode::OK);
    let deletion = hooks.seen.lock()[1].clone();
    assert_eq!(deletion["operation"], "DELETE");
    assert_eq!(deletion["oldObject"]["metadata"]["name"], "a");
    assert_eq!(deletion["object"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validating_webhook_refuses_in_its_own_words() {
    let world = World::start().await;
    let hooks = Hooks::start(&world, |request| {
        let allowed = request["object"]["metadata"]["name"] != "bad";
        json!({"allowed": allowed, "status": {"message": "not that one", "code": 422}})
    })
    .await;
    let mut webhook = hooks.webhook("deny.example.com");
    webhook["matchConditions"] = json!([
        {"name": "not-exempt", "expression": "!object.metadata.name.startsWith('exempt')"},
    ]);
    register(
        &world,
        "validatingwebhookconfigurations",
        &hooks,
        json!([webhook]),
    )
    .await;
    assert_eq!(make(&world, "good").await.0, StatusCode::CREATED);
    let (status, refused) = make(&world, "bad").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        refused["message"],
        "admission webhook \"deny.example.com\" denied the request: not that one"
    );
    hooks.seen.lock().clear();
    assert_eq!(make(&world, "exempt-1").await.0, StatusCode::CREATED);
    assert!(hooks.seen.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_too_slow_fails_the_request_unless_it_may_be_passed_over() {
    let world = World::start().await;
    let hooks = Hooks::start(&world, |request| {
        let slow = request["object"]["metadata"]["name"] != "probe";
        json!({"allowed": true, "delayMs": if slow { 3_000 } else { 0 }})
    })
    .await;
    let mut webhook = hooks.webhook("slow.example.com");
    webhook["timeoutSeconds"] = json!(1);
    register(
        &world,
        "validatingwebhookconfigurations",
        &hooks,
        json!([webhook]),
    )
    .await;
    let (status, refused) = make(&world, "a").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let url = format!("https://127.0.0.1:{}/?timeout=1s", hooks.port);
    assert_eq!(
        refused["message"],
        format!(
            "Internal error occurred: failed calling webhook \"slow.example.com\": failed to call \
             webhook: Post \"{url}\": context deadline exceeded"
        )
    );
    webhook["failurePolicy"] = json!("Ignore");
    let path = format!("{GROUP}/validatingwebhookconfigurations/hooks");
    let patch = json!([{"op": "replace", "path": "/webhooks/0", "value": webhook}]);
    let media = "application/json-patch+json";
    world
        .send(Method::PATCH, &path, media, patch.to_string())
        .await;
    within(async { while make(&world, "a").await.0 != StatusCode::CREATED {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_s_webhook_is_reached_by_its_endpoints() {
    let world = World::start().await;
    let hooks = Hooks::start(&world, |_| json!({"allowed": true})).await;
    let mut webhooks = Vec::new();
    // The first is the port that `https` stands for, the second none that it is served at.
    for port in [443, 8443] {
        let name = format!("hooks-{port}");
        let service = json!({
            "metadata": {"name": name}, "spec": {"ports": [{"port": port}]},
        });
        let services = "/api/v1/namespaces/default/services";
        world.call(Method::POST, services, &service).await;
        let slice = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [own_address()], "conditions": {"ready": true}}],
            "ports": [{"name": "", "port": hooks.port, "protocol": "TCP"}],
        });
        let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
        let (status, made) = world.call(Method::POST, path, &slice).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        let mut webhook = hooks.webhook(&format!("{name}.example.com"));
        webhook["clientConfig"] = json!({
            "service": {"namespace": "default", "name": name, "path": "/", "port": port},
            "caBundle": hooks.ca,
        });
        webhooks.push(webhook);
    }
    register(
        &world,
        "validatingwebhookconfigurations",
        &hooks,
        json!(webhooks),
    )
    .await;
    assert_eq!(make(&world, "a").await.0, StatusCode::CREATED);
    assert_eq!(hooks.seen.lock().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_asked_again_when_another_changed_the_object_after_it() {
    let world = World::start().await;
    let hooks = Hooks::start(&world, |request| {
        let labels = &request["object"]["metadata"]["labels"];
        match (labels["first"].as_str(), labels["second"].as_str()) {
            (None, _) => patch(&json!([
                {"op": "add", "path": "/metadata/labels", "value": {"first": "1"}},
            ])),
            (Some(_), None) => patch(&json!([
                {"op": "add", "path": "/metadata/labels/second", "value": "1"},
            ])),
            _ => patch(&json!([
                {"op": "add", "path": "/metadata/labels/first", "value": "2"},
            ])),
        }
    })
    .await;
    let mut first = hooks.webhook("first.example.com");
    first["reinvocationPolicy"] = json!("IfNeeded");
    let second = hooks.webhook("second.example.com");
    let webhooks = json!([first, second]);
    register(&world, "mutatingwebhookconfigurations", &hooks, webhooks).await;
    let (_, made) = make(&world, "a").await;
    assert_eq!(
        made["metadata"]["labels"],
        json!({"first": "2", "second": "1"})
    );
    assert_eq!(hooks.seen.lock().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_with_effects_of_its_own_is_refused() {
    let world = World::start().await;
    let hooks = Hooks::start(&world, |_| json!({"allowed": true})).await;
    let mut webhook = hooks.webhook("pure.example.com");
    webhook["sideEffects"] = json!("Some");
    let configuration = json!({"metadata": {"name": "hooks"}, "webhooks": [webhook]});
    let path = format!("{GROUP}/validatingwebhookconfigurations");
    let (status, refused) = world.call(Method::POST, &path, &configuration).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        refused["details"]["causes"],
        json!([{
            "reason": "FieldValueNotSupported", "field": "webhooks[0].sideEffects",
            "message": "Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
        }])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_proxies_are_connections_to_admission() {
    let world = World::start().await;
    web(&world).await;
    let hooks = Hooks::start(&world, |request| {
        let object = &request["object"];
        match object["kind"].as_str() {
            Some("PodExecOptions") => {
                let allowed = object["command"] != json!(["rm"]);
                json!({"allowed": allowed, "status": {"message": "not that", "code": 403}})
            }
            Some("PodProxyOptions") => patch(&json!([
                {"op": "replace", "path": "/path", "value": "elsewhere"},
            ])),
            Some("Eviction") => patch(&json!([
                {"op": "add", "path": "/deleteOptions", "value": {"preconditions": {"uid": "x"}}},
            ])),
            _ => json!({"allowed": true}),
        }
    })
    .await;
    let mut webhook = hooks.webhook("connect.example.com");
    webhook["rules"][0]["resources"] =
        json!(["configmaps", "pods/exec", "pods/proxy", "pods/eviction"]);
    let webhooks = json!([webhook]);
    register(&world, "mutatingwebhookconfigurations", &hooks, webhooks).await;

    let pods = "/api/v1/namespaces/default/pods";
    let (status, refused) = world
        .get(&format!("{pods}/none/exec?command=rm&tty=1"))
        .await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(
        refused["message"],
        "admission webhook \"connect.example.com\" denied the request: not that"
    );
    let request = hooks.seen.lock()[0].clone();
    assert_eq!(request["operation"], "CONNECT");
    assert_eq!(request["kind"]["kind"], "PodExecOptions");
    assert_eq!(request["subResource"], "exec");
    assert_eq!(
        request["object"],
        json!({
            "kind": "PodExecOptions", "apiVersion": "v1", "tty": true, "command": ["rm"],
        })
    );
    assert_eq!(request["options"], Value::Null);
    let (status, missing) = world.get(&format!("{pods}/none/exec?command=ls")).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{missing}");

    let (_, said) = world.get(&format!("{pods}/web/proxy/%61/../b/?x=1")).await;
    assert_eq!(said["path"], "/elsewhere?x=1");
    let seen = hooks.seen.lock().last().cloned().unwrap();
    assert_eq!(seen["object"]["path"], "b");

    let eviction = json!({"metadata": {"name": "web"}});
    let path = format!("{pods}/web/eviction");
    let (status, refused) = world.call(Method::POST, &path, &eviction).await;
    assert_eq!(status, StatusCode::CONFLICT, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_asked_in_the_first_version_it_names() {
    let world = World::start().await;
    let hooks = Hooks::start(&world, |request| {
        let mut answer =
            patch(&json!([{"op": "add", "path": "/metadata/labels", "value": {"seen": "yes"}}]));
        answer["patchType"] = Value::Null;
        answer["allowed"] = json!(request["name"] != "refused");
        answer
    })
    .await;
    let mut old = hooks.webhook("old.example.com");
    old["admissionReviewVersions"] = json!(["v0", "v1beta1", "v1"]);
    register(
        &world,
        "mutatingwebhookconfigurations",
        &hooks,
        json!([old]),
    )
    .await;
    let object = json!({"metadata": {"name": "a"}}).to_string();
    let answer = world
        .send(Method::POST, MAPS, "application/json", object)
        .await;
    assert_eq!(answer.headers()["warning"], "299 - \"spoken in v1beta1\"");
    let made: Value = answer.json().await.unwrap();
    assert_eq!(made["metadata"]["labels"], json!({"seen": "yes"}));
    let (status, refused) = make(&world, "refused").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_of_a_scale_leaves_the_rest_of_the_object() {
    let world = World::start().await;
    let hooks = Hooks::start(&world, |_| {
        patch(&json!([
            {"op": "add", "path": "/metadata/annotations", "value": {"seen": "1"}},
        ]))
    })
    .await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let labels = json!({"app": "web"});
    let deployment = json!({"metadata": {"name": "web"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {
            "containers": [{"name": "main", "image": "web"}],
        }},
    }});
    let (status, made) = world.call(Method::POST, deployments, &deployment).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let mut webhook = hooks.webhook("scale.example.com");
    let scales = json!({
        "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"],
        "resources": ["deployments/scale"],
    });
    webhook["rules"].as_array_mut().unwrap().push(scales);
    let kind = "mutatingwebhookconfigurations";
    register(&world, kind, &hooks, json!([webhook])).await;
    let media = "application/merge-patch+json";
    let scale = format!("{deployments}/web/scale");
    let two = json!({"spec": {"replicas": 2}}).to_string();
    let scaled = parts(world.send(Method::PATCH, &scale, media, two).await).await;
    assert_eq!(scaled.0, StatusCode::OK, "{}", scaled.1);
    let (_, now) = world.get(&format!("{deployments}/web")).await;
    assert_eq!(now["spec"]["replicas"], 2);
    assert_eq!(now["spec"]["template"], made["spec"]["template"]);
    assert_eq!(now["metadata"]["annotations"]["seen"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_kept_is_asked_of_webhooks_too() {
    let world = World::start().await;
    let hooks = Hooks::start(&world, |request| match request["kind"]["kind"].as_str() {
        Some("TokenRequest") => patch(&json!([
            {"op": "replace", "path": "/spec/expirationSeconds", "value": 1200},
        ])),
        Some("SelfSubjectReview") => json!({
            "allowed": false, "status": {"message": "nobody asks who they are"},
        }),
        _ => json!({"allowed": true}),
    })
    .await;
    let mut webhook = hooks.webhook("kept.example.com");
    let rules = webhook["rules"].as_array_mut().unwrap();
    rules.push(json!({
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["serviceaccounts/token"],
    }));
    rules.push(json!({
        "apiGroups": ["authentication.k8s.io"], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["selfsubjectreviews"],
    }));
    let kind = "mutatingwebhookconfigurations";
    register(&world, kind, &hooks, json!([webhook])).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"metadata": {"name": "robot"}});
    let (status, made) = world.call(Method::POST, accounts, &account).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let path = format!("{accounts}/robot/token");
    let wanted = json!({"spec": {"expirationSeconds": 3600, "audiences": []}});
    let (status, token) = world.call(Method::POST, &path, &wanted).await;
    assert_eq!(status, StatusCode::CREATED, "{token}");
    assert_eq!(token["spec"]["expirationSeconds"], 1200, "{token}");
    let reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (status, refused) = world.call(Method::POST, reviews, &json!({})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("nobody asks who they are"), "{message}");
}
