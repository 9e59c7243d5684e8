//! Consensus of the masters: the encrypted log, elections, replication, membership,
//! read barriers, and the ports of [`nautilus_machine`] over them.
//!
//! Does not know HTTP faces, TLS, evidence or where keys come from: connections
//! come through [`Transport`], keys through the store's keyring. The only crate that
//! names openraft, and nothing of openraft is in its public API.
//!
//! Invariants
//! - What is acknowledged is durable on a majority's logs first.
//! - A vote is durable before it is answered.
//! - A read after [`nautilus_machine::Kv::read_barrier`] sees everything that was
//!   acknowledged anywhere before it.
//! - Nothing is said to, or taken from, a peer that is not the member it claims to
//!   be on the platform pinned for it; a joiner gets secrets after it is pinned.
//! - A generation of keys goes from this node's disk only when nothing on it needs them.
//! - A process that was started takes no part before the restart rule lets it in.
//! - Replicas compare digests at every checkpoint; one that differs stops.

mod applied;
mod barrier;
mod channel;
mod cluster;
mod config;
mod error;
mod forwarded;
mod hub;
mod intake;
mod join;
mod keys;
mod kv;
mod leases;
mod ledger;
mod lessor;
mod link;
mod log;
mod log_storage;
mod loss;
mod maintenance;
mod network;
mod node;
mod node_core;
mod peers;
mod receive;
mod restart;
mod server;
mod service;
mod snapshots;
mod state_machine;
mod telemetry;
pub mod transport;
mod types;
mod upkeep;
mod wire;

pub use config::{
    Compaction, ConsensusConfig, Limits, MachineCounter, PROPOSAL_BYTES_MAX,
    PROPOSALS_PENDING_BYTES, Timing,
};
pub use error::{FatalError, InitializeError, JoinError, StartError};
pub use hub::HubLimits;
pub use join::{JoinGrant, JoinRequest, join};
pub use keys::{KeysError, NodeKeys};
pub use nautilus_attest_protocol::restart::{Ground, Rejoin, Verdict};
pub use node::Consensus;
pub use node_core::{AttestedPeer, PromotionGuard, SecretsSource};
pub use transport::{Connection, PeerIdentity, PeerStream, Transport, TransportError};
