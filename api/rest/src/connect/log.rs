//! `pods/log`: a container's log, from its kubelet.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures_util::StreamExt as _;
use http::{HeaderMap, StatusCode, Uri};
use hyper::body::Incoming;
use nautilus_machinery::status::ApiError;

use super::Connection;
use super::location::{container, node_name};
use super::options::LogOptions;
use crate::failure::Failure;
use crate::respond;
use crate::upstream::{Forwarding, HostHeader, Upstream, UpstreamError, exchange, held, outgoing};

const TEXT: &str = "text/plain";
/// Bytes of a kubelet's refusal that are passed on.
const MAX_REFUSAL_BYTES: usize = 50_000;

impl Connection {
    pub(super) async fn log(self, request: Request) -> Result<Response, Failure> {
        let options = LogOptions::parse(request.uri(), self.name())?;
        let pod = self.pod().await?;
        let container = container(&options.container, &pod)?;
        let Some(node) = node_name(&pod) else {
            // Nothing runs, so nothing was said.
            let mut nothing = Response::new(Body::empty());
            *nothing.status_mut() = StatusCode::NO_CONTENT;
            return Ok(nothing);
        };
        let skip = options.insecure_skip_tls_verify_backend;
        let upstream = self.kubelet(node, skip).await?.upstream;
        let path_and_query = format!(
            "/containerLogs/{}/{}/{container}{}",
            self.namespace(),
            self.name(),
            options.kubelet_query()
        );
        let answer = self.ask(request.uri(), upstream, path_and_query).await?;
        let status = answer.status();
        if !(200..=206).contains(&status.as_u16()) {
            return Err(self.refusal(status, answer.into_body()).await.into());
        }
        let body = held(Body::new(answer.into_body()), self.permit);
        Ok(respond::bytes(StatusCode::OK, TEXT, body))
    }

    async fn ask(
        &self,
        uri: &Uri,
        upstream: Upstream,
        path_and_query: String,
    ) -> Result<http::Response<Incoming>, Failure> {
        let url = format!(
            "{}://{}{path_and_query}",
            upstream.scheme(),
            upstream.authority()
        );
        let forwarding = Forwarding {
            upstream,
            path_and_query,
            host: HostHeader::Upstream,
            headers: HeaderMap::new(),
            links: None,
            unreachable: UpstreamError::while_dialing,
        };
        let mut blank = http::Request::new(());
        *blank.uri_mut() = uri.clone();
        let (parts, ()) = blank.into_parts();
        let request = outgoing(&parts, &forwarding, Body::empty())?;
        exchange(&forwarding.upstream, request)
            .await
            .map_err(|error| ApiError::unknown(format!("Get \"{url}\": {error}")).into())
    }

    /// What the kubelet said instead, in the reference's form.
    async fn refusal(&self, status: StatusCode, body: Incoming) -> ApiError {
        let mut text = Vec::new();
        let mut chunks = Body::new(body).into_data_stream();
        while let Some(Ok(chunk)) = chunks.next().await {
            text.extend_from_slice(&chunk);
            if text.len() >= MAX_REFUSAL_BYTES {
                text.truncate(MAX_REFUSAL_BYTES);
                break;
            }
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        match status.as_u16() {
            500 => ApiError::internal(text),
            400 => ApiError::bad_request(text),
            code => ApiError::server_response(code, "pods/log", self.name(), &text),
        }
    }
}
