//! One promise each.

use nautilus_machine::{
    Command, KeyRange, RESERVED_PREFIX, RangeEnd, WatchError, WatchGroup, Watcher,
};

use super::world::{World, put, request, tight, txn};
use crate::hub::HubLimits;

#[test]
fn a_group_that_falls_behind_its_queue_and_the_ring_is_level_again_afterwards() {
    let mut world = World::new(tight());
    let mut group = world.group();
    group.add(1, request(KeyRange::prefix("a/"), None)).unwrap();
    for _ in 0..40 {
        world.put(&["a/1", "b/1"]);
    }
    assert_eq!((group.progress(1), group.synced()), (None, None));
    let seen = world.drain(&mut group);
    let expected = world.expected(&KeyRange::prefix("a/"), 2);
    assert_eq!(seen.of(1), expected);
    assert_eq!(group.progress(1), Some(world.store.revision()));
    world.put(&["a/2"]);
    assert_eq!(world.drain(&mut group).events.len(), 1);
}

#[test]
fn a_slow_group_does_not_hold_up_another() {
    let mut world = World::new(tight());
    let (mut slow, mut quick) = (world.group(), world.group());
    slow.add(1, request(KeyRange::prefix(""), None)).unwrap();
    quick.add(1, request(KeyRange::prefix(""), None)).unwrap();
    for round in 0..40 {
        world.put(&["a"]);
        let seen = world.drain(&mut quick);
        assert_eq!(seen.events.len(), 1, "round {round}");
        assert_eq!(quick.synced(), Some(world.store.revision()));
    }
    assert_eq!(world.drain(&mut slow).events.len(), 40);
}

#[test]
fn progress_is_never_ahead_of_what_the_reader_was_given() {
    let mut world = World::new(HubLimits::default());
    let mut group = world.group();
    group.add(1, request(KeyRange::single("a"), None)).unwrap();
    group.add(2, request(KeyRange::single("b"), None)).unwrap();
    world.put(&["a", "b"]);
    assert_eq!((group.progress(1), group.progress(2)), (Some(1), Some(1)));
    assert!(world.next(&mut group).is_some());
    assert_eq!(group.progress(1), Some(2));
    assert_eq!(group.progress(2), Some(1), "its message still waits");
    assert_eq!(group.synced(), Some(1));
    assert!(world.next(&mut group).is_some());
    assert_eq!((group.progress(2), group.synced()), (Some(2), Some(2)));
    world.put(&["c"]);
    assert_eq!(group.synced(), Some(3), "it grows with others' events");
}

#[test]
fn a_watch_from_the_past_is_not_level_before_it_has_read_the_past() {
    let mut world = World::new(tight());
    for _ in 0..30 {
        world.put(&["a"]);
    }
    let mut group = world.group();
    group
        .add(1, request(KeyRange::single("a"), Some(5)))
        .unwrap();
    group.add(2, request(KeyRange::single("b"), None)).unwrap();
    assert_eq!((group.progress(1), group.synced()), (None, None));
    assert_eq!(group.progress(2), Some(31));
    let seen = world.drain(&mut group);
    assert_eq!(seen.of(1), world.expected(&KeyRange::single("a"), 5));
    assert_eq!(group.synced(), Some(31));
}

#[test]
fn a_watch_from_the_future_sees_nothing_before_it() {
    let mut world = World::new(HubLimits::default());
    let mut group = world.group();
    group
        .add(1, request(KeyRange::single("a"), Some(4)))
        .unwrap();
    for _ in 0..4 {
        world.put(&["a"]);
    }
    let seen = world.drain(&mut group);
    assert_eq!(seen.of(1), world.expected(&KeyRange::single("a"), 4));
}

#[test]
fn a_watch_without_a_start_begins_after_what_is_applied_even_if_it_is_not_published() {
    let mut world = World::new(HubLimits::default());
    let mut group = world.group();
    let applied = world.apply_only(vec![txn(vec![put("a")])]);
    group.add(1, request(KeyRange::single("a"), None)).unwrap();
    world.hub.publish(applied);
    world.put(&["a"]);
    let seen = world.drain(&mut group);
    assert_eq!(seen.of(1), world.expected(&KeyRange::single("a"), 3));
}

