//! What a crash finds on disk when memory was ahead of it, and what the disk may not
//! make the log believe.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Waker};

use nautilus_machine::LogPosition;

use super::LogError;
use super::record::HardVote;
use super::tests::{World, append, entry};

/// Starts something and leaves it, as a caller does that is not scheduled again.
fn start_and_leave(future: impl Future) {
    let mut future = pin!(future);
    let _ = future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
}

#[tokio::test]
async fn a_segment_that_begins_before_the_voter_is_told_carries_its_new_vote() {
    let world = World::new();
    let vote = |term| HardVote {
        term,
        node: 1,
        committed: false,
    };
    let wal = world.open().unwrap();
    wal.save_vote(vote(4)).await.unwrap();
    // Durable with the next append, but nobody waits for it.
    start_and_leave(wal.save_vote(vote(5)));
    let body = "x".repeat(1000);
    for index in 0..300 {
        append(&wal, vec![entry(1, index, &body)]).await.unwrap();
    }
    let upto = LogPosition {
        term: 1,
        index: 298,
    };
    wal.purge(upto).await.unwrap();
    drop(wal);
    assert_eq!(world.open().unwrap().reader().vote(), Some(vote(5)));
}

const PASS: u8 = 0;
const HOLD: u8 = 1;
const HELD: u8 = 2;
const FAIL: u8 = 3;

/// Holds a write back while memory goes ahead, then crashes before what is queued
/// behind it is written.
async fn crash_behind_a_held_write(ahead: impl FnOnce(&super::Wal)) -> Result<(), LogError> {
    let state = Arc::new(AtomicU8::new(PASS));
    let seen = Arc::clone(&state);
    let mut world = World::new();
    world.fail_writes(Arc::new(move |_| {
        if seen.load(Ordering::SeqCst) == HOLD {
            seen.store(HELD, Ordering::SeqCst);
            while seen.load(Ordering::SeqCst) == HELD {
                std::thread::yield_now();
            }
            return None;
        }
        (seen.load(Ordering::SeqCst) == FAIL)
            .then(|| std::io::Error::from(std::io::ErrorKind::StorageFull))
    }));
    let wal = world.open().unwrap();
    let body = "x".repeat(1000);
    for index in 0..300 {
        append(&wal, vec![entry(1, index, &body)]).await.unwrap();
    }
    let purged = LogPosition { term: 1, index: 10 };
    wal.purge(purged).await.unwrap();
    state.store(HOLD, Ordering::SeqCst);
    wal.append(vec![entry(1, 300, &body)], |_| {})
        .await
        .unwrap();
    while state.load(Ordering::SeqCst) != HELD {
        tokio::task::yield_now().await;
    }
    ahead(&wal);
    state.store(FAIL, Ordering::SeqCst);
    drop(wal);
    state.store(PASS, Ordering::SeqCst);
    world.open().map(|_| ())
}

#[tokio::test]
async fn no_segment_goes_before_the_purge_that_explains_it_is_durable() {
    let reopened = crash_behind_a_held_write(|wal| {
        start_and_leave(wal.purge(LogPosition {
            term: 1,
            index: 290,
        }));
    });
    reopened.await.unwrap();
}

#[tokio::test]
async fn no_segment_goes_before_the_truncation_that_emptied_the_log_is_durable() {
    let reopened = crash_behind_a_held_write(|wal| start_and_leave(wal.truncate_from(11)));
    reopened.await.unwrap();
}

#[tokio::test]
async fn no_hole_is_left_after_the_purged_entries() {
    let world = World::new();
    let wal = world.open().unwrap();
    let purged = LogPosition { term: 1, index: 10 };
    wal.purge(purged).await.unwrap();
    let error = append(&wal, vec![entry(1, 15, "too far")]).await;
    assert!(error.unwrap_err().to_string().contains("11 is wanted"));
    append(&wal, vec![entry(1, 11, "next")]).await.unwrap();
    drop(wal);
    assert_eq!(world.open().unwrap().reader().live(), 11..12);
}

#[tokio::test]
async fn an_append_larger_than_a_frame_is_written_in_pieces() {
    let world = World::new();
    let frames = Arc::new(AtomicU64::new(0));
    let wal = world.open().unwrap();
    let body = "x".repeat(1 << 20);
    let entries = (0..72).map(|index| entry(1, index, &body)).collect();
    let told = Arc::clone(&frames);
    let (sender, receiver) = tokio::sync::oneshot::channel();
    wal.append(entries, move |result| {
        told.fetch_add(1, Ordering::SeqCst);
        sender.send(result).unwrap();
    })
    .await
    .unwrap();
    receiver.await.unwrap().unwrap();
    drop(wal);
    assert_eq!(frames.load(Ordering::SeqCst), 1, "told once");
    let last = world.open().unwrap().reader().bounds().1;
    assert_eq!(last, Some(LogPosition { term: 1, index: 71 }));
}

#[tokio::test]
async fn a_segment_of_absurd_length_is_refused_unread() {
    let world = World::new();
    let wal = world.open().unwrap();
    append(&wal, vec![entry(1, 0, "one")]).await.unwrap();
    drop(wal);
    let path = world.segments().pop().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(1 << 40).unwrap();
    let error = world.open().err().unwrap().to_string();
    assert!(error.contains("the limit is"), "{error}");
}

#[test]
fn a_full_disk_that_was_emptied_again_ends_no_log() {
    let dir = tempfile::tempdir().unwrap();
    // The first segment can't be prepared; whoever needs one comes later.
    std::fs::create_dir(dir.path().join("0.prepared")).unwrap();
    let preparer = super::segment::Preparer::start(dir.path(), 4096).unwrap();
    assert_eq!(preparer.take(1, 1).unwrap().len().unwrap(), 4096);
}
