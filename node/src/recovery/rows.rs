//! The rows below `/nautilus/recovery/`: the escrow, and recoveries that happened.
//!
//! Invariant: the escrow changes by compare-and-swap on its revision; a recovery's row is
//! written once, together with the authority that it brings.

use std::time::Duration;

use nautilus_machine::types::KeyRange;
use nautilus_machine::{
    Command, Compare, Kv, Operation, Outcome, Proposal, Put, RangeRequest, Revision, Txn,
};
use nautilus_rest::Authority;
use serde::{Deserialize, Serialize};

use super::desk::Recovered;
use super::escrow::Escrow;
use crate::policy::unix_millis;

const ESCROW: &str = "/nautilus/recovery/escrow";
const DONE: &str = "/nautilus/recovery/done/";
/// Pause before a step that needs a quorum is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A recovery that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Recovery {
    /// Counts them, from 1.
    pub(crate) recovery: u64,
    /// The node that went on alone.
    pub(crate) node_id: u64,
    /// The operators who gave their shares.
    pub(crate) operators: Vec<String>,
    /// When, in milliseconds since 1970.
    pub(crate) at_ms: u64,
}

/// The escrow's row as it stands (an unreadable one counts as none), and its revision.
pub(super) fn escrow(kv: &dyn Kv) -> Result<(Option<Vec<u8>>, Revision), String> {
    let range = RangeRequest::newest(KeyRange::single(ESCROW));
    let found = kv.range(&range).map_err(|error| error.to_string())?;
    Ok(match found.kvs.first() {
        Some(row) => (Some(row.value.to_vec()), row.mod_revision),
        None => (None, 0),
    })
}

/// Puts an escrow in the place of the one of that revision; whether it still was.
pub(super) async fn put_escrow(
    kv: &dyn Kv,
    escrow: &Escrow,
    revision: Revision,
) -> Result<bool, String> {
    let value = serde_json::to_vec(escrow).map_err(|error| error.to_string())?;
    let proposal = Proposal::new(Command::Txn(Txn {
        compare: vec![Compare::mod_revision(ESCROW, revision)],
        then: vec![Operation::Put(Put::new(ESCROW, value))],
        ..Txn::default()
    }));
    let applied = kv.propose(proposal).await;
    match applied.map_err(|error| error.to_string())?.outcome {
        Outcome::Txn { succeeded, .. } => Ok(succeeded),
        other => Err(format!("an unexpected outcome: {other:?}")),
    }
}

/// The recoveries that happened, in order.
pub(super) fn recoveries(kv: &dyn Kv) -> Result<Vec<Recovery>, String> {
    let range = RangeRequest::newest(KeyRange::prefix(DONE));
    let found = kv.range(&range).map_err(|error| error.to_string())?;
    let rows = found.kvs.iter();
    let parse = |row: &[u8]| serde_json::from_slice(row).map_err(|error| error.to_string());
    rows.map(|row| parse(&row.value)).collect()
}

/// Gives the quorum of a recovered node its new authority, and notes the recovery.
/// Waits for the node to lead.
pub(crate) async fn finish(
    kv: &dyn Kv,
    cluster_id: &str,
    node_id: u64,
    recovered: &Recovered,
) -> anyhow::Result<Recovery> {
    while let Err(error) = kv.read_barrier().await {
        tracing::info!(%error, "the recovered quorum has no leader yet");
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    let before = recoveries(kv).map_err(anyhow::Error::msg)?;
    let recovery = Recovery {
        recovery: before.last().map_or(0, |last| last.recovery) + 1,
        node_id,
        operators: recovered.operators.clone(),
        at_ms: unix_millis(),
    };
    // Of a fixed width: keys of numbers sort as the numbers do.
    let key = format!("{DONE}{:020}", recovery.recovery);
    let name = format!("{cluster_id} recovery {}", recovery.recovery);
    let value = serde_json::to_vec(&recovery)?;
    while let Err(error) = Authority::replace(kv, &name, (key.clone(), value.clone())).await {
        tracing::warn!(%error, "the new authority is not written yet");
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    tracing::error!(
        target: "nautilus::audit",
        recovery = recovery.recovery,
        operators = ?recovery.operators,
        "RECOVERED by operators: this quorum has a new authority; what the lost members alone \
         had acknowledged is gone"
    );
    Ok(recovery)
}
