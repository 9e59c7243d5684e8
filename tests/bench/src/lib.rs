//! What the comparisons share: the load, the clients' side of HTTP/2, the two sides of each
//! comparison, the reports.
//!
//! The client shares no code with what it measures.

pub mod api;
pub mod closed_loop;
pub mod drive;
pub mod effort;
pub mod etcd;
pub mod failover;
pub mod growth;
pub mod http2;
pub mod keys;
pub mod message;
pub mod ours;
pub mod plan;
pub mod plot;
pub mod processes;
pub mod report;
pub mod serve;
pub mod side;
pub mod snapshot;
pub mod streams;

/// A line for who waits.
pub fn progress(line: &str) {
    eprintln!("{line}");
}
