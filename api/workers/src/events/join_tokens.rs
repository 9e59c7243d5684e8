//! Join tokens set on the chain: each speaks for its node, as the node's Seal token does.
//!
//! Invariant: a join token is compared and kept as its hash.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nautilus_machine::Kv;

use super::batch::Row;
use super::nodes::ChainNode;
use crate::judge::{Judgement, TokenJudge, Verdict};
use crate::lifecycle::Stake;
use crate::token::SealToken;

/// Judges a node's join token by what the chain's events have told of the node, and every
/// other token by the judge within.
pub struct WithJoinTokens {
    /// The judge of Seal tokens.
    pub judge: Arc<dyn TokenJudge>,
    /// Where the events have left their word.
    pub kv: Arc<dyn Kv>,
    /// The stake that a worker needs, in MIST.
    pub min_stake_amount: u64,
}

impl WithJoinTokens {
    fn of_join_token(&self, token: &SealToken, node_id: &str) -> Option<Verdict> {
        let row = Row::<ChainNode>::read(&*self.kv, &ChainNode::key(node_id));
        let node = row.ok()?.value?;
        if node.join_token? != token.hash() {
            return None;
        }
        Some(match node.stake() {
            Stake::Slashed => Verdict::Slashed,
            Stake::Withdrawn => Verdict::Withdrawn,
            Stake::Expired => Verdict::Expired,
            Stake::Active if node.stake_amount < self.min_stake_amount => Verdict::StakeTooSmall {
                amount: node.stake_amount,
                needed: self.min_stake_amount,
            },
            Stake::Active => Verdict::Active {
                owner: node.owner.clone()?,
                stake_amount: node.stake_amount,
                expires_at: None,
            },
        })
    }
}

impl TokenJudge for WithJoinTokens {
    fn judge<'a>(&'a self, token: &'a SealToken, node_id: &'a str) -> BoxFuture<'a, Judgement> {
        match self.of_join_token(token, node_id) {
            Some(verdict) => Box::pin(std::future::ready(verdict.into())),
            None => self.judge.judge(token, node_id),
        }
    }

    fn node_of<'a>(&'a self, token: &'a SealToken) -> BoxFuture<'a, Option<String>> {
        self.judge.node_of(token)
    }

    fn verdict_lifetime(&self) -> Duration {
        self.judge.verdict_lifetime()
    }
}
