//! `pods/portforward`: SPDY to the kubelet, bare or inside a WebSocket's messages.

use std::time::Duration;

use axum::body::Body;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts as _, Request};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use nautilus_machinery::status::ApiError;
use nautilus_streams::subprotocol::{tunnel_of, tunnelled};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use super::Connection;
use super::channels::{MAX_MESSAGE_BYTES, PROTOCOL_VERSION, SPDY_31, farewell};
use super::options::port_forward_query;
use super::remote_command::protocols;
use crate::failure::Failure;
use crate::stream::wants_websocket;
use crate::upstream::{
    Forwarding, HostHeader, Upstream, UpstreamError, exchange, held, idle, outgoing,
};

/// Bytes read from the kubelet at once.
const READ_BYTES: usize = 32 * 1024;
/// For the client to take the end.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(10);

impl Connection {
    pub(super) async fn port_forward(
        self,
        request: Request,
        options: &Value,
    ) -> Result<Response, Failure> {
        let query = port_forward_query(options);
        let pod = self.pod().await?;
        let kubelet = self.pods_kubelet(&pod).await?;
        let path_and_query = format!("/portForward/{}/{}{query}", self.namespace(), self.name());
        let inner: Vec<String> = protocols(request.headers())
            .filter_map(tunnelled)
            .map(str::to_owned)
            .collect();
        if wants_websocket(request.headers()) && !inner.is_empty() && !kubelet.translates {
            return self
                .tunnel(request, kubelet.upstream, path_and_query, &inner)
                .await;
        }
        self.pass_through(request, kubelet.upstream, path_and_query)
            .await
    }

    /// The kubelet is asked first: what it refuses, the client hears from it.
    async fn tunnel(
        self,
        request: Request,
        upstream: Upstream,
        path_and_query: String,
        inner: &[String],
    ) -> Result<Response, Failure> {
        let (mut parts, _) = request.into_parts();
        let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
            .await
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        let forwarding = Forwarding {
            upstream,
            path_and_query,
            host: HostHeader::AsAsked,
            headers: HeaderMap::new(),
            links: None,
            unreachable: UpstreamError::while_dialing,
        };
        ask_for_spdy(&mut parts, inner)?;
        let request = outgoing(&parts, &forwarding, Body::empty())?;
        let mut answer = exchange(&forwarding.upstream, request)
            .await
            .map_err(|error| error.while_dialing())?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (head, body) = answer.into_parts();
            return Ok(Response::from_parts(
                head,
                held(Body::new(body), self.permit),
            ));
        }
        let speaks_spdy = answer
            .headers()
            .get(UPGRADE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.eq_ignore_ascii_case(SPDY_31));
        if !speaks_spdy {
            let message = "unable to upgrade: missing upgrade headers in response";
            return Err(ApiError::unknown(message).into());
        }
        let chosen = answer
            .headers()
            .get(PROTOCOL_VERSION)
            .and_then(|value| value.to_str().ok())
            .map(tunnel_of);
        let server = hyper::upgrade::on(&mut answer);
        let upgrade = upgrade
            .max_message_size(MAX_MESSAGE_BYTES)
            .max_frame_size(MAX_MESSAGE_BYTES);
        let upgrade = match chosen {
            Some(name) => upgrade.protocols([name]),
            None => upgrade,
        };
        let shutdown = self.context.shutdown.clone();
        let permit = self.permit;
        Ok(upgrade.on_upgrade(move |socket| async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = join(socket, server) => {}
            }
            drop(permit);
        }))
    }
}

/// Makes of a client's request for a WebSocket one for SPDY.
fn ask_for_spdy(parts: &mut Parts, inner: &[String]) -> Result<(), ApiError> {
    parts.method = Method::POST;
    for name in [
        SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_VERSION,
        SEC_WEBSOCKET_EXTENSIONS,
    ] {
        parts.headers.remove(name);
    }
    parts
        .headers
        .insert(UPGRADE, HeaderValue::from_static(SPDY_31));
    parts.headers.remove(PROTOCOL_VERSION);
    for name in inner {
        let value = HeaderValue::from_str(name)
            .map_err(|_| ApiError::bad_request("a subprotocol's name is malformed"))?;
        parts.headers.append(PROTOCOL_VERSION, value);
    }
    Ok(())
}

/// Messages to bytes and back, until either side ends.
async fn join(socket: WebSocket, server: OnUpgrade) {
    let Ok(server) = server.await else {
        return;
    };
    let (mut reader, mut writer) = tokio::io::split(TokioIo::new(server));
    let (mut to_client, mut from_client) = socket.split();
    let last = Mutex::new(Instant::now());
    let up = async {
        while let Some(Ok(message)) = from_client.next().await {
            *last.lock() = Instant::now();
            match message {
                Message::Binary(bytes) => {
                    writer.write_all(&bytes).await?;
                    writer.flush().await?;
                }
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Text(_) | Message::Close(_) => break,
            }
        }
        Ok::<(), std::io::Error>(())
    };
    let down = pass_down(&mut reader, &mut to_client, &last);
    tokio::select! {
        _ = up => {}
        () = down => {}
        () = idle(&last) => {}
    }
    let _ = timeout(LAST_WORD_TIMEOUT, to_client.send(farewell())).await;
}

async fn pass_down(
    reader: &mut tokio::io::ReadHalf<TokioIo<Upgraded>>,
    to_client: &mut futures_util::stream::SplitSink<WebSocket, Message>,
    last: &Mutex<Instant>,
) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(read) = reader.read(&mut buffer).await {
        *last.lock() = Instant::now();
        let message = Message::Binary(Bytes::copy_from_slice(&buffer[..read]));
        if read == 0 || to_client.send(message).await.is_err() {
            return;
        }
    }
}
