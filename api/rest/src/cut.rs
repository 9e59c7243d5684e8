//! Connections of nodes, which end at once when their node is barred: with everything on them, watches
//! and tunnels too.
//!
//! Invariant: a connection has its place here before it brings its first request, and every request
//! asks whether its node is barred: whichever comes first, nothing goes on for a barred node.

use std::collections::BTreeMap;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nautilus_access::{node, seal};
use nautilus_machinery::identity::User;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The node that a user is, or whose agent it is.
pub(crate) fn node_of(user: &User) -> Option<&str> {
    node::name_of(user).or_else(|| seal::agent_of(user))
}

/// The connections of every node that has some.
#[derive(Default)]
pub struct NodeConnections(Mutex<BTreeMap<String, Group>>);

/// One node's.
#[derive(Default)]
struct Group {
    connections: usize,
    ended: CancellationToken,
}

impl NodeConnections {
    /// Ends all of the node `name`.
    pub(crate) fn end(&self, name: &str) {
        let group = self.0.lock().remove(name);
        if let Some(group) = group {
            let connections = group.connections;
            tracing::info!(node = name, connections, "connections of a node are cut");
            group.ended.cancel();
        }
    }

    /// `stream` until the node `name` is barred.
    pub(crate) fn carry<S>(self: &Arc<Self>, name: &str, stream: S) -> Cut<S> {
        let mut groups = self.0.lock();
        let group = groups.entry(name.to_owned()).or_default();
        group.connections += 1;
        let ended = group.ended.clone();
        Cut {
            stream,
            cut: Box::pin(ended.clone().cancelled_owned()),
            _place: Place {
                all: self.clone(),
                name: name.to_owned(),
                ended,
            },
        }
    }
}

/// One connection's place.
struct Place {
    all: Arc<NodeConnections>,
    name: String,
    ended: CancellationToken,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut groups = self.all.0.lock();
        // A group that was cut is no longer there, and the name may have another.
        if !self.ended.is_cancelled()
            && let Some(group) = groups.get_mut(&self.name)
        {
            group.connections -= 1;
            if group.connections == 0 {
                groups.remove(&self.name);
            }
        }
    }
}

/// A connection that may be cut.
pub(crate) struct Cut<S> {
    stream: S,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: Place,
}

impl<S> Cut<S> {
    fn goes_on(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cut<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.goes_on(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cut<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.goes_on(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.goes_on(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn a_nodes_connections_end_and_no_others_and_later_ones_live() {
        let nodes = Arc::new(NodeConnections::default());
        let (mut far, near) = duplex(64);
        let mut first = nodes.carry("w1", near);
        let (_other_far, near) = duplex(64);
        let mut other = nodes.carry("w2", near);
        far.write_all(b"a").await.expect("written");
        assert_eq!(first.read_u8().await.expect("read"), b'a');
        let reading = tokio::spawn(async move { first.read_u8().await });
        tokio::task::yield_now().await;
        nodes.end("w1");
        let error = reading.await.expect("it ends").expect_err("cut");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        other.write_all(b"b").await.expect("lives on");
        let (_far, near) = duplex(64);
        let mut later = nodes.carry("w1", near);
        later.write_all(b"c").await.expect("lives");
        drop((later, other));
        assert!(nodes.0.lock().is_empty());
    }
}
