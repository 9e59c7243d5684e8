//! One connection, one request.

use std::io;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Security, Upstream, UpstreamError};

/// From the look-up of a name to the end of TCP's handshake.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// For the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer's head, at most.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Both directions of a connection.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// A connection of whatever kind.
pub(crate) type Stream = Box<dyn Duplex>;

/// Through the node's tunnel where it holds one, else directly.
async fn dial(upstream: &Upstream) -> Result<Stream, UpstreamError> {
    let address = upstream.authority();
    let tunnelled = match &upstream.tunnel {
        Some(tunnel) => tunnel.tunnels.dial(&tunnel.node, upstream.port).await,
        None => None,
    };
    let stream = match tunnelled {
        Some(dialed) => dialed?,
        None => direct(&upstream.host, upstream.port, &address).await?,
    };
    let Security::Tls(config, name) = &upstream.security else {
        return Ok(stream);
    };
    let name = name.as_deref().unwrap_or(&upstream.host).to_owned();
    let name = ServerName::try_from(name)
        .map_err(|_| UpstreamError(format!("{:?} is no name for a server", upstream.host)))?;
    let connecting = TlsConnector::from(config.clone()).connect(name, stream);
    match timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(UpstreamError(format!("tls: {error}"))),
        Err(_) => Err(UpstreamError("net/http: TLS handshake timeout".to_owned())),
    }
}

async fn direct(host: &str, port: u16, address: &str) -> Result<Stream, UpstreamError> {
    match timeout(DIAL_TIMEOUT, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => {
            let _ = stream.set_nodelay(true);
            Ok(Box::new(stream))
        }
        Ok(Err(error)) => Err(UpstreamError(format!(
            "dial tcp {address}: {}",
            reason(&error)
        ))),
        Err(_) => Err(UpstreamError(format!("dial tcp {address}: i/o timeout"))),
    }
}

/// In the words that people search for.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".into(),
        io::ErrorKind::TimedOut => "connect: connection timed out".into(),
        _ => error.to_string(),
    }
}

/// Sends a request on a connection of its own. The connection lasts as long as somebody
/// holds the answer's body, or what it was upgraded to.
pub(crate) async fn exchange(
    upstream: &Upstream,
    request: Request<Body>,
) -> Result<Response<Incoming>, UpstreamError> {
    let stream = dial(upstream).await?;
    let failed = |error: hyper::Error| UpstreamError(error.to_string());
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    tokio::spawn(async move {
        // Whoever reads the answer hears of an error there.
        let _ = connection.with_upgrades().await;
    });
    sender.send_request(request).await.map_err(failed)
}
