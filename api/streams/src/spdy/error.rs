//! What a peer, or a caller, did wrong.

/// The peer broke the protocol: the connection is of no more use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpdyError {
    /// A control frame of another version of SPDY.
    #[error("a control frame of SPDY version {0}, this is version 3")]
    Version(u16),
    /// A control frame longer than the limit.
    #[error("a control frame of {length} bytes, the limit is {limit}")]
    TooLong {
        /// Bytes announced.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A frame whose length does not fit its type.
    #[error("a {frame} frame that is {length} bytes long")]
    Length {
        /// The frame's type.
        frame: &'static str,
        /// Bytes of its payload.
        length: usize,
    },
    /// Stream 0 where a stream is meant.
    #[error("a frame names stream 0")]
    StreamZero,
    /// A header block that does not inflate, or says something else than it holds.
    #[error("a header block is malformed: {0}")]
    HeaderBlock(&'static str),
    /// A header block that inflates to more than the limit.
    #[error("a header block is larger than {limit} bytes")]
    HeaderBlockTooLarge {
        /// Bytes allowed.
        limit: usize,
    },
    /// More headers than the limit.
    #[error("a header block of {count} headers, the limit is {limit}")]
    TooManyHeaders {
        /// Headers announced.
        count: usize,
        /// Headers allowed.
        limit: usize,
    },
}

/// A stream can't do what was asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// No such stream is open.
    #[error("stream {0} is not open")]
    NotOpen(u32),
    /// This side has ended the stream already.
    #[error("stream {0} is closed for writing")]
    Finished(u32),
    /// Only the side that was asked for a stream replies, and once.
    #[error("stream {0} waits for no reply")]
    NoReplyDue(u32),
    /// As many streams are open as may be.
    #[error("{limit} streams are open, which is the limit")]
    TooMany {
        /// Streams allowed.
        limit: usize,
    },
    /// The session was ended by one of its sides.
    #[error("the session is ending")]
    GoneAway,
    /// Headers that do not fit into a block.
    #[error("the headers are larger than {limit} bytes")]
    HeadersTooLarge {
        /// Bytes allowed.
        limit: usize,
    },
}
