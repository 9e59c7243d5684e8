//! One worker's tunnel: connections that the worker opens for this server, over a
//! WebSocket that the worker opened.
//!
//! Invariants
//! - The socket is always read: a connection that is not read from is paused, and ended
//!   when the worker sends on all the same.
//! - What waits for the socket, and for each connection, is bounded.
//! - A worker's pause ends by itself, later each time. The library of workers (Rancher's
//!   remotedialer) has one flag for both directions: while it asks for a pause it sends
//!   nothing either, and a process that writes what it reads would wait for ever.
//! - A worker is told to send whenever its pause ends, by its own word too: its library wakes
//!   its sender only for what it is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use nautilus_streams::tunnel::{END, TunnelMessage, Tunnelled};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::upstream::UpstreamError;

/// Connections of one tunnel at once.
const MAX_CONNECTIONS: usize = 4_096;
/// Messages that wait for the socket.
const MAX_OUTGOING: usize = 64;
/// Bytes between a connection's two ends.
const PIPE_BYTES: usize = 64 * 1024;
/// Bytes that wait for a connection's reader before the worker is asked to pause.
const PAUSE_BYTES: usize = 1024 * 1024;
/// The same before the connection is ended: the worker does not pause.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;
/// Messages that wait for a connection's reader.
const MAX_WAITING: usize = 16 * 1024;
/// How long a worker's first pause may last before it is told to go on.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The same of later ones: pauses double up to this.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// A worker that says nothing for so long is gone: its pings come every 5 s.
const SILENCE: Duration = Duration::from_secs(60);
/// For a message to leave.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct Session {
    outgoing: mpsc::Sender<TunnelMessage>,
    connections: Mutex<BTreeMap<i64, Arc<Open>>>,
    next_connection: AtomicI64,
    next_message: AtomicI64,
    pub(super) ended: CancellationToken,
}

/// A connection as the socket's reader sees it.
struct Open {
    incoming: mpsc::Sender<Bytes>,
    waiting: AtomicUsize,
    /// Whether the worker asked this server to pause.
    paused: watch::Sender<bool>,
    /// Whether the worker was asked to pause.
    holds: AtomicBool,
    ended: CancellationToken,
}

impl Session {
    /// A session, and the task of its socket: it ends with the socket.
    pub(super) fn over(socket: WebSocket) -> (Arc<Self>, impl Future<Output = ()>) {
        let (outgoing, messages) = mpsc::channel(MAX_OUTGOING);
        let session = Arc::new(Self {
            outgoing,
            connections: Mutex::default(),
            next_connection: AtomicI64::new(1),
            next_message: AtomicI64::new(1),
            ended: CancellationToken::new(),
        });
        let (to_worker, from_worker) = socket.split();
        let serving = session.clone();
        let run = async move {
            tokio::select! {
                () = serving.hear(from_worker) => {}
                () = tell(to_worker, messages) => {}
            }
            serving.ended.cancel();
            let left = std::mem::take(&mut *serving.connections.lock());
            for open in left.values() {
                open.ended.cancel();
            }
        };
        (session, run)
    }

    /// Opens a connection from the worker to an address. That the worker could not open
    /// it shows as an end.
    pub(super) async fn dial(
        self: &Arc<Self>,
        address: &str,
    ) -> Result<DuplexStream, UpstreamError> {
        let id = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let (incoming, waiting) = mpsc::channel(MAX_WAITING);
        let open = Arc::new(Open {
            incoming,
            waiting: AtomicUsize::new(0),
            paused: watch::Sender::new(false),
            holds: AtomicBool::new(false),
            ended: CancellationToken::new(),
        });
        {
            let mut connections = self.connections.lock();
            if connections.len() >= MAX_CONNECTIONS || self.ended.is_cancelled() {
                return Err(UpstreamError(
                    "the node's tunnel takes no connection".into(),
                ));
            }
            connections.insert(id, open.clone());
        }
        let connect = Tunnelled::Connect {
            protocol: "tcp".into(),
            address: address.to_owned(),
        };
        if !self.send(id, connect).await {
            self.connections.lock().remove(&id);
            return Err(UpstreamError("the node's tunnel ended".into()));
        }
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        tokio::spawn(self.clone().carry(id, open, theirs, waiting));
        Ok(ours)
    }

