//! The routes, as wired: bodies in, answers out. What they mean is decided elsewhere.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use nautilus_machinery::identity::{ClientKey, NODE_USER_PREFIX, User};
use serde_json::{Value, json};

use crate::Workers;
use crate::answer::Refusal;
use crate::limits;
use crate::node_object::node_name;
use crate::register::{self, Admitted};
use crate::roster::millis;
use crate::verdicts::{Admission, KeyHash, Presented, PresentedKey};
use crate::{attestation, beat, proof, wire};

/// All routes of the worker face.
pub(crate) fn router(workers: Arc<Workers>) -> Router {
    Router::new()
        .route("/api/v1/register-worker", post(register_worker))
        .route("/api/v1/heartbeat", post(heartbeat))
        .route("/api/v1/nodes/heartbeat", post(heartbeat))
        .route("/api/v1/attestation", get(attestation::answer))
        .route("/api/v1/security-context", get(security_context))
        .route("/kubectl/config", get(kubeconfig))
        .route("/health", get(health))
        .layer(DefaultBodyLimit::max(limits::BODY_LIMIT_BYTES))
        .with_state(workers)
}

type Body = Result<Bytes, BytesRejection>;

async fn register_worker(
    State(workers): State<Arc<Workers>>,
    key: Option<Extension<ClientKey>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match take_registration(&workers, key, &headers, body).await {
        Ok(answer) => Json(answer).into_response(),
        Err(refusal) => {
            if let Refusal::Failed(reason) = &refusal {
                tracing::error!(reason, "a registration failed");
            }
            refusal.respond(&headers)
        }
    }
}

async fn take_registration(
    workers: &Workers,
    key: Option<Extension<ClientKey>>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Value, Refusal> {
    let _permit = workers.permit()?;
    let registration = wire::registration(headers, &whole(body)?)?;
    let token = registration
        .token
        .map_err(|fault| Refusal::Token(fault.into()))?;
    let timestamp_s = registration.timestamp_s;
    workers.near_our_clock(timestamp_s)?;
    let proof = proof::verify(headers, &registration.node_id, Some(timestamp_s));
    let presented = Presented {
        token: &Arc::new(token),
        node_id: &registration.node_id,
        key: presented_key(key, &registration.node_id),
        proof: proof.map_err(|fault| Refusal::Token(fault.into()))?,
    };
    let token_hash = presented.token.hash();
    let admitted = |admission: Admission| Admitted {
        node_id: registration.node_id.clone(),
        owner: admission.owner,
        token_hash,
        token_expires_at_s: admission.expires_at,
        stake_amount: admission.stake_amount,
        tier: workers.settings.stake_tiers.of(admission.stake_amount),
        machine: registration.machine.clone(),
        unix_ms: workers.clock.unix_ms(),
        fence: admission.fence,
        is_exclusive: admission.is_exclusive,
    };
    let (kv, verdicts) = (&*workers.kv, &workers.verdicts);
    let admitted: Admitted =
        register::judge_and_register::<Refusal>(kv, verdicts, &presented, admitted).await?;
    tracing::info!(
        node_id = admitted.node_id,
        owner = admitted.owner,
        "worker registered"
    );
    Ok(json!({
        "status": "registered",
        "node_id": admitted.node_id,
        "message": "Worker node registered with Seal token",
    }))
}

async fn heartbeat(
    State(workers): State<Arc<Workers>>,
    key: Option<Extension<ClientKey>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let started = Instant::now();
    let taken = take_heartbeat(&workers, key, &headers, body).await;
    let outcome = taken
        .as_ref()
        .map_or_else(Refusal::outcome, |()| "acknowledged");
    metrics::counter!("nautilus_heartbeats_total", "outcome" => outcome).increment(1);
    metrics::histogram!("nautilus_heartbeat_duration_seconds")
        .record(started.elapsed().as_secs_f64());
    match taken {
        Ok(()) => {
            let timestamp = workers.clock.unix_ms() / 1000;
            Json(json!({"status": "acknowledged", "timestamp": timestamp})).into_response()
        }
        Err(refusal) => refusal.respond(&headers),
    }
}

async fn take_heartbeat(
    workers: &Workers,
    key: Option<Extension<ClientKey>>,
    headers: &HeaderMap,
    body: Body,
) -> Result<(), Refusal> {
    let _permit = workers.permit()?;
    let beat = wire::heartbeat(headers, &whole(body)?)?;
    let proof = proof::verify(headers, &beat.node_id, beat.timestamp_s)
        .map_err(|fault| Refusal::Token(fault.into()))?;
    if let Some(proved) = &proof {
        workers.near_our_clock(proved.timestamp_s)?;
    }
    let key = presented_key(key, &beat.node_id);
    beat::take(workers, beat, key, proof).await
}

/// The connection's key, and whether it is the kubelet's of that very node.
fn presented_key(key: Option<Extension<ClientKey>>, node_id: &str) -> Option<PresentedKey> {
    let Extension(key) = key?;
    let node = key.subject.strip_prefix(NODE_USER_PREFIX);
    Some(PresentedKey {
        hash: KeyHash(key.spki_sha256),
        is_the_nodes: node == Some(&*node_name(node_id)),
    })
}

fn whole(body: Body) -> Result<Bytes, Refusal> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge {
            limit_bytes: limits::BODY_LIMIT_BYTES,
        },
        _ => Refusal::BrokenBody(rejection.body_text()),
    })
}

