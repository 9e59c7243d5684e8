//! Between etcd's messages and the machine's types.
//!
//! Invariants
//! - A reserved key is refused by name; a range that would start among the reserved keys
//!   starts after them, and any other range skips them (`KeyRange`).
//! - An inverted range is empty, never an error.

use bytes::Bytes;
use nautilus_machine::{
    Compare, CompareOp, CompareTarget, KeyRange, KeyValue, LeaseId, Operation, Put, RangeEnd,
    Revision, Txn, is_reserved,
};
use tonic::Status;

use crate::errors;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::compare;
use crate::proto::mvccpb;
use crate::range::Shape;

/// The first key after the reserved ones (`/nautilus/` with its last byte raised).
const AFTER_RESERVED: &[u8] = b"/nautilus0";

/// A version of a key, as clients see it.
pub(crate) fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: signed(kv.create_revision),
        mod_revision: signed(kv.mod_revision),
        version: signed(kv.version),
        value: kv.value,
        lease: kv.lease.map_or(0, |lease| lease.0),
    }
}

/// Revisions, versions and counts travel as signed numbers; ours stay far below the bound.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A revision asked for; 0 and less stand for the newest.
pub(crate) fn revision(number: i64) -> Option<Revision> {
    u64::try_from(number).ok().filter(|number| *number != 0)
}

/// A lease asked for; 0 stands for none.
pub(crate) fn lease(id: i64) -> Option<LeaseId> {
    (id != 0).then_some(LeaseId(id))
}

/// The keys that `key` and `range_end` name.
pub(crate) fn key_range(key: Bytes, range_end: Bytes) -> Result<KeyRange, Status> {
    if range_end.is_empty() {
        return single(key).map(KeyRange::single);
    }
    let start = if is_reserved(&key) {
        Bytes::from_static(AFTER_RESERVED)
    } else {
        key
    };
    let end = if range_end[..] == [0] {
        RangeEnd::Unbounded
    } else if range_end <= start {
        RangeEnd::Key(start.clone())
    } else {
        RangeEnd::Key(range_end)
    };
    Ok(KeyRange { start, end })
}

/// One key, unless it is reserved.
pub(crate) fn single(key: Bytes) -> Result<Bytes, Status> {
    if is_reserved(&key) {
        return Err(errors::PERMISSION_DENIED.into());
    }
    Ok(key)
}

/// A put, checked.
pub(crate) fn put(request: pb::PutRequest) -> Result<Put, Status> {
    Ok(Put {
        key: single(request.key)?,
        value: request.value,
        lease: lease(request.lease),
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    })
}

/// How the answers of a transaction are to be finished: what each range still needs.
#[derive(Debug, Default)]
pub(crate) struct TxnShape {
    pub(crate) then: Vec<OperationShape>,
    pub(crate) otherwise: Vec<OperationShape>,
}

/// See [`TxnShape`].
#[derive(Debug)]
pub(crate) enum OperationShape {
    Write,
    Range(Shape),
    Txn(TxnShape),
}

/// A transaction, checked before by [`crate::check::txn`].
pub(crate) fn txn(request: pb::TxnRequest) -> Result<(Txn, TxnShape), Status> {
    let compare = request
        .compare
        .into_iter()
        .map(comparison)
        .collect::<Result<_, _>>()?;
    let (then, then_shapes) = operations(request.success)?;
    let (otherwise, otherwise_shapes) = operations(request.failure)?;
    let txn = Txn {
        compare,
        then,
        otherwise,
    };
    let shape = TxnShape {
        then: then_shapes,
        otherwise: otherwise_shapes,
    };
    Ok((txn, shape))
}

fn operations(
    requests: Vec<pb::RequestOp>,
) -> Result<(Vec<Operation>, Vec<OperationShape>), Status> {
    use pb::request_op::Request;
    let mut operations = Vec::with_capacity(requests.len());
    let mut shapes = Vec::with_capacity(requests.len());
    for request in requests {
        let (operation, shape) = match request.request {
            Some(Request::RequestRange(range)) => {
                let (range, shape) = Shape::of(range)?;
                (Operation::Range(range), OperationShape::Range(shape))
            }
            Some(Request::RequestPut(request)) => {
                (Operation::Put(put(request)?), OperationShape::Write)
            }
            Some(Request::RequestDeleteRange(delete)) => {
                let operation = Operation::Delete {
                    range: key_range(delete.key, delete.range_end)?,
                    prev_kv: delete.prev_kv,
                };
                (operation, OperationShape::Write)
            }
            Some(Request::RequestTxn(nested)) => {
                let (nested, shape) = txn(nested)?;
                (Operation::Txn(nested), OperationShape::Txn(shape))
            }
            None => return Err(errors::KEY_NOT_FOUND.into()),
        };
        operations.push(operation);
        shapes.push(shape);
    }
    Ok((operations, shapes))
}

/// A comparison. Without a right side it compares with 0, or with the empty value.
pub(crate) fn comparison(request: pb::Compare) -> Result<Compare, Status> {
    use compare::{CompareResult, TargetUnion};
    let op = match CompareResult::try_from(request.result) {
        Ok(CompareResult::Equal) => CompareOp::Equal,
        Ok(CompareResult::Greater) => CompareOp::Greater,
        Ok(CompareResult::Less) => CompareOp::Less,
        Ok(CompareResult::NotEqual) => CompareOp::NotEqual,
        Err(_) => return Err(Status::invalid_argument("etcdserver: invalid comparison")),
    };
    let number = match &request.target_union {
        Some(
            TargetUnion::Version(number)
            | TargetUnion::CreateRevision(number)
            | TargetUnion::ModRevision(number)
            | TargetUnion::Lease(number),
        ) => *number,
        Some(TargetUnion::Value(_)) | None => 0,
    };
    let (target, op) = match compare::CompareTarget::try_from(request.target) {
        Ok(compare::CompareTarget::Version) => counted(number, op, CompareTarget::Version),
        Ok(compare::CompareTarget::Create) => counted(number, op, CompareTarget::CreateRevision),
        Ok(compare::CompareTarget::Mod) => counted(number, op, CompareTarget::ModRevision),
        Ok(compare::CompareTarget::Lease) => (CompareTarget::Lease(number), op),
        Ok(compare::CompareTarget::Value) => {
            let value = match request.target_union {
                Some(TargetUnion::Value(value)) => value,
                _ => Bytes::new(),
            };
            (CompareTarget::Value(value), op)
        }
        Err(_) => return Err(Status::invalid_argument("etcdserver: invalid comparison")),
    };
    Ok(Compare {
        range: key_range(request.key, request.range_end)?,
        target,
        op,
    })
}

/// What is counted is never negative: a comparison with a negative number is settled, and
/// is written as one that is always or never true.
fn counted(
    number: i64,
    op: CompareOp,
    target: fn(u64) -> CompareTarget,
) -> (CompareTarget, CompareOp) {
    match (u64::try_from(number), op) {
        (Ok(number), op) => (target(number), op),
        (Err(_), CompareOp::Equal | CompareOp::Less) => (target(0), CompareOp::Less),
        (Err(_), CompareOp::NotEqual | CompareOp::Greater) => {
            (target(u64::MAX), CompareOp::NotEqual)
        }
    }
}
