//! `nautilus`: one process of the quorum, and the command line around it.
//!
//! This crate knows every other crate and none knows it. It puts the parts together
//! (`compose`), reads the configuration (`config`), keeps a quorum on one machine
//! (`up`), takes its keys from one generation to the next (`keys`), and speaks to a running one from outside (`client`, `cli`, `bench`).

mod attested;
mod bench;
mod cli;
mod client;
mod compose;
mod config;
mod credentials;
mod data_dir;
mod endorsements;
mod exit;
mod keys;
mod kubeconfig;
mod migrate;
mod node;
mod policy;
mod proxy;
mod receipt;
mod recovery;
mod simulated;
mod telemetry;
mod up;
mod upgrade;

use std::process::ExitCode;

/// The write path allocates in one thread and frees in another; the system's allocator
/// spent an eighth of all time on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything uses the library: what it allocates can't be moved afterwards.
    if let Err(error) = nautilus_attest_secret::protect_cryptographic_library() {
        eprintln!("warning: {error}: keys may lie in memory that is swapped or dumped");
    }
    // Every client names its provider; a library that does not must not end a request.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    cli::main()
}
