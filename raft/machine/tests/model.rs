//! Random entries against a naive model: the same answers, at every revision that
//! can be read; and the machine's own promises: what is restored from the rows is
//! the running machine, batches may be cut anywhere, replicas are equal.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bytes::Bytes;
use nautilus_machine::{
    Applied, Command, Compare, CompareOp, CompareTarget, DigestKey, Entry, Event, EventKind,
    HistoryScan, KeyRange, KeyValue, LeaseId, LogPosition, Machine, MemoryRows, Operation, Outcome,
    Proposal, Put, RangeRequest, Refusal, Revision, RowBatch, Txn, TxnOutcome, UnixMillis,
};
use proptest::prelude::*;

const KEYS: u8 = 6;
const LEASES: i64 = 3;

fn digest_key() -> DigestKey {
    DigestKey::new(&[9; 32])
}

fn key(number: u8) -> Bytes {
    Bytes::from(format!("k{number}"))
}

/// The naive model: the whole map at every revision.
#[derive(Clone, Default)]
struct Model {
    revision: Revision,
    compacted: Revision,
    maps: BTreeMap<Revision, BTreeMap<Bytes, KeyValue>>,
    leases: BTreeMap<i64, (u64, u64)>,
    extended: u64,
    time: u64,
    events: Vec<Event>,
}

impl Model {
    fn new() -> Self {
        Self {
            revision: 1,
            maps: BTreeMap::from([(1, BTreeMap::new())]),
            ..Self::default()
        }
    }

    fn newest(&self) -> &BTreeMap<Bytes, KeyValue> {
        &self.maps[&self.revision]
    }

    fn apply(&mut self, time: u64, command: &Command) -> Outcome {
        self.time = self.time.max(time);
        match command {
            Command::Txn(txn) => self.txn(txn),
            Command::LeaseGrant { id, ttl_ms } if id.0 == 0 || *ttl_ms == 0 => {
                Outcome::Refused(Refusal::LeaseInvalid)
            }
            Command::LeaseGrant { id, ttl_ms } => {
                if self.leases.contains_key(&id.0) {
                    return Outcome::Refused(Refusal::LeaseExists);
                }
                self.leases.insert(id.0, (*ttl_ms, self.time));
                Outcome::Lease {
                    id: *id,
                    ttl_ms: *ttl_ms,
                }
            }
            Command::LeaseKeepAlive { id } => match self.leases.get_mut(&id.0) {
                None => Outcome::Refused(Refusal::LeaseNotFound),
                Some((ttl_ms, renewed)) => {
                    *renewed = self.time;
                    Outcome::Lease {
                        id: *id,
                        ttl_ms: *ttl_ms,
                    }
                }
            },
            Command::LeaseRevoke { id } if !self.leases.contains_key(&id.0) => {
                Outcome::Refused(Refusal::LeaseNotFound)
            }
            Command::LeaseRevoke { id } => self.end(vec![id.0]),
            Command::ExpireLeases => {
                let mut due: Vec<(u64, i64)> = self
                    .leases
                    .iter()
                    .map(|(id, (ttl, renewed))| ((*renewed).max(self.extended) + ttl, *id))
                    .filter(|(deadline, _)| *deadline <= self.time)
                    .collect();
                due.sort_unstable();
                self.end(due.into_iter().map(|(_, id)| id).collect())
            }
            Command::ExtendLeases => {
                self.extended = self.time;
                Outcome::Done
            }
            Command::Compact { revision } if *revision <= self.compacted => {
                Outcome::Refused(Refusal::Compacted)
            }
            Command::Compact { revision } if *revision > self.revision => {
                Outcome::Refused(Refusal::FutureRevision)
            }
            Command::Compact { revision } => {
                self.compacted = *revision;
                Outcome::Done
            }
            Command::Checkpoint { .. } => unreachable!("not generated for the model"),
        }
    }

