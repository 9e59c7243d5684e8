//! What comes of tokens that were stolen, made up, replayed, or outlived by their stake.

use std::time::Duration;

use axum::body::Body;
use futures_util::future::join_all;
use http::{Request, StatusCode};
use nautilus_machine::{Command, Kv as _, Operation, Proposal, Put, Txn};
use nautilus_machinery::identity::{AuditNote, ClientKey};
use nautilus_workers::limits::{
    BODY_LIMIT_BYTES, CLOCK_SKEW_LIMIT, JUDGE_OUTAGE_GRACE, NEGATIVE_VERDICT_LIFETIME,
    QUESTIONS_PER_SECOND, STRANGERS_PATIENCE, VERDICT_LIFETIME,
};
use nautilus_workers::verdicts::Eviction;
use nautilus_workers::{Stake, Verdict, proof};
use serde_json::json;
use sui_crypto::SuiSigner as _;
use sui_crypto::ed25519::Ed25519PrivateKey;
use sui_sdk_types::PersonalMessage;
use tower::ServiceExt as _;

use crate::world::{Answer, World, active};

/// A request as one connection makes it.
struct Knock {
    path: &'static str,
    node_id: String,
    token: String,
    timestamp_s: u64,
    key: Option<ClientKey>,
    proof: Option<String>,
}

impl Knock {
    fn register(world: &World, node_id: &str, token: &str) -> Self {
        Self {
            path: "/api/v1/register-worker",
            node_id: node_id.to_owned(),
            token: token.to_owned(),
            timestamp_s: world.now_s(),
            key: None,
            proof: None,
        }
    }

    fn beat(world: &World, node_id: &str, token: &str) -> Self {
        Self {
            path: "/api/v1/heartbeat",
            ..Self::register(world, node_id, token)
        }
    }

    fn over(mut self, key: u8) -> Self {
        self.key = Some(key_of(key, "worker"));
        self
    }

    fn signed_by(mut self, owner: &Ed25519PrivateKey) -> Self {
        let seconds = i64::try_from(self.timestamp_s).expect("a small number");
        let text = proof::message(&self.node_id, seconds);
        let message = PersonalMessage(text.as_bytes().into());
        let signature = owner.sign_personal_message(&message).expect("signs");
        self.proof = Some(signature.to_base64());
        self
    }

    fn request(&self) -> Request<Body> {
        let body = json!({"node_id": self.node_id, "timestamp": self.timestamp_s});
        let mut request = Request::post(self.path).header("x-seal-token", &self.token);
        if let Some(proof) = &self.proof {
            request = request.header("x-seal-proof", proof);
        }
        let mut request = request
            .body(Body::from(body.to_string()))
            .expect("a request");
        if let Some(key) = &self.key {
            request.extensions_mut().insert(key.clone());
        }
        request
    }

    async fn at(&self, world: &World) -> Answer {
        world.send(self.request()).await
    }
}

fn key_of(key: u8, subject: &str) -> ClientKey {
    ClientKey {
        spki_sha256: [key; 32],
        subject: subject.into(),
    }
}

fn address(owner: &Ed25519PrivateKey) -> String {
    owner.public_key().derive_address().to_string()
}

