//! To whom an archive is sealed, and who signs it.
//!
//! Operators have X25519 keys: a [`Recipient`] is the public one, an [`Identity`] the
//! private one. The quorum seals to itself and signs with keys derived from its root
//! key by HKDF-SHA-256 with labels of their own.
//!
//! Invariants
//! - Text forms carry a checksum: a mistyped recipient is refused, rather than an
//!   archive written that nobody can open.
//! - Secret types have neither `Debug` nor `Serialize` and are wiped when dropped.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, X25519};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey};
use zeroize::Zeroizing;

use crate::error::BackupError;

/// Bytes of every key here.
pub(crate) const KEY_BYTES: usize = 32;
/// Bytes of a signature.
pub(crate) const SIGNATURE_BYTES: usize = 64;
const CHECK_BYTES: usize = 4;
const RECIPIENT_PREFIX: &str = "nautilus-recipient-";
const IDENTITY_PREFIX: &str = "nautilus-identity-";
const SIGNER_PREFIX: &str = "nautilus-signer-";
const WRAP_INFO: &[u8] = b"nautilus archive recipient v1";
const QUORUM_LABEL: &[u8] = b"nautilus archive quorum v1";
const SIGNER_LABEL: &[u8] = b"nautilus archive signer v1";

/// The key under which one archive's frames are sealed.
pub(crate) struct FileKey(Zeroizing<[u8; KEY_BYTES]>);

impl FileKey {
    pub(crate) fn generate() -> Result<Self, BackupError> {
        Ok(Self(Zeroizing::new(random()?)))
    }

    fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(Zeroizing::new(bytes.try_into().ok()?)))
    }

    pub(crate) fn aead(&self) -> LessSafeKey {
        aead(&self.0)
    }
}

/// An operator's public key, to which archives are sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient([u8; KEY_BYTES]);

impl Recipient {
    /// Seals `key` to this recipient: the encapsulated secret and the ciphertext.
    pub(crate) fn wrap(&self, key: &FileKey) -> Result<(Vec<u8>, Vec<u8>), BackupError> {
        let public = HpkePublicKey(self.0.to_vec());
        let sealed = SUITE.seal(WRAP_INFO, &self.0, &key.0[..], &public);
        let (encapsulated, sealed) = sealed.map_err(|_| BackupError::Crypto("sealing a key"))?;
        Ok((encapsulated.0, sealed))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&to_text(RECIPIENT_PREFIX, &self.0))
    }
}

impl FromStr for Recipient {
    type Err = BackupError;

    fn from_str(text: &str) -> Result<Self, BackupError> {
        from_text(RECIPIENT_PREFIX, text).map(|key| Self(*key))
    }
}

/// An operator's private key, which opens archives sealed to its [`Recipient`].
pub struct Identity(Zeroizing<[u8; KEY_BYTES]>);

impl Identity {
    /// Draws a new one.
    pub fn generate() -> Result<Self, BackupError> {
        let pair = SUITE.generate_key_pair();
        let (_, private) = pair.map_err(|_| BackupError::Crypto("drawing a key"))?;
        let bytes = private.secret_bytes().try_into();
        let bytes = bytes.map_err(|_| BackupError::Crypto("drawing a key"))?;
        Ok(Self(Zeroizing::new(bytes)))
    }

    /// Reads an identity file: the key on a line of its own; `#` begins a comment.
    pub fn from_file_text(text: &str) -> Result<Self, BackupError> {
        let mut lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        match (lines.next(), lines.next()) {
            (Some(line), None) => from_text(IDENTITY_PREFIX, line).map(Self),
            (None, _) => Err(BackupError::Key("the file holds no key".into())),
            (Some(_), Some(_)) => Err(BackupError::Key("the file holds several keys".into())),
        }
    }

    /// The identity as a file, with its recipient in a comment.
    pub fn to_file_text(&self) -> Result<Zeroizing<String>, BackupError> {
        let key = Zeroizing::new(to_text(IDENTITY_PREFIX, &self.0));
        Ok(Zeroizing::new(format!(
            "# recipient: {}\n{}\n",
            self.recipient()?,
            &*key
        )))
    }

