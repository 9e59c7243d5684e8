//! Seal tokens in memory: wiped when dropped, compared in constant time, shown by nothing.
//!
//! Invariant: no token leaves this process except to its judge; rows and messages
//! carry a [`TokenHash`].

use aws_lc_rs::{constant_time, digest};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::limits::TOKEN_LIMIT_BYTES;

/// Separates this hash from every other use of SHA-256 on the same bytes.
const HASH_LABEL: &[u8] = b"nautilus seal token v1\0";

/// A token as a worker presented it. Has neither `Debug` nor `Serialize`.
pub struct SealToken(Zeroizing<String>);

impl SealToken {
    /// Takes a presented token; `None` when it is empty or longer than the limit.
    pub fn new(presented: String) -> Option<Self> {
        let token = Zeroizing::new(presented);
        (!token.is_empty() && token.len() <= TOKEN_LIMIT_BYTES).then_some(Self(token))
    }

    /// The token itself, for its judge.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What may be stored of it.
    pub fn hash(&self) -> TokenHash {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(HASH_LABEL);
        context.update(self.0.as_bytes());
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        TokenHash(hash)
    }

    /// Whether both are the same, in constant time for equal lengths.
    pub fn same_as(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(self.0.as_bytes(), other.0.as_bytes()).is_ok()
    }
}

/// SHA-256 of a token under a label of ours. Seal tokens are random, so the hash
/// tells nothing about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "HashText", into = "HashText")]
pub struct TokenHash(pub [u8; 32]);

/// Hex on the wire and in rows.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct HashText(String);

impl From<TokenHash> for HashText {
    fn from(hash: TokenHash) -> Self {
        Self(hex::encode(hash.0))
    }
}

impl TryFrom<HashText> for TokenHash {
    type Error = hex::FromHexError;

    fn try_from(text: HashText) -> Result<Self, Self::Error> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text.0, &mut hash)?;
        Ok(Self(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_neither_empty_nor_longer_than_the_limit() {
        assert!(SealToken::new(String::new()).is_none());
        assert!(SealToken::new("x".repeat(TOKEN_LIMIT_BYTES)).is_some());
        assert!(SealToken::new("x".repeat(TOKEN_LIMIT_BYTES + 1)).is_none());
    }

    #[test]
    fn a_hash_survives_its_text_form() {
        let hash = SealToken::new("seal-1".into())
            .expect("short enough")
            .hash();
        let text = serde_json::to_string(&hash).expect("a string");
        assert_eq!(text.len(), 2 + 64);
        assert_eq!(
            serde_json::from_str::<TokenHash>(&text).expect("the same"),
            hash
        );
    }
}
