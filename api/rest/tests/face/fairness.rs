//! Who is served when all seats are taken.

use std::time::Duration;

use futures_util::StreamExt as _;
use nautilus_machinery::identity::User;
use nautilus_rest::RequestLimits;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::admission::Led;
use crate::world::{World, within};

/// Anybody may ask this; the answer needs the whole body.
const CREDENTIALS: &str = "/nautilus/v1/credentials";

/// A request whose body never ends: it holds its seat until it is dropped.
fn endless(world: &World) -> tokio::task::JoinHandle<Option<reqwest::Response>> {
    let begun = futures_util::stream::once(async { Ok::<_, std::io::Error>("{") })
        .chain(futures_util::stream::pending());
    let request = world
        .client
        .post(format!("{}{CREDENTIALS}", world.base))
        .header("content-type", "application/json")
        .body(reqwest::Body::wrap_stream(begun));
    tokio::spawn(async move { request.send().await.ok() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_takes_all_seats_is_told_to_come_again() {
    let limits = RequestLimits {
        max_requests_inflight: 2,
        max_mutating_requests_inflight: 1,
        max_wait: Duration::from_millis(50),
        ..RequestLimits::default()
    };
    let world = World::start_with(User::authenticated("jane", vec![]), limits).await;
    // More than there are seats in all levels, and in the queues of one flow.
    let held: Vec<_> = (0..40).map(|_| endless(&world)).collect();
    let refused = within(async {
        let (first, ..) = futures_util::future::select_all(held).await;
        first.unwrap().expect("it is answered")
    })
    .await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert!(
        refused
            .headers()
            .contains_key("x-kubernetes-pf-flowschema-uid")
    );
    assert!(
        refused
            .headers()
            .contains_key("x-kubernetes-pf-prioritylevel-uid")
    );
    // Probes are on a level of their own.
    let (status, _) = world
        .call(Method::GET, "/livez", &serde_json::Value::Null)
        .await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn seats_come_back_when_a_client_goes_away() {
    let limits = RequestLimits {
        max_requests_inflight: 1,
        max_mutating_requests_inflight: 0,
        max_wait: Duration::from_secs(15),
        ..RequestLimits::default()
    };
    let world = World::start_with(User::authenticated("jane", vec![]), limits).await;
    let held: Vec<_> = (0..20).map(|_| endless(&world)).collect();
    for one in held {
        one.abort();
    }
    let (status, answer) = world
        .call(Method::POST, CREDENTIALS, &serde_json::Value::Null)
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
}

const FLOW_CONTROL: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_schema_says_whether_its_level_exists() {
    let led = Led::start().await;
    let mine = format!("{FLOW_CONTROL}/flowschemas/mine");
    let schema = json!({"metadata": {"name": "mine"}, "spec": {
        "priorityLevelConfiguration": {"name": "gone"}, "matchingPrecedence": 500,
    }});
    led.make(&format!("{FLOW_CONTROL}/flowschemas"), &schema)
        .await;
    let told = |status: &'static str| {
        move |_: StatusCode, schema: &Value| schema["status"]["conditions"][0]["status"] == status
    };
    let dangling = led.until(&mine, told("True")).await;
    let condition = &dangling["status"]["conditions"][0];
    assert_eq!(condition["type"], "Dangling");
    assert_eq!(condition["reason"], "NotFound");
    assert_eq!(
        condition["message"],
        "This FlowSchema references the PriorityLevelConfiguration object named \"gone\" but \
         there is no such object"
    );
    let level = json!({"metadata": {"name": "gone"}, "spec": {
        "type": "Limited",
        "limited": {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}},
    }});
    led.make(
        &format!("{FLOW_CONTROL}/prioritylevelconfigurations"),
        &level,
    )
    .await;
    let found = led.until(&mine, told("False")).await;
    let condition = &found["status"]["conditions"][0];
    assert_eq!(condition["reason"], "Found");
    assert_eq!(
        condition["message"],
        "This FlowSchema references the PriorityLevelConfiguration object named \"gone\" and it \
         exists"
    );
    led.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flow_schemas_that_once_were_defaults_go_in_the_next_term() {
    let led = Led::start().await;
    let schemas = format!("{FLOW_CONTROL}/flowschemas");
    let suggested = format!("{schemas}/service-accounts");
    led.until(&suggested, |status, _| status == StatusCode::OK)
        .await;
    let world = led.end().await;
    let old = |name: &str, annotation: &str| {
        json!({
            "metadata": {
                "name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": annotation},
            },
            "spec": {
                "priorityLevelConfiguration": {"name": "exempt"}, "matchingPrecedence": 9_000,
            },
        })
    };
    for object in [old("kept", "false"), old("old", "true")] {
        let (status, made) = world.call(Method::POST, &schemas, &object).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
    }
    let (status, _) = world.delete(&suggested).await;
    assert_eq!(status, StatusCode::OK);
    let led = Led::over(world);
    led.until(&format!("{schemas}/old"), |status, _| {
        status == StatusCode::NOT_FOUND
    })
    .await;
    led.until(&suggested, |status, _| status == StatusCode::OK)
        .await;
    let (status, kept) = led.world.get(&format!("{schemas}/kept")).await;
    assert_eq!(status, StatusCode::OK, "{kept}");
    led.end().await;
}