    /// The public key.
    pub fn recipient(&self) -> Result<Recipient, BackupError> {
        let public = PrivateKey::from_private_key(&X25519, &self.0[..])
            .ok()
            .and_then(|private| private.compute_public_key().ok());
        let public = public.ok_or(BackupError::Crypto("deriving a public key"))?;
        let bytes = public.as_ref().try_into();
        bytes
            .map(Recipient)
            .map_err(|_| BackupError::Crypto("deriving a public key"))
    }

    pub(crate) fn unwrap(&self, encapsulated: &[u8], sealed: &[u8]) -> Option<FileKey> {
        let recipient = self.recipient().ok()?;
        let private = HpkePrivateKey::from(self.0.to_vec());
        let encapsulated = EncapsulatedSecret(encapsulated.to_vec());
        let opened = SUITE.open(&encapsulated, WRAP_INFO, &recipient.0, sealed, &private);
        let opened = Zeroizing::new(opened.ok()?);
        FileKey::from_slice(&opened)
    }
}

/// What the quorum seals archives to itself with.
pub struct QuorumKey(Zeroizing<[u8; KEY_BYTES]>);

impl QuorumKey {
    /// Takes the quorum's root key.
    pub fn from_root(root: &[u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(*root))
    }

    /// Who signs the quorum's archives.
    pub fn signing(&self) -> Result<Signing, BackupError> {
        Signing::from_seed(&derive(&self.0, &[], SIGNER_LABEL)?)
    }

    /// Seals `key`; `salt` is the archive's own, drawn anew for each, so that no
    /// wrapping key comes twice.
    pub(crate) fn wrap(&self, key: &FileKey, salt: &[u8]) -> Result<Vec<u8>, BackupError> {
        let wrapping = aead(&*derive(&self.0, salt, QUORUM_LABEL)?);
        let mut sealed = key.0.to_vec();
        wrapping
            .seal_in_place_append_tag(first_nonce(), Aad::from(salt), &mut sealed)
            .map_err(|_| BackupError::Crypto("sealing a key"))?;
        Ok(sealed)
    }

    pub(crate) fn unwrap(&self, salt: &[u8], sealed: &[u8]) -> Option<FileKey> {
        let wrapping = aead(&*derive(&self.0, salt, QUORUM_LABEL).ok()?);
        let mut opened = Zeroizing::new(sealed.to_vec());
        let opened = wrapping
            .open_in_place(first_nonce(), Aad::from(salt), &mut opened)
            .ok()?;
        FileKey::from_slice(opened)
    }
}

/// What opens an archive.
pub enum Opener {
    /// An operator's key.
    Operator(Identity),
    /// The quorum's own.
    Quorum(QuorumKey),
}

/// The key that signs archives.
pub struct Signing(Ed25519KeyPair);

impl Signing {
    /// A key for one archive that no quorum makes (an import).
    pub fn ephemeral() -> Result<Self, BackupError> {
        Self::from_seed(&Zeroizing::new(random()?))
    }

    fn from_seed(seed: &Zeroizing<[u8; KEY_BYTES]>) -> Result<Self, BackupError> {
        Ed25519KeyPair::from_seed_unchecked(&seed[..])
            .map(Self)
            .map_err(|_| BackupError::Crypto("deriving a signing key"))
    }

    /// Its public half.
    pub fn public(&self) -> SignerKey {
        let mut bytes = [0; KEY_BYTES];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        SignerKey(bytes)
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }
}

/// Who signed an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerKey([u8; KEY_BYTES]);

impl SignerKey {
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BackupError> {
        UnparsedPublicKey::new(&ED25519, &self.0[..])
            .verify(message, signature)
            .map_err(|_| BackupError::Signature)
    }
}

impl fmt::Display for SignerKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&to_text(SIGNER_PREFIX, &self.0))
    }
}

impl FromStr for SignerKey {
    type Err = BackupError;

    fn from_str(text: &str) -> Result<Self, BackupError> {
        from_text(SIGNER_PREFIX, text).map(|key| Self(*key))
    }
}

