//! API requests scheduled on the chain: run once, as the requester, by the API server that
//! serves everybody else; their results kept for query.
//!
//! Invariants
//! - A request has no rights but those that RBAC gives its requester's groups.
//! - A request runs once. Where a leader was lost while it ran, the next one repeats only what
//!   can't happen twice: reads; creations, known by their name and their mark; changes and
//!   deletions of exactly the object as it was found before the first attempt.

mod path;
mod queue;
mod row;
mod run;

use std::sync::Arc;

use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, StatusCode};
use nautilus_machinery::identity::User;
use nautilus_machinery::status::ApiError;
use serde_json::{Value, json};

use super::batch::Row;
use super::stakes::user_name;
use super::{Events, NO_CHAIN};

pub(super) use row::RequestRow;
pub(super) use run::run;

/// A request to the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiRequest {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// What `body` is; absent where it is empty.
    pub content_type: Option<&'static str>,
    /// Its body.
    pub body: Bytes,
}

/// The API server's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiAnswer {
    /// The status code.
    pub code: u16,
    /// The body, at most the bytes that were asked for.
    pub body: Bytes,
    /// Whether there was more of it.
    pub truncated: bool,
}

/// The API server, as a requester on the chain meets it: authorization, admission and audit
/// are those of any request.
pub trait ApiRequests: Send + Sync + 'static {
    /// Serves `request` as `user`'s; of the answer, the first `limit_bytes`. `Err`: it could not
    /// be served at all.
    fn execute(
        &self,
        user: User,
        request: ApiRequest,
        limit_bytes: usize,
    ) -> BoxFuture<'_, Result<ApiAnswer, String>>;
}

pub(super) fn router(events: Option<Arc<Events>>) -> Router {
    Router::new()
        .route("/api/v1/sui-requests/{request_id}", get(find))
        .with_state(events)
}

async fn find(
    State(events): State<Option<Arc<Events>>>,
    user: Option<Extension<User>>,
    Path(request_id): Path<String>,
) -> Response {
    match look_up(events.as_deref(), user.map(|user| user.0), &request_id).await {
        Ok(found) => Json(found).into_response(),
        Err(error) => {
            let code = StatusCode::from_u16(error.code());
            let code = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (code, Json(error.to_status())).into_response()
        }
    }
}

/// A request's row, for its requester and for masters.
async fn look_up(
    events: Option<&Events>,
    user: Option<User>,
    request_id: &str,
) -> Result<Value, ApiError> {
    let user = user.filter(User::is_authenticated);
    let user = user.ok_or_else(ApiError::unauthorized)?;
    let events = events.ok_or_else(|| ApiError::unavailable(NO_CHAIN, 60))?;
    let barrier = events.kv.read_barrier().await;
    barrier.map_err(|error| ApiError::unavailable(error.to_string(), 1))?;
    let row = Row::<RequestRow>::read(&*events.kv, &RequestRow::key(request_id));
    let row = row.map_err(|error| ApiError::internal(error.to_string()))?;
    let may_see =
        |row: &RequestRow| user.is_master() || user.name == user_name(&row.call.requester);
    // Whoever may not see it does not learn that it is there.
    row.value
        .filter(may_see)
        .map(|row| as_json(&row))
        .ok_or_else(|| ApiError::not_found_on("", "sui-requests", request_id))
}

fn as_json(row: &RequestRow) -> Value {
    let call = &row.call;
    let mut found = json!({
        "request_id": call.request_id,
        "requester": call.requester,
        "method": call.method,
        "resource": call.resource,
        "namespace": call.namespace,
        "name": call.name,
        "scheduled_at_ms": row.scheduled_at_ms,
        "event": row.event,
        "assigned": row.assigned,
        "reported": row.reported,
    });
    match &row.state {
        row::State::Pending => found["state"] = "pending".into(),
        row::State::Running { started_ms, .. } => {
            found["state"] = "running".into();
            found["started_ms"] = (*started_ms).into();
        }
        row::State::Done {
            finished_ms,
            result,
        } => {
            found["state"] = "done".into();
            found["finished_ms"] = (*finished_ms).into();
            found["result"] = json!(result);
        }
    }
    found
}
