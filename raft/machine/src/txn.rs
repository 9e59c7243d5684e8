//! Transactions, checked whole before anything is written.
//!
//! As in etcd, every comparison, nested ones too, is judged on the state before the
//! transaction; that fixes the path of operations that will run. The path is then
//! checked, and only a path that cannot fail is executed. Sources: etcd's API
//! documentation ("Transaction"), `server/etcdserver/txn` for the order of checks.
//!
//! Invariants
//! - A refused transaction has changed nothing: [`plan`] takes `&Machine`.
//! - No key is put twice on one path, or put and deleted, so that what [`plan`] saw
//!   of a key still holds when its put is executed. (etcd misses a few such pairs in
//!   sibling nested transactions; here they are refused as well.)

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::command::{Compare, CompareOp, CompareTarget, Operation, Put, Txn};
use crate::encoding::Place;
use crate::index::{KeyParts, Life};
use crate::machine::Machine;
use crate::outcome::Refusal;
use crate::port::RangeError;
use crate::read::{Sight, check_revision};
use crate::rows::RowError;
use crate::types::{KeyRange, RangeEnd, RangeRequest};

/// Levels of nesting that a transaction may have.
pub const TXN_DEPTH_MAX: usize = 16;

/// The operations of a transaction that will run.
pub(crate) struct Path<'a> {
    pub(crate) succeeded: bool,
    pub(crate) steps: Vec<Step<'a>>,
}

/// One of them.
pub(crate) enum Step<'a> {
    Put(&'a Put),
    Delete { range: &'a KeyRange, prev_kv: bool },
    Range(&'a RangeRequest),
    Txn(Path<'a>),
}

/// Judges and checks a transaction. The outer error is a row that cannot be read.
pub(crate) fn plan<'a>(
    machine: &Machine,
    sight: Sight<'_>,
    txn: &'a Txn,
) -> Result<Result<Path<'a>, Refusal>, RowError> {
    if let Err(refusal) = check_form(txn, 1) {
        return Ok(Err(refusal));
    }
    if !is_plain(txn)
        && let Err(refusal) = check_duplicates(txn)
    {
        return Ok(Err(refusal));
    }
    let path = choose(machine, sight, txn)?;
    Ok(check_path(machine, &path).map(|()| path))
}

/// Whether no branch has a second operation that could write the first one's key.
fn is_plain(txn: &Txn) -> bool {
    let is_plain = |branch: &[Operation]| match branch {
        [] => true,
        [one] => !matches!(one, Operation::Txn(_)),
        _ => false,
    };
    is_plain(&txn.then) && is_plain(&txn.otherwise)
}

/// What can be said of the request alone; both branches count.
fn check_form(txn: &Txn, depth: usize) -> Result<(), Refusal> {
    if depth > TXN_DEPTH_MAX {
        return Err(Refusal::TooDeep {
            limit: TXN_DEPTH_MAX,
        });
    }
    for compare in &txn.compare {
        check_range(&compare.range)?;
    }
    for operation in txn.then.iter().chain(&txn.otherwise) {
        match operation {
            Operation::Put(put) => check_put(put)?,
            Operation::Delete { range, .. } => check_range(range)?,
            Operation::Range(request) => check_range(&request.range)?,
            Operation::Txn(nested) => check_form(nested, depth + 1)?,
        }
    }
    Ok(())
}

fn check_put(put: &Put) -> Result<(), Refusal> {
    if put.key.is_empty() {
        Err(Refusal::EmptyKey)
    } else if put.ignore_value && !put.value.is_empty() {
        Err(Refusal::ValueProvided)
    } else if put.ignore_lease && put.lease.is_some() {
        Err(Refusal::LeaseProvided)
    } else {
        Ok(())
    }
}

/// The empty key alone names nothing; as the start of a wider range it is the
/// beginning of the key space.
fn check_range(range: &KeyRange) -> Result<(), Refusal> {
    if range.start.is_empty() && range.end == RangeEnd::Single {
        return Err(Refusal::EmptyKey);
    }
    Ok(())
}

/// What one branch may write.
#[derive(Default)]
struct Effects<'a> {
    puts: BTreeSet<&'a Bytes>,
    deletes: Vec<&'a KeyRange>,
}

impl<'a> Effects<'a> {
    /// Both run: no key of one may be written by the other.
    fn join(&mut self, other: Self) -> Result<(), Refusal> {
        let twice = other
            .puts
            .iter()
            .any(|key| self.puts.contains(key) || self.deletes_key(key))
            || self.puts.iter().any(|key| other.deletes_key(key));
        if twice {
            return Err(Refusal::DuplicateKey);
        }
        self.either(other);
        Ok(())
    }

    /// One of them runs.
    fn either(&mut self, other: Self) {
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
    }

