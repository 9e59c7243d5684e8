//! Beats on their way to the leader: many in one message.
//!
//! A node's beats queue here. A message takes what waits, up to
//! [`limits::BEATS_PER_MESSAGE`]; on a follower it waits [`limits::BEATS_LINGER`] for more.
//! Up to [`limits::MESSAGES_IN_FLIGHT`] are under way; while they are, the queue fills, and
//! when it is full a worker is asked to come back.
//!
//! Invariants
//! - Answers go to the beats they belong to: one for each, in their order.
//! - A message that nobody who leads has answered is told again: beats are idempotent.
//! - Who no longer waits is not told for: nothing lives longer than
//!   [`limits::LEADER_WAIT`] after its beat came.

use std::sync::Arc;

use nautilus_machine::{Kv, LeaderChannel};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::answer::Refusal;
use crate::beat::{call, no_leader};
use crate::limits;
use crate::message::{Beat, BeatAnswer, LeaderAnswer, LeaderMessage};
use crate::roster::BeatFacts;

/// The queue of a node's beats. Its task ends when this is dropped.
pub(crate) struct Forwarder {
    queue: mpsc::Sender<Waiting>,
}

/// A beat, and who waits for its answer.
struct Waiting {
    node_id: String,
    owner: String,
    facts: BeatFacts,
    answer: oneshot::Sender<Result<BeatAnswer, String>>,
}

impl Forwarder {
    /// Starts the task that empties the queue.
    pub(crate) fn start(kv: Arc<dyn Kv>, channel: Arc<dyn LeaderChannel>) -> Self {
        let (queue, inbox) = mpsc::channel(limits::BEATS_QUEUE_LIMIT);
        tokio::spawn(forward(inbox, kv, channel));
        Self { queue }
    }

    /// Tells the leader of a beat of `node_id`, whose token belongs to `owner`.
    pub(crate) async fn tell(
        &self,
        node_id: &str,
        owner: String,
        facts: BeatFacts,
    ) -> Result<BeatAnswer, Refusal> {
        if owner.len() > limits::OWNER_LIMIT_BYTES {
            return Err(Refusal::Failed(format!(
                "the owner of {node_id} has a name of {} bytes; {} are allowed",
                owner.len(),
                limits::OWNER_LIMIT_BYTES
            )));
        }
        let (answer, told) = oneshot::channel();
        let waiting = Waiting {
            node_id: node_id.to_owned(),
            owner,
            facts,
            answer,
        };
        self.queue
            .try_send(waiting)
            .map_err(|_| Refusal::Busy("too many heartbeats wait for the leader"))?;
        match tokio::time::timeout(limits::LEADER_WAIT, told).await {
            Ok(Ok(answer)) => answer.map_err(Refusal::Failed),
            Ok(Err(_)) | Err(_) => Err(Refusal::Unavailable(no_leader())),
        }
    }
}

async fn forward(
    mut inbox: mpsc::Receiver<Waiting>,
    kv: Arc<dyn Kv>,
    channel: Arc<dyn LeaderChannel>,
) {
    let in_flight = Arc::new(Semaphore::new(limits::MESSAGES_IN_FLIGHT));
    // Ends what is under way when it is dropped.
    let mut messages = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else {
            return;
        };
        let mut beats = Vec::new();
        if inbox.recv_many(&mut beats, limits::BEATS_PER_MESSAGE).await == 0 {
            return;
        }
        // To the leader's own memory there is no way to save.
        if !kv.leadership().is_self && beats.len() < limits::BEATS_PER_MESSAGE {
            tokio::time::sleep(limits::BEATS_LINGER).await;
            while beats.len() < limits::BEATS_PER_MESSAGE
                && let Ok(beat) = inbox.try_recv()
            {
                beats.push(beat);
            }
        }
        while messages.try_join_next().is_some() {}
        let channel = Arc::clone(&channel);
        messages.spawn(async move {
            deliver(&*channel, beats).await;
            drop(permit);
        });
    }
}

/// Tells the leader until it has answered, or nobody waits any more.
async fn deliver(channel: &dyn LeaderChannel, mut beats: Vec<Waiting>) {
    loop {
        beats.retain(|beat| !beat.answer.is_closed());
        if beats.is_empty() {
            return;
        }
        let message = LeaderMessage::Beats(beats.iter().map(Waiting::beat).collect());
        match call(channel, &message).await {
            Ok(Some(LeaderAnswer::Beats(answers))) if answers.len() == beats.len() => {
                for (beat, answer) in beats.into_iter().zip(answers) {
                    // Whoever went away meanwhile needs no answer.
                    let _ = beat.answer.send(Ok(answer));
                }
                return;
            }
            Ok(None) => tokio::time::sleep(limits::LEADER_RETRY).await,
            failed => {
                let reason = match failed {
                    Err(reason) => reason,
                    Ok(_) => "the leader answered something else than beats".to_owned(),
                };
                for beat in beats {
                    let _ = beat.answer.send(Err(reason.clone()));
                }
                return;
            }
        }
    }
}

impl Waiting {
    fn beat(&self) -> Beat<'_> {
        Beat {
            node_id: &self.node_id,
            owner: &self.owner,
            facts: self.facts,
        }
    }
}

#[cfg(test)]
#[path = "forward_tests.rs"]
mod tests;
