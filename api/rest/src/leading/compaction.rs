//! Forgets the past: every [`RequestLimits::compaction_interval`] the versions that were
//! no longer the newest at the last look, as the reference's server does to its etcd.
//!
//! Invariants
//! - A version stays readable, and a watch can start from it, for at least one interval
//!   after it was replaced, whoever leads.
//!
//! [`RequestLimits::compaction_interval`]: crate::RequestLimits::compaction_interval

use std::sync::Arc;
use std::time::Duration;

use nautilus_machine::{Command, Kv, Outcome, Proposal};

/// Compacts whenever the interval has passed; nothing if it is zero. Ends only by being
/// dropped.
pub(crate) async fn keep(kv: Arc<dyn Kv>, term: u64, interval: Duration) {
    if interval.is_zero() {
        return std::future::pending().await;
    }
    let mut before = kv.revision();
    loop {
        tokio::time::sleep(interval).await;
        let now = kv.revision();
        let revision = before.min(now);
        if revision > kv.compacted_revision() {
            let proposal = Proposal {
                guard_term: Some(term),
                ..Proposal::new(Command::Compact { revision })
            };
            match kv.propose(proposal).await {
                Ok(applied) => match applied.outcome {
                    Outcome::Refused(refusal) => {
                        tracing::debug!(revision, error = %refusal, "the past was not compacted");
                    }
                    _ => tracing::debug!(revision, "the past is compacted"),
                },
                Err(error) => tracing::warn!(revision, %error, "the past could not be compacted"),
            }
        }
        before = now;
    }
}
