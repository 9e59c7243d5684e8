//! A rotation of the log's keys: every entry stays, the old root opens nothing.

use std::ops::ControlFlow;

use nautilus_machine::LogPosition;
use nautilus_store::{Envelope, Keyring, Outcome, RootKey, Work};

use super::frame::{HEADER_BYTES, Header};
use super::tests::{World, append, entry};
use super::{RawEntry, Wal};

fn on(_: Work) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn next_generation(ring: &Keyring) {
    let next = ring.current() + 1;
    ring.add(next, RootKey::generate().unwrap()).unwrap();
    ring.advance(next).unwrap();
}

async fn filled(world: &World) -> (Wal, Vec<RawEntry>) {
    let wal = world.open().unwrap();
    let entries: Vec<_> = (0..120)
        .map(|index| entry(1, index, &format!("{index} {}", "x".repeat(900))))
        .collect();
    for entry in &entries {
        append(&wal, vec![entry.clone()]).await.unwrap();
    }
    (wal, entries)
}

/// The epochs of all frames on the disk, as their heads say.
fn epochs_on_disk(world: &World) -> Vec<u32> {
    let mut epochs = Vec::new();
    for path in world.segments() {
        let bytes = std::fs::read(path).unwrap();
        let mut at = 0;
        while let Some((head, sealed)) = bytes[at..].split_first_chunk::<HEADER_BYTES>()
            && let Some(header) = Header::parse(head)
        {
            epochs.push(Envelope::epoch_of(sealed).unwrap());
            at += header.span() as usize;
        }
    }
    epochs
}

/// Rotates until it is over; every round something is written, as in a quorum.
async fn rotate(wal: &Wal, entries: &mut Vec<RawEntry>) {
    let reader = wal.reader();
    loop {
        let outcome = reader.reencrypt(&mut on).unwrap();
        if outcome == Outcome::Done {
            return;
        }
        let next = entry(1, entries.len() as u64, "progress");
        append(wal, vec![next.clone()]).await.unwrap();
        entries.push(next);
    }
}

#[tokio::test]
async fn after_a_rotation_no_frame_is_of_an_old_key_and_none_is_lost() {
    let world = World::new();
    let (wal, mut entries) = filled(&world).await;
    drop(wal);
    let wal = world.open().unwrap();
    assert!(world.segments().len() > 1);
    let before = *epochs_on_disk(&world).iter().max().unwrap();
    next_generation(&world.keyring);
    rotate(&wal, &mut entries).await;
    world.keyring.destroy_old();
    assert!(epochs_on_disk(&world).iter().all(|epoch| *epoch > before));
    drop(wal);
    let reader = world.open().unwrap().reader();
    assert_eq!(reader.read(0..1000, usize::MAX).unwrap(), entries);
    drop(reader);
    let old = Keyring::new(RootKey::from_bytes([7; 32]));
    let refused = Envelope::open_dir(world.dir.path(), &old).err().unwrap();
    assert!(
        refused.to_string().contains("generation 2 is not held"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_rotation_broken_off_between_two_frames_goes_on_after_a_start() {
    let world = World::new();
    let (wal, mut entries) = filled(&world).await;
    drop(wal);
    next_generation(&world.keyring);
    for steps in 1..40 {
        let wal = world.open().unwrap();
        let mut left = steps;
        let outcome = wal.reader().reencrypt(&mut |_| {
            left -= 1;
            if left == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        let next = entry(1, entries.len() as u64, "written meanwhile");
        append(&wal, vec![next.clone()]).await.unwrap();
        entries.push(next);
        assert_eq!(wal.reader().read(0..1000, usize::MAX).unwrap(), entries);
        let _ = outcome.unwrap();
    }
    let wal = world.open().unwrap();
    rotate(&wal, &mut entries).await;
    world.keyring.destroy_old();
    drop(wal);
    let reader = world.open().unwrap().reader();
    assert_eq!(reader.read(0..1000, usize::MAX).unwrap(), entries);
}

#[tokio::test]
async fn with_a_purged_segment_its_data_key_goes() {
    let world = World::new();
    let (wal, entries) = filled(&world).await;
    let reader = wal.reader();
    let segments = world.segments().len();
    assert!(segments > 1);
    assert_eq!(reader.epochs(), segments, "one a segment");
    wal.purge(LogPosition {
        term: 1,
        index: 110,
    })
    .await
    .unwrap();
    append(&wal, vec![entry(1, 120, "after")]).await.unwrap();
    assert!(world.segments().len() < segments);
    assert_eq!(reader.epochs(), world.segments().len());
    assert_eq!(reader.read(111..120, usize::MAX).unwrap(), entries[111..]);
}

#[tokio::test]
async fn a_reader_that_had_begun_keeps_its_keys() {
    let mut world = World::new();
    world.cache_bytes = 1024;
    let (wal, entries) = filled(&world).await;
    let reading = wal.reader().shared.envelope.reading();
    next_generation(&world.keyring);
    let mut written = entries.clone();
    for _ in 0..3 {
        assert_eq!(
            wal.reader().reencrypt(&mut on).unwrap(),
            Outcome::Unfinished
        );
        let next = entry(1, written.len() as u64, "progress");
        append(&wal, vec![next.clone()]).await.unwrap();
        written.push(next);
    }
    assert_eq!(wal.reader().oldest_generation(), 1);
    drop(reading);
    rotate(&wal, &mut written).await;
    assert_eq!(wal.reader().oldest_generation(), 2);
    assert_eq!(wal.reader().read(0..1000, usize::MAX).unwrap(), written);
}
