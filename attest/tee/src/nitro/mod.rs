//! AWS Nitro Enclaves: a document that the hypervisor signs (COSE_Sign1, ES384),
//! with a chain from its short-lived key to the root that AWS publishes.
//!
//! The measurement is PCR0, the digest of the whole image. The platform is the
//! parent instance. Report data is the user data, when that has 64 bytes. AWS' key
//! lives three hours, shorter than the certificate of ours that carries a document,
//! so the chain must hold at the document's own time, and the document is refused
//! when it is older than [`DOCUMENT_LIFETIME_MS`]: how fresh evidence is, is for
//! nonces to show. AWS asks not to check its revocation lists.

mod document;
#[cfg(test)]
mod tests;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use coset::iana::Algorithm;
use coset::{
    CborSerializable as _, CoseSign1, RegisteredLabelWithPrivate, TaggedCborSerializable as _,
};
use nautilus_attest_protocol::{Claims, Evidence, Refused, UnixMillis, Verifier};

use crate::certificate::{Certificate, check_dates};
use crate::simulated::CLOCK_SKEW_MS;
use document::{Document, WHAT, bad};

/// The root of AWS Nitro Enclaves (G1), DER. SHA-256
/// `641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b`, as AWS
/// publishes it.
const ROOT: &[u8] = include_bytes!("root.der");

/// How long a document is accepted. As long as a certificate that carries one.
pub(crate) const DOCUMENT_LIFETIME_MS: u64 = 24 * 60 * 60 * 1000;

/// The first byte of a COSE_Sign1 message that says by a tag that it is one.
const SIGN1_TAG: u8 = 0xd2;

const ROOT_NAME: &str = "AWS Nitro Enclaves root certificate";
const AUTHORITY_NAME: &str = "AWS Nitro Enclaves intermediate certificate";
const LEAF_NAME: &str = "AWS Nitro Enclaves certificate of the document";

/// Judges Nitro documents.
pub(crate) struct NitroVerifier {
    root: Vec<u8>,
}

impl NitroVerifier {
    /// Under the root of AWS.
    pub(crate) fn new() -> Self {
        Self {
            root: ROOT.to_vec(),
        }
    }

    /// Under another root.
    #[cfg(test)]
    fn with_root(root: Vec<u8>) -> Self {
        Self { root }
    }
}

impl Verifier for NitroVerifier {
    fn verify(&self, evidence: &Evidence, now_ms: UnixMillis) -> Result<Claims, Refused> {
        let message = read_message(&evidence.body)?;
        let document = Document::read(payload(&message)?)?;
        let chain = read_chain(&document)?;
        self.check_chain(&document, &chain)?;
        check_signature(&message, &chain)?;
        for certificate in &chain {
            certificate.check_validity(document.timestamp_ms)?;
        }
        let made_at_ms = document.timestamp_ms;
        check_dates(
            WHAT,
            made_at_ms.saturating_sub(CLOCK_SKEW_MS),
            made_at_ms.saturating_add(DOCUMENT_LIFETIME_MS),
            now_ms,
        )?;
        document.claims()
    }
}

impl NitroVerifier {
    /// Every certificate is signed by the one before it, the first is the root.
    fn check_chain(
        &self,
        document: &Document<'_>,
        chain: &[Certificate<'_>],
    ) -> Result<(), Refused> {
        if document.bundle.first() != Some(&self.root.as_slice()) {
            return Err(Refused::Signature {
                what: WHAT,
                expected: ROOT_NAME.to_owned(),
            });
        }
        for (at, pair) in chain.windows(2).enumerate() {
            if let [issuer, issued] = pair {
                let below = chain.len().saturating_sub(at + 2);
                issuer.check_authority(below)?;
                issued.check_issued_by(issuer)?;
            }
        }
        Ok(())
    }
}

/// What a document says, before anything is believed.
pub(crate) fn read_unverified(body: &[u8]) -> Result<Claims, Refused> {
    let message = read_message(body)?;
    Document::read(payload(&message)?)?.claims()
}

/// The COSE message, tagged or not, with nothing in it that nobody signed.
fn read_message(body: &[u8]) -> Result<CoseSign1, Refused> {
    let message = if body.first() == Some(&SIGN1_TAG) {
        CoseSign1::from_tagged_slice(body)
    } else {
        CoseSign1::from_slice(body)
    };
    let message = message.map_err(bad)?;
    let algorithm = RegisteredLabelWithPrivate::Assigned(Algorithm::ES384);
    if message.protected.header.alg.as_ref() != Some(&algorithm) {
        return Err(bad("it is not signed by ES384"));
    }
    if message.unprotected != coset::Header::default() {
        return Err(bad("it has unprotected headers"));
    }
    Ok(message)
}

fn payload(message: &CoseSign1) -> Result<&[u8], Refused> {
    message.payload.as_deref().ok_or_else(|| bad("it is empty"))
}

/// The root first, the certificate of the document's key last.
fn read_chain<'a>(document: &Document<'a>) -> Result<Vec<Certificate<'a>>, Refused> {
    let mut chain = Vec::new();
    for (at, der) in document.bundle.iter().enumerate() {
        let what = if at == 0 { ROOT_NAME } else { AUTHORITY_NAME };
        chain.push(Certificate::read(what, der)?);
    }
    chain.push(Certificate::read(LEAF_NAME, document.certificate)?);
    Ok(chain)
}

/// The key of the last certificate must have signed the message.
fn check_signature(message: &CoseSign1, chain: &[Certificate<'_>]) -> Result<(), Refused> {
    let Some(leaf) = chain.last() else {
        return Err(bad("it has no certificate"));
    };
    let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, leaf.p384_key()?);
    let signed = message.tbs_data(&[]);
    key.verify(&signed, &message.signature)
        .map_err(|_| Refused::Signature {
            what: WHAT,
            expected: LEAF_NAME.to_owned(),
        })
}
