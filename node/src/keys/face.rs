//! `GET /nautilus/v1/keys` and `POST /nautilus/v1/keys/rotate`, for operators only.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use nautilus_machine::{MemberRole, NodeId};
use nautilus_machinery::identity::User;
use nautilus_store::Generation;
use serde::{Deserialize, Serialize};

use super::rotation::{KeyRotation, RotateError};
use super::rows;

/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 16 << 10;

/// The keys of a quorum, as the rows tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeysAnswer {
    /// Everything new is sealed under it.
    pub(crate) generation: Generation,
    /// Being handed out, not in use yet.
    pub(crate) next: Option<Generation>,
    /// Members that get no keys any more.
    pub(crate) withheld: BTreeSet<NodeId>,
    /// The members.
    pub(crate) nodes: Vec<NodeAnswer>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeAnswer {
    pub(crate) id: NodeId,
    pub(crate) role: MemberRole,
    /// Under which it seals; 0 when it has told nothing yet.
    pub(crate) generation: Generation,
    /// The generations whose root it holds.
    pub(crate) held: Vec<Generation>,
    /// Data keys of its log and rows.
    pub(crate) data_keys: usize,
    /// About how many bytes it has yet to seal anew.
    pub(crate) left_bytes: u64,
    /// And how many it has gone through.
    pub(crate) done_bytes: u64,
}

impl NodeAnswer {
    /// Whether it seals under `generation` and holds no older root.
    pub(crate) fn is_over(&self, generation: Generation) -> bool {
        self.generation == generation && self.held.iter().all(|held| *held >= generation)
    }
}

impl KeysAnswer {
    /// Whether every member that gets keys is done with everything older.
    pub(crate) fn is_over(&self) -> bool {
        self.next.is_none() && self.unfinished().next().is_none()
    }

    /// Members that are not done yet.
    pub(crate) fn unfinished(&self) -> impl Iterator<Item = &NodeAnswer> {
        let nodes = self.nodes.iter();
        nodes.filter(|node| !self.withheld.contains(&node.id) && !node.is_over(self.generation))
    }
}

/// The body of a request to rotate.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateRequest {
    /// Members that must not get the new keys.
    #[serde(default)]
    pub(crate) withhold: BTreeSet<NodeId>,
}

/// The routes. Requests must carry their [`User`] in their extensions.
pub(crate) fn keys_router(rotation: Arc<KeyRotation>) -> Router {
    Router::new()
        .route("/nautilus/v1/keys", get(status))
        .route("/nautilus/v1/keys/rotate", post(rotate))
        .with_state(rotation)
}

type Refused = (StatusCode, String);

async fn status(State(rotation): State<Arc<KeyRotation>>, request: Request) -> Response {
    let answer = match operator(&request) {
        Ok(_) => present(&rotation).await,
        Err(refused) => Err(refused),
    };
    respond(answer)
}

async fn rotate(State(rotation): State<Arc<KeyRotation>>, request: Request) -> Response {
    let answer = match operator(&request) {
        Ok(user) => begin(&rotation, &user, request.into_body()).await,
        Err(refused) => Err(refused),
    };
    respond(answer)
}

async fn begin(rotation: &KeyRotation, user: &User, content: Body) -> Result<KeysAnswer, Refused> {
    let asked = body(content).await?;
    let begun = rotation.rotate(&asked.withhold, &user.name).await;
    begun.map_err(|error| {
        let code = match &error {
            RotateError::UnderWay(_) => StatusCode::CONFLICT,
            RotateError::Invalid(_) => StatusCode::BAD_REQUEST,
            RotateError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        (code, error.to_string())
    })?;
    present(rotation).await
}

fn operator(request: &Request) -> Result<User, Refused> {
    let user = request.extensions().get::<User>().cloned();
    user.filter(User::is_master).ok_or((
        StatusCode::FORBIDDEN,
        "only system:masters may see and rotate the quorum's keys".to_owned(),
    ))
}

async fn body(body: Body) -> Result<RotateRequest, Refused> {
    let bad = |text: String| (StatusCode::BAD_REQUEST, text);
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await;
    let body = body.map_err(|error| bad(error.to_string()))?;
    if body.is_empty() {
        return Ok(RotateRequest::default());
    }
    serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))
}

async fn present(rotation: &KeyRotation) -> Result<KeysAnswer, Refused> {
    let unavailable = |text: String| (StatusCode::SERVICE_UNAVAILABLE, text);
    let barrier = rotation.kv().read_barrier().await;
    barrier.map_err(|error| unavailable(error.to_string()))?;
    let (row, _) = rows::quorum(rotation.kv()).map_err(unavailable)?;
    let mut told = rows::nodes(rotation.kv()).map_err(unavailable)?;
    let nodes = rotation.members().into_iter().map(|member| {
        let row = told.remove(&member.id).unwrap_or_default();
        NodeAnswer {
            id: member.id,
            role: member.role,
            generation: row.generation,
            held: row.held,
            data_keys: row.data_keys,
            left_bytes: row.left_bytes,
            done_bytes: row.done_bytes,
        }
    });
    Ok(KeysAnswer {
        generation: row.generation,
        next: row.next.map(|next| next.generation),
        withheld: row.withheld,
        nodes: nodes.collect(),
    })
}

fn respond(answer: Result<KeysAnswer, Refused>) -> Response {
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
