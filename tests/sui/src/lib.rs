//! A stand-in for a full node of Sui: both faces (gRPC `sui.rpc.v2` and JSON-RPC 2.0) over a chain in
//! memory that has the worker package's objects and events, with faults that are switched at run time.
//!
//! It knows nothing of nautilus: its forms are those of the published protobuf definitions and of
//! the chain's own SDKs, which are tested against it.
//!
//! Invariants
//! - Digests, effects, checkpoints and committee signatures are genuine: a light client can verify
//!   everything, and everything that a fault forges fails somewhere.
//! - Users' signatures alone are left out: senders are named, not proved.

mod admin;
mod chain;
mod committee;
mod contract;
mod faults;
mod grpc;
mod jsonrpc;
pub mod layout;
mod ledger;
mod node;
mod operation;
mod run;
mod server;
mod standin;
mod value;
mod view;

pub use chain::Chain;
pub use faults::{Accomplice, Answer, Control, Faults, Lies, Link};
pub use operation::{ApiRequest, Operation, Receipt};
pub use standin::{Addresses, Standin};
pub use value::{MoveStruct, MoveValue};
