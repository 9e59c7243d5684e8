//! A leader-aware client of a quorum for workers, and what a stranger needs to believe
//! one: whose evidence is accepted, on which connection, over which key.
//!
//! A client knows no key beforehand, only which code it accepts, and if it likes the
//! quorum's authority. It opens a connection, sends a nonce, and the node answers with
//! evidence over that nonce and the key with which it serves. If the evidence is genuine,
//! fresh, for the very key that this connection has proved possession of, and within the
//! policy, then the code at the other end is known, and so is everything it says.
//!
//! It knows nothing of how a quorum works inside.
//!
//! Invariants
//! - No token leaves before the key at the other end was vouched for by accepted evidence;
//!   no word of a node counts before.
//! - A node is only ever believed about itself and about who the members are.
//! - Every request is idempotent: one whose outcome is unknown is sent again, elsewhere.
//! - Everything that is held has a bound.

mod address;
mod cache;
mod client;
mod connection;
mod endpoints;
mod examine;
mod judge;
mod tls;
mod worker;

pub use address::Address;
pub use cache::{read_members, write_members};
pub use client::{CallError, Client, ClientConfig};
pub use connection::{Connection, ConnectionError, Dialed, dial, spki_of};
pub use examine::{ExamineError, Examined, PublicMember, QuorumView, examine};
pub use judge::Judge;
pub use tls::{keyed_tls, provider, unverified_tls};
pub use worker::{BEAT_INTERVAL, Facts, ResourceUsage, Signer, Step, Worker, proof_message};
