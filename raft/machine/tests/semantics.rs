//! etcd's promises that the model does not cover, one by one.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use nautilus_machine::{
    Applied, Command, Compare, CompareOp, CompareTarget, DigestKey, Entry, KeyRange, LeaseId,
    LogPosition, Machine, MachineError, MemoryRows, Operation, Outcome, Proposal, Put, RangeError,
    RangeRequest, Refusal, RowBatch, TXN_DEPTH_MAX, Txn, TxnOutcome, UnixMillis,
};

struct World {
    machine: Machine,
    rows: MemoryRows,
    next: u64,
    time: u64,
}

impl World {
    fn new() -> Self {
        let machine = Machine::new(DigestKey::new(&[1; 32]));
        Self {
            machine,
            rows: MemoryRows::default(),
            next: 0,
            time: 0,
        }
    }

    fn apply(&mut self, command: Command) -> Applied {
        self.propose(Proposal::new(command))
    }

    fn propose(&mut self, proposal: Proposal) -> Applied {
        let entry = Entry {
            time: UnixMillis(self.time),
            proposal,
        };
        let position = LogPosition {
            term: 3,
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

    fn then(&mut self, then: Vec<Operation>) -> Outcome {
        self.apply(Command::Txn(Txn {
            then,
            ..Txn::default()
        }))
        .outcome
    }

    fn put(&mut self, key: &str, value: &str) {
        self.then(vec![put(key, value)]);
    }

    fn range(&self, request: &RangeRequest) -> nautilus_machine::RangeResponse {
        self.machine
            .locate(request)
            .unwrap()
            .read(&self.rows)
            .unwrap()
    }
}

fn put(key: &str, value: &str) -> Operation {
    Operation::Put(Put::new(key.to_owned(), value.to_owned()))
}

fn delete(range: KeyRange) -> Operation {
    Operation::Delete {
        range,
        prev_kv: false,
    }
}

fn everything() -> KeyRange {
    KeyRange::span(Bytes::new(), "z")
}

#[test]
fn the_empty_store_is_at_revision_1() {
    let world = World::new();
    assert_eq!(world.machine.revision(), 1);
    assert_eq!(world.range(&RangeRequest::newest(everything())).count, 0);
}

#[test]
fn a_limit_cuts_the_answer_but_not_the_count() {
    let mut world = World::new();
    for name in ["a", "b", "c"] {
        world.put(name, "1");
    }
    let request = RangeRequest {
        limit: Some(2),
        ..RangeRequest::newest(everything())
    };
    let response = world.range(&request);
    assert_eq!(
        (response.kvs.len(), response.count, response.more),
        (2, 3, true)
    );
    let request = RangeRequest {
        count_only: true,
        ..RangeRequest::newest(everything())
    };
    let response = world.range(&request);
    assert_eq!(
        (response.kvs.len(), response.count, response.more),
        (0, 3, false)
    );
}

#[test]
fn keys_only_leaves_the_values_out() {
    let mut world = World::new();
    world.put("a", "1");
    let request = RangeRequest {
        keys_only: true,
        ..RangeRequest::newest(everything())
    };
    let kv = world.range(&request).kvs.remove(0);
    assert_eq!(
        (&kv.key[..], &kv.value[..], kv.mod_revision),
        (&b"a"[..], &b""[..], 2)
    );
}

#[test]
fn nested_comparisons_see_the_state_before_the_transaction() {
    let mut world = World::new();
    let nested = Txn {
        compare: vec![Compare::mod_revision("a", 0)],
        then: vec![put("b", "absent")],
        otherwise: vec![put("b", "present")],
    };
    world.then(vec![put("a", "1"), Operation::Txn(nested)]);
    let kv = world
        .range(&RangeRequest::newest(KeyRange::single("b")))
        .kvs
        .remove(0);
    assert_eq!(kv.value, "absent");
}

#[test]
fn a_key_written_twice_on_one_path_is_refused_whole() {
    let mut world = World::new();
    let inner = |operation| {
        Operation::Txn(Txn {
            then: vec![operation],
            ..Txn::default()
        })
    };
    let refused = Outcome::Refused(Refusal::DuplicateKey);
    let single = KeyRange::single("a");
    for operations in [
        vec![put("a", "1"), put("a", "2")],
        vec![put("a", "1"), delete(single.clone())],
        vec![delete(everything()), put("a", "1")],
        vec![put("a", "1"), inner(put("a", "2"))],
        vec![inner(put("a", "1")), inner(put("a", "2"))],
        vec![inner(put("a", "1")), inner(delete(single.clone()))],
    ] {
        assert_eq!(world.then(operations), refused);
    }
    assert_eq!(world.machine.revision(), 1);
    let exclusive = Txn {
        compare: vec![],
        then: vec![put("a", "1")],
        otherwise: vec![put("a", "2")],
    };
    assert!(matches!(
        world.then(vec![Operation::Txn(exclusive)]),
        Outcome::Txn { .. }
    ));
    let twice = vec![delete(single.clone()), delete(single)];
    assert!(
        matches!(world.then(twice), Outcome::Txn { .. }),
        "deletes may overlap"
    );
}

#[test]
fn an_absent_key_never_satisfies_a_comparison_of_its_value() {
    let mut world = World::new();
    for op in [CompareOp::Equal, CompareOp::NotEqual, CompareOp::Less] {
        let compare = Compare {
            range: KeyRange::single("a"),
            target: CompareTarget::Value(Bytes::new()),
            op,
        };
        let txn = Txn {
            compare: vec![compare],
            ..Txn::default()
        };
        let outcome = world.apply(Command::Txn(txn)).outcome;
        assert_eq!(
            outcome,
            Outcome::Txn {
                succeeded: false,
                results: vec![]
            }
        );
    }
}

#[test]
fn a_range_in_a_transaction_sees_what_the_transaction_wrote() {
    let mut world = World::new();
    world.put("a", "1");
    let read = Operation::Range(RangeRequest::newest(everything()));
    let Outcome::Txn { results, .. } = world.then(vec![put("b", "2"), read]) else {
        panic!()
    };
    let TxnOutcome::Range(response) = &results[1] else {
        panic!()
    };
    assert_eq!((response.count, response.revision), (2, 3));
}

#[test]
fn a_request_that_makes_no_sense_is_refused() {
    let mut world = World::new();
    let mut with = |change: &dyn Fn(&mut Put)| {
        let mut request = Put::new("a", "1");
        change(&mut request);
        world.then(vec![Operation::Put(request)])
    };
    let refused = |refusal| Outcome::Refused(refusal);
    assert_eq!(
        with(&|put| put.key = Bytes::new()),
        refused(Refusal::EmptyKey)
    );
    assert_eq!(
        with(&|put| put.ignore_value = true),
        refused(Refusal::ValueProvided)
    );
    let both = |put: &mut Put| {
        put.ignore_lease = true;
        put.lease = Some(LeaseId(1));
    };
    assert_eq!(with(&both), refused(Refusal::LeaseProvided));
    assert_eq!(
        with(&|put| put.lease = Some(LeaseId(1))),
        refused(Refusal::LeaseNotFound)
    );
    assert_eq!(
        with(&|put| put.ignore_lease = true),
        refused(Refusal::KeyNotFound)
    );
}

#[test]
fn a_transaction_nested_too_deep_is_refused() {
    let nest = |levels: usize| {
        (1..levels).fold(Txn::default(), |inner, _| Txn {
            then: vec![Operation::Txn(inner)],
            ..Txn::default()
        })
    };
    let mut world = World::new();
    let deepest = world.apply(Command::Txn(nest(TXN_DEPTH_MAX))).outcome;
    assert!(matches!(deepest, Outcome::Txn { .. }));
    let deeper = world.apply(Command::Txn(nest(TXN_DEPTH_MAX + 1))).outcome;
    assert_eq!(
        deeper,
        Outcome::Refused(Refusal::TooDeep {
            limit: TXN_DEPTH_MAX
        })
    );
}

#[test]
fn a_deposed_leaders_plan_is_fenced() {
    let mut world = World::new();
    let command = Command::Txn(Txn {
        then: vec![put("a", "1")],
        ..Txn::default()
    });
    let guarded = |term| Proposal {
        guard_term: Some(term),
        ..Proposal::new(command.clone())
    };
    let outcome = world.propose(guarded(2)).outcome;
    assert_eq!(
        outcome,
        Outcome::Refused(Refusal::Fenced {
            expected: 2,
            actual: 3
        })
    );
    assert_eq!(world.machine.revision(), 1);
    assert!(matches!(
        world.propose(guarded(3)).outcome,
        Outcome::Txn { .. }
    ));
}

#[test]
fn time_never_goes_back() {
    let mut world = World::new();
    world.time = 100;
    world.apply(Command::CompactStep);
    world.time = 50;
    assert_eq!(world.apply(Command::CompactStep).time, UnixMillis(100));
}

#[test]
fn an_expired_lease_takes_its_keys_along_in_one_revision() {
    let mut world = World::new();
    world.apply(Command::LeaseGrant {
        id: LeaseId(7),
        ttl_ms: 10,
    });
    for name in ["b", "a"] {
        let put = Put {
            lease: Some(LeaseId(7)),
            ..Put::new(name, "1")
        };
        world.then(vec![Operation::Put(put)]);
    }
    world.put("c", "stays");
    let ids = vec![LeaseId(8), LeaseId(7), LeaseId(7)];
    let applied = world.apply(Command::ExpireLeases { ids });
    assert_eq!(applied.outcome, Outcome::LeasesEnded(vec![LeaseId(7)]));
    let names: Vec<&[u8]> = applied
        .events
        .iter()
        .map(|event| &event.kv.key[..])
        .collect();
    assert_eq!(names, [b"a", b"b"]);
    assert!(
        applied
            .events
            .iter()
            .all(|event| event.revision() == applied.revision)
    );
    assert_eq!(world.range(&RangeRequest::newest(everything())).count, 1);
}

#[test]
fn a_key_written_without_its_lease_is_free_of_it() {
    let mut world = World::new();
    world.apply(Command::LeaseGrant {
        id: LeaseId(7),
        ttl_ms: 10,
    });
    world.then(vec![Operation::Put(Put {
        lease: Some(LeaseId(7)),
        ..Put::new("a", "1")
    })]);
    world.put("a", "2");
    assert_eq!(
        world.apply(Command::LeaseRevoke { id: LeaseId(7) }).events,
        vec![]
    );
    assert_eq!(world.range(&RangeRequest::newest(everything())).count, 1);
}

#[test]
fn compaction_forgets_what_is_older_and_keeps_the_newest() {
    let mut world = World::new();
    world.put("a", "1");
    world.put("a", "2");
    world.put("a", "3");
    world.apply(Command::Compact { revision: 3 });
    let at = |revision| RangeRequest {
        revision: Some(revision),
        ..RangeRequest::newest(KeyRange::single("a"))
    };
    assert_eq!(world.range(&at(3)).kvs[0].value, "2");
    let gone = world.machine.locate(&at(2)).unwrap_err();
    assert!(matches!(gone, RangeError::Compacted { compacted: 3 }));
    let future = world.machine.locate(&at(5)).unwrap_err();
    assert!(matches!(future, RangeError::FutureRevision { current: 4 }));
    // Two versions and the machine's own row.
    assert_eq!(world.rows.len(), 3);
}

#[test]
fn a_deleted_key_leaves_nothing_behind_after_compaction() {
    let mut world = World::new();
    world.put("a", "1");
    world.then(vec![delete(KeyRange::single("a"))]);
    world.put("b", "1");
    world.apply(Command::Compact { revision: 4 });
    assert_eq!(
        world.rows.len(),
        2,
        "the one version of b, and the machine's own row"
    );
}

#[test]
fn replicas_compare_their_digests_at_checkpoints() {
    let mut world = World::new();
    let first = world.apply(Command::Checkpoint { previous: None });
    let Outcome::Checkpoint {
        digest,
        previous: None,
    } = first.outcome
    else {
        panic!()
    };
    world.put("a", "1");
    let noted = Some((first.position, digest));
    let Outcome::Checkpoint {
        digest: now,
        previous,
    } = world.apply(Command::Checkpoint { previous: noted }).outcome
    else {
        panic!()
    };
    assert_eq!(previous, noted);
    assert_ne!(now, digest);
}

#[test]
fn an_entry_is_never_applied_twice() {
    let mut world = World::new();
    world.put("a", "1");
    let entry = Entry {
        time: UnixMillis(0),
        proposal: Proposal::new(Command::CompactStep),
    };
    let position = LogPosition { term: 3, index: 0 };
    let again = world
        .machine
        .apply(position, &entry, &world.rows, &mut RowBatch::default());
    assert!(matches!(again, Err(MachineError::OutOfOrder { .. })));
}

#[test]
fn a_row_that_is_missing_is_named() {
    use nautilus_machine::Space;
    let mut world = World::new();
    world.put("a", "1");
    world.put("b", "1");
    let mut batch = RowBatch::default();
    let mut row_key = 2u64.to_be_bytes().to_vec();
    row_key.extend_from_slice(&0u32.to_be_bytes());
    batch.delete(Space::Revision, &row_key);
    world.rows.write(batch);
    let read = world
        .machine
        .locate(&RangeRequest::newest(everything()))
        .unwrap();
    let wanted = "revision 2 position 0 is missing";
    assert!(
        read.read(&world.rows)
            .unwrap_err()
            .to_string()
            .contains(wanted)
    );
    let restored = Machine::restore(DigestKey::new(&[1; 32]), &world.rows);
    assert!(restored.err().unwrap().to_string().contains(wanted));
}
