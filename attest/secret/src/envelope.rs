//! A secret on its way to one process: encrypted to a key that the receiver made for
//! this one time.
//!
//! HPKE (RFC 9180) in base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
//! An envelope is the encapsulated key (32 bytes), then the ciphertext. The sender
//! must know the receiver's key from a channel that vouches for it; what the secret
//! is for is bound as HPKE's `info`, the receiver's key once more as associated data.
//!
//! It is written out here because libraries leave the opened bytes behind in memory
//! that they free; a test compares it with one of them.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::hmac;
use zeroize::{Zeroize as _, Zeroizing};

/// Bytes of a receiver's public key.
pub const PUBLIC_KEY_BYTES: usize = 32;
const ENCAPSULATED_BYTES: usize = 32;

/// Why an envelope was not made or not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// No random bytes, or the library failed.
    #[error("the cryptographic library made no key")]
    Cryptography,
    /// The receiver's key is none.
    #[error("the receiver's public key is not {PUBLIC_KEY_BYTES} bytes of X25519")]
    PublicKey,
    /// Altered, for another key, or for another purpose.
    #[error("the envelope does not open: it was altered, or is for another key or another purpose")]
    Sealed,
}

/// A receiver's key, for one envelope.
pub struct EphemeralKey {
    private: PrivateKey,
    public: [u8; PUBLIC_KEY_BYTES],
}

impl EphemeralKey {
    /// Draws one.
    pub fn generate() -> Result<Self, EnvelopeError> {
        let private = PrivateKey::generate(&X25519).map_err(|_| EnvelopeError::Cryptography)?;
        let public = public_key(&private)?;
        Ok(Self { private, public })
    }

    /// What the sender encrypts to.
    pub fn public_key(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        &self.public
    }

    /// Opens what [`seal_to`] made for this key and `purpose`.
    pub fn open(
        &self,
        purpose: &[u8],
        envelope: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
        let (encapsulated, sealed) = envelope.split_first_chunk().ok_or(EnvelopeError::Sealed)?;
        let context = [&encapsulated[..], &self.public].concat();
        let cipher = Cipher::agree(&self.private, encapsulated, &context, purpose);
        let Cipher { key, nonce } = cipher.ok_or(EnvelopeError::Sealed)?;
        let mut opened = Zeroizing::new(sealed.to_vec());
        let length = key
            .open_in_place(nonce, Aad::from(&self.public), &mut opened)
            .map_err(|_| EnvelopeError::Sealed)?
            .len();
        opened.truncate(length);
        Ok(opened)
    }
}

/// Encrypts `secret` so that only the owner of `public_key` reads it, and only for
/// `purpose`.
pub fn seal_to(public_key: &[u8], purpose: &[u8], secret: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let receiver: &[u8; PUBLIC_KEY_BYTES] = public_key
        .try_into()
        .map_err(|_| EnvelopeError::PublicKey)?;
    let sender = EphemeralKey::generate()?;
    let context = [&sender.public[..], &receiver[..]].concat();
    let cipher = Cipher::agree(&sender.private, receiver, &context, purpose);
    let Cipher { key, nonce } = cipher.ok_or(EnvelopeError::PublicKey)?;
    // Of the whole length at once: a vector that grows leaves what it held behind.
    let length = ENCAPSULATED_BYTES + secret.len() + AES_256_GCM.tag_len();
    let mut envelope = Vec::with_capacity(length);
    envelope.extend_from_slice(&sender.public);
    envelope.extend_from_slice(secret);
    let sealed = key.seal_in_place_separate_tag(
        nonce,
        Aad::from(receiver),
        &mut envelope[ENCAPSULATED_BYTES..],
    );
    let Ok(tag) = sealed else {
        envelope.zeroize();
        return Err(EnvelopeError::Cryptography);
    };
    envelope.extend_from_slice(tag.as_ref());
    Ok(envelope)
}

fn public_key(private: &PrivateKey) -> Result<[u8; PUBLIC_KEY_BYTES], EnvelopeError> {
    let public = private.compute_public_key();
    let public = public.map_err(|_| EnvelopeError::Cryptography)?;
    public
        .as_ref()
        .try_into()
        .map_err(|_| EnvelopeError::Cryptography)
}

/// What seals or opens one envelope.
struct Cipher {
    key: LessSafeKey,
    nonce: Nonce,
}

