//! Frames and their bytes.
//!
//! Invariants
//! - The decoder holds at most one control frame, bounded by [`MAX_CONTROL_BYTES`];
//!   the content of a DATA frame is handed on as it comes, in as many pieces.
//! - Encoder and decoder of one direction must see every frame of it: the header
//!   blocks share one stream of deflate.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::MAX_CONTROL_BYTES;
use super::error::SpdyError;
use super::header_block::{BlockReader, BlockWriter, Headers};

/// The version in control frames: 3.1 differs from 3 in its windows alone.
const VERSION: u16 = 3;
const CONTROL: u16 = 0x8000;
const STREAM_MASK: u32 = 0x7fff_ffff;
/// The longest payload the format has room for.
const LENGTH_MASK: u32 = 0x00ff_ffff;
const FLAG_FIN: u8 = 0x01;
const FLAG_UNIDIRECTIONAL: u8 = 0x02;
const HEAD_BYTES: usize = 8;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Why a stream was reset (section 2.6.3 of the draft).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetReason(pub u32);

impl ResetReason {
    /// A frame that may not be there.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// A frame for a stream that is not open.
    pub const INVALID_STREAM: Self = Self(2);
    /// Nothing was done with the stream yet.
    pub const REFUSED_STREAM: Self = Self(3);
    /// Its maker does not want it any more.
    pub const CANCEL: Self = Self(5);
}

/// One frame. Identifiers of streams are never 0, save in `WindowUpdate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    SynStream {
        /// The new stream.
        stream: u32,
        /// The stream it belongs to, or 0.
        associated: u32,
        /// 0 (first) to 7.
        priority: u8,
        /// Its maker sends nothing on it.
        finished: bool,
        /// The other side may send nothing on it.
        unidirectional: bool,
        /// What the stream is for.
        headers: Headers,
    },
    /// Accepts a stream.
    SynReply {
        /// The stream.
        stream: u32,
        /// Nothing more comes from this side.
        finished: bool,
        /// As the maker of streams expects.
        headers: Headers,
    },
    /// Ends a stream in both directions at once.
    RstStream {
        /// The stream.
        stream: u32,
        /// Why.
        reason: ResetReason,
    },
    /// Settings, of which none concern this side.
    Settings,
    /// Asks for the same frame back; odd numbers are the client's.
    Ping(u32),
    /// No stream after this one will be served.
    GoAway {
        /// The last stream that was.
        last_stream: u32,
        /// 0 when all is well.
        status: u32,
    },
    /// Further headers of a stream.
    Headers {
        /// The stream.
        stream: u32,
        /// Nothing more comes from this side.
        finished: bool,
        /// Further headers.
        headers: Headers,
    },
    /// Room for so many bytes more.
    WindowUpdate {
        /// The stream, or 0 for the session.
        stream: u32,
        /// Bytes.
        delta: u32,
    },
    /// Content of a stream.
    Data {
        /// The stream.
        stream: u32,
        /// Nothing more comes from this side.
        finished: bool,
        /// Maybe a part of a frame; then only the last part may be `finished`.
        data: Bytes,
    },
}

/// Reads the frames of one direction.
pub struct Decoder {
    input: BytesMut,
    blocks: BlockReader,
    /// What is left of the DATA frame that is being read.
    content: Option<Content>,
}

#[derive(Clone, Copy)]
struct Content {
    stream: u32,
    finished: bool,
    left: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// At the start of a connection.
    pub fn new() -> Self {
        Self {
            input: BytesMut::new(),
            blocks: BlockReader::new(),
            content: None,
        }
    }

