//! From a request's path to the service that answers it, and the counting of answers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use http::header::CONTENT_TYPE;
use http::{Request, Response};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tower::Service as _;

use crate::meter::Meters;
use crate::proto::etcdserverpb::auth_server::AuthServer;
use crate::proto::etcdserverpb::cluster_server::ClusterServer;
use crate::proto::etcdserverpb::kv_server::KvServer;
use crate::proto::etcdserverpb::lease_server::LeaseServer;
use crate::proto::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::proto::v3electionpb::election_server::ElectionServer;
use crate::proto::v3lockpb::lock_server::LockServer;
use crate::session::Session;
use crate::{http as plain, watch};

/// Answers with a generated server, within the bounds on messages.
macro_rules! with {
    ($server:ident, $session:ident, $request:ident) => {{
        let max_bytes = $session.context.parts.limits.max_message_bytes();
        $server::from_arc($session)
            .max_decoding_message_size(max_bytes)
            .max_encoding_message_size(usize::MAX)
            .call($request)
            .await
    }};
}

/// Answers one request.
pub(crate) async fn dispatch(
    session: Arc<Session>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    if !is_grpc(&request) {
        return Ok(plain::serve(&session, request.method(), request.uri()).await);
    }
    let meters: Arc<Meters> = session.context.meters.clone();
    let meter = meters.of(request.uri().path());
    let started = Instant::now();
    let service = request.uri().path().split('/').nth(1).unwrap_or_default();
    let response = match service {
        "etcdserverpb.KV" => with!(KvServer, session, request),
        "etcdserverpb.Watch" => watch::serve(session, request).await,
        "etcdserverpb.Lease" => with!(LeaseServer, session, request),
        "etcdserverpb.Cluster" => with!(ClusterServer, session, request),
        "etcdserverpb.Maintenance" => with!(MaintenanceServer, session, request),
        "etcdserverpb.Auth" => with!(AuthServer, session, request),
        "v3lockpb.Lock" => with!(LockServer, session, request),
        "v3electionpb.Election" => with!(ElectionServer, session, request),
        _ => Ok(Status::unimplemented("unknown service").into_http()),
    }?;
    // A refusal says so in its head; an answer does not until its trailers.
    let refused = response.headers().contains_key(Status::GRPC_STATUS);
    meter.record(started.elapsed(), refused);
    Ok(response)
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