    fn end(&mut self, ids: Vec<i64>) -> Outcome {
        let mut map = self.newest().clone();
        let revision = self.revision + 1;
        for id in &ids {
            self.leases.remove(id);
            let keys: Vec<Bytes> = map
                .values()
                .filter(|kv| kv.lease == Some(LeaseId(*id)))
                .map(|kv| kv.key.clone())
                .collect();
            for key in keys {
                self.delete(&mut map, revision, &key);
            }
        }
        self.commit(map);
        Outcome::LeasesEnded(ids.into_iter().map(LeaseId).collect())
    }

    fn delete(&mut self, map: &mut BTreeMap<Bytes, KeyValue>, revision: u64, key: &Bytes) {
        let prev = map.remove(key);
        let kv = KeyValue {
            key: key.clone(),
            value: Bytes::new(),
            create_revision: 0,
            mod_revision: revision,
            version: 0,
            lease: None,
        };
        self.events.push(Event {
            kind: EventKind::Delete,
            kv,
            prev,
        });
    }

    fn commit(&mut self, map: BTreeMap<Bytes, KeyValue>) {
        let changed = self
            .events
            .last()
            .is_some_and(|e| e.revision() == self.revision + 1);
        if changed {
            self.revision += 1;
            self.maps.insert(self.revision, map);
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let kvs: Vec<&KeyValue> = self
            .newest()
            .values()
            .filter(|kv| compare.range.contains(&kv.key))
            .collect();
        let absent = KeyValue {
            key: Bytes::new(),
            value: Bytes::new(),
            create_revision: 0,
            mod_revision: 0,
            version: 0,
            lease: None,
        };
        if kvs.is_empty() {
            let by_value = matches!(compare.target, CompareTarget::Value(_));
            return !by_value && judge(compare, &absent);
        }
        kvs.iter().all(|kv| judge(compare, kv))
    }

    fn txn(&mut self, txn: &Txn) -> Outcome {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { &txn.then } else { &txn.otherwise };
        for half in [&txn.then, &txn.otherwise] {
            let puts: Vec<&Bytes> = half
                .iter()
                .filter_map(|op| match op {
                    Operation::Put(put) => Some(&put.key),
                    _ => None,
                })
                .collect();
            let twice = (1..puts.len()).any(|n| puts[..n].contains(&puts[n]));
            let deleted = half.iter().any(|op| match op {
                Operation::Delete { range, .. } => puts.iter().any(|key| range.contains(key)),
                _ => false,
            });
            if twice || deleted {
                return Outcome::Refused(Refusal::DuplicateKey);
            }
        }
        for operation in branch {
            if let Operation::Put(put) = operation {
                let there = self.newest().contains_key(&put.key);
                if (put.ignore_value || put.ignore_lease) && !there {
                    return Outcome::Refused(Refusal::KeyNotFound);
                }
                if put.lease.is_some_and(|id| !self.leases.contains_key(&id.0)) {
                    return Outcome::Refused(Refusal::LeaseNotFound);
                }
            }
        }
        let revision = self.revision + 1;
        let mut map = self.newest().clone();
        let mut results = Vec::new();
        for operation in branch {
            results.push(match operation {
                Operation::Put(put) => self.put(&mut map, revision, put),
                Operation::Delete { range, prev_kv } => {
                    let found: Vec<KeyValue> = map
                        .values()
                        .filter(|kv| range.contains(&kv.key))
                        .cloned()
                        .collect();
                    for kv in &found {
                        self.delete(&mut map, revision, &kv.key);
                    }
                    let deleted = found.len() as u64;
                    TxnOutcome::Delete {
                        deleted,
                        prev: if *prev_kv { found } else { vec![] },
                    }
                }
                Operation::Range(request) => {
                    let kvs: Vec<KeyValue> = map
                        .values()
                        .filter(|kv| request.range.contains(&kv.key))
                        .cloned()
                        .collect();
                    let written = self.events.last().is_some_and(|e| e.revision() == revision);
                    TxnOutcome::Range(nautilus_machine::RangeResponse {
                        revision: if written { revision } else { self.revision },
                        count: kvs.len() as u64,
                        kvs,
                        more: false,
                    })
                }
                Operation::Txn(_) => unreachable!("not generated for the model"),
            });
        }
        self.commit(map);
        Outcome::Txn { succeeded, results }
    }

    fn put(&mut self, map: &mut BTreeMap<Bytes, KeyValue>, revision: u64, put: &Put) -> TxnOutcome {
        let prev = map.get(&put.key).cloned();
        let kept = |kv: &KeyValue| kv.value.clone();
        let value = match &prev {
            Some(prev) if put.ignore_value => kept(prev),
            _ => put.value.clone(),
        };
        let lease = if put.ignore_lease {
            prev.as_ref().and_then(|kv| kv.lease)
        } else {
            put.lease
        };
        let kv = KeyValue {
            key: put.key.clone(),
            value,
            create_revision: prev.as_ref().map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: prev.as_ref().map_or(1, |kv| kv.version + 1),
            lease,
        };
        map.insert(put.key.clone(), kv.clone());
        self.events.push(Event {
            kind: EventKind::Put,
            kv,
            prev: prev.clone(),
        });
        TxnOutcome::Put(prev.filter(|_| put.prev_kv))
    }
}

fn judge(compare: &Compare, kv: &KeyValue) -> bool {
    let order = match &compare.target {
        CompareTarget::Version(version) => kv.version.cmp(version),
        CompareTarget::CreateRevision(revision) => kv.create_revision.cmp(revision),
        CompareTarget::ModRevision(revision) => kv.mod_revision.cmp(revision),
        CompareTarget::Value(value) => kv.value.cmp(value),
        CompareTarget::Lease(lease) => kv.lease.map_or(0, |id| id.0).cmp(lease),
    };
    match compare.op {
        CompareOp::Equal => order.is_eq(),
        CompareOp::NotEqual => order.is_ne(),
        CompareOp::Greater => order.is_gt(),
        CompareOp::Less => order.is_lt(),
    }
}

/// A machine over rows in memory.
struct Replica {
    machine: Machine,
    rows: MemoryRows,
    batch: RowBatch,
    next: u64,
}

impl Replica {
    fn new() -> Self {
        Self {
            machine: Machine::new(digest_key()),
            rows: MemoryRows::default(),
            batch: RowBatch::default(),
            next: 0,
        }
    }