async fn health(State(workers): State<Arc<Workers>>) -> Response {
    let serves = can_serve(&workers).await;
    let facts = &workers.facts;
    let events = (workers.probes.sui_connected)();
    let mut answer = json!({
        "status": if serves.is_ok() { "healthy" } else { "unhealthy" },
        "enclave": facts.enclave,
        "components": facts.components,
        "sui_events": if events.is_ok() { "connected" } else { "disconnected" },
        "tee_type": facts.tee_type,
        "security_level": facts.security_level,
        "measurement": facts.measurement,
        "timestamp": workers.clock.unix_ms() / 1000,
    });
    if let Err(reason) = events {
        answer["sui_events_reason"] = reason.into();
    }
    if let Some((reachable, since_ms)) = workers.verdicts.reachable() {
        answer["sui"] = json!({"reachable": reachable, "since": since_ms / 1000});
    }
    match serves {
        Ok(()) => Json(answer).into_response(),
        Err(reason) => {
            answer["reason"] = reason.into();
            (StatusCode::SERVICE_UNAVAILABLE, Json(answer)).into_response()
        }
    }
}

/// Healthy is a node whose reads a leader confirms.
async fn can_serve(workers: &Workers) -> Result<(), String> {
    (workers.probes.ready)()?;
    match tokio::time::timeout(limits::HEALTH_WAIT, workers.kv.read_barrier()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!(
            "no leader confirmed within {} ms",
            millis(limits::HEALTH_WAIT)
        )),
    }
}

async fn security_context(State(workers): State<Arc<Workers>>) -> Json<Value> {
    let facts = &workers.facts;
    Json(json!({
        "enclave": facts.enclave,
        "tee_type": facts.tee_type,
        "security_level": facts.security_level,
        "measurement": facts.measurement,
        "timestamp": workers.clock.unix_ms() / 1000,
    }))
}

async fn kubeconfig(
    State(workers): State<Arc<Workers>>,
    user: Option<Extension<User>>,
    headers: HeaderMap,
) -> Response {
    let Some(Extension(user)) = user.filter(|user| user.is_authenticated()) else {
        return Refusal::Anonymous.respond(&headers);
    };
    match (workers.probes.kubeconfig)(&user) {
        Ok(text) => (
            [
                (CONTENT_TYPE, "application/yaml"),
                (CACHE_CONTROL, "no-store"),
            ],
            text,
        )
            .into_response(),
        Err(reason) => Refusal::Failed(reason).respond(&headers),
    }
}
