//! The naive model: the whole map at every revision.

use std::collections::BTreeMap;

use bytes::Bytes;
use nautilus_machine::{
    Command, Compare, CompareOp, CompareTarget, Event, EventKind, KeyValue, LeaseId, Operation,
    Outcome, Put, RangeRequest, RangeResponse, Refusal, Revision, Txn, TxnOutcome,
};

/// The whole map at every revision.
#[derive(Clone, Default)]
pub(crate) struct Model {
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) maps: BTreeMap<Revision, BTreeMap<Bytes, KeyValue>>,
    leases: BTreeMap<i64, u64>,
    loading: bool,
    loaded: Vec<KeyValue>,
    pub(crate) events: Vec<Event>,
}

type Map = BTreeMap<Bytes, KeyValue>;

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            revision: 1,
            maps: BTreeMap::from([(1, BTreeMap::new())]),
            ..Self::default()
        }
    }

    fn newest(&self) -> &Map {
        &self.maps[&self.revision]
    }

    pub(crate) fn apply(&mut self, command: &Command) -> Outcome {
        let loads = matches!(command, Command::Load { .. });
        if self.loading && !loads {
            return Outcome::Refused(Refusal::Loading);
        }
        match command {
            Command::Txn(txn) => self.txn(txn),
            Command::LeaseGrant { id, ttl_ms } if id.0 == 0 || *ttl_ms == 0 => {
                Outcome::Refused(Refusal::LeaseInvalid)
            }
            Command::LeaseGrant { id, ttl_ms } => {
                if self.leases.contains_key(&id.0) {
                    return Outcome::Refused(Refusal::LeaseExists);
                }
                self.leases.insert(id.0, *ttl_ms);
                Outcome::Lease {
                    id: *id,
                    ttl_ms: *ttl_ms,
                }
            }
            Command::LeaseRevoke { id } if !self.leases.contains_key(&id.0) => {
                Outcome::Refused(Refusal::LeaseNotFound)
            }
            Command::LeaseRevoke { id } => self.end(&[*id]),
            Command::ExpireLeases { ids } => self.end(ids),
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
            Command::CompactStep => Outcome::Done,
            Command::Load { kvs, leases, last } => self.load(kvs, leases, *last),
            Command::Checkpoint { .. } => unreachable!("not generated for the model"),
        }
    }

    /// Pieces are generated sound; only a store that is not empty refuses them.
    fn load(
        &mut self,
        kvs: &[KeyValue],
        leases: &[(LeaseId, u64)],
        last: Option<Revision>,
    ) -> Outcome {
        if !self.loading && (self.revision != 1 || !self.leases.is_empty()) {
            return Outcome::Refused(Refusal::NotEmpty {
                revision: self.revision,
            });
        }
        self.leases
            .extend(leases.iter().map(|(id, ttl_ms)| (id.0, *ttl_ms)));
        let mut map = self.newest().clone();
        for kv in kvs {
            let before = map.insert(kv.key.clone(), kv.clone());
            self.loaded.extend(before.is_none().then(|| kv.clone()));
        }
        self.loading = last.is_none();
        if let Some(revision) = last {
            let newest = self.loaded.iter().filter(|kv| kv.mod_revision == revision);
            self.events.extend(newest.map(|kv| Event {
                kind: EventKind::Put,
                kv: kv.clone(),
                prev: None,
            }));
            self.maps.clear();
            (self.revision, self.compacted) = (revision, revision);
        }
        self.maps.insert(self.revision, map);
        Outcome::Done
    }

    fn end(&mut self, ids: &[LeaseId]) -> Outcome {
        let mut map = self.newest().clone();
        let revision = self.revision + 1;
        let mut ended = Vec::new();
        for id in ids {
            if self.leases.remove(&id.0).is_none() {
                continue;
            }
            ended.push(*id);
            let keys: Vec<Bytes> = map
                .values()
                .filter(|kv| kv.lease == Some(*id))
                .map(|kv| kv.key.clone())
                .collect();
            for key in keys {
                self.delete(&mut map, revision, &key);
            }
        }
        self.commit(map);
        Outcome::LeasesEnded(ended)
    }

    fn delete(&mut self, map: &mut Map, revision: Revision, key: &Bytes) {
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

    fn has_written(&self) -> bool {
        let last = self.events.last();
        last.is_some_and(|event| event.revision() == self.revision + 1)
    }

    fn commit(&mut self, map: Map) {
        if self.has_written() {
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
        if let Err(refusal) = writes(txn) {
            return Outcome::Refused(refusal);
        }
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        if let Err(refusal) = self.check(txn) {
            return Outcome::Refused(refusal);
        }
        let mut map = self.newest().clone();
        let before = self.clone();
        let results = self.run(txn, &before, &mut map);
        self.commit(map);
        Outcome::Txn { succeeded, results }
    }

    fn branch<'a>(&self, txn: &'a Txn) -> &'a [Operation] {
        match txn.compare.iter().all(|compare| self.holds(compare)) {
            true => &txn.then,
            false => &txn.otherwise,
        }
    }

    /// What can be said of the branches that run, in the state before them.
    fn check(&self, txn: &Txn) -> Result<(), Refusal> {
        for operation in self.branch(txn) {
            match operation {
                Operation::Put(put) => {
                    let there = self.newest().contains_key(&put.key);
                    if (put.ignore_value || put.ignore_lease) && !there {
                        return Err(Refusal::KeyNotFound);
                    }
                    if put.lease.is_some_and(|id| !self.leases.contains_key(&id.0)) {
                        return Err(Refusal::LeaseNotFound);
                    }
                }
                Operation::Delete { .. } => {}
                Operation::Range(request) => match request.revision {
                    Some(revision) if revision > self.revision => {
                        return Err(Refusal::FutureRevision);
                    }
                    Some(revision) if revision != 0 && revision < self.compacted => {
                        return Err(Refusal::Compacted);
                    }
                    _ => {}
                },
                Operation::Txn(nested) => self.check(nested)?,
            }
        }
        Ok(())
    }

    fn run(&mut self, txn: &Txn, before: &Self, map: &mut Map) -> Vec<TxnOutcome> {
        let revision = before.revision + 1;
        let mut results = Vec::new();
        for operation in before.branch(txn) {
            results.push(match operation {
                Operation::Put(put) => self.put(map, revision, put),
                Operation::Delete { range, prev_kv } => {
                    let found: Vec<KeyValue> = map
                        .values()
                        .filter(|kv| range.contains(&kv.key))
                        .cloned()
                        .collect();
                    for kv in &found {
                        self.delete(map, revision, &kv.key);
                    }
                    let deleted = found.len() as u64;
                    TxnOutcome::Delete {
                        deleted,
                        prev: if *prev_kv { found } else { vec![] },
                    }
                }
                Operation::Range(request) => {
                    let at = request.revision.filter(|at| *at != 0);
                    let map = at.map_or(&*map, |at| &before.maps[&at]);
                    let now = before.revision + u64::from(self.has_written());
                    TxnOutcome::Range(answer(map, now, request))
                }
                Operation::Txn(nested) => {
                    let succeeded = nested.compare.iter().all(|compare| before.holds(compare));
                    let results = self.run(nested, before, map);
                    TxnOutcome::Txn { succeeded, results }
                }
            });
        }
        results
    }

    /// What a range must answer.
    pub(crate) fn range(&self, request: &RangeRequest) -> RangeResponse {
        let at = request
            .revision
            .filter(|at| *at != 0)
            .unwrap_or(self.revision);
        answer(&self.maps[&at], self.revision, request)
    }

    fn put(&mut self, map: &mut Map, revision: Revision, put: &Put) -> TxnOutcome {
        let prev = map.get(&put.key).cloned();
        let value = match &prev {
            Some(prev) if put.ignore_value => prev.value.clone(),
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

fn answer(map: &Map, now: Revision, request: &RangeRequest) -> RangeResponse {
    let mut kvs: Vec<KeyValue> = map
        .values()
        .filter(|kv| request.range.contains(&kv.key))
        .cloned()
        .collect();
    let count = kvs.len() as u64;
    let limit = request
        .limit
        .filter(|limit| *limit != 0)
        .unwrap_or(u64::MAX);
    let more = count > limit && !request.count_only;
    kvs.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    if request.count_only {
        kvs.clear();
    }
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    RangeResponse {
        revision: now,
        kvs,
        more,
        count,
    }
}

/// The keys that a transaction may put and the ranges that it may delete: within a
/// branch none may meet another.
fn writes(txn: &Txn) -> Result<Vec<Operation>, Refusal> {
    let mut all = Vec::new();
    for branch in [&txn.then, &txn.otherwise] {
        let mut of_branch: Vec<Operation> = Vec::new();
        for operation in branch {
            let more = match operation {
                Operation::Range(_) => vec![],
                Operation::Txn(nested) => writes(nested)?,
                write => vec![write.clone()],
            };
            let meets = |one: &Operation, other: &Operation| match (one, other) {
                (Operation::Put(one), Operation::Put(other)) => one.key == other.key,
                (Operation::Put(put), Operation::Delete { range, .. })
                | (Operation::Delete { range, .. }, Operation::Put(put)) => {
                    range.contains(&put.key)
                }
                _ => false,
            };
            if more
                .iter()
                .any(|one| of_branch.iter().any(|other| meets(one, other)))
            {
                return Err(Refusal::DuplicateKey);
            }
            of_branch.extend(more);
        }
        all.extend(of_branch);
    }
    Ok(all)
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
