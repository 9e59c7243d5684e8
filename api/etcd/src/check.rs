//! What can be said of a request alone, before anything is read
//! (etcd `server/etcdserver/api/v3rpc/key.go`).

use tonic::Status;

use crate::errors;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::proto::etcdserverpb::request_op::Request;

/// A range names a key, and an order that exists.
pub(crate) fn range(request: &pb::RangeRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(errors::EMPTY_KEY.into());
    }
    let order = SortOrder::try_from(request.sort_order);
    let target = SortTarget::try_from(request.sort_target);
    if order.is_err() || target.is_err() {
        return Err(errors::INVALID_SORT_OPTION.into());
    }
    Ok(())
}

/// A put names a key, and does not both give and ignore.
pub(crate) fn put(request: &pb::PutRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(errors::EMPTY_KEY.into());
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(errors::VALUE_PROVIDED.into());
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(errors::LEASE_PROVIDED.into());
    }
    Ok(())
}

/// A deletion names a key.
pub(crate) fn delete(request: &pb::DeleteRangeRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(errors::EMPTY_KEY.into());
    }
    Ok(())
}

/// A transaction has at most `max_operations` comparisons and operations of each branch;
/// what one level uses, nested levels no longer have.
pub(crate) fn txn(request: &pb::TxnRequest, max_operations: usize) -> Result<(), Status> {
    let used = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    let Some(left) = max_operations.checked_sub(used) else {
        return Err(errors::TOO_MANY_OPS.into());
    };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(errors::EMPTY_KEY.into());
    }
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(Request::RequestRange(request)) => range(request)?,
            Some(Request::RequestPut(request)) => put(request)?,
            Some(Request::RequestDeleteRange(request)) => delete(request)?,
            Some(Request::RequestTxn(request)) => txn(request, left)?,
            None => return Err(errors::KEY_NOT_FOUND.into()),
        }
    }
    Ok(())
}

/// What a transaction may do to the key space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TxnKind {
    /// It can put.
    pub(crate) puts: bool,
    /// It can put or delete.
    pub(crate) writes: bool,
    /// Every range in it is content with this member's state.
    pub(crate) serializable: bool,
}

/// Looks through both branches, nested ones too.
pub(crate) fn kind(request: &pb::TxnRequest) -> TxnKind {
    let mut kind = TxnKind {
        puts: false,
        writes: false,
        serializable: true,
    };
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(Request::RequestRange(range)) => kind.serializable &= range.serializable,
            Some(Request::RequestPut(_)) => {
                kind.puts = true;
                kind.writes = true;
            }
            Some(Request::RequestDeleteRange(_)) => kind.writes = true,
            Some(Request::RequestTxn(nested)) => {
                let nested = self::kind(nested);
                kind.puts |= nested.puts;
                kind.writes |= nested.writes;
                kind.serializable &= nested.serializable;
            }
            None => {}
        }
    }
    kind
}
