//! The policy of a quorum, from the operator's file to every connection.
//!
//! ```text
//! operator's file ─signed─► face ─transaction─► rows ─watch─► source ─► attest/tls
//!                                                 └─ keeper (on the leader)
//! ```
//! The policy is rows under [`store::POLICY_PREFIX`], changed by a transaction that holds
//! only while nobody else has changed it. Every node verifies the operators' signatures
//! again before it judges by a new policy, so that no node's word is enough.

pub(crate) mod face;
pub(crate) mod file;
mod keeper;
mod quorum;
mod source;
pub(crate) mod store;

pub(crate) use keeper::{Keeper, OnRetirement, promotion_guard};
pub(crate) use source::{PolicySource, follow};

/// The present time, in milliseconds since 1970.
pub(crate) fn unix_millis() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
