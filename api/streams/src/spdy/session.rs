//! One side of a session: streams with their two directions, replies, pings and the end.
//!
//! Invariants
//! - At most [`MAX_STREAMS`] streams are open at once; a peer that asks for more is
//!   refused that stream.
//! - After the last event of a stream (finished in both directions, or reset) nothing
//!   more is told of it, and what still comes for it is dropped.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::error::{SpdyError, StreamError};
use super::frame::{Decoder, Encoder, Frame, ResetReason};
use super::header_block::Headers;
use super::{MAX_DATA_BYTES, MAX_HEADER_BYTES, MAX_STREAMS};

/// Which side this is: clients' streams and pings have odd numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It opened the connection.
    Client,
    /// It was connected to.
    Server,
}

/// What the peer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It opens a stream: [`Session::reply`] or [`Session::reset`] it.
    Opened {
        /// The new stream.
        stream: u32,
        /// What it is for.
        headers: Headers,
        /// It sends nothing on it.
        finished: bool,
    },
    /// It accepts a stream of ours.
    Replied {
        /// The stream.
        stream: u32,
        /// Headers of the answer.
        headers: Headers,
        /// It sends nothing on it.
        finished: bool,
    },
    /// It sent further headers.
    Headers {
        /// The stream.
        stream: u32,
        /// The headers.
        headers: Headers,
        /// It sends nothing more on it.
        finished: bool,
    },
    /// It sent content, maybe none.
    Data {
        /// The stream.
        stream: u32,
        /// The content.
        data: Bytes,
        /// It sends nothing more on it.
        finished: bool,
    },
    /// It ended a stream in both directions.
    Reset {
        /// The stream.
        stream: u32,
        /// Why.
        reason: ResetReason,
    },
    /// It answered a ping.
    Pong(u32),
    /// It serves no stream after this one.
    GoneAway {
        /// The last stream it served.
        last_stream: u32,
    },
}

struct Stream {
    /// Opened by the peer and not replied to yet.
    reply_due: bool,
    /// Ours, and the peer has not replied yet.
    awaits_reply: bool,
    written: bool,
    read: bool,
}

/// See the module.
pub struct Session {
    role: Role,
    decoder: Decoder,
    encoder: Encoder,
    output: BytesMut,
    streams: BTreeMap<u32, Stream>,
    next_stream: u32,
    next_ping: u32,
    last_peer_stream: u32,
    /// A GOAWAY was sent or came.
    ending: bool,
}

impl Session {
    /// A session over a connection on which nothing was sent yet.
    pub fn new(role: Role) -> Self {
        let first = match role {
            Role::Client => 1,
            Role::Server => 2,
        };
        Self {
            role,
            decoder: Decoder::new(),
            encoder: Encoder::new(),
            output: BytesMut::new(),
            streams: BTreeMap::new(),
            next_stream: first,
            next_ping: first,
            last_peer_stream: 0,
            ending: false,
        }
    }

    /// Takes bytes from the peer; then take all of [`Self::next_event`].
    pub fn receive(&mut self, bytes: &[u8]) {
        self.decoder.receive(bytes);
    }

