//! Objects that go by themselves, and versions that are forgotten.

use std::time::Duration;

use nautilus_machine::types::KeyRange;
use nautilus_machine::{Command, Kv as _, Proposal, RangeRequest};
use nautilus_machinery::identity::User;
use nautilus_rest::RequestLimits;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::world::{World, within};

const EVENTS: &str = "/api/v1/namespaces/default/events";

#[tokio::test]
async fn an_event_ends_with_its_lease_and_a_change_renews_it() {
    let world = World::start().await;
    let event = json!({
        "metadata": { "name": "e" }, "reason": "Seen", "count": 1,
        "involvedObject": { "kind": "Pod", "namespace": "default", "name": "p" },
    });
    let (status, made) = world.call(Method::POST, EVENTS, &event).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let path = format!("{EVENTS}/e");
    let patch = json!({ "count": 2 }).to_string();
    let media = "application/merge-patch+json";
    let answer = world.send(Method::PATCH, &path, media, patch).await;
    assert_eq!(answer.status(), StatusCode::OK);

    let range = KeyRange::single("/nautilus/registry/events/default/e");
    let answer = world.kv.range(&RangeRequest::newest(range)).unwrap();
    let lease = answer.kvs[0].lease.expect("an event is leased");
    let expire = Command::ExpireLeases { ids: vec![lease] };
    world.kv.propose(Proposal::new(expire)).await.unwrap();
    let (status, _) = world.get(&path).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_past_is_forgotten_after_an_interval() {
    let limits = RequestLimits {
        compaction_interval: Duration::from_millis(50),
        ..RequestLimits::default()
    };
    let admin = User::authenticated("admin", vec!["system:masters".into()]);
    let world = World::start_with(admin, limits).await;
    let made = world.config_map("a", &json!({}), &json!({})).await;
    let stop = CancellationToken::new();
    let context = world.context.clone();
    let running = tokio::spawn(nautilus_rest::run_controllers(context, 6443, stop.clone()));
    let made = made["metadata"]["resourceVersion"].as_str().unwrap();
    let made: u64 = made.parse().unwrap();
    let forgotten = async {
        while world.kv.compacted_revision() < made {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(forgotten).await;
    stop.cancel();
    running.await.unwrap();
}
