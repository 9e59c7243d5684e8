//! The root that signs simulated evidence: an ECDSA P-256 key in a file, made by
//! whoever starts a simulated quorum. Its public key is what a verifier trusts.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use zeroize::Zeroizing;

use crate::secret_file::{self, SecretFileError};

/// Bytes of an uncompressed P-256 point.
const PUBLIC_KEY_BYTES: usize = 65;
const FILE_HOLDS: &str = "an ECDSA P-256 private key in PKCS#8 (DER)";

/// The signing root of simulated evidence. Neither shown nor copied.
pub struct SimulatedRoot(EcdsaKeyPair);

impl SimulatedRoot {
    /// Reads the root from `path`, which is made on first use with mode 0600.
    pub fn load_or_create(path: &Path) -> Result<Self, SecretFileError> {
        match Self::load_if_there(path)? {
            Some(root) => Ok(root),
            None => Self::create(path),
        }
    }

    /// Reads the root from `path`, which must exist.
    pub fn load(path: &Path) -> Result<Self, SecretFileError> {
        Self::load_if_there(path)?.ok_or_else(|| SecretFileError::Io {
            path: path.to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        })
    }

    fn load_if_there(path: &Path) -> Result<Option<Self>, SecretFileError> {
        let Some(content) = secret_file::read(path)? else {
            return Ok(None);
        };
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &content).map_err(|_| {
                SecretFileError::Content {
                    path: path.to_owned(),
                    expected: FILE_HOLDS,
                }
            })?;
        Ok(Some(Self(key)))
    }

    fn create(path: &Path) -> Result<Self, SecretFileError> {
        let failed = |_| SecretFileError::Cryptography {
            path: path.to_owned(),
        };
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?;
        let document = Zeroizing::new(key.to_pkcs8v1().map_err(failed)?.as_ref().to_vec());
        secret_file::create(path, &document)?;
        Ok(Self(key))
    }

    /// The public half.
    pub fn public_key(&self) -> RootPublicKey {
        let mut point = [0; PUBLIC_KEY_BYTES];
        point.copy_from_slice(self.0.public_key().as_ref());
        RootPublicKey(point)
    }

    /// Signs `message` with ECDSA P-256 and SHA-256; `None` when the library fails.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        Some(
            self.0
                .sign(&SystemRandom::new(), message)
                .ok()?
                .as_ref()
                .to_vec(),
        )
    }
}

/// The public key of a [`SimulatedRoot`]: an uncompressed P-256 point, written in hex.
#[derive(Clone, PartialEq, Eq)]
pub struct RootPublicKey([u8; PUBLIC_KEY_BYTES]);

impl RootPublicKey {
    /// Whether `signature` over `message` holds under this key.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.0)
            .verify(message, signature)
            .is_ok()
    }

    /// The start of the key, for messages.
    pub(crate) fn shown(&self) -> String {
        format!("the simulated root {}…", hex::encode(&self.0[1..9]))
    }
}

impl fmt::Display for RootPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for RootPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RootPublicKey {
    type Err = RootPublicKeyError;

    fn from_str(text: &str) -> Result<Self, RootPublicKeyError> {
        let bytes = hex::decode(text.trim()).map_err(|_| RootPublicKeyError)?;
        let point: [u8; PUBLIC_KEY_BYTES] = bytes.try_into().map_err(|_| RootPublicKeyError)?;
        let key = aws_lc_rs::signature::ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
        key.map_err(|_| RootPublicKeyError)?;
        Ok(Self(point))
    }
}

/// Text that is no public key of a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a simulated root's public key is an uncompressed P-256 point in hex (130 characters)")]
pub struct RootPublicKeyError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_keeps_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root");
        let made = SimulatedRoot::load_or_create(&path).unwrap();
        let loaded = SimulatedRoot::load(&path).unwrap();
        assert_eq!(made.public_key(), loaded.public_key());
        assert!(SimulatedRoot::load(&folder.path().join("absent")).is_err());
    }

    #[test]
    fn a_public_key_is_read_from_the_text_it_writes() {
        let folder = tempfile::tempdir().unwrap();
        let key = SimulatedRoot::load_or_create(&folder.path().join("root"))
            .unwrap()
            .public_key();
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!("04ff".parse::<RootPublicKey>(), Err(RootPublicKeyError));
        assert_eq!(
            "04".repeat(PUBLIC_KEY_BYTES).parse::<RootPublicKey>(),
            Err(RootPublicKeyError)
        );
    }
}
