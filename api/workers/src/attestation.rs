//! `GET /api/v1/attestation`: evidence over the asker's nonce and the serving key, for
//! whoever asks.
//!
//! `nonce` is 8 to 64 bytes in hex and drawn here when absent (which proves nothing to
//! anybody, but shows the form). `format` is
//! * `json` (default): evidence in base64, and the quorum as this node sees it;
//! * `raw`: the evidence itself;
//! * `eat`: an Entity Attestation Token around it;
//! * `sui`: an attestation and a signed message for contracts on Sui.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderMap;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde_json::{Value, json};

use crate::Workers;
use crate::answer::Refusal;
use crate::facts::{EvidenceForm, QuorumView};
use crate::limits;

/// Bytes of a nonce that nobody gave.
const FRESH_NONCE_BYTES: usize = 32;

/// Answers.
pub(crate) async fn answer(
    State(workers): State<Arc<Workers>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    match attest(&workers, query.as_deref().unwrap_or_default()).await {
        Ok(answer) => answer,
        Err(refusal) => refusal.respond(&headers),
    }
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    nonce: Option<Vec<u8>>,
    /// `None` is JSON.
    form: Option<EvidenceForm>,
}

impl Asked {
    fn parse(query: &str) -> Result<Self, Refusal> {
        let mut asked = Self {
            nonce: None,
            form: None,
        };
        let mut seen = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let field = match name {
                "nonce" => "nonce",
                "format" => "format",
                // What other proxies and clients put there is not ours to refuse.
                _ => continue,
            };
            if seen.contains(&field) {
                return Err(refused(field, "is there twice"));
            }
            seen.push(field);
            if field == "nonce" {
                asked.nonce = Some(nonce(value)?);
                continue;
            }
            asked.form = match value {
                "json" => None,
                "raw" => Some(EvidenceForm::Raw),
                "eat" => Some(EvidenceForm::Eat),
                "sui" => Some(EvidenceForm::Sui),
                _ => return Err(refused(field, "must be json, raw, eat or sui")),
            };
        }
        Ok(asked)
    }
}

fn nonce(text: &str) -> Result<Vec<u8>, Refusal> {
    let (least, most) = (limits::NONCE_BYTES.start(), limits::NONCE_BYTES.end());
    let nonce = hex::decode(text)
        .map_err(|error| refused("nonce", &format!("must be hexadecimal: {error}")))?;
    if !limits::NONCE_BYTES.contains(&nonce.len()) {
        return Err(refused(
            "nonce",
            &format!("must be {least} to {most} bytes long, not {}", nonce.len()),
        ));
    }
    Ok(nonce)
}

fn refused(field: &'static str, reason: &str) -> Refusal {
    Refusal::Query {
        field,
        reason: reason.to_owned(),
    }
}

async fn attest(workers: &Workers, query: &str) -> Result<Response, Refusal> {
    let asked = Asked::parse(query)?;
    let _permit = workers
        .attestations
        .try_acquire()
        .map_err(|_| Refusal::Busy("too much evidence is being made"))?;
    let nonce = match asked.nonce {
        Some(nonce) => nonce,
        None => {
            let mut fresh = vec![0; FRESH_NONCE_BYTES];
            aws_lc_rs::rand::fill(&mut fresh)
                .map_err(|_| Refusal::Failed("the system gave no random bytes".into()))?;
            fresh
        }
    };
    let form = asked.form.unwrap_or(EvidenceForm::Raw);
    let evidence = (workers.probes.attest)(nonce.clone(), form)
        .await
        .map_err(Refusal::Failed)?;
    if asked.form.is_some() {
        let headers = [(CONTENT_TYPE, evidence.format), (CACHE_CONTROL, "no-store")];
        return Ok((headers, evidence.document).into_response());
    }
    let answer = json!({
        "tee_type": workers.facts.tee_type,
        "measurement": workers.facts.measurement,
        "nonce": hex::encode(nonce),
        "format": evidence.format,
        "evidence": BASE64.encode(&evidence.document),
        "quorum": public_view(&(workers.probes.quorum)()),
        "timestamp": workers.clock.unix_ms() / 1000,
    });
    Ok(([(CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

/// What anybody may know of a quorum: where its members serve and on which platforms,
/// which their evidence says as well.
fn public_view(view: &QuorumView) -> Value {
    let members: Vec<Value> = view
        .members
        .iter()
        .map(|member| {
            json!({
                "id": member.id,
                "api_address": member.api_address,
                "role": member.role,
                "platform": member.platform,
            })
        })
        .collect();
    json!({ "cluster": view.cluster, "node_id": view.node_id, "members": members })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Asked, String> {
        Asked::parse(query).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_query_names_a_nonce_and_a_form() {
        let asked = parse("nonce=0011223344556677&format=eat&timeout=1s").expect("fits");
        assert_eq!(asked.nonce.as_deref().map(<[u8]>::len), Some(8));
        assert_eq!(asked.form, Some(EvidenceForm::Eat));
        assert_eq!(parse("format=json").expect("fits").form, None);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let long = format!("nonce={}", "00".repeat(65));
        for (query, said) in [
            ("nonce=0011", "nonce: must be 8 to 64 bytes long, not 2"),
            (long.as_str(), "nonce: must be 8 to 64 bytes long, not 65"),
            ("nonce=", "nonce: must be 8 to 64 bytes long, not 0"),
            ("format=xml", "format: must be json, raw, eat or sui"),
            ("format=raw&format=eat", "format: is there twice"),
        ] {
            assert_eq!(parse(query), Err(said.to_owned()));
        }
        let error = parse("nonce=zz").expect_err("no hex");
        assert!(error.starts_with("nonce: must be hexadecimal"), "{error}");
    }
}
