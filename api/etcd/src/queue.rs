//! What locks and elections share: a queue of waiters, one key each under a prefix,
//! served in the order of the keys' creation (etcd `client/v3/concurrency`).

use bytes::Bytes;
use nautilus_machine::{EventKind, KeyRange, WatchError, WatchRequest};
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::errors;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::response_op::Response as Answer;
use crate::proto::mvccpb;
use crate::session::Session;

/// Seconds of the lease that is granted to a caller who brings none.
const SESSION_TTL_SECONDS: i64 = 60;

/// `name/`, under which the waiters' keys stand.
pub(crate) fn prefix_of(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// The key of a waiter: the prefix and its lease in hexadecimal.
pub(crate) fn waiter_key(prefix: &[u8], lease: i64) -> Bytes {
    [prefix, format!("{lease:x}").as_bytes()].concat().into()
}

/// `key` was created at `revision`; 0: it does not exist.
pub(crate) fn created_at(key: Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key,
        target_union: Some(TargetUnion::CreateRevision(revision)),
        range_end: Bytes::new(),
    }
}

/// An operation of a transaction.
pub(crate) fn operation(request: Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

/// A read of one key.
pub(crate) fn get(key: Bytes) -> pb::RangeRequest {
    pb::RangeRequest {
        key,
        ..pb::RangeRequest::default()
    }
}

/// The read of the oldest waiter.
pub(crate) fn oldest(prefix: &Bytes) -> pb::RangeRequest {
    pb::RangeRequest {
        sort_order: SortOrder::Ascend.into(),
        ..one_by_creation(prefix)
    }
}

fn one_by_creation(prefix: &Bytes) -> pb::RangeRequest {
    pb::RangeRequest {
        key: prefix.clone(),
        range_end: prefix_end(prefix),
        limit: 1,
        sort_target: SortTarget::Create.into(),
        ..pb::RangeRequest::default()
    }
}

/// The key after all keys with `prefix`, as a range end.
fn prefix_end(prefix: &[u8]) -> Bytes {
    match KeyRange::prefix(prefix.to_vec()).end {
        nautilus_machine::RangeEnd::Key(end) => end,
        _ => Bytes::from_static(&[0]),
    }
}

/// The keys that the `index`th operation of a transaction found.
pub(crate) fn found(response: &mut pb::TxnResponse, index: usize) -> Vec<mvccpb::KeyValue> {
    match response
        .responses
        .get_mut(index)
        .map(|op| op.response.take())
    {
        Some(Some(Answer::ResponseRange(range))) => range.kvs,
        _ => Vec::new(),
    }
}

impl Session {
    /// The caller's lease, or a new one when it brings none.
    pub(crate) async fn lease_or_new(&self, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        let granted = self.grant_lease(0, SESSION_TTL_SECONDS).await?;
        Ok(granted.id)
    }

    /// Waits until every key of the prefix that was created up to a revision is gone.
    pub(crate) async fn wait_for_older(
        &self,
        metadata: &MetadataMap,
        prefix: &Bytes,
        max_create_revision: i64,
    ) -> Result<(), Status> {
        if max_create_revision <= 0 {
            return Ok(());
        }
        loop {
            let newest = pb::RangeRequest {
                sort_order: SortOrder::Descend.into(),
                max_create_revision,
                ..one_by_creation(prefix)
            };
            let response = self.run_range(metadata, newest).await?;
            let Some(kv) = response.kvs.into_iter().next() else {
                return Ok(());
            };
            let revision = response.header.map_or(0, |header| header.revision);
            self.wait_for_delete(kv.key, revision).await?;
        }
    }

    /// Waits for a deletion of `key` after `revision`, at which it lived.
    async fn wait_for_delete(&self, key: Bytes, revision: i64) -> Result<(), Status> {
        let request = WatchRequest {
            range: KeyRange::single(key),
            from: u64::try_from(revision).ok().map(|revision| revision + 1),
            previous: false,
        };
        let watching = self.context.parts.kv.watch(request);
        let mut watcher = watching.map_err(|error| watch_ended(&error))?;
        loop {
            let events = tokio::select! {
                events = watcher.next() => events.map_err(|error| watch_ended(&error))?,
                () = self.stop.cancelled() => return Err(errors::STOPPED.into()),
            };
            if events.iter().any(|event| event.kind == EventKind::Delete) {
                return Ok(());
            }
        }
    }
}

/// A watch's end, in etcd's words.
pub(crate) fn watch_ended(error: &WatchError) -> Status {
    match error {
        WatchError::Compacted { .. } => errors::COMPACTED.into(),
        WatchError::Closed => errors::STOPPED.into(),
        WatchError::Storage(_) => Status::unknown(format!("etcdserver: {error}")),
    }
}

/// Deletes a waiter's key when the wait is abandoned, so that nobody waits for a caller
/// that has gone away.
pub(crate) struct Place {
    session: std::sync::Arc<crate::context::EtcdContext>,
    key: Option<Bytes>,
    created: i64,
}

impl Place {
    /// Holds the place of `key`, created at a revision.
    pub(crate) fn hold(session: &Session, key: Bytes, created: i64) -> Self {
        Self {
            session: session.context.clone(),
            key: Some(key),
            created,
        }
    }

    /// The wait has ended well: the key stays.
    pub(crate) fn keep(mut self) {
        self.key = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let context = self.session.clone();
        let created = u64::try_from(self.created).unwrap_or(0);
        tokio::spawn(async move {
            let txn = nautilus_machine::Txn {
                compare: vec![nautilus_machine::Compare {
                    range: KeyRange::single(key.clone()),
                    target: nautilus_machine::CompareTarget::CreateRevision(created),
                    op: nautilus_machine::CompareOp::Equal,
                }],
                then: vec![nautilus_machine::Operation::Delete {
                    range: KeyRange::single(key),
                    prev_kv: false,
                }],
                otherwise: Vec::new(),
            };
            // When it cannot be deleted now, it goes with its lease.
            if let Err(status) = context.propose(nautilus_machine::Command::Txn(txn)).await {
                tracing::debug!(%status, "an abandoned waiter's key could not be deleted");
            }
        });
    }
}
