//! What an event of the chain says, as checked values. Pure.
//!
//! Invariants
//! - An event that can't be read is named and passed over: it never stops the chain.
//! - Tokens leave here as hashes only.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::limits::{
    OUTPUT_LIMIT_BYTES, PAYLOAD_LIMIT_BYTES, REQUEST_ID_LIMIT_BYTES, TEXT_LIMIT_BYTES,
};
use crate::chain::ChainEvent;
use crate::lifecycle::Stake;
use crate::limits::NODE_ID_LIMIT_BYTES;
use crate::token::{SealToken, TokenHash};
use crate::wire::{Malformed, wrong};

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// `WorkerRegisteredEvent`
    Registered {
        node_id: String,
        owner: String,
        stake_amount: u64,
        seal_token: Option<TokenHash>,
    },
    /// `WorkerStatusChangedEvent`; `stake`: `None` where the status says nothing of it.
    StatusChanged {
        node_id: String,
        stake: Option<Stake>,
    },
    /// `StakeDepositedEvent`
    Deposited {
        node_id: String,
        owner: String,
        amount: u64,
    },
    /// `JoinTokenSetEvent`; `None` takes the token back.
    JoinTokenSet {
        node_id: String,
        join_token: Option<TokenHash>,
    },
    /// `K8sAPIRequestScheduledEvent`
    Scheduled(Box<ApiCall>),
    /// `K8sAPIResultEvent`
    Reported { request_id: String, report: Report },
    /// `WorkerAssignedEvent`
    Assigned {
        request_id: String,
        assignment: Assignment,
    },
}

/// An API request as it was scheduled on the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ApiCall {
    pub(crate) request_id: String,
    /// The address on whose behalf it runs: `0x` and 64 digits of hex.
    pub(crate) requester: String,
    /// An HTTP method or a verb of Kubernetes.
    pub(crate) method: String,
    pub(crate) resource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// JSON, or empty.
    pub(crate) payload: String,
    pub(crate) priority: u8,
}

/// What a worker told the chain of a request that it was assigned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) worker: String,
    pub(crate) success: bool,
    pub(crate) output: String,
    pub(crate) error: String,
    pub(crate) execution_time_ms: u64,
}

/// The worker that the chain assigned a request to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) worker: String,
    pub(crate) workload_count: u64,
}

impl Effect {
    /// Reads an event; `None` for one that means nothing here.
    pub(crate) fn of(event: &ChainEvent) -> Result<Option<Self>, Malformed> {
        let fields = Fields(&event.fields);
        Ok(Some(match (event.module.as_str(), event.name.as_str()) {
            ("worker_registry", "WorkerRegisteredEvent") => Self::Registered {
                node_id: fields.node_id()?,
                owner: fields.address("owner")?,
                stake_amount: fields.number("stake_amount")?,
                seal_token: fields.token("seal_token")?,
            },
            ("worker_registry", "WorkerStatusChangedEvent") => Self::StatusChanged {
                node_id: fields.node_id()?,
                stake: Stake::parse(fields.text("new_status", TEXT_LIMIT_BYTES)?),
            },
            ("worker_registry", "StakeDepositedEvent") => Self::Deposited {
                node_id: fields.node_id()?,
                owner: fields.address("owner")?,
                amount: fields.number("amount")?,
            },
            ("worker_registry", "JoinTokenSetEvent") => Self::JoinTokenSet {
                node_id: fields.node_id()?,
                join_token: fields.token("join_token")?,
            },
            ("k8s_scheduler", "K8sAPIRequestScheduledEvent") => {
                Self::Scheduled(Box::new(fields.call()?))
            }
            ("k8s_scheduler", "K8sAPIResultEvent") => Self::Reported {
                request_id: fields.request_id()?,
                report: fields.report()?,
            },
            ("k8s_scheduler", "WorkerAssignedEvent") => Self::Assigned {
                request_id: fields.request_id()?,
                assignment: Assignment {
                    worker: fields.text("worker_id", TEXT_LIMIT_BYTES)?.to_owned(),
                    workload_count: fields.number("workload_count")?,
                },
            },
            _ => return Ok(None),
        }))
    }
}

/// An address in one form: `0x` and 64 lower-case digits.
pub(crate) fn address(text: &str) -> Option<String> {
    let digits = text.strip_prefix("0x")?;
    let fits = !digits.is_empty() && digits.len() <= 64;
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (fits && is_hex).then(|| format!("0x{:0>64}", digits.to_ascii_lowercase()))
}

/// The first bytes of a text, whole characters only.
pub(crate) fn shortened(text: &str, limit_bytes: usize) -> &str {
    let mut end = limit_bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The fields of an event.
struct Fields<'a>(&'a Value);

