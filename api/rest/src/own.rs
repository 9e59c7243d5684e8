//! What nautilus adds to the Kubernetes API: who leads, how this node is, who the
//! members are, and client certificates for pinned operators.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{StatusCode, Uri};
use nautilus_machine::{Leadership, NewMember};
use nautilus_machinery::status::ApiError;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use crate::authority::{CLIENT_VALIDITY, CLIENT_VALIDITY_MIN, CheckedRequest, der_to_pem};
use crate::body;
use crate::context::RestContext;
use crate::failure::Failure;
use crate::ids;
use crate::operators::{check_names, find_operator, spki_fingerprint};
use crate::respond::{self, JSON_TYPE};
use crate::route::{MemberRequest, query_flag, query_pairs};

/// Bytes of a body of these requests, at most.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Bytes of a client's nonce.
const NONCE_BYTES: std::ops::RangeInclusive<usize> = 16..=64;

/// The document of `GET /nautilus/v1/leader`.
pub(crate) fn leader_document(context: &RestContext, leadership: &Leadership) -> Value {
    let leader = leadership.leader.as_ref();
    json!({
        "id": leader.map(|leader| leader.id),
        "address": leader.map(|leader| leader.api_address.as_str()),
        "term": leadership.term,
        "evidence_digest": leader.and_then(|leader| (context.node.evidence_digest)(leader.id)),
    })
}

/// `GET /nautilus/v1/leader`, once or as a stream of JSON lines, one a change.
pub(crate) fn leader(
    context: &Arc<RestContext>,
    request: &Request,
    permit: Option<OwnedSemaphorePermit>,
) -> Result<Response, Failure> {
    if !query_flag(request.uri(), "watch") {
        return respond::json_document(&leader_document(context, &context.kv.leadership()));
    }
    let changes = context.kv.leadership_changes();
    let shutdown = context.shutdown.clone();
    let context = context.clone();
    let lines = changes
        .map(move |leadership| {
            let _held = &permit;
            let line = format!("{}\n", leader_document(&context, &leadership));
            Ok::<_, std::convert::Infallible>(Bytes::from(line))
        })
        .take_until(async move { shutdown.cancelled().await });
    Ok(respond::bytes(
        StatusCode::OK,
        JSON_TYPE,
        Body::from_stream(lines),
    ))
}

/// `GET /nautilus/v1/status`: this node as it sees itself.
pub(crate) fn status(context: &RestContext) -> Result<Response, Failure> {
    let mut value = serde_json::to_value(context.cluster.status())
        .map_err(|error| ApiError::internal(error.to_string()))?;
    value["cluster"] = context.node.cluster.as_str().into();
    value["pid"] = std::process::id().into();
    value["api"] = context.node.api_address.as_str().into();
    value["measurement"] = context.node.measurement.as_str().into();
    value["tee"] = context.node.tee.as_str().into();
    respond::json_document(&value)
}

/// `GET /nautilus/v1/scheduler/explain?namespace=&pod=`: the decision for a pod, node by node.
pub(crate) fn explain(context: &RestContext, uri: &Uri) -> Result<Response, Failure> {
    let pairs = query_pairs(uri);
    let asked = |name: &str| {
        let mut pairs = pairs.iter();
        let found = pairs.find(|(own, value)| own == name && !value.is_empty());
        found
            .map(|(_, value)| value.as_str())
            .ok_or_else(|| ApiError::bad_request(format!("{name} is missing")))
    };
    let (namespace, pod) = (asked("namespace")?, asked("pod")?);
    let scheduling = context.scheduling.lock().upgrade();
    let scheduling = scheduling.ok_or_else(|| {
        ApiError::unavailable("no scheduler runs on this node: it does not lead", 1)
    })?;
    match scheduling.explain(namespace, pod) {
        Some(document) => respond::json_document(&document),
        None => Err(ApiError::not_found_on("", "pods", pod).into()),
    }
}

/// `/nautilus/v1/members...`
pub(crate) async fn members(
    context: &RestContext,
    asked: MemberRequest,
    request: Request,
) -> Result<Response, Failure> {
    let cluster = &context.cluster;
    match asked {
        MemberRequest::List => {}
        MemberRequest::Add => {
            let member: NewMember = read_json(request).await?;
            cluster.add(member).await?;
        }
        MemberRequest::Promote(id) => cluster.promote(id).await?,
        MemberRequest::Transfer(id) => cluster.transfer(id).await?,
        MemberRequest::Remove(id) => cluster.remove(id).await?,
    }
    respond::json_document(&json!({ "members": cluster.members() }))
}

