//! The policy's rows, and the transactions that change them.
//!
//! ```text
//! /nautilus/policy/current            the record in force
//! /nautilus/policy/history/EPOCH      every record, by its epoch
//! /nautilus/policy/pending/DIGEST     changes that lack approvals
//! /nautilus/policy/nodes/ID           what each member runs, as the leader attested it
//! /nautilus/policy/retired/ID         nodes that lost their vote for their measurement
//! /nautilus/policy/upgrade            the upgrade under way
//! ```
//! Invariant: `current` and `history` are written together, by a transaction that
//! compares the revision of `current`; a change that was taken ends all pending ones.

use nautilus_attest_protocol::policy::Approval;
use nautilus_attest_protocol::{Measurement, Policy, TeeKind};
use nautilus_machine::types::KeyRange;
use nautilus_machine::{
    Command, Compare, Kv, Operation, Outcome, Proposal, ProposeError, Put, RangeRequest, Txn,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Where everything of the policy stands. No face for clients serves it.
pub(crate) const POLICY_PREFIX: &str = "/nautilus/policy/";
/// Changes that wait for approvals, at most.
pub(crate) const PENDING_MAX: usize = 16;

const CURRENT: &str = "/nautilus/policy/current";
const HISTORY: &str = "/nautilus/policy/history/";
const PENDING: &str = "/nautilus/policy/pending/";
const NODES: &str = "/nautilus/policy/nodes/";
const RETIRED: &str = "/nautilus/policy/retired/";
const UPGRADE: &str = "/nautilus/policy/upgrade";

/// A document with what makes it count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The policy.
    pub(crate) document: Policy,
    /// Who signed it; nobody at genesis.
    pub(crate) approvals: Vec<Approval>,
    /// When it was written, in milliseconds since 1970.
    pub(crate) at_ms: u64,
}

/// What a member runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeCode {
    /// The member.
    pub(crate) id: u64,
    /// Its kind of TEE.
    pub(crate) tee: TeeKind,
    /// Its measurement.
    pub(crate) measurement: Measurement,
}

/// A node that lost its vote because the policy no longer names its measurement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RetiredNode {
    /// The member it was.
    pub(crate) id: u64,
    /// Its kind of TEE.
    pub(crate) tee: TeeKind,
    /// Its measurement.
    pub(crate) measurement: Measurement,
    /// The policy that retired it.
    pub(crate) epoch: u64,
    /// Whether everything that follows from it has been done.
    pub(crate) done: bool,
}

/// An upgrade under way: what it leads to, and how many voters there are to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Upgrade {
    /// The kind of TEE of the new build.
    pub(crate) tee: TeeKind,
    /// Its measurement.
    pub(crate) measurement: Measurement,
    /// Voters at its beginning and its end.
    pub(crate) size: usize,
    /// When it began, in milliseconds since 1970.
    pub(crate) since_ms: u64,
}

/// Why rows were not read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum StoreError {
    /// No quorum, or not in time: it may pass.
    #[error("the policy's rows can't be read or written now: {0}")]
    Unavailable(String),
    /// A row that this build does not understand.
    #[error("the row {key} is not understood: {reason}")]
    Damaged {
        /// Which row.
        key: String,
        /// What does not fit.
        reason: String,
    },
}

/// The record in force and the revision it was written at, as this node has applied it.
pub(crate) fn current(kv: &dyn Kv) -> Result<Option<(Record, u64)>, StoreError> {
    row(kv, CURRENT)
}

/// The record of an epoch.
pub(crate) fn of_epoch(kv: &dyn Kv, epoch: u64) -> Result<Option<Record>, StoreError> {
    Ok(row(kv, &history_key(epoch))?.map(|(record, _)| record))
}

/// Every record, oldest first.
pub(crate) fn history(kv: &dyn Kv) -> Result<Vec<Record>, StoreError> {
    rows(kv, HISTORY)
}

/// Changes that lack approvals.
pub(crate) fn pending(kv: &dyn Kv) -> Result<Vec<Record>, StoreError> {
    rows(kv, PENDING)
}

/// The pending change with this digest, and the revision it was written at.
pub(crate) fn pending_of(
    kv: &dyn Kv,
    digest: &[u8; 32],
) -> Result<Option<(Record, u64)>, StoreError> {
    row(kv, &pending_key(digest))
}

/// What each member runs.
pub(crate) fn nodes(kv: &dyn Kv) -> Result<Vec<NodeCode>, StoreError> {
    rows(kv, NODES)
}

/// Nodes that lost their vote.
pub(crate) fn retired(kv: &dyn Kv) -> Result<Vec<RetiredNode>, StoreError> {
    rows(kv, RETIRED)
}

/// Writes the first record unless there is one; says whether it was written.
pub(crate) async fn found(kv: &dyn Kv, record: &Record) -> Result<bool, StoreError> {
    replace(kv, record, 0).await
}

