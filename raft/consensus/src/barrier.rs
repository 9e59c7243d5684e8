//! The shared read barrier: everyone who waits when a round starts shares it.
//!
//! A round proves to a quorum that the leader still leads, and gives the index a
//! read has to wait for. Who comes during a round waits for the next one: only a
//! round that started after a read came can cover it.

use std::sync::Arc;
use std::time::Instant;

use nautilus_machine::{BarrierError, Revision};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::link;
use crate::node_core::Core;

/// Rounds under way at once: one on its way, one starting.
const ROUNDS: usize = 2;
/// Reads that may wait for the next round.
const WAITING: usize = 65_536;

#[derive(Default)]
pub(crate) struct Barrier {
    waiting: Mutex<Vec<oneshot::Sender<Result<u64, String>>>>,
    wake: Notify,
}

impl Barrier {
    /// Waits for a round that starts after this call, and for its index here.
    pub(crate) async fn pass(&self, core: &Core) -> Result<Revision, BarrierError> {
        let deadline = Instant::now() + core.config.limits.barrier_timeout;
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= WAITING {
                return Err(BarrierError::Unavailable(format!(
                    "{WAITING} reads wait for a leader already"
                )));
            }
            waiting.push(sender);
        }
        self.wake.notify_one();
        let index = match tokio::time::timeout_at(deadline.into(), receiver).await {
            Ok(Ok(Ok(index))) => index,
            Ok(Ok(Err(reason))) => return Err(BarrierError::Unavailable(reason)),
            Ok(Err(_)) => return Err(BarrierError::Unavailable("the node is stopping".into())),
            Err(_) => {
                return Err(BarrierError::Unavailable(
                    "no round was done in time".into(),
                ));
            }
        };
        if core.machinery.tracker.wait_for(index, deadline).await {
            return Ok(core.machinery.revision());
        }
        Err(BarrierError::Unavailable(format!(
            "entry {index} was not applied here in time"
        )))
    }
}

/// Runs rounds while anybody waits, until the node stops.
pub(crate) async fn run(core: Arc<Core>) {
    let permits = Arc::new(tokio::sync::Semaphore::new(ROUNDS));
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = core.barrier.wake.notified() => {}
        }
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let waiting = std::mem::take(&mut *core.barrier.waiting.lock());
        if waiting.is_empty() {
            continue;
        }
        let round = Arc::clone(&core);
        core.tasks.spawn(async move {
            let deadline = Instant::now() + round.config.limits.barrier_timeout;
            let result = tokio::select! {
                () = round.stop.cancelled() => Err("the node is stopping".to_owned()),
                index = read_index(&round, deadline) => index,
            };
            drop(permit);
            for waiter in waiting {
                // One that gave up has dropped its receiver.
                let _ = waiter.send(result.clone());
            }
        });
    }
}

/// Asks whoever leads, until the deadline.
async fn read_index(core: &Arc<Core>, deadline: Instant) -> Result<u64, String> {
    let mut reason = "no leader is known".to_owned();
    while Instant::now() < deadline {
        match core.raft_leader() {
            Some(id) if id == core.config.node_id => match core.read_index_here().await {
                Ok(index) => return Ok(index),
                Err(error) => reason = error,
            },
            Some(id) => match within(deadline, link::read_index(core, id)).await {
                Ok(index) => return Ok(index),
                Err(error) => reason = error,
            },
            None => {}
        }
        core.leadership_moves(deadline).await;
    }
    Err(reason)
}

async fn within(
    deadline: Instant,
    index: impl Future<Output = Result<u64, String>>,
) -> Result<u64, String> {
    match tokio::time::timeout_at(deadline.into(), index).await {
        Ok(result) => result,
        Err(_) => Err("the leader did not answer in time".into()),
    }
}
