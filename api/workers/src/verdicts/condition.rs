//! The condition `SuiReachable`, where operators and their tools look: in the status of the Service
//! `default/kubernetes`, the object that stands for the masters. One object, whatever the number of
//! workers: an outage of the chain writes it twice.
//!
//! ```text
//! kubectl wait --for=condition=SuiReachable service/kubernetes
//! ```
//! Invariant: only this condition of the object is touched, and only by who leads.

use std::convert::Infallible;

use bytes::Bytes;
use nautilus_machine::{
    Command, Compare, KeyRange, Kv, Operation, Proposal, Put, RangeRequest, Txn,
};
use nautilus_machinery::{conditions, resource};
use serde_json::{Value, json};

use super::Verdicts;
use crate::limits;
use crate::roster::millis;
use crate::rows_store::rfc3339;

/// The condition's type.
pub const SUI_REACHABLE: &str = "SuiReachable";

impl Verdicts {
    /// Keeps the condition, while this node leads.
    pub(super) async fn keep_condition(&self) -> Infallible {
        loop {
            tokio::time::sleep(limits::CONDITION_PAUSE).await;
            let leadership = self.kv.leadership();
            let Some((reachable, since_ms)) = self.reachable().filter(|_| leadership.is_self)
            else {
                continue;
            };
            let lasts_ms = self.clock.unix_ms().saturating_sub(since_ms);
            if lasts_ms < millis(limits::CONDITION_AFTER) {
                continue;
            }
            let Some(txn) = change(&*self.kv, reachable, since_ms) else {
                continue;
            };
            let proposal = Proposal {
                guard_term: Some(leadership.term),
                ..Proposal::new(Command::Txn(txn))
            };
            if let Err(error) = self.kv.propose(proposal).await {
                tracing::debug!(%error, "the condition SuiReachable is yet to be written");
            }
        }
    }
}

/// The transaction that makes the condition so; `None` where it is so, or there is no such Service.
fn change(kv: &dyn Kv, reachable: bool, since_ms: u64) -> Option<Txn> {
    let key = resource::find("", "v1", "services")?.key(Some("default"), "kubernetes");
    let found = kv
        .range(&RangeRequest::newest(KeyRange::single(key.clone())))
        .ok()?;
    let found = found.kvs.into_iter().next()?;
    let mut service: Value = serde_json::from_slice(&found.value).ok()?;
    if !set(&mut service, reachable, &rfc3339(since_ms)) {
        return None;
    }
    Some(Txn {
        compare: vec![Compare::mod_revision(key.clone(), found.mod_revision)],
        then: vec![Operation::Put(Put::new(
            key,
            Bytes::from(service.to_string()),
        ))],
        otherwise: Vec::new(),
    })
}

/// Sets the condition; false where it is so already.
fn set(service: &mut Value, reachable: bool, since: &str) -> bool {
    let (status, reason, message) = if reachable {
        (
            "True",
            "FullNodesAnswer",
            "Seal tokens are judged on the chain.",
        )
    } else {
        (
            "False",
            "FullNodesSilent",
            "No full node answers: known Seal tokens go on within the grace, others wait.",
        )
    };
    let present = service["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == SUI_REACHABLE);
    if present.is_some_and(|condition| condition["status"] == status) {
        return false;
    }
    let condition = json!({
        "type": SUI_REACHABLE,
        "status": status,
        "lastTransitionTime": since,
        "reason": reason,
        "message": message,
    });
    conditions::set(&mut service["status"], &condition);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_is_written_and_what_else_stands_there_stays() {
        let other = json!({"type": "Other", "status": "True"});
        let mut service = json!({
            "kind": "Service",
            "spec": {"clusterIP": "10.96.0.1"},
            "status": {"loadBalancer": {}, "conditions": [other]},
        });
        assert!(set(&mut service, false, "2026-09-22T00:00:00Z"));
        assert!(!set(&mut service, false, "2026-09-22T00:10:00Z"));
        let conditions = service["status"]["conditions"].as_array().expect("a list");
        assert_eq!((conditions.len(), &conditions[0]), (2, &other));
        assert_eq!(conditions[1]["lastTransitionTime"], "2026-09-22T00:00:00Z");
        assert!(set(&mut service, true, "2026-09-22T00:20:00Z"));
        let conditions = service["status"]["conditions"].as_array().expect("a list");
        assert_eq!(conditions[1]["status"], "True");
        assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
        assert_eq!(service["status"]["loadBalancer"], json!({}));
    }
}
