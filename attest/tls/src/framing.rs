//! Data frames and what goes between them: the bytes of whoever uses an attested
//! connection, and the frames by which the two ends renew their evidence.
//!
//! It reads and writes in place: the user's bytes are not copied, and a header goes
//! with them into one TLS record. Frames of renewal leave between two data frames.
//!
//! Invariants: a byte of the user's is delivered once and in order, whatever goes
//! between; a peer that sends more frames of renewal than [`HEARD`] at once is cut off;
//! after [`Order::Cut`] nothing is read and nothing of the user's is written.
//!
//! Reading and writing belong to one task, as HTTP does it: a frame of renewal may be
//! written while that task polls for reading.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use nautilus_attest_protocol::frame::{FRAME_HEADER_BYTES, Frame, FrameKind, MAX_DATA_BYTES};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

/// Frames of renewal that wait to be looked at.
pub(crate) const HEARD: usize = 4;
/// Orders that wait to be carried out.
pub(crate) const ORDERS: usize = 8;
/// Parts of one vectored write, the header among them.
const SLICES: usize = 32;

/// What the keeper of a connection tells it to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// Send an encoded frame.
    Send(Vec<u8>),
    /// End, for this reason, after an attempt to send this frame.
    Cut {
        /// What whoever uses the connection is told.
        reason: String,
        /// The last frame, empty for none.
        farewell: Vec<u8>,
    },
}

/// A stream of frames that looks like a stream of the bytes in its data frames.
pub(crate) struct Framing<S> {
    inner: S,
    reading: Reading,
    writing: Writing,
    /// An encoded frame under way, and how much of it has left.
    between: Option<(Vec<u8>, usize)>,
    /// Frames between have been written and not flushed.
    unflushed: bool,
    /// A write or flush of the user's waits for the network: who reads must not take
    /// its place in the queue for it.
    user_writes: bool,
    orders: mpsc::Receiver<Order>,
    heard: mpsc::Sender<Frame>,
    cut: Option<String>,
}

/// How far the next frame has been read.
enum Reading {
    Header([u8; FRAME_HEADER_BYTES], usize),
    Data(usize),
    Between(FrameKind, Vec<u8>, usize),
}

/// How far the present data frame has been written.
enum Writing {
    Between,
    Open {
        header: [u8; FRAME_HEADER_BYTES],
        sent: usize,
        left: usize,
    },
}

impl<S> Framing<S> {
    pub(crate) fn new(inner: S, orders: mpsc::Receiver<Order>, heard: mpsc::Sender<Frame>) -> Self {
        Self {
            inner,
            reading: Reading::Header([0; FRAME_HEADER_BYTES], 0),
            writing: Writing::Between,
            between: None,
            unflushed: false,
            user_writes: false,
            orders,
            heard,
            cut: None,
        }
    }

    pub(crate) fn inner(&self) -> &S {
        &self.inner
    }

