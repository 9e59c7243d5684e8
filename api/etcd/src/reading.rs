//! Reading this member's state: ranges, and transactions that only read.
//!
//! Invariants
//! - A read of more than a few keys runs off the async threads.
//! - A transaction that only reads sees one revision: every comparison and range is made
//!   at the same one, and it is made again if a compaction passed by.

use std::sync::Arc;

use nautilus_machine::{
    Compare, CompareOp, CompareTarget, KeyValue, Operation, RangeEnd, RangeError, RangeRequest,
    RangeResponse, Revision, Txn, TxnOutcome,
};
use tonic::Status;

use crate::context::EtcdContext;
use crate::errors;

/// A limited range of at most so many keys is read on the async thread.
const INLINE_KEYS_MAX: u64 = 64;
/// A read-only transaction is tried so often against passing compactions.
const READ_ATTEMPTS: usize = 8;

impl EtcdContext {
    /// Waits until this member has seen everything acknowledged before.
    pub(crate) async fn barrier(&self) -> Result<Revision, Status> {
        let confirmed = self.parts.kv.read_barrier().await;
        confirmed.map_err(|error| errors::not_confirmed(&error))
    }

    /// Reads a range, here when it is small.
    pub(crate) async fn read(
        self: &Arc<Self>,
        request: RangeRequest,
    ) -> Result<RangeResponse, Status> {
        self.reach(request.revision).await;
        if is_small(&request) {
            return self.read_here(&request);
        }
        let context = self.clone();
        self.off_thread(move || context.read_here(&request)).await
    }

    /// A client that heard of a revision from another member may ask for it here before
    /// this one has applied it, as etcd's software transactional memory does: then the
    /// quorum is asked once, rather than the client refused.
    async fn reach(&self, revision: Option<Revision>) {
        if revision.is_none_or(|wanted| wanted <= self.parts.kv.revision()) {
            return;
        }
        if let Err(status) = self.barrier().await {
            tracing::debug!(%status, "a revision that was asked for is not reached");
        }
    }

    fn read_here(&self, request: &RangeRequest) -> Result<RangeResponse, Status> {
        let read = self.parts.kv.range(request);
        read.map_err(|error| errors::not_read(&error))
    }

    /// Runs a transaction without writes on this member's state.
    pub(crate) async fn read_txn(
        self: &Arc<Self>,
        txn: Txn,
    ) -> Result<(Revision, bool, Vec<TxnOutcome>), Status> {
        self.reach(newest_revision(&txn)).await;
        if txn_is_small(&txn) {
            return self.read_txn_here(&txn);
        }
        let context = self.clone();
        self.off_thread(move || context.read_txn_here(&txn)).await
    }

    fn read_txn_here(&self, txn: &Txn) -> Result<(Revision, bool, Vec<TxnOutcome>), Status> {
        for _ in 0..READ_ATTEMPTS {
            let revision = self.parts.kv.revision();
            let evaluation = Evaluation {
                context: self,
                revision,
            };
            match evaluation.run(txn) {
                Err(RangeError::Compacted { compacted }) if revision < compacted => {}
                Err(error) => return Err(errors::not_read(&error)),
                Ok((succeeded, outcomes)) => return Ok((revision, succeeded, outcomes)),
            }
        }
        Err(errors::COMPACTED.into())
    }

    async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|error| Err(Status::internal(format!("etcdserver: {error}"))))
    }
}

/// The newest revision that a range of the transaction asks for.
fn newest_revision(txn: &Txn) -> Option<Revision> {
    let operations = txn.then.iter().chain(&txn.otherwise);
    let revisions = operations.filter_map(|operation| match operation {
        Operation::Range(request) => request.revision,
        Operation::Txn(nested) => newest_revision(nested),
        Operation::Put(_) | Operation::Delete { .. } => None,
    });
    revisions.max()
}

fn is_small(request: &RangeRequest) -> bool {
    request.range.end == RangeEnd::Single
        || request.limit.is_some_and(|limit| limit <= INLINE_KEYS_MAX)
}

fn txn_is_small(txn: &Txn) -> bool {
    let compares = txn
        .compare
        .iter()
        .all(|compare| compare.range.end == RangeEnd::Single);
    let operation_is_small = |operation: &Operation| match operation {
        Operation::Range(request) => is_small(request),
        Operation::Txn(nested) => txn_is_small(nested),
        Operation::Put(_) | Operation::Delete { .. } => false,
    };
    compares
        && txn.then.iter().all(operation_is_small)
        && txn.otherwise.iter().all(operation_is_small)
}

/// A transaction's evaluation at one revision.
struct Evaluation<'a> {
    context: &'a EtcdContext,
    revision: Revision,
}

impl Evaluation<'_> {
    fn run(&self, txn: &Txn) -> Result<(bool, Vec<TxnOutcome>), RangeError> {
        let mut succeeded = true;
        for compare in &txn.compare {
            succeeded = succeeded && self.holds(compare)?;
        }
        let branch = if succeeded { &txn.then } else { &txn.otherwise };
        let mut outcomes = Vec::with_capacity(branch.len());
        for operation in branch {
            match operation {
                Operation::Range(request) => {
                    outcomes.push(TxnOutcome::Range(self.range(request)?));
                }
                Operation::Txn(nested) => {
                    let (succeeded, results) = self.run(nested)?;
                    outcomes.push(TxnOutcome::Txn { succeeded, results });
                }
                Operation::Put(_) | Operation::Delete { .. } => {}
            }
        }
        Ok((succeeded, outcomes))
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, RangeError> {
        let revision = request.revision.unwrap_or(self.revision);
        if revision > self.revision {
            return Err(RangeError::FutureRevision {
                current: self.revision,
            });
        }
        let request = RangeRequest {
            revision: Some(revision),
            ..request.clone()
        };
        let mut response = self.context.parts.kv.range(&request)?;
        response.revision = self.revision;
        Ok(response)
    }

    fn holds(&self, compare: &Compare) -> Result<bool, RangeError> {
        let with_value = matches!(compare.target, CompareTarget::Value(_));
        let found = self.range(&RangeRequest {
            keys_only: !with_value,
            ..RangeRequest::newest(compare.range.clone())
        })?;
        if found.kvs.is_empty() {
            return Ok(!with_value && satisfies(None, compare));
        }
        Ok(found.kvs.iter().all(|kv| satisfies(Some(kv), compare)))
    }
}

fn satisfies(kv: Option<&KeyValue>, compare: &Compare) -> bool {
    let number = |attribute: fn(&KeyValue) -> u64| kv.map_or(0, attribute);
    let ordering = match &compare.target {
        CompareTarget::Version(version) => number(|kv| kv.version).cmp(version),
        CompareTarget::CreateRevision(revision) => number(|kv| kv.create_revision).cmp(revision),
        CompareTarget::ModRevision(revision) => number(|kv| kv.mod_revision).cmp(revision),
        CompareTarget::Value(value) => kv.map_or(&[][..], |kv| &kv.value[..]).cmp(&value[..]),
        CompareTarget::Lease(lease) => kv
            .and_then(|kv| kv.lease)
            .map_or(0, |lease| lease.0)
            .cmp(lease),
    };
    match compare.op {
        CompareOp::Equal => ordering.is_eq(),
        CompareOp::NotEqual => ordering.is_ne(),
        CompareOp::Greater => ordering.is_gt(),
        CompareOp::Less => ordering.is_lt(),
    }
}
