//! Who is served when all seats are taken.

use std::time::Duration;

use futures_util::StreamExt as _;
use nautilus_machinery::identity::User;
use nautilus_rest::RequestLimits;
use reqwest::{Method, StatusCode};

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
