//! Two connections become one: bytes both ways until either side ends.

use std::io;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf,
};
use tokio::time::{Instant, sleep_until};

/// A stream on which nothing came from either side for so long is ended, as kubelets do.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(4 * 3_600);
/// Bytes read at once in one direction.
const BUFFER_BYTES: usize = 16 * 1024;

/// Copies both ways until one side has ended and what it sent is passed on, or both were
/// idle for [`IDLE_TIMEOUT`].
pub(crate) async fn splice<A, B>(one: A, other: B)
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (one_read, one_write) = tokio::io::split(one);
    let (other_read, other_write) = tokio::io::split(other);
    let last = Mutex::new(Instant::now());
    tokio::select! {
        _ = copy(one_read, other_write, &last) => {}
        _ = copy(other_read, one_write, &last) => {}
        () = idle(&last) => {}
    }
}

async fn copy<A, B>(
    mut from: ReadHalf<A>,
    mut to: WriteHalf<B>,
    last: &Mutex<Instant>,
) -> io::Result<()>
where
    A: AsyncRead,
    B: AsyncWrite,
{
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        *last.lock() = Instant::now();
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
    }
}

/// Ends when nothing has come since `last` for [`IDLE_TIMEOUT`].
pub(crate) async fn idle(last: &Mutex<Instant>) {
    loop {
        let end = *last.lock() + IDLE_TIMEOUT;
        if Instant::now() >= end {
            return;
        }
        sleep_until(end).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_go_both_ways_and_the_end_is_passed_on() {
        let (mut client, front) = tokio::io::duplex(64);
        let (back, mut server) = tokio::io::duplex(64);
        let between = tokio::spawn(splice(front, back));
        let sent = vec![7; 100_000];
        let expected = sent.clone();
        let sender = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer
        });
        let mut received = vec![0; expected.len()];
        server.read_exact(&mut received).await.unwrap();
        assert_eq!(received, expected);
        server.write_all(b"enough").await.unwrap();
        drop(server);
        assert_eq!(sender.await.unwrap(), b"enough");
        between.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_ends_and_a_busy_one_does_not() {
        let (mut client, front) = tokio::io::duplex(64);
        let (back, mut server) = tokio::io::duplex(64);
        let between = tokio::spawn(splice(front, back));
        for _ in 0..3 {
            tokio::time::sleep(IDLE_TIMEOUT / 2).await;
            server.write_all(b"x").await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'x');
        }
        let before = Instant::now();
        between.await.unwrap();
        assert!(before.elapsed() >= IDLE_TIMEOUT / 2);
    }
}
