//! What goes wrong below the face, as the client hears it: the one place where
//! errors of the store become Kubernetes `Status` objects.

use nautilus_machine::{
    BarrierError, ClusterError, LedgerError, ProposeError, RangeError, Refusal, WatchError,
};
use nautilus_machinery::status::{ApiError, Cause};
use serde_json::{Value, json};

/// Seconds a client is asked to wait when the quorum has no leader for the moment.
const RETRY_AFTER_SECONDS: u32 = 1;
/// The cause of a refusal to make something in a namespace that ends.
const NAMESPACE_ENDS: &str = "NamespaceTerminating";

/// A refusal on its way to the client.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) error: ApiError,
    /// A fresh token, for a list whose old one expired.
    continue_token: Option<String>,
    /// What the client is told besides.
    pub(crate) warnings: Vec<String>,
}

impl Failure {
    /// 410 for an expired continue token, with a token that goes on from the same
    /// key at the newest revision.
    pub(crate) fn expired_continue(token: String) -> Self {
        let message = "The provided continue parameter is too old to display a consistent list \
                       result. You can start a new list without the continue parameter, or use \
                       the continue token in this response to retrieve the remainder of the \
                       results. Continuing with the provided token results in an inconsistent \
                       list - objects that were created, modified, or deleted between the time \
                       the first chunk was returned and now may show up in the list.";
        Self {
            error: ApiError::expired(message),
            continue_token: Some(token),
            warnings: Vec::new(),
        }
    }

    /// The same refusal, with what the client is told besides.
    pub(crate) fn with_warnings(self, warnings: Vec<String>) -> Self {
        Self { warnings, ..self }
    }

    /// Whether nothing can be made any more where it was to be made.
    pub(crate) fn namespace_ends(&self) -> bool {
        let mut causes = self.error.causes().iter();
        causes.any(|cause| cause.reason == NAMESPACE_ENDS)
    }

    /// The `Status` object.
    pub(crate) fn to_status(&self) -> Value {
        let mut status = self.error.to_status();
        if let Some(token) = &self.continue_token {
            status["metadata"] = json!({ "continue": token });
        }
        status
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self {
            error,
            continue_token: None,
            warnings: Vec::new(),
        }
    }
}

impl From<BarrierError> for Failure {
    fn from(error: BarrierError) -> Self {
        ApiError::unavailable(error.to_string(), RETRY_AFTER_SECONDS).into()
    }
}

impl From<RangeError> for Failure {
    fn from(error: RangeError) -> Self {
        match error {
            RangeError::Compacted { compacted } => ApiError::expired(format!(
                "The resourceVersion for the provided list is too old: the oldest kept is \
                 {compacted}"
            ))
            .into(),
            RangeError::FutureRevision { current } => too_large_version(None, current).into(),
            RangeError::Storage(_) => ApiError::internal(error.to_string()).into(),
        }
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        let text = error.to_string();
        match error {
            LedgerError::Compacted { .. } => ApiError::expired(text).into(),
            LedgerError::FutureRevision { .. }
            | LedgerError::FutureSize { .. }
            | LedgerError::NoSuchKey { .. } => ApiError::path_not_found().with_message(text).into(),
            LedgerError::Ambiguous { .. } | LedgerError::Order { .. } => {
                ApiError::bad_request(text).into()
            }
            LedgerError::Unavailable(_) => ApiError::unavailable(text, RETRY_AFTER_SECONDS).into(),
            LedgerError::Storage(_) => ApiError::internal(text).into(),
        }
    }
}

impl From<WatchError> for Failure {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::Compacted { compacted } => expired_watch(compacted).into(),
            WatchError::Closed => {
                ApiError::unavailable(error.to_string(), RETRY_AFTER_SECONDS).into()
            }
            WatchError::Storage(_) => ApiError::internal(error.to_string()).into(),
        }
    }
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::Invalid(message) => ApiError::bad_request(message).into(),
            ClusterError::Unavailable(message) => {
                ApiError::unavailable(message, RETRY_AFTER_SECONDS).into()
            }
        }
    }
}

/// 410: a watch from a revision that is compacted away.
pub(crate) fn expired_watch(compacted: u64) -> ApiError {
    ApiError::expired(format!(
        "too old resource version: the oldest kept is {compacted}"
    ))
}

/// 504: the client asks for a version this quorum has not reached.
/// Clients know it by its cause, and ask again for any version.
pub(crate) fn too_large_version(wanted: Option<u64>, current: u64) -> ApiError {
    const MESSAGE: &str = "Too large resource version";
    let wanted = wanted.map_or_else(String::new, |wanted| format!(": {wanted}"));
    ApiError::timeout(
        format!("{MESSAGE}{wanted}, current: {current}"),
        RETRY_AFTER_SECONDS,
    )
    .with_given_cause(Cause {
        reason: "ResourceVersionTooLarge".to_owned(),
        message: MESSAGE.to_owned(),
        ..Cause::default()
    })
}

/// 504: attempts to learn a write's outcome ran out.
pub(crate) fn unknown_outcome(reason: &str) -> Failure {
    ApiError::timeout(
        format!("the write's outcome is not known, read before you repeat it: {reason}"),
        RETRY_AFTER_SECONDS,
    )
    .into()
}

/// A proposal's error that has only one reading.
pub(crate) fn propose_failure(error: &ProposeError) -> Failure {
    match error {
        ProposeError::Unavailable(_) => {
            ApiError::unavailable(error.to_string(), RETRY_AFTER_SECONDS).into()
        }
        ProposeError::Unknown(reason) => unknown_outcome(reason),
        ProposeError::TooLarge { limit, .. } => ApiError::too_large(*limit).into(),
        ProposeError::Storage(_) => ApiError::internal(error.to_string()).into(),
    }
}

/// The state machine's refusal of a transaction of ours.
pub(crate) fn refused(refusal: &Refusal) -> Failure {
    match refusal {
        Refusal::Fenced { .. } => {
            ApiError::unavailable(refusal.to_string(), RETRY_AFTER_SECONDS).into()
        }
        _ => ApiError::internal(refusal.to_string()).into(),
    }
}

/// What a task that looks again makes of a write: that the object is gone is as good as done.
pub(crate) fn unless_gone<T>(outcome: Result<T, Failure>) -> Result<(), Failure> {
    match outcome {
        Err(failure) if failure.error.code() != 404 => Err(failure),
        _ => Ok(()),
    }
}

/// The same where somebody else may have been first: the next look sees to it.
pub(crate) fn unless_lost<T>(outcome: Result<T, Failure>) -> Result<(), Failure> {
    match outcome {
        Err(failure) if failure.error.code() == 409 => Ok(()),
        outcome => unless_gone(outcome),
    }
}

/// The same of what belongs to a namespace: that it ends is as good.
pub(crate) fn unless_ended<T>(outcome: Result<T, Failure>) -> Result<(), Failure> {
    match outcome {
        Err(failure) if failure.namespace_ends() => Ok(()),
        outcome => unless_lost(outcome),
    }
}