/// Puts `record` in force if the present one is still that of `revision`; ends all
/// pending changes.
pub(crate) async fn replace(
    kv: &dyn Kv,
    record: &Record,
    revision: u64,
) -> Result<bool, StoreError> {
    let value = encode(record)?;
    let then = vec![
        Operation::Put(Put::new(CURRENT, value.clone())),
        Operation::Put(Put::new(history_key(record.document.epoch), value)),
        Operation::Delete {
            range: KeyRange::prefix(PENDING),
            prev_kv: false,
        },
    ];
    transact(kv, vec![Compare::mod_revision(CURRENT, revision)], then).await
}

/// Keeps a change that lacks approvals, if the policy and what was pending of it are
/// still those of these revisions.
pub(crate) async fn keep_pending(
    kv: &dyn Kv,
    record: &Record,
    revision: u64,
    pending_revision: u64,
) -> Result<bool, StoreError> {
    let key = pending_key(&record.document.digest());
    let compare = vec![
        Compare::mod_revision(CURRENT, revision),
        Compare::mod_revision(key.clone(), pending_revision),
    ];
    let put = Operation::Put(Put::new(key, encode(record)?));
    transact(kv, compare, vec![put]).await
}

/// Writes what a member runs.
pub(crate) async fn put_node(kv: &dyn Kv, node: &NodeCode) -> Result<(), StoreError> {
    let put = Put::new(id_key(NODES, node.id), encode(node)?);
    transact(kv, Vec::new(), vec![Operation::Put(put)])
        .await
        .map(|_| ())
}

/// Forgets what a former member ran.
pub(crate) async fn forget_node(kv: &dyn Kv, id: u64) -> Result<(), StoreError> {
    let delete = Operation::Delete {
        range: KeyRange::single(id_key(NODES, id)),
        prev_kv: false,
    };
    transact(kv, Vec::new(), vec![delete]).await.map(|_| ())
}

/// Notes that a node is retired.
pub(crate) async fn put_retired(kv: &dyn Kv, node: &RetiredNode) -> Result<(), StoreError> {
    let put = Put::new(id_key(RETIRED, node.id), encode(node)?);
    transact(kv, Vec::new(), vec![Operation::Put(put)])
        .await
        .map(|_| ())
}

/// The upgrade under way.
pub(crate) fn upgrade(kv: &dyn Kv) -> Result<Option<Upgrade>, StoreError> {
    Ok(row(kv, UPGRADE)?.map(|(upgrade, _)| upgrade))
}

/// Begins an upgrade unless one is under way; says whether it began.
pub(crate) async fn begin_upgrade(kv: &dyn Kv, upgrade: &Upgrade) -> Result<bool, StoreError> {
    let put = Operation::Put(Put::new(UPGRADE, encode(upgrade)?));
    transact(kv, vec![Compare::mod_revision(UPGRADE, 0)], vec![put]).await
}

/// Ends the upgrade under way, done or not.
pub(crate) async fn end_upgrade(kv: &dyn Kv) -> Result<(), StoreError> {
    let delete = Operation::Delete {
        range: KeyRange::single(UPGRADE),
        prev_kv: false,
    };
    transact(kv, Vec::new(), vec![delete]).await.map(|_| ())
}

fn history_key(epoch: u64) -> String {
    id_key(HISTORY, epoch)
}

fn pending_key(digest: &[u8; 32]) -> String {
    format!("{PENDING}{}", hex::encode(digest))
}

/// Keys of numbers sort as the numbers do.
fn id_key(prefix: &str, id: u64) -> String {
    format!("{prefix}{id:020}")
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Unavailable(error.to_string()))
}

fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|error| StoreError::Damaged {
        key: String::from_utf8_lossy(key).into_owned(),
        reason: error.to_string(),
    })
}

fn row<T: DeserializeOwned>(kv: &dyn Kv, key: &str) -> Result<Option<(T, u64)>, StoreError> {
    let answer = kv.range(&RangeRequest::newest(KeyRange::single(key.to_owned())));
    let answer = answer.map_err(|error| StoreError::Unavailable(error.to_string()))?;
    let found = answer.kvs.first();
    found
        .map(|row| Ok((decode(&row.key, &row.value)?, row.mod_revision)))
        .transpose()
}

fn rows<T: DeserializeOwned>(kv: &dyn Kv, prefix: &'static str) -> Result<Vec<T>, StoreError> {
    let answer = kv.range(&RangeRequest::newest(KeyRange::prefix(prefix)));
    let answer = answer.map_err(|error| StoreError::Unavailable(error.to_string()))?;
    let rows = answer.kvs.iter();
    rows.map(|row| decode(&row.key, &row.value)).collect()
}

/// Whether the comparison held and the operations were done.
async fn transact(
    kv: &dyn Kv,
    compare: Vec<Compare>,
    then: Vec<Operation>,
) -> Result<bool, StoreError> {
    let proposal = Proposal::new(Command::Txn(Txn {
        compare,
        then,
        otherwise: Vec::new(),
    }));
    match kv.propose(proposal).await {
        Ok(applied) => match applied.outcome {
            Outcome::Txn { succeeded, .. } => Ok(succeeded),
            other => Err(StoreError::Unavailable(format!("{other:?}"))),
        },
        Err(ProposeError::Unavailable(reason) | ProposeError::Unknown(reason)) => {
            Err(StoreError::Unavailable(reason))
        }
        Err(error) => Err(StoreError::Unavailable(error.to_string())),
    }
}
