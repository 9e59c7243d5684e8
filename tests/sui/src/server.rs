//! Ports that can be closed and opened again at the same address while the program runs.
//!
//! Invariant: while a face refuses, no connection to it is open, neither a new nor an old one.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::faults::{Answer, Faults};

/// How long it waits before it tries again what the system refuses.
const RETRY: Duration = Duration::from_millis(20);

/// A listener that is closed while the fault says so.
pub(crate) struct Port {
    address: SocketAddr,
    listener: Option<TcpListener>,
    faults: watch::Receiver<Faults>,
}

impl Port {
    pub(crate) async fn bind(
        address: SocketAddr,
        faults: watch::Receiver<Faults>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self {
            address: listener.local_addr()?,
            listener: Some(listener),
            faults,
        })
    }
}

impl Listener for Port {
    type Io = Severable;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Severable, SocketAddr) {
        loop {
            if self.faults.borrow().answer == Answer::Refused {
                self.listener = None;
                until(&mut self.faults, false).await;
            }
            let listener = match self.listener.take() {
                Some(listener) => listener,
                None => match TcpListener::bind(self.address).await {
                    Ok(listener) => listener,
                    Err(_) => {
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                },
            };
            let mut faults = self.faults.clone();
            let accepted = tokio::select! {
                accepted = listener.accept() => Some(accepted),
                () = until(&mut faults, true) => None,
            };
            match accepted {
                Some(Ok((stream, peer))) => {
                    self.listener = Some(listener);
                    return (Severable::new(stream, self.faults.clone()), peer);
                }
                Some(Err(_)) => {
                    self.listener = Some(listener);
                    tokio::time::sleep(RETRY).await;
                }
                None => {}
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// Waits until the face refuses, or no longer does.
async fn until(faults: &mut watch::Receiver<Faults>, refused: bool) {
    let wanted = |faults: &Faults| (faults.answer == Answer::Refused) == refused;
    if faults.wait_for(wanted).await.is_err() {
        // Nobody can switch it any more.
        std::future::pending::<()>().await;
    }
}

/// A connection that is cut when the face refuses.
pub(crate) struct Severable {
    stream: TcpStream,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Severable {
    fn new(stream: TcpStream, mut faults: watch::Receiver<Faults>) -> Self {
        Self {
            stream,
            cut: Box::pin(async move { until(&mut faults, true).await }),
        }
    }
}

impl AsyncRead for Severable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            // It is not polled again: the connection ends with this error.
            self.cut = Box::pin(std::future::ready(()));
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Severable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
