//! The service's entry, written by hand so that its answers have an encoder of their own.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService};

use crate::access::Wanted;
use crate::proto::etcdserverpb::WatchRequest;
use crate::session::Session;
use crate::watch::frame::{Frame, WatchCodec};
use crate::watch::stream::WatchStream;

/// The path of the service's only method.
const WATCH_PATH: &str = "/etcdserverpb.Watch/Watch";

/// Serves one call.
pub(crate) async fn serve(
    session: Arc<Session>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    if request.uri().path() != WATCH_PATH {
        return Ok(Status::unimplemented("unknown method of the service Watch").into_http());
    }
    let max_bytes = session.context.parts.limits.max_message_bytes();
    let mut grpc =
        Grpc::new(WatchCodec).apply_max_message_size_config(Some(max_bytes), Some(usize::MAX));
    Ok(grpc.streaming(Method(session), request).await)
}

struct Method(Arc<Session>);

/// Answers, boxed once per stream.
type Frames = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

impl StreamingService<WatchRequest> for Method {
    type Response = Frame;
    type ResponseStream = Frames;
    type Future = BoxFuture<'static, Result<tonic::Response<Frames>, Status>>;

    fn call(&mut self, request: tonic::Request<tonic::Streaming<WatchRequest>>) -> Self::Future {
        let session = self.0.clone();
        Box::pin(async move {
            let (metadata, _, inbound) = request.into_parts();
            // Each watch is judged by its own range when it is created.
            session.enter(&metadata, Wanted::Stream).await?;
            let stream = WatchStream::new(session, metadata, inbound);
            Ok(tonic::Response::new(Box::pin(stream.run()) as Frames))
        })
    }
}
