//! Where key material lies in memory.
//!
//! This crate knows nothing of ours: no TEE, no quorum, no network. It holds
//! * [`Secret`], a fixed number of bytes in memory that is locked (never swapped),
//!   left out of core dumps and wiped when it is given back;
//! * [`protect_cryptographic_library`], which makes the cryptographic library keep
//!   its own copies of keys (expanded keys, private keys, contexts) there too;
//! * [`forbid_core_dumps`] and [`locking`], for whoever starts a process;
//! * [`EphemeralKey`] and [`seal_to`]: a secret on its way from one process to
//!   another, readable by nobody in between.
//!
//! Invariants: secret types have neither `Debug`, `Serialize` nor `Clone`; memory is
//! wiped before it is given out again; nothing here panics on what came from outside.

mod arena;
mod dumps;
mod envelope;
mod library;
mod secret;

pub use arena::{LockRefused, locking};
pub use dumps::forbid_core_dumps;
pub use envelope::{EnvelopeError, EphemeralKey, PUBLIC_KEY_BYTES, seal_to};
pub use library::{AlreadyInUse, protect_cryptographic_library};
pub use secret::Secret;
