//! The client's side of HTTP/2 (RFC 9113), with gRPC framing or without, and without I/O.
//!
//! It is as small as a load generator's must be: it shares the processors with the servers
//! it measures, so whatever it spends is missing there. Header blocks are written from a
//! table that both sides know (RFC 7541, 6.2.1) and never read: a call that ends with a
//! message has succeeded, one that ends without has failed. A call whose status alone tells
//! of a failure after a message does not occur in etcd's contract.
//!
//! Bytes go in by [`Session::receive`], what is to be sent gathers in [`Session::output`],
//! and what has happened is taken by [`Session::events`].

use std::collections::HashMap;

use anyhow::{Context as _, bail, ensure};

/// Opens every connection (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's header.
const FRAME_HEADER: usize = 9;
/// The largest frame either side sends: the protocol's initial value.
const FRAME_BYTES_MAX: usize = 16_384;
/// Bytes before a message: not compressed, length.
const MESSAGE_HEADER: usize = 5;
/// What a peer may send unasked, per stream and per connection.
const RECEIVE_WINDOW: u32 = 1 << 30;
/// Consumed bytes after which the peer is told that it may send more.
const REPLENISH: u32 = 1 << 28;
/// What is kept of a piece of a plain answer, in bytes.
const PIECE_HEAD: usize = 512;
/// The protocol's initial window.
const INITIAL_WINDOW: i64 = 65_535;
/// The first index of the dynamic table (RFC 7541, 2.3.3).
const DYNAMIC_TABLE: usize = 62;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// A message came: its place in [`Events::messages`].
    Message {
        /// Where it begins.
        start: usize,
        /// Where it ends.
        end: usize,
    },
    /// A piece of a plain answer came: its beginning is in [`Events::messages`].
    Piece {
        /// Where it begins.
        start: usize,
        /// Where what is kept of it ends.
        end: usize,
        /// Bytes of it.
        bytes: usize,
        /// Line ends in it.
        lines: usize,
    },
    /// The call is over.
    Ended {
        /// Whether a message came before.
        answered: bool,
    },
}

/// What happened since the last look.
#[derive(Default)]
pub struct Events {
    /// The caller's number of the call, and what happened to it, in order.
    pub list: Vec<(u64, Happened)>,
    /// The messages' bytes.
    pub messages: Vec<u8>,
}

/// A request without gRPC's framing.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'static str,
    /// Path and query.
    pub path: &'a str,
    /// The body's type; of no account without a body.
    pub content_type: &'static str,
    /// The body; empty for none.
    pub body: &'a [u8],
}

struct Stream {
    token: u64,
    plain: bool,
    send_window: i64,
    consumed: u32,
    partial: Vec<u8>,
    answered: bool,
}

/// Bytes that wait for the peer's window.
struct Waiting {
    stream: u32,
    bytes: Vec<u8>,
    end: bool,
}

/// One connection's state.
pub struct Session {
    /// To be written to the peer, and emptied by who writes.
    pub output: Vec<u8>,
    /// What happened; emptied by who reads.
    pub events: Events,
    authority: String,
    paths: Vec<(&'static str, usize)>,
    table_entries: usize,
    common: Option<[usize; 3]>,
    input: Vec<u8>,
    streams: HashMap<u32, Stream>,
    next_stream: u32,
    send_window: i64,
    stream_window: i64,
    consumed: u32,
    waiting: Vec<Waiting>,
}

impl Session {
    /// A connection to `authority`, its preface ready to be sent.
    pub fn new(authority: &str) -> Self {
        let mut output = PREFACE.to_vec();
        // No push; room per stream.
        let mut settings = Vec::new();
        settings.extend_from_slice(&2_u16.to_be_bytes());
        settings.extend_from_slice(&0_u32.to_be_bytes());
        settings.extend_from_slice(&4_u16.to_be_bytes());
        settings.extend_from_slice(&RECEIVE_WINDOW.to_be_bytes());
        frame(&mut output, SETTINGS, 0, 0, &settings);
        frame(
            &mut output,
            WINDOW_UPDATE,
            0,
            0,
            &RECEIVE_WINDOW.to_be_bytes(),
        );
        Self {
            output,
            events: Events::default(),
            authority: authority.to_owned(),
            paths: Vec::new(),
            table_entries: 0,
            common: None,
            input: Vec::new(),
            streams: HashMap::new(),
            next_stream: 1,
            send_window: INITIAL_WINDOW,
            stream_window: INITIAL_WINDOW,
            consumed: 0,
            waiting: Vec::new(),
        }
    }

