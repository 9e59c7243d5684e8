//! A command's streams, from a client's WebSocket (v5 of the channels) to a kubelet that
//! speaks SPDY.
//!
//! Three loops share one session: from the client, from the kubelet, and to the kubelet.
//! None waits for another but where a bound is reached, so that a command which writes
//! while it is written to never stands still.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts as _, Request};
use axum::response::Response;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use nautilus_machinery::status::ApiError;
use nautilus_streams::channel::{self, Input, Protocol};
use nautilus_streams::spdy::{Event, Role, Session};
use nautilus_streams::subprotocol::{V4_OVER_SPDY, V5_CHANNEL};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::error_stream;
use crate::failure::Failure;
use crate::upstream::{
    Forwarding, HostHeader, Permit, Upstream, UpstreamError, exchange, idle, outgoing,
};

/// Bytes of one message of a client's, at most.
pub(super) const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that wait for the kubelet before more is taken from the client.
const MAX_PENDING_BYTES: usize = 256 * 1024;
/// Bytes read from the kubelet at once.
const READ_BYTES: usize = 32 * 1024;
/// Bytes of a kubelet's word on how the command ended, or of its refusal.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// The kubelet is asked for a sign of life this often, so that nothing between takes the
/// connection for dead.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// For the client to take the last word.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(10);
/// Names the SPDY protocol and its version.
pub(super) const PROTOCOL_VERSION: &str = "x-stream-protocol-version";
/// What an upgrade to SPDY is called.
pub(super) const SPDY_31: &str = "SPDY/3.1";
/// The header that says what a stream is for.
const STREAM_TYPE: &str = "streamtype";

/// A command's streams to be translated.
pub(super) struct Translation {
    pub(super) upstream: Upstream,
    pub(super) path_and_query: String,
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
    pub(super) permit: Permit,
    pub(super) shutdown: CancellationToken,
}

type ToClient = SplitSink<WebSocket, Message>;

/// The SPDY streams of one command.
struct Streams {
    error: u32,
    stdin: Option<u32>,
    stdout: Option<u32>,
    stderr: Option<u32>,
    resize: Option<u32>,
}

/// What the loops share.
struct Shared {
    session: Mutex<Session>,
    streams: Streams,
    /// Something waits to be sent to the kubelet.
    output: Notify,
    /// Something was sent to the kubelet.
    sent: Notify,
    last: Mutex<Instant>,
}

/// The client is gone: nobody is to be told anything.
struct Gone;

impl Translation {
    /// Upgrades the client at once, as the reference does: what goes wrong from here on
    /// is told in the error channel.
    pub(super) async fn answer(self, request: Request) -> Result<Response, Failure> {
        let (mut parts, _) = request.into_parts();
        let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
            .await
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        Ok(upgrade
            .protocols([V5_CHANNEL])
            .max_message_size(MAX_MESSAGE_BYTES)
            .max_frame_size(MAX_MESSAGE_BYTES)
            .on_upgrade(move |socket| self.run(socket)))
    }

    async fn run(self, socket: WebSocket) {
        let Some(protocol) = Protocol::named(V5_CHANNEL) else {
            return;
        };
        let (mut to_client, from_client) = socket.split();
        // An empty message tells the client that it is connected.
        let greeted = match (self.stdout, self.stderr) {
            (true, _) => channel::STDOUT,
            (false, true) => channel::STDERR,
            (false, false) => channel::ERROR,
        };
        let greeting = Message::Binary(protocol.encode(greeted, &[]));
        if to_client.send(greeting).await.is_err() {
            return;
        }
        let ended = tokio::select! {
            () = self.shutdown.cancelled() => Ok(error_stream::failure("the server is stopping")),
            ended = self.translate(protocol, &mut to_client, from_client) => ended,
        };
        if let Ok(status) = ended {
            let last = protocol.encode(channel::ERROR, status.to_string().as_bytes());
            let _ = timeout(LAST_WORD_TIMEOUT, async {
                to_client.send(Message::Binary(last)).await?;
                to_client.send(farewell()).await
            })
            .await;
        }
        drop(self.permit);
    }

