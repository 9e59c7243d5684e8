//! The audit log: which requests are recorded, how much of each, and in what form.
//!
//! Source: `audit.k8s.io/v1` and the reference's policy evaluator.

mod event;
mod policy;

pub use event::{Answered, Event};
pub use policy::{Level, Policy, Recorded, Stage};

#[cfg(test)]
mod tests;
