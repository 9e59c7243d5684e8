//! A request passed on, its answer passed back; upgraded connections become one.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_TYPE, HOST, LOCATION, SEC_WEBSOCKET_PROTOCOL, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use nautilus_machinery::status::ApiError;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::links::{Links, PageRewriter};
use super::{Upstream, UpstreamError, exchange, splice};
use crate::failure::Failure;
use crate::serve::RemoteAddress;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const PROXY_AUTHENTICATE: HeaderName = HeaderName::from_static("proxy-authenticate");
const PROXY_AUTHORIZATION: HeaderName = HeaderName::from_static("proxy-authorization");
/// A browser's way to send a bearer token with a WebSocket.
const TOKEN_SUBPROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";
/// What all headers of an impersonation begin with.
const IMPERSONATION: &str = "impersonate-";

/// The place that a long request holds among others.
pub(crate) type Permit = Option<OwnedSemaphorePermit>;

/// Whose name the request carries as its `Host`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostHeader {
    /// What the client called this server.
    AsAsked,
    /// The server it is passed on to.
    Upstream,
}

/// Where a request is passed on to, and how.
pub(crate) struct Forwarding {
    pub(crate) upstream: Upstream,
    pub(crate) path_and_query: String,
    pub(crate) host: HostHeader,
    /// In the place of the client's headers of the same names.
    pub(crate) headers: HeaderMap,
    /// Links in pages and redirections lead through this server again.
    pub(crate) links: Option<Links>,
    /// What the client hears when the server can't be reached.
    pub(crate) unreachable: fn(&UpstreamError) -> ApiError,
}

/// Whether the client wants to speak something else after this request.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains("upgrade"))
}

/// Passes a request on. `shutdown` ends what it was upgraded to.
pub(crate) async fn forward(
    mut request: Request,
    forwarding: Forwarding,
    permit: Permit,
    shutdown: CancellationToken,
) -> Result<Response, Failure> {
    let upgrade = is_upgrade(request.headers());
    let client = upgrade.then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let body = if upgrade { Body::empty() } else { body };
    let Forwarding {
        upstream,
        links,
        unreachable,
        ..
    } = &forwarding;
    let request = outgoing(&parts, &forwarding, body)?;
    let mut answer = exchange(upstream, request).await.map_err(|error| {
        if upgrade {
            error.while_dialing()
        } else {
            unreachable(&error)
        }
    })?;
    let server = upgrade.then(|| hyper::upgrade::on(&mut answer));
    let (mut head, body) = answer.into_parts();
    if let (Some(client), Some(server)) = (client, server) {
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            join(client, server, permit, shutdown);
            return Ok(Response::from_parts(head, Body::empty()));
        }
        if head.status.as_u16() < 400 {
            let code = head.status.as_u16();
            let message = format!("invalid upgrade response: status code {code}");
            return Err(ApiError::unknown(message).into());
        }
    }
    strip_connection(&mut head.headers);
    let mut body = Body::new(body);
    if let Some(links) = links {
        body = rewrite(links, &mut head.headers, body);
    }
    Ok(Response::from_parts(head, held(body, permit)))
}

/// A body that holds its request's place until it ends.
pub(crate) fn held(body: Body, permit: Permit) -> Body {
    Body::new(Held {
        body,
        _permit: permit,
    })
}

/// The request as it goes on: without what concerns this hop, and without credentials.
pub(crate) fn outgoing(
    parts: &Parts,
    forwarding: &Forwarding,
    body: Body,
) -> Result<http::Request<Body>, ApiError> {
    let mut headers = parts.headers.clone();
    let protocol = is_upgrade(&headers)
        .then(|| headers.get(UPGRADE).cloned())
        .flatten();
    strip_connection(&mut headers);
    strip_credentials(&mut headers);
    if let Some(protocol) = protocol {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, protocol);
    }
    for name in forwarding.headers.keys() {
        headers.remove(name);
    }
    for (name, value) in &forwarding.headers {
        headers.append(name, value.clone());
    }
    append_forwarded_for(&mut headers, parts);
    if let Some(links) = &forwarding.links {
        headers.insert("x-forwarded-uri", header(&links.forwarded_uri())?);
        // Pages can only be rewritten in clear.
        let page = headers
            .get(ACCEPT)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|accept| accept.contains("text/html"));
        if page {
            headers.remove(ACCEPT_ENCODING);
        }
    }
    let asked = parts
        .uri
        .authority()
        .map(|authority| authority.as_str().to_owned());
    match forwarding.host {
        HostHeader::Upstream => {
            headers.insert(HOST, header(&forwarding.upstream.authority())?);
        }
        HostHeader::AsAsked => {
            if let Some(asked) = asked {
                headers.insert(HOST, header(&asked)?);
            }
        }
    }
    let mut request = http::Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = forwarding
        .path_and_query
        .parse()
        .map_err(|_| ApiError::bad_request("the path is not one of a request"))?;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    Ok(request)
}