    /// Begins a call of `path`; what happens to it is told under `token`.
    pub fn open(&mut self, token: u64, path: &'static str) -> u32 {
        let id = self.next_stream;
        self.next_stream += 2;
        let mut block = vec![0x83, 0x87];
        self.encode_path(path, &mut block);
        self.encode_common(&mut block);
        frame(&mut self.output, HEADERS, END_HEADERS, id, &block);
        self.streams.insert(
            id,
            Stream {
                token,
                plain: false,
                send_window: self.stream_window,
                consumed: 0,
                partial: Vec::new(),
                answered: false,
            },
        );
        id
    }

    /// Sends one message of a call; the last one closes our side of it.
    pub fn send(&mut self, stream: u32, message: &[u8], last: bool) {
        let mut prefix = [0; MESSAGE_HEADER];
        let length = u32::try_from(message.len()).expect("a message under 4 GiB");
        prefix[1..].copy_from_slice(&length.to_be_bytes());
        let whole = prefix.len() + message.len();
        let size = i64::try_from(whole).expect("a message under 4 GiB");
        let Some(state) = self.streams.get_mut(&stream) else {
            return;
        };
        let fits = whole <= FRAME_BYTES_MAX && size <= state.send_window.min(self.send_window);
        if fits && self.waiting.is_empty() {
            state.send_window -= size;
            self.send_window -= size;
            let flags = if last { END_STREAM } else { 0 };
            frame_header(&mut self.output, whole, DATA, flags, stream);
            self.output.extend_from_slice(&prefix);
            self.output.extend_from_slice(message);
            return;
        }
        let bytes = [&prefix, message].concat();
        self.waiting.push(Waiting {
            stream,
            bytes,
            end: last,
        });
        self.send_waiting();
    }

    /// A call with one message.
    pub fn call(&mut self, token: u64, path: &'static str, message: &[u8]) {
        let stream = self.open(token, path);
        self.send(stream, message, true);
    }

    /// A request without gRPC's framing; its answer is told in pieces.
    pub fn request(&mut self, token: u64, request: &Request<'_>) -> u32 {
        let id = self.next_stream;
        self.next_stream += 2;
        let mut block = Vec::with_capacity(192);
        match request.method {
            "GET" => block.push(0x82),
            "POST" => block.push(0x83),
            other => literal(&mut block, 2, other),
        }
        block.push(0x87);
        literal(&mut block, 1, &self.authority);
        literal(&mut block, 4, request.path);
        literal(&mut block, 19, "application/json");
        if !request.body.is_empty() {
            literal(&mut block, 31, request.content_type);
        }
        let flags = if request.body.is_empty() {
            END_HEADERS | END_STREAM
        } else {
            END_HEADERS
        };
        frame(&mut self.output, HEADERS, flags, id, &block);
        self.streams.insert(
            id,
            Stream {
                token,
                plain: true,
                send_window: self.stream_window,
                consumed: 0,
                partial: Vec::new(),
                answered: false,
            },
        );
        if !request.body.is_empty() {
            self.waiting.push(Waiting {
                stream: id,
                bytes: request.body.to_vec(),
                end: true,
            });
            self.send_waiting();
        }
        id
    }

    /// Ends a call that the caller wants no more.
    pub fn cancel(&mut self, stream: u32) {
        if self.streams.remove(&stream).is_some() {
            const CANCEL: u32 = 8;
            frame(
                &mut self.output,
                RST_STREAM,
                0,
                stream,
                &CANCEL.to_be_bytes(),
            );
        }
    }

    /// Takes in what the peer has sent.
    ///
    /// # Errors
    /// When the peer closes the connection or breaks the protocol.
    pub fn receive(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        if self.input.is_empty() {
            let used = self.frames(bytes)?;
            self.input.extend_from_slice(&bytes[used..]);
        } else {
            let mut input = std::mem::take(&mut self.input);
            input.extend_from_slice(bytes);
            let used = self.frames(&input)?;
            input.drain(..used);
            self.input = input;
        }
        Ok(())
    }

