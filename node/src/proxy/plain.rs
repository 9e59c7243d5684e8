//! HTTP/1.1 without TLS for clients of this machine; TLS to an accepted node behind it.
//!
//! One connection of a client has one connection to a node, made when the first
//! request comes and made anew, to the next node, when that one is gone. A request is
//! read whole before it is sent, so that it can be sent again: always when no node has
//! got it, and if it only reads, or is a worker's registration or beat, even when a node
//! was lost while it answered. Answers stream; a connection that changes its protocol (exec, attach) is carried from then
//! on.
//!
//! Whoever reaches the endpoint acts with its certificate, so it refuses what a
//! browser could be made to send: a request for another host, or one with an origin.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, ORIGIN, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::client::ResolvesClientCert;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::balancer::{Balancer, Connected, Target};
use super::identity::Held;
use super::trust::{Standing, Trust};

/// Bytes of a request's body; nodes take no larger one.
const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
/// From a request's end to the head of its answer; nodes give up before.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(75);
/// From a request's first byte to the end of its head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Where workers register and beat.
const WORKERS_PATHS: [&str; 3] = [
    "/api/v1/register-worker",
    "/api/v1/heartbeat",
    "/api/v1/nodes/heartbeat",
];
/// Headers that speak of one connection and not of the request (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    http::header::TE,
    http::header::TRANSFER_ENCODING,
];

type Body = BoxBody<Bytes, hyper::Error>;

/// The endpoint.
pub(super) struct Front {
    balancer: Arc<Balancer>,
    trust: Arc<Trust>,
    tls: Arc<rustls::ClientConfig>,
    identity: Option<Arc<Held>>,
    hosts: Vec<String>,
}

/// The connection to a node.
struct Upstream {
    target: Arc<Target>,
    sender: client::SendRequest<Full<Bytes>>,
    _counted: Connected,
}

/// Why a request came to nothing at one node.
enum Lost {
    /// The node has not got it.
    Unsent(anyhow::Error),
    /// It may have got it.
    Unknown(anyhow::Error),
}

