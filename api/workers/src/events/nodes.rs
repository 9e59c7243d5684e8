//! What the chain's events have said of a node: one replicated row, folded event by event.
//! Pure.
//!
//! Invariants
//! - A row is what its events give in the chain's order. Only the loss of a stake acts ahead
//!   of its turn, and only until its turn comes.
//! - A row holds hashes of tokens, never tokens.

use serde::{Deserialize, Serialize};

use super::effects::Effect;
use super::limits::AHEAD_PER_NODE;
use crate::chain::{ChainEvent, EventId};
use crate::lifecycle::Stake;
use crate::token::TokenHash;
use crate::wire::Malformed;

/// Every row's key begins with this; the rest is the `node_id`.
const NODES_PREFIX: &str = "/nautilus/sui/nodes/";
/// Rows that say which nodes an owner has.
const OWNERS_PREFIX: &str = "/nautilus/sui/owners/";

/// A node as the chain's events tell of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChainNode {
    pub(crate) node_id: String,
    /// Absent until an event named it.
    pub(crate) owner: Option<String>,
    /// In MIST.
    pub(crate) stake_amount: u64,
    /// As of the events whose turn has come.
    stake: Stake,
    /// Of the token it was registered with.
    pub(crate) seal_token: Option<TokenHash>,
    /// Of the token that joins it.
    pub(crate) join_token: Option<TokenHash>,
    /// The transaction that registered it last.
    registered_in: Option<String>,
    /// Losses of the stake whose turn has not come.
    ahead: Vec<Loss>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Loss {
    id: EventId,
    checkpoint: u64,
    stake: Stake,
}

impl ChainNode {
    /// A node of which nothing is known.
    pub(crate) fn new(node_id: &str) -> Self {
        Self {
            node_id: node_id.to_owned(),
            owner: None,
            stake_amount: 0,
            stake: Stake::Active,
            seal_token: None,
            join_token: None,
            registered_in: None,
            ahead: Vec::new(),
        }
    }

    /// The row's key.
    pub(crate) fn key(node_id: &str) -> String {
        format!("{NODES_PREFIX}{node_id}")
    }

    /// What the keys of an owner's nodes begin with.
    pub(crate) fn owned_by(owner: &str) -> String {
        format!("{OWNERS_PREFIX}{owner}/")
    }

    /// The stake as it counts: what is lost ahead of its turn is lost.
    pub(crate) fn stake(&self) -> Stake {
        let ahead = self.ahead.iter().map(|loss| loss.stake);
        ahead.fold(self.stake, |worst, stake| match (worst, stake) {
            (Stake::Slashed, _) | (_, Stake::Slashed) => Stake::Slashed,
            (Stake::Active, stake) | (stake, Stake::Active) => stake,
            (lost, Stake::Withdrawn | Stake::Expired) => lost,
        })
    }

    /// Takes an event whose turn has come. `effect` is of this node.
    pub(crate) fn take(&mut self, event: &ChainEvent, effect: &Effect) -> Result<(), Malformed> {
        self.settle_ahead(event);
        match effect {
            Effect::Registered {
                owner,
                stake_amount,
                seal_token,
                ..
            } => {
                if self.owner.as_ref() != Some(owner) {
                    self.join_token = None;
                }
                self.owner = Some(owner.clone());
                self.stake_amount = *stake_amount;
                self.stake = Stake::Active;
                self.seal_token = *seal_token;
                self.registered_in = Some(event.id.tx_digest.clone());
            }
            Effect::StatusChanged { stake, .. } => self.stake = stake.unwrap_or(self.stake),
            Effect::Deposited { owner, amount, .. } => {
                if self.owner.as_ref().is_some_and(|own| own != owner) {
                    return Err(Malformed {
                        field: "owner".to_owned(),
                        reason: "is not the node's owner".to_owned(),
                    });
                }
                // A registration's own deposit is part of the stake that it names.
                if self.registered_in.as_ref() != Some(&event.id.tx_digest) {
                    self.stake_amount = self.stake_amount.saturating_add(*amount);
                }
            }
            Effect::JoinTokenSet { join_token, .. } => self.join_token = *join_token,
            Effect::Scheduled(_) | Effect::Reported { .. } | Effect::Assigned { .. } => {}
        }
        Ok(())
    }

    /// Takes the loss of the stake, in that checkpoint, ahead of its turn; false when it has no
    /// place.
    pub(crate) fn lose_ahead(&mut self, id: &EventId, checkpoint: u64, stake: Stake) -> bool {
        if self.is_ahead(id) || self.ahead.len() >= AHEAD_PER_NODE {
            return false;
        }
        self.ahead.push(Loss {
            id: id.clone(),
            checkpoint,
            stake,
        });
        true
    }

