//! AES-256-GCM, or nothing at all in a build that measures what it costs.
//!
//! The feature `null-cipher` replaces it by copying: same records, no secrecy and no
//! authenticity. It exists so that a benchmark can tell the price of encryption. A
//! build for shipping (`make dist`: one that is told its commit) does not compile
//! with it.
//!
//! Invariant: without the feature, nothing opens that does not authenticate.

#[cfg(not(feature = "null-cipher"))]
use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use aws_lc_rs::aead::{NONCE_LEN, UnboundKey};

/// Bytes of a nonce.
pub(crate) const NONCE_BYTES: usize = NONCE_LEN;
/// Bytes of a tag.
pub(crate) const TAG_BYTES: usize = 16;

/// Whether this build encrypts: false with the feature `null-cipher` only, which
/// serves benchmarks. Whoever starts a node must say so and refuse real data.
pub const ENCRYPTS: bool = cfg!(not(feature = "null-cipher"));

const _: () = assert!(
    ENCRYPTS || option_env!("NAUTILUS_GIT_COMMIT").is_none(),
    "a build for shipping encrypts: take the feature `null-cipher` out"
);

/// Why a text did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// Shorter than a tag.
    Short,
    /// Changed, or sealed for another place.
    Unauthentic,
}

/// A key that seals. Never give it a nonce twice.
#[cfg(not(feature = "null-cipher"))]
pub(crate) struct SealKey(LessSafeKey);

#[cfg(not(feature = "null-cipher"))]
impl SealKey {
    pub(crate) fn new(key: UnboundKey) -> Self {
        Self(LessSafeKey::new(key))
    }

    /// Encrypts in place; gives the tag.
    pub(crate) fn seal(
        &self,
        nonce: [u8; NONCE_BYTES],
        bound: &[u8],
        text: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let bytes = text.len();
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(bound), text)
            .unwrap_or_else(|_| panic!("a record of {bytes} bytes is too long"));
        let mut fixed = [0; TAG_BYTES];
        fixed.copy_from_slice(tag.as_ref());
        fixed
    }

    /// Opens ciphertext and tag into `plain`, whose content is replaced.
    pub(crate) fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        bound: &[u8],
        sealed: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), OpenError> {
        let (text, tag) = split(sealed)?;
        plain.clear();
        plain.resize(text.len(), 0);
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0
            .open_separate_gather(nonce, Aad::from(bound), text, tag, plain)
            .map_err(|_| OpenError::Unauthentic)
    }
}

/// No cipher: for benchmarks only.
#[cfg(feature = "null-cipher")]
pub(crate) struct SealKey;

#[cfg(feature = "null-cipher")]
impl SealKey {
    pub(crate) fn new(_key: UnboundKey) -> Self {
        Self
    }

    pub(crate) fn seal(
        &self,
        _nonce: [u8; NONCE_BYTES],
        _bound: &[u8],
        _text: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        [0; TAG_BYTES]
    }

    pub(crate) fn open(
        &self,
        _nonce: [u8; NONCE_BYTES],
        _bound: &[u8],
        sealed: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), OpenError> {
        let (text, tag) = split(sealed)?;
        if tag != [0; TAG_BYTES] {
            return Err(OpenError::Unauthentic);
        }
        plain.clear();
        plain.extend_from_slice(text);
        Ok(())
    }
}

fn split(sealed: &[u8]) -> Result<(&[u8], &[u8]), OpenError> {
    let text_bytes = sealed
        .len()
        .checked_sub(TAG_BYTES)
        .ok_or(OpenError::Short)?;
    Ok(sealed.split_at(text_bytes))
}