impl Front {
    /// Clients may call it by these names besides `localhost` and addresses.
    pub(super) fn new(
        balancer: Arc<Balancer>,
        trust: Arc<Trust>,
        identity: Option<Arc<Held>>,
        hosts: Vec<String>,
    ) -> anyhow::Result<Self> {
        let resolver = identity
            .clone()
            .map(|held| held as Arc<dyn ResolvesClientCert>);
        let mut tls = trust.tls(resolver)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            balancer,
            trust,
            tls: Arc::new(tls),
            identity,
            hosts,
        })
    }

    /// Serves one client until it goes.
    pub(super) async fn serve(self: Arc<Self>, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let upstream: Arc<Mutex<Option<Upstream>>> = Arc::default();
        let service = service_fn(move |request| {
            let (front, upstream) = (Arc::clone(&self), Arc::clone(&upstream));
            async move { Ok::<_, Infallible>(front.answer(request, &upstream).await) }
        });
        let serving = server::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        if let Err(error) = serving.await {
            tracing::debug!(%error, "a client's connection ended");
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        upstream: &Mutex<Option<Upstream>>,
    ) -> Response<Body> {
        if let Err(reason) = self.check(&request) {
            return status(StatusCode::FORBIDDEN, "Forbidden", &reason);
        }
        if self.identity.as_ref().is_some_and(|held| !held.is_there()) {
            return unavailable("the proxy has no certificate of its own yet");
        }
        let mut held = upstream.lock().await;
        match self.forward(request, &mut held).await {
            Ok(response) => response,
            Err(Lost::Unsent(error)) => unavailable(&format!("{error:#}")),
            Err(Lost::Unknown(error)) => status(
                StatusCode::BAD_GATEWAY,
                "InternalError",
                &format!(
                    "the node was lost while the request was under way, whether it took effect is \
                     unknown: {error:#}"
                ),
            ),
        }
    }

    /// Refuses what a page in a browser could send.
    fn check(&self, request: &Request<Incoming>) -> Result<(), String> {
        let headers = request.headers();
        if headers.contains_key(ORIGIN) {
            return Err("a request with an origin comes from a browser's page".to_owned());
        }
        let host = headers
            .get(HOST)
            .and_then(|host| host.to_str().ok())
            .or_else(|| request.uri().authority().map(http::uri::Authority::as_str))
            .unwrap_or_default();
        if is_own_host(host, &self.hosts) {
            return Ok(());
        }
        Err(format!(
            "this endpoint is not {:?}; call it by its address or as localhost, or start the proxy \
             with --accept-host",
            host.escape_default().to_string()
        ))
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        held: &mut Option<Upstream>,
    ) -> Result<Response<Body>, Lost> {
        let upgrade = request
            .headers()
            .contains_key(UPGRADE)
            .then(|| hyper::upgrade::on(&mut request));
        let (head, body) = request.into_parts();
        let body = match Limited::new(body, MAX_BODY_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                return Ok(status(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "RequestEntityTooLarge",
                    &format!("the body is not taken: {error}; the limit is {MAX_BODY_BYTES} bytes"),
                ));
            }
        };
        let again = is_idempotent(&head);
        // In order as of when a new connection is needed: a node may have fallen silent.
        let mut candidates = None;
        let mut lost = Lost::Unsent(anyhow::anyhow!(
            "no node is accepted by its evidence, or none answers"
        ));
        loop {
            let live = match held.take() {
                Some(live) if !live.sender.is_closed() => live,
                _ => {
                    let candidates =
                        candidates.get_or_insert_with(|| self.balancer.order().into_iter());
                    let Some(target) = candidates.next() else {
                        return Err(lost);
                    };
                    match self.connect(target).await {
                        Ok(live) => live,
                        Err(error) => {
                            if matches!(lost, Lost::Unsent(_)) {
                                lost = Lost::Unsent(error);
                            }
                            continue;
                        }
                    }
                }
            };
            match send(live, &head, body.clone()).await {
                Ok((mut response, live)) => {
                    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                        if let Some(upgrade) = upgrade {
                            carry(upgrade, hyper::upgrade::on(&mut response), &live.target);
                        }
                    } else {
                        remove_hop_by_hop(response.headers_mut());
                        *held = Some(live);
                    }
                    return Ok(response.map(BodyExt::boxed));
                }
                Err(error @ Lost::Unsent(_)) => lost = error,
                Err(error @ Lost::Unknown(_)) if again => lost = error,
                Err(error) => return Err(error),
            }
        }
    }

    async fn connect(&self, target: Arc<Target>) -> anyhow::Result<Upstream> {
        let stream = self.trust.connect(&target, &self.tls).await?;
        let distrusted = Standing::distrusted(&target.standing);
        let silent = target.silent();
        let (sender, connection) = client::handshake(TokioIo::new(stream))
            .await
            .with_context(|| target.address.to_string())?;
        // Ends with the client's connection, which holds the sender, or with the trust.
        tokio::spawn(async move {
            tokio::select! {
                ended = connection.with_upgrades() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a node's connection ended");
                    }
                }
                () = distrusted.cancelled() => {}
                () = silent.cancelled() => {}
            }
        });
        let counted = target.connected();
        Ok(Upstream {
            target,
            sender,
            _counted: counted,
        })
    }
}

/// Whether a request may be sent twice: it only reads, or it is a worker's.
fn is_idempotent(head: &http::request::Parts) -> bool {
    match head.method {
        Method::GET | Method::HEAD | Method::OPTIONS => true,
        Method::POST => WORKERS_PATHS.contains(&head.uri.path()),
        _ => false,
    }
}

/// Sends a request; the connection comes back with the answer.
async fn send(
    mut live: Upstream,
    head: &http::request::Parts,
    body: Bytes,
) -> Result<(Response<Incoming>, Upstream), Lost> {
    let request = outward(head, body, &live.target).map_err(Lost::Unsent)?;
    if let Err(error) = live.sender.ready().await {
        return Err(Lost::Unsent(error.into()));
    }
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, live.sender.send_request(request)).await;
    match answer {
        Ok(Ok(response)) => Ok((response, live)),
        Ok(Err(error)) if error.is_canceled() => Err(Lost::Unsent(error.into())),
        Ok(Err(error)) => Err(Lost::Unknown(error.into())),
        Err(_) => Err(Lost::Unknown(anyhow::anyhow!(
            "no answer within {} s",
            ANSWER_TIMEOUT.as_secs()
        ))),
    }
}