    /// What the peer did next, or nothing until more comes. Answers that the protocol
    /// itself asks for are in the output. After an error the connection is to be closed.
    pub fn next_event(&mut self) -> Result<Option<Event>, SpdyError> {
        while let Some(frame) = self.decoder.next()? {
            if let Some(event) = self.take(frame) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// What is to be sent to the peer, in order.
    pub fn take_output(&mut self) -> Bytes {
        self.output.split().freeze()
    }

    /// Bytes that wait to be sent.
    pub fn output_bytes(&self) -> usize {
        self.output.len()
    }

    /// Streams that are open in at least one direction.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Asks for a stream with these headers.
    pub fn open(&mut self, headers: Headers) -> Result<u32, StreamError> {
        if self.ending || self.next_stream >= 1 << 31 {
            return Err(StreamError::GoneAway);
        }
        if self.streams.len() >= MAX_STREAMS {
            return Err(StreamError::TooMany { limit: MAX_STREAMS });
        }
        let stream = self.next_stream;
        self.write_headers(&Frame::SynStream {
            stream,
            associated: 0,
            priority: 0,
            finished: false,
            unidirectional: false,
            headers,
        })?;
        self.next_stream += 2;
        self.streams.insert(
            stream,
            Stream {
                reply_due: false,
                awaits_reply: true,
                written: false,
                read: false,
            },
        );
        Ok(stream)
    }

    /// Accepts a stream of the peer's.
    pub fn reply(&mut self, stream: u32, headers: Headers) -> Result<(), StreamError> {
        let state = self.state(stream)?;
        if !std::mem::take(&mut state.reply_due) {
            return Err(StreamError::NoReplyDue(stream));
        }
        self.write_headers(&Frame::SynReply {
            stream,
            finished: false,
            headers,
        })
    }

    /// Sends content on a stream.
    pub fn send(&mut self, stream: u32, mut data: Bytes) -> Result<(), StreamError> {
        if self.state(stream)?.written {
            return Err(StreamError::Finished(stream));
        }
        while !data.is_empty() {
            let data = data.split_to(data.len().min(MAX_DATA_BYTES));
            self.write(&Frame::Data {
                stream,
                finished: false,
                data,
            });
        }
        Ok(())
    }

    /// Ends this side's direction of a stream.
    pub fn finish(&mut self, stream: u32) -> Result<(), StreamError> {
        let state = self.state(stream)?;
        if std::mem::replace(&mut state.written, true) {
            return Err(StreamError::Finished(stream));
        }
        self.write(&Frame::Data {
            stream,
            finished: true,
            data: Bytes::new(),
        });
        self.forget_if_done(stream);
        Ok(())
    }

    /// Ends a stream in both directions; nothing more is told of it.
    pub fn reset(&mut self, stream: u32, reason: ResetReason) -> Result<(), StreamError> {
        self.streams
            .remove(&stream)
            .ok_or(StreamError::NotOpen(stream))?;
        self.write(&Frame::RstStream { stream, reason });
        Ok(())
    }

    /// Asks the peer for a sign of life; the number that [`Event::Pong`] will carry.
    pub fn ping(&mut self) -> u32 {
        let id = self.next_ping;
        self.next_ping = if id > u32::MAX - 2 {
            2 - (id & 1)
        } else {
            id + 2
        };
        self.write(&Frame::Ping(id));
        id
    }

    /// Says that no further stream will be served.
    pub fn go_away(&mut self) {
        self.ending = true;
        let last_stream = self.last_peer_stream;
        self.write(&Frame::GoAway {
            last_stream,
            status: 0,
        });
    }

    fn state(&mut self, stream: u32) -> Result<&mut Stream, StreamError> {
        self.streams
            .get_mut(&stream)
            .ok_or(StreamError::NotOpen(stream))
    }

    fn write(&mut self, frame: &Frame) {
        let written = self.encoder.encode(frame, &mut self.output);
        assert!(written, "a frame without headers always fits");
    }

    fn write_headers(&mut self, frame: &Frame) -> Result<(), StreamError> {
        match self.encoder.encode(frame, &mut self.output) {
            true => Ok(()),
            false => Err(StreamError::HeadersTooLarge {
                limit: MAX_HEADER_BYTES,
            }),
        }
    }

    fn take(&mut self, frame: Frame) -> Option<Event> {
        match frame {
            Frame::SynStream {
                stream,
                finished,
                unidirectional,
                headers,
                ..
            } => self.opened(stream, finished, unidirectional, headers),
            Frame::SynReply {
                stream,
                finished,
                headers,
            } => {
                let state = self.streams.get_mut(&stream)?;
                if !std::mem::take(&mut state.awaits_reply) {
                    return None;
                }
                self.read(stream, finished)?;
                Some(Event::Replied {
                    stream,
                    headers,
                    finished,
                })
            }
            Frame::Headers {
                stream,
                finished,
                headers,
            } => {
                self.read(stream, finished)?;
                Some(Event::Headers {
                    stream,
                    headers,
                    finished,
                })
            }
            Frame::Data {
                stream,
                finished,
                data,
            } => {
                self.read(stream, finished)?;
                Some(Event::Data {
                    stream,
                    data,
                    finished,
                })
            }
            Frame::RstStream { stream, reason } => {
                self.streams.remove(&stream)?;
                Some(Event::Reset { stream, reason })
            }
            Frame::Ping(id) if self.is_ours(id) => Some(Event::Pong(id)),
            Frame::Ping(id) => {
                self.write(&Frame::Ping(id));
                None
            }
            Frame::GoAway { last_stream, .. } => {
                self.ending = true;
                Some(Event::GoneAway { last_stream })
            }
            Frame::Settings | Frame::WindowUpdate { .. } => None,
        }
    }

    fn opened(
        &mut self,
        stream: u32,
        finished: bool,
        unidirectional: bool,
        headers: Headers,
    ) -> Option<Event> {
        let refusal = if self.is_ours(stream) || stream <= self.last_peer_stream {
            Some(ResetReason::PROTOCOL_ERROR)
        } else if self.ending || self.streams.len() >= MAX_STREAMS {
            Some(ResetReason::REFUSED_STREAM)
        } else {
            None
        };
        if let Some(reason) = refusal {
            self.write(&Frame::RstStream { stream, reason });
            return None;
        }
        self.last_peer_stream = stream;
        self.streams.insert(
            stream,
            Stream {
                reply_due: true,
                awaits_reply: false,
                written: unidirectional,
                read: finished,
            },
        );
        Some(Event::Opened {
            stream,
            headers,
            finished,
        })
    }

    /// Something came on a stream; nothing if it is not open for reading.
    fn read(&mut self, stream: u32, finished: bool) -> Option<()> {
        let state = self.streams.get_mut(&stream)?;
        if state.read {
            return None;
        }
        state.read = finished;
        self.forget_if_done(stream);
        Some(())
    }

    fn forget_if_done(&mut self, stream: u32) {
        if self
            .streams
            .get(&stream)
            .is_some_and(|state| state.read && state.written)
        {
            self.streams.remove(&stream);
        }
    }

    fn is_ours(&self, id: u32) -> bool {
        (id & 1 == 1) == (self.role == Role::Client)
    }
}
