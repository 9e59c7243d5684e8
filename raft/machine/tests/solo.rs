//! The quorum of one behaves as the ports promise.
#![allow(clippy::unwrap_used)]
#![cfg(feature = "solo")]

use futures_util::FutureExt;
use nautilus_machine::solo::SoloKv;
use nautilus_machine::{
    Command, KeyRange, Kv, Operation, Outcome, Proposal, Put, RangeRequest, Txn, UnixMillis,
    WatchError, WatchRequest,
};

fn put(kv: &SoloKv, key: &str) -> u64 {
    let then = vec![Operation::Put(Put::new(key.to_owned(), "value"))];
    let command = Command::Txn(Txn {
        then,
        ..Txn::default()
    });
    let applied = kv
        .propose(Proposal::new(command))
        .now_or_never()
        .unwrap()
        .unwrap();
    assert!(matches!(
        applied.outcome,
        Outcome::Txn {
            succeeded: true,
            ..
        }
    ));
    applied.revision
}

fn solo() -> SoloKv {
    SoloKv::new(|| UnixMillis(1_000))
}

#[test]
fn a_watch_gets_the_past_and_the_future_of_its_range() {
    let kv = solo();
    put(&kv, "a/1");
    put(&kv, "b/1");
    let request = WatchRequest {
        range: KeyRange::prefix("a/"),
        from: Some(1),
        previous: true,
    };
    let mut watcher = kv.watch(request).unwrap();
    let events = watcher.next().now_or_never().unwrap().unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(watcher.progress(), 3, "b's revision holds nothing for it");
    assert!(watcher.next().now_or_never().is_none(), "nothing new");
    put(&kv, "b/2");
    assert!(
        watcher.next().now_or_never().is_none(),
        "nothing of its own"
    );
    assert_eq!(watcher.progress(), 4);
    put(&kv, "a/2");
    let events = watcher.next().now_or_never().unwrap().unwrap();
    assert_eq!((events.len(), &events[0].kv.key[..]), (1, &b"a/2"[..]));
}

#[test]
fn a_watch_from_a_compacted_revision_is_told_so() {
    let kv = solo();
    put(&kv, "a");
    put(&kv, "a");
    let compact = Proposal::new(Command::Compact { revision: 3 });
    kv.propose(compact).now_or_never().unwrap().unwrap();
    let watch = |from| {
        kv.watch(WatchRequest {
            range: KeyRange::single("a"),
            from: Some(from),
            previous: true,
        })
    };
    assert!(matches!(
        watch(2).err(),
        Some(WatchError::Compacted { compacted: 3 })
    ));
    assert!(watch(3).is_ok());
}

#[test]
fn a_read_after_a_proposal_sees_it() {
    let kv = solo();
    let revision = put(&kv, "a");
    assert_eq!(kv.read_barrier().now_or_never().unwrap().unwrap(), revision);
    let response = kv
        .range(&RangeRequest::newest(KeyRange::single("a")))
        .unwrap();
    assert_eq!((response.revision, response.count), (revision, 1));
}