/// The request as the node gets it.
fn outward(
    head: &http::request::Parts,
    body: Bytes,
    target: &Target,
) -> anyhow::Result<Request<Full<Bytes>>> {
    let path = head
        .uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = path.parse::<Uri>()?;
    let headers = request.headers_mut();
    *headers = head.headers.clone();
    let upgrade = headers.get(UPGRADE).cloned();
    remove_hop_by_hop(headers);
    headers.remove(http::header::CONTENT_LENGTH);
    headers.remove(http::header::EXPECT);
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
    headers.insert(HOST, HeaderValue::from_str(&target.address.authority())?);
    Ok(request)
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.into_iter().chain(named) {
        headers.remove(name);
    }
}

/// Carries a connection that has changed its protocol, for as long as the node is
/// accepted.
fn carry(client: hyper::upgrade::OnUpgrade, node: hyper::upgrade::OnUpgrade, target: &Arc<Target>) {
    let counted = target.connected();
    let distrusted = Standing::distrusted(&target.standing);
    let silent = target.silent();
    tokio::spawn(async move {
        let carried = async {
            let (client, node) = tokio::try_join!(client, node)?;
            let (mut client, mut node) = (TokioIo::new(client), TokioIo::new(node));
            tokio::io::copy_bidirectional(&mut client, &mut node).await?;
            anyhow::Ok(())
        };
        tokio::select! {
            ended = carried => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a carried connection ended");
                }
            }
            () = distrusted.cancelled() => {}
            () = silent.cancelled() => {}
        }
        drop(counted);
    });
}

/// Whether `host` (with or without a port) is an address, `localhost`, or one of `names`:
/// names that anybody's name server could point here are not.
fn is_own_host(host: &str, names: &[String]) -> bool {
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    bare.parse::<IpAddr>().is_ok()
        || bare.eq_ignore_ascii_case("localhost")
        || names.iter().any(|name| bare.eq_ignore_ascii_case(name))
}

fn unavailable(reason: &str) -> Response<Body> {
    let mut response = status(
        StatusCode::SERVICE_UNAVAILABLE,
        "ServiceUnavailable",
        reason,
    );
    let headers = response.headers_mut();
    headers.insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// The proxy's own words, in the form that the API's clients show.
fn status(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let text = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": format!("nautilus proxy: {message}"),
        "reason": reason,
        "code": code.as_u16(),
    })
    .to_string();
    let body = Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = code;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_be_pointed_here_is_not_the_endpoints_own() {
        let names = ["proxy.internal".to_owned()];
        for host in [
            "127.0.0.1:8001",
            "localhost",
            "LOCALHOST:1",
            "[::1]:8001",
            "10.0.0.1",
            "proxy.internal:80",
        ] {
            assert!(is_own_host(host, &names), "{host}");
        }
        for host in ["", "evil.example", "127.0.0.1.evil.example:8001", "[::1"] {
            assert!(!is_own_host(host, &names), "{host}");
        }
    }

    #[test]
    fn what_reads_and_what_workers_send_may_be_sent_twice() {
        for (method, path, wanted) in [
            (Method::GET, "/api/v1/pods?watch=1", true),
            (Method::POST, "/api/v1/heartbeat", true),
            (Method::POST, "/api/v1/nodes/heartbeat", true),
            (Method::POST, "/api/v1/register-worker", true),
            (Method::POST, "/api/v1/namespaces", false),
            (Method::PUT, "/api/v1/heartbeat", false),
        ] {
            let request = Request::builder().method(method).uri(path).body(());
            let (head, ()) = request.expect("a request").into_parts();
            assert_eq!(is_idempotent(&head), wanted, "{path}");
        }
    }

    #[test]
    fn headers_of_one_connection_do_not_go_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, x-private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("accept", "application/json"),
        ] {
            headers.insert(name, value.parse().expect("a value"));
        }
        remove_hop_by_hop(&mut headers);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["accept"]);
    }
}
