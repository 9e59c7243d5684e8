//! The leader's intake: proposals on their way into the log, in batches.
//!
//! A proposal goes at once when nothing is under way. While batches are, the next one
//! goes when it is as large as everything under way together: so one client never
//! waits for company, and many clients share the fixed costs of a round.
//!
//! Invariants
//! - Every submission is answered exactly once; one whose batch is dropped half way
//!   is answered `Unknown`.
//! - What goes into the log can be decoded: proposals of peers are checked here.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use nautilus_machine::Proposal;
use openraft::errors::ClientWriteError;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tracing::Span;

use crate::forwarded::PeerTicket;
use crate::node_core::{Attempt, Core};
use crate::telemetry;
use crate::types::{AppliedReply, LogData, encode_entry};

/// Batches under way at once.
const BATCHES: usize = 2;
/// Entries of one batch.
const BATCH_ENTRIES: usize = 1024;
/// Encoded bytes of one batch, but for its last entry.
const BATCH_BYTES: usize = 4 << 20;

/// What a proposer hears.
pub(crate) type Attempted = Result<AppliedReply, Attempt>;

/// A proposal, encoded, and who hears of it.
pub(crate) struct Submission {
    /// A [`Proposal`], postcard.
    encoded: Bytes,
    answer: Answer,
    /// The leader's handling of it; disabled without a trace.
    span: Span,
}

/// Where an answer goes. Dropped without one, it tells that nothing is known.
enum Answer {
    Here(Option<oneshot::Sender<Attempted>>),
    Peer(Option<PeerTicket>),
}

impl Answer {
    fn give(mut self, attempted: Attempted) {
        self.send(attempted);
    }

    fn send(&mut self, attempted: Attempted) {
        match self {
            Self::Here(sender) => {
                if let Some(sender) = sender.take() {
                    // One that gave up has dropped its receiver.
                    let _ = sender.send(attempted);
                }
            }
            Self::Peer(ticket) => {
                if let Some(ticket) = ticket.take() {
                    ticket.answer(attempted);
                }
            }
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.send(Err(Attempt::Unknown("the node is stopping".into())));
    }
}

impl Submission {
    /// A proposal of this node's; `encoded` is `proposal`.
    pub(crate) fn here(
        proposal: &Proposal,
        encoded: Bytes,
    ) -> (Self, oneshot::Receiver<Attempted>) {
        let (sender, receiver) = oneshot::channel();
        let (encoded, span) = traced(proposal, encoded);
        let answer = Answer::Here(Some(sender));
        (
            Self {
                encoded,
                answer,
                span,
            },
            receiver,
        )
    }

    /// A peer's; answered at once, and `None`, when its bytes are not a proposal.
    pub(crate) fn of_peer(encoded: Bytes, ticket: PeerTicket) -> Option<Self> {
        let answer = Answer::Peer(Some(ticket));
        match postcard::from_bytes::<Proposal>(&encoded) {
            Ok(proposal) => {
                let (encoded, span) = traced(&proposal, encoded);
                Some(Self {
                    encoded,
                    answer,
                    span,
                })
            }
            Err(error) => {
                let text = format!("malformed proposal: {error}");
                answer.give(Err(Attempt::NotTaken(text)));
                None
            }
        }
    }
}

/// Puts the leader's span in the place of the proposer's, where there is a trace.
fn traced(proposal: &Proposal, encoded: Bytes) -> (Bytes, Span) {
    if proposal.trace.is_none() {
        return (encoded, Span::none());
    }
    let mut proposal = proposal.clone();
    let span = telemetry::lead_span(&mut proposal.trace);
    match postcard::to_stdvec(&proposal) {
        Ok(with_span) => (with_span.into(), span),
        Err(_) => (encoded, span),
    }
}

/// What waits, and how much is under way.
#[derive(Default)]
pub(crate) struct Intake(Mutex<State>);

#[derive(Default)]
struct State {
    waiting: VecDeque<Submission>,
    batches: usize,
    entries: usize,
}

impl State {
    /// The next batch, if one may go now.
    fn take(&mut self) -> Option<Vec<Submission>> {
        let ready = self.waiting.len();
        if ready == 0 || self.batches >= BATCHES || ready < self.entries.min(BATCH_ENTRIES) {
            return None;
        }
        let mut bytes = 0;
        let count = self
            .waiting
            .iter()
            .take(BATCH_ENTRIES)
            .take_while(|submission| {
                let fits = bytes < BATCH_BYTES;
                bytes += submission.encoded.len();
                fits
            })
            .count();
        let batch: Vec<Submission> = self.waiting.drain(..count).collect();
        self.batches += 1;
        self.entries += count;
        Some(batch)
    }
}

/// A batch's place among those under way; given back when dropped.
struct Turn {
    core: Arc<Core>,
    entries: usize,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = self.core.intake.0.lock();
            state.batches -= 1;
            state.entries -= self.entries;
            state.take()
        };
        // Without a runtime there is nobody left to wait.
        if let Some(batch) = next
            && tokio::runtime::Handle::try_current().is_ok()
        {
            start(&self.core, batch);
        }
    }
}