    fn deletes_key(&self, key: &[u8]) -> bool {
        self.deletes.iter().any(|range| range.contains(key))
    }
}

fn check_duplicates(txn: &Txn) -> Result<Effects<'_>, Refusal> {
    let mut effects = branch_effects(&txn.then)?;
    effects.either(branch_effects(&txn.otherwise)?);
    Ok(effects)
}

fn branch_effects(operations: &[Operation]) -> Result<Effects<'_>, Refusal> {
    let mut effects = Effects::default();
    for operation in operations {
        let one = match operation {
            Operation::Put(put) => Effects {
                puts: BTreeSet::from([&put.key]),
                deletes: Vec::new(),
            },
            Operation::Delete { range, .. } => Effects {
                puts: BTreeSet::new(),
                deletes: vec![range],
            },
            Operation::Range(_) => continue,
            Operation::Txn(nested) => check_duplicates(nested)?,
        };
        effects.join(one)?;
    }
    Ok(effects)
}

/// Judges the comparisons and gives the path they choose.
fn choose<'a>(machine: &Machine, sight: Sight<'_>, txn: &'a Txn) -> Result<Path<'a>, RowError> {
    let mut succeeded = true;
    for compare in &txn.compare {
        if !holds(machine, sight, compare)? {
            succeeded = false;
            break;
        }
    }
    let branch = if succeeded { &txn.then } else { &txn.otherwise };
    let mut steps = Vec::with_capacity(branch.len());
    for operation in branch {
        steps.push(match operation {
            Operation::Put(put) => Step::Put(put),
            Operation::Delete { range, prev_kv } => Step::Delete {
                range,
                prev_kv: *prev_kv,
            },
            Operation::Range(request) => Step::Range(request),
            Operation::Txn(nested) => Step::Txn(choose(machine, sight, nested)?),
        });
    }
    Ok(Path { succeeded, steps })
}

fn holds(machine: &Machine, sight: Sight<'_>, compare: &Compare) -> Result<bool, RowError> {
    let mut any = false;
    let mut judged = Ok(true);
    machine
        .index()
        .visit_living(&compare.range, &mut |key, place, life| {
            any = true;
            judged = holds_for(sight, compare, key, place, life);
            match judged {
                Ok(true) => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        });
    Ok(judged? && (any || holds_for_none(compare)))
}

fn holds_for(
    sight: Sight<'_>,
    compare: &Compare,
    key: KeyParts<'_>,
    place: Place,
    life: Life,
) -> Result<bool, RowError> {
    let op = compare.op;
    Ok(match &compare.target {
        CompareTarget::Version(version) => relation(op, &life.version, version),
        CompareTarget::CreateRevision(revision) => relation(op, &life.create_revision, revision),
        CompareTarget::ModRevision(revision) => relation(op, &place.revision, revision),
        CompareTarget::Lease(lease) => relation(op, &life.lease.map_or(0, |id| id.0), lease),
        CompareTarget::Value(value) => {
            let kv = sight.put(&key.to_vec(), place)?;
            relation(op, &kv.value, value)
        }
    })
}

fn holds_for_none(compare: &Compare) -> bool {
    match &compare.target {
        CompareTarget::Version(number)
        | CompareTarget::CreateRevision(number)
        | CompareTarget::ModRevision(number) => relation(compare.op, &0, number),
        CompareTarget::Lease(lease) => relation(compare.op, &0, lease),
        CompareTarget::Value(_) => false,
    }
}

fn relation<T: Ord>(op: CompareOp, left: &T, right: &T) -> bool {
    match op {
        CompareOp::Equal => left == right,
        CompareOp::NotEqual => left != right,
        CompareOp::Greater => left > right,
        CompareOp::Less => left < right,
    }
}

/// What can be said of the path in the present state.
fn check_path(machine: &Machine, path: &Path<'_>) -> Result<(), Refusal> {
    for step in &path.steps {
        match step {
            Step::Put(put) => {
                let keeps = put.ignore_value || put.ignore_lease;
                if keeps && machine.index().living(&put.key).is_none() {
                    return Err(Refusal::KeyNotFound);
                }
                if put
                    .lease
                    .is_some_and(|id| machine.leases().get(id).is_none())
                {
                    return Err(Refusal::LeaseNotFound);
                }
            }
            Step::Delete { .. } => {}
            Step::Range(request) => {
                let readable = check_revision(
                    request.revision,
                    machine.revision(),
                    machine.compacted_revision(),
                );
                match readable {
                    Ok(()) => {}
                    Err(RangeError::FutureRevision { .. }) => return Err(Refusal::FutureRevision),
                    Err(_) => return Err(Refusal::Compacted),
                }
            }
            Step::Txn(nested) => check_path(machine, nested)?,
        }
    }
    Ok(())
}
