//! Asking one node what it is.

use std::sync::Arc;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nautilus_attest_protocol::binding::evidence_digest;
use nautilus_attest_protocol::{Claims, Refused, attestation_report_data};
use serde::Deserialize;

use super::connection::{Address, dial, get};
use super::judge::Judge;
use crate::client::unverified_tls;
use crate::simulated::random_hex;

/// Bytes of the nonce.
const NONCE_BYTES: usize = 32;
/// Members believed of one quorum, at most.
const MAX_MEMBERS: usize = 64;

/// What a node says in `GET /api/v1/attestation`, beside its evidence.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct QuorumView {
    /// The quorum's name.
    pub(crate) cluster: String,
    /// Who says it.
    pub(crate) node_id: u64,
    /// The members.
    pub(crate) members: Vec<PublicMember>,
}

/// A member, as anybody may know it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct PublicMember {
    /// Its id.
    pub(crate) id: u64,
    /// `https://host:port`; empty until it has joined.
    pub(crate) api_address: String,
    /// `voter` or `learner`.
    pub(crate) role: String,
    /// The platform that the membership pins, hex; empty until it has joined.
    pub(crate) platform: String,
}

/// The answer.
#[derive(Deserialize)]
struct Answer {
    evidence: String,
    quorum: QuorumView,
}

/// A node whose evidence is genuine, fresh and over its serving key.
#[derive(Debug, Clone)]
pub(crate) struct Examined {
    /// What its TEE vouches for.
    pub(crate) claims: Claims,
    /// DER of the SubjectPublicKeyInfo with which it serves.
    pub(crate) spki: Vec<u8>,
    /// SHA-256 of the evidence.
    pub(crate) evidence_digest: [u8; 32],
    /// What it says of its quorum. Worth what the policy says of the claims.
    pub(crate) quorum: QuorumView,
}

/// Why a node is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExamineError {
    /// It gave no answer of the form.
    #[error("{0:#}")]
    NoAnswer(anyhow::Error),
    /// Its evidence proves nothing.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Asks the node at `address` for evidence over a fresh nonce and the key of this very
/// connection, and reads it. Whether the code is accepted is not decided here.
pub(crate) async fn examine(address: &Address, judge: &Judge) -> Result<Examined, ExamineError> {
    let (nonce, spki, answer) = ask(address).await.map_err(ExamineError::NoAnswer)?;
    let evidence = BASE64
        .decode(&answer.evidence)
        .context("its evidence is not base64")
        .map_err(ExamineError::NoAnswer)?;
    let claims = judge.claims(&evidence, &attestation_report_data(&nonce, &spki))?;
    Ok(Examined {
        claims,
        spki,
        evidence_digest: evidence_digest(&evidence),
        quorum: answer.quorum,
    })
}

async fn ask(address: &Address) -> anyhow::Result<(Vec<u8>, Vec<u8>, Answer)> {
    let mut tls = unverified_tls()?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let dialed = dial(address, Arc::new(tls)).await?;
    let nonce = random_hex::<NONCE_BYTES>()?;
    let path = format!("/api/v1/attestation?nonce={nonce}");
    let body = get(dialed.stream, address, &path).await?;
    let answer: Answer = serde_json::from_slice(&body)
        .context("it answered in a form that this build does not know")?;
    anyhow::ensure!(
        answer.quorum.members.len() <= MAX_MEMBERS,
        "it names {} members, more than the {MAX_MEMBERS} that are believed",
        answer.quorum.members.len()
    );
    Ok((hex::decode(&nonce)?, dialed.spki, answer))
}