/// Fresh random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], BackupError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| BackupError::Crypto("the system gave no random bytes"))?;
    Ok(bytes)
}

fn aead(key: &[u8; KEY_BYTES]) -> LessSafeKey {
    let key = UnboundKey::new(&AES_256_GCM, key);
    LessSafeKey::new(key.unwrap_or_else(|_| panic!("AES-256 refused a key of 32 bytes")))
}

/// For keys that seal one message.
fn first_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn derive(
    root: &[u8; KEY_BYTES],
    salt: &[u8],
    label: &[u8],
) -> Result<Zeroizing<[u8; KEY_BYTES]>, BackupError> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    Salt::new(HKDF_SHA256, salt)
        .extract(root)
        .expand(&[label], ThirtyTwo)
        .and_then(|okm| okm.fill(&mut bytes[..]))
        .map_err(|_| BackupError::Crypto("deriving a key"))?;
    Ok(bytes)
}

struct ThirtyTwo;

impl KeyType for ThirtyTwo {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

fn check(prefix: &str, key: &[u8]) -> [u8; CHECK_BYTES] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(prefix.as_bytes());
    context.update(key);
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&context.finish().as_ref()[..CHECK_BYTES]);
    check
}

fn to_text(prefix: &str, key: &[u8; KEY_BYTES]) -> String {
    let mut bytes = Zeroizing::new([0; KEY_BYTES + CHECK_BYTES]);
    bytes[..KEY_BYTES].copy_from_slice(key);
    bytes[KEY_BYTES..].copy_from_slice(&check(prefix, key));
    let text = Zeroizing::new(BASE64.encode(&bytes[..]));
    format!("{prefix}{}", &*text)
}

fn from_text(prefix: &str, text: &str) -> Result<Zeroizing<[u8; KEY_BYTES]>, BackupError> {
    let refused = |reason: &str| BackupError::Key(reason.to_owned());
    let rest = text.trim().strip_prefix(prefix);
    let rest = rest.ok_or_else(|| refused(&format!("it does not begin with {prefix}")))?;
    let bytes = BASE64.decode(rest).map(Zeroizing::new);
    let bytes = bytes.map_err(|_| refused("it is not base64 (URL-safe, without padding)"))?;
    if bytes.len() != KEY_BYTES + CHECK_BYTES {
        return Err(refused("it is too short or too long"));
    }
    let (key, found) = bytes.split_at(KEY_BYTES);
    if found != check(prefix, key) {
        return Err(refused("its checksum is wrong: it is mistyped"));
    }
    let mut fixed = Zeroizing::new([0; KEY_BYTES]);
    fixed.copy_from_slice(key);
    Ok(fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_its_file_and_keeps_its_recipient() {
        let identity = Identity::generate().unwrap();
        let again = Identity::from_file_text(&identity.to_file_text().unwrap()).unwrap();
        assert_eq!(again.recipient().unwrap(), identity.recipient().unwrap());
    }

    #[test]
    fn a_mistyped_recipient_is_refused() {
        let text = Identity::generate()
            .unwrap()
            .recipient()
            .unwrap()
            .to_string();
        assert!(text.parse::<Recipient>().is_ok());
        let at = text.len() - 10;
        let other = if &text[at..=at] == "A" { "B" } else { "A" };
        let mistyped = format!("{}{other}{}", &text[..at], &text[at + 1..]);
        let error = mistyped.parse::<Recipient>().unwrap_err();
        assert!(error.to_string().contains("mistyped"), "{error}");
    }

    #[test]
    fn only_the_same_root_opens_what_the_quorum_sealed() {
        let key = FileKey::generate().unwrap();
        let sealed = QuorumKey::from_root(&[1; 32]).wrap(&key, &[9; 32]).unwrap();
        let opened = QuorumKey::from_root(&[1; 32]).unwrap(&[9; 32], &sealed);
        assert!(opened.is_some_and(|opened| *opened.0 == *key.0));
        assert!(
            QuorumKey::from_root(&[2; 32])
                .unwrap(&[9; 32], &sealed)
                .is_none()
        );
    }
}