fn invalid(answer: &Answer, why: &str) {
    assert_eq!(answer.code, StatusCode::UNAUTHORIZED, "{answer:?}");
    assert!(answer.text.starts_with("Invalid Seal token"), "{answer:?}");
    assert!(answer.text.contains(why), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stolen_token_is_of_no_use_over_another_key_or_without_one() {
    let world = World::before_the_chain().await;
    let own = Knock::register(&world, "w1", "seal-1").over(1);
    assert_eq!(own.at(&world).await.code, StatusCode::OK);
    let elsewhere = world.another_node();
    elsewhere.settle().await;
    for thief in [
        Knock::register(&world, "w1", "seal-1").over(2),
        Knock::beat(&world, "w1", "seal-1").over(2),
        // The token is bound, not the node: it makes no second node either.
        Knock::register(&world, "w2", "seal-1").over(2),
    ] {
        for node in [&world, &elsewhere] {
            invalid(&thief.at(node).await, "bound to another TLS client key");
        }
    }
    let keyless = Knock::beat(&world, "w1", "seal-1").at(&elsewhere).await;
    invalid(&keyless, "this connection has none");
    let thief = Knock::beat(&world, "w1", "seal-1").over(2).request();
    let answer = world
        .router
        .clone()
        .oneshot(thief)
        .await
        .expect("infallible");
    let note = answer
        .extensions()
        .get::<AuditNote>()
        .expect("for the audit log");
    assert_eq!(
        (note.key, note.value.as_str()),
        ("nautilus.io/seal-token-refused", "OtherKey")
    );
    let own = Knock::beat(&world, "w1", "seal-1").over(1);
    assert_eq!(own.at(&elsewhere).await.code, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn unmodified_workers_have_no_key_and_are_served() {
    let world = World::before_the_chain().await;
    assert_eq!(world.register("w1", "seal-1").await.code, StatusCode::OK);
    assert_eq!(
        world.beat("w1", "seal-1", json!({})).await.code,
        StatusCode::OK
    );
    let everything = world.everything();
    assert!(
        everything.keys().all(|key| !key.contains("/seal/keys/")),
        "{everything:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_kubelets_next_certificate_carries_the_binding_on_and_no_other_nodes_does() {
    let world = World::before_the_chain().await;
    let mut beat = Knock::register(&world, "w1", "seal-1");
    for (key, subject, code) in [
        (1, "system:node:w1", StatusCode::OK),
        (2, "system:node:w1", StatusCode::OK),
        (1, "system:node:w2", StatusCode::UNAUTHORIZED),
        (3, "w1", StatusCode::UNAUTHORIZED),
        (2, "system:node:w1", StatusCode::OK),
    ] {
        beat.key = Some(key_of(key, subject));
        assert_eq!(beat.at(&world).await.code, code, "{key} {subject}");
    }
}

#[tokio::test(start_paused = true)]
async fn its_owner_binds_a_token_anew_and_a_replay_of_the_proof_does_not() {
    let world = World::before_the_chain().await;
    let owner = Ed25519PrivateKey::new([7; 32]);
    world.judge.set("seal-7", active(&address(&owner)));
    let first = Knock::register(&world, "w1", "seal-7").over(1);
    assert_eq!(first.at(&world).await.code, StatusCode::OK);
    let moved = Knock::register(&world, "w1", "seal-7")
        .over(2)
        .signed_by(&owner);
    assert_eq!(moved.at(&world).await.code, StatusCode::OK);
    // Tried again after an answer that was lost.
    assert_eq!(moved.at(&world).await.code, StatusCode::OK);
    invalid(&first.at(&world).await, "bound to another TLS client key");
    // The same words over a thief's connection, and over one without a key.
    for key in [Some(key_of(3, "worker")), None] {
        let replay = Knock {
            proof: moved.proof.clone(),
            key,
            ..Knock::register(&world, "w1", "seal-7")
        };
        invalid(&replay.at(&world).await, "used before");
    }
    let forged = Knock::register(&world, "w1", "seal-7")
        .over(3)
        .signed_by(&Ed25519PrivateKey::new([8; 32]));
    invalid(&forged.at(&world).await, "not its owner's");
    world.pass(Duration::from_secs(1)).await;
    // A worker that lost its key begins anew without one, and may bind the next.
    let freed = Knock::register(&world, "w1", "seal-7").signed_by(&owner);
    assert_eq!(freed.at(&world).await.code, StatusCode::OK);
    let next = Knock::beat(&world, "w1", "seal-7").over(4);
    assert_eq!(next.at(&world).await.code, StatusCode::OK);
    invalid(&moved.at(&world).await, "used before");
}

#[tokio::test(start_paused = true)]
async fn a_proof_is_for_one_node_and_one_time_within_the_skew() {
    let world = World::before_the_chain().await;
    let owner = Ed25519PrivateKey::new([7; 32]);
    world.judge.set("seal-7", active(&address(&owner)));
    let signed = Knock::register(&world, "w1", "seal-7").signed_by(&owner);
    for (node_id, later_s) in [("w2", 0), ("w1", 1)] {
        let other = Knock {
            node_id: node_id.to_owned(),
            timestamp_s: signed.timestamp_s + later_s,
            proof: signed.proof.clone(),
            ..Knock::register(&world, "w1", "seal-7")
        };
        invalid(
            &other.at(&world).await,
            "does not sign this node id and timestamp",
        );
    }
    world.pass(CLOCK_SKEW_LIMIT + Duration::from_secs(1)).await;
    for path in ["/api/v1/register-worker", "/api/v1/heartbeat"] {
        let late = Knock {
            path,
            timestamp_s: signed.timestamp_s,
            proof: signed.proof.clone(),
            ..Knock::register(&world, "w1", "seal-7")
        };
        let answer = late.at(&world).await;
        assert_eq!(answer.code, StatusCode::BAD_REQUEST, "{answer:?}");
        assert!(
            answer.text.contains("clock is 301 seconds away"),
            "{answer:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_replayed_registration_is_refused_over_another_key_and_outside_the_skew() {
    let world = World::before_the_chain().await;
    let own = Knock::register(&world, "w1", "seal-1").over(1);
    assert_eq!(own.at(&world).await.code, StatusCode::OK);
    let row = world.row("w1");
    for key in [Some(key_of(2, "worker")), None] {
        let replay = Knock {
            timestamp_s: own.timestamp_s,
            key,
            ..Knock::register(&world, "w1", "seal-1")
        };
        invalid(&replay.at(&world).await, "");
    }
    world.pass(CLOCK_SKEW_LIMIT + Duration::from_secs(1)).await;
    let asked = world.judge.asked();
    assert_eq!(own.at(&world).await.code, StatusCode::BAD_REQUEST);
    assert_eq!(
        world.judge.asked(),
        asked,
        "an old body asks nothing of the chain"
    );
    assert_eq!(
        world.row("w1").map(|row| row.registrations),
        row.map(|row| row.registrations)
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_speaks_for_no_other_node() {
    let world = World::before_the_chain().await;
    world.register("w1", "seal-1").await;
    world.judge.set("seal-1", Verdict::NotOwner);
    invalid(&world.register("w2", "seal-1").await, "");
    invalid(&world.beat("w2", "seal-1", json!({})).await, "");
    // What was found of it for its own node stands.
    assert_eq!(
        world.beat("w1", "seal-1", json!({})).await.code,
        StatusCode::OK
    );
    assert!(world.row("w2").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_mebibyte_is_refused_unjudged() {
    let world = World::before_the_chain().await;
    let long = "x".repeat(1024 * 1024);
    invalid(&world.beat("w1", &long, json!({})).await, "");
    let body = json!({"node_id": "w1", "seal_token": long}).to_string();
    assert!(body.len() > BODY_LIMIT_BYTES);
    let answer = world.post("/api/v1/heartbeat", None, body).await;
    assert_eq!(answer.code, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(world.judge.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_made_up_tokens_reaches_neither_the_chain_nor_the_log_nor_known_workers() {
    let world = World::before_the_chain().await;
    world.register("w1", "seal-1").await;
    world.settle().await;
    let (revision, asked) = (world.kv.revision(), world.judge.asked());
    let started = tokio::time::Instant::now();
    // Ten waves of a thousand, each token twice at once.
    for wave in 0..10 {
        let tokens = (0..500).map(|number| format!("made-up-{wave}-{number}"));
        let knocks = tokens
            .flat_map(|token| [token.clone(), token])
            .map(|token| {
                let world = &world;
                async move { world.beat("w1", &token, json!({})).await }
            });
        let flood = join_all(knocks);
        let (answers, own) = tokio::join!(flood, world.beat("w1", "seal-1", json!({})));
        assert_eq!(own.code, StatusCode::OK);
        for answer in answers {
            let told_to_wait = answer.code == StatusCode::SERVICE_UNAVAILABLE
                && answer.headers.contains_key("retry-after");
            assert!(
                told_to_wait || answer.code == StatusCode::UNAUTHORIZED,
                "{answer:?}"
            );
        }
    }
    let seconds = started.elapsed().as_secs() + STRANGERS_PATIENCE.as_secs() + 1;
    let most = u64::from(QUESTIONS_PER_SECOND) * seconds;
    let asked_since = world.judge.asked() - asked;
    assert!(
        asked_since <= most,
        "{asked_since} questions in {seconds} s"
    );
    assert_eq!(
        world.kv.revision(),
        revision + 1,
        "one write: the worker became ready"
    );
    // The same one again is answered from memory for as long as that holds.
    let asked = world.judge.asked();
    invalid(&world.beat("w1", "made-up-9-0", json!({})).await, "");
    let again = world.judge.asked();
    assert!(again <= asked + 1);
    for _ in 0..5 {
        invalid(&world.beat("w1", "made-up-9-0", json!({})).await, "");
    }
    assert_eq!(world.judge.asked(), again);
    world.pass(NEGATIVE_VERDICT_LIFETIME).await;
    invalid(&world.beat("w1", "made-up-9-0", json!({})).await, "");
    assert_eq!(world.judge.asked(), again + 1);
}

#[tokio::test(start_paused = true)]
async fn known_tokens_outlast_the_chain_for_the_grace_and_unknown_ones_are_told_to_come_again() {
    let world = World::before_the_chain().await;
    let ends_at = world.now_s() + JUDGE_OUTAGE_GRACE.as_secs() / 2;
    let ending = Verdict::Active {
        owner: "0xe1".into(),
        stake_amount: 1,
        expires_at: Some(ends_at),
    };
    world.judge.set("ending", ending);
    world.register("w1", "seal-1").await;
    world.register("w2", "ending").await;
    for token in ["seal-1", "ending", "new"] {
        world.judge.set(token, Verdict::Unavailable);
    }
    let mut last = world.now_s();
    while world.now_s() + 60 < ends_at {
        assert_eq!(
            world.beat("w1", "seal-1", json!({})).await.code,
            StatusCode::OK
        );
        assert_eq!(
            world.beat("w2", "ending", json!({})).await.code,
            StatusCode::OK
        );
        for answer in [
            world.register("w3", "new").await,
            world.beat("w3", "new", json!({})).await,
        ] {
            assert_eq!(answer.code, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
            assert!(answer.headers.contains_key("retry-after"));
            assert!(!answer.text.contains("Invalid"), "{answer:?}");
        }
        world.pass(Duration::from_secs(60)).await;
        last = world.now_s();
    }
    assert!(last > ends_at - 120);
    let health = world.get("/health").await.json();
    assert_eq!(health["sui"]["reachable"], false);
    assert!(
        health["sui"]["since"]
            .as_u64()
            .is_some_and(|since| since < last)
    );
    // A known worker that starts anew goes on too.
    assert_eq!(world.register("w1", "seal-1").await.code, StatusCode::OK);
    world.pass(Duration::from_secs(120)).await;
    invalid(&world.beat("w2", "ending", json!({})).await, "");
    assert_eq!(
        world.beat("w1", "seal-1", json!({})).await.code,
        StatusCode::OK
    );
    world.pass(JUDGE_OUTAGE_GRACE / 2).await;
    let answer = world.beat("w1", "seal-1", json!({})).await;
    assert_eq!(answer.code, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    // And when the chain is back, so is the worker.
    world.judge.set("seal-1", active("0xa1"));
    assert_eq!(
        world.beat("w1", "seal-1", json!({})).await.code,
        StatusCode::OK
    );
    assert_eq!(world.get("/health").await.json()["sui"]["reachable"], true);
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_lasts_shows_as_a_condition_of_the_masters_service() {
    let world = World::before_the_chain().await;
    let services = nautilus_machinery::resource::find("", "v1", "services").expect("served");
    let key = services.key(Some("default"), "kubernetes");
    let service = json!({"kind": "Service", "metadata": {"name": "kubernetes"}, "status": {}});
    let put = Operation::Put(Put::new(key.clone(), service.to_string()));
    let txn = Txn {
        then: vec![put],
        ..Txn::default()
    };
    let written = world.kv.apply(Proposal::new(Command::Txn(txn)));
    written.expect("applied");
    let condition = || {
        let service = world.everything()[&key].clone();
        let service: serde_json::Value = serde_json::from_str(&service).expect("JSON");
        service["status"]["conditions"][0]["status"].clone()
    };
    world.register("w1", "seal-1").await;
    assert_eq!(condition(), json!(null));
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(condition(), "True");
    // Told by whoever else talks to the chain: no token is judged now.
    world.verdicts.chain_answered(false);
    world.pass(Duration::from_secs(15)).await;
    assert_eq!(condition(), "True");
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(condition(), "False");
    let revision = world.kv.revision();
    world.pass(Duration::from_secs(600)).await;
    assert_eq!(world.kv.revision(), revision);
}

#[tokio::test(start_paused = true)]
async fn a_slashed_stake_ends_its_beats_at_once_on_every_node() {
    let world = World::before_the_chain().await;
    let elsewhere = world.another_node();
    world.register("w1", "seal-1").await;
    elsewhere.settle().await;
    assert_eq!(
        elsewhere.beat("w1", "seal-1", json!({})).await.code,
        StatusCode::OK
    );
    let evicted = world
        .verdicts
        .evict_node("w1", Eviction::Slashed, None)
        .await;
    evicted.expect("evicted");
    elsewhere.settle().await;
    for node in [&world, &elsewhere] {
        let asked = node.judge.asked();
        let request = Knock::beat(&world, "w1", "seal-1").request();
        let (mut parts, body) = request.into_parts();
        parts
            .headers
            .insert("accept", "application/json".parse().expect("a value"));
        let answer = node.send(Request::from_parts(parts, body)).await;
        assert_eq!(answer.code, StatusCode::UNAUTHORIZED);
        assert_eq!(
            answer.json()["message"],
            "Invalid Seal token: its stake was slashed"
        );
        assert_eq!(node.judge.asked(), asked);
    }
    world.settle().await;
    assert_eq!(world.row("w1").expect("a row").stake, Stake::Slashed);
}

#[tokio::test(start_paused = true)]
async fn an_eviction_fences_the_judgement_that_was_under_way() {
    let world = World::before_the_chain().await;
    let slashed_meanwhile = async {
        // The judge has read the chain, and has not answered yet.
        world.pass(Duration::from_millis(200)).await;
        world.judge.set("seal-1", Verdict::Slashed);
        let evicted = world.verdicts.evict_node("w1", Eviction::Stale, None).await;
        evicted.expect("evicted");
    };
    let (answer, ()) = tokio::join!(world.register("w1", "seal-1"), slashed_meanwhile);
    invalid(&answer, "");
    assert_eq!(world.judge.asked(), 2);
    assert!(world.row("w1").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_token_of_an_evicted_node_is_judged_anew() {
    let world = World::before_the_chain().await;
    world.register("w1", "seal-1").await;
    assert_eq!(world.judge.asked(), 1);
    let evicted = world.verdicts.evict_node("w1", Eviction::Stale, None).await;
    evicted.expect("evicted");
    world.settle().await;
    assert_eq!(
        world.beat("w1", "seal-1", json!({})).await.code,
        StatusCode::OK
    );
    assert_eq!(world.judge.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn no_failover_and_no_restart_asks_the_chain_again() {
    let world = World::before_the_chain().await;
    let names: Vec<String> = (0..50).map(|number| format!("w{number}")).collect();
    for name in &names {
        assert_eq!(world.register(name, "seal-1").await.code, StatusCode::OK);
    }
    let (running, restarted) = (world.another_node(), world.another_node());
    world.elect(2, false);
    world.settle().await;
    world.elect(2, true);
    world.settle().await;
    for name in &names {
        for node in [&running, &restarted] {
            let answer = node.beat(name, "seal-1", json!({})).await;
            assert_eq!(answer.code, StatusCode::OK, "{answer:?}");
            let answer = node.register(name, "seal-1").await;
            assert_eq!(answer.code, StatusCode::OK, "{answer:?}");
        }
    }
    assert_eq!((running.judge.asked(), restarted.judge.asked()), (0, 0));
    assert_eq!(world.judge.asked(), 50);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_in_use_is_asked_for_ahead_of_its_end_and_nobody_waits_for_it() {
    let world = World::before_the_chain().await;
    world.register("w1", "seal-1").await;
    let rounds = VERDICT_LIFETIME.as_secs() * 4 / 30;
    for _ in 0..rounds {
        let started = tokio::time::Instant::now();
        assert_eq!(
            world.beat("w1", "seal-1", json!({})).await.code,
            StatusCode::OK
        );
        assert_eq!(
            started.elapsed(),
            Duration::ZERO,
            "a beat never waits for the judge"
        );
        world.pass(Duration::from_secs(30)).await;
    }
    let asked = world.judge.asked();
    assert!(
        (4..=8).contains(&asked),
        "{asked} questions in four lifetimes"
    );
    world.judge.set("seal-1", Verdict::Withdrawn);
    let started = tokio::time::Instant::now();
    while world.beat("w1", "seal-1", json!({})).await.code == StatusCode::OK {
        world.pass(Duration::from_secs(30)).await;
        assert!(started.elapsed() < VERDICT_LIFETIME);
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_have_lost_every_use_are_deleted_and_those_in_use_are_not() {
    let world = World::before_the_chain().await;
    world.register("w1", "seal-1").await;
    world.judge.set("gone", active("0xb2"));
    world.register("w2", "gone").await;
    let rows = || {
        let everything = world.everything();
        let verdicts = everything
            .into_keys()
            .filter(|key| key.contains("/seal/verdicts/"));
        verdicts
            .map(|key| key.split('/').nth(4).expect("a node").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(), ["w1", "w2"]);
    for _ in 0..240 {
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(
            world.beat("w1", "seal-1", json!({})).await.code,
            StatusCode::OK
        );
    }
    assert_eq!(rows(), ["w1"]);
}
