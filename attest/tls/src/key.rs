//! The key of one incarnation: ECDSA P-256, made in this process and never
//! serialized, so that no copy of it can be left anywhere.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rcgen::PublicKeyData;
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

/// The scheme it signs TLS handshakes with.
const SCHEME: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;

/// A private key that signs but cannot be read.
#[derive(Clone)]
pub(crate) struct IncarnationKey(Arc<EcdsaKeyPair>);

impl IncarnationKey {
    /// A fresh key; `None` when the library fails.
    pub(crate) fn generate() -> Option<Self> {
        Some(Self(Arc::new(
            EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).ok()?,
        )))
    }

    /// DER of its SubjectPublicKeyInfo.
    pub(crate) fn spki(&self) -> Vec<u8> {
        self.subject_public_key_info()
    }

    fn sign_bytes(&self, message: &[u8]) -> Option<Vec<u8>> {
        Some(
            self.0
                .sign(&SystemRandom::new(), message)
                .ok()?
                .as_ref()
                .to_vec(),
        )
    }
}

impl fmt::Debug for IncarnationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IncarnationKey")
    }
}

impl PublicKeyData for IncarnationKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for IncarnationKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.sign_bytes(message)
            .ok_or(rcgen::Error::RingUnspecified)
    }
}

impl SigningKey for IncarnationKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SCHEME)
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for IncarnationKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.sign_bytes(message)
            .ok_or_else(|| rustls::Error::General("signing failed".to_owned()))
    }

    fn scheme(&self) -> SignatureScheme {
        SCHEME
    }
}