    async fn send(&self, connection: i64, content: Tunnelled) -> bool {
        let message = TunnelMessage {
            id: self.next_message.fetch_add(1, Ordering::Relaxed),
            connection,
            content,
        };
        self.outgoing.send(message).await.is_ok()
    }

    /// Carries one connection's bytes both ways until it ends.
    async fn carry(
        self: Arc<Self>,
        id: i64,
        open: Arc<Open>,
        pipe: DuplexStream,
        waiting: mpsc::Receiver<Bytes>,
    ) {
        let (reader, writer) = tokio::io::split(pipe);
        tokio::select! {
            () = open.ended.cancelled() => {}
            () = self.carry_up(id, &open, reader) => {}
            () = self.lift_pauses(id, &open) => {}
            () = self.carry_down(id, &open, writer, waiting) => {}
        }
        self.connections.lock().remove(&id);
        self.send(id, Tunnelled::Error(END.into())).await;
    }

    async fn carry_up(&self, id: i64, open: &Open, mut reader: ReadHalf<DuplexStream>) {
        let mut paused = open.paused.subscribe();
        let mut buffer = vec![0; PIPE_BYTES / 2];
        loop {
            if paused.wait_for(|paused| !paused).await.is_err() {
                return;
            }
            let Ok(read @ 1..) = reader.read(&mut buffer).await else {
                return;
            };
            let data = Tunnelled::Data(Bytes::copy_from_slice(&buffer[..read]));
            if !self.send(id, data).await {
                return;
            }
        }
    }

    /// Ends a worker's pauses that last too long, and tells it to send at the end of each: it
    /// has as much time again to read before more comes. Ends with the tunnel.
    async fn lift_pauses(&self, id: i64, open: &Open) {
        let mut paused = open.paused.subscribe();
        let mut patience = FIRST_PAUSE;
        while paused.changed().await.is_ok() {
            let lasts = *paused.borrow_and_update()
                && timeout(patience, paused.wait_for(|paused| !paused))
                    .await
                    .is_err();
            if !open.holds.load(Ordering::Relaxed) && !self.send(id, Tunnelled::Resume).await {
                return;
            }
            if !lasts {
                patience = FIRST_PAUSE;
                continue;
            }
            let asked_again = timeout(patience, paused.changed()).await.is_ok();
            patience = (patience * 2).min(MAX_PAUSE);
            if asked_again {
                paused.mark_changed();
            } else {
                open.paused.send_replace(false);
                paused.mark_unchanged();
            }
        }
    }

    async fn carry_down(
        &self,
        id: i64,
        open: &Open,
        mut writer: WriteHalf<DuplexStream>,
        mut waiting: mpsc::Receiver<Bytes>,
    ) {
        while let Some(data) = waiting.recv().await {
            // An empty piece is the end in order.
            if data.is_empty() {
                let _ = writer.shutdown().await;
                return;
            }
            let left = open.waiting.fetch_sub(data.len(), Ordering::Relaxed) - data.len();
            let holds = open.holds.load(Ordering::Relaxed);
            if !holds && left > PAUSE_BYTES {
                open.holds.store(true, Ordering::Relaxed);
                self.send(id, Tunnelled::Pause).await;
            } else if holds && left < PAUSE_BYTES / 2 {
                open.holds.store(false, Ordering::Relaxed);
                self.send(id, Tunnelled::Resume).await;
            }
            if writer.write_all(&data).await.is_err() {
                return;
            }
        }
    }

