//! The etcd v3 gRPC face: etcd's services over the quorum's ports, so that its
//! clients run on it unmodified.
//!
//! Knows nothing of consensus, storage or attestation: it speaks through the traits
//! of `nautilus-machine` alone.
//!
//! Invariants
//! - Codes and messages that clients match on stand in [`errors`] and nowhere else.
//! - The quorum's own keys (under the reserved prefix) are neither shown nor written.
//! - Every request is judged by [`access`] before it is looked at any further.
//! - Every request, stream and queue has a bound in [`EtcdLimits`] or a constant.

pub mod access;
mod alarms;
mod auth;
mod autocompact;
mod check;
mod cluster;
mod context;
mod convert;
mod dispatch;
mod election;
pub mod errors;
mod http;
mod kv;
mod lease;
mod limits;
mod lock;
mod maintenance;
mod meter;
pub mod proto;
mod queue;
mod range;
mod reading;
mod serve;
mod session;
mod upkeep;
mod watch;
mod writing;

pub use auth::{AuthOptions, JwtKeys, TokenKind, TokenKindError};
pub use autocompact::AutoCompaction;
pub use context::{EtcdContext, EtcdParts, MetricsText};
pub use http::{CLUSTER_VERSION, ETCD_VERSION};
pub use limits::EtcdLimits;
pub use serve::serve;