    /// Applies into the open batch.
    fn stage(&mut self, time: u64, command: Command) -> Applied {
        let position = LogPosition {
            term: 1,
            index: self.next,
        };
        self.next += 1;
        let entry = Entry {
            time: UnixMillis(time),
            proposal: Proposal::new(command),
        };
        self.machine
            .apply(position, &entry, &self.rows, &mut self.batch)
            .unwrap()
    }

    fn write(&mut self) {
        self.rows.write(std::mem::take(&mut self.batch));
    }

    fn apply(&mut self, time: u64, command: Command) -> Applied {
        let applied = self.stage(time, command);
        self.write();
        applied
    }

    fn restart(&mut self) {
        let digest = self.machine.digest();
        self.machine = Machine::restore(digest_key(), &self.rows).unwrap();
        assert_eq!(
            self.machine.digest(),
            digest,
            "what is restored is what ran"
        );
    }

    fn range(&self, request: &RangeRequest) -> nautilus_machine::RangeResponse {
        self.machine
            .locate(request)
            .unwrap()
            .read(&self.rows)
            .unwrap()
    }

    fn history(&self, from: Revision) -> Vec<Event> {
        let mut events = Vec::new();
        let mut from = from;
        let everything = KeyRange::prefix("k");
        while from <= self.machine.revision() {
            let current = self.machine.revision();
            let mut scan = HistoryScan::collect(&self.rows, &everything, from, current, 3).unwrap();
            scan.link(&self.machine).unwrap();
            let part = scan.finish(&self.rows).unwrap();
            assert!(part.through >= from, "every call moves on");
            from = part.through + 1;
            events.extend(part.events);
        }
        events
    }
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        (0..KEYS).prop_map(|n| KeyRange::single(key(n))),
        (0..KEYS, 0..KEYS).prop_map(|(a, b)| KeyRange::span(key(a), key(b))),
        Just(KeyRange::prefix("k")),
    ]
}