impl Cipher {
    /// Sections 4.1 and 5.1 of the RFC; `None` for a key on which nobody can agree.
    fn agree(
        own: &PrivateKey,
        theirs: &[u8; PUBLIC_KEY_BYTES],
        context: &[u8],
        info: &[u8],
    ) -> Option<Self> {
        /// "KEM" and "HPKE", each with the numbers of its algorithms.
        const KEM: &[u8] = b"KEM\x00\x20";
        const SUITE: &[u8] = b"HPKE\x00\x20\x00\x01\x00\x02";
        const BASE_MODE: u8 = 0;
        let theirs = UnparsedPublicKey::new(&X25519, theirs);
        let shared = agreement::agree(own, theirs, (), |agreed| {
            let extracted = extract(KEM, &[], b"eae_prk", agreed);
            Ok(expand::<32>(KEM, &extracted, b"shared_secret", context))
        })
        .ok()?;
        let schedule = [
            &[BASE_MODE][..],
            &extract(SUITE, &[], b"psk_id_hash", &[])[..],
            &extract(SUITE, &[], b"info_hash", info)[..],
        ]
        .concat();
        let secret = extract(SUITE, &shared[..], b"secret", &[]);
        let key = expand::<32>(SUITE, &secret, b"key", &schedule);
        let nonce = expand::<NONCE_LEN>(SUITE, &secret, b"base_nonce", &schedule);
        let key = UnboundKey::new(&AES_256_GCM, &key[..]).ok()?;
        Some(Self {
            key: LessSafeKey::new(key),
            nonce: Nonce::assume_unique_for_key(*nonce),
        })
    }
}

/// LabeledExtract.
fn extract(suite: &[u8], salt: &[u8], label: &[u8], secret: &[u8]) -> Zeroizing<[u8; 32]> {
    mac(salt, &[VERSION, suite, label, secret])
}

/// LabeledExpand to at most 32 bytes.
fn expand<const N: usize>(
    suite: &[u8],
    secret: &[u8; 32],
    label: &[u8],
    info: &[u8],
) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 32) };
    let block = mac(
        secret,
        &[&(N as u16).to_be_bytes(), VERSION, suite, label, info, &[1]],
    );
    let mut expanded = Zeroizing::new([0; N]);
    expanded.copy_from_slice(&block[..N]);
    expanded
}

const VERSION: &[u8] = b"HPKE-v1";

fn mac(key: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut context = hmac::Context::with_key(&key);
    for part in parts {
        context.update(part);
    }
    let mut out = Zeroizing::new([0; 32]);
    out.copy_from_slice(context.sign().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
    use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePublicKey};

    use super::*;

    #[test]
    fn another_implementation_opens_it_and_is_opened() {
        let key = EphemeralKey::generate().unwrap();
        let receiver = HpkePublicKey(key.public_key().to_vec());
        let (encapsulated, sealed) = SUITE
            .seal(b"joining", key.public_key(), &[7; 100], &receiver)
            .unwrap();
        let envelope = [encapsulated.0, sealed].concat();
        assert_eq!(key.open(b"joining", &envelope).unwrap()[..], [7; 100]);

        let (public, private) = SUITE.generate_key_pair().unwrap();
        let envelope = seal_to(&public.0, b"joining", &[8; 100]).unwrap();
        let encapsulated = EncapsulatedSecret(envelope[..32].to_vec());
        let opened = SUITE.open(
            &encapsulated,
            b"joining",
            &public.0,
            &envelope[32..],
            &private,
        );
        assert_eq!(opened.unwrap(), [8; 100]);
    }

    #[test]
    fn the_receiver_opens_it() {
        let key = EphemeralKey::generate().unwrap();
        let envelope = seal_to(key.public_key(), b"joining", &[7; 32]).unwrap();
        assert!(!envelope.windows(8).any(|window| window == [7; 8]));
        let opened = key.open(b"joining", &envelope).unwrap();
        assert_eq!(opened[..], [7; 32]);
    }

    #[test]
    fn nobody_else_does_and_not_for_another_purpose() {
        let key = EphemeralKey::generate().unwrap();
        let envelope = seal_to(key.public_key(), b"joining", &[7; 32]).unwrap();
        let other = EphemeralKey::generate().unwrap();
        assert!(other.open(b"joining", &envelope).is_err());
        assert!(key.open(b"recovery", &envelope).is_err());
        for at in 0..envelope.len() {
            let mut altered = envelope.clone();
            altered[at] ^= 1;
            assert!(key.open(b"joining", &altered).is_err(), "byte {at}");
        }
        assert!(key.open(b"joining", &envelope[..20]).is_err());
    }

    #[test]
    fn what_is_no_key_gets_nothing() {
        assert_eq!(
            seal_to(&[1; 31], b"joining", b"x"),
            Err(EnvelopeError::PublicKey)
        );
        // The point of order one would make every shared secret the same.
        assert_eq!(
            seal_to(&[0; 32], b"joining", b"x"),
            Err(EnvelopeError::PublicKey)
        );
    }
}