    /// What acted ahead ends with its turn. One whose turn was passed over, where an operator
    /// let the quorum go on behind it, counts as come.
    fn settle_ahead(&mut self, event: &ChainEvent) {
        for loss in std::mem::take(&mut self.ahead) {
            if loss.id == event.id {
                continue;
            }
            if event.checkpoint.is_some_and(|at| loss.checkpoint < at) {
                self.stake = loss.stake;
            } else {
                self.ahead.push(loss);
            }
        }
    }

    /// Whether its registration was read.
    pub(crate) fn is_registered(&self) -> bool {
        self.registered_in.is_some()
    }

    /// Whether the event acted ahead of its turn.
    pub(crate) fn is_ahead(&self, id: &EventId) -> bool {
        self.ahead.iter().any(|loss| loss.id == *id)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn event(tx: &str) -> ChainEvent {
        at(tx, 5)
    }

    fn at(tx: &str, checkpoint: u64) -> ChainEvent {
        ChainEvent {
            id: EventId {
                tx_digest: tx.into(),
                event_seq: 0,
            },
            module: String::new(),
            name: String::new(),
            sender: "0x1".into(),
            fields: Value::Null,
            timestamp_ms: 1,
            checkpoint: Some(checkpoint),
        }
    }

    fn registered(owner: &str, stake_amount: u64) -> Effect {
        Effect::Registered {
            node_id: "a".into(),
            owner: owner.into(),
            stake_amount,
            seal_token: None,
        }
    }

    fn status(stake: Stake) -> Effect {
        Effect::StatusChanged {
            node_id: "a".into(),
            stake: Some(stake),
        }
    }

    fn deposited(owner: &str, amount: u64) -> Effect {
        Effect::Deposited {
            node_id: "a".into(),
            owner: owner.into(),
            amount,
        }
    }

    fn after(events: &[(&str, Effect)]) -> ChainNode {
        let mut node = ChainNode::new("a");
        for (tx, effect) in events {
            node.take(&event(tx), effect).expect("taken");
        }
        node
    }

    #[test]
    fn a_registrations_own_deposit_is_counted_once_in_either_order() {
        let (register, deposit) = (registered("0x1", 10), deposited("0x1", 10));
        for events in [
            [("t1", register.clone()), ("t1", deposit.clone())],
            [("t1", deposit.clone()), ("t1", register.clone())],
        ] {
            assert_eq!(after(&events).stake_amount, 10);
        }
        let later = [("t1", register), ("t2", deposit)];
        assert_eq!(after(&later).stake_amount, 20);
    }

    #[test]
    fn a_strangers_deposit_is_refused() {
        let mut node = after(&[("t1", registered("0x1", 10))]);
        let refused = node.take(&event("t2"), &deposited("0x2", 5));
        assert!(refused.is_err());
        assert_eq!(node.stake_amount, 10);
    }

    #[test]
    fn a_loss_counts_ahead_of_its_turn_until_its_turn_has_come() {
        let mut node = after(&[("t1", registered("0x1", 10))]);
        assert!(node.lose_ahead(&event("t9").id, 9, Stake::Slashed));
        assert!(!node.lose_ahead(&event("t9").id, 9, Stake::Slashed), "once");
        node.take(&event("t5"), &status(Stake::Active))
            .expect("taken");
        assert_eq!(
            node.stake(),
            Stake::Slashed,
            "an older word restores nothing"
        );
        node.take(&at("t9", 9), &status(Stake::Slashed))
            .expect("taken");
        node.take(&at("t10", 10), &status(Stake::Active))
            .expect("taken");
        assert_eq!(node.stake(), Stake::Active, "a newer one does");
    }

    #[test]
    fn a_loss_whose_turn_was_passed_over_counts_as_come() {
        let mut node = after(&[("t1", registered("0x1", 10))]);
        assert!(node.lose_ahead(&event("t9").id, 9, Stake::Withdrawn));
        node.take(&at("t20", 20), &deposited("0x1", 1))
            .expect("taken");
        assert_eq!(node.stake(), Stake::Withdrawn);
        node.take(&at("t21", 21), &status(Stake::Active))
            .expect("taken");
        assert_eq!(node.stake(), Stake::Active);
    }

    #[test]
    fn another_owners_registration_takes_the_join_token_away() {
        let set = Effect::JoinTokenSet {
            node_id: "a".into(),
            join_token: Some(TokenHash([7; 32])),
        };
        let first = [("t1", registered("0x1", 1)), ("t2", set)];
        let mut node = after(&first);
        node.take(&event("t3"), &registered("0x1", 2))
            .expect("taken");
        assert!(node.join_token.is_some());
        node.take(&event("t4"), &registered("0x2", 2))
            .expect("taken");
        assert_eq!(node.join_token, None);
    }
}
