//! What a write must pass beside validation: quotas, limits, pod security, policies
//! and the forms of webhooks. Pure: requests and configurations in, verdicts out.
//!
//! Knows no clock, network, disk or store: what a plugin needs to look up is handed to
//! it. Objects are [`serde_json::Value`]s that conform to their types.
//!
//! Invariants
//! - Nothing here panics on any object or configuration.
//! - A plugin that mutates is idempotent: run again on its own result it changes nothing.

pub mod attributes;
pub mod defaults;
pub mod devices;
pub mod disruption;
pub mod expressions;
pub mod fairness;
pub mod hooks;
pub mod limits;
pub mod matching;
pub mod pod_security;
pub mod pods;
pub mod policy;
pub mod priority;
pub mod quota;
pub mod review;
pub mod service_account;
pub mod values;
