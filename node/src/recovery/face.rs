//! `/nautilus/v1/recovery`, in two forms: of a node that waits for shares, where it is all
//! there is and anybody may ask, and of a quorum that serves, for operators only.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use nautilus_attest_protocol::binding::check_nonce;
use nautilus_machine::Kv;
use nautilus_machinery::identity::User;
use serde::{Deserialize, Serialize};

use super::desk::Waiting;
use super::escrow::{Escrow, Sealed, Terms};
use super::rows::{self, Recovery};

/// Where it stands.
pub(crate) const PATH: &str = "/nautilus/v1/recovery";
/// Bytes of a submission, at most.
const SUBMISSION_BYTES_MAX: usize = 16 << 10;

/// What a waiting node says of itself.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Description {
    /// The node.
    pub(crate) node_id: u64,
    /// The names of those whose shares are there.
    pub(crate) submitted: Vec<String>,
    /// Everything public that an operator needs.
    pub(crate) escrow: Escrow,
    /// What a share is to be sealed to, base64.
    pub(crate) key: String,
    /// Over the asker's nonce, the key and the escrow's terms, base64.
    pub(crate) evidence: String,
}

/// A share on its way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Submission {
    /// The fingerprint of the operator's key.
    pub(crate) operator: String,
    /// Sealed to the desk.
    pub(crate) sealed: Sealed,
}

/// What became of a share.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Taken {
    /// The names of those whose shares are there.
    pub(crate) submitted: Vec<String>,
    /// Shares that are enough.
    pub(crate) threshold: u8,
    /// Whether it was the last one needed.
    pub(crate) recovered: bool,
}

/// What a serving quorum says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RecoveryAnswer {
    /// What its escrow is for; absent without one.
    pub(crate) escrow: Option<Terms>,
    /// The recoveries that happened, in order.
    pub(crate) recoveries: Vec<Recovery>,
}

#[derive(Deserialize)]
struct Asked {
    /// Hex.
    nonce: String,
}

type Refused = (StatusCode, String);

/// The only route of a node that waits for shares.
pub(super) fn desk_router(desk: Arc<Waiting>) -> Router {
    Router::new()
        .route(PATH, get(describe).post(take))
        .layer(DefaultBodyLimit::max(SUBMISSION_BYTES_MAX))
        .with_state(desk)
}

async fn describe(State(desk): State<Arc<Waiting>>, Query(asked): Query<Asked>) -> Response {
    let bad = |reason: String| Err((StatusCode::BAD_REQUEST, reason));
    let nonce = match hex::decode(&asked.nonce) {
        Ok(nonce) => nonce,
        Err(error) => return respond::<()>(bad(format!("nonce: {error}"))),
    };
    if let Err(refused) = check_nonce(&nonce) {
        return respond::<()>(bad(refused.to_string()));
    }
    respond(blocking(move || desk.describe(&nonce)).await)
}

async fn take(State(desk): State<Arc<Waiting>>, body: Bytes) -> Response {
    match serde_json::from_slice::<Submission>(&body) {
        Ok(submission) => respond(blocking(move || desk.take(&submission)).await),
        Err(error) => respond::<()>(Err((StatusCode::BAD_REQUEST, error.to_string()))),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> Result<T, Refused> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    done.map_err(|error| (StatusCode::FORBIDDEN, format!("{error:#}")))
}

/// The route of a quorum that serves. Requests must carry their [`User`] in their
/// extensions.
pub(crate) fn recovery_router(kv: Arc<dyn Kv>) -> Router {
    Router::new().route(PATH, get(status)).with_state(kv)
}

async fn status(State(kv): State<Arc<dyn Kv>>, request: Request) -> Response {
    let is_master = request
        .extensions()
        .get::<User>()
        .is_some_and(User::is_master);
    if !is_master {
        let reason = "only system:masters may see the quorum's recoveries".to_owned();
        return respond::<()>(Err((StatusCode::FORBIDDEN, reason)));
    }
    let present = present(kv.as_ref()).await;
    respond(present.map_err(|reason| (StatusCode::SERVICE_UNAVAILABLE, reason)))
}

async fn present(kv: &dyn Kv) -> Result<RecoveryAnswer, String> {
    kv.read_barrier().await.map_err(|error| error.to_string())?;
    let escrow: Option<Escrow> = match rows::escrow(kv)?.0 {
        Some(row) => Some(serde_json::from_slice(&row).map_err(|error| error.to_string())?),
        None => None,
    };
    Ok(RecoveryAnswer {
        escrow: escrow.map(|escrow| escrow.terms),
        recoveries: rows::recoveries(kv)?,
    })
}

fn respond<T: Serialize>(answer: Result<T, Refused>) -> Response {
    match answer {
        Ok(answer) => Json(answer).into_response(),
        Err((code, message)) => {
            let status = serde_json::json!({
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "code": code.as_u16(),
                "message": message,
            });
            (code, Json(status)).into_response()
        }
    }
}
