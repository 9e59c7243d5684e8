//! Asking one node what it is.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::Full;
use nautilus_attest_protocol::binding::evidence_digest;
use nautilus_attest_protocol::{Claims, Refused, attestation_report_data};
use serde::Deserialize;

use crate::address::Address;
use crate::connection::{Connection, ConnectionError};
use crate::judge::Judge;
use crate::tls::unverified_tls;

/// Bytes of the nonce.
const NONCE_BYTES: usize = 32;
/// Members believed of one quorum, at most.
pub(crate) const MAX_MEMBERS: usize = 64;
/// For a node to make its evidence and answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a node says in `GET /api/v1/attestation`, beside its evidence.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct QuorumView {
    /// The quorum's name.
    pub cluster: String,
    /// Who says it.
    pub node_id: u64,
    /// The members.
    pub members: Vec<PublicMember>,
}

/// A member, as anybody may know it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PublicMember {
    /// Its id.
    pub id: u64,
    /// `https://host:port`; empty until it has joined.
    pub api_address: String,
    /// `voter` or `learner`.
    pub role: String,
    /// The platform that the membership pins, hex; empty until it has joined.
    pub platform: String,
}

/// The answer.
#[derive(Deserialize)]
struct Answer {
    evidence: String,
    quorum: QuorumView,
}

/// A node whose evidence is genuine, fresh and over its serving key.
#[derive(Debug, Clone)]
pub struct Examined {
    /// What its TEE vouches for.
    pub claims: Claims,
    /// DER of the SubjectPublicKeyInfo with which it serves.
    pub spki: Vec<u8>,
    /// SHA-256 of the evidence.
    pub evidence_digest: [u8; 32],
    /// What it says of its quorum. Worth what the policy says of the claims.
    pub quorum: QuorumView,
}

/// Why a node is not believed.
#[derive(Debug, thiserror::Error)]
pub enum ExamineError {
    /// It gave no answer.
    #[error(transparent)]
    NoConnection(#[from] ConnectionError),
    /// It gave no answer of the form.
    #[error("{0}")]
    NoAnswer(String),
    /// Its evidence proves nothing.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Asks the node at `address` for evidence over a fresh nonce and the key of this very
/// connection, and reads it. Whether the code is accepted is not decided here.
///
/// # Errors
/// When there is no answer of the form, or its evidence is not genuine.
pub async fn examine(address: &Address, judge: &Judge) -> Result<Examined, ExamineError> {
    let tls = unverified_tls().map_err(|error| ExamineError::NoAnswer(error.to_string()))?;
    let mut connection = Connection::open(address, Arc::new(tls)).await?;
    examine_connection(&mut connection, judge).await
}

/// The same, on a connection that stays.
pub(crate) async fn examine_connection(
    connection: &mut Connection,
    judge: &Judge,
) -> Result<Examined, ExamineError> {
    let mut nonce = [0; NONCE_BYTES];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| no_answer("there are no random bytes"))?;
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, ask(connection, &nonce))
        .await
        .map_err(|_| no_answer(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())))??;
    let evidence = BASE64
        .decode(&answer.evidence)
        .map_err(|error| no_answer(format!("its evidence is not base64: {error}")))?;
    let expected = attestation_report_data(&nonce, &connection.spki);
    Ok(Examined {
        claims: judge.claims(&evidence, &expected)?,
        spki: connection.spki.clone(),
        evidence_digest: evidence_digest(&evidence),
        quorum: answer.quorum,
    })
}

async fn ask(connection: &mut Connection, nonce: &[u8]) -> Result<Answer, ExamineError> {
    let path = format!("/api/v1/attestation?nonce={}", hex::encode(nonce));
    let request = http::Request::get(path)
        .header(http::header::ACCEPT, "application/json")
        .body(Full::new(Bytes::new()))
        .map_err(|error| no_answer(error.to_string()))?;
    let answer = connection.send(request).await?;
    if !answer.status.is_success() {
        let text = answer.message();
        return Err(no_answer(format!(
            "it answered {}: {}",
            answer.status,
            text.escape_default()
        )));
    }
    let answer: Answer = serde_json::from_slice(&answer.body)
        .map_err(|error| no_answer(format!("it answered in an unknown form: {error}")))?;
    let members = answer.quorum.members.len();
    if members > MAX_MEMBERS {
        return Err(no_answer(format!(
            "it names {members} members, more than the {MAX_MEMBERS} that are believed"
        )));
    }
    Ok(answer)
}

fn no_answer(reason: impl Into<String>) -> ExamineError {
    ExamineError::NoAnswer(reason.into())
}
