//! The plain HTTP paths of etcd's port: health, version and metrics.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Response, StatusCode, Uri};
use http_body_util::Full;
use tonic::body::Body;
use tonic::metadata::MetadataMap;

use crate::access::Wanted;
use crate::context::EtcdContext;
use crate::session::Session;

/// The release of etcd whose interface this is.
pub const ETCD_VERSION: &str = "3.6.8";
/// The version that all members agree on: the release's minor.
pub const CLUSTER_VERSION: &str = "3.6.0";

/// A member that cannot confirm a read in this time is not healthy.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// Answers a request that is not gRPC.
pub(crate) async fn serve(session: &Arc<Session>, method: &Method, uri: &Uri) -> Response<Body> {
    if method != Method::GET && method != Method::HEAD {
        return answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method Not Allowed\n");
    }
    let context = &session.context;
    match uri.path() {
        "/version" => {
            let body = format!(
                r#"{{"etcdserver":"{ETCD_VERSION}","etcdcluster":"{CLUSTER_VERSION}","storage":"{CLUSTER_VERSION}"}}"#
            );
            answer(StatusCode::OK, JSON, body)
        }
        "/health" => {
            let local = uri
                .query()
                .is_some_and(|query| query.contains("serializable=true"));
            match unhealthy(context, local).await {
                None => answer(StatusCode::OK, JSON, r#"{"health":"true","reason":""}"#),
                Some(reason) => answer(
                    StatusCode::SERVICE_UNAVAILABLE,
                    JSON,
                    format!(r#"{{"health":"false","reason":"{reason}"}}"#),
                ),
            }
        }
        "/livez" => answer(StatusCode::OK, TEXT, "ok\n"),
        "/readyz" => match unhealthy(context, false).await {
            None => answer(StatusCode::OK, TEXT, "ok\n"),
            Some(reason) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{reason}\n")),
        },
        "/metrics" => match session
            .enter(&MetadataMap::new(), Wanted::Authenticated)
            .await
        {
            Ok(_) => answer(StatusCode::OK, TEXT, (context.parts.metrics_text)()),
            Err(status) => answer(StatusCode::FORBIDDEN, TEXT, status.message().to_owned()),
        },
        _ => answer(StatusCode::NOT_FOUND, TEXT, "404 page not found\n"),
    }
}

/// Why this member should get no requests.
async fn unhealthy(context: &Arc<EtcdContext>, local: bool) -> Option<&'static str> {
    if context.alarms.may_serve().is_err() {
        return Some("ALARM CORRUPT");
    }
    if context.alarms.may_grow().is_err() {
        return Some("ALARM NOSPACE");
    }
    if local {
        return None;
    }
    if !context.has_leader() {
        return Some("RAFT NO LEADER");
    }
    match tokio::time::timeout(HEALTH_TIMEOUT, context.barrier()).await {
        Ok(Ok(_)) => None,
        Ok(Err(_)) => Some("RANGE ERROR"),
        Err(_) => Some("RANGE TIMED OUT"),
    }
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(body.into())));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
