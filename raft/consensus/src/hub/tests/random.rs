//! Random histories, random ranges, random slowness.

use std::collections::BTreeMap;

use nautilus_machine::{
    Command, Event, KeyRange, Operation, RangeEnd, Revision, WatchError, WatchGroup, WatchRequest,
};
use proptest::prelude::*;

use super::world::{Seen, World, put, tight, txn};
use crate::hub::group::Group;

const KEYS: [&str; 8] = [
    "a",
    "a/1",
    "a/2",
    "b",
    "b/1",
    "/nautilus/x",
    "/nautilus/y",
    "z",
];
const GROUPS: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    /// Each a transaction; all in one batch.
    Write(Vec<Vec<(usize, bool)>>),
    Compact(u64),
    Add {
        group: usize,
        range: KeyRange,
        /// So many revisions back; none: from now on.
        back: Option<u64>,
        previous: bool,
    },
    Remove {
        group: usize,
        which: usize,
    },
    /// A reader takes so many messages; many: all there are.
    Read {
        group: usize,
        messages: usize,
    },
    Restart,
}

fn range() -> impl Strategy<Value = KeyRange> {
    let key = || (0..KEYS.len()).prop_map(|at| KEYS[at]);
    prop_oneof![
        3 => key().prop_map(KeyRange::single),
        3 => key().prop_map(KeyRange::prefix),
        2 => (key(), key()).prop_map(|(start, end)| KeyRange::span(start, end)),
        1 => key().prop_map(|start| KeyRange { start: start.into(), end: RangeEnd::Unbounded }),
        1 => Just(KeyRange { start: "\0".into(), end: RangeEnd::Unbounded }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let change = (0..KEYS.len(), prop::bool::weighted(0.75));
    let transaction = prop::collection::vec(change, 1..4);
    prop_oneof![
        8 => prop::collection::vec(transaction, 1..5).prop_map(Step::Write),
        1 => (0u64..30).prop_map(Step::Compact),
        4 => (0..GROUPS, range(), prop::option::of(0u64..40), any::<bool>())
            .prop_map(|(group, range, back, previous)| Step::Add { group, range, back, previous }),
        1 => (0..GROUPS, 0usize..8).prop_map(|(group, which)| Step::Remove { group, which }),
        4 => (0..GROUPS, prop_oneof![1usize..6, Just(usize::MAX)])
            .prop_map(|(group, messages)| Step::Read { group, messages }),
        1 => Just(Step::Restart),
    ]
}

/// What a watch asked for and has got.
struct Reader {
    range: KeyRange,
    from: Revision,
    previous: bool,
    seen: Vec<Seen>,
}

struct Play {
    world: World,
    groups: Vec<Group>,
    readers: Vec<BTreeMap<i64, Reader>>,
    next_id: i64,
}

impl Play {
    fn new() -> Self {
        let world = World::new(tight());
        Self {
            groups: (0..GROUPS).map(|_| world.group()).collect(),
            readers: (0..GROUPS).map(|_| BTreeMap::new()).collect(),
            next_id: 0,
            world,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(transactions) => self
                .world
                .apply(transactions.into_iter().map(write).collect()),
            Step::Compact(back) => {
                let revision = self.world.store.revision().saturating_sub(back);
                if revision > self.world.store.compacted_revision() {
                    self.world.apply(vec![Command::Compact { revision }]);
                }
            }
            Step::Add {
                group,
                range,
                back,
                previous,
            } => self.add(group, range, back, previous),
            Step::Remove { group, which } => {
                let ids: Vec<i64> = self.readers[group].keys().copied().collect();
                if let Some(id) = ids.get(which) {
                    assert!(self.groups[group].remove(*id));
                    self.readers[group].remove(id);
                }
            }
            Step::Read { group, messages } => self.read(group, messages),
            Step::Restart => self.world.hub.restart(),
        }
        (0..GROUPS).for_each(|group| self.check_progress(group));
    }

    fn add(&mut self, group: usize, range: KeyRange, back: Option<u64>, previous: bool) {
        let current = self.world.store.revision();
        let compacted = self.world.store.compacted_revision();
        let from = back.map(|back| (current + 5).saturating_sub(back));
        self.next_id += 1;
        let added = self.groups[group].add(
            self.next_id,
            WatchRequest {
                range: range.clone(),
                from,
                previous,
            },
        );
        if let Some(from) = from
            && from < compacted
        {
            assert!(matches!(added, Err(WatchError::Compacted { .. })));
            return;
        }
        added.expect("added");
        let reader = Reader {
            range,
            from: from.unwrap_or(current + 1),
            previous,
            seen: Vec::new(),
        };
        self.readers[group].insert(self.next_id, reader);
    }

    fn read(&mut self, group: usize, messages: usize) {
        for _ in 0..messages {
            let Some(message) = self.world.next(&mut self.groups[group]) else {
                break;
            };
            let readers = &mut self.readers[group];
            let reader = readers.get_mut(&message.id).expect("a watch that is there");
            match message.result {
                Ok(events) => {
                    assert!(!events.is_empty());
                    for event in &events {
                        check_previous(&self.world, reader, event.event());
                    }
                    let events = events.iter().map(|event| super::world::of(event.event()));
                    reader.seen.extend(events);
                    check_prefix(&self.world, reader);
                }
                Err(WatchError::Compacted { compacted }) => {
                    let reached = reader.seen.last().map_or(reader.from, |last| last.0);
                    assert!(reached < compacted, "nothing it needs was compacted");
                    readers.remove(&message.id);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// What progress says has been returned was.
    fn check_progress(&self, group: usize) {
        for (id, reader) in &self.readers[group] {
            let progress = self.groups[group].progress(*id);
            let synced = self.groups[group].synced();
            assert!(synced.is_none() || progress.is_some());
            for through in [progress, synced].into_iter().flatten() {
                let due = self.world.expected(&reader.range, reader.from);
                let due = due.iter().filter(|event| event.0 <= through).count();
                assert!(reader.seen.len() >= due, "progress {through} is ahead");
            }
        }
    }

    /// In the end everyone is level and has seen everything.
    fn finish(mut self) {
        for group in 0..GROUPS {
            self.read(group, usize::MAX);
            let synced = self.groups[group].synced();
            assert_eq!(synced, Some(self.world.store.revision()));
            for reader in self.readers[group].values() {
                let expected = self.world.expected(&reader.range, reader.from);
                assert_eq!(reader.seen, expected);
            }
        }
    }
}

/// The version before an event is there for those who asked, unless it was compacted.
fn check_previous(world: &World, reader: &Reader, event: &Event) {
    let kept = event.revision() > world.store.compacted_revision();
    match &event.prev {
        None => assert!(!reader.previous || !kept || world.before(event).is_none()),
        found => assert_eq!(found.as_ref(), world.before(event)),
    }
}

/// In order, nothing lost or doubled, and no revision in part.
fn check_prefix(world: &World, reader: &Reader) {
    let expected = world.expected(&reader.range, reader.from);
    assert_eq!(reader.seen[..], expected[..reader.seen.len()]);
    if let (Some(last), Some(next)) = (reader.seen.last(), expected.get(reader.seen.len())) {
        assert!(last.0 < next.0, "a revision was split");
    }
}

fn write(changes: Vec<(usize, bool)>) -> Command {
    let mut operations = BTreeMap::new();
    for (key, is_put) in changes {
        let delete = Operation::Delete {
            range: KeyRange::single(KEYS[key]),
            prev_kv: false,
        };
        operations.insert(key, if is_put { put(KEYS[key]) } else { delete });
    }
    txn(operations.into_values().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_watch_sees_exactly_its_events_in_order(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut play = Play::new();
        steps.into_iter().for_each(|step| play.step(step));
        play.finish();
    }
}
