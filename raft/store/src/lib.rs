//! The encrypted store under the state machine.
//!
//! Knows nothing of Raft, networks or clocks. The disk is not trusted: every row,
//! marker and snapshot chunk is sealed with AES-256-GCM and bound to its place, and
//! the whole is checked against the machine's keyed sum when it is opened.
//!
//! Invariants
//! - Nothing that a client named or wrote stands in clear in any file.
//! - No nonce is used twice under one key: every opening of a directory and every
//!   snapshot file has a subkey of its own, from a fresh random salt.
//! - What fails authentication is an error that names it, never an answer.
//! - A crash at any point leaves one whole store: the old one or the new one.

mod directory;
mod engine;
mod envelope;
mod epochs;
mod error;
mod files;
mod install;
mod keys;
mod notes;
mod rocks;
mod snapshot;
mod store;
mod view;

pub use engine::{Engine, EngineError, EngineView, MemoryEngine, ViewJob};
pub use envelope::{Aad, Envelope, EnvelopeError, Kind, SEAL_OVERHEAD_BYTES};
pub use error::StoreError;
pub use keys::{KeyError, Keyring, RootKey};
pub use notes::NOTES_BYTES_MAX;
pub use rocks::{Presence, RocksEngine};
pub use snapshot::{SNAPSHOT_CHUNK_BYTES, SNAPSHOT_HEADER_BYTES_MAX, SnapshotInfo, read_header};
pub use store::Store;
pub use view::View;
