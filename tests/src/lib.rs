//! The world of the end-to-end tests: a quorum of real processes in a folder of
//! its own, and the unmodified clients that talk to it.
//!
//! One quorum lives at a time in a test binary: the machine is small and the tests
//! kill processes. A failed test prints the nodes' last log lines.

mod client;
mod etcd;
pub mod kubectl;
mod quorum;
mod reference;
mod sui;
pub mod workloads;

pub use client::{Streamed, program};
pub use etcd::{Etcdctl, other_than};
pub use quorum::{NodeStatus, Quorum, WITHOUT_CONTROLLERS};
pub use reference::ApiServer;
pub use sui::SuiStandin;

use std::time::{Duration, Instant};

/// How long a test waits for something that must come, before it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks `probe` until it answers, or panics with what was awaited and last seen.
pub fn eventually<T>(awaited: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(seen) if Instant::now() > deadline => {
                panic!("waited {PATIENCE:?} for {awaited}; last seen: {seen}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