fn header(text: &str) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(text)
        .map_err(|_| ApiError::bad_request("the request names what no header can hold"))
}

/// Takes out what a proxy must not pass on (RFC 9110, section 7.6.1).
fn strip_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
}

/// Takes out what proves to this server who the client is: whoever is asked next must
/// not be able to come back with it.
fn strip_credentials(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    let foreign: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(IMPERSONATION))
        .cloned()
        .collect();
    for name in foreign {
        headers.remove(name);
    }
    let offered: Vec<String> = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_owned())
        .collect();
    if offered
        .iter()
        .any(|name| name.starts_with(TOKEN_SUBPROTOCOL))
    {
        let kept: Vec<&str> = offered
            .iter()
            .map(String::as_str)
            .filter(|name| !name.starts_with(TOKEN_SUBPROTOCOL))
            .collect();
        headers.remove(SEC_WEBSOCKET_PROTOCOL);
        if let Ok(value) = HeaderValue::from_str(&kept.join(", "))
            && !kept.is_empty()
        {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
        }
    }
}

fn append_forwarded_for(headers: &mut HeaderMap, parts: &Parts) {
    let Some(RemoteAddress(remote)) = parts.extensions.get() else {
        return;
    };
    let mut hops: Vec<String> = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok().map(str::to_owned))
        .collect();
    hops.push(remote.ip().to_string());
    if let Ok(value) = HeaderValue::from_str(&hops.join(", ")) {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// Makes one connection of two once both are upgraded.
fn join(client: OnUpgrade, server: OnUpgrade, permit: Permit, shutdown: CancellationToken) {
    tokio::spawn(async move {
        let joined = async {
            let (client, server) = tokio::try_join!(client, server)?;
            splice(TokioIo::new(client), TokioIo::new(server)).await;
            Ok::<(), hyper::Error>(())
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            ended = joined => if let Err(error) = ended {
                tracing::debug!(%error, "an upgraded connection came to nothing");
            },
        }
        drop(permit);
    });
}

/// Lets the links of an answer lead through this server.
fn rewrite(links: &Links, headers: &mut HeaderMap, body: Body) -> Body {
    let text = |value: Option<&HeaderValue>| {
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let location = text(headers.get(LOCATION));
    if !location.is_empty() {
        if let Ok(value) = HeaderValue::from_str(&links.rewrite(&location)) {
            headers.insert(LOCATION, value);
        }
        return body;
    }
    let media = text(headers.get(CONTENT_TYPE));
    let is_page = media.split(';').next().unwrap_or_default().trim() == "text/html";
    if !is_page || headers.contains_key(CONTENT_ENCODING) {
        return body;
    }
    headers.remove(CONTENT_LENGTH);
    let rewriter = PageRewriter::new(links.clone());
    let pages = futures_util::stream::unfold(
        Some((body.into_data_stream(), rewriter)),
        |state| async move {
            use futures_util::StreamExt as _;
            let (mut chunks, mut rewriter) = state?;
            match chunks.next().await {
                Some(Ok(chunk)) => {
                    let rewritten = rewriter.feed(&chunk);
                    Some((Ok(Bytes::from(rewritten)), Some((chunks, rewriter))))
                }
                Some(Err(error)) => Some((Err(error), None)),
                None => Some((Ok(Bytes::from(rewriter.finish())), None)),
            }
        },
    );
    Body::from_stream(pages)
}

struct Held {
    body: Body,
    _permit: Permit,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}
