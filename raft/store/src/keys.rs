//! The root key and what is derived from it.
//!
//! All keys come from the quorum's root key by HKDF-SHA-256 (RFC 5869) with a label
//! for their purpose. Keys that encrypt also take a random salt of 32 bytes, drawn
//! anew for every opening of a directory and for every snapshot file, so that a
//! key, and with it a nonce, never comes back, not even on a disk that was rolled
//! back.
//!
//! Invariants
//! - No key leaves this crate but through [`RootKey::expose`], which exists to seal
//!   the root key to a platform or to hand it to an attested member.
//! - Secret types have neither `Debug` nor `Serialize`, and are wiped when dropped.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::{hmac, rand};
use nautilus_machine::DigestKey;
use zeroize::Zeroizing;

use crate::cipher::SealKey;

/// Bytes of a key and of a salt.
pub(crate) const KEY_BYTES: usize = 32;

/// The system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct KeyError;

/// The quorum's secret: the same on all members, made once, at genesis.
pub struct RootKey(Zeroizing<[u8; KEY_BYTES]>);

impl RootKey {
    /// Draws a new root key.
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(&mut bytes[..]).map_err(|_| KeyError)?;
        Ok(Self(bytes))
    }

    /// Takes 32 secret bytes that were unsealed.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The 32 bytes, to be sealed or handed to an attested member.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

/// Derives the keys of every purpose.
#[derive(Clone)]
pub struct Keyring {
    root: Arc<RootKey>,
}

impl Keyring {
    /// A keyring over the quorum's root key.
    pub fn new(root: RootKey) -> Self {
        Self {
            root: Arc::new(root),
        }
    }

    /// The key of the state's digest: the same on all members.
    pub fn digest_key(&self) -> DigestKey {
        DigestKey::new(&self.derive(&[], b"nautilus digest v1"))
    }

    /// The key under which one incarnation of a directory seals.
    pub(crate) fn epoch_key(&self, salt: &[u8; KEY_BYTES], epoch: u32) -> SealKey {
        self.aead_key(salt, &[b"nautilus data v1", &epoch.to_be_bytes()])
    }

    /// The key under which one snapshot file is sealed.
    pub(crate) fn snapshot_key(&self, salt: &[u8; KEY_BYTES]) -> SealKey {
        self.aead_key(salt, &[b"nautilus snapshot v1"])
    }

    /// The key that authenticates epoch tables and pointer files.
    pub(crate) fn table_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &*self.derive(&[], b"nautilus tables v1"))
    }

    fn aead_key(&self, salt: &[u8], info: &[&[u8]]) -> SealKey {
        let okm = self.extract(salt);
        let okm = okm.expand(info, &AES_256_GCM);
        let okm = okm.unwrap_or_else(|_| panic!("HKDF refused a key of 32 bytes"));
        SealKey::new(UnboundKey::from(okm))
    }

    fn derive(&self, salt: &[u8], label: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        let filled = self
            .extract(salt)
            .expand(&[label], ThirtyTwo)
            .and_then(|okm| okm.fill(&mut bytes[..]));
        assert!(filled.is_ok(), "HKDF refused a key of 32 bytes");
        bytes
    }

    fn extract(&self, salt: &[u8]) -> Prk {
        Salt::new(HKDF_SHA256, salt).extract(self.root.expose())
    }
}

/// A fresh salt.
pub(crate) fn fresh_salt() -> Result<[u8; KEY_BYTES], KeyError> {
    let mut salt = [0; KEY_BYTES];
    rand::fill(&mut salt).map_err(|_| KeyError)?;
    Ok(salt)
}

struct ThirtyTwo;

impl KeyType for ThirtyTwo {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}
