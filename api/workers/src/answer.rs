//! Every refusal of this face as an HTTP answer, in one place: plain text by default,
//! a Kubernetes `Status` for `Accept: application/json`.
//!
//! Invariant: both forms of a bad token begin with `Invalid Seal token`, which workers
//! in the field match on.

use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use nautilus_machinery::identity::AuditNote;
use serde_json::json;

use crate::proof::ProofFault;
use crate::register::RegisterError;
use crate::verdicts::Denied;
use crate::wire::{Malformed, TokenFault};

/// Seconds after which a worker may come again, where that helps.
const RETRY_AFTER_SECONDS: u64 = 1;

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("Invalid Seal token: {0}")]
    Token(TokenProblem),
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error(
        "timestamp: the worker's clock is {off_s} seconds away from this quorum's, more than the \
         {limit_s} allowed; set the worker's clock and register again"
    )]
    Skew { off_s: u64, limit_s: u64 },
    #[error("the body is larger than the limit of {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    #[error("body: it broke off: {0}")]
    BrokenBody(String),
    #[error("{field}: {reason}")]
    Query { field: &'static str, reason: String },
    #[error(
        "the worker {node_id} is not registered; register it with POST /api/v1/register-worker"
    )]
    NotRegistered { node_id: String },
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}; come again in {RETRY_AFTER_SECONDS} s")]
    Busy(&'static str),
    #[error("Unauthorized")]
    Anonymous,
    #[error("{0}")]
    Failed(String),
}

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenProblem {
    /// It needs no judge to be refused.
    #[error("{0}")]
    Fault(#[from] TokenFault),
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// Its stake was taken as a penalty.
    #[error("its stake was slashed")]
    Slashed,
    /// Its stake was taken back.
    #[error("its stake was withdrawn")]
    Withdrawn,
    /// Its stake does not make a worker.
    #[error("its stake of {amount} MIST is less than the {needed} that a worker needs")]
    StakeTooSmall {
        /// What it has, in MIST.
        amount: u64,
        /// What a worker needs, in MIST.
        needed: u64,
    },
    /// The node is somebody else's.
    #[error("it is not the owner of this node")]
    NotOwner,
    /// Another node is registered with it.
    #[error(
        "it speaks for another node, which was registered with it before; deleting that Node object \
         frees it"
    )]
    OtherNode,
    /// Nobody issued it.
    #[error("it is unknown")]
    Unknown,
    /// It came over another key's connection.
    #[error(
        "it is bound to another TLS client key; present the owner's signature (X-Seal-Proof) to \
         bind it to this one"
    )]
    OtherKey,
    /// It came over a connection without a key.
    #[error(
        "it is bound to a TLS client key, and this connection has none; present the owner's \
         signature (X-Seal-Proof) to free it"
    )]
    NoKey,
    /// The proof that came with it is no news.
    #[error("its owner's signature was used before, or is older than the last one: sign anew")]
    ProofUsed,
    /// The proof that came with it is somebody else's.
    #[error("the signature (X-Seal-Proof) is not its owner's")]
    ProvedByAnother,
    /// The proof that came with it is none.
    #[error("{0}")]
    Proof(#[from] ProofFault),
}

impl TokenProblem {
    /// The reason in one word: metrics and the `Status` cause.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fault(TokenFault::Missing) => "Missing",
            Self::Fault(TokenFault::Differ) => "Differ",
            Self::Fault(TokenFault::Unusable) => "Unusable",
            Self::Expired => "Expired",
            Self::Slashed => "Slashed",
            Self::Withdrawn => "Withdrawn",
            Self::StakeTooSmall { .. } => "StakeTooSmall",
            Self::NotOwner => "NotOwner",
            Self::OtherNode => "OtherNode",
            Self::Unknown => "Unknown",
            Self::OtherKey => "OtherKey",
            Self::NoKey => "NoKey",
            Self::ProofUsed => "ProofUsed",
            Self::ProvedByAnother => "ProvedByAnother",
            Self::Proof(_) => "Proof",
        }
    }

    /// Whether somebody other than its owner may be presenting it.
    pub fn is_suspicious(self) -> bool {
        match self {
            Self::OtherKey
            | Self::NoKey
            | Self::ProofUsed
            | Self::ProvedByAnother
            | Self::OtherNode => true,
            Self::Fault(_)
            | Self::Expired
            | Self::Slashed
            | Self::Withdrawn
            | Self::StakeTooSmall { .. }
            | Self::NotOwner
            | Self::Unknown
            | Self::Proof(_) => false,
        }
    }

    /// Whether only workers that know of keys and proofs meet it.
    fn is_of_keys(self) -> bool {
        self.is_suspicious() || matches!(self, Self::Proof(_))
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Token(problem) => Self::Token(problem),
            Denied::OutOfReach(reason) => Self::Unavailable(reason.to_owned()),
        }
    }
}

