//! What of a verdict is replicated: one row for each token and node, one for the key that a token
//! is bound to, and one for each node whose verdicts an event of the chain has put an end to.
//!
//! ```text
//! /nautilus/seal/verdicts/<node id>/<hash of the token>   a verdict and its evidence
//! /nautilus/seal/verdicts/<node id>/evicted               the last eviction: fences judgements of before
//! /nautilus/seal/keys/<hash of the token>            whose connection may use the token
//! ```
//! Invariant: hashes of tokens and public keys, never a token.

use bytes::Bytes;
use nautilus_machine::{KeyRange, KeyValue};
use serde::{Deserialize, Serialize};

use crate::chain::ChainEvidence;
use crate::judge::Verdict;
use crate::token::{HashText, TokenHash};

/// Every row of this module.
pub(crate) const PREFIX: &str = "/nautilus/seal/";
/// Every verdict's key begins with this.
pub const VERDICTS_PREFIX: &str = "/nautilus/seal/verdicts/";
/// Every bound key's key begins with this.
pub const SEAL_KEYS_PREFIX: &str = "/nautilus/seal/keys/";
/// In the place of a token's hash, in the row of a node's last eviction.
const EVICTED: &str = "evicted";

/// A verdict as every node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictRow {
    /// What was found.
    pub verdict: Verdict,
    /// By which state of the chain.
    pub evidence: Option<ChainEvidence>,
    /// When, in Unix milliseconds by the clock of the node that asked.
    pub judged_at_ms: u64,
}

/// The client key that a token is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundKey {
    /// SHA-256 of the key's SPKI; `None` where the owner freed the token.
    pub key: Option<KeyHash>,
    /// Timestamp of the last proof of the owner that bound or freed it, in Unix seconds: an older
    /// one, or the same again, binds nothing.
    pub proved_at_s: Option<i64>,
    /// When the token ends, in Unix seconds, as far as was known then.
    pub token_expires_at_s: Option<u64>,
    /// When it was bound, in Unix milliseconds by the clock of the node that did.
    pub bound_at_ms: u64,
}

/// SHA-256 over the SPKI of a client key, in hex where it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "HashText", into = "HashText")]
pub struct KeyHash(pub [u8; 32]);

impl From<KeyHash> for HashText {
    fn from(hash: KeyHash) -> Self {
        TokenHash(hash.0).into()
    }
}

impl TryFrom<HashText> for KeyHash {
    type Error = hex::FromHexError;

    fn try_from(text: HashText) -> Result<Self, Self::Error> {
        TokenHash::try_from(text).map(|hash| Self(hash.0))
    }
}

/// What a row's key says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowKey<'a> {
    Verdict { node_id: &'a str, token: TokenHash },
    Evicted { node_id: &'a str },
    Key { token: TokenHash },
}

impl<'a> RowKey<'a> {
    pub(crate) fn parse(key: &'a [u8]) -> Option<Self> {
        let key = std::str::from_utf8(key).ok()?;
        if let Some(hash) = key.strip_prefix(SEAL_KEYS_PREFIX) {
            return Some(Self::Key {
                token: hash_of(hash)?,
            });
        }
        let (node_id, last) = key.strip_prefix(VERDICTS_PREFIX)?.rsplit_once('/')?;
        if last == EVICTED {
            return Some(Self::Evicted { node_id });
        }
        Some(Self::Verdict {
            node_id,
            token: hash_of(last)?,
        })
    }
}

pub(crate) fn verdict_key(node_id: &str, token: &TokenHash) -> String {
    format!("{VERDICTS_PREFIX}{node_id}/{}", hex::encode(token.0))
}

pub(crate) fn evicted_key(node_id: &str) -> String {
    format!("{VERDICTS_PREFIX}{node_id}/{EVICTED}")
}

pub(crate) fn bound_key(token: &TokenHash) -> String {
    format!("{SEAL_KEYS_PREFIX}{}", hex::encode(token.0))
}

/// Everything about one node.
pub(crate) fn of_node(node_id: &str) -> KeyRange {
    KeyRange::prefix(format!("{VERDICTS_PREFIX}{node_id}/"))
}

/// A row's value.
pub(crate) fn read<T: serde::de::DeserializeOwned>(kv: &KeyValue) -> Result<T, String> {
    serde_json::from_slice(&kv.value).map_err(|error| {
        let key = String::from_utf8_lossy(&kv.key);
        format!("the row {key} can't be read: {error}")
    })
}

/// A row's bytes.
pub(crate) fn write<T: Serialize>(row: &T) -> Bytes {
    // Strings, numbers and enums of them: nothing that JSON can refuse.
    serde_json::to_vec(row).map(Bytes::from).unwrap_or_default()
}

fn hash_of(text: &str) -> Option<TokenHash> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).ok()?;
    Some(TokenHash(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_whose_row_it_is() {
        let token = TokenHash([7; 32]);
        for (key, expected) in [
            (
                verdict_key("a.b", &token),
                Some(RowKey::Verdict {
                    node_id: "a.b",
                    token,
                }),
            ),
            (evicted_key("a.b"), Some(RowKey::Evicted { node_id: "a.b" })),
            (bound_key(&token), Some(RowKey::Key { token })),
            ("/nautilus/seal/verdicts/a/zz".to_owned(), None),
            ("/nautilus/workers/a".to_owned(), None),
        ] {
            assert_eq!(RowKey::parse(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn a_row_survives_its_text() {
        let row = VerdictRow {
            verdict: Verdict::Active {
                owner: "0xa1".into(),
                stake_amount: u64::MAX,
                expires_at: None,
            },
            evidence: Some(ChainEvidence {
                object_id: "0x1".into(),
                version: 3,
                digest: "d".into(),
                checkpoint: Some(9),
            }),
            judged_at_ms: 5,
        };
        let text = write(&row);
        assert_eq!(
            serde_json::from_slice::<VerdictRow>(&text).expect("a row"),
            row
        );
        let bound = BoundKey {
            key: Some(KeyHash([1; 32])),
            proved_at_s: Some(-1),
            token_expires_at_s: None,
            bound_at_ms: 5,
        };
        let text = write(&bound);
        assert_eq!(
            serde_json::from_slice::<BoundKey>(&text).expect("a row"),
            bound
        );
    }
}