fn start(core: &Arc<Core>, batch: Vec<Submission>) {
    let turn = Turn {
        core: Arc::clone(core),
        entries: batch.len(),
    };
    let tasks = &core.tasks;
    tasks.spawn(write(turn, batch));
}

/// Takes submissions; they are answered in time.
pub(crate) fn submit(core: &Arc<Core>, submissions: impl IntoIterator<Item = Submission>) {
    let batch = {
        let mut state = core.intake.0.lock();
        state.waiting.extend(submissions);
        state.take()
    };
    if let Some(batch) = batch {
        start(core, batch);
    }
}

/// As [`submit`], for one: when it goes alone, the caller's own task carries it.
pub(crate) async fn submit_one(core: &Arc<Core>, submission: Submission) {
    let batch = {
        let mut state = core.intake.0.lock();
        state.waiting.push_back(submission);
        state.take()
    };
    let Some(batch) = batch else { return };
    if batch.len() > 1 {
        start(core, batch);
        return;
    }
    let turn = Turn {
        core: Arc::clone(core),
        entries: batch.len(),
    };
    write(turn, batch).await;
}

/// Writes a batch to the log and answers as its entries are applied.
async fn write(turn: Turn, batch: Vec<Submission>) {
    let core = &turn.core;
    let time = core.clock.stamp(core.machinery.time());
    let mut entries = Vec::with_capacity(batch.len());
    let mut answers = Vec::with_capacity(batch.len());
    for submission in batch {
        entries.push(LogData(encode_entry(time, &submission.encoded)));
        answers.push((submission.answer, submission.span));
    }
    let mut results = match core.raft.client_write_many(entries).await {
        Ok(results) => results,
        Err(fatal) => {
            for (answer, _) in answers {
                answer.give(Err(Attempt::Unknown(fatal.to_string())));
            }
            return;
        }
    };
    for (answer, span) in answers {
        let attempted = match results.next().await {
            Some(Ok(Ok(written))) => {
                let position = crate::types::position(&written.log_id);
                written.response.0.ok_or_else(|| {
                    Attempt::Unknown(format!(
                        "entry {}.{} has no outcome",
                        position.term, position.index
                    ))
                })
            }
            Some(Ok(Err(ClientWriteError::ForwardToLeader(forward)))) => {
                let known = forward.leader_id.map_or_else(
                    || "and knows no leader".to_owned(),
                    |id| format!("node {id} does"),
                );
                let own = core.config.node_id;
                Err(Attempt::NotTaken(format!(
                    "node {own} does not lead, {known}"
                )))
            }
            Some(Ok(Err(other))) => Err(Attempt::Unknown(other.to_string())),
            Some(Err(fatal)) => Err(Attempt::Unknown(fatal.to_string())),
            None => Err(Attempt::Unknown("raft's core stopped".into())),
        };
        drop(span);
        answer.give(attempted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(state: &mut State, count: usize) {
        for _ in 0..count {
            state.waiting.push_back(Submission {
                encoded: Bytes::new(),
                answer: Answer::Here(None),
                span: Span::none(),
            });
        }
    }

    #[test]
    fn one_alone_goes_at_once_and_company_goes_when_it_is_as_many_as_are_under_way() {
        let mut state = State::default();
        waiting(&mut state, 8);
        assert_eq!(state.take().map(|batch| batch.len()), Some(8));
        waiting(&mut state, 7);
        assert!(state.take().is_none());
        waiting(&mut state, 1);
        assert_eq!(state.take().map(|batch| batch.len()), Some(8));
        assert_eq!((state.batches, state.entries), (2, 16));
    }

    #[test]
    fn a_submission_that_is_dropped_is_answered_with_unknown() {
        let (submission, mut receiver) = Submission::here(
            &Proposal::new(nautilus_machine::Command::Compact { revision: 1 }),
            Bytes::new(),
        );
        drop(submission);
        assert!(matches!(receiver.try_recv(), Ok(Err(Attempt::Unknown(_)))));
    }
}