fn put() -> impl Strategy<Value = Put> {
    let flags = (any::<bool>(), 0..8u8, 0..8u8);
    (
        0..KEYS,
        0..4u8,
        proptest::option::weighted(0.4, 1..=LEASES),
        flags,
    )
        .prop_map(
            |(number, value, lease, (prev_kv, keep_value, keep_lease))| {
                let (ignore_value, ignore_lease) = (keep_value == 0, keep_lease == 0);
                Put {
                    key: key(number),
                    value: if ignore_value {
                        Bytes::new()
                    } else {
                        Bytes::from(vec![b'v', value])
                    },
                    lease: lease.filter(|_| !ignore_lease).map(LeaseId),
                    prev_kv,
                    ignore_value,
                    ignore_lease,
                }
            },
        )
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => put().prop_map(Operation::Put),
        2 => (range(), any::<bool>())
            .prop_map(|(range, prev_kv)| Operation::Delete { range, prev_kv }),
        1 => range().prop_map(|range| Operation::Range(RangeRequest::newest(range))),
    ]
}

fn compare() -> impl Strategy<Value = Compare> {
    let target = prop_oneof![
        (0..4u64).prop_map(CompareTarget::Version),
        (0..12u64).prop_map(CompareTarget::CreateRevision),
        (0..12u64).prop_map(CompareTarget::ModRevision),
        (0..4u8).prop_map(|v| CompareTarget::Value(Bytes::from(vec![b'v', v]))),
        (0..=LEASES).prop_map(CompareTarget::Lease),
    ];
    let op = prop_oneof![
        Just(CompareOp::Equal),
        Just(CompareOp::NotEqual),
        Just(CompareOp::Greater),
        Just(CompareOp::Less),
    ];
    (range(), target, op).prop_map(|(range, target, op)| Compare { range, target, op })
}

fn command() -> impl Strategy<Value = Command> {
    let txn = (
        proptest::collection::vec(compare(), 0..2),
        proptest::collection::vec(operation(), 0..4),
        proptest::collection::vec(operation(), 0..3),
    );
    prop_oneof![
        12 => txn.prop_map(|(compare, then, otherwise)| {
            Command::Txn(Txn { compare, then, otherwise })
        }),
        2 => (0..=LEASES, 0..30u64)
            .prop_map(|(id, ttl_ms)| Command::LeaseGrant { id: LeaseId(id), ttl_ms }),
        1 => (1..=LEASES).prop_map(|id| Command::LeaseKeepAlive { id: LeaseId(id) }),
        1 => (1..=LEASES).prop_map(|id| Command::LeaseRevoke { id: LeaseId(id) }),
        1 => Just(Command::ExpireLeases),
        1 => Just(Command::ExtendLeases),
        1 => (0..25u64).prop_map(|revision| Command::Compact { revision }),
    ]
}

