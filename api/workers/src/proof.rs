//! The owner's signature over node id and timestamp: a token that comes with it is proved to be
//! presented by its owner, without asking the chain.
//!
//! The header `X-Seal-Proof` holds Sui's serialized signature (flag, signature, public key) in Base64
//! over the personal message `nautilus seal proof v1\n<node id>\n<timestamp>`, as wallets and SDKs
//! make it with `signPersonalMessage`; the timestamp is the body's, in decimal.
//!
//! Ed25519, secp256k1 and secp256r1 prove an address by themselves. zkLogin needs the issuers' keys
//! of the day, passkeys and multisig their own forms: they are refused by name.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use sui_crypto::Verifier as _;
use sui_crypto::simple::SimpleVerifier;
use sui_sdk_types::{Address, PersonalMessage, SignatureScheme, SimpleSignature, UserSignature};

use crate::limits::PROOF_LIMIT_BYTES;

/// The header that may carry the proof.
pub const PROOF_HEADER: &str = "x-seal-proof";

/// A valid proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proved {
    signer: Address,
    /// When it was signed, in Unix seconds by its signer's clock.
    pub timestamp_s: i64,
}

/// What is wrong with a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofFault {
    /// No serialized signature.
    #[error("the X-Seal-Proof header holds no serialized signature of Sui in Base64")]
    Unreadable,
    /// Of a kind that is not taken.
    #[error(
        "the X-Seal-Proof header holds a signature of the scheme {0}; sign with a key of ed25519, \
         secp256k1 or secp256r1"
    )]
    Scheme(&'static str),
    /// It does not sign this.
    #[error(
        "the X-Seal-Proof header does not sign this node id and timestamp as a personal message"
    )]
    Signature,
    /// The body has no timestamp.
    #[error("a token with X-Seal-Proof needs the field timestamp that was signed")]
    NoTimestamp,
}

impl Proved {
    /// Whether the signer is `owner`, an address in hex.
    pub fn is_by(&self, owner: &str) -> bool {
        owner
            .parse::<Address>()
            .is_ok_and(|owner| owner == self.signer)
    }
}

/// What an owner signs, before Sui's framing of personal messages.
pub fn message(node_id: &str, timestamp_s: i64) -> String {
    format!("nautilus seal proof v1\n{node_id}\n{timestamp_s}")
}

/// The proof in `headers`, checked; `None` where there is none.
pub fn verify(
    headers: &HeaderMap,
    node_id: &str,
    timestamp_s: Option<i64>,
) -> Result<Option<Proved>, ProofFault> {
    let Some(header) = headers.get(PROOF_HEADER) else {
        return Ok(None);
    };
    let bytes = Some(header.as_bytes())
        .filter(|text| text.len() <= PROOF_LIMIT_BYTES)
        .and_then(|text| STANDARD.decode(text).ok())
        .ok_or(ProofFault::Unreadable)?;
    let flag = *bytes.first().ok_or(ProofFault::Unreadable)?;
    let scheme = SignatureScheme::from_byte(flag).map_err(|_| ProofFault::Unreadable)?;
    match scheme {
        SignatureScheme::Ed25519 | SignatureScheme::Secp256k1 | SignatureScheme::Secp256r1 => {}
        other => return Err(ProofFault::Scheme(other.name())),
    }
    let Ok(UserSignature::Simple(signature)) = UserSignature::from_bytes(&bytes) else {
        return Err(ProofFault::Unreadable);
    };
    let timestamp_s = timestamp_s.ok_or(ProofFault::NoTimestamp)?;
    let text = message(node_id, timestamp_s);
    let digest = PersonalMessage(text.as_bytes().into()).signing_digest();
    SimpleVerifier
        .verify(&digest, &signature)
        .map_err(|_| ProofFault::Signature)?;
    Ok(Some(Proved {
        signer: signer(&signature)?,
        timestamp_s,
    }))
}

fn signer(signature: &SimpleSignature) -> Result<Address, ProofFault> {
    match signature {
        SimpleSignature::Ed25519 { public_key, .. } => Ok(public_key.derive_address()),
        SimpleSignature::Secp256k1 { public_key, .. } => Ok(public_key.derive_address()),
        SimpleSignature::Secp256r1 { public_key, .. } => Ok(public_key.derive_address()),
        _ => Err(ProofFault::Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use sui_crypto::SuiSigner;
    use sui_crypto::ed25519::Ed25519PrivateKey;
    use sui_crypto::secp256k1::Secp256k1PrivateKey;
    use sui_crypto::secp256r1::Secp256r1PrivateKey;

    use super::*;

    fn headers(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(PROOF_HEADER, text.parse().expect("a header's value"));
        headers
    }

    fn signed(signer: &dyn SuiSigner, node_id: &str, timestamp_s: i64) -> HeaderMap {
        let text = message(node_id, timestamp_s);
        let message = PersonalMessage(text.as_bytes().into());
        let signature = signer.sign_personal_message(&message).expect("signs");
        headers(&signature.to_base64())
    }

    #[test]
    fn each_plain_scheme_proves_the_address_of_its_key() {
        let ed25519 = Ed25519PrivateKey::new([1; 32]);
        let secp256k1 = Secp256k1PrivateKey::new([2; 32]).expect("a scalar");
        let secp256r1 = Secp256r1PrivateKey::new([3; 32]);
        let signers: [(&dyn SuiSigner, Address); 3] = [
            (&ed25519, ed25519.public_key().derive_address()),
            (&secp256k1, secp256k1.public_key().derive_address()),
            (&secp256r1, secp256r1.public_key().derive_address()),
        ];
        for (signer, address) in signers {
            let headers = signed(signer, "worker-1", 1_790_000_000);
            let proved = verify(&headers, "worker-1", Some(1_790_000_000))
                .expect("valid")
                .expect("there");
            assert!(proved.is_by(&address.to_string()));
            assert!(!proved.is_by("0xa1"));
            for (node_id, timestamp_s) in [("worker-2", 1_790_000_000), ("worker-1", 1_790_000_001)]
            {
                assert_eq!(
                    verify(&headers, node_id, Some(timestamp_s)),
                    Err(ProofFault::Signature)
                );
            }
            assert_eq!(
                verify(&headers, "worker-1", None),
                Err(ProofFault::NoTimestamp)
            );
        }
    }

    #[test]
    fn other_schemes_are_refused_by_name_and_noise_as_unreadable() {
        for (flag, name) in [(3, "multisig"), (5, "zklogin"), (6, "passkey")] {
            let text = STANDARD.encode([flag, 1, 2, 3]);
            let fault = verify(&headers(&text), "a", Some(1)).expect_err("refused");
            assert_eq!(fault, ProofFault::Scheme(name));
        }
        let long = "A".repeat(PROOF_LIMIT_BYTES + 4);
        for text in ["", "%", "AA==", "/w==", &long] {
            let fault = verify(&headers(text), "a", Some(1)).expect_err("refused");
            assert_eq!(fault, ProofFault::Unreadable, "{text}");
        }
    }
}