    /// Handles whole frames and says how many bytes they were.
    fn frames(&mut self, bytes: &[u8]) -> anyhow::Result<usize> {
        let mut used = 0;
        while let Some(header) = bytes.get(used..used + FRAME_HEADER) {
            let length =
                usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
            ensure!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
            let stream = u32::from_be_bytes([header[5] & 0x7f, header[6], header[7], header[8]]);
            let body = used + FRAME_HEADER;
            let Some(payload) = bytes.get(body..body + length) else {
                break;
            };
            self.frame(header[3], header[4], stream, payload)?;
            used = body + length;
        }
        Ok(used)
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> anyhow::Result<()> {
        match kind {
            DATA => {
                ensure!(flags & PADDED == 0, "a padded frame");
                self.data(stream, payload);
                if flags & END_STREAM != 0 {
                    self.ended(stream);
                }
            }
            HEADERS => {
                ensure!(flags & END_HEADERS != 0, "headers in several frames");
                if flags & END_STREAM != 0 {
                    self.ended(stream);
                }
            }
            RST_STREAM => self.ended(stream),
            SETTINGS if flags & ACK == 0 => self.settings(payload)?,
            PING if flags & ACK == 0 => frame(&mut self.output, PING, ACK, 0, payload),
            GOAWAY => {
                let code = payload.get(4..8).context("a short GOAWAY")?;
                let text = String::from_utf8_lossy(payload.get(8..).unwrap_or_default());
                bail!("the server ends the connection: code {code:?} {text}");
            }
            WINDOW_UPDATE => {
                let amount: [u8; 4] = payload.try_into().context("a window update's length")?;
                let amount = i64::from(u32::from_be_bytes(amount));
                if stream == 0 {
                    self.send_window += amount;
                } else if let Some(state) = self.streams.get_mut(&stream) {
                    state.send_window += amount;
                }
                self.send_waiting();
            }
            _ => {}
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        const HEADER_TABLE_SIZE: u16 = 1;
        const INITIAL_WINDOW_SIZE: u16 = 4;
        for setting in payload.chunks_exact(6) {
            let name = u16::from_be_bytes([setting[0], setting[1]]);
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            match name {
                HEADER_TABLE_SIZE => ensure!(value >= 4096, "a header table of {value} bytes"),
                INITIAL_WINDOW_SIZE => {
                    let change = i64::from(value) - self.stream_window;
                    self.stream_window = i64::from(value);
                    for stream in self.streams.values_mut() {
                        stream.send_window += change;
                    }
                }
                _ => {}
            }
        }
        frame(&mut self.output, SETTINGS, ACK, 0, &[]);
        self.send_waiting();
        Ok(())
    }

    fn data(&mut self, id: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a frame is short");
        self.consumed += length;
        if self.consumed >= REPLENISH {
            let amount = std::mem::take(&mut self.consumed).to_be_bytes();
            frame(&mut self.output, WINDOW_UPDATE, 0, 0, &amount);
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.consumed += length;
        if stream.consumed >= REPLENISH {
            let amount = std::mem::take(&mut stream.consumed).to_be_bytes();
            frame(&mut self.output, WINDOW_UPDATE, 0, id, &amount);
        }
        if stream.plain {
            if !payload.is_empty() {
                piece(stream, payload, &mut self.events);
            }
        } else if stream.partial.is_empty() {
            let used = messages(stream, payload, &mut self.events);
            stream.partial.extend_from_slice(&payload[used..]);
        } else {
            let mut partial = std::mem::take(&mut stream.partial);
            partial.extend_from_slice(payload);
            let used = messages(stream, &partial, &mut self.events);
            partial.drain(..used);
            stream.partial = partial;
        }
    }

    fn ended(&mut self, id: u32) {
        if let Some(stream) = self.streams.remove(&id) {
            let answered = stream.answered;
            self.events
                .list
                .push((stream.token, Happened::Ended { answered }));
        }
    }

    /// Sends what the windows allow, each stream's bytes in order.
    fn send_waiting(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut held = Vec::new();
        waiting.retain_mut(|item| {
            let Some(stream) = self.streams.get_mut(&item.stream) else {
                return false;
            };
            if held.contains(&item.stream) {
                return true;
            }
            loop {
                let window = stream.send_window.min(self.send_window).max(0);
                let room = usize::try_from(window).expect("not negative");
                let part = item.bytes.len().min(FRAME_BYTES_MAX).min(room);
                let whole = part == item.bytes.len();
                if part == 0 && !whole {
                    held.push(item.stream);
                    return true;
                }
                let flags = if whole && item.end { END_STREAM } else { 0 };
                frame(
                    &mut self.output,
                    DATA,
                    flags,
                    item.stream,
                    &item.bytes[..part],
                );
                let sent = i64::try_from(part).expect("a frame is short");
                stream.send_window -= sent;
                self.send_window -= sent;
                item.bytes.drain(..part);
                if whole {
                    return false;
                }
            }
        });
        self.waiting = waiting;
    }

    /// `:path`, once in full and then by its place in the table.
    fn encode_path(&mut self, path: &'static str, block: &mut Vec<u8>) {
        if let Some((_, entry)) = self.paths.iter().find(|(known, _)| *known == path) {
            block.push(self.indexed(*entry));
            return;
        }
        block.push(0x40 | 4);
        text(block, path);
        let entry = self.inserted();
        self.paths.push((path, entry));
    }

    /// `:authority`, `content-type` and `te`, as [`Session::encode_path`].
    fn encode_common(&mut self, block: &mut Vec<u8>) {
        if let Some(entries) = self.common {
            for entry in entries {
                block.push(self.indexed(entry));
            }
            return;
        }
        block.push(0x40 | 1);
        let authority = self.authority.clone();
        text(block, &authority);
        let first = self.inserted();
        block.push(0x40 | 31);
        text(block, "application/grpc");
        let second = self.inserted();
        block.push(0x40);
        text(block, "te");
        text(block, "trailers");
        let third = self.inserted();
        self.common = Some([first, second, third]);
    }

    fn inserted(&mut self) -> usize {
        self.table_entries += 1;
        self.table_entries - 1
    }

    /// The newest entry has the lowest index.
    fn indexed(&self, entry: usize) -> u8 {
        let index = DYNAMIC_TABLE + self.table_entries - 1 - entry;
        assert!(index < 127, "the table of headers has grown past one byte");
        0x80 | u8::try_from(index).expect("below 127")
    }
}

/// Takes whole messages from `bytes` and says how many bytes they were.
fn messages(stream: &mut Stream, bytes: &[u8], events: &mut Events) -> usize {
    let mut used = 0;
    while let Some(header) = bytes.get(used..used + MESSAGE_HEADER) {
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let body = used + MESSAGE_HEADER;
        let Some(message) = bytes.get(body..body + length) else {
            break;
        };
        let start = events.messages.len();
        events.messages.extend_from_slice(message);
        let end = events.messages.len();
        events
            .list
            .push((stream.token, Happened::Message { start, end }));
        stream.answered = true;
        used = body + length;
    }
    used
}

/// Notes a piece of a plain answer.
fn piece(stream: &mut Stream, bytes: &[u8], events: &mut Events) {
    let start = events.messages.len();
    let head = &bytes[..bytes.len().min(PIECE_HEAD)];
    events.messages.extend_from_slice(head);
    let happened = Happened::Piece {
        start,
        end: events.messages.len(),
        bytes: bytes.len(),
        lines: bytes.iter().filter(|byte| **byte == b'\n').count(),
    };
    events.list.push((stream.token, happened));
    stream.answered = true;
}

/// A header that no table keeps, its name by its place in the static one (RFC 7541, 6.2.2).
fn literal(block: &mut Vec<u8>, name: usize, value: &str) {
    number(block, 4, 0, name);
    number(block, 7, 0, value.len());
    block.extend_from_slice(value.as_bytes());
}

/// A number in the lowest `bits` of a byte and, where it is larger, in those that follow
/// (RFC 7541, 5.1).
fn number(block: &mut Vec<u8>, bits: u32, first: u8, value: usize) {
    let most = (1_usize << bits) - 1;
    if value < most {
        block.push(first | u8::try_from(value).expect("below 128"));
        return;
    }
    block.push(first | u8::try_from(most).expect("below 128"));
    let mut rest = value - most;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).expect("below 128") | 0x80);
        rest /= 128;
    }
    block.push(u8::try_from(rest).expect("below 128"));
}

/// A string literal without Huffman coding (RFC 7541, 5.2).
fn text(block: &mut Vec<u8>, text: &str) {
    assert!(text.len() < 127, "a header of more than 126 bytes");
    block.push(u8::try_from(text.len()).expect("below 127"));
    block.extend_from_slice(text.as_bytes());
}

fn frame_header(output: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    let length = u32::try_from(length).expect("a frame is short");
    output.extend_from_slice(&length.to_be_bytes()[1..]);
    output.extend_from_slice(&[kind, flags]);
    output.extend_from_slice(&stream.to_be_bytes());
}

fn frame(output: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    frame_header(output, payload.len(), kind, flags, stream);
    output.extend_from_slice(payload);
}

#[cfg(test)]
mod tests;
