//! A heartbeat on its way: judged here, then told to the leader, wherever it is.
//!
//! Invariant: an election costs a worker a wait of at most [`limits::LEADER_WAIT`],
//! not a beat.

use nautilus_machine::{CallError, LeaderChannel};
use tokio::time::Instant;

use crate::Workers;
use crate::answer::{Refusal, TokenProblem, favourable};
use crate::judge::Verdict;
use crate::lifecycle::Stake;
use crate::limits;
use crate::message::{self, LeaderAnswer, LeaderMessage};
use crate::wire::Heartbeat;

/// Takes a heartbeat.
pub(crate) async fn take(workers: &Workers, beat: Heartbeat) -> Result<(), Refusal> {
    let Heartbeat {
        node_id,
        token,
        facts,
    } = beat;
    let token = token.map_err(|fault| Refusal::Token(fault.into()))?;
    let verdict = workers.tribunal.verdict(&token, &node_id).await;
    if let Some(stake) = gone(&verdict) {
        let message = LeaderMessage::Refused {
            node_id: node_id.clone(),
            token: token.hash(),
            stake,
        };
        // The worker is refused either way; the leader marks it if it is a worker's token.
        if let Err(refusal) = tell_leader(&*workers.channel, &message).await {
            tracing::warn!(%refusal, "the leader was not told of a stake that is gone");
        }
    }
    let (owner, ..) = favourable(verdict)?;
    let message = LeaderMessage::beat(&node_id, owner, facts);
    match tell_leader(&*workers.channel, &message).await? {
        LeaderAnswer::Acknowledged => Ok(()),
        LeaderAnswer::NotRegistered => Err(Refusal::NotRegistered { node_id }),
        LeaderAnswer::NotOwner => Err(Refusal::Token(TokenProblem::NotOwner)),
        LeaderAnswer::Full => Err(Refusal::Unavailable(
            "the quorum takes no more workers".into(),
        )),
        LeaderAnswer::NotLeading => Err(Refusal::Unavailable(no_leader())),
    }
}

/// The stake behind a token that speaks for its worker no more.
fn gone(verdict: &Verdict) -> Option<Stake> {
    match verdict {
        Verdict::Slashed => Some(Stake::Slashed),
        Verdict::Withdrawn => Some(Stake::Withdrawn),
        Verdict::Expired => Some(Stake::Expired),
        _ => None,
    }
}

/// Calls until somebody who leads has answered, or the time is up.
async fn tell_leader(
    channel: &dyn LeaderChannel,
    message: &LeaderMessage,
) -> Result<LeaderAnswer, Refusal> {
    let bytes = message::encode(message).map_err(Refusal::Failed)?;
    let deadline = Instant::now() + limits::LEADER_WAIT;
    loop {
        let call = tokio::time::timeout_at(deadline, channel.call(bytes.clone()));
        match call.await {
            Ok(Ok(answer)) => match message::decode(&answer).map_err(Refusal::Failed)? {
                LeaderAnswer::NotLeading => {}
                answer => return Ok(answer),
            },
            // A new leader refuses until its faces are up; that passes as elections do.
            Ok(Err(error @ (CallError::Unavailable(_) | CallError::Refused(_)))) => {
                tracing::debug!(%error, "a heartbeat waits for a leader");
            }
            Err(_) => return Err(Refusal::Unavailable(no_leader())),
        }
        if Instant::now() + limits::LEADER_RETRY >= deadline {
            return Err(Refusal::Unavailable(no_leader()));
        }
        tokio::time::sleep(limits::LEADER_RETRY).await;
    }
}

fn no_leader() -> String {
    format!(
        "no leader took the heartbeat within {} s",
        limits::LEADER_WAIT.as_secs()
    )
}
