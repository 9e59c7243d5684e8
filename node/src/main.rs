//! `nautilus`: one process of the quorum, and the command line around it.
//!
//! This crate knows every other crate and none knows it. It puts the parts together
//! (`compose`), reads the configuration (`config`), keeps a quorum on one machine
//! (`up`), and speaks to a running one from outside (`client`, `cli`, `bench`).

mod bench;
mod cli;
mod client;
mod compose;
mod config;
mod credentials;
mod data_dir;
mod exit;
mod kubeconfig;
mod node;
mod proxy;
mod simulated;
mod telemetry;
mod up;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