impl<'a> Fields<'a> {
    fn text(&self, field: &str, limit_bytes: usize) -> Result<&'a str, Malformed> {
        let text = self.0.get(field).and_then(Value::as_str);
        let text = text.ok_or_else(|| wrong(field, "must be a string"))?;
        if text.len() > limit_bytes {
            return Err(wrong(field, format!("is longer than {limit_bytes} bytes")));
        }
        Ok(text)
    }

    /// The chain writes u64 as text, smaller numbers as numbers.
    fn number(&self, field: &str) -> Result<u64, Malformed> {
        match self.0.get(field) {
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_u64(),
            None => None,
        }
        .ok_or_else(|| wrong(field, "must be a whole number of 64 bits"))
    }

    fn address(&self, field: &str) -> Result<String, Malformed> {
        address(self.text(field, TEXT_LIMIT_BYTES)?)
            .ok_or_else(|| wrong(field, "must be an address: 0x and up to 64 digits of hex"))
    }

    /// A token's hash; `None` where it is empty.
    fn token(&self, field: &str) -> Result<Option<TokenHash>, Malformed> {
        let text = self.text(field, crate::limits::TOKEN_LIMIT_BYTES)?;
        Ok(SealToken::new(text.to_owned()).map(|token| token.hash()))
    }

    fn node_id(&self) -> Result<String, Malformed> {
        self.id("node_id", NODE_ID_LIMIT_BYTES)
    }

    fn request_id(&self) -> Result<String, Malformed> {
        self.id("request_id", REQUEST_ID_LIMIT_BYTES)
    }

    /// What may stand in a key of a row.
    fn id(&self, field: &str, limit_bytes: usize) -> Result<String, Malformed> {
        let text = self.text(field, limit_bytes)?;
        if text.is_empty() {
            return Err(wrong(field, "is empty"));
        }
        if text.chars().any(|c| c.is_control() || c == '/') {
            let reason = "must hold neither slashes nor control characters";
            return Err(wrong(field, reason));
        }
        Ok(text.to_owned())
    }

    fn call(&self) -> Result<ApiCall, Malformed> {
        let text = |field| Ok(self.text(field, TEXT_LIMIT_BYTES)?.to_owned());
        Ok(ApiCall {
            request_id: self.request_id()?,
            requester: self.address("requester")?,
            method: text("method")?,
            resource: text("resource")?,
            namespace: text("namespace")?,
            name: text("name")?,
            payload: self.text("payload", PAYLOAD_LIMIT_BYTES)?.to_owned(),
            priority: u8::try_from(self.number("priority")?)
                .map_err(|_| wrong("priority", "must be a whole number of 8 bits"))?,
        })
    }

    fn report(&self) -> Result<Report, Malformed> {
        let long = |field| {
            let text = self.text(field, PAYLOAD_LIMIT_BYTES)?;
            Ok(shortened(text, OUTPUT_LIMIT_BYTES).to_owned())
        };
        let success = self.0.get("success").and_then(Value::as_bool);
        Ok(Report {
            worker: self.text("assigned_worker", TEXT_LIMIT_BYTES)?.to_owned(),
            success: success.ok_or_else(|| wrong("success", "must be true or false"))?,
            output: long("output")?,
            error: long("error")?,
            execution_time_ms: self.number("execution_time_ms")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::chain::EventId;

    fn event(module: &str, name: &str, fields: Value) -> ChainEvent {
        ChainEvent {
            id: EventId {
                tx_digest: "tx".into(),
                event_seq: 0,
            },
            module: module.into(),
            name: name.into(),
            sender: "0x1".into(),
            fields,
            timestamp_ms: 1,
            checkpoint: Some(1),
        }
    }

    fn complaint(name: &str, fields: Value) -> String {
        let event = event("worker_registry", name, fields);
        Effect::of(&event).expect_err("malformed").to_string()
    }

    #[test]
    fn a_registration_is_read_as_the_chain_writes_it() {
        let fields = json!({
            "node_id": "worker-1", "owner": "0xA1", "stake_amount": "1000000000",
            "seal_token": "seal-1", "timestamp": "1790000000000",
        });
        let event = event("worker_registry", "WorkerRegisteredEvent", fields);
        let hash = SealToken::new("seal-1".into()).expect("a token").hash();
        assert_eq!(
            Effect::of(&event),
            Ok(Some(Effect::Registered {
                node_id: "worker-1".into(),
                owner: format!("0x{:0>64}", "a1"),
                stake_amount: 1_000_000_000,
                seal_token: Some(hash),
            }))
        );
    }

    #[test]
    fn a_status_that_says_nothing_of_the_stake_is_read_as_such() {
        for (status, stake) in [
            ("slashed", Some(Stake::Slashed)),
            ("withdrawn", Some(Stake::Withdrawn)),
            ("active", Some(Stake::Active)),
            ("busy", None),
        ] {
            let fields = json!({"node_id": "a", "old_status": "active", "new_status": status});
            let event = event("worker_registry", "WorkerStatusChangedEvent", fields);
            let node_id = "a".to_owned();
            assert_eq!(
                Effect::of(&event),
                Ok(Some(Effect::StatusChanged { node_id, stake }))
            );
        }
    }

    #[test]
    fn what_is_malformed_is_named_by_its_field() {
        let whole = json!({"node_id": "a", "owner": "0x1", "amount": "5"});
        for (field, bad, says) in [
            (
                "node_id",
                json!("a/b"),
                "node_id: must hold neither slashes",
            ),
            ("node_id", json!(7), "node_id: must be a string"),
            ("owner", json!("alice"), "owner: must be an address"),
            ("amount", json!("-1"), "amount: must be a whole number"),
            ("amount", json!(null), "amount: must be a whole number"),
        ] {
            let mut fields = whole.clone();
            fields[field] = bad;
            let said = complaint("StakeDepositedEvent", fields);
            assert!(said.starts_with(says), "{said}");
        }
    }

    #[test]
    fn what_is_not_of_ours_means_nothing() {
        let stranger = event("lottery", "WorkerRegisteredEvent", json!({}));
        assert_eq!(Effect::of(&stranger), Ok(None));
        let newer = event("worker_registry", "WorkerRenamedEvent", json!({}));
        assert_eq!(Effect::of(&newer), Ok(None));
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(shortened("aäb", 2), "a");
        assert_eq!(shortened("aäb", 3), "aä");
        assert_eq!(shortened("ab", 9), "ab");
    }
}
