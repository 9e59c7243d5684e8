//! The port `Kv`: propose through whoever leads, read what is here.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use nautilus_machine::{
    Applied, BarrierError, Kv, Leadership, Proposal, ProposeError, RangeError, RangeRequest,
    RangeResponse, Revision, WatchError, WatchGroup, WatchRequest, Watcher,
};
use tokio::sync::{AcquireError, SemaphorePermit};
use tokio_stream::wrappers::WatchStream;
use tracing::Instrument;

use crate::link;
use crate::node_core::{Attempt, Core};
use crate::telemetry;
use crate::types::AppliedReply;

pub(crate) struct KvPort(pub(crate) Arc<Core>);

impl KvPort {
    async fn propose_with_retries(&self, mut proposal: Proposal) -> Result<Applied, ProposeError> {
        let core = &self.0;
        proposal.trace = telemetry::current_trace().or(proposal.trace);
        let encoded = postcard::to_stdvec(&proposal)
            .map_err(|error| ProposeError::Storage(format!("encoding a proposal: {error}")))?;
        let limit = core.config.limits.proposal_bytes;
        if encoded.len() > limit {
            return Err(ProposeError::TooLarge {
                size: encoded.len(),
                limit,
            });
        }
        if let Some(fatal) = core.fatal.borrow().as_ref() {
            return Err(ProposeError::Storage(fatal.0.clone()));
        }
        let _room = self.room(encoded.len()).await?;
        metrics::gauge!("nautilus_raft_proposals_pending").increment(1.0);
        let result = self.attempts(proposal, encoded.into()).await;
        metrics::gauge!("nautilus_raft_proposals_pending").decrement(1.0);
        let outcome = match &result {
            Ok(_) => "applied",
            Err(ProposeError::Unknown(_)) => "unknown",
            Err(_) => "unavailable",
        };
        metrics::counter!("nautilus_raft_proposals_total", "outcome" => outcome).increment(1);
        result
    }

    /// Waits for a place among the proposals under way, and for its bytes.
    async fn room(&self, bytes: usize) -> Result<[SemaphorePermit<'_>; 2], ProposeError> {
        let core = &self.0;
        // Far below 4 TiB by the proposal's limit.
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let both = async {
            let place = core.pending.acquire().await?;
            Ok([place, core.pending_kib.acquire_many(kib).await?])
        };
        let unavailable = |reason: &str| ProposeError::Unavailable(reason.into());
        match tokio::time::timeout(core.config.limits.propose_timeout, both).await {
            Ok(Ok(permits)) => Ok(permits),
            Ok(Err::<_, AcquireError>(_)) => Err(unavailable("the node is stopping")),
            Err(_) => Err(unavailable("too many proposals are under way")),
        }
    }

    async fn attempts(
        &self,
        proposal: Proposal,
        encoded: bytes::Bytes,
    ) -> Result<Applied, ProposeError> {
        let core = &self.0;
        let deadline = Instant::now() + core.config.limits.propose_timeout;
        let mut reason = "no leader is known".to_owned();
        while Instant::now() < deadline {
            let attempt = match core.raft_leader() {
                None => Err(Attempt::NotTaken("no leader is known".into())),
                Some(id) if id == core.config.node_id => {
                    let write = core.propose_here(&proposal, encoded.clone());
                    within(deadline, write).await
                }
                Some(id) => within(deadline, link::propose(core, id, encoded.clone())).await,
            };
            match attempt {
                Ok(reply) => return self.applied_here(reply, deadline).await,
                Err(Attempt::Unknown(reason)) => return Err(ProposeError::Unknown(reason)),
                Err(Attempt::NotTaken(text)) => reason = text,
            }
            if core.stop.is_cancelled() {
                return Err(ProposeError::Unavailable("the node is stopping".into()));
            }
            core.leadership_moves(deadline).await;
        }
        Err(ProposeError::Unavailable(reason))
    }

    /// The entry is committed: it will be applied here too, unless this node stops.
    async fn applied_here(
        &self,
        reply: AppliedReply,
        deadline: Instant,
    ) -> Result<Applied, ProposeError> {
        let index = reply.position.index;
        if self.0.machinery.tracker.wait_for(index, deadline).await {
            return Ok(reply.into());
        }
        Err(ProposeError::Unknown(format!(
            "entry {index} is committed, but was not applied here in time"
        )))
    }
}

/// A deadline passed after the proposal was handed over says nothing of its outcome.
async fn within(
    deadline: Instant,
    attempt: impl Future<Output = Result<AppliedReply, Attempt>>,
) -> Result<AppliedReply, Attempt> {
    match tokio::time::timeout_at(deadline.into(), attempt).await {
        Ok(result) => result,
        Err(_) => Err(Attempt::Unknown("no quorum answered in time".into())),
    }
}

impl Kv for KvPort {
    fn propose(&self, proposal: Proposal) -> BoxFuture<'_, Result<Applied, ProposeError>> {
        let span = tracing::info_span!("propose");
        self.propose_with_retries(proposal).instrument(span).boxed()
    }

    fn read_barrier(&self) -> BoxFuture<'_, Result<Revision, BarrierError>> {
        self.0.barrier.pass(&self.0).boxed()
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, RangeError> {
        self.0.store().range(request)
    }

    fn revision(&self) -> Revision {
        self.0.machinery.revision()
    }

    fn compacted_revision(&self) -> Revision {
        self.0.store().compacted_revision()
    }

    fn watch(&self, request: WatchRequest) -> Result<Box<dyn Watcher>, WatchError> {
        self.0.machinery.hub.watch(request)
    }

    fn watch_group(&self) -> Box<dyn WatchGroup> {
        self.0.machinery.hub.group()
    }

    fn leadership(&self) -> Leadership {
        self.0.leadership.borrow().clone()
    }

    fn leadership_changes(&self) -> BoxStream<'static, Leadership> {
        let stop = self.0.stop.clone().cancelled_owned();
        WatchStream::new(self.0.leadership.subscribe())
            .take_until(stop)
            .boxed()
    }
}
