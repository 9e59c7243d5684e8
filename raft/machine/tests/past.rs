//! Compaction in steps, and loading: what the model does not look at.
#![allow(clippy::unwrap_used)]

use nautilus_machine::{
    Applied, COMPACT_STEP_ROWS_MAX, Command, DigestKey, Entry, KeyRange, KeyValue, LeaseId,
    LogPosition, Machine, MemoryRows, Operation, Outcome, Proposal, Put, RangeError, RangeRequest,
    Refusal, RowBatch, Txn, UnixMillis,
};

struct World {
    machine: Machine,
    rows: MemoryRows,
    next: u64,
}

fn digest_key() -> DigestKey {
    DigestKey::new(&[3; 32])
}

impl World {
    fn new() -> Self {
        Self {
            machine: Machine::new(digest_key()),
            rows: MemoryRows::default(),
            next: 0,
        }
    }

    fn apply(&mut self, command: Command) -> Applied {
        let entry = Entry {
            time: UnixMillis(0),
            proposal: Proposal::new(command),
        };
        let position = LogPosition {
            term: 1,
            index: self.next,
        };
        self.next += 1;
        let mut batch = RowBatch::default();
        let applied = self
            .machine
            .apply(position, &entry, &self.rows, &mut batch)
            .unwrap();
        self.machine.write_counters(&mut batch).unwrap();
        self.rows.write(batch);
        applied
    }

    fn operate(&mut self, then: Vec<Operation>) {
        self.apply(Command::Txn(Txn {
            then,
            ..Txn::default()
        }));
    }

    /// A thousand keys, each written three times; then half of them deleted.
    fn fill(&mut self) {
        for round in 0..3 {
            let put = |n| Operation::Put(Put::new(format!("k{n:04}"), format!("{round}")));
            self.operate((0..1000).map(put).collect());
        }
        self.operate(vec![Operation::Delete {
            range: KeyRange::span("k0000", "k0500"),
            prev_kv: false,
        }]);
        self.operate(vec![Operation::Put(Put::new("k0000", "again"))]);
    }
}

#[test]
fn a_large_compaction_goes_in_steps_that_no_reader_notices() {
    let mut world = World::new();
    world.fill();
    let everything = RangeRequest::newest(KeyRange::prefix("k"));
    let before = world.machine.locate(&everything).unwrap();
    let before = before.read(&world.rows).unwrap();
    let hash = world.machine.revision();
    world.apply(Command::Compact { revision: hash });
    assert!(
        world.machine.compaction_pending(),
        "it is more than one step"
    );
    let past = RangeRequest {
        revision: Some(3),
        ..everything.clone()
    };
    let refused = world.machine.locate(&past).unwrap_err();
    assert!(matches!(refused, RangeError::Compacted { compacted: 6 }));
    let mut steps = 1;
    while world.machine.compaction_pending() {
        let rows = world.machine.version_rows();
        world.apply(Command::CompactStep);
        assert!(rows - world.machine.version_rows() <= COMPACT_STEP_ROWS_MAX as u64);
        let now = world.machine.locate(&everything).unwrap();
        assert_eq!(now.read(&world.rows).unwrap(), before);
        steps += 1;
    }
    // Two old versions of 1000 keys, the last of 500, and 500 deletions.
    assert_eq!(steps, 3);
    assert_eq!(world.machine.version_rows(), 501, "what lives");
    assert_eq!(world.machine.index_keys(), 501);
}

#[test]
fn a_replica_that_starts_in_the_middle_of_a_compaction_ends_it_the_same() {
    let (mut running, mut started) = (World::new(), World::new());
    for world in [&mut running, &mut started] {
        world.fill();
        world.apply(Command::Compact { revision: 6 });
    }
    started.machine = Machine::restore(digest_key(), &started.rows).unwrap();
    while running.machine.compaction_pending() {
        for world in [&mut running, &mut started] {
            world.apply(Command::CompactStep);
        }
        assert_eq!(running.machine.digest(), started.machine.digest());
        assert_eq!(running.rows, started.rows);
    }
    assert!(!started.machine.compaction_pending());
}

fn version(key: &str, create_revision: u64, mod_revision: u64) -> KeyValue {
    KeyValue {
        key: key.to_owned().into(),
        value: "v".into(),
        create_revision,
        mod_revision,
        version: 1,
        lease: None,
    }
}

fn piece(kvs: Vec<KeyValue>, leases: Vec<(LeaseId, u64)>, last: Option<u64>) -> Command {
    Command::Load { kvs, leases, last }
}

#[test]
fn a_piece_that_cannot_be_loaded_says_why_and_changes_nothing() {
    let mut world = World::new();
    let first = piece(vec![version("a", 2, 5)], vec![(LeaseId(7), 10)], None);
    assert_eq!(world.apply(first).outcome, Outcome::Done);
    let digest = world.machine.digest();
    let leased = KeyValue {
        lease: Some(LeaseId(8)),
        ..version("b", 2, 3)
    };
    let twice = vec![version("b", 2, 3), version("b", 2, 4)];
    let cases = [
        (piece(vec![version("", 2, 3)], vec![], None), "is empty"),
        (
            piece(vec![version("b", 1, 3)], vec![], None),
            "create revision 1",
        ),
        (
            piece(vec![version("b", 4, 3)], vec![], None),
            "mod revision 3",
        ),
        (piece(twice, vec![], None), "comes twice"),
        (
            piece(vec![version("a", 2, 6)], vec![], None),
            "another version (of revision 5)",
        ),
        (piece(vec![leased], vec![], None), "lease 8 was not loaded"),
        (
            piece(vec![], vec![(LeaseId(7), 11)], None),
            "lease 7 was loaded already",
        ),
        (piece(vec![], vec![(LeaseId(0), 11)], None), "must not be 0"),
        (piece(vec![], vec![], Some(4)), "is before revision 5"),
        (
            piece(vec![version("b", 2, 9)], vec![], Some(8)),
            "is after the last revision, 8",
        ),
    ];
    for (piece, why) in cases {
        match world.apply(piece).outcome {
            Outcome::Refused(Refusal::LoadInvalid { reason }) => {
                assert!(reason.contains(why), "{reason}, not {why}");
            }
            outcome => panic!("{why}: {outcome:?}"),
        }
        assert_eq!(world.machine.digest(), digest);
    }
}

#[test]
fn only_an_empty_store_is_loaded() {
    let mut world = World::new();
    world.operate(vec![Operation::Put(Put::new("a", "1"))]);
    let refused = Outcome::Refused(Refusal::NotEmpty { revision: 2 });
    assert_eq!(world.apply(piece(vec![], vec![], None)).outcome, refused);
}