    /// Everything between the greeting and the last word, which is what it returns.
    async fn translate(
        &self,
        protocol: Protocol,
        to_client: &mut ToClient,
        from_client: SplitStream<WebSocket>,
    ) -> Result<Value, Gone> {
        let connection = match self.connect().await {
            Ok(connection) => connection,
            Err(why) => return Ok(error_stream::failure(&why)),
        };
        let mut session = Session::new(Role::Client);
        let Some(streams) = self.open(&mut session) else {
            return Ok(error_stream::failure("the streams could not be opened"));
        };
        let shared = Shared {
            session: Mutex::new(session),
            streams,
            output: Notify::new(),
            sent: Notify::new(),
            last: Mutex::new(Instant::now()),
        };
        let (reader, writer) = tokio::io::split(TokioIo::new(connection));
        tokio::select! {
            gone = shared.hear_client(protocol, from_client) => Err(gone),
            status = shared.hear_kubelet(protocol, reader, to_client) => status,
            error = shared.tell_kubelet(writer) => {
                Ok(error_stream::failure(&format!("writing to the kubelet: {error}")))
            }
            () = shared.keep_alive() => Err(Gone),
            () = idle(&shared.last) => Ok(error_stream::failure("the stream was idle too long")),
        }
    }

    /// A connection to the kubelet that speaks SPDY, or why there is none.
    async fn connect(&self) -> Result<Upgraded, String> {
        let forwarding = Forwarding {
            upstream: self.upstream.clone(),
            path_and_query: self.path_and_query.clone(),
            host: HostHeader::Upstream,
            headers: HeaderMap::new(),
            links: None,
            unreachable: UpstreamError::while_dialing,
        };
        let mut request = http::Request::new(());
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(SPDY_31));
        headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(V4_OVER_SPDY));
        let (parts, ()) = request.into_parts();
        let request = outgoing(&parts, &forwarding, Body::empty())
            .map_err(|error| error.message().to_owned())?;
        let mut answer = exchange(&self.upstream, request)
            .await
            .map_err(|error| format!("error sending request: {error}"))?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return hyper::upgrade::on(&mut answer)
                .await
                .map_err(|error| format!("unable to upgrade connection: {error}"));
        }
        let said = read_some(Body::new(answer.into_body())).await;
        Err(format!(
            "unable to upgrade connection: {}",
            upgrade_refusal(&said)
        ))
    }

    fn open(&self, session: &mut Session) -> Option<Streams> {
        let mut open = |wanted: bool, kind: &str| {
            wanted
                .then(|| {
                    session
                        .open(vec![(STREAM_TYPE.to_owned(), kind.to_owned())])
                        .ok()
                })
                .flatten()
        };
        // The kubelet waits for exactly these.
        Some(Streams {
            error: open(true, "error")?,
            stdin: open(self.stdin, "stdin"),
            stdout: open(self.stdout, "stdout"),
            stderr: open(self.stderr && !self.tty, "stderr"),
            resize: open(self.tty, "resize"),
        })
    }
}

impl Shared {
    async fn hear_client(&self, protocol: Protocol, mut socket: SplitStream<WebSocket>) -> Gone {
        loop {
            let message = match socket.next().await {
                Some(Ok(Message::Binary(bytes))) => bytes,
                Some(Ok(Message::Text(text))) => Bytes::from(text),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Gone,
            };
            *self.last.lock() = Instant::now();
            match protocol.decode(&message) {
                Ok(None) => {}
                Ok(Some(Input::Data { channel, data })) => self.write(channel, data),
                Ok(Some(Input::Close { channel })) if channel <= channel::RESIZE => {
                    self.finish(channel);
                }
                Ok(Some(Input::Close { .. })) | Err(_) => return Gone,
            }
            self.output.notify_one();
            while self.session.lock().output_bytes() > MAX_PENDING_BYTES {
                self.sent.notified().await;
            }
        }
    }

    fn write(&self, channel: u8, data: Bytes) {
        if let Some(stream) = self.writable(channel) {
            // Data after the end of a stream is dropped, as by the reference.
            let _ = self.session.lock().send(stream, data);
        }
    }

    fn finish(&self, channel: u8) {
        if let Some(stream) = self.writable(channel) {
            let _ = self.session.lock().finish(stream);
        }
    }

    fn writable(&self, channel: u8) -> Option<u32> {
        match channel {
            channel::STDIN => self.streams.stdin,
            channel::RESIZE => self.streams.resize,
            _ => None,
        }
    }

