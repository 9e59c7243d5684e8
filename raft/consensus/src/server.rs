//! Accepts peers: an attested handshake each, then our protocol on its stream.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use nautilus_machine::NodeId;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use crate::config::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, PEER_MESSAGE_BYTES};
use crate::node_core::Core;
use crate::restart::HEADER;
use crate::service::PeerService;
use crate::transport::{Connection, PeerIdentity, Transport};
use crate::wire::v1::peer_server::PeerServer;

/// Connections that passed their handshake and wait to be served.
const READY: usize = 16;
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Bytes of one HTTP/2 frame.
const FRAME_BYTES: u32 = 1 << 20;
/// Calls one peer may have open at once.
const STREAMS_PER_CONNECTION: u32 = 8192;

/// Serves until the node stops.
pub(crate) async fn serve(core: Arc<Core>, transport: Arc<dyn Transport>, listener: TcpListener) {
    let (sender, ready) = mpsc::channel(READY);
    core.tasks
        .spawn(accept(Arc::clone(&core), transport, listener, sender));
    let service = PeerService {
        core: Arc::clone(&core),
        receiving: Arc::default(),
    };
    let service = PeerServer::new(service)
        .max_decoding_message_size(PEER_MESSAGE_BYTES)
        .max_encoding_message_size(PEER_MESSAGE_BYTES);
    let lives = Arc::clone(&core.lives);
    let stamp = tower::util::MapResponseLayer::new(
        move |mut response: http::Response<tonic::body::Body>| {
            if let Ok(value) = lives.header().parse() {
                response.headers_mut().insert(HEADER, value);
            }
            response
        },
    );
    let server = tonic::transport::Server::builder()
        .layer(stamp)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .max_frame_size(FRAME_BYTES)
        .add_service(service)
        .serve_with_incoming(ReceiverStream::new(ready));
    tokio::select! {
        () = core.stop.cancelled() => {}
        served = server => if let Err(error) = served {
            core.fail(format!("serving peers: {error}"));
        },
    }
}

async fn accept(
    core: Arc<Core>,
    transport: Arc<dyn Transport>,
    listener: TcpListener,
    ready: mpsc::Sender<io::Result<PeerIo>>,
) {
    let handshakes = Arc::new(Semaphore::new(core.config.limits.handshakes));
    // Whoever leaves its handshakes unfinished keeps out its own address only.
    let addresses = PerAddress::new((core.config.limits.handshakes / 4).max(1));
    loop {
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else {
            return;
        };
        let (tcp, from) = tokio::select! {
            () = core.stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting a peer failed");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let Some(turn) = PerAddress::enter(&addresses, from.ip()) else {
            metrics::counter!("nautilus_peer_handshakes_refused_total").increment(1);
            tracing::debug!(%from, "too many handshakes from one address; closing the newest");
            continue;
        };
        let (core, transport, ready) = (Arc::clone(&core), Arc::clone(&transport), ready.clone());
        let tasks = core.tasks.clone();
        tasks.spawn(async move {
            let (_permit, _turn) = (permit, turn);
            tokio::select! {
                () = core.stop.cancelled() => {}
                () = handshake(&core, transport.as_ref(), tcp, &ready) => {}
            }
        });
    }
}

/// How many handshakes each address has under way.
struct PerAddress {
    limit: usize,
    under_way: Mutex<BTreeMap<IpAddr, usize>>,
}

impl PerAddress {
    fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            under_way: Mutex::default(),
        })
    }

    /// `None` when the address has its limit already.
    fn enter(this: &Arc<Self>, address: IpAddr) -> Option<Turn> {
        let mut under_way = this.under_way.lock();
        let count = under_way.entry(address).or_default();
        if *count >= this.limit {
            return None;
        }
        *count += 1;
        Some(Turn {
            of: Arc::clone(this),
            address,
        })
    }
}

/// One handshake's; given back when dropped.
struct Turn {
    of: Arc<PerAddress>,
    address: IpAddr,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut under_way = self.of.under_way.lock();
        if let Some(count) = under_way.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.address);
            }
        }
    }
}

async fn handshake(
    core: &Core,
    transport: &dyn Transport,
    tcp: TcpStream,
    ready: &mpsc::Sender<io::Result<PeerIo>>,
) {
    let from = tcp
        .peer_addr()
        .map(|address| address.to_string())
        .unwrap_or_default();
    let limit = core.config.limits.handshake_timeout;
    match tokio::time::timeout(limit, transport.accept(tcp)).await {
        Ok(Ok(connection)) => {
            core.peers.note(&connection.peer);
            let io = PeerIo::new(connection, core.losses.sender(), &core.stop);
            // Nobody takes it when the node stops.
            let _ = ready.send(Ok(io)).await;
        }
        Ok(Err(error)) => {
            metrics::counter!("nautilus_peer_handshakes_refused_total").increment(1);
            tracing::warn!(%from, %error, "a peer's handshake failed");
        }
        Err(_) => tracing::warn!(%from, "a peer's handshake took too long"),
    }
}

/// A served connection; tells the loss detector when it ends, and ends with the node.
struct PeerIo {
    connection: Connection,
    ended: mpsc::Sender<NodeId>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl PeerIo {
    fn new(connection: Connection, ended: mpsc::Sender<NodeId>, stop: &CancellationToken) -> Self {
        Self {
            connection,
            ended,
            stop: Box::pin(stop.clone().cancelled_owned()),
        }
    }
}

impl Drop for PeerIo {
    fn drop(&mut self) {
        // When the queue is full there is enough to look at.
        let _ = self.ended.try_send(self.connection.peer.node_id);
    }
}

impl Connected for PeerIo {
    type ConnectInfo = PeerIdentity;

    fn connect_info(&self) -> PeerIdentity {
        self.connection.peer.clone()
    }
}

impl AsyncRead for PeerIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.stop.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the node is stopping",
            )));
        }
        Pin::new(&mut self.connection).poll_read(context, buffer)
    }
}

impl AsyncWrite for PeerIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_leaves_handshakes_unfinished_keeps_out_itself_only() {
        let addresses = PerAddress::new(2);
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = PerAddress::enter(&addresses, one).unwrap();
        let _second = PerAddress::enter(&addresses, one).unwrap();
        assert!(PerAddress::enter(&addresses, one).is_none());
        assert!(PerAddress::enter(&addresses, other).is_some());
        drop(first);
        assert!(PerAddress::enter(&addresses, one).is_some());
    }
}
