//! Relayed events: hints that the chain confirms, or not.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use nautilus_workers::Stake;
use nautilus_workers::chain::ChainError;
use nautilus_workers::events::events_router;
use nautilus_workers::events::limits::{
    RELAY_BODY_LIMIT_BYTES, RELAY_QUESTIONS_BURST, RELAYED_PER_REQUEST,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{ChainWorld, EventsSettings, digest, relayed};

fn counts(accepted: u64, duplicate: u64, unconfirmed: u64) -> Value {
    json!({"accepted": accepted, "duplicate": duplicate, "unconfirmed": unconfirmed})
}

#[tokio::test(start_paused = true)]
async fn a_relayed_event_wakes_the_follower_and_is_applied_once() {
    let world = ChainWorld::new(1).await;
    world.chain.deposited(1, "w1", 5);
    world.settle().await;
    let event = world.chain.deposited(2, "w1", 7);
    let answer = world.relay(0, &relayed(&event)).await;
    assert_eq!(answer, (StatusCode::OK, counts(1, 0, 0)));
    world.pass(Duration::from_millis(100)).await;
    assert_eq!(world.chain_node("w1")["stake_amount"], 12, "at once");
    let again = json!([relayed(&event), relayed(&event)]);
    let answer = world.relay(0, &again).await;
    assert_eq!(answer, (StatusCode::OK, counts(0, 2, 0)));
    world.pass(Duration::from_secs(60)).await;
    let answer = world.relay(0, &relayed(&event)).await;
    assert_eq!(answer, (StatusCode::OK, counts(0, 1, 0)));
    world.settle().await;
    assert_eq!(world.chain_node("w1")["stake_amount"], 12);
}

#[tokio::test(start_paused = true)]
async fn an_event_relayed_to_any_node_wakes_the_leader() {
    let settings = EventsSettings {
        poll_interval: Duration::from_secs(3600),
        ..EventsSettings::default()
    };
    let world = ChainWorld::with(2, settings).await;
    world.chain.deposited(1, "w1", 5);
    world.settle().await;
    let event = world.chain.deposited(2, "w1", 7);
    let answer = world.relay(1, &relayed(&event)).await;
    assert_eq!(answer, (StatusCode::OK, counts(1, 0, 0)));
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.chain_node("w1")["stake_amount"], 12);
}

#[tokio::test(start_paused = true)]
async fn what_the_chain_does_not_know_changes_nothing() {
    let world = ChainWorld::new(1).await;
    world.chain.registered(1, "w1", 5);
    world.settle().await;
    let mut invented = world.chain.status(2, "w1", "slashed");
    world.chain.events.lock().pop();
    let before = world.world.everything();
    let answer = world.relay(0, &relayed(&invented)).await;
    assert_eq!(answer, (StatusCode::ACCEPTED, counts(0, 0, 1)));
    // A place that the transaction does not have.
    invented.id = world.chain.events.lock()[0].id.clone();
    invented.id.event_seq = 3;
    let answer = world.relay(0, &relayed(&invented)).await;
    assert_eq!(answer, (StatusCode::ACCEPTED, counts(0, 0, 1)));
    world.settle().await;
    assert_eq!(world.world.everything(), before);
}

#[tokio::test(start_paused = true)]
async fn of_a_forged_event_the_chains_own_word_acts() {
    let world = ChainWorld::new(1).await;
    world.chain.registered(1, "w1", 5);
    world.settle().await;
    let event = world.chain.status(2, "w1", "withdrawn");
    let mut forged = relayed(&event);
    forged["parsedJson"]["node_id"] = "w2".into();
    forged["parsedJson"]["new_status"] = "slashed".into();
    world.relay(0, &forged).await;
    world.settle().await;
    assert_eq!(world.chain_node("w2"), Value::Null);
    assert_eq!(world.chain_node("w1")["stake"], "withdrawn");
}

