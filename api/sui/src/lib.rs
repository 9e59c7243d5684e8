//! The chain behind Seal tokens: clients of Sui's full nodes, and the judge of tokens and the source
//! of events made of them.
//!
//! Knows nothing of the quorum: what it finds is handed to the ports of [`nautilus_workers`]. Its
//! pure parts ([`shape`], checks, proofs, pages, the health of full nodes) know no clock, network or
//! chance.
//!
//! ```text
//! judge   events        the ports: what a token is worth, what happened
//!   └── chain ──┘       what is believed: proved, agreed, never older than before
//!        └── pool       whom to ask: order, hedging, breaker
//!     grpc  json_rpc    one full node's word
//! ```

mod agree;
mod chain;
mod chance;
mod checks;
mod committees;
mod event;
mod events;
mod face;
mod grpc;
mod health;
mod json_rpc;
mod judge;
pub mod layout;
pub mod limits;
mod merge;
mod meter;
mod page;
mod pool;
mod proof;
mod settings;
pub mod shape;
mod tls;
mod value;

pub use chain::Chain;
pub use events::ChainEvents;
pub use judge::ChainJudge;
pub use layout::Layout;
pub use settings::{Agreement, ChainSettings, FaceKind, FullNode, SettingsError, Verification};
pub use sui_sdk_types::{Address, ValidatorCommittee};
pub use tls::authorities;
