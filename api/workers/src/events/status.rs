//! Whether the leader follows the chain: one replicated row, written when that changes.
//!
//! Invariant: the word of a leader of an earlier term counts for nothing.

use nautilus_machine::{Command, Kv, Operation, Proposal, Put, Txn};
use serde::{Deserialize, Serialize};

use super::batch::{Row, encode};

const STATUS_KEY: &str = "/nautilus/sui/status";

/// How the chain is followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Following {
    Connected,
    /// No full node answers.
    Unreachable(String),
    /// None knows the quorum's position.
    Lost(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusRow {
    term: u64,
    following: Following,
    since_ms: u64,
}

/// Tells the quorum, as the leader of `term`; `Err` when it was not heard.
pub(crate) async fn tell(
    kv: &dyn Kv,
    term: u64,
    following: &Following,
    now_ms: u64,
) -> Result<(), String> {
    let row = StatusRow {
        term,
        following: following.clone(),
        since_ms: now_ms,
    };
    let proposal = Proposal {
        guard_term: Some(term),
        ..Proposal::new(Command::Txn(Txn {
            then: vec![Operation::Put(Put::new(STATUS_KEY, encode(&row)))],
            ..Txn::default()
        }))
    };
    let told = kv.propose(proposal).await;
    told.map(drop).map_err(|error| error.to_string())
}

/// What the present leader has told.
pub(crate) fn connected(kv: &dyn Kv) -> Result<(), String> {
    let leadership = kv.leadership();
    if leadership.leader.is_none() {
        return Err("no leader is known".to_owned());
    }
    let row = Row::<StatusRow>::read(kv, STATUS_KEY).map_err(|error| error.to_string())?;
    match row.value.filter(|row| row.term == leadership.term) {
        None => Err("the leader has not asked the chain yet".to_owned()),
        Some(row) => match row.following {
            Following::Connected => Ok(()),
            Following::Unreachable(why) | Following::Lost(why) => Err(why),
        },
    }
}
