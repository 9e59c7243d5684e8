//! What was flushed comes back whole; a crash leaves one whole store.
#![allow(clippy::unwrap_used)]

mod world;

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use nautilus_machine::{Command, KeyRange, LedgerError, RangeRequest, verify_consistency};
use nautilus_store::{Keyring, RootKey, Store, read_header};
use world::{World, content, copy_dir, engine_dir, keyring, refused};

#[test]
fn a_store_comes_back_as_it_was() {
    let world = World::new();
    let store = world.open();
    world.fill(&store);
    let before = content(&store);
    store.flush().unwrap();
    drop(store);
    assert_eq!(content(&world.open()), before);
}

#[test]
fn a_crash_leaves_the_state_of_the_last_flush() {
    let world = World::new();
    let store = world.open();
    world.fill(&store);
    store.flush().unwrap();
    let flushed = content(&store);
    world.put(&store, "late", "lost");
    let crashed = world.file("crashed");
    copy_dir(&world.dir(), &crashed);
    let survivor = Store::open(&crashed, &keyring()).unwrap();
    assert_eq!(content(&survivor), flushed);
}

#[test]
fn a_snapshot_carries_the_state_to_another_member_without_the_notes() {
    let world = World::new();
    let store = world.open();
    world.fill(&store);
    let path = world.file("snapshot");
    let info = store
        .view()
        .unwrap()
        .write_to(&path, Bytes::from("header"))
        .unwrap();
    assert_eq!(info.size_bytes, fs::metadata(&path).unwrap().len());
    assert_eq!(info.digest, store.digest());
    assert_eq!(read_header(&path, &keyring()).unwrap(), "header");

    let other = World::new();
    let joined = other.open();
    other.put(&joined, "stale", "gone after the install");
    joined.put_notes(&[("vote", Bytes::from("old"))]).unwrap();
    joined
        .install(&path, &[("applied", Bytes::from("from the leader"))])
        .unwrap();
    let mut wanted = content(&store);
    wanted.note = Some(Bytes::from("from the leader"));
    assert_eq!(content(&joined), wanted);
    assert_eq!(
        joined.note("vote").unwrap(),
        None,
        "an install replaces all notes"
    );
    drop(joined);
    assert_eq!(content(&other.open()), wanted, "the install is durable");
    assert!(
        !engine_dir(&other.dir(), 1).exists(),
        "the old engine is gone"
    );
}

#[test]
fn what_lives_has_a_receipt_and_what_is_compacted_away_has_none() {
    let world = World::new();
    let store = world.open();
    world.fill(&store);
    let older = store.receipt(store.revision(), None).unwrap();
    let living = store.range(&RangeRequest::newest(KeyRange::span(Bytes::new(), "z")));
    for kv in living.unwrap().kvs {
        let receipt = store.receipt(kv.mod_revision, Some(&kv.key)).unwrap();
        assert_eq!(receipt.committed.value, Some(kv.value));
        assert_eq!(receipt.committed.leaf.create_revision, kv.create_revision);
        assert_eq!(receipt.head.size, store.consistency(1, None).unwrap().to);
    }
    let gone = store.receipt(3, None).unwrap_err();
    assert!(matches!(gone, LedgerError::Compacted { .. }), "{gone}");
    let future = store.receipt(store.revision() + 1, None).unwrap_err();
    assert!(
        matches!(future, LedgerError::FutureRevision { .. }),
        "{future}"
    );
    let other = store.receipt(store.revision(), Some(b"other")).unwrap_err();
    assert!(matches!(other, LedgerError::NoSuchKey { .. }), "{other}");
    world.put(&store, "one more", "value");
    let proved = store.consistency(older.head.size, None).unwrap();
    let (from, to) = (older.head, proved.head);
    assert!(verify_consistency(
        from.size,
        &from.root,
        to.size,
        &to.root,
        &proved.proof
    ));
    let more = store.consistency(to.size + 1, None).unwrap_err();
    assert!(matches!(more, LedgerError::FutureSize { .. }), "{more}");
}

#[test]
fn a_view_does_not_see_what_is_written_later() {
    let world = World::new();
    let store = world.open();
    world.fill(&store);
    let before = content(&store);
    let view = store.view().unwrap();
    world.put(&store, "late", "unseen");
    world.apply(
        &store,
        Command::Compact {
            revision: store.revision(),
        },
    );
    let path = world.file("snapshot");
    view.write_to(&path, Bytes::new()).unwrap();
    let memory = Store::open_memory(&keyring()).unwrap();
    memory.install(&path, &[]).unwrap();
    assert_eq!(
        content(&memory),
        world::Content {
            note: None,
            ..before
        }
    );
}

