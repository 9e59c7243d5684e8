//! `POST /nautilus/v1/snapshot`: an archive, streamed from this node.
//!
//! Invariants
//! - Only administrators may ask; they get ciphertext alone.
//! - [`STREAMS_MAX`] archives are under way at once; more are refused, not queued.
//! - An answer that ends in order carried the whole archive; a failure cuts it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderName, StatusCode, header};
use nautilus_machinery::identity::User;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::error::BackupError;
use crate::stream::{Audience, Source};

/// Where archives are asked for.
pub const SNAPSHOT_PATH: &str = "/nautilus/v1/snapshot";
/// Who signs the archive in the answer.
pub const SIGNER_HEADER: HeaderName = HeaderName::from_static("x-nautilus-archive-signer");
/// The revision of the key space in it.
pub const REVISION_HEADER: HeaderName = HeaderName::from_static("x-nautilus-archive-revision");
/// Archives streamed at once.
pub const STREAMS_MAX: usize = 2;
/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 64 << 10;

/// The request's body.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRequest {
    /// Public keys, in text; none: sealed to the quorum.
    #[serde(default)]
    pub recipients: Vec<String>,
}

struct Context {
    source: Source,
    streams: Arc<Semaphore>,
}

/// The route. Requests must carry their [`User`] in their extensions.
pub fn backup_router(source: Source) -> Router {
    let context = Context {
        source,
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
    };
    Router::new()
        .route(SNAPSHOT_PATH, post(snapshot))
        .with_state(Arc::new(context))
}

async fn snapshot(State(context): State<Arc<Context>>, request: Request) -> Response {
    match answer(&context, request).await {
        Ok(response) => response,
        Err((code, message)) => status(code, &message),
    }
}

type Refused = (StatusCode, String);

async fn answer(context: &Context, request: Request) -> Result<Response, Refused> {
    let user = request.extensions().get::<User>().cloned();
    let user = user.filter(User::is_master).ok_or((
        StatusCode::FORBIDDEN,
        "only system:masters may take snapshots".to_owned(),
    ))?;
    let audience = audience(request.into_body()).await?;
    let permit = Arc::clone(&context.streams).try_acquire_owned();
    let permit = permit.map_err(|_| {
        let text = format!("{STREAMS_MAX} snapshots are under way on this node; try again later");
        (StatusCode::TOO_MANY_REQUESTS, text)
    })?;
    let barrier = context.source.kv.read_barrier().await;
    barrier.map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let archive = context
        .source
        .archive(audience)
        .await
        .map_err(|error| failed(&error))?;
    tracing::info!(user = %user.name, revision = archive.revision, keys = archive.keys, "streaming a snapshot");
    let (signer, revision) = (archive.signer.to_string(), archive.revision);
    let pieces = stream::unfold((archive.pieces, permit), |(mut pieces, permit)| async {
        let piece: Result<Bytes, BackupError> = pieces.recv().await?;
        if let Err(error) = &piece {
            tracing::error!(%error, "a snapshot failed on its way");
        }
        Some((piece, (pieces, permit)))
    });
    Response::builder()
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(SIGNER_HEADER, signer)
        .header(REVISION_HEADER, revision.to_string())
        .body(Body::from_stream(pieces))
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

async fn audience(body: Body) -> Result<Audience, Refused> {
    let bad = |text: String| (StatusCode::BAD_REQUEST, text);
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await;
    let body = body.map_err(|error| bad(error.to_string()))?;
    let asked: SnapshotRequest = match body.is_empty() {
        true => SnapshotRequest::default(),
        false => serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?,
    };
    let recipients = asked.recipients.iter().map(|text| text.parse());
    let recipients = recipients.collect::<Result<_, BackupError>>();
    Ok(Audience {
        recipients: recipients.map_err(|error| bad(format!("recipients: {error}")))?,
    })
}

fn failed(error: &BackupError) -> Refused {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

/// A refusal in the form of the Kubernetes API.
fn status(code: StatusCode, message: &str) -> Response {
    let text = serde_json::json!({
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code.as_u16(),
        "message": message,
    });
    let mut response = Response::new(Body::from(text.to_string()));
    *response.status_mut() = code;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
