//! Evidence as an Entity Attestation Token (RFC 9711), for verifiers that know
//! standards and not us.
//!
//! The token is a CBOR Web Token (RFC 8392): tag 61 around a COSE_Sign1 by the key the
//! node serves TLS with (ES256). Its claims:
//!
//! | key | claim | value |
//! |---|---|---|
//! | 6 | `iat` | seconds since the epoch, by the node's clock |
//! | 8 | `cnf` (RFC 8747) | the serving key as a COSE_Key |
//! | 10 | `eat_nonce` | the asker's nonce, 8 to 64 bytes |
//! | 270, 271 | `swname`, `swversion` | `nautilus` and its version |
//! | 266 | `submods` | `{"tee": {299: evidence}}` |
//!
//! The evidence stands in the submodule `tee` under the claim `cmw` (299, the number
//! that draft-ietf-rats-msg-wrap asks for) as it travels elsewhere, see
//! [`crate::Evidence`]. The signature alone proves nothing: a verifier takes the key
//! from `cnf`, checks the signature, and checks that the evidence's report data is
//! [`crate::attestation_report_data`] of the nonce and that key.

use std::fmt;

use minicbor::Encoder;
use minicbor::data::Tag;

/// Media type of the token (RFC 9782).
pub const EAT_MEDIA_TYPE: &str = "application/eat+cwt";

const CWT_TAG: u64 = 61;
const COSE_SIGN1_TAG: u64 = 18;
const ES256: i64 = -7;
/// Bytes of one coordinate of P-256.
const COORDINATE_BYTES: usize = 32;
/// DER of a SubjectPublicKeyInfo of P-256 up to its point (RFC 5480), the uncompressed
/// form's first byte included.
const P256_SPKI_START: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

/// What goes into a token.
#[derive(Debug, Clone, Copy)]
pub struct Token<'a> {
    /// The asker's nonce: 8 to 64 bytes (RFC 9711, section 4.1).
    pub nonce: &'a [u8],
    /// When it is made, in seconds since the epoch.
    pub issued_at_s: u64,
    /// DER of the serving key's SubjectPublicKeyInfo, a P-256 key.
    pub serving_spki: &'a [u8],
    /// Encoded evidence over the nonce and the serving key.
    pub evidence: &'a [u8],
    /// The version of the software.
    pub version: &'a str,
}

/// Why no token was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EatError {
    /// The serving key is of another kind.
    #[error("the serving key is not a P-256 key, which the token's ES256 needs")]
    Key,
    /// The key did not sign, or not in ASN.1's form.
    #[error("the serving key gave no signature: {0}")]
    Signature(String),
}

impl Token<'_> {
    /// The token, signed by `sign`: ECDSA with SHA-256 over the bytes it is given, in
    /// ASN.1's form, by the serving key.
    ///
    /// # Errors
    /// `Key`, and `Signature` when `sign` fails.
    pub fn signed<E: fmt::Display>(
        &self,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, EatError> {
        let protected = encoded(|e| e.map(1)?.u8(1)?.i64(ES256)?.ok());
        let claims = self.claims()?;
        // RFC 9052, section 4.4.
        let signed = encoded(|e| {
            e.array(4)?
                .str("Signature1")?
                .bytes(&protected)?
                .bytes(&[])?
                .bytes(&claims)?
                .ok()
        });
        let der = sign(&signed).map_err(|error| EatError::Signature(error.to_string()))?;
        let signature =
            fixed_signature(&der).ok_or_else(|| EatError::Signature("malformed".to_owned()))?;
        Ok(encoded(|e| {
            e.tag(Tag::new(CWT_TAG))?
                .tag(Tag::new(COSE_SIGN1_TAG))?
                .array(4)?
                .bytes(&protected)?
                .map(0)?
                .bytes(&claims)?
                .bytes(&signature)?
                .ok()
        }))
    }

    /// In the order of the encoded keys, as deterministic encoding wants it.
    fn claims(&self) -> Result<Vec<u8>, EatError> {
        let point = self
            .serving_spki
            .strip_prefix(&P256_SPKI_START)
            .filter(|point| point.len() == 2 * COORDINATE_BYTES)
            .ok_or(EatError::Key)?;
        let (x, y) = point.split_at(COORDINATE_BYTES);
        let mut claims = encoded(|e| {
            e.map(6)?.u8(6)?.u64(self.issued_at_s)?;
            // COSE_Key: kty EC2, crv P-256, x, y (RFC 9053, section 7.1.1).
            e.u8(8)?.map(1)?.u8(1)?.map(4)?;
            e.u8(1)?.u8(2)?.i8(-1)?.u8(1)?;
            e.i8(-2)?.bytes(x)?.i8(-3)?.bytes(y)?;
            e.u8(10)?.bytes(self.nonce)?;
            e.u16(266)?.map(1)?.str("tee")?.map(1)?.u16(299)?.ok()
        });
        claims.extend_from_slice(self.evidence);
        claims.extend(encoded(|e| {
            e.u16(270)?.str("nautilus")?;
            e.u16(271)?.array(1)?.str(self.version)?.ok()
        }));
        Ok(claims)
    }
}

type ToMemory = minicbor::encode::Error<std::convert::Infallible>;

fn encoded(write: impl FnOnce(&mut Encoder<Vec<u8>>) -> Result<(), ToMemory>) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    let written = write(&mut encoder).is_ok();
    assert!(written, "writing CBOR to memory cannot fail");
    encoder.into_writer()
}

