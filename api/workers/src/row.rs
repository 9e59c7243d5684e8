//! A worker's replicated row: what every node must know of it, and no more.
//!
//! Invariant: a row holds a hash of the token, never the token.

use bytes::Bytes;
use nautilus_machine::{KeyRange, KeyValue};
use serde::{Deserialize, Serialize};

use crate::lifecycle::{Phase, Stake};
use crate::token::TokenHash;

/// Every row's key begins with this; the rest is the `node_id`.
pub const ROWS_PREFIX: &str = "/nautilus/workers/";

/// One worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// As the worker calls itself.
    pub node_id: String,
    /// The name of its `Node` object.
    pub node_name: String,
    /// Where it stands.
    pub phase: Phase,
    /// The owner of its token, by the judge's verdict.
    pub owner: String,
    /// Of the token it registered with last.
    pub token_hash: TokenHash,
    /// When that token ends, in Unix seconds; absent when it does not.
    pub token_expires_at_s: Option<u64>,
    /// State of the stake behind it.
    pub stake: Stake,
    /// The stake in MIST.
    pub stake_amount: u64,
    /// Pods it runs, as of the last replicated change: off by less than a step.
    pub running_pods: u32,
    /// How often it has registered.
    pub registrations: u64,
    /// Its last registration, in Unix milliseconds by the clock of the node that took it.
    pub registered_at_ms: u64,
    /// Last change of `phase`, in Unix milliseconds by the clock of the node that saw it.
    pub phase_since_ms: u64,
}

/// A row that can't be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the row {key} is no worker's row: {reason}")]
pub struct RowUnreadable {
    /// Its key.
    pub key: String,
    /// What the parser says.
    pub reason: String,
}

impl WorkerRow {
    /// The row's key.
    pub fn key(node_id: &str) -> String {
        format!("{ROWS_PREFIX}{node_id}")
    }

    /// All rows.
    pub fn all() -> KeyRange {
        KeyRange::prefix(ROWS_PREFIX)
    }

    /// The `node_id` in a row's key.
    pub fn node_id_of(key: &[u8]) -> Option<&str> {
        std::str::from_utf8(key).ok()?.strip_prefix(ROWS_PREFIX)
    }

    /// Reads a row.
    pub fn decode(kv: &KeyValue) -> Result<Self, RowUnreadable> {
        serde_json::from_slice(&kv.value).map_err(|error| RowUnreadable {
            key: String::from_utf8_lossy(&kv.key).into_owned(),
            reason: error.to_string(),
        })
    }

    /// The row's bytes.
    pub fn encode(&self) -> Bytes {
        // Strings, numbers and unit enums: nothing that JSON can refuse.
        serde_json::to_vec(self)
            .map(Bytes::from)
            .unwrap_or_default()
    }
}
