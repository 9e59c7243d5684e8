//! Who may do what: request attributes, RBAC rules, the node authorizer, reviews,
//! impersonation, and tokens as text.
//!
//! Pure: users, rules and requests in, decisions out. Knows no clock, store, key or
//! HTTP; what it decides by is handed in by the face.
//!
//! Invariants
//! - Permissions only add up: no rule takes away what another gives.
//! - A decision reads only what is indexed under the asker's name and groups.

pub mod attributes;
pub mod audit;
pub mod bootstrap_token;
pub mod certificates;
pub mod impersonation;
pub mod jwt;
pub mod node;
pub mod rbac;
pub mod review;
pub mod seal;
pub mod token;

pub use attributes::Attributes;

/// What an authorizer says of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Allowed, and by what (for the audit log and reviews).
    Allow(String),
    /// Not by this authorizer; the reason may be empty.
    NoOpinion(String),
}

impl Decision {
    /// Whether the request may go on.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }

    /// Why, in words; may be empty.
    pub fn reason(&self) -> &str {
        match self {
            Self::Allow(reason) | Self::NoOpinion(reason) => reason,
        }
    }
}
