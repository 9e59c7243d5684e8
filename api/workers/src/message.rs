//! What nodes say to the leader's memory of the workers, and what it answers: one
//! version byte and postcard.
//!
//! Invariants: a message holds no token; one of another version is refused, not guessed.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::lifecycle::Stake;
use crate::roster::BeatFacts;
use crate::token::TokenHash;

/// Version of both enums below; grows with every change of them.
const VERSION: u8 = 2;

/// To the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LeaderMessage {
    /// A worker beat, and its token was found good.
    Beat {
        node_id: String,
        owner: String,
        stake: Option<Stake>,
        stake_amount: Option<u64>,
        running_pods: Option<u32>,
    },
    /// A judge found that the token speaks for this worker no more, and why.
    Refused {
        node_id: String,
        token: TokenHash,
        stake: Stake,
    },
}

/// From the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LeaderAnswer {
    Acknowledged,
    /// This node does not lead, or does not yet know who is registered.
    NotLeading,
    NotRegistered,
    NotOwner,
    /// There are as many workers as one quorum takes.
    Full,
}

impl LeaderMessage {
    pub(crate) fn beat(node_id: &str, owner: String, facts: BeatFacts) -> Self {
        Self::Beat {
            node_id: node_id.to_owned(),
            owner,
            stake: facts.stake,
            stake_amount: facts.stake_amount,
            running_pods: facts.running_pods,
        }
    }
}

pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Bytes, String> {
    postcard::to_extend(message, vec![VERSION])
        .map(Bytes::from)
        .map_err(|error| format!("a worker message can't be written: {error}"))
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match bytes.split_first() {
        Some((&VERSION, message)) => postcard::from_bytes(message)
            .map_err(|error| format!("a worker message can't be read: {error}")),
        Some((other, _)) => Err(format!(
            "a worker message of version {other}; this node speaks version {VERSION}"
        )),
        None => Err("an empty worker message".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_another_version_is_refused_by_name() {
        let message = LeaderMessage::Refused {
            node_id: "a".into(),
            token: TokenHash([1; 32]),
            stake: Stake::Slashed,
        };
        let mut bytes = encode(&message).expect("writable").to_vec();
        assert_eq!(decode::<LeaderMessage>(&bytes), Ok(message));
        bytes[0] = 9;
        let error = decode::<LeaderMessage>(&bytes).expect_err("refused");
        assert!(error.contains("version 9"), "{error}");
    }
}