fn commands() -> impl Strategy<Value = Vec<(u64, Command, u8)>> {
    proptest::collection::vec((0..10u64, command(), 0..8u8), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_machine_answers_as_the_model_does(entries in commands()) {
        let mut model = Model::new();
        let mut replica = Replica::new();
        let mut time = 0u64;
        for (step, command, restart) in entries {
            time = if step == 9 { time.saturating_sub(5) } else { time + step };
            let known = model.events.len();
            let digest = replica.machine.digest();
            let applied = replica.apply(time, command.clone());
            prop_assert_eq!(&applied.outcome, &model.apply(time, &command));
            prop_assert_eq!(applied.revision, model.revision);
            prop_assert_eq!(&applied.events[..], &model.events[known..]);
            if matches!(applied.outcome, Outcome::Refused(_)) {
                prop_assert_eq!(replica.machine.digest(), digest, "refused, yet changed");
            }
            if restart == 0 {
                replica.restart();
            }
        }
        let first = model.compacted.max(1);
        for (revision, map) in model.maps.range(first..) {
            let request = RangeRequest {
                revision: Some(*revision),
                ..RangeRequest::newest(KeyRange::prefix("k"))
            };
            let response = replica.range(&request);
            prop_assert_eq!(response.count, map.len() as u64);
            prop_assert_eq!(response.kvs, map.values().cloned().collect::<Vec<_>>());
        }
        let seen = replica.history(first);
        let wanted: Vec<&Event> =
            model.events.iter().filter(|event| event.revision() >= first).collect();
        prop_assert_eq!(seen.len(), wanted.len());
        for (seen, wanted) in seen.iter().zip(wanted) {
            prop_assert_eq!((&seen.kind, &seen.kv), (&wanted.kind, &wanted.kv));
            match &seen.prev {
                Some(prev) => prop_assert_eq!(Some(prev), wanted.prev.as_ref()),
                // Compacted away: it was older than the compaction.
                None => prop_assert!(
                    wanted.prev.is_none() || wanted.revision() <= model.compacted
                ),
            }
        }
    }

    #[test]
    fn batches_may_be_cut_anywhere(entries in commands()) {
        let mut one_by_one = Replica::new();
        let mut in_batches = Replica::new();
        let mut time = 0u64;
        for (step, command, cut) in entries {
            time += step;
            let left = one_by_one.apply(time, command.clone());
            let right = in_batches.stage(time, command);
            prop_assert_eq!(left, right);
            if cut < 2 {
                in_batches.write();
            }
        }
        in_batches.write();
        prop_assert_eq!(&one_by_one.rows, &in_batches.rows);
        prop_assert_eq!(one_by_one.machine.digest(), in_batches.machine.digest());
    }

    #[test]
    fn a_lost_or_replaced_row_is_noticed(entries in commands(), pick in any::<prop::sample::Index>()) {
        let mut replica = Replica::new();
        let mut time = 0u64;
        let mut older = Vec::new();
        for (step, command, _) in entries {
            time += step;
            replica.apply(time, command);
            older.push(replica.rows.clone());
        }
        let rows = all_rows(&replica.rows);
        let (space, row_key, _) = &rows[pick.index(rows.len())];
        let mut lost = replica.rows.clone();
        let mut batch = RowBatch::default();
        batch.delete(*space, row_key);
        lost.write(batch);
        prop_assert!(Machine::restore(digest_key(), &lost).is_err(), "a row was lost unnoticed");

        let before = &older[pick.index(older.len())];
        for (space, row_key, value) in all_rows(before) {
            // An old row of the machine's own is the store's to notice: it binds that
            // row to its notes and to the mark of the last flush.
            if space == nautilus_machine::Space::Meta
                || rows.contains(&(space, row_key.clone(), value.clone()))
            {
                continue;
            }
            let mut replaced = replica.rows.clone();
            let mut batch = RowBatch::default();
            batch.put(space, &row_key, value);
            replaced.write(batch);
            let restored = Machine::restore(digest_key(), &replaced);
            prop_assert!(restored.is_err(), "an old row came back unnoticed");
        }
    }
}

fn all_rows(rows: &MemoryRows) -> Vec<(nautilus_machine::Space, Vec<u8>, Bytes)> {
    use nautilus_machine::{Rows, Space};
    let mut all = Vec::new();
    for space in [Space::Revision, Space::Lease, Space::Meta] {
        rows.scan(space, &[], None, &mut |row_key, value| {
            all.push((space, row_key.to_vec(), value));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    }
    all
}
