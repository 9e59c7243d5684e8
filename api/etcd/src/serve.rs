//! Accepting connections and speaking gRPC on them, and the few plain HTTP paths that
//! etcd's port has.
//!
//! Invariants
//! - Every connection holds a permit of a bounded number; a client that does not finish
//!   its TLS handshake in time is dropped.
//! - Without TLS only a loopback listener is served.
//! - A stop ends accepting at once, lets requests under way finish and cuts what is left
//!   after a grace.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use nautilus_machinery::identity::{MASTERS_GROUP, User};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::context::EtcdContext;
use crate::dispatch::dispatch;
use crate::limits::EtcdLimits;
use crate::session::Session;
use crate::upkeep::upkeep;

/// Pause after a failed accept (out of file descriptors, say).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Bytes a client may send on one stream ahead of our reading.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes a client may send on one connection ahead of our reading.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Bytes of answers that one stream may have waiting for the socket.
const STREAM_SEND_BYTES: usize = 1024 * 1024;
/// Bytes of a request's head.
const MAX_HEADER_BYTES: u32 = 64 * 1024;

/// Serves etcd's clients on `listener` until `stop`, then for at most the grace.
/// `tls` must ask for client certificates and offer `h2`; `None` is for a loopback
/// listener, whose callers are masters.
///
/// # Errors
/// When the listener is not on loopback and `tls` is `None`.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    context: Arc<EtcdContext>,
    stop: CancellationToken,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    if tls.is_none() && !address.ip().is_loopback() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("etcd's clients are served without TLS on loopback only, not on {address}"),
        ));
    }
    let acceptor = tls.map(TlsAcceptor::from);
    let permits = Arc::new(Semaphore::new(context.parts.limits.max_connections));
    let tracker = TaskTracker::new();
    tracker.spawn(context.clone().follow_leadership(stop.clone()));
    if context.take_upkeep() {
        tracker.spawn(upkeep(context.clone(), stop.clone()));
    }
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = permits.clone().acquire_owned() => permit.map_err(io::Error::other)?,
        };
        let (stream, remote) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            },
        };
        let connection = Connection {
            acceptor: acceptor.clone(),
            context: context.clone(),
            stop: stop.clone(),
            remote,
        };
        tracker.spawn(async move {
            connection.run(stream).await;
            drop(permit);
        });
    }
    drop(listener);
    tracker.close();
    let grace = context.parts.limits.shutdown_grace;
    if tokio::time::timeout(grace, tracker.wait()).await.is_err() {
        tracing::warn!(
            connections = tracker.len(),
            "connections outlived the grace"
        );
    }
    Ok(())
}

struct Connection {
    acceptor: Option<TlsAcceptor>,
    context: Arc<EtcdContext>,
    stop: CancellationToken,
    remote: SocketAddr,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let Some(acceptor) = self.acceptor.clone() else {
            let user = User::authenticated("loopback", vec![MASTERS_GROUP.to_owned()]);
            self.speak(stream, user).await;
            return;
        };
        let timeout = self.context.parts.limits.handshake_timeout;
        let refused = match tokio::time::timeout(timeout, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                let certificates = stream.get_ref().1.peer_certificates();
                let leaf = certificates.and_then(<[_]>::first);
                let user = leaf.map_or_else(User::anonymous, |leaf| User::of_certificate(leaf));
                self.speak(stream, user).await;
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "not finished in time".to_owned(),
        };
        metrics::counter!("nautilus_tls_handshakes_refused_total").increment(1);
        tracing::info!(remote = %self.remote, reason = %refused, "TLS handshake refused");
    }

    async fn speak<S>(self, stream: S, user: User)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let session = Arc::new(Session {
            context: self.context.clone(),
            user,
            stop: self.stop.clone(),
        });
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            dispatch(session.clone(), request)
        });
        let builder = http_builder(&self.context.parts.limits);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                let grace = self.context.parts.limits.shutdown_grace;
                match tokio::time::timeout(grace, connection).await {
                    Ok(ended) => ended,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(remote = %self.remote, %error, "connection ended");
        }
    }
}

fn http_builder(limits: &EtcdLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_send_buf_size(STREAM_SEND_BYTES)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    builder
}
