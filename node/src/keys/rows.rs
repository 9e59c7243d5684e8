//! The replicated rows of a rotation, below `/nautilus/keys/`.
//!
//! Invariant: `quorum` changes by compare-and-swap on its revision only, so that a root
//! that was superseded can't become current any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use nautilus_machine::types::KeyRange;
use nautilus_machine::{
    Command, Compare, Kv, NodeId, Operation, Outcome, Proposal, Put, RangeRequest, Revision, Txn,
};
use nautilus_store::{Generation, Keyring};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

const QUORUM_ROW: &str = "/nautilus/keys/quorum";
const NODE_ROWS: &str = "/nautilus/keys/nodes/";
/// A write that waits for a leader is given up, and tried again by the next round.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the whole quorum agrees on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct QuorumRow {
    /// Everything new is sealed under it.
    pub(crate) generation: Generation,
    /// Hex of its root's fingerprint; empty before the first rotation.
    pub(crate) fingerprint: String,
    /// Announced: to be held, not yet to be used.
    pub(crate) next: Option<NextRoot>,
    /// Members that get no keys any more.
    pub(crate) withheld: BTreeSet<NodeId>,
}

/// A root that is being handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct NextRoot {
    pub(crate) generation: Generation,
    /// Hex.
    pub(crate) fingerprint: String,
    /// Who has it for certain.
    pub(crate) drawn_by: NodeId,
}

/// Before the first rotation.
impl Default for QuorumRow {
    fn default() -> Self {
        Self {
            generation: 1,
            fingerprint: String::new(),
            next: None,
            withheld: BTreeSet::new(),
        }
    }
}

impl QuorumRow {
    /// Whether a root is one that the row names.
    pub(crate) fn names(&self, generation: Generation, fingerprint: &[u8]) -> bool {
        let is = |wanted: Generation, hex_text: &str| {
            wanted == generation && (hex_text.is_empty() || hex_text == hex::encode(fingerprint))
        };
        let next = self.next.as_ref();
        is(self.generation, &self.fingerprint)
            || next.is_some_and(|next| is(next.generation, &next.fingerprint))
    }

    /// The generations that a member is to hold.
    pub(crate) fn named(&self) -> impl Iterator<Item = Generation> {
        let next = self.next.as_ref().map(|next| next.generation);
        std::iter::once(self.generation).chain(next)
    }
}

/// How far one node is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NodeRow {
    /// On its disk, sealed to it.
    pub(crate) held: Vec<Generation>,
    /// Under which it seals.
    pub(crate) generation: Generation,
    /// Data keys of its log and rows.
    pub(crate) data_keys: usize,
    /// About what is left to be sealed anew; 0 when nothing is.
    pub(crate) left_bytes: u64,
    /// Gone through so far.
    pub(crate) done_bytes: u64,
}

/// The quorum's row as this node has applied it, and its revision (0: there is none).
pub(crate) fn quorum(kv: &dyn Kv) -> Result<(QuorumRow, Revision), String> {
    let answer = kv
        .range(&RangeRequest::newest(KeyRange::single(QUORUM_ROW)))
        .map_err(|error| error.to_string())?;
    match answer.kvs.first() {
        None => Ok((QuorumRow::default(), 0)),
        Some(found) => Ok((parse(QUORUM_ROW, &found.value)?, found.mod_revision)),
    }
}

/// The nodes' rows as this node has applied them.
pub(crate) fn nodes(kv: &dyn Kv) -> Result<BTreeMap<NodeId, NodeRow>, String> {
    let answer = kv
        .range(&RangeRequest::newest(KeyRange::prefix(NODE_ROWS)))
        .map_err(|error| error.to_string())?;
    let mut nodes = BTreeMap::new();
    for found in answer.kvs {
        let name = String::from_utf8_lossy(&found.key).into_owned();
        let id = name
            .strip_prefix(NODE_ROWS)
            .and_then(|id| id.parse().ok())
            .ok_or_else(|| format!("{name} names no node"))?;
        nodes.insert(id, parse(&name, &found.value)?);
    }
    Ok(nodes)
}

/// Changes the quorum's row, if it still is the one of that revision; whether it was.
pub(crate) async fn put_quorum(
    kv: &dyn Kv,
    row: &QuorumRow,
    revision: Revision,
) -> Result<bool, String> {
    write(
        kv,
        vec![Compare::mod_revision(QUORUM_ROW, revision)],
        QUORUM_ROW.to_owned(),
        row,
    )
    .await
}

/// Writes this node's row.
pub(crate) async fn put_node(kv: &dyn Kv, id: NodeId, row: &NodeRow) -> Result<(), String> {
    write(kv, Vec::new(), format!("{NODE_ROWS}{id}"), row)
        .await
        .map(|_| ())
}

/// The secrets of `keyring` for a member, as far as this node may give them.
pub(crate) fn secrets_for(
    kv: &dyn Kv,
    keyring: &Keyring,
    node_id: NodeId,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let (row, _) = quorum(kv)?;
    // The row that announces a root comes after every removal that it answers.
    let announced = |held: &Generation| {
        let fingerprint = keyring.fingerprint(*held).unwrap_or_default();
        *held < row.generation || row.names(*held, &fingerprint)
    };
    if let Some(ahead) = keyring.generations().iter().find(|held| !announced(held)) {
        return Err(format!(
            "generation {ahead} of the keys is not announced here yet; ask again"
        ));
    }
    if row.withheld.contains(&node_id) {
        return Err(format!(
            "the keys are withheld from node {node_id} since generation {}",
            row.named().max().unwrap_or_default()
        ));
    }
    Ok(keyring.to_secrets())
}

async fn write(
    kv: &dyn Kv,
    compare: Vec<Compare>,
    key: String,
    row: &(impl Serialize + Sync),
) -> Result<bool, String> {
    let value = serde_json::to_vec(row).map_err(|error| error.to_string())?;
    let proposal = Proposal::new(Command::Txn(Txn {
        compare,
        then: vec![Operation::Put(Put::new(key, Bytes::from(value)))],
        ..Txn::default()
    }));
    let applied = tokio::time::timeout(WRITE_TIMEOUT, kv.propose(proposal)).await;
    let applied = applied.map_err(|_| "no leader took it in time".to_owned())?;
    match applied.map_err(|error| error.to_string())?.outcome {
        Outcome::Txn { succeeded, .. } => Ok(succeeded),
        other => Err(format!("an unexpected outcome: {other:?}")),
    }
}

fn parse<T: DeserializeOwned>(name: &str, value: &[u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|error| format!("row {name}: {error}"))
}
