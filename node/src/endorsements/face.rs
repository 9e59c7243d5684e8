//! `/nautilus/v1/endorsements`: what the quorum has, for administrators.
//!
//! * `GET /nautilus/v1/endorsements`: the list;
//! * `GET /nautilus/v1/endorsements/NAME`: the bytes of one;
//! * `PUT /nautilus/v1/endorsements/NAME`: imports one. It must be what its name says,
//!   signed by its vendor as far as the issuer is at hand, and not older than what is
//!   there.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use nautilus_machine::Kv;
use nautilus_machinery::identity::User;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::keeper::{checked, now_ms, shown_time};
use super::row::{self, MAX_ENDORSEMENT_BYTES, Row, RowError};

/// Where endorsements are.
pub(crate) const PATH: &str = "/nautilus/v1/endorsements";

/// One endorsement of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    /// See [`nautilus_attest_protocol::Endorsements`].
    pub(crate) name: String,
    /// `present`, or `wanted` when a verifier missed it.
    pub(crate) state: String,
    /// Its size.
    pub(crate) bytes: usize,
    /// From when on it holds, RFC 3339.
    pub(crate) issued_at: Option<String>,
    /// Until when.
    pub(crate) expires_at: Option<String>,
    /// When it came.
    pub(crate) fetched_at: Option<String>,
    /// Whether its vendor's signature was checked up to the root.
    pub(crate) signature_checked: bool,
    /// Whence.
    pub(crate) source: String,
}

impl Listed {
    fn new(name: String, row: Row) -> Self {
        let is_wanted = row.is_wanted();
        let time = |at_ms| (!is_wanted).then(|| shown_time(at_ms));
        Self {
            name,
            state: if is_wanted { "wanted" } else { "present" }.to_owned(),
            bytes: row.bytes.len(),
            issued_at: time(row.issued_at_ms),
            expires_at: time(row.expires_at_ms),
            fetched_at: time(row.fetched_at_ms),
            signature_checked: row.is_checked,
            source: row.source,
        }
    }
}

type Store = State<Arc<dyn Kv>>;
type Who = Option<Extension<User>>;

/// A refusal, answered as a `Status`.
struct Refused {
    code: StatusCode,
    reason: &'static str,
    message: String,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code.as_u16(),
        });
        (self.code, Json(status)).into_response()
    }
}

/// The routes. Requests must carry their [`User`] in their extensions.
pub(crate) fn router(kv: Arc<dyn Kv>) -> Router {
    Router::new()
        .route(PATH, get(list))
        .route(&format!("{PATH}/{{*name}}"), get(read).put(import))
        .layer(DefaultBodyLimit::max(MAX_ENDORSEMENT_BYTES))
        .with_state(kv)
}

async fn list(State(kv): Store, user: Who) -> Result<Response, Refused> {
    administrator(user)?;
    barrier(&kv).await?;
    let (rows, _) = row::read_all(kv.as_ref()).map_err(|error| store_failed(&error))?;
    let listed: Vec<Listed> = rows
        .into_iter()
        .map(|(name, row)| Listed::new(name, row))
        .collect();
    Ok(Json(json!({ "endorsements": listed })).into_response())
}

async fn read(State(kv): Store, user: Who, Path(name): Path<String>) -> Result<Response, Refused> {
    administrator(user)?;
    barrier(&kv).await?;
    let (rows, _) = row::read_all(kv.as_ref()).map_err(|error| store_failed(&error))?;
    let found = rows.into_iter().find(|(present, _)| *present == name);
    match found.filter(|(_, row)| !row.is_wanted()) {
        Some((_, row)) => {
            Ok(([(CONTENT_TYPE, "application/octet-stream")], row.bytes).into_response())
        }
        None => Err(refused(
            StatusCode::NOT_FOUND,
            "NotFound",
            &format!("the quorum has no endorsement {name}"),
        )),
    }
}

async fn import(
    State(kv): Store,
    user: Who,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, Refused> {
    let user = administrator(user)?;
    let source = format!("imported by {}", user.name);
    let row = checked(&name, body.to_vec(), source, now_ms()).map_err(|error| {
        refused(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            &format!("{name} is not taken: {error}"),
        )
    })?;
    row::write(kv.as_ref(), &name, &row)
        .await
        .map_err(|error| match error {
            RowError::Older { .. } | RowError::Full { .. } => {
                refused(StatusCode::CONFLICT, "Conflict", &error.to_string())
            }
            error => store_failed(&error),
        })?;
    tracing::info!(name, user = %user.name, "an endorsement was imported");
    Ok(Json(Listed::new(name, row)).into_response())
}

fn administrator(user: Who) -> Result<User, Refused> {
    let user = user.map(|Extension(user)| user).filter(User::is_master);
    user.ok_or_else(|| {
        refused(
            StatusCode::FORBIDDEN,
            "Forbidden",
            "only system:masters may see and import endorsements",
        )
    })
}

async fn barrier(kv: &Arc<dyn Kv>) -> Result<(), Refused> {
    let confirmed = kv.read_barrier().await;
    confirmed.map(drop).map_err(|error| {
        refused(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailable",
            &error.to_string(),
        )
    })
}

fn store_failed(error: &RowError) -> Refused {
    refused(
        StatusCode::SERVICE_UNAVAILABLE,
        "ServiceUnavailable",
        &error.to_string(),
    )
}

fn refused(code: StatusCode, reason: &'static str, message: &str) -> Refused {
    Refused {
        code,
        reason,
        message: message.to_owned(),
    }
}
