//! The port to whoever makes connections between masters.
//!
//! Consensus knows neither TLS nor evidence: it is given a stream whose other end
//! was attested, and what was learnt of it. The member it claims to be and the
//! platform it runs on are compared with the membership here, on every connection
//! and every call.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use nautilus_machine::NodeId;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A byte stream both ways.
pub trait PeerStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> PeerStream for S {}

/// Who is at the other end, as attested.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PeerIdentity {
    /// The node id bound into its evidence.
    pub node_id: NodeId,
    /// Hex of the platform's identity (chip id), pinned in the membership.
    pub platform: String,
    /// Hex of the measurement of its code.
    pub measurement: String,
    /// The kind of TEE.
    pub tee: String,
    /// Hex of the digest of its evidence.
    pub evidence_digest_hex: String,
}

/// An attested connection.
pub struct Connection {
    /// The bytes.
    pub stream: Box<dyn PeerStream>,
    /// The other end.
    pub peer: PeerIdentity,
}

/// Why no connection came about, in words for both ends' operators.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// Nobody answers there.
    #[error("connecting to {address}: {reason}")]
    Unreachable {
        /// Where.
        address: String,
        /// The system's words.
        reason: String,
    },
    /// One end refused the other.
    #[error("peer refused: {0}")]
    Refused(String),
}

/// Makes attested connections.
pub trait Transport: Send + Sync + 'static {
    /// Connects to `address` (`host:port`); refuses a peer that is not `expect`.
    fn connect<'a>(
        &'a self,
        address: &'a str,
        expect: Option<NodeId>,
    ) -> BoxFuture<'a, Result<Connection, TransportError>>;

    /// The server's side of the same.
    fn accept(&self, tcp: TcpStream) -> BoxFuture<'_, Result<Connection, TransportError>>;
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A transport without attestation, for tests of what lies above it.
#[cfg(any(test, feature = "test-transport"))]
pub mod plain {
    use super::{
        BoxFuture, Connection, NodeId, PeerIdentity, TcpStream, Transport, TransportError,
    };
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Bytes an identity may have on the wire.
    const IDENTITY_BYTES: usize = 4096;

    /// Tells the other end its identity, and believes what it is told.
    #[derive(Debug, Clone)]
    pub struct PlainTransport {
        /// What it tells.
        pub identity: PeerIdentity,
    }

    impl PlainTransport {
        /// A transport for a node with this id on this platform.
        pub fn new(node_id: NodeId, platform: &str) -> Self {
            let platform = platform.to_owned();
            Self {
                identity: PeerIdentity {
                    node_id,
                    platform,
                    tee: "none".into(),
                    ..PeerIdentity::default()
                },
            }
        }

        async fn exchange(&self, mut tcp: TcpStream) -> Result<Connection, TransportError> {
            let failed = |error: std::io::Error| TransportError::Refused(error.to_string());
            tcp.set_nodelay(true).map_err(failed)?;
            let own = postcard::to_stdvec(&self.identity)
                .map_err(|error| TransportError::Refused(error.to_string()))?;
            tcp.write_u32(u32::try_from(own.len()).unwrap_or(u32::MAX))
                .await
                .map_err(failed)?;
            tcp.write_all(&own).await.map_err(failed)?;
            let length = tcp.read_u32().await.map_err(failed)? as usize;
            if length > IDENTITY_BYTES {
                return Err(TransportError::Refused(format!(
                    "an identity of {length} bytes"
                )));
            }
            let mut theirs = vec![0; length];
            tcp.read_exact(&mut theirs).await.map_err(failed)?;
            let peer = postcard::from_bytes(&theirs)
                .map_err(|error| TransportError::Refused(error.to_string()))?;
            Ok(Connection {
                stream: Box::new(tcp),
                peer,
            })
        }
    }

    impl Transport for PlainTransport {
        fn connect<'a>(
            &'a self,
            address: &'a str,
            expect: Option<NodeId>,
        ) -> BoxFuture<'a, Result<Connection, TransportError>> {
            Box::pin(async move {
                let tcp = TcpStream::connect(address).await.map_err(|error| {
                    TransportError::Unreachable {
                        address: address.to_owned(),
                        reason: error.to_string(),
                    }
                })?;
                let connection = self.exchange(tcp).await?;
                match expect {
                    Some(id) if id != connection.peer.node_id => {
                        Err(TransportError::Refused(format!(
                            "{address} is node {}, not node {id}",
                            connection.peer.node_id
                        )))
                    }
                    _ => Ok(connection),
                }
            })
        }

        fn accept(&self, tcp: TcpStream) -> BoxFuture<'_, Result<Connection, TransportError>> {
            Box::pin(self.exchange(tcp))
        }
    }
}
