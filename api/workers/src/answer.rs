//! Every refusal of this face as an HTTP answer, in one place: plain text by default,
//! a Kubernetes `Status` for `Accept: application/json`.
//!
//! Invariant: both forms of a bad token begin with `Invalid Seal token`, which workers
//! in the field match on.

use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;

use crate::judge::Verdict;
use crate::register::RegisterError;
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
pub(crate) enum TokenProblem {
    #[error("{0}")]
    Fault(#[from] TokenFault),
    #[error("it has expired")]
    Expired,
    #[error("its stake was slashed")]
    Slashed,
    #[error("its stake was withdrawn")]
    Withdrawn,
    #[error("its stake of {amount} MIST is less than the {needed} that a worker needs")]
    StakeTooSmall { amount: u64, needed: u64 },
    #[error("it is not the owner of this node")]
    NotOwner,
    #[error("it is unknown")]
    Unknown,
}

impl TokenProblem {
    /// The reason in one word: metrics and the `Status` cause.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Fault(TokenFault::Missing) => "Missing",
            Self::Fault(TokenFault::Differ) => "Differ",
            Self::Fault(TokenFault::Unusable) => "Unusable",
            Self::Expired => "Expired",
            Self::Slashed => "Slashed",
            Self::Withdrawn => "Withdrawn",
            Self::StakeTooSmall { .. } => "StakeTooSmall",
            Self::NotOwner => "NotOwner",
            Self::Unknown => "Unknown",
        }
    }
}

/// A favourable verdict's content, or the refusal.
pub(crate) fn favourable(verdict: Verdict) -> Result<(String, u64, Option<u64>), Refusal> {
    match verdict {
        Verdict::Active {
            owner,
            stake_amount,
            expires_at,
        } => Ok((owner, stake_amount, expires_at)),
        Verdict::Expired => Err(Refusal::Token(TokenProblem::Expired)),
        Verdict::Slashed => Err(Refusal::Token(TokenProblem::Slashed)),
        Verdict::Withdrawn => Err(Refusal::Token(TokenProblem::Withdrawn)),
        Verdict::StakeTooSmall { amount, needed } => {
            let problem = TokenProblem::StakeTooSmall { amount, needed };
            Err(Refusal::Token(problem))
        }
        Verdict::NotOwner => Err(Refusal::Token(TokenProblem::NotOwner)),
        Verdict::Unknown => Err(Refusal::Token(TokenProblem::Unknown)),
        Verdict::Unavailable => Err(Refusal::Unavailable(
            "the token can't be judged now: its judge is out of reach".into(),
        )),
    }
}

impl From<RegisterError> for Refusal {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::NotOwner => Self::Token(TokenProblem::NotOwner),
            RegisterError::Full | RegisterError::Unavailable(_) => {
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
                Self::Token(_) => "Invalid Seal token".to_owned(),
                _ => self.to_string(),
            };
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            (code, [(CONTENT_TYPE, plain)], text).into_response()
        };
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