#[test]
fn a_crash_within_an_install_leaves_the_old_store_or_the_new_one() {
    let world = World::new();
    let store = world.open();
    world.fill(&store);
    let path = world.file("snapshot");
    store.view().unwrap().write_to(&path, Bytes::new()).unwrap();
    let new = world::Content {
        note: None,
        ..content(&store)
    };

    let other = World::new();
    let joined = other.open();
    other.put(&joined, "old", "state");
    joined.flush().unwrap();
    let old = content(&joined);
    let before = other.file("before");
    copy_dir(&other.dir(), &before);
    // A view keeps the old engine alive, as a reader would.
    let view = joined.view().unwrap();
    joined.install(&path, &[]).unwrap();
    let after = other.file("after");
    copy_dir(&other.dir(), &after);
    drop(view);
    assert!(engine_dir(&after, 1).exists() && engine_dir(&after, 2).exists());

    // Crashed after CURRENT was switched: the new one, and the old is swept.
    let reopened = Store::open(&after, &keyring()).unwrap();
    assert_eq!(content(&reopened), new);
    assert!(!engine_dir(&after, 1).exists());
    drop(reopened);

    // Crashed before CURRENT was switched: whole or half, the new engine is swept.
    for half in [false, true] {
        copy_dir(&engine_dir(&after, 2), &engine_dir(&before, 2));
        if half {
            fs::remove_dir_all(engine_dir(&before, 2).join("rows")).unwrap();
        }
        let reopened = Store::open(&before, &keyring()).unwrap();
        assert_eq!(content(&reopened), old);
        assert!(!engine_dir(&before, 2).exists());
    }
}

#[test]
fn a_refused_snapshot_leaves_the_store_as_it_was() {
    let world = World::new();
    let store = world.open();
    world.fill(&store);
    let before = content(&store);
    let path = world.file("snapshot");
    store.view().unwrap().write_to(&path, Bytes::new()).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let text = refused(store.install(&path, &[]));
    assert!(
        text.contains("snapshot") && text.contains("does not authenticate"),
        "{text}"
    );
    assert_eq!(content(&store), before);
    world.put(&store, "still", "writable");
}

#[test]
fn reads_at_a_revision_fall_with_compaction_only() {
    let world = World::new();
    let store = world.open();
    world.fill(&store);
    let at = |revision| {
        let range = KeyRange::prefix("registry/");
        store.range(&RangeRequest {
            revision: Some(revision),
            ..RangeRequest::newest(range)
        })
    };
    assert!(at(19).unwrap_err().to_string().contains("compacted"));
    assert_eq!(at(20).unwrap().count, 15);
    assert!(at(1_000).unwrap_err().to_string().contains("future"));
}

#[test]
fn a_store_is_opened_once() {
    let world = World::new();
    let _store = world.open();
    let text = refused(Store::open(&world.dir(), &keyring()));
    assert!(text.contains("in use by another process"), "{text}");
}

#[test]
fn another_quorums_store_is_refused() {
    let world = World::new();
    let store = world.open();
    world.fill(&store);
    store.flush().unwrap();
    let path = world.file("snapshot");
    store.view().unwrap().write_to(&path, Bytes::new()).unwrap();
    drop(store);
    let stranger = Keyring::new(RootKey::from_bytes([43; 32]));
    let text = refused(Store::open(&world.dir(), &stranger));
    assert!(
        text.contains("CURRENT") && text.contains("another quorum"),
        "{text}"
    );
    let text = refused(read_header(&path, &stranger));
    assert!(text.contains("another quorum"), "{text}");
}

#[test]
fn readers_and_a_writer_that_compacts_do_not_disturb_each_other() {
    let world = World::new();
    let store = world.open();
    world.fill(&store);
    let stop = AtomicBool::new(false);
    let reads = [AtomicU64::new(0), AtomicU64::new(0)];
    std::thread::scope(|scope| {
        for reads in &reads {
            let (store, stop) = (&store, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let range = KeyRange::prefix("registry/");
                    let response = store.range(&RangeRequest::newest(range.clone())).unwrap();
                    assert_eq!(response.count, 14);
                    let from = store.compacted_revision();
                    match store.history(&range, from, 8, true) {
                        Ok(_) | Err(nautilus_machine::WatchError::Compacted { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Until both have read between the writes, however late they start.
        let overlapped = || reads.iter().all(|reads| reads.load(Ordering::Relaxed) > 10);
        for round in 0..100_000 {
            if round >= 300 && overlapped() {
                break;
            }
            world.put(
                &store,
                &format!("{}/{}", world::PLANTED_KEY, 4),
                format!("{round}"),
            );
            world.apply(
                &store,
                Command::Compact {
                    revision: store.revision(),
                },
            );
        }
        stop.store(true, Ordering::Relaxed);
    });
    let reads = reads.map(AtomicU64::into_inner);
    assert!(reads.iter().all(|&reads| reads > 10), "{reads:?}");
}
