//! What validating policies leave in the audit log: their annotations, and the failures
//! that a binding says are to be audited.
//!
//! Invariant: a value that several bindings make is there once.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Binding, Decision, Policy};

/// Failures that one request's annotation holds, at most.
const MAX_FAILURES: usize = 50;
/// The annotation of those failures.
const FAILURES: &str = "validation.policy.admission.k8s.io/validation_failure";

/// What one request's validations leave.
#[derive(Debug, Default)]
pub struct Trail {
    failures: Vec<Value>,
    /// Values by `policy/key`.
    annotations: BTreeMap<String, Vec<String>>,
}

impl Trail {
    /// A validation failed that the binding audits.
    pub fn failed(&mut self, policy: &Policy, binding: &Binding, decision: &Decision) {
        if self.failures.len() < MAX_FAILURES {
            let actions: Vec<&str> = binding
                .actions
                .iter()
                .map(|action| action.as_str())
                .collect();
            self.failures.push(json!({
                "message": decision.message, "policy": policy.name, "binding": binding.name,
                "expressionIndex": decision.index, "validationActions": actions,
            }));
        }
    }

    /// A policy made these values, by their keys.
    pub fn annotate(&mut self, policy: &Policy, made: &[(String, String)]) {
        for (key, value) in made {
            let key = format!("{}/{key}", policy.name);
            let values = self.annotations.entry(key).or_default();
            if !values.contains(value) {
                values.push(value.clone());
            }
        }
    }

    /// Keys and values of the audit annotations.
    pub fn annotations(self) -> Vec<(String, String)> {
        let own = self.annotations.into_iter();
        let mut annotations: Vec<_> = own.map(|(key, made)| (key, made.join(", "))).collect();
        if !self.failures.is_empty() {
            annotations.push((FAILURES.to_owned(), Value::from(self.failures).to_string()));
        }
        annotations
    }
}
