//! Accepting connections and speaking HTTP on them.
//!
//! Invariants
//! - Every connection holds a permit of a bounded number, and of a smaller one for each
//!   address; a client that does not finish its TLS handshake, or its request head, in
//!   time is dropped.
//! - A stop ends accepting at once, lets requests under way finish (watches end by
//!   the same signal in [`crate::RestContext`]) and cuts what is left after a grace.
//! - Plain HTTP is served on a loopback address only.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::uri::Scheme;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use nautilus_machinery::identity::{ClientKey, User};
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::cut::{NodeConnections, node_of};
use crate::tls::{client_key_of, user_of};

/// Bounds on connections.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Connections served at once.
    pub max_connections: usize,
    /// The same from one address; generous, for a balancer or a gateway is one.
    pub max_connections_per_client: usize,
    /// From accept to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// From the first byte of a request's head to its last.
    pub header_read_timeout: Duration,
    /// Bytes of a request's head.
    pub max_header_bytes: usize,
    /// Streams of one HTTP/2 connection at once.
    pub max_streams: u32,
    /// Pings on a silent HTTP/2 connection; it is dropped if one is not answered in
    /// the same time.
    pub ping_interval: Duration,
    /// Time for requests under way after a stop.
    pub shutdown_grace: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max_connections: 16_384,
            max_connections_per_client: 8_192,
            handshake_timeout: Duration::from_secs(10),
            header_read_timeout: Duration::from_secs(30),
            max_header_bytes: 64 * 1024,
            max_streams: 1_000,
            ping_interval: Duration::from_secs(30),
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

/// Pause after a failed accept (out of file descriptors, say).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The remote address of a connection, in every request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct RemoteAddress(pub SocketAddr);

/// Serves HTTPS until `shutdown`, then for at most the grace. The user of each
/// connection's client certificate stands in its requests' extensions as [`User`], its key as
/// [`ClientKey`]. Those of nodes end when `nodes` says so.
pub async fn serve_tls(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    router: Router,
    limits: ConnectionLimits,
    nodes: Arc<NodeConnections>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let acceptor = Some((TlsAcceptor::from(config), nodes));
    serve(listener, acceptor, router, limits, shutdown).await
}

/// Serves plain HTTP, every caller anonymous, on a loopback listener until
/// `shutdown`. Refuses any other address.
pub async fn serve_plain_loopback(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("plain HTTP is served on a loopback address only, not on {address}"),
        ));
    }
    serve(listener, None, router, limits, shutdown).await
}

async fn serve(
    listener: TcpListener,
    acceptor: Option<(TlsAcceptor, Arc<NodeConnections>)>,
    router: Router,
    limits: ConnectionLimits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let permits = Arc::new(Semaphore::new(limits.max_connections));
    let limits = Arc::new(limits);
    let tracker = TaskTracker::new();
    let clients = Arc::new(Clients::default());
    loop {
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            permit = permits.clone().acquire_owned() => permit.map_err(io::Error::other)?,
        };
        let (stream, remote) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            },
        };
        let Some(place) = clients.enter(remote.ip(), limits.max_connections_per_client) else {
            metrics::counter!("nautilus_connections_refused_total").increment(1);
            tracing::info!(%remote, "a client has too many connections");
            continue;
        };
        let connection = Connection {
            acceptor: acceptor.clone(),
            router: router.clone(),
            limits: limits.clone(),
            shutdown: shutdown.clone(),
            remote,
        };
        tracker.spawn(async move {
            connection.run(stream).await;
            drop((permit, place));
        });
    }
    drop(listener);
    tracker.close();
    if tokio::time::timeout(limits.shutdown_grace, tracker.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = tracker.len(),
            "connections outlived the shutdown grace"
        );
    }
    Ok(())
}

/// How many connections each address has; an address without any is not kept.
#[derive(Default)]
struct Clients(Mutex<BTreeMap<IpAddr, usize>>);

impl Clients {
    fn enter(self: &Arc<Self>, address: IpAddr, limit: usize) -> Option<Place> {
        let mut clients = self.0.lock();
        let count = clients.entry(address).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Place {
            clients: self.clone(),
            address,
        })
    }
}

/// One connection of an address.
struct Place {
    clients: Arc<Clients>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut clients = self.clients.0.lock();
        if let Some(count) = clients.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&self.address);
            }
        }
    }
}

struct Connection {
    acceptor: Option<(TlsAcceptor, Arc<NodeConnections>)>,
    router: Router,
    limits: Arc<ConnectionLimits>,
    shutdown: CancellationToken,
    remote: SocketAddr,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let Some((acceptor, nodes)) = self.acceptor.clone() else {
            self.speak_http(stream, Scheme::HTTP, User::anonymous(), None)
                .await;
            return;
        };
        let handshake =
            tokio::time::timeout(self.limits.handshake_timeout, acceptor.accept(stream));
        let refused = match handshake.await {
            Ok(Ok(stream)) => {
                let certificates = stream.get_ref().1.peer_certificates();
                let (user, key) = (user_of(certificates), client_key_of(certificates));
                match node_of(&user).map(str::to_owned) {
                    Some(node) => {
                        let stream = nodes.carry(&node, stream);
                        self.speak_http(stream, Scheme::HTTPS, user, key).await;
                    }
                    None => self.speak_http(stream, Scheme::HTTPS, user, key).await,
                }
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "not finished in time".to_owned(),
        };
        metrics::counter!("nautilus_tls_handshakes_refused_total").increment(1);
        tracing::info!(remote = %self.remote, reason = %refused, "TLS handshake refused");
    }

    async fn speak_http<S>(self, stream: S, scheme: Scheme, user: User, key: Option<ClientKey>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self {
            router,
            limits,
            shutdown,
            remote,
            ..
        } = self;
        let service = hyper::service::service_fn(move |request: hyper::Request<_>| {
            let mut request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(user.clone());
            if let Some(key) = &key {
                request.extensions_mut().insert(key.clone());
            }
            request.extensions_mut().insert(scheme.clone());
            request.extensions_mut().insert(RemoteAddress(remote));
            router.clone().oneshot(request)
        });
        let builder = http_builder(&limits);
        let connection = builder
            .serve_connection_with_upgrades(TokioIo::new(stream), service)
            .into_owned();
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(limits.shutdown_grace, connection).await {
                    Ok(ended) => ended,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%remote, %error, "connection ended");
        }
    }
}

fn http_builder(limits: &ConnectionLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_timeout)
        .max_buf_size(limits.max_header_bytes.max(8 * 1024));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(limits.ping_interval)
        .keep_alive_timeout(limits.ping_interval);
    builder
}
