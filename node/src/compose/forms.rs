//! Evidence over a challenge, in the forms that clients ask for.
//!
//! All of them bind the asker's nonce and the key with which this node serves at the
//! moment of the answer.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use nautilus_attest_protocol::eat::{EAT_MEDIA_TYPE, Token};
use nautilus_attest_protocol::sui::{SERVING_KEY_INTENT, ServingKey};
use nautilus_attest_protocol::{attestation_report_data, sui_report_data};
use nautilus_rest::ServingCertificate;
use nautilus_workers::{Clock as _, Evidence, EvidenceForm, SystemClock};
use rustls::SignatureScheme;
use rustls::sign::CertifiedKey;
use serde_json::json;

use super::identity::Identity;
use crate::attested::spki_of;

/// Media type of our evidence.
const CBOR: &str = "application/cbor";
/// Media type of the form for contracts.
const JSON: &str = "application/json";

/// Makes evidence in every form.
pub(super) struct Forms {
    identity: Arc<Identity>,
    certificate: Arc<ServingCertificate>,
    cluster: String,
    /// Signs what contracts read. Drawn in this process and never leaves it.
    sui_key: Ed25519KeyPair,
    clock: SystemClock,
}

impl Forms {
    /// Draws the key for contracts.
    pub(super) fn new(
        identity: Arc<Identity>,
        certificate: Arc<ServingCertificate>,
        cluster: String,
    ) -> anyhow::Result<Self> {
        let sui_key = Ed25519KeyPair::generate()
            .map_err(|_| anyhow!("the system gave no random bytes for a key"))?;
        Ok(Self {
            identity,
            certificate,
            cluster,
            sui_key,
            clock: SystemClock::new(),
        })
    }

    /// Evidence over `nonce` in a form. May block while the TEE answers.
    pub(super) fn make(&self, nonce: &[u8], form: EvidenceForm) -> anyhow::Result<Evidence> {
        let key = self.certificate.certified_key();
        let certificate = key
            .cert
            .first()
            .context("this node serves no certificate")?;
        let spki = spki_of(certificate)
            .map_err(|reason| anyhow!("this node's own certificate: {reason}"))?;
        let (format, document) = match form {
            EvidenceForm::Raw => (CBOR, self.raw(nonce, &spki)?),
            EvidenceForm::Eat => (EAT_MEDIA_TYPE, self.token(nonce, &spki, &key)?),
            EvidenceForm::Sui => (JSON, self.for_sui(nonce, &spki)?),
        };
        Ok(Evidence {
            format,
            document: document.into(),
        })
    }

    fn raw(&self, nonce: &[u8], spki: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.identity
            .evidence(&attestation_report_data(nonce, spki))
            .map_err(anyhow::Error::msg)
    }

    fn token(&self, nonce: &[u8], spki: &[u8], key: &CertifiedKey) -> anyhow::Result<Vec<u8>> {
        let evidence = self.raw(nonce, spki)?;
        let token = Token {
            nonce,
            issued_at_s: self.clock.unix_ms() / 1000,
            serving_spki: spki,
            evidence: &evidence,
            version: env!("CARGO_PKG_VERSION"),
        };
        let signed = token.signed(|bytes| {
            key.key
                .choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256])
                .ok_or_else(|| "it is of another kind".to_owned())?
                .sign(bytes)
                .map_err(|error| error.to_string())
        })?;
        Ok(signed)
    }

    fn for_sui(&self, nonce: &[u8], spki: &[u8]) -> anyhow::Result<Vec<u8>> {
        let public_key = self.sui_key.public_key().as_ref();
        let document = self
            .identity
            .document_with_key(&sui_report_data(nonce, public_key), public_key, nonce)
            .map_err(anyhow::Error::msg)?;
        let data = ServingKey {
            cluster: self.cluster.clone(),
            nonce: hex::encode(nonce),
            serving_key_sha256: hex::encode(digest(&SHA256, spki)),
        };
        let timestamp_ms = self.clock.unix_ms();
        let signature = self.sui_key.sign(&data.intent_message(timestamp_ms));
        let answer = json!({
            "attestation": hex::encode(document),
            "tee_type": self.identity.tee(),
            "public_key": hex::encode(public_key),
            "response": {
                "intent": SERVING_KEY_INTENT,
                "timestamp_ms": timestamp_ms,
                "data": {
                    "cluster": data.cluster,
                    "nonce": data.nonce,
                    "serving_key_sha256": data.serving_key_sha256,
                },
            },
            "signature": hex::encode(signature),
        });
        Ok(serde_json::to_vec(&answer)?)
    }
}
