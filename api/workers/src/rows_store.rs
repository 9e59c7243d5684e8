//! A worker's two keys, its row and its `Node`, read together and written together.
//!
//! Invariant: both are compared with what was read and written in one transaction, so
//! that a row and its object never disagree and no concurrent writer is overwritten.

use aws_lc_rs::rand;
use bytes::Bytes;
use nautilus_machine::{
    Compare, KeyRange, Kv, Operation, Put, RangeError, RangeRequest, Revision, Txn,
};
use nautilus_machinery::resource;
use serde_json::Value;

use crate::lifecycle::Readiness;
use crate::node_object::{self, NodeFacts};
use crate::row::{RowUnreadable, WorkerRow};

/// A worker as it stands in the store.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    row_key: String,
    node_key: String,
    /// The row, and the revision it was read at (0: there is none).
    pub(crate) row: Option<WorkerRow>,
    row_revision: Revision,
    /// The object; absent when it was deleted or never made.
    pub(crate) node: Option<Value>,
    node_revision: Revision,
}

/// Why a worker could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    Range(#[from] RangeError),
    #[error(transparent)]
    Row(#[from] RowUnreadable),
    #[error("the object {key} is no JSON: {reason}")]
    Node { key: String, reason: String },
    #[error("the system gave no random bytes")]
    Random,
}

impl Stored {
    /// Reads both keys from this node's state.
    pub(crate) fn read(kv: &dyn Kv, node_id: &str) -> Result<Self, StoreError> {
        let row_key = WorkerRow::key(node_id);
        let node_key = node_key(&node_object::node_name(node_id));
        let row = single(kv, &row_key)?;
        let node = single(kv, &node_key)?;
        Ok(Self {
            row: row.as_ref().map(WorkerRow::decode).transpose()?,
            row_revision: row.as_ref().map_or(0, |kv| kv.mod_revision),
            node_revision: node.as_ref().map_or(0, |kv| kv.mod_revision),
            node: match node {
                Some(kv) => {
                    Some(
                        serde_json::from_slice(&kv.value).map_err(|error| StoreError::Node {
                            key: node_key.clone(),
                            reason: error.to_string(),
                        })?,
                    )
                }
                None => None,
            },
            row_key,
            node_key,
        })
    }

    /// The transaction that makes the row `row` and the object what the row says, if
    /// both still are as they were read.
    pub(crate) fn replace(mut self, row: &WorkerRow, unix_ms: u64) -> Result<Txn, StoreError> {
        let now = rfc3339(unix_ms);
        let facts = NodeFacts {
            node_id: &row.node_id,
            node_name: &row.node_name,
            owner: &row.owner,
            readiness: Readiness::of(row.phase, row.stake),
        };
        let mut then = vec![Operation::Put(Put::new(self.row_key.clone(), row.encode()))];
        let node = match self.node.as_mut() {
            Some(node) => node_object::update(node, &facts, &now).then_some(&*node),
            None => Some(
                &*self
                    .node
                    .insert(node_object::create(&facts, &new_uid()?, &now)),
            ),
        };
        if let Some(node) = node {
            then.push(Operation::Put(Put::new(
                self.node_key.clone(),
                Bytes::from(node.to_string()),
            )));
        }
        Ok(Txn {
            compare: vec![
                Compare::mod_revision(self.row_key, self.row_revision),
                Compare::mod_revision(self.node_key, self.node_revision),
            ],
            then,
            otherwise: Vec::new(),
        })
    }
}

/// The storage key of a `Node` object.
fn node_key(name: &str) -> String {
    // The kind is part of the table that is compiled in.
    resource::find("", "v1", "nodes").map_or_else(
        || format!("/nautilus/registry//nodes/{name}"),
        |nodes| nodes.key(None, name),
    )
}

fn single(kv: &dyn Kv, key: &str) -> Result<Option<nautilus_machine::KeyValue>, RangeError> {
    let request = RangeRequest::newest(KeyRange::single(key.to_owned()));
    Ok(kv.range(&request)?.kvs.into_iter().next())
}

/// RFC 3339 in whole seconds, as Kubernetes writes times.
fn rfc3339(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds)
        .unwrap_or(jiff::Timestamp::MAX)
        .to_string()
}

/// A random UUID (RFC 9562, version 4).
fn new_uid() -> Result<String, StoreError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| StoreError::Random)?;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let text = hex::encode(bytes);
    let parts = [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..],
    ];
    Ok(parts.join("-"))
}
