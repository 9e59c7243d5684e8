//! What nodes say to the leader's memory of the workers, and what it answers: one
//! version byte and postcard.
//!
//! Invariants: a message holds no token; one of another version is refused, not guessed;
//! a message may be told twice, for it then says what is known already.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::lifecycle::Stake;
use crate::load::LoadReport;
use crate::roster::BeatFacts;
use crate::token::TokenHash;

/// Version of all types below; grows with every change of them.
const VERSION: u8 = 5;

/// To the leader. Read in place: what it names points into the message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum LeaderMessage<'a> {
    /// Workers beat, and their tokens were found good.
    #[serde(borrow)]
    Beats(Vec<Beat<'a>>),
    /// How busy are these workers?
    Loads(#[serde(borrow)] Vec<&'a str>),
    /// The chain has events that are to be read.
    Hinted,
    /// A judge found that the token speaks for this worker no more, and why.
    Refused {
        node_id: &'a str,
        token: TokenHash,
        stake: Stake,
    },
}

/// One worker's beat.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Beat<'a> {
    pub(crate) node_id: &'a str,
    pub(crate) owner: &'a str,
    pub(crate) facts: BeatFacts,
}

/// From the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LeaderAnswer {
    /// To each of the beats, in their order.
    Beats(Vec<BeatAnswer>),
    /// Of each of the workers, in their order; `None` of one that has not said it, or is
    /// silent.
    Loads(Vec<Option<LoadReport>>),
    /// What was found is noted.
    Noted,
    /// This node does not lead, or does not yet know who is registered.
    NotLeading,
}

/// What became of one beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum BeatAnswer {
    Acknowledged,
    NotRegistered,
    NotOwner,
    /// There are as many workers as one quorum takes.
    Full,
}

pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Bytes, String> {
    postcard::to_extend(message, vec![VERSION])
        .map(Bytes::from)
        .map_err(|error| format!("a worker message can't be written: {error}"))
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
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
            node_id: "a",
            token: TokenHash([1; 32]),
            stake: Stake::Slashed,
        };
        let mut bytes = encode(&message).expect("writable").to_vec();
        assert_eq!(decode::<LeaderMessage<'_>>(&bytes), Ok(message));
        bytes[0] = 9;
        let error = decode::<LeaderMessage<'_>>(&bytes).expect_err("refused");
        assert!(error.contains("version 9"), "{error}");
    }

    #[test]
    fn a_beat_is_read_in_place() {
        let beats = vec![Beat {
            node_id: "worker-1",
            owner: "0xa1",
            facts: BeatFacts::default(),
        }];
        let bytes = encode(&LeaderMessage::Beats(beats)).expect("writable");
        let Ok(LeaderMessage::Beats(read)) = decode(&bytes) else {
            panic!("beats were written");
        };
        assert!(bytes.as_ptr_range().contains(&read[0].node_id.as_ptr()));
    }
}
