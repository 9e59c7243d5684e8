//! The restart protocol as a model that a checker walks: a small Raft whose nodes crash,
//! come back from any earlier disk, and live twice, under a network that delays and
//! loses what it likes.
//!
//! What it checks is the rule that the product runs: [`judge`], [`fences`] and
//! [`Floor`] of `nautilus_attest_protocol`. Replication is simplified to whole logs, and a
//! node's epoch is drawn one above every one before; asking peers for it stands in
//! `raft/consensus/src/restart/`.
//!
//! The adversary is bounded: at any moment no more nodes than a minority run on a disk
//! that lacks what they acknowledged, and have not caught up since.
//!
//! [`judge`]: nautilus_attest_protocol::restart::judge
//! [`fences`]: nautilus_attest_protocol::restart::fences
//! [`Floor`]: nautilus_attest_protocol::restart::Floor

mod process;
mod world;

pub use process::{Disk, Logged, Process, Role, Standing, What};
pub use world::{Action, Bounds, Message, Rule, World};