#[test]
fn a_compaction_past_a_watch_that_needs_history_ends_it_and_no_other() {
    let mut world = World::new(tight());
    let mut group = world.group();
    group.add(1, request(KeyRange::single("a"), None)).unwrap();
    for _ in 0..40 {
        world.put(&["a"]);
    }
    world.apply(vec![Command::Compact { revision: 30 }]);
    group
        .add(2, request(KeyRange::single("a"), Some(30)))
        .unwrap();
    let seen = world.drain(&mut group);
    assert!(
        matches!(
            seen.errors[..],
            [(1, WatchError::Compacted { compacted: 30 })]
        ),
        "{:?}",
        seen.errors
    );
    assert_eq!(seen.of(2), world.expected(&KeyRange::single("a"), 30));
    assert!(!group.remove(1), "it has ended");
}

#[test]
fn a_watch_from_a_compacted_revision_is_refused() {
    let mut world = World::new(HubLimits::default());
    world.put(&["a"]);
    world.put(&["a"]);
    world.apply(vec![Command::Compact { revision: 3 }]);
    let mut group = world.group();
    let refused = group.add(1, request(KeyRange::single("a"), Some(2)));
    assert!(matches!(
        refused,
        Err(WatchError::Compacted { compacted: 3 })
    ));
}

#[test]
fn nothing_comes_of_a_watch_after_it_was_removed_even_if_its_id_is_used_again() {
    let mut world = World::new(HubLimits::default());
    let mut group = world.group();
    group.add(1, request(KeyRange::prefix(""), None)).unwrap();
    group.add(2, request(KeyRange::prefix(""), None)).unwrap();
    world.put(&["a"]);
    world.put(&["b"]);
    assert!(world.next(&mut group).is_some());
    assert!(group.remove(2));
    group.add(2, request(KeyRange::single("c"), None)).unwrap();
    world.put(&["c"]);
    let seen = world.drain(&mut group);
    assert_eq!(seen.of(2), world.expected(&KeyRange::single("c"), 2));
}

#[test]
fn a_range_over_everything_skips_the_reserved_keys() {
    let mut world = World::new(tight());
    let everything = KeyRange {
        start: "\0".into(),
        end: RangeEnd::Unbounded,
    };
    let mut group = world.group();
    group.add(1, request(everything.clone(), Some(1))).unwrap();
    group
        .add(2, request(KeyRange::prefix(RESERVED_PREFIX), Some(1)))
        .unwrap();
    for _ in 0..20 {
        world.put(&["/nautilus/a", "b"]);
    }
    let past = world.drain(&mut group);
    world.put(&["/nautilus/a", "b"]);
    let present = world.drain(&mut group);
    for (id, range) in [(1, everything), (2, KeyRange::prefix(RESERVED_PREFIX))] {
        let seen = [past.of(id), present.of(id)].concat();
        assert_eq!(seen, world.expected(&range, 1), "watch {id}");
    }
}

#[test]
fn a_snapshot_in_place_of_the_store_loses_no_event() {
    let mut world = World::new(HubLimits::default());
    let mut group = world.group();
    group.add(1, request(KeyRange::single("a"), None)).unwrap();
    world.put(&["a"]);
    // What a snapshot brings is never published.
    world.apply_only(vec![txn(vec![put("a")]), txn(vec![put("a")])]);
    world.hub.restart();
    world.put(&["a"]);
    let seen = world.drain(&mut group);
    assert_eq!(seen.of(1), world.expected(&KeyRange::single("a"), 2));
    assert_eq!(group.synced(), Some(5));
}

#[test]
fn a_node_that_stops_ends_every_watch() {
    let mut world = World::new(HubLimits::default());
    let mut group = world.group();
    group.add(1, request(KeyRange::single("a"), None)).unwrap();
    group
        .add(2, request(KeyRange::single("a"), Some(1)))
        .unwrap();
    world.put(&["a"]);
    world.hub.close();
    let errors = world.drain(&mut group).errors;
    assert_eq!(errors.len(), 2);
    assert!(
        errors
            .iter()
            .all(|(_, error)| matches!(error, WatchError::Closed))
    );
}

#[test]
fn events_of_one_entry_come_in_one_message() {
    let mut world = World::new(HubLimits::default());
    let mut group = world.group();
    group.add(1, request(KeyRange::prefix("a/"), None)).unwrap();
    world.put(&["a/1", "b/1", "a/2"]);
    let message = world.next(&mut group).unwrap();
    assert_eq!(message.result.unwrap().len(), 2);
}

#[test]
fn a_single_watch_tells_its_progress_while_nothing_matches() {
    let mut world = World::new(HubLimits::default());
    let watch = world.hub.watch(request(KeyRange::single("a"), None));
    let watch = watch.unwrap();
    world.put(&["b"]);
    assert_eq!(Watcher::progress(&*watch), 2);
}
