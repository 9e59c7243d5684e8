//! Join tokens set on the chain.

use std::sync::Arc;

use nautilus_workers::events::WithJoinTokens;
use nautilus_workers::{SealToken, TokenJudge, Verdict};
use serde_json::json;

use super::{ChainWorld, address};

#[tokio::test(start_paused = true)]
async fn a_join_token_speaks_for_its_node_alone_as_long_as_the_stake_does() {
    let world = ChainWorld::new(1).await;
    let judge = WithJoinTokens {
        judge: world.world.judge.clone(),
        kv: Arc::new(world.world.kv.clone()),
        min_stake_amount: 10,
    };
    let token = SealToken::new("join-1".into()).expect("a token");
    let set = |join_token: &str| {
        let fields = json!({"node_id": "w1", "join_token": join_token, "timestamp": "1"});
        world
            .chain
            .emit(2, "worker_registry", "JoinTokenSetEvent", fields);
    };
    world.chain.registered(1, "w1", 10);
    world.settle().await;
    assert_eq!(judge.judge(&token, "w1").await.verdict, Verdict::Unknown);

    set("join-1");
    world.settle().await;
    let active = Verdict::Active {
        owner: address("a1"),
        stake_amount: 10,
        expires_at: None,
    };
    assert_eq!(judge.judge(&token, "w1").await.verdict, active);
    assert_eq!(judge.judge(&token, "w2").await.verdict, Verdict::Unknown);
    let everything = format!("{:?}", world.world.everything());
    assert!(!everything.contains("join-1"), "kept as its hash alone");

    world.chain.status(3, "w1", "slashed");
    world.settle().await;
    assert_eq!(judge.judge(&token, "w1").await.verdict, Verdict::Slashed);
}

#[tokio::test(start_paused = true)]
async fn a_full_node_that_is_late_admits_nobody_whom_the_events_have_shut_out() {
    let world = ChainWorld::new(1).await;
    let judge = WithJoinTokens {
        judge: world.world.judge.clone(),
        kv: Arc::new(world.world.kv.clone()),
        min_stake_amount: 10,
    };
    let token = SealToken::new("seal-1".into()).expect("a token");
    let is_active = |verdict: &Verdict| matches!(verdict, Verdict::Active { .. });
    assert!(is_active(&judge.judge(&token, "w1").await.verdict));
    world.chain.registered(1, "w1", 10);
    world.chain.status(2, "w1", "slashed");
    world.settle().await;
    assert_eq!(judge.judge(&token, "w1").await.verdict, Verdict::Slashed);
    world.chain.status(3, "w1", "active");
    world.settle().await;
    assert!(is_active(&judge.judge(&token, "w1").await.verdict));
}
