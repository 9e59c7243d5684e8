//! The port `LeaderChannel`: messages to the leader's memory.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nautilus_machine::{CallError, LeaderChannel};

use crate::node_core::Core;
use crate::peers::{Lane, chain, never_sent};
use crate::service::{SERVING_SOON, serves_as_leader};
use crate::wire::v1;

pub(crate) struct Channel(pub(crate) Arc<Core>);

impl Channel {
    async fn deliver(&self, message: Bytes) -> Result<Bytes, CallError> {
        use v1::call_answer::Result as Wire;
        let core = &self.0;
        if message.len() > core.config.limits.call_bytes {
            let limit = core.config.limits.call_bytes;
            return Err(CallError::Refused(format!(
                "a message of {} bytes is over the limit of {limit}",
                message.len()
            )));
        }
        let deadline = Instant::now() + core.config.limits.call_timeout;
        let mut reason = "no leader is known".to_owned();
        while Instant::now() < deadline && !core.stop.is_cancelled() {
            match core.raft_leader() {
                None => {}
                Some(id) if id == core.config.node_id => {
                    match handle_here(core, message.clone()).await {
                        Ok(answer) => return answer.map_err(CallError::Refused),
                        Err(not_leader) => reason = not_leader,
                    }
                }
                Some(id) => {
                    let mut client = core.peers.client(id, Lane::Bulk);
                    let call = client.call(v1::CallRequest {
                        message: message.clone(),
                    });
                    let answer = tokio::time::timeout_at(deadline.into(), call).await;
                    let answer = answer.map_err(|_| {
                        CallError::Unavailable(format!("node {id} did not answer in time"))
                    })?;
                    match answer.map(|answer| answer.into_inner().result) {
                        Ok(Some(Wire::Answer(answer))) => return Ok(answer),
                        Ok(Some(Wire::Refused(refused))) => {
                            return Err(CallError::Refused(refused));
                        }
                        Ok(Some(Wire::NotLeader(not_leader))) => reason = not_leader,
                        Ok(None) => reason = format!("node {id} gave an empty answer"),
                        // Delivered at most once: what may have arrived is not sent again.
                        Err(status) if !never_sent(&status) => {
                            return Err(CallError::Unavailable(format!(
                                "node {id}: {}",
                                chain(&status)
                            )));
                        }
                        Err(status) => reason = format!("node {id}: {}", chain(&status)),
                    }
                }
            }
            core.leadership_moves(deadline).await;
        }
        Err(CallError::Unavailable(reason))
    }
}

impl LeaderChannel for Channel {
    fn call(&self, message: Bytes) -> BoxFuture<'_, Result<Bytes, CallError>> {
        self.deliver(message).boxed()
    }
}

/// Hands a message to this node's handler if it leads, or will in a moment; the
/// outer error says that it does not.
pub(crate) async fn handle_here(
    core: &Arc<Core>,
    message: Bytes,
) -> Result<Result<Bytes, String>, String> {
    let deadline = Instant::now() + SERVING_SOON;
    while serves_as_leader(core).is_none() {
        if core.raft_leader() != Some(core.config.node_id) || Instant::now() > deadline {
            return Err(format!("node {} does not lead", core.config.node_id));
        }
        core.leadership_moves(deadline).await;
    }
    let handler = core.handler.read().clone();
    match handler {
        Some(handler) => Ok(handler.handle(message).await),
        None => Ok(Err("the leader takes no messages yet".into())),
    }
}
