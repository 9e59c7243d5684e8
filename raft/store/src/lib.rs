//! The encrypted store under the state machine.
//!
//! Knows nothing of Raft, networks or clocks. The disk is not trusted: every row,
//! marker and snapshot chunk is sealed with AES-256-GCM and bound to its place, and
//! the whole is checked against the machine's keyed sum: when it is opened without a
//! checkpoint of the index, and when a snapshot of it is installed.
//!
//! Invariants
//! - Nothing that a client named or wrote stands in clear in any file.
//! - No nonce is used twice under one key: every opening of a directory and every
//!   snapshot file has a data key of its own, drawn for it.
//! - A root key that was destroyed opens nothing on the disk: before it goes, everything
//!   is sealed anew.
//! - What fails authentication is an error that names it, never an answer.
//! - A crash at any point leaves one whole store: the old one or the new one.

mod background;
mod cache;
mod cipher;
mod directory;
mod engine;
mod envelope;
mod epochs;
mod error;
mod files;
mod index;
mod install;
mod keys;
mod layers;
mod ledger;
mod notes;
mod pieces;
mod reads;
mod reencryption;
mod rocks;
mod rocks_options;
mod rocks_view;
mod snapshot;
mod store;
mod telemetry;
mod view;

pub use cipher::ENCRYPTS;
pub use engine::{Engine, EngineError, EngineMemory, EngineView, MemoryEngine, ViewJob};
pub use envelope::{Aad, Drain, Envelope, EnvelopeError, Kind, Reading, SEAL_OVERHEAD_BYTES};
pub use error::StoreError;
pub use keys::{ARCHIVE_KEYS_MAX, GENERATIONS_MAX, Generation, KeyError, Keyring, RootKey};
pub use notes::NOTES_BYTES_MAX;
pub use reencryption::{Outcome, Pace, Work, reseal_snapshot};
pub use rocks::{Presence, RocksEngine};
pub use rocks_options::RocksMemory;
pub use snapshot::{
    SNAPSHOT_CHUNK_BYTES, SNAPSHOT_HEADER_BYTES_MAX, SnapshotInfo, read_header, snapshot_generation,
};
pub use store::{Store, StoreOptions};
pub use view::View;