#[tokio::test(start_paused = true)]
async fn a_lost_stake_acts_ahead_of_its_turn_on_whichever_node_hears_of_it() {
    let world = ChainWorld::new(2).await;
    world.world.register("w1", "seal-1").await;
    world.chain.registered(1, "w1", 5);
    world.settle().await;
    // The leader can't read on; the other node's relayer can.
    world.nodes[0]
        .view
        .leadership
        .send_modify(|now| now.is_self = false);
    world.chain.deposited(2, "w1", 1);
    world.chain.status(3, "w1", "active");
    let slashed = world.chain.status(4, "w1", "slashed");
    let answer = world.relay(1, &relayed(&slashed)).await;
    assert_eq!(answer, (StatusCode::OK, counts(1, 0, 0)));
    assert_eq!(world.world.row("w1").expect("a row").stake, Stake::Slashed);
    assert_eq!(world.eviction("w1"), "slashed");
    assert_eq!(world.chain_node("w1")["stake_amount"], 5);
    world.pass(Duration::from_secs(60)).await;
    let answer = world.relay(1, &relayed(&slashed)).await;
    assert_eq!(answer, (StatusCode::OK, counts(0, 1, 0)), "once");

    // Its turn comes: what was said before it restores nothing, what comes after it does.
    world.nodes[0]
        .view
        .leadership
        .send_modify(|now| now.is_self = true);
    world.settle().await;
    assert_eq!(world.chain_node("w1")["stake_amount"], 6);
    assert_eq!(world.world.row("w1").expect("a row").stake, Stake::Slashed);
    assert_eq!(world.chain_node("w1")["ahead"], json!([]));
    world.chain.status(5, "w1", "active");
    world.settle().await;
    assert_eq!(world.world.row("w1").expect("a row").stake, Stake::Active);
}

#[tokio::test(start_paused = true)]
async fn relayers_cannot_make_a_node_flood_the_chain() {
    let world = ChainWorld::new(1).await;
    let mut refused = 0;
    for request in 0..10_u64 {
        let invented: Vec<Value> = (0..RELAYED_PER_REQUEST as u64)
            .map(|number| {
                json!({
                    "type": "0x7::worker_registry::StakeDepositedEvent",
                    "transactionDigest": digest(1_000_000 + request * 1000 + number),
                })
            })
            .collect();
        let (code, _) = world.relay(0, &Value::Array(invented)).await;
        refused += u32::from(code == StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(refused, 10);
    let asked = world.chain.questions.load(Ordering::Relaxed);
    assert!(asked <= u64::from(RELAY_QUESTIONS_BURST) + 10, "{asked}");
}

#[tokio::test(start_paused = true)]
async fn the_same_unknown_transaction_is_asked_for_once_in_a_while() {
    let world = ChainWorld::new(1).await;
    let invented = json!({
        "type": "0x7::worker_registry::StakeDepositedEvent",
        "transactionDigest": "9xQe",
    });
    for _ in 0..50 {
        let answer = world.relay(0, &invented).await;
        assert_eq!(answer, (StatusCode::ACCEPTED, counts(0, 0, 1)));
    }
    assert_eq!(world.chain.questions.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn relayers_come_again_when_the_chain_is_out_of_reach_and_learn_what_is_malformed() {
    let world = ChainWorld::new(1).await;
    let event = world.chain.deposited(1, "w1", 5);
    world.chain.fail(ChainError::OutOfReach("down".into()));
    let (code, _) = world.relay(0, &relayed(&event)).await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    world.chain.fail(None);
    let (code, _) = world.relay(0, &relayed(&event)).await;
    assert_eq!(code, StatusCode::OK);

    let (code, said) = world.relay(0, &json!({"type": 7})).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert_eq!(said, "type: must be a string");
    let large = Request::post("/api/v1/sui-events");
    let large = large.body(Body::from(" ".repeat(RELAY_BODY_LIMIT_BYTES + 1)));
    let (code, _) = world.send(0, large.expect("a request")).await;
    assert_eq!(code, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn without_a_chain_the_face_says_so() {
    let request = Request::post("/api/v1/sui-events").body(Body::from("{}"));
    let answer = events_router(None)
        .oneshot(request.expect("a request"))
        .await
        .expect("infallible");
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
}
