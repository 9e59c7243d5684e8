//! An API request of the chain as a replicated row, and how it comes to its end. Pure.
//!
//! Invariant: a request runs only while its row says so for the present term; what is done
//! stays done.

use nautilus_machine::KeyRange;
use serde::{Deserialize, Serialize};

use super::super::effects::{ApiCall, Assignment, Report};
use crate::chain::EventId;

/// Every row's key begins with this; the rest is the `request_id`.
pub(crate) const REQUESTS_PREFIX: &str = "/nautilus/sui/requests/";

/// Marks by which a requester's requests are counted.
const REQUESTERS_PREFIX: &str = "/nautilus/sui/requesters/";

/// A request, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequestRow {
    /// Its place among all requests, in the chain's order.
    pub(crate) sequence: u64,
    /// The event that scheduled it.
    pub(crate) event: EventId,
    /// When the chain took it, in Unix milliseconds.
    pub(crate) scheduled_at_ms: u64,
    /// What it asks for; its payload goes when it is done.
    pub(crate) call: ApiCall,
    pub(crate) state: State,
    pub(crate) assigned: Option<Assignment>,
    pub(crate) reported: Option<Report>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum State {
    Pending,
    /// The leader of that term has begun.
    Running {
        term: u64,
        started_ms: u64,
        /// What it changes, as it stood before the first attempt.
        target: Option<Target>,
    },
    Done {
        finished_ms: u64,
        result: Outcome,
    },
}

/// An object as it stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    pub(crate) uid: String,
    pub(crate) resource_version: String,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Outcome {
    pub(crate) success: bool,
    /// The API's status code; 0 where it was not asked.
    pub(crate) code: u16,
    /// The beginning of its answer.
    pub(crate) output: String,
    /// Whether the answer was longer.
    pub(crate) truncated: bool,
    /// Empty on success.
    pub(crate) error: String,
    pub(crate) execution_time_ms: u64,
}

impl RequestRow {
    /// The row's key.
    pub(crate) fn key(request_id: &str) -> String {
        format!("{REQUESTS_PREFIX}{request_id}")
    }

    /// What the keys of the marks of a requester's requests begin with.
    pub(crate) fn asked_by(requester: &str) -> String {
        format!("{REQUESTERS_PREFIX}{requester}/")
    }

    /// All rows.
    pub(crate) fn all() -> KeyRange {
        KeyRange::prefix(REQUESTS_PREFIX)
    }

    /// A request that an event has scheduled.
    pub(crate) fn scheduled(call: ApiCall, event: EventId, at_ms: u64, sequence: u64) -> Self {
        Self {
            sequence,
            event,
            scheduled_at_ms: at_ms,
            call,
            state: State::Pending,
            assigned: None,
            reported: None,
        }
    }

    /// The row as the leader of `term` begins it, or takes it over from one that was lost;
    /// `None` when it is done.
    pub(crate) fn started(&self, term: u64, now_ms: u64, target: Option<Target>) -> Option<Self> {
        let state = match &self.state {
            State::Pending => State::Running {
                term,
                started_ms: now_ms,
                target,
            },
            State::Running {
                started_ms, target, ..
            } => State::Running {
                term,
                started_ms: *started_ms,
                target: target.clone(),
            },
            State::Done { .. } => return None,
        };
        Some(Self {
            state,
            ..self.clone()
        })
    }

    /// The row with its end.
    pub(crate) fn finished(mut self, result: Outcome, now_ms: u64) -> Self {
        self.call.payload.clear();
        self.state = State::Done {
            finished_ms: now_ms,
            result,
        };
        self
    }
}

impl Outcome {
    /// The end of a request that never reached the API.
    pub(crate) fn refused(code: u16, error: impl Into<String>) -> Self {
        Self {
            success: false,
            code,
            output: String::new(),
            truncated: false,
            error: error.into(),
            execution_time_ms: 0,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn pending(id: &str, method: &str, resource: &str, payload: &str) -> RequestRow {
        let call = ApiCall {
            request_id: id.into(),
            requester: format!("0x{:0>64}", "a1"),
            method: method.into(),
            resource: resource.into(),
            namespace: "default".into(),
            name: "web".into(),
            payload: payload.into(),
            priority: 5,
        };
        let event = EventId {
            tx_digest: "tx".into(),
            event_seq: 0,
        };
        RequestRow::scheduled(call, event, 1, 0)
    }

    #[test]
    fn what_is_done_is_never_begun_and_a_taken_over_request_keeps_what_it_began_with() {
        let target = Target {
            uid: "u".into(),
            resource_version: "7".into(),
        };
        let row = pending("r", "GET", "pods", "{}");
        let running = row.started(3, 100, Some(target.clone())).expect("pending");
        let taken_over = running.started(4, 900, None).expect("running");
        assert_eq!(
            taken_over.state,
            State::Running {
                term: 4,
                started_ms: 100,
                target: Some(target)
            }
        );
        let done = taken_over.finished(Outcome::refused(403, "no"), 1000);
        assert!(done.call.payload.is_empty());
        assert_eq!(done.started(5, 2000, None), None);
    }

    #[test]
    fn a_row_survives_its_bytes() {
        let row = pending("r", "GET", "pods", "")
            .started(3, 100, None)
            .expect("pending");
        let bytes = serde_json::to_vec(&row).expect("JSON");
        assert_eq!(
            serde_json::from_slice::<RequestRow>(&bytes).expect("the same"),
            row
        );
    }
}
