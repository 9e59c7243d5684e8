//! Join tokens set on the chain: each speaks for its node, as the node's Seal token does.
//!
//! Invariants
//! - A join token is compared and kept as its hash.
//! - Nobody is admitted whose stake the chain's events have told to be gone.

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
/// other token by the judge within, which what the events have told overrules.
pub struct WithJoinTokens {
    /// The judge of Seal tokens.
    pub judge: Arc<dyn TokenJudge>,
    /// Where the events have left their word.
    pub kv: Arc<dyn Kv>,
    /// The stake that a worker needs, in MIST.
    pub min_stake_amount: u64,
}

impl WithJoinTokens {
    /// What took the node's stake, by the chain's events.
    fn lost(&self, node_id: &str) -> Option<Verdict> {
        let row = Row::<ChainNode>::read(&*self.kv, &ChainNode::key(node_id));
        match row.ok()?.value?.stake() {
            Stake::Slashed => Some(Verdict::Slashed),
            Stake::Withdrawn => Some(Verdict::Withdrawn),
            Stake::Active | Stake::Expired => None,
        }
    }

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
            None => Box::pin(async move {
                let judgement = self.judge.judge(token, node_id).await;
                match (&judgement.verdict, self.lost(node_id)) {
                    // A full node may be late, or tell an old state that was true once.
                    (Verdict::Active { .. }, Some(verdict)) => Judgement {
                        verdict,
                        ..judgement
                    },
                    _ => judgement,
                }
            }),
        }
    }

    fn node_of<'a>(&'a self, token: &'a SealToken) -> BoxFuture<'a, Option<String>> {
        self.judge.node_of(token)
    }

    fn speaks_for_many(&self) -> bool {
        self.judge.speaks_for_many()
    }

    fn verdict_lifetime(&self) -> Duration {
        self.judge.verdict_lifetime()
    }
}