    fn check_cut(&self) -> io::Result<()> {
        match &self.cut {
            Some(reason) => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                reason.clone(),
            )),
            None => Ok(()),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Framing<S> {
    /// Carries out orders as far as the network takes it. Must not be called inside a
    /// data frame.
    fn poll_between(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.between.is_none() {
                match self.orders.poll_recv(cx) {
                    Poll::Ready(Some(Order::Send(frame))) => self.between = Some((frame, 0)),
                    Poll::Ready(Some(Order::Cut { reason, farewell })) => {
                        // The peer may have stopped reading; it is cut off all the same.
                        let _ = Pin::new(&mut self.inner).poll_write(cx, &farewell);
                        let _ = Pin::new(&mut self.inner).poll_flush(cx);
                        self.cut = Some(reason);
                        return Poll::Ready(self.check_cut());
                    }
                    Poll::Ready(None) | Poll::Pending => break,
                }
            }
            if let Some((frame, sent)) = &mut self.between {
                while *sent < frame.len() {
                    let written = Pin::new(&mut self.inner).poll_write(cx, &frame[*sent..]);
                    match ready!(written)? {
                        0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        count => *sent += count,
                    }
                }
            }
            self.between = None;
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// While somebody reads, frames between leave by the way, unless a write of the
    /// user's is in the middle of a frame or waits.
    fn send_by_the_way(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.user_writes || !matches!(self.writing, Writing::Between) {
            return Ok(());
        }
        match self.poll_between(cx) {
            Poll::Ready(done) => done,
            Poll::Pending => Ok(()),
        }
    }

    /// Reads at least one byte into `into`; 0 at the end of the stream.
    fn poll_some(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(into);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn hear(&mut self, kind: FrameKind, body: Vec<u8>) -> io::Result<()> {
        self.heard
            .try_send(Frame { kind, body })
            .map_err(|_| invalid("the peer sends more frames of renewal than can be answered"))
    }

    fn write(&mut self, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.check_cut()?;
        let offered: usize = bytes.iter().map(|part| part.len()).sum();
        if offered == 0 {
            return Poll::Ready(Ok(0));
        }
        loop {
            if matches!(self.writing, Writing::Between) {
                ready!(self.poll_between(cx))?;
                let left = offered.min(MAX_DATA_BYTES);
                let header = Frame::header(FrameKind::Data, left).map_err(invalid)?;
                self.writing = Writing::Open {
                    header,
                    sent: 0,
                    left,
                };
            }
            let Writing::Open { header, sent, left } = &mut self.writing else {
                continue;
            };
            let mut parts = [IoSlice::new(&[]); SLICES];
            let count = gather(&mut parts, &header[*sent..], bytes, *left);
            let written = Pin::new(&mut self.inner).poll_write_vectored(cx, &parts[..count]);
            let Poll::Ready(written) = written else {
                // A frame of which nothing has left is not begun: what is offered next
                // may be less.
                if *sent == 0 {
                    self.writing = Writing::Between;
                }
                return Poll::Pending;
            };
            let written = written?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_header = written.min(FRAME_HEADER_BYTES - *sent);
            *sent += of_header;
            let of_body = written - of_header;
            *left -= of_body;
            if *left == 0 {
                self.writing = Writing::Between;
            }
            if of_body > 0 {
                return Poll::Ready(Ok(of_body));
            }
        }
    }
}

/// Puts the header's rest and at most `left` of `bytes` into `parts`; gives how many.
fn gather<'a>(
    parts: &mut [IoSlice<'a>; SLICES],
    header: &'a [u8],
    bytes: &'a [IoSlice<'_>],
    mut left: usize,
) -> usize {
    let mut count = 0;
    if !header.is_empty() {
        parts[count] = IoSlice::new(header);
        count += 1;
    }
    for part in bytes.iter().filter(|part| !part.is_empty()) {
        if left == 0 || count == SLICES {
            break;
        }
        let part = &part[..part.len().min(left)];
        parts[count] = IoSlice::new(part);
        count += 1;
        left -= part.len();
    }
    count
}

fn invalid(reason: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_string())
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Framing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.check_cut()?;
        this.send_by_the_way(cx)?;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            match &mut this.reading {
                Reading::Data(left) => {
                    let wanted = buf.remaining().min(*left);
                    let into = buf.initialize_unfilled_to(wanted);
                    let mut part = ReadBuf::new(into);
                    ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part))?;
                    let count = part.filled().len();
                    if count == 0 {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    buf.advance(count);
                    *left -= count;
                    if *left == 0 {
                        this.reading = Reading::Header([0; FRAME_HEADER_BYTES], 0);
                    }
                    return Poll::Ready(Ok(()));
                }
                Reading::Header(header, filled) => {
                    let (mut bytes, at) = (*header, *filled);
                    let count = ready!(this.poll_some(cx, &mut bytes[at..]))?;
                    if count == 0 {
                        return Poll::Ready(match at {
                            0 => Ok(()),
                            _ => Err(io::ErrorKind::UnexpectedEof.into()),
                        });
                    }
                    this.reading = Reading::Header(bytes, at + count);
                    if at + count == FRAME_HEADER_BYTES {
                        this.reading = begin(bytes)?;
                    }
                }
                Reading::Between(kind, body, filled) if *filled == body.len() => {
                    let (kind, body) = (*kind, std::mem::take(body));
                    this.reading = Reading::Header([0; FRAME_HEADER_BYTES], 0);
                    this.hear(kind, body)?;
                }
                Reading::Between(_, body, filled) => {
                    let mut part = ReadBuf::new(&mut body[*filled..]);
                    ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part))?;
                    match part.filled().len() {
                        0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                        count => *filled += count,
                    }
                }
            }
        }
    }
}