impl From<RegisterError> for Refusal {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::NotOwner => Self::Token(TokenProblem::NotOwner),
            RegisterError::OtherNode => Self::Token(TokenProblem::OtherNode),
            RegisterError::Full | RegisterError::Evicted | RegisterError::Unavailable(_) => {
                Self::Unavailable(error.to_string())
            }
            RegisterError::Failed(_) => Self::Failed(error.to_string()),
        }
    }
}

impl Refusal {
    fn code_and_reason(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Token(_) | Self::Anonymous => (StatusCode::UNAUTHORIZED, "Unauthorized"),
            Self::Malformed(_) | Self::Skew { .. } | Self::BrokenBody(_) | Self::Query { .. } => {
                (StatusCode::BAD_REQUEST, "BadRequest")
            }
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge"),
            Self::NotRegistered { .. } => (StatusCode::NOT_FOUND, "NotFound"),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            Self::Busy(_) => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
            Self::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        }
    }

    /// One word for the metric of heartbeats.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::Token(_) | Self::Anonymous => "invalid_token",
            Self::Malformed(_)
            | Self::Skew { .. }
            | Self::TooLarge { .. }
            | Self::BrokenBody(_)
            | Self::Query { .. } => "malformed",
            Self::NotRegistered { .. } => "not_registered",
            Self::Unavailable(_) => "unavailable",
            Self::Busy(_) => "busy",
            Self::Failed(_) => "failed",
        }
    }

    /// The answer, in the form that `headers` ask for.
    pub(crate) fn respond(&self, headers: &HeaderMap) -> Response {
        let (code, reason) = self.code_and_reason();
        let mut response = if accepts_json(headers) {
            (code, axum::Json(self.status(code, reason))).into_response()
        } else {
            let text = match self {
                // Older workers compare the whole text.
                Self::Token(problem) if !problem.is_of_keys() => "Invalid Seal token".to_owned(),
                _ => self.to_string(),
            };
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            (code, [(CONTENT_TYPE, plain)], text).into_response()
        };
        if let Self::Token(problem) = self
            && problem.is_suspicious()
        {
            tracing::warn!(%problem, "a Seal token was refused");
            response.extensions_mut().insert(AuditNote {
                key: "nautilus.io/seal-token-refused",
                value: problem.word().to_owned(),
            });
        }
        if matches!(self, Self::Unavailable(_) | Self::Busy(_)) {
            response
                .headers_mut()
                .insert(RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        response
    }

    fn status(&self, code: StatusCode, reason: &str) -> serde_json::Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.to_string(),
            "reason": reason,
            "code": code.as_u16(),
        });
        let cause = match self {
            Self::Token(problem) => Some(
                json!({"reason": problem.word(), "message": problem.to_string(), "field": "seal_token"}),
            ),
            Self::Malformed(wrong) => Some(
                json!({"reason": "FieldValueInvalid", "message": wrong.reason, "field": wrong.field}),
            ),
            Self::Skew { .. } => Some(
                json!({"reason": "FieldValueInvalid", "message": "clock skew", "field": "timestamp"}),
            ),
            _ => None,
        };
        if let Some(cause) = cause {
            status["details"] = json!({"causes": [cause]});
        }
        status
    }
}

/// Whether a Kubernetes `Status` is what the client reads.
fn accepts_json(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|range| {
            range
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .eq_ignore_ascii_case("application/json")
        })
}