/// The body of a credential request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CredentialRequest {
    /// PEM PKCS#10, signed by the operator's key.
    csr: String,
    /// The client's nonce in hex: the evidence in the answer is bound to it.
    nonce: String,
    /// Seconds the certificate shall be valid; the longest time when absent.
    #[serde(default)]
    validity_seconds: Option<u64>,
}

/// How long a certificate shall be valid.
fn validity(seconds: Option<u64>) -> Result<Duration, ApiError> {
    let asked = seconds.map_or(CLIENT_VALIDITY, Duration::from_secs);
    if (CLIENT_VALIDITY_MIN..=CLIENT_VALIDITY).contains(&asked) {
        return Ok(asked);
    }
    Err(ApiError::bad_request(format!(
        "validity_seconds must be {} to {}",
        CLIENT_VALIDITY_MIN.as_secs(),
        CLIENT_VALIDITY.as_secs()
    )))
}

/// `POST /nautilus/v1/credentials`: a client certificate for a pinned operator.
pub(crate) async fn credentials(
    context: &RestContext,
    request: Request,
) -> Result<Response, Failure> {
    let asked: CredentialRequest = read_json(request).await?;
    let nonce = ids::unhex(&asked.nonce)
        .filter(|nonce| NONCE_BYTES.contains(&nonce.len()))
        .ok_or_else(|| ApiError::bad_request("nonce must be 16 to 64 bytes in hex"))?;
    let validity = validity(asked.validity_seconds)?;
    let request = CheckedRequest::from_pem(&asked.csr)
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let operator = find_operator(context.kv.as_ref(), request.spki_der())
        .await
        .map_err(|error| ApiError::unavailable(error.to_string(), 1))?
        .ok_or_else(|| unknown_key(&request))?;
    let authority = &context.authority;
    let certificate = authority
        .issue_client(&request, &operator.user, &operator.groups, validity)
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let data = (context.node.credential_report_data)(&nonce, authority.spki_der(), &certificate);
    let evidence = (context.node.evidence)(data)
        .map_err(|error| ApiError::internal(format!("no evidence could be made: {error}")))?;
    tracing::info!(user = %operator.user, "issued a client certificate to a pinned operator");
    respond::json_document(&json!({
        "ca": authority.certificate_pem(),
        "certificate": der_to_pem("CERTIFICATE", &certificate),
        "evidence": BASE64.encode(evidence),
        "tee": context.node.tee,
        "measurement": context.node.measurement,
    }))
}

/// `POST /nautilus/v1/certificates`: a client certificate for a user that the
/// administrator names.
pub(crate) async fn certificates(
    context: &RestContext,
    request: Request,
) -> Result<Response, Failure> {
    let asked: CertificateRequest = read_json(request).await?;
    check_names(&asked.user, &asked.groups).map_err(ApiError::bad_request)?;
    let request = CheckedRequest::from_pem(&asked.csr)
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let certificate = context
        .authority
        .issue_client(&request, &asked.user, &asked.groups, CLIENT_VALIDITY)
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    tracing::info!(user = %asked.user, groups = ?asked.groups, "issued a client certificate");
    respond::json_document(&json!({
        "ca": context.authority.certificate_pem(),
        "certificate": der_to_pem("CERTIFICATE", &certificate),
    }))
}

fn unknown_key(request: &CheckedRequest) -> ApiError {
    let fingerprint = spki_fingerprint(request.spki_der());
    ApiError::forbidden_path(
        &format!("key sha256:{fingerprint} (not pinned as an operator of this quorum)"),
        "post",
        "/nautilus/v1/credentials",
    )
}

/// `POST /nautilus/v1/certificates`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateRequest {
    /// The request, RFC 2986 in PEM; the names in it do not count.
    csr: String,
    /// The user: the common name.
    user: String,
    /// The groups: the organizations.
    #[serde(default)]
    groups: Vec<String>,
}

async fn read_json<T: for<'de> Deserialize<'de>>(request: Request) -> Result<T, Failure> {
    let (parts, content) = request.into_parts();
    let content = body::read(&parts.headers, content, MAX_BODY_BYTES).await?;
    serde_json::from_slice(&content).map_err(|error| {
        ApiError::bad_request(format!("the body is not as expected: {error}")).into()
    })
}
