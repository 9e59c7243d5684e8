//! A connection whose two ends have accepted each other.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use nautilus_attest_protocol::Peer;
use rustls::NamedGroup;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::framing::Framing;

/// Bytes to and from an attested peer, inside TLS. Both ends renew their evidence
/// between them; a peer that no longer satisfies the policy ends it with
/// [`io::ErrorKind::PermissionDenied`]. Reading and writing belong to one task.
pub struct AttestedStream {
    inner: Framing<TlsStream<TcpStream>>,
    peer: Peer,
}

impl AttestedStream {
    pub(crate) fn new(inner: Framing<TlsStream<TcpStream>>, peer: Peer) -> Self {
        Self { inner, peer }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The key exchange the two ends agreed on.
    pub fn key_exchange_group(&self) -> Option<NamedGroup> {
        self.inner
            .inner()
            .get_ref()
            .1
            .negotiated_key_exchange_group()
            .map(|group| group.name())
    }

    /// The other end's address.
    pub fn peer_address(&self) -> io::Result<std::net::SocketAddr> {
        self.inner.inner().get_ref().0.peer_addr()
    }
}

impl AsyncRead for AttestedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for AttestedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
