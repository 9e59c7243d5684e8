//! A heartbeat on its way: judged here, then told to the leader, wherever it is.
//!
//! Invariant: an election costs a worker a wait of at most [`limits::LEADER_WAIT`],
//! not a beat.

use std::sync::Arc;

use nautilus_machine::{CallError, LeaderChannel};
use tokio::time::Instant;

use crate::Workers;
use crate::answer::{Refusal, TokenProblem};
use crate::lifecycle::Stake;
use crate::limits;
use crate::message::{self, BeatAnswer, LeaderAnswer, LeaderMessage};
use crate::proof::Proved;
use crate::verdicts::{Denied, Presented, PresentedKey};
use crate::wire::Heartbeat;

/// Takes a heartbeat that came over a connection with `key`, and with its owner's `proof`.
pub(crate) async fn take(
    workers: &Workers,
    beat: Heartbeat,
    key: Option<PresentedKey>,
    proof: Option<Proved>,
) -> Result<(), Refusal> {
    let Heartbeat {
        node_id,
        token,
        mut facts,
        ..
    } = beat;
    let token = Arc::new(token.map_err(|fault| Refusal::Token(fault.into()))?);
    let presented = Presented {
        token: &token,
        node_id: &node_id,
        key,
        proof,
    };
    let owner = match workers.verdicts.admit_beat(&presented).await {
        Ok(admission) => {
            facts.token_expires_at_s = admission.expires_at;
            admission.owner
        }
        Err(denied) => {
            if let Some(stake) = gone(&denied) {
                let message = LeaderMessage::Refused {
                    node_id: &node_id,
                    token: token.hash(),
                    stake,
                };
                // The worker is refused either way; the leader marks it if it is a worker's token.
                if let Err(refusal) = tell_leader(&*workers.channel, &message).await {
                    tracing::warn!(%refusal, "the leader was not told of a stake that is gone");
                }
            }
            return Err(denied.into());
        }
    };
    match workers.forwarder.tell(&node_id, owner, facts).await? {
        BeatAnswer::Acknowledged => Ok(()),
        BeatAnswer::NotRegistered => Err(Refusal::NotRegistered { node_id }),
        BeatAnswer::NotOwner => Err(Refusal::Token(TokenProblem::NotOwner)),
        BeatAnswer::Full => Err(Refusal::Unavailable(
            "the quorum takes no more workers".into(),
        )),
    }
}

/// The stake behind a token that speaks for its worker no more.
fn gone(denied: &Denied) -> Option<Stake> {
    match denied {
        Denied::Token(TokenProblem::Slashed) => Some(Stake::Slashed),
        Denied::Token(TokenProblem::Withdrawn) => Some(Stake::Withdrawn),
        Denied::Token(TokenProblem::Expired) => Some(Stake::Expired),
        Denied::Token(_) | Denied::OutOfReach(_) => None,
    }
}

/// Calls until somebody who leads has answered, or the time is up.
pub(crate) async fn tell_leader(
    channel: &dyn LeaderChannel,
    message: &LeaderMessage<'_>,
) -> Result<LeaderAnswer, Refusal> {
    let deadline = Instant::now() + limits::LEADER_WAIT;
    let calls = async {
        loop {
            if let Some(answer) = call(channel, message).await.map_err(Refusal::Failed)? {
                return Ok::<_, Refusal>(answer);
            }
            tokio::time::sleep(limits::LEADER_RETRY).await;
        }
    };
    let told = tokio::time::timeout_at(deadline, calls);
    told.await
        .unwrap_or_else(|_| Err(Refusal::Unavailable(no_leader())))
}

/// One call; `None` when nobody who leads has answered it in time.
pub(crate) async fn call(
    channel: &dyn LeaderChannel,
    message: &LeaderMessage<'_>,
) -> Result<Option<LeaderAnswer>, String> {
    let call = channel.call(message::encode(message)?);
    match tokio::time::timeout(limits::LEADER_ANSWER_WAIT, call).await {
        Ok(Ok(answer)) => match message::decode(&answer)? {
            LeaderAnswer::NotLeading => Ok(None),
            answer => Ok(Some(answer)),
        },
        // A new leader refuses until its faces are up; that passes as elections do.
        Ok(Err(error @ (CallError::Unavailable(_) | CallError::Refused(_)))) => {
            tracing::debug!(%error, "a message waits for a leader");
            Ok(None)
        }
        Err(_) => Ok(None),
    }
}

pub(crate) fn no_leader() -> String {
    format!(
        "no leader took the heartbeat within {} s",
        limits::LEADER_WAIT.as_secs()
    )
}
