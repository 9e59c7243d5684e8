//! The port `Leases`: asked of whoever leads, whose memory holds the clock.

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nautilus_machine::{LeaseError, LeaseId, LeaseTimes, LeaseView, Leases};

use crate::lessor::Silence;
use crate::link;
use crate::node_core::Core;

pub(crate) struct LeasesPort(pub(crate) Arc<Core>);

/// What is asked about a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inquiry {
    /// Its time anew.
    Renew,
    /// What is left of its time.
    Times,
}

/// Answers from this node's memory, which counts only while it leads.
pub(crate) fn answer_here(
    core: &Core,
    inquiry: Inquiry,
    id: LeaseId,
) -> Result<LeaseTimes, Silence> {
    let lessor = &core.machinery.lessor;
    match inquiry {
        Inquiry::Renew => lessor.renew(Instant::now(), id),
        Inquiry::Times => lessor.times(Instant::now(), id),
    }
}

impl LeasesPort {
    async fn ask(&self, inquiry: Inquiry, id: LeaseId) -> Result<LeaseTimes, LeaseError> {
        let core = &self.0;
        let deadline = Instant::now() + core.config.limits.call_timeout;
        let mut reason = "no leader is known".to_owned();
        while Instant::now() < deadline && !core.stop.is_cancelled() {
            match core.raft_leader() {
                Some(leader) if leader == core.config.node_id => {
                    match answer_here(core, inquiry, id) {
                        Ok(times) => return Ok(times),
                        Err(Silence::NotFound) => return Err(LeaseError::NotFound),
                        Err(Silence::NotLeading) => {
                            reason = "this node has only begun to lead".to_owned();
                        }
                    }
                }
                Some(leader) => {
                    let asked = link::lease(core, leader, inquiry, id);
                    match tokio::time::timeout_at(deadline.into(), asked).await {
                        Ok(Ok(Some(times))) => return Ok(times),
                        Ok(Ok(None)) => return Err(LeaseError::NotFound),
                        Ok(Err(text)) => reason = text,
                        Err(_) => reason = format!("node {leader} did not answer in time"),
                    }
                }
                None => {}
            }
            core.leadership_moves(deadline).await;
        }
        Err(LeaseError::Unavailable(reason))
    }
}

impl Leases for LeasesPort {
    fn keep_alive(&self, id: LeaseId) -> BoxFuture<'_, Result<u64, LeaseError>> {
        async move { Ok(self.ask(Inquiry::Renew, id).await?.ttl_ms) }.boxed()
    }

    fn remaining(&self, id: LeaseId) -> BoxFuture<'_, Result<LeaseTimes, LeaseError>> {
        self.ask(Inquiry::Times, id).boxed()
    }

    fn lease(&self, id: LeaseId) -> Option<LeaseView> {
        self.0.store().lease(id)
    }

    fn lease_ids(&self) -> Vec<LeaseId> {
        self.0.store().lease_ids()
    }
}
