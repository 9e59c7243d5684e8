//! How long what is bound to a token stays bound: its client key, its one node, its end.

use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use nautilus_machine::{Command, KeyRange, Kv as _, Operation, Proposal, Txn};
use nautilus_machinery::identity::ClientKey;
use nautilus_workers::{JoinRefusal, Joins, Stake, StakeTiers, TokenProblem, Verdict};
use serde_json::json;

use crate::world::{Answer, BEGIN_S, World, active};

async fn delete(world: &World, key: String) {
    let txn = Txn {
        then: vec![Operation::Delete {
            range: KeyRange::single(key),
            prev_kv: false,
        }],
        ..Txn::default()
    };
    let proposal = Proposal::new(Command::Txn(txn));
    world.kv.propose(proposal).await.expect("written");
}

async fn delete_node(world: &World, name: &str) {
    let nodes = nautilus_machinery::resource::find("", "v1", "nodes").expect("served");
    delete(world, nodes.key(None, name)).await;
}

async fn register_over(world: &World, node_id: &str, token: &str, key: u8) -> Answer {
    let body = json!({"node_id": node_id, "timestamp": world.now_s()});
    let request = Request::post("/api/v1/register-worker").header("x-seal-token", token);
    let mut request = request
        .body(Body::from(body.to_string()))
        .expect("a request");
    request.extensions_mut().insert(ClientKey {
        spki_sha256: [key; 32],
        subject: "worker".into(),
    });
    world.send(request).await
}

fn bound_keys(world: &World) -> usize {
    let everything = world.everything();
    let keys = everything.keys();
    keys.filter(|key| key.starts_with("/nautilus/seal/keys/"))
        .count()
}

#[tokio::test(start_paused = true)]
async fn a_bound_key_goes_with_its_tokens_worker_and_not_before() {
    let world = World::before_the_chain().await;
    for (node, token, key) in [("w1", "seal-1", 1), ("w2", "seal-2", 2)] {
        world.judge.set(token, active("0xa1"));
        let answer = register_over(&world, node, token, key).await;
        assert_eq!(answer.code, StatusCode::OK, "{answer:?}");
    }
    let day = Duration::from_secs(24 * 3600);
    world.pass(day).await;
    assert_eq!(
        bound_keys(&world),
        2,
        "a silent worker's token is still its own"
    );
    let thief = register_over(&world, "w1", "seal-1", 9).await;
    assert_eq!(thief.code, StatusCode::UNAUTHORIZED, "{thief:?}");
    delete_node(&world, "w2").await;
    delete(&world, "/nautilus/workers/w2".to_owned()).await;
    let token = nautilus_workers::SealToken::new("seal-2".into()).expect("a token");
    let hash: String = token.hash().0.iter().map(|b| format!("{b:02x}")).collect();
    delete(&world, format!("/nautilus/seal-tokens/{hash}")).await;
    world.pass(day).await;
    assert_eq!(bound_keys(&world), 1);
    let other = register_over(&world, "w2", "seal-2", 3).await;
    assert_eq!(other.code, StatusCode::OK, "{other:?}");
}

#[tokio::test(start_paused = true)]
async fn the_first_registration_decides_which_node_a_token_speaks_for_until_that_is_removed() {
    let world = World::before_the_chain().await;
    world.judge.let_tokens_speak_for_one();
    let elsewhere = world.another_node();
    elsewhere.judge.let_tokens_speak_for_one();
    elsewhere.settle().await;
    let (first, second) = tokio::join!(
        world.register("w1", "seal-1"),
        elsewhere.register("w2", "seal-1")
    );
    let (taken, refused) = match first.code {
        StatusCode::OK => ("w1", "w2"),
        _ => ("w2", "w1"),
    };
    let codes = [first.code, second.code];
    assert!(codes.contains(&StatusCode::OK), "{codes:?}");
    assert!(codes.contains(&StatusCode::UNAUTHORIZED), "{codes:?}");
    for node in [&world, &elsewhere] {
        for answer in [
            node.register(refused, "seal-1").await,
            node.beat(refused, "seal-1", json!({})).await,
        ] {
            assert_eq!(answer.code, StatusCode::UNAUTHORIZED, "{answer:?}");
            assert!(
                answer.text.contains("it speaks for another node"),
                "{answer:?}"
            );
        }
        let beat = node.beat(taken, "seal-1", json!({})).await;
        assert_eq!(beat.code, StatusCode::OK, "{beat:?}");
    }
    let kv = std::sync::Arc::new(world.kv.clone());
    let verdicts = std::sync::Arc::clone(&world.verdicts);
    let joins = Joins::new(kv, verdicts, world.clock(), StakeTiers::default());
    assert_eq!(
        joins.node_of_token("seal-1", Some(refused)).await,
        Err(JoinRefusal::Token(TokenProblem::OtherNode))
    );
    delete_node(&world, taken).await;
    let joined = joins.node_of_token("seal-1", Some(refused)).await;
    assert_eq!(joined, Ok(refused.to_owned()));
    let answer = world.beat(taken, "seal-1", json!({})).await;
    assert_eq!(answer.code, StatusCode::UNAUTHORIZED, "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_token_whose_end_was_put_off_keeps_its_node_ready_under_the_next_leader() {
    let world = World::leading().await;
    let until = |seconds| Verdict::Active {
        owner: "0xa1".into(),
        stake_amount: 1_000_000_000,
        expires_at: Some(BEGIN_S + seconds),
    };
    world.judge.set("seal-1", until(100));
    world.register("w1", "seal-1").await;
    world.judge.set("seal-1", until(900));
    world.beat("w1", "seal-1", json!({})).await;
    world.pass(Duration::from_secs(80)).await;
    world.beat("w1", "seal-1", json!({})).await;
    world.pass(Duration::from_secs(40)).await;
    world.elect(2, false);
    world.settle().await;
    world.elect(2, true);
    world.settle().await;
    let row = world.row("w1").expect("a row");
    assert_eq!(
        (row.stake, row.token_expires_at_s),
        (Stake::Active, Some(BEGIN_S + 900))
    );
    assert_eq!(world.ready("w1"), "True WorkerReady");
}
