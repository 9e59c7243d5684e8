//! Sessions: what authorizes a command, authenticates its answer, and hides the one
//! parameter that is secret.
//!
//! Every session is salted: its key is agreed with the storage key, whose private half
//! only the TPM has, so that nobody on the bus can read, alter or answer (TPM 2.0
//! Library, part 1, "Session-Based Authorizations" and "Session-Based Encryption").

use aws_lc_rs::agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::cipher::{
    AES_128, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{digest, hmac, rand};
use nautilus_attest_secret::Secret;
use zeroize::Zeroizing;

use super::TpmError;
use super::wire::Body;

/// Bytes of SHA-256, of nonces and of keys.
pub(super) const DIGEST_BYTES: usize = 32;
/// Bytes of a coordinate on P-256.
const COORDINATE_BYTES: usize = 32;
const AES_KEY_BYTES: usize = 16;
const AES_BLOCK_BYTES: usize = 16;

/// TPMA_SESSION: the session lives on, the command's first parameter is encrypted, the
/// answer's is, the session only watches.
pub(super) const CONTINUE: u8 = 1;
pub(super) const DECRYPT: u8 = 1 << 5;
pub(super) const ENCRYPT: u8 = 1 << 6;
pub(super) const AUDIT: u8 = 1 << 7;

/// A salt for a new session, and what tells it to the TPM alone.
pub(super) struct Salt {
    pub(super) key: Secret<DIGEST_BYTES>,
    /// TPM2B_ENCRYPTED_SECRET's content: an ephemeral point.
    pub(super) encrypted: Vec<u8>,
}

impl Salt {
    /// Agrees on a salt with the storage key at the point (`x`, `y`).
    pub(super) fn agree(x: &[u8], y: &[u8]) -> Result<Self, TpmError> {
        let own = PrivateKey::generate(&ECDH_P256).map_err(|_| TpmError::Cryptography)?;
        let public = own
            .compute_public_key()
            .map_err(|_| TpmError::Cryptography)?;
        let own_x = coordinate(public.as_ref(), 0)?;
        let own_y = coordinate(public.as_ref(), 1)?;
        let point = [&[4][..], &padded(x)?, &padded(y)?].concat();
        let peer = UnparsedPublicKey::new(&ECDH_P256, &point);
        let key = agreement::agree(&own, peer, TpmError::Cryptography, |shared| {
            Secret::try_fill(|key| {
                kdfe(shared, b"SECRET", own_x, &padded(x)?, key);
                Ok(())
            })
        })?;
        let encrypted = Body::new().sized(own_x).sized(own_y).into_bytes();
        Ok(Self { key, encrypted })
    }
}

fn coordinate(point: &[u8], number: usize) -> Result<&[u8], TpmError> {
    let at = 1 + number * COORDINATE_BYTES;
    point
        .get(at..at + COORDINATE_BYTES)
        .ok_or(TpmError::Cryptography)
}

/// A coordinate whose leading zeroes the TPM left out.
fn padded(coordinate: &[u8]) -> Result<[u8; COORDINATE_BYTES], TpmError> {
    let mut padded = [0; COORDINATE_BYTES];
    let start = COORDINATE_BYTES
        .checked_sub(coordinate.len())
        .ok_or(TpmError::Answer("its storage key is on no P-256"))?;
    padded[start..].copy_from_slice(coordinate);
    Ok(padded)
}

/// A session that was started.
pub(super) struct Session {
    pub(super) handle: u32,
    key: Secret<DIGEST_BYTES>,
    own_nonce: [u8; DIGEST_BYTES],
    tpm_nonce: Vec<u8>,
}

impl Session {
    /// The session of `handle`, whose two first nonces are known.
    pub(super) fn new(
        handle: u32,
        salt: &Salt,
        own_nonce: [u8; DIGEST_BYTES],
        tpm_nonce: &[u8],
    ) -> Self {
        let key = Secret::try_fill(|key| {
            kdfa(salt.key.expose(), b"ATH", tpm_nonce, &own_nonce, key);
            Ok::<_, std::convert::Infallible>(())
        });
        let key = match key {
            Ok(key) => key,
            Err(never) => match never {},
        };
        Self {
            handle,
            key,
            own_nonce,
            tpm_nonce: tpm_nonce.to_vec(),
        }
    }

    /// A new nonce for the next command.
    pub(super) fn turn(&mut self) -> Result<(), TpmError> {
        rand::fill(&mut self.own_nonce).map_err(|_| TpmError::Cryptography)
    }

    /// Encrypts the first parameter of the command to come.
    pub(super) fn encrypt(&self, parameter: &mut [u8]) -> Result<(), TpmError> {
        let (key, iv) = self.cipher(&self.own_nonce, &self.tpm_nonce)?;
        EncryptingKey::cfb128(key)
            .and_then(|key| {
                key.less_safe_encrypt(parameter, EncryptionContext::Iv128(FixedLength::from(iv)))
            })
            .map(|_| ())
            .map_err(|_| TpmError::Cryptography)
    }

    /// Decrypts the first parameter of an answer that was verified.
    pub(super) fn decrypt(&self, parameter: &mut [u8]) -> Result<(), TpmError> {
        let (key, iv) = self.cipher(&self.tpm_nonce, &self.own_nonce)?;
        DecryptingKey::cfb128(key)
            .and_then(|key| {
                key.decrypt(parameter, DecryptionContext::Iv128(FixedLength::from(iv)))
                    .map(|_| ())
            })
            .map_err(|_| TpmError::Cryptography)
    }

    fn cipher(
        &self,
        newer: &[u8],
        older: &[u8],
    ) -> Result<(UnboundCipherKey, [u8; AES_BLOCK_BYTES]), TpmError> {
        let mut both = Zeroizing::new([0; AES_KEY_BYTES + AES_BLOCK_BYTES]);
        kdfa(self.key.expose(), b"CFB", newer, older, &mut *both);
        let (key, iv) = both.split_at(AES_KEY_BYTES);
        let key = UnboundCipherKey::new(&AES_128, key).map_err(|_| TpmError::Cryptography)?;
        let iv = iv.try_into().map_err(|_| TpmError::Cryptography)?;
        Ok((key, iv))
    }

    /// The authorization that goes with a command.
    pub(super) fn authorization(&self, command_hash: &[u8], attributes: u8) -> Vec<u8> {
        let hmac = self.hmac(command_hash, &self.own_nonce, &self.tpm_nonce, attributes);
        Body::new()
            .u32(self.handle)
            .sized(&self.own_nonce)
            .u8(attributes)
            .sized(hmac.as_ref())
            .into_bytes()
    }

    /// Checks the authorization that came with an answer, and takes its nonce.
    pub(super) fn verify(
        &mut self,
        answer_hash: &[u8],
        tpm_nonce: &[u8],
        attributes: u8,
        tag: &[u8],
    ) -> Result<(), TpmError> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.expose());
        let message = [answer_hash, tpm_nonce, &self.own_nonce, &[attributes]].concat();
        hmac::verify(&key, &message, tag).map_err(|_| TpmError::Forged)?;
        self.tpm_nonce = tpm_nonce.to_vec();
        Ok(())
    }

    fn hmac(&self, hash: &[u8], newer: &[u8], older: &[u8], attributes: u8) -> hmac::Tag {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.expose());
        hmac::sign(&key, &[hash, newer, older, &[attributes]].concat())
    }
}

/// KDFa of part 1, with SHA-256; `out` has at most 32 bytes.
fn kdfa(key: &[u8], label: &[u8], newer: &[u8], older: &[u8], out: &mut [u8]) {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut context = hmac::Context::with_key(&key);
    context.update(&1_u32.to_be_bytes());
    context.update(label);
    context.update(&[0]);
    context.update(newer);
    context.update(older);
    context.update(&(out.len() as u32 * 8).to_be_bytes());
    out.copy_from_slice(&context.sign().as_ref()[..out.len()]);
}

/// KDFe of part 1, with SHA-256; `out` has at most 32 bytes.
fn kdfe(shared: &[u8], label: &[u8], party_u: &[u8], party_v: &[u8], out: &mut [u8]) {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&1_u32.to_be_bytes());
    context.update(shared);
    context.update(label);
    context.update(&[0]);
    context.update(party_u);
    context.update(party_v);
    out.copy_from_slice(&context.finish().as_ref()[..out.len()]);
}
