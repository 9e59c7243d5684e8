//! Workloads played on a cluster whose nodes kwok plays: the corpus of scenarios in
//! `tests/workloads/corpus`, and what a cluster makes of each. The reference's end states
//! are in `tests/workloads/golden`, recorded by `make workloads-golden`.
//!
//! Invariant: what is compared does not depend on when something happened, on drawn names
//! or on addresses, but on everything else that a client of the API can read.

mod cluster;
mod end_state;
mod play;
mod reference;
mod scenario;

pub use cluster::{Cluster, Nodes};
pub use end_state::difference;
pub use play::{Played, Player, each};
pub use reference::Reference;
pub use scenario::{Scenario, corpus};

use std::path::PathBuf;

/// The folder of the corpus, what was recorded of it, and the nodes it runs on.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("workloads")
}