/// `SEQUENCE {INTEGER r, INTEGER s}` of P-256 as `r ‖ s`, which COSE wants.
fn fixed_signature(der: &[u8]) -> Option<[u8; 2 * COORDINATE_BYTES]> {
    let (0x30, body) = (*der.first()?, der.get(2..)?) else {
        return None;
    };
    if usize::from(*der.get(1)?) != body.len() {
        return None;
    }
    let mut fixed = [0; 2 * COORDINATE_BYTES];
    let mut rest = body;
    for half in fixed.chunks_exact_mut(COORDINATE_BYTES) {
        let length = usize::from(*rest.get(1)?);
        if *rest.first()? != 0x02 {
            return None;
        }
        let (number, after) = rest.get(2..)?.split_at_checked(length)?;
        let number = match number {
            [0, short @ ..] if number.len() > COORDINATE_BYTES => short,
            other => other,
        };
        let start = COORDINATE_BYTES.checked_sub(number.len())?;
        half[start..].copy_from_slice(number);
        rest = after;
    }
    rest.is_empty().then_some(fixed)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED, EcdsaKeyPair, KeyPair as _,
        UnparsedPublicKey,
    };
    use coset::cbor::Value;
    use coset::iana::{self, EnumI64 as _};
    use coset::{AsCborValue as _, TaggedCborSerializable as _};

    use super::*;
    use crate::{Evidence, TeeKind};

    fn key() -> (EcdsaKeyPair, Vec<u8>) {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let point = key.public_key().as_ref().to_vec();
        let spki = [&P256_SPKI_START[..26], &point].concat();
        (key, spki)
    }

    fn token(key: &EcdsaKeyPair, spki: &[u8], evidence: &Evidence) -> Vec<u8> {
        Token {
            nonce: b"nonce of the asker",
            issued_at_s: 1_790_000_000,
            serving_spki: spki,
            evidence: &evidence.encode(),
            version: "0.1.0",
        }
        .signed(|bytes| {
            key.sign(&SystemRandom::new(), bytes)
                .map(|signature| signature.as_ref().to_vec())
        })
        .unwrap()
    }

    fn entry(map: &Value, key: i64) -> &Value {
        let entries = map.as_map().expect("a map");
        let found = entries
            .iter()
            .find(|(name, _)| name.as_integer() == Some(key.into()));
        &found.unwrap_or_else(|| panic!("no entry {key}")).1
    }

    #[test]
    fn a_foreign_verifier_reads_the_token() {
        let (key, spki) = key();
        // Both wire forms of evidence: a tag, and a record.
        for evidence in [
            Evidence::new(TeeKind::Simulated, vec![1, 2, 3]),
            Evidence::new(TeeKind::Nitro, vec![4, 5]),
        ] {
            let bytes = token(&key, &spki, &evidence);
            let inner = bytes.strip_prefix(&[0xd8, 61]).expect("a CWT's tag");
            let cose = coset::CoseSign1::from_tagged_slice(inner).unwrap();
            assert_eq!(
                cose.protected.header.alg,
                Some(coset::Algorithm::Assigned(iana::Algorithm::ES256))
            );
            let claims: Value = coset::cbor::from_reader(cose.payload.as_deref().unwrap()).unwrap();

            let confirmation = entry(entry(&claims, 8), 1).clone();
            let shown = coset::CoseKey::from_cbor_value(confirmation).unwrap();
            let coordinate = |label: iana::Ec2KeyParameter| {
                let found = shown
                    .params
                    .iter()
                    .find(|(name, _)| *name == coset::Label::Int(label.to_i64()));
                found.unwrap().1.as_bytes().unwrap().clone()
            };
            let (x, y) = (
                coordinate(iana::Ec2KeyParameter::X),
                coordinate(iana::Ec2KeyParameter::Y),
            );
            let point = [vec![4], x, y].concat();
            assert_eq!(point, key.public_key().as_ref());
            cose.verify_signature(b"", |signature, signed| {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).verify(signed, signature)
            })
            .unwrap();

            assert_eq!(
                entry(&claims, 10).as_bytes().unwrap(),
                b"nonce of the asker"
            );
            assert_eq!(entry(&claims, 6).as_integer(), Some(1_790_000_000.into()));
            assert_eq!(entry(&claims, 270).as_text(), Some("nautilus"));
            let (name, submodule) = &entry(&claims, 266).as_map().unwrap()[0];
            assert_eq!(name.as_text(), Some("tee"));
            let mut carried = Vec::new();
            coset::cbor::into_writer(entry(submodule, 299), &mut carried).unwrap();
            assert_eq!(Evidence::decode(&carried), Ok(evidence));
        }
    }

    #[test]
    fn every_signature_of_the_key_fits_cose() {
        // Some signatures have a leading zero or a short number.
        let (key, _) = key();
        let point = key.public_key().as_ref().to_vec();
        for message in 0u16..600 {
            let message = message.to_be_bytes();
            let der = key.sign(&SystemRandom::new(), &message).unwrap();
            let fixed = fixed_signature(der.as_ref()).expect("DER");
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point)
                .verify(&message, &fixed)
                .unwrap();
        }
    }

    #[test]
    fn a_key_of_another_kind_makes_no_token() {
        let made = Token {
            nonce: b"nonce",
            issued_at_s: 0,
            serving_spki: b"not a P-256 key",
            evidence: &[0xf6],
            version: "0",
        }
        .signed(|_| Ok::<_, String>(Vec::new()));
        assert_eq!(made, Err(EatError::Key));
    }

    #[test]
    fn a_malformed_signature_is_refused() {
        for der in [&[][..], &[0x30], &[0x30, 0], &[0x30, 2, 2, 9], &[0x31, 0]] {
            assert_eq!(fixed_signature(der), None, "{der:?}");
        }
    }
}