/// What follows a header.
fn begin(header: [u8; FRAME_HEADER_BYTES]) -> io::Result<Reading> {
    match Frame::decode_header(header).map_err(invalid)? {
        (FrameKind::Data, 0) => Err(invalid("an empty data frame")),
        (FrameKind::Data, length) => Ok(Reading::Data(length)),
        (FrameKind::Hello, _) => Err(invalid("a hello after the handshake")),
        (kind, length) => Ok(Reading::Between(kind, vec![0; length], 0)),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Framing<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.write(cx, bytes);
        self.user_writes = written.is_pending();
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.check_cut()?;
        let flushed = match this.writing {
            Writing::Between => match this.poll_between(cx) {
                Poll::Ready(Ok(())) => Pin::new(&mut this.inner).poll_flush(cx),
                other => other,
            },
            Writing::Open { .. } => Pin::new(&mut this.inner).poll_flush(cx),
        };
        this.user_writes = flushed.is_pending();
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    struct End {
        stream: Framing<DuplexStream>,
        orders: mpsc::Sender<Order>,
        heard: mpsc::Receiver<Frame>,
    }

    /// Two ends of a pipe that takes `capacity` bytes at a time.
    fn ends(capacity: usize) -> (End, End) {
        let (a, b) = tokio::io::duplex(capacity);
        let end = |pipe| {
            let (orders, receiver) = mpsc::channel(ORDERS);
            let (sender, heard) = mpsc::channel(HEARD);
            End {
                stream: Framing::new(pipe, receiver, sender),
                orders,
                heard,
            }
        };
        (end(a), end(b))
    }

    fn challenge() -> Vec<u8> {
        Frame::encode(FrameKind::Challenge, &[1, 2, 3]).unwrap()
    }

    /// Sends `bytes` in pieces of `piece` from one end to the other, frames between
    /// them all the while; gives what came and how many frames were heard.
    async fn carry(capacity: usize, bytes: &[u8], piece: usize) -> (Vec<u8>, usize) {
        let (mut a, mut b) = ends(capacity);
        let mut sent = 0;
        let sending = async {
            for piece in bytes.chunks(piece) {
                if a.orders.try_send(Order::Send(challenge())).is_ok() {
                    sent += 1;
                }
                a.stream.write_all(piece).await.unwrap();
            }
            a.stream.flush().await.unwrap();
            a.stream.shutdown().await.unwrap();
        };
        let mut frames = 0;
        let receiving = async {
            let mut came = Vec::new();
            let mut buffer = vec![0; 777];
            loop {
                let count = b.stream.read(&mut buffer).await.unwrap();
                while b.heard.try_recv().is_ok() {
                    frames += 1;
                }
                if count == 0 {
                    return came;
                }
                came.extend_from_slice(&buffer[..count]);
            }
        };
        let ((), came) = tokio::join!(sending, receiving);
        assert_eq!(frames, sent);
        (came, frames)
    }

    #[tokio::test]
    async fn bytes_arrive_once_and_in_order_whatever_goes_between() {
        let bytes: Vec<u8> = (0..300_000_u32)
            .map(|n| n.to_be_bytes()[3] ^ 0x5a)
            .collect();
        for (capacity, piece) in [(3, 1_000), (17, 90_000), (70_000, 300_000), (4_096, 5)] {
            let bytes = &bytes[..bytes.len().min(capacity * 2_000)];
            let (came, frames) = carry(capacity, bytes, piece).await;
            assert!(came == bytes, "capacity {capacity}, piece {piece}");
            assert!(frames > 0);
        }
    }

    #[tokio::test]
    async fn a_frame_between_leaves_while_its_end_only_reads() {
        let (mut a, mut b) = ends(64);
        a.orders.send(Order::Send(challenge())).await.unwrap();
        let idle = tokio::spawn(async move {
            let mut byte = [0; 1];
            a.stream.read(&mut byte).await
        });
        let mut byte = [0; 1];
        tokio::select! {
            frame = b.heard.recv() => assert_eq!(frame.unwrap().body, [1, 2, 3]),
            read = b.stream.read(&mut byte) => panic!("read {read:?}"),
        }
        idle.abort();
    }

    #[tokio::test]
    async fn a_connection_that_is_cut_tells_its_user_why_and_sends_a_last_frame() {
        let (mut a, mut b) = ends(64);
        let order = Order::Cut {
            reason: "retired".into(),
            farewell: challenge(),
        };
        a.orders.send(order).await.unwrap();
        let mut byte = [0; 1];
        let error = a.stream.read(&mut byte).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string()),
            (io::ErrorKind::PermissionDenied, "retired".into())
        );
        assert!(a.stream.write_all(b"x").await.is_err());
        tokio::select! {
            frame = b.heard.recv() => assert_eq!(frame.unwrap().kind, FrameKind::Challenge),
            read = b.stream.read(&mut byte) => panic!("read {read:?}"),
        }
    }

    #[tokio::test]
    async fn a_peer_that_floods_with_frames_is_cut_off() {
        let (mut a, mut b) = ends(4_096);
        for _ in 0..=HEARD {
            a.orders.send(Order::Send(challenge())).await.unwrap();
        }
        a.stream.flush().await.unwrap();
        let mut byte = [0; 1];
        let error = b.stream.read(&mut byte).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn what_is_no_frame_and_what_is_cut_short_is_an_error() {
        for bytes in [
            &[9, 0, 0, 0, 1][..],
            &[0, 0, 0, 0, 0],
            &[1, 0, 0, 0, 1],
            &[0, 0],
            &[0, 0, 0, 0, 9, 1],
        ] {
            let (mut raw, pipe) = tokio::io::duplex(64);
            let (_orders, receiver) = mpsc::channel(ORDERS);
            let (sender, _heard) = mpsc::channel(HEARD);
            let mut stream = Framing::new(pipe, receiver, sender);
            raw.write_all(bytes).await.unwrap();
            drop(raw);
            let mut all = Vec::new();
            assert!(stream.read_to_end(&mut all).await.is_err(), "{bytes:?}");
        }
    }
}
