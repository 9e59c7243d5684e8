//! SPDY/3.1 as containers' streams use it (the draft "SPDY Protocol - Draft 3.1" and
//! what moby/spdystream makes of it): many streams in both directions over one
//! connection of a client and a server.
//!
//! Windows are not kept: spdystream, on which kubectl and every kubelet stand, neither
//! sends WINDOW_UPDATE nor waits for one. The frame is read and passed over; back
//! pressure is the connection's own.

mod dictionary;
mod error;
mod frame;
mod header_block;
mod session;

pub use error::{SpdyError, StreamError};
pub use frame::{Decoder, Encoder, Frame, ResetReason};
pub use header_block::Headers;
pub use session::{Event, Role, Session};

/// Bytes of a control frame's payload, at most; the format's own bound is 16 MiB.
pub const MAX_CONTROL_BYTES: usize = 64 * 1024;
/// Bytes of a header block once inflated, at most.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;
/// Headers of one block, at most.
pub const MAX_HEADERS: usize = 128;
/// Streams of one session that are open at once, at most.
pub const MAX_STREAMS: usize = 1_000;
/// Bytes of one DATA frame that is written here, at most.
pub const MAX_DATA_BYTES: usize = 32 * 1024;

#[cfg(test)]
mod tests;
