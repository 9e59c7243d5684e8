//! A rotation of keys: nothing is lost, and the old root opens nothing any more.
#![allow(clippy::unwrap_used)]

mod world;

use std::fs;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use nautilus_store::{
    Keyring, Outcome, RootKey, Store, Work, read_header, reseal_snapshot, snapshot_generation,
};

use world::{World, content, copy_dir, files, keyring, refused};

fn on(_: Work) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn next_generation(ring: &Keyring) {
    let next = ring.current() + 1;
    ring.add(next, RootKey::generate().unwrap()).unwrap();
    ring.advance(next).unwrap();
}

/// How often the head of a record of an early epoch stands in the files: version, epoch,
/// and a counter below 65536.
fn heads(dir: &std::path::Path, epochs: std::ops::RangeInclusive<u32>) -> usize {
    let mut found = 0;
    for file in files(dir) {
        let bytes = fs::read(file).unwrap();
        for epoch in epochs.clone() {
            let mut head = vec![1];
            head.extend_from_slice(&epoch.to_be_bytes());
            head.extend_from_slice(&[0; 6]);
            found += bytes.windows(head.len()).filter(|w| *w == head).count();
        }
    }
    found
}

#[test]
fn after_a_rotation_the_old_root_opens_no_file_and_the_new_one_opens_all() {
    let (world, ring) = (World::new(), keyring());
    let store = Store::open(&world.dir(), &ring).unwrap();
    world.fill(&store);
    store.flush().unwrap();
    drop(store);
    let store = Store::open(&world.dir(), &ring).unwrap();
    let before = content(&store);
    assert!(
        heads(&world.dir(), 1..=2) > 40,
        "rows of old epochs are there"
    );

    next_generation(&ring);
    assert_eq!(store.oldest_generation().unwrap(), 1);
    assert_eq!(store.reencrypt(&mut on).unwrap(), Outcome::Done);
    assert_eq!(store.oldest_generation().unwrap(), 2);
    assert_eq!(content(&store), before);
    assert!(ring.destroy_old());
    assert_eq!(store.reencrypt(&mut on).unwrap(), Outcome::Done);
    assert_eq!(content(&store), before);
    drop(store);

    assert_eq!(
        heads(&world.dir(), 1..=2),
        0,
        "no record of an old epoch is left"
    );
    let copy = world.file("copy");
    copy_dir(&world.dir(), &copy);
    let text = refused(Store::open(&copy, &keyring()));
    assert!(text.contains("generation 2 is not held"), "{text}");
    let store = Store::open(&world.dir(), &ring).unwrap();
    assert_eq!(content(&store), before);
}

#[test]
fn a_rotation_that_is_broken_off_anywhere_goes_on_after_a_start() {
    let ring = keyring();
    let world = World::new();
    let store = Store::open(&world.dir(), &ring).unwrap();
    for number in 0..200 {
        world.put(&store, &format!("key-{number:03}"), vec![7u8; 5000]);
    }
    store.flush().unwrap();
    let before = content(&store);
    drop(store);
    next_generation(&ring);
    let mut rounds = 0;
    for allowed in 0.. {
        let store = Store::open(&world.dir(), &ring).unwrap();
        let mut left = allowed;
        let outcome = store.reencrypt(&mut |_| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            ControlFlow::Continue(())
        });
        assert_eq!(content(&store), before);
        rounds += 1;
        if outcome.unwrap() == Outcome::Done {
            break;
        }
        assert_eq!(
            store.oldest_generation().unwrap(),
            1,
            "nothing was destroyed early"
        );
    }
    assert!(rounds > 3, "it was broken off {rounds} times");
    ring.destroy_old();
    let store = Store::open(&world.dir(), &ring).unwrap();
    assert_eq!(content(&store), before);
}

#[test]
fn writes_and_reads_go_on_while_rows_are_sealed_anew() {
    let (world, ring) = (World::new(), keyring());
    let store = Store::open(&world.dir(), &ring).unwrap();
    for number in 0..300 {
        world.put(&store, &format!("key-{number:03}"), vec![7u8; 4000]);
    }
    next_generation(&ring);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !over.load(Ordering::Acquire) {
                assert!(content(&store).kvs.len() >= 300);
                reads += 1;
            }
            reads
        });
        let writer = scope.spawn(|| {
            let mut written = 0;
            while !over.load(Ordering::Acquire) {
                world.put(&store, &format!("new-{written:05}"), vec![8u8; 100]);
                written += 1;
            }
            written
        });
        while store.reencrypt(&mut on).unwrap() != Outcome::Done {}
        over.store(true, Ordering::Release);
        assert!(reader.join().unwrap() > 0);
        let written = writer.join().unwrap();
        assert_eq!(content(&store).kvs.len(), 300 + written);
    });
    ring.destroy_old();
    let before = content(&store);
    store.flush().unwrap();
    drop(store);
    assert_eq!(content(&Store::open(&world.dir(), &ring).unwrap()), before);
    assert_eq!(heads(&world.dir(), 1..=1), 0);
}

#[test]
fn a_view_of_before_is_written_whole_and_holds_the_old_keys_so_long() {
    let (world, ring) = (World::new(), keyring());
    let store = Store::open(&world.dir(), &ring).unwrap();
    world.fill(&store);
    store.flush().unwrap();
    let before = content(&store);
    let view = store.view().unwrap();
    next_generation(&ring);
    let mut waits = 0;
    let outcome = store.reencrypt(&mut |work| {
        if work == Work::default() {
            waits += 1;
        }
        if waits == 3 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert_eq!(
        outcome.unwrap(),
        Outcome::Unfinished,
        "it waits for the view"
    );
    let path = world.file("snapshot");
    view.write_to(&path, Bytes::from_static(b"header")).unwrap();
    assert_eq!(store.reencrypt(&mut on).unwrap(), Outcome::Done);
    ring.destroy_old();
    store
        .install(&path, &[("applied", before.note.clone().unwrap())])
        .unwrap();
    assert_eq!(content(&store), before);
}

#[test]
fn a_snapshot_file_sealed_anew_holds_the_same_and_the_old_root_does_not_open_it() {
    let (world, ring) = (World::new(), keyring());
    let store = Store::open(&world.dir(), &ring).unwrap();
    world.fill(&store);
    let before = content(&store);
    let (old, new) = (world.file("old"), world.file("new"));
    let header = Bytes::from_static(b"the caller's header");
    store
        .view()
        .unwrap()
        .write_to(&old, header.clone())
        .unwrap();
    assert_eq!(snapshot_generation(&old).unwrap(), Some(1));
    next_generation(&ring);
    assert_eq!(
        reseal_snapshot(&old, &new, &ring, &mut on).unwrap(),
        Outcome::Done
    );
    assert_eq!(snapshot_generation(&new).unwrap(), Some(2));
    assert_eq!(read_header(&new, &ring).unwrap(), header);
    let text = refused(read_header(&new, &keyring()));
    assert!(text.contains("generation 2 is not held"), "{text}");
    store
        .install(&new, &[("applied", before.note.clone().unwrap())])
        .unwrap();
    assert_eq!(content(&store), before);
}
