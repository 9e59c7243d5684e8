//! Users of other issuers: OpenID Connect by structured configuration
//! (`apiserver.config.k8s.io/v1` `AuthenticationConfiguration`).
//!
//! Knows claims; signatures, keys and where they are fetched are the face's.
//!
//! Invariants
//! - A token counts only for an issuer that the configuration names, for one of its
//!   audiences, in its time, and when every rule holds.
//! - An expression that cannot be evaluated refuses the token.

mod configuration;
mod mapping;

pub use configuration::{Anonymous, Authenticator, Configuration};

#[cfg(test)]
mod tests;
