//! The policy: which evidence is good enough, and who may change that.
//!
//! [`EvidencePolicy`] holds the rules that evidence is judged by. [`Policy`] is the
//! document a quorum replicates: those rules, how many vendors' faults it is to bear,
//! and the operators whose signatures change it. A change is a whole new document,
//! signed by `threshold` operators of the document it replaces ([`change`]).
//!
//! Invariants: debug mode is never acceptable; a document without measurements or
//! whose operators cannot reach their threshold is refused before anybody signs it; a
//! signature is for one quorum, one epoch and one document, so that none can be used
//! twice or elsewhere.

pub mod change;
mod diff;
mod diversity;
mod document;
mod operator;
mod rules;
mod text;

pub use change::{Approval, ChangeRefused, accept, approving_operators, change_bytes};
pub use diff::differences;
pub use diversity::{Diversity, Vendor};
pub use document::{MAX_POLICY_OPERATORS, POLICY_SCHEMA, Policy, PolicyError};
pub use operator::{OperatorKey, PublicKey, PublicKeyError};
pub use rules::{AllowedMeasurement, EvidencePolicy, KindRules, MAX_ALLOWED_MEASUREMENTS};
pub use text::{OWN_MEASUREMENT_WORD, PolicyTextError};
