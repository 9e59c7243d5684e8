//! The wire form, byte for byte where workers depend on it.

use axum::body::Body;
use http::{Request, StatusCode};
use nautilus_machinery::identity::User;
use nautilus_workers::Verdict;
use nautilus_workers::limits::{BODY_LIMIT_BYTES, CLOCK_SKEW_LIMIT};
use serde_json::json;

use crate::world::{World, active};

#[tokio::test(start_paused = true)]
async fn a_registration_is_answered_as_wired() {
    let world = World::leading().await;
    let answer = world.register("worker-1", "seal-1").await;
    assert_eq!(answer.code, StatusCode::OK);
    let message = "Worker node registered with Seal token";
    assert_eq!(
        answer.json(),
        json!({"status": "registered", "node_id": "worker-1", "message": message})
    );
}

#[tokio::test(start_paused = true)]
async fn both_heartbeat_paths_are_answered_as_wired() {
    let world = World::leading().await;
    world.register("worker-1", "seal-1").await;
    for path in ["/api/v1/heartbeat", "/api/v1/nodes/heartbeat"] {
        let body = json!({
            "node_id": "worker-1", "seal_token": "seal-1", "timestamp": world.now_s(),
            "stake_status": "active", "stake_amount": 1_000_000_000_u64, "running_pods": 3,
            "resource_usage": {"cpu_percent": 1.5, "memory_percent": 20.0, "disk_percent": 3.25},
        });
        let answer = world.post(path, None, body.to_string()).await;
        assert_eq!(answer.code, StatusCode::OK, "{answer:?}");
        assert_eq!(
            answer.json(),
            json!({"status": "acknowledged", "timestamp": world.now_s()})
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_token_is_refused_in_both_forms_with_its_reason() {
    let world = World::leading().await;
    world.judge.set("expired", Verdict::Expired);
    world.judge.set("slashed", Verdict::Slashed);
    world.judge.set("other", Verdict::NotOwner);
    let ended = Verdict::Active {
        owner: "o".into(),
        stake_amount: 0,
        expires_at: Some(1),
    };
    world.judge.set("ended", ended);
    for (token, reason) in [
        ("expired", "it has expired"),
        ("ended", "it has expired"),
        ("slashed", "its stake was slashed"),
        ("other", "it is not the owner of this node"),
        ("nobody", "it is unknown"),
    ] {
        for path in ["/api/v1/register-worker", "/api/v1/heartbeat"] {
            let body = json!({"node_id": "w1", "timestamp": world.now_s()}).to_string();
            let plain = world.post(path, Some(token), body.clone()).await;
            assert_eq!(plain.code, StatusCode::UNAUTHORIZED);
            assert_eq!(plain.text, "Invalid Seal token");
            let request = Request::post(path)
                .header("accept", "application/json")
                .header("x-seal-token", token)
                .body(Body::from(body))
                .expect("a request");
            let status = world.send(request).await;
            assert_eq!(status.code, StatusCode::UNAUTHORIZED);
            assert_eq!(status.json()["kind"], "Status");
            assert_eq!(
                status.json()["message"],
                format!("Invalid Seal token: {reason}")
            );
        }
    }
    let everything = world.everything();
    let verdicts = |key: &String| key.starts_with("/nautilus/seal/verdicts/w1/");
    assert!(everything.keys().all(verdicts), "{everything:?}");
}

#[tokio::test(start_paused = true)]
async fn a_judge_out_of_reach_is_no_bad_token() {
    let world = World::leading().await;
    world.judge.set("seal-1", Verdict::Unavailable);
    let answer = world.register("w1", "seal-1").await;
    assert_eq!(answer.code, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!answer.text.contains("Invalid Seal token"));
}

#[tokio::test(start_paused = true)]
async fn tokens_in_header_and_body_that_differ_are_refused() {
    let world = World::leading().await;
    let body = json!({"node_id": "w1", "seal_token": "seal-2", "timestamp": world.now_s()});
    let answer = world
        .post("/api/v1/register-worker", Some("seal-1"), body.to_string())
        .await;
    assert_eq!(
        (answer.code, answer.text.as_str()),
        (StatusCode::UNAUTHORIZED, "Invalid Seal token")
    );
}

#[tokio::test(start_paused = true)]
async fn malformed_bodies_are_refused_with_the_field_that_is_wrong() {
    let world = World::leading().await;
    let path = "/api/v1/register-worker";
    for (body, text) in [
        (r#"{"node_id": 1}"#, "node_id: must be a string"),
        (
            r#"{"node_id": "a", "timestamp": "x"}"#,
            "timestamp: must be a whole number of Unix seconds",
        ),
        (
            r#"{"node_id": "a", "timestamp": 1"#,
            "timestamp: is not JSON (line 1 column 31)",
        ),
    ] {
        let answer = world.post(path, Some("seal-1"), body).await;
        assert_eq!(
            (answer.code, answer.text.as_str()),
            (StatusCode::BAD_REQUEST, text)
        );
    }
    let answer = world
        .post(path, Some("seal-1"), "x".repeat(BODY_LIMIT_BYTES + 1))
        .await;
    assert_eq!(answer.code, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        answer.text,
        "the body is larger than the limit of 65536 bytes"
    );
}

#[tokio::test(start_paused = true)]
async fn a_registration_with_a_clock_far_off_is_refused_and_told_so() {
    let world = World::leading().await;
    let limit = CLOCK_SKEW_LIMIT.as_secs();
    let at = |timestamp: u64| json!({"node_id": "w1", "timestamp": timestamp}).to_string();
    let path = "/api/v1/register-worker";
    for timestamp in [world.now_s() - limit - 1, world.now_s() + limit + 1] {
        let answer = world.post(path, Some("seal-1"), at(timestamp)).await;
        assert_eq!(answer.code, StatusCode::BAD_REQUEST);
        assert!(
            answer.text.contains("clock is 301 seconds away"),
            "{}",
            answer.text
        );
    }
    let answer = world
        .post(path, Some("seal-1"), at(world.now_s() - limit))
        .await;
    assert_eq!(answer.code, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_beat_of_a_worker_that_never_registered_is_told_to_register() {
    let world = World::leading().await;
    let answer = world.beat("w9", "seal-1", json!({})).await;
    assert_eq!(answer.code, StatusCode::NOT_FOUND);
    assert_eq!(
        answer.text,
        "the worker w9 is not registered; register it with POST /api/v1/register-worker"
    );
}

#[tokio::test(start_paused = true)]
async fn no_token_is_stored() {
    let world = World::leading().await;
    world.judge.set("planted-secret-token", active("0xa1"));
    world.register("w1", "planted-secret-token").await;
    world.beat("w1", "planted-secret-token", json!({})).await;
    world.settle().await;
    let everything = world.everything();
    assert_eq!(
        everything.len(),
        5,
        "row, node, lease, verdict, token's hash: {everything:?}"
    );
    assert!(
        everything
            .values()
            .all(|value| !value.contains("planted-secret-token"))
    );
}

#[tokio::test(start_paused = true)]
async fn health_is_answered_as_wired_and_names_what_is_wrong() {
    let world = World::leading().await;
    let answer = world.get("/health").await;
    assert_eq!(answer.code, StatusCode::OK);
    assert_eq!(
        answer.json(),
        json!({
            "status": "healthy", "enclave": false, "components": ["kube-apiserver", "consensus"],
            "sui_events": "disconnected", "sui_events_reason": "no chain is followed",
            "tee_type": "simulated", "security_level": 0,
            "measurement": "ab".repeat(48), "timestamp": world.now_s(),
        })
    );
    *world.serves.lock() = Err("the disk is full".to_owned());
    let answer = world.get("/health").await;
    assert_eq!(answer.code, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["status"], "unhealthy");
    assert_eq!(answer.json()["reason"], "the disk is full");
}

#[tokio::test(start_paused = true)]
async fn evidence_is_made_over_the_askers_nonce() {
    let world = World::leading().await;
    let answer = world
        .get("/api/v1/attestation?nonce=00112233aabbccdd")
        .await
        .json();
    assert_eq!(answer["nonce"], "00112233aabbccdd");
    assert_eq!(answer["evidence"], "ABEiM6q7zN0=");
    // What a stranger needs to ask the others; not where peers talk to each other.
    let member = json!({
        "id": 1, "api_address": "https://10.0.0.1:6443", "role": "voter", "platform": "ab",
    });
    assert_eq!(
        answer["quorum"],
        json!({ "cluster": "q", "node_id": 1, "members": [member] })
    );
    let fresh = world.get("/api/v1/attestation").await.json();
    assert_eq!(fresh["nonce"].as_str().map(str::len), Some(64));
    let answer = world.get("/api/v1/attestation?nonce=0011").await;
    assert_eq!(
        (answer.code, answer.text.as_str()),
        (
            StatusCode::BAD_REQUEST,
            "nonce: must be 8 to 64 bytes long, not 2"
        )
    );
    for (form, media_type) in [
        ("raw", "application/cbor"),
        ("eat", "application/eat+cwt"),
        ("sui", "application/json"),
    ] {
        let answer = world
            .get(&format!(
                "/api/v1/attestation?nonce=6e6e6e6e6e6e6e6e&format={form}"
            ))
            .await;
        assert_eq!(answer.headers["content-type"], media_type);
        assert_eq!(answer.text, "nnnnnnnn");
    }
    let context = world.get("/api/v1/security-context").await.json();
    assert_eq!(context["tee_type"], "simulated");
}

#[tokio::test(start_paused = true)]
async fn a_kubeconfig_is_for_authenticated_clients_alone() {
    let world = World::leading().await;
    assert_eq!(
        world.get("/kubectl/config").await.code,
        StatusCode::UNAUTHORIZED
    );
    for (user, code) in [
        (User::anonymous(), StatusCode::UNAUTHORIZED),
        (User::authenticated("admin", Vec::new()), StatusCode::OK),
    ] {
        let mut request = Request::get("/kubectl/config")
            .body(Body::empty())
            .expect("a request");
        request.extensions_mut().insert(user);
        assert_eq!(world.send(request).await.code, code);
    }
}
