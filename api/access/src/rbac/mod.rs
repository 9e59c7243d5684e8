//! Role-based access control: rules, who they bind, and what follows.
//!
//! Source: `rbac.authorization.k8s.io/v1` and the reference's evaluation of it.

mod aggregate;
pub mod bootstrap;
mod covers;
mod escalation;
mod policy;
mod reconcile;
mod rule;

pub use aggregate::aggregated_rules;
pub use covers::{breakdown, compact, covers};
pub use escalation::{BindingCheck, Guarded, check_binding, check_role};
pub use policy::{BindingRow, Granted, Policy, RoleRow};
pub use reconcile::{Reconciled, reconcile};
pub use rule::{RoleRef, Rule, Subject};

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

#[cfg(test)]
mod tests;
