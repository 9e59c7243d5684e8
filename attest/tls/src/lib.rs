//! Attested mutual TLS between masters.
//!
//! It knows nothing of Raft, of HTTP or of any one kind of TEE: those come through
//! the ports of `nautilus-attest-protocol`. A connection goes through two layers.
//!
//! 1. TLS 1.3 with certificates that each incarnation makes for a key it keeps to
//!    itself; the certificate carries evidence over that key. This layer filters:
//!    a certificate that does not parse, or whose evidence nobody genuine signed,
//!    ends the TLS handshake. Whatever else is held against a peer is kept for the
//!    second layer, because a TLS alert has no room for words and both sides'
//!    logs are to name the reason.
//! 2. Inside TLS, before the first byte of anyone else, fresh evidence over this
//!    very connection. This layer decides.
//!
//! While a connection lives, evidence is renewed over it, on a timer and on every new
//! policy, between the data frames of whoever uses it; a peer that no longer satisfies
//! the policy is cut off.
//!
//! Invariants: no stream is handed out before both ends accepted each other in the
//! second layer; the signature over the TLS handshake is always verified by the
//! crypto provider; no resumption, no tickets, no early data, no half-RTT data; the
//! private key is never serialized; the whole of it ends within
//! [`HANDSHAKE_TIMEOUT`].

mod admission;
mod channel;
mod configuration;
mod credential;
mod endpoint;
mod error;
mod framing;
mod key;
mod memory;
mod renewal;
mod stream;

pub use configuration::ALPN_PROTOCOL;
pub use credential::{CERTIFICATE_LIFETIME, CERTIFICATE_RENEWAL};
pub use endpoint::{
    AttestedEndpoint, EndpointConfig, HANDSHAKE_TIMEOUT, NoPins, Pins, RENEWAL_INTERVAL,
};
pub use error::{AttestedError, Stage};
pub use nautilus_attest_protocol::{Peer, Policy, Refused};
pub use renewal::{EVIDENCE_RENEWED, PEERS_CUT_OFF};
pub use stream::AttestedStream;