    async fn hear(&self, mut from_worker: SplitStream<WebSocket>) {
        while let Ok(Some(Ok(message))) = timeout(SILENCE, from_worker.next()).await {
            match message {
                Message::Binary(bytes) => match TunnelMessage::decode(&bytes) {
                    Ok(message) => self.take(message),
                    Err(error) => {
                        tracing::info!(%error, "a worker's tunnel ends");
                        return;
                    }
                },
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Text(_) | Message::Close(_) => return,
            }
        }
    }

    fn take(&self, message: TunnelMessage) {
        let id = message.connection;
        if let Tunnelled::Sync(live) = &message.content {
            let mut connections = self.connections.lock();
            // The worker knows nothing yet of what was asked for since it counted.
            let newest = live.last().copied().unwrap_or_default();
            connections.retain(|id, open| {
                let lives = *id > newest || live.contains(id);
                if !lives {
                    open.ended.cancel();
                }
                lives
            });
            return;
        }
        let Some(open) = self.connections.lock().get(&id).cloned() else {
            return;
        };
        match message.content {
            Tunnelled::Data(data) if data.is_empty() => {}
            Tunnelled::Data(data) => {
                let waiting = open.waiting.fetch_add(data.len(), Ordering::Relaxed) + data.len();
                if waiting > MAX_WAITING_BYTES || open.incoming.try_send(data).is_err() {
                    open.ended.cancel();
                }
            }
            // What came before is still to be read.
            Tunnelled::Error(text) if text == END => {
                if open.incoming.try_send(Bytes::new()).is_err() {
                    open.ended.cancel();
                }
            }
            Tunnelled::Error(text) => {
                tracing::debug!(%text, "a connection through a tunnel ended");
                if open.incoming.try_send(Bytes::new()).is_err() {
                    open.ended.cancel();
                }
            }
            Tunnelled::Pause => drop(open.paused.send_replace(true)),
            Tunnelled::Resume => drop(open.paused.send_replace(false)),
            Tunnelled::Connect { .. } | Tunnelled::Sync(_) | Tunnelled::Other(_) => {}
        }
    }
}

async fn tell(
    mut to_worker: SplitSink<WebSocket, Message>,
    mut messages: mpsc::Receiver<TunnelMessage>,
) {
    while let Some(message) = messages.recv().await {
        let message = Message::Binary(message.encode());
        if !matches!(
            timeout(SEND_TIMEOUT, to_worker.send(message)).await,
            Ok(Ok(()))
        ) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> (Arc<Session>, mpsc::Receiver<TunnelMessage>) {
        let (outgoing, messages) = mpsc::channel(MAX_OUTGOING);
        let session = Session {
            outgoing,
            connections: Mutex::default(),
            next_connection: AtomicI64::new(1),
            next_message: AtomicI64::new(1),
            ended: CancellationToken::new(),
        };
        (Arc::new(session), messages)
    }

    /// What a worker says of connection 1.
    fn heard(session: &Session, content: Tunnelled) {
        session.take(TunnelMessage {
            id: 1,
            connection: 1,
            content,
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_is_told_to_send_at_the_end_of_each_of_its_pauses() {
        let (session, mut messages) = session();
        let mut connection = session.dial("127.0.0.1:1").await.expect("a connection");
        let mut next = async || messages.recv().await.expect("a message").content;
        assert!(matches!(next().await, Tunnelled::Connect { .. }));
        connection.write_all(b"begin").await.expect("written");
        assert_eq!(next().await, Tunnelled::Data(Bytes::from_static(b"begin")));
        // By its own word, also when both come at once.
        heard(&session, Tunnelled::Pause);
        heard(&session, Tunnelled::Resume);
        assert_eq!(next().await, Tunnelled::Resume);
        // By the patience of this server; a piece that was being read goes out before.
        heard(&session, Tunnelled::Pause);
        connection.write_all(b"one").await.expect("written");
        assert_eq!(next().await, Tunnelled::Data(Bytes::from_static(b"one")));
        connection.write_all(b"two").await.expect("written");
        assert_eq!(next().await, Tunnelled::Resume);
        assert_eq!(next().await, Tunnelled::Data(Bytes::from_static(b"two")));
    }
}