    /// Takes what came from the peer. Call [`Self::next`] until it has nothing before
    /// the next call: what is here stays here.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The next frame, or nothing until more has come. After an error there is none.
    #[expect(clippy::should_implement_trait, reason = "more may come after a None")]
    pub fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        loop {
            if let Some(content) = self.content {
                return Ok(self.take_content(content));
            }
            let Some((word, length)) = self.head() else {
                return Ok(None);
            };
            let flags = length.to_be_bytes()[0];
            let length = usize::try_from(length & LENGTH_MASK).unwrap_or(usize::MAX);
            if word & !STREAM_MASK == 0 {
                if word == 0 {
                    return Err(SpdyError::StreamZero);
                }
                self.input.advance(HEAD_BYTES);
                self.content = Some(Content {
                    stream: word,
                    finished: flags & FLAG_FIN != 0,
                    left: length,
                });
                continue;
            }
            if length > MAX_CONTROL_BYTES {
                return Err(SpdyError::TooLong {
                    length,
                    limit: MAX_CONTROL_BYTES,
                });
            }
            if self.input.len() < HEAD_BYTES + length {
                return Ok(None);
            }
            self.input.advance(HEAD_BYTES);
            let payload = self.input.split_to(length).freeze();
            if let Some(frame) = self.control(word, flags, payload)? {
                return Ok(Some(frame));
            }
        }
    }

    fn head(&self) -> Option<(u32, u32)> {
        let head = self.input.first_chunk::<HEAD_BYTES>()?;
        let [a, b, c, d, e, f, g, h] = *head;
        Some((
            u32::from_be_bytes([a, b, c, d]),
            u32::from_be_bytes([e, f, g, h]),
        ))
    }

    fn take_content(&mut self, content: Content) -> Option<Frame> {
        if content.left > 0 && self.input.is_empty() {
            return None;
        }
        let data = self
            .input
            .split_to(content.left.min(self.input.len()))
            .freeze();
        let left = content.left - data.len();
        self.content = (left > 0).then_some(Content { left, ..content });
        Some(Frame::Data {
            stream: content.stream,
            finished: content.finished && left == 0,
            data,
        })
    }

    /// A control frame; nothing for one of a type that is not known, which is passed
    /// over (section 2.2.1 of the draft).
    fn control(
        &mut self,
        word: u32,
        flags: u8,
        mut payload: Bytes,
    ) -> Result<Option<Frame>, SpdyError> {
        let [version @ .., kind_high, kind_low] = word.to_be_bytes();
        let version = u16::from_be_bytes(version) & !CONTROL;
        if version != VERSION {
            return Err(SpdyError::Version(version));
        }
        let kind = u16::from_be_bytes([kind_high, kind_low]);
        let (name, least, exact) = match kind {
            SYN_STREAM => ("SYN_STREAM", 10, false),
            SYN_REPLY => ("SYN_REPLY", 4, false),
            RST_STREAM => ("RST_STREAM", 8, true),
            SETTINGS => ("SETTINGS", 4, false),
            PING => ("PING", 4, true),
            GOAWAY => ("GOAWAY", 8, true),
            HEADERS => ("HEADERS", 4, false),
            WINDOW_UPDATE => ("WINDOW_UPDATE", 8, true),
            _ => return Ok(None),
        };
        let length = payload.len();
        if length < least || (exact && length != least) {
            return Err(SpdyError::Length {
                frame: name,
                length,
            });
        }
        let finished = flags & FLAG_FIN != 0;
        let frame = match kind {
            SYN_STREAM => Frame::SynStream {
                stream: stream_of(&mut payload)?,
                associated: payload.get_u32() & STREAM_MASK,
                priority: payload.get_u16().to_be_bytes()[0] >> 5,
                finished,
                unidirectional: flags & FLAG_UNIDIRECTIONAL != 0,
                headers: self.blocks.read(&payload)?,
            },
            SYN_REPLY => Frame::SynReply {
                stream: stream_of(&mut payload)?,
                finished,
                headers: self.blocks.read(&payload)?,
            },
            RST_STREAM => Frame::RstStream {
                stream: stream_of(&mut payload)?,
                reason: ResetReason(payload.get_u32()),
            },
            SETTINGS => Frame::Settings,
            PING => Frame::Ping(payload.get_u32()),
            GOAWAY => Frame::GoAway {
                last_stream: payload.get_u32() & STREAM_MASK,
                status: payload.get_u32(),
            },
            HEADERS => Frame::Headers {
                stream: stream_of(&mut payload)?,
                finished,
                headers: self.blocks.read(&payload)?,
            },
            _ => Frame::WindowUpdate {
                stream: payload.get_u32() & STREAM_MASK,
                delta: payload.get_u32() & STREAM_MASK,
            },
        };
        Ok(Some(frame))
    }
}

fn stream_of(payload: &mut Bytes) -> Result<u32, SpdyError> {
    match payload.get_u32() & STREAM_MASK {
        0 => Err(SpdyError::StreamZero),
        stream => Ok(stream),
    }
}

/// Writes the frames of one direction.
pub struct Encoder {
    blocks: BlockWriter,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// At the start of a connection.
    pub fn new() -> Self {
        Self {
            blocks: BlockWriter::new(),
        }
    }

    /// Appends a frame's bytes. False, and nothing is written, for headers that are
    /// larger than a block's limits.
    #[must_use]
    pub fn encode(&mut self, frame: &Frame, output: &mut BytesMut) -> bool {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        match frame {
            Frame::SynStream {
                stream,
                associated,
                priority,
                finished,
                unidirectional,
                headers,
            } => {
                let Some(block) = self.blocks.write(headers) else {
                    return false;
                };
                let flags = flag(*finished, FLAG_FIN) | flag(*unidirectional, FLAG_UNIDIRECTIONAL);
                put_control(output, SYN_STREAM, flags, 10 + block.len());
                output.put_u32(*stream);
                output.put_u32(*associated);
                output.put_u8(*priority << 5);
                output.put_u8(0);
                output.put_slice(&block);
            }
            Frame::SynReply {
                stream,
                finished,
                headers,
            }
            | Frame::Headers {
                stream,
                finished,
                headers,
            } => {
                let Some(block) = self.blocks.write(headers) else {
                    return false;
                };
                let kind = match frame {
                    Frame::SynReply { .. } => SYN_REPLY,
                    _ => HEADERS,
                };
                put_control(output, kind, flag(*finished, FLAG_FIN), 4 + block.len());
                output.put_u32(*stream);
                output.put_slice(&block);
            }
            Frame::RstStream { stream, reason } => {
                put_control(output, RST_STREAM, 0, 8);
                output.put_u32(*stream);
                output.put_u32(reason.0);
            }
            Frame::Settings => {
                put_control(output, SETTINGS, 0, 4);
                output.put_u32(0);
            }
            Frame::Ping(id) => {
                put_control(output, PING, 0, 4);
                output.put_u32(*id);
            }
            Frame::GoAway {
                last_stream,
                status,
            } => {
                put_control(output, GOAWAY, 0, 8);
                output.put_u32(*last_stream);
                output.put_u32(*status);
            }
            Frame::WindowUpdate { stream, delta } => {
                put_control(output, WINDOW_UPDATE, 0, 8);
                output.put_u32(*stream);
                output.put_u32(*delta);
            }
            Frame::Data {
                stream,
                finished,
                data,
            } => {
                let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
                assert!(length <= LENGTH_MASK, "DATA is cut before it is framed");
                output.put_u32(*stream);
                output.put_u32(u32::from(flag(*finished, FLAG_FIN)) << 24 | length);
                output.put_slice(data);
            }
        }
        true
    }
}

fn put_control(output: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    assert!(length <= LENGTH_MASK, "control frames are bounded");
    output.put_u16(CONTROL | VERSION);
    output.put_u16(kind);
    output.put_u32(u32::from(flags) << 24 | length);
}