    /// Until the command's end was told.
    async fn hear_kubelet(
        &self,
        protocol: Protocol,
        mut reader: ReadHalf<TokioIo<Upgraded>>,
        to_client: &mut ToClient,
    ) -> Result<Value, Gone> {
        let mut buffer = vec![0; READ_BYTES];
        let mut said = Vec::new();
        let mut open: Vec<u32> = [
            Some(self.streams.error),
            self.streams.stdout,
            self.streams.stderr,
        ]
        .into_iter()
        .flatten()
        .collect();
        while !open.is_empty() {
            let read = match reader.read(&mut buffer).await {
                // How the command ended is told last: what follows is the connection's end,
                // however abrupt.
                Ok(0) | Err(_) if !said.is_empty() => break,
                Ok(0) => return Ok(error_stream::failure("the kubelet closed the connection")),
                Ok(read) => read,
                Err(error) => {
                    return Ok(error_stream::failure(&format!(
                        "reading from the kubelet: {error}"
                    )));
                }
            };
            *self.last.lock() = Instant::now();
            let events = match self.take(&buffer[..read]) {
                Ok(events) => events,
                Err(why) => return Ok(error_stream::failure(&why)),
            };
            self.output.notify_one();
            for event in events {
                let (stream, data, finished) = match event {
                    Event::Data {
                        stream,
                        data,
                        finished,
                    } => (stream, data, finished),
                    Event::Reset { stream, .. } => (stream, Bytes::new(), true),
                    Event::Replied {
                        stream, finished, ..
                    } => (stream, Bytes::new(), finished),
                    _ => continue,
                };
                if finished {
                    open.retain(|other| *other != stream);
                }
                if stream == self.streams.error {
                    let room = MAX_ERROR_BYTES.saturating_sub(said.len());
                    said.extend_from_slice(&data[..data.len().min(room)]);
                } else if let Some(channel) = self.readable(stream)
                    && !data.is_empty()
                {
                    let message = Message::Binary(protocol.encode(channel, &data));
                    to_client.send(message).await.map_err(|_| Gone)?;
                }
            }
        }
        Ok(error_stream::status(&said))
    }

    fn take(&self, bytes: &[u8]) -> Result<Vec<Event>, String> {
        let mut session = self.session.lock();
        session.receive(bytes);
        let mut events = Vec::new();
        while let Some(event) = session.next_event().map_err(|error| error.to_string())? {
            events.push(event);
        }
        Ok(events)
    }

    fn readable(&self, stream: u32) -> Option<u8> {
        let stream = Some(stream);
        if stream == self.streams.stdout {
            Some(channel::STDOUT)
        } else if stream == self.streams.stderr {
            Some(channel::STDERR)
        } else {
            None
        }
    }

    /// Ends with an error alone.
    async fn tell_kubelet(&self, mut writer: WriteHalf<TokioIo<Upgraded>>) -> io::Error {
        loop {
            let output = self.session.lock().take_output();
            if output.is_empty() {
                self.output.notified().await;
                continue;
            }
            let written = async {
                writer.write_all(&output).await?;
                writer.flush().await
            };
            if let Err(error) = written.await {
                return error;
            }
            self.sent.notify_one();
        }
    }

    async fn keep_alive(&self) {
        loop {
            tokio::time::sleep(PING_INTERVAL).await;
            self.session.lock().ping();
            self.output.notify_one();
        }
    }
}

/// The end that clients take for one in order.
pub(super) fn farewell() -> Message {
    Message::Close(Some(CloseFrame {
        code: close_code::NORMAL,
        reason: "".into(),
    }))
}

async fn read_some(body: Body) -> Vec<u8> {
    let mut text = Vec::new();
    let mut chunks = body.into_data_stream();
    while let Some(Ok(chunk)) = chunks.next().await {
        let room = MAX_ERROR_BYTES - text.len();
        text.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if text.len() == MAX_ERROR_BYTES {
            break;
        }
    }
    text
}

/// What a kubelet says that does not upgrade: a `Status`'s message, or its words.
fn upgrade_refusal(said: &[u8]) -> String {
    if let Ok(status) = serde_json::from_slice::<Value>(said) {
        for field in ["message", "error"] {
            let text = status[field].as_str().unwrap_or_default().trim();
            if !text.is_empty() {
                return text.to_owned();
            }
        }
    }
    let text = String::from_utf8_lossy(said);
    match text.trim() {
        "" => "empty server response".to_owned(),
        text => text.to_owned(),
    }
}
