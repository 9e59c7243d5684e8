//! The operators' public keys: Ed25519 or ECDSA P-256.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

/// What precedes the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410).
const ED25519_PREFIX: &[u8] = &[
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
const ED25519_BYTES: usize = 32;
/// What precedes the 65 bytes of an uncompressed P-256 point in a SubjectPublicKeyInfo
/// (RFC 5480).
const P256_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const P256_BYTES: usize = 65;

/// A person who may sign changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorKey {
    /// The user name.
    pub name: String,
    /// The key that signs.
    pub public_key: PublicKey,
}

/// An Ed25519 or P-256 public key. Shown and read as the lower-case hex of its DER
/// SubjectPublicKeyInfo, in the one encoding of each algorithm.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(Vec<u8>);

/// Why bytes or text are no such key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Another algorithm, curve or encoding.
    #[error(
        "an operator's key is Ed25519 or ECDSA P-256 (uncompressed), as a DER SubjectPublicKeyInfo"
    )]
    Algorithm,
    /// Not hex.
    #[error("an operator's key is written as the hex of its DER SubjectPublicKeyInfo: {0}")]
    Hex(String),
}

impl PublicKey {
    /// From DER. Whether the point is on its curve shows when a signature is verified.
    ///
    /// # Errors
    /// `Algorithm`.
    pub fn from_spki(der: impl Into<Vec<u8>>) -> Result<Self, PublicKeyError> {
        let der = der.into();
        let is = |prefix: &[u8], bytes: usize| {
            der.strip_prefix(prefix)
                .is_some_and(|key| key.len() == bytes)
        };
        if is(ED25519_PREFIX, ED25519_BYTES) || is(P256_PREFIX, P256_BYTES) {
            Ok(Self(der))
        } else {
            Err(PublicKeyError::Algorithm)
        }
    }

    /// DER of its SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        &self.0
    }

    /// SHA-256 of the SubjectPublicKeyInfo in lower-case hex: the key's name.
    pub fn fingerprint(&self) -> String {
        hex::encode(digest::digest(&digest::SHA256, &self.0))
    }

    /// Whether `signature` is this key's over `message`. An ECDSA signature is ASN.1
    /// over SHA-256.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self.0.strip_prefix(ED25519_PREFIX) {
            Some(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
            None => {
                let point = &self.0[P256_PREFIX.len()..];
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature)
            }
        };
        verified.is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = PublicKeyError;

    fn from_str(text: &str) -> Result<Self, PublicKeyError> {
        let der = hex::decode(text).map_err(|error| PublicKeyError::Hex(error.to_string()))?;
        Self::from_spki(der)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = PublicKeyError;

    fn try_from(text: String) -> Result<Self, PublicKeyError> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}
