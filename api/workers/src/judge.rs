//! Who judges Seal tokens: the port. What is remembered of its verdicts, and for how long, is in
//! [`crate::verdicts`].

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::chain::ChainEvidence;
use crate::limits;
use crate::token::SealToken;

/// What a judge finds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The token may speak for the node.
    Active {
        /// Who owns it.
        owner: String,
        /// The stake behind it, in MIST.
        stake_amount: u64,
        /// When it ends, in Unix seconds; `None`: it does not.
        expires_at: Option<u64>,
    },
    /// It has ended.
    Expired,
    /// Its stake was slashed.
    Slashed,
    /// Its stake was taken back.
    Withdrawn,
    /// Its stake is less than what a worker needs.
    StakeTooSmall {
        /// What it has, in MIST.
        amount: u64,
        /// What it needs, in MIST.
        needed: u64,
    },
    /// It belongs to another node or owner.
    NotOwner,
    /// Nobody knows it.
    Unknown,
    /// The judge can't tell now.
    Unavailable,
}

/// A verdict, and the state of the chain it was found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What was found.
    pub verdict: Verdict,
    /// By what; `None` where no chain was asked, or nothing speaks for the token.
    pub evidence: Option<ChainEvidence>,
}

impl From<Verdict> for Judgement {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            evidence: None,
        }
    }
}

/// Judges Seal tokens: the file of development tokens here, the chain in production.
pub trait TokenJudge: Send + Sync + 'static {
    /// Whether `token` may speak for the worker `node_id`.
    fn judge<'a>(&'a self, token: &'a SealToken, node_id: &'a str) -> BoxFuture<'a, Judgement>;

    /// The node that `token` was issued to, where the judge can tell without being asked for
    /// one.
    fn node_of<'a>(&'a self, _token: &'a SealToken) -> BoxFuture<'a, Option<String>> {
        Box::pin(std::future::ready(None))
    }

    /// Whether one token may speak for several nodes. Else the first that is registered with it is
    /// the only one until it is removed.
    fn speaks_for_many(&self) -> bool {
        false
    }

    /// How long a favourable verdict holds without asking again. Zero: the judge is at hand, and is
    /// asked every time, however often.
    fn verdict_lifetime(&self) -> Duration {
        limits::VERDICT_LIFETIME
    }
}
