//! A secret on its way to one process: encrypted to a key that the receiver made for
//! this one time.
//!
//! HPKE (RFC 9180) in base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
//! An envelope is the encapsulated key (32 bytes), then the ciphertext. The sender
//! must know the receiver's key from a channel that vouches for it; what the secret
//! is for is bound as HPKE's `info`.

use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey};
use zeroize::Zeroizing;

use crate::secret::Secret;

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
    private: Secret<32>,
    public: [u8; PUBLIC_KEY_BYTES],
}

impl EphemeralKey {
    /// Draws one.
    pub fn generate() -> Result<Self, EnvelopeError> {
        let (public, private) = SUITE
            .generate_key_pair()
            .map_err(|_| EnvelopeError::Cryptography)?;
        let private = Secret::from_slice(private.secret_bytes());
        Ok(Self {
            private: private.ok_or(EnvelopeError::Cryptography)?,
            public: public
                .0
                .try_into()
                .map_err(|_| EnvelopeError::Cryptography)?,
        })
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
        let (encapsulated, sealed) = envelope
            .split_at_checked(ENCAPSULATED_BYTES)
            .ok_or(EnvelopeError::Sealed)?;
        let private = HpkePrivateKey::from(self.private.expose().to_vec());
        let encapsulated = EncapsulatedSecret(encapsulated.to_vec());
        let opened = SUITE.open(&encapsulated, purpose, &self.public, sealed, &private);
        opened
            .map(Zeroizing::new)
            .map_err(|_| EnvelopeError::Sealed)
    }
}

/// Encrypts `secret` so that only the owner of `public_key` reads it, and only for
/// `purpose`.
pub fn seal_to(public_key: &[u8], purpose: &[u8], secret: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    if public_key.len() != PUBLIC_KEY_BYTES {
        return Err(EnvelopeError::PublicKey);
    }
    let receiver = HpkePublicKey(public_key.to_vec());
    let (encapsulated, sealed) = SUITE
        .seal(purpose, public_key, secret, &receiver)
        .map_err(|_| EnvelopeError::PublicKey)?;
    Ok([encapsulated.0, sealed].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

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
