//! The Kubernetes API server's HTTP face: routes, watches, TLS, and the generic
//! store of objects over the replicated key space.
//!
//! Knows HTTP and `Status`; knows nothing of Raft, disks, attestation or how a kind
//! is validated. The composition root gives it the ports [`nautilus_machine::Kv`] and
//! [`nautilus_machine::Cluster`] and closures over this node's evidence.
//!
//! Invariants
//! - Every node answers every request; a client never needs to know who leads.
//! - Reads are linearizable unless the client asks for less.
//! - Every write is a compare-and-swap, and its outcome is known before it is answered.
//! - Anonymous callers get health, version and the judgement of their credentials.

mod access;
mod account;
mod admission;
mod aggregation;
mod apply;
pub mod audit;
pub mod authority;
mod body;
mod cache;
mod compress;
mod connect;
mod context;
mod control;
mod controllers;
mod custom;
mod cut;
mod documents;
mod eviction;
mod failure;
mod fairness;
mod health;
mod ids;
mod joining;
mod k3s;
mod leading;
mod lister;
mod master_event;
mod namespaces;
mod negotiate;
mod node_metrics;
pub mod operators;
mod options;
mod own;
mod patching;
pub mod receipts;
mod registry;
mod resources;
mod respond;
mod route;
mod router;
mod scale;
mod serve;
mod service_ranges;
mod special;
mod storage;
mod stream;
pub mod tls;
mod trace;
mod tunnel;
mod upstream;
mod watch;
mod webhook;

pub use access::read_authentication;
pub use authority::{Authority, AuthorityError};
pub use connect::{KubeletSettings, KubeletTrust, check_kubelet_bundle};
pub use context::{
    CredentialReportData, EvidenceDigest, EvidenceSource, MetricsText, NodeFacts, RequestLimits,
    RestContext, RootSigner,
};
pub use control::ControlSettings;
pub use controllers::{ControllerError, ensure_defaults, ensure_roles, run_controllers};
pub use cut::NodeConnections;
pub use joining::{SealRefusal, Workers};
pub use master_event::{MasterEvent, record_master_event};
pub use nautilus_access::jwt::Configuration as AuthenticationConfiguration;
pub use nautilus_planner::node::PodRanges;
pub use node_metrics::{NodeUsage, NodeUsages};
pub use operators::{Operator, OperatorError, pin_operators};
pub use router::{
    AUDIT_ID_HEADER, LEADER_ADDRESS_HEADER, LEADER_EVIDENCE_HEADER, LEADER_ID_HEADER, TERM_HEADER,
    router, router_with,
};
pub use serve::{ConnectionLimits, RemoteAddress, serve_plain_loopback, serve_tls};
pub use tls::{ServingCertificate, TlsError, server_config};
