//! The leader's end of the streams on which other members ask it: proposals, read
//! indexes, leases' renewals. Many questions to a message, many answers to a message.
//!
//! Invariants
//! - Every question that was taken is answered on its stream, as long as that lives.
//! - A stream has a bounded number of questions without an answer; more are not read.
//! - An answer too large for one message goes in pieces: size never makes an outcome
//!   unknown.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use nautilus_machine::{LeaseId, NodeId};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::intake::{self, Attempted, Submission};
use crate::leases::{self, Inquiry};
use crate::lessor::Silence;
use crate::node_core::{Attempt, Core};
use crate::transport::PeerIdentity;
use crate::wire::v1;

use v1::answered::Result as Wire;
use v1::asked::Question;

/// Questions of one peer that are not answered yet.
const UNANSWERED: usize = 16_384;
/// Bytes after which a message takes no further question or answer.
pub(crate) const MESSAGE_BYTES: usize = 1 << 20;
/// Questions or answers of one message.
pub(crate) const MESSAGE_ITEMS: usize = 1024;
/// Bytes of an answer in one piece; a longer one goes in several.
const PIECE_BYTES: usize = 4 << 20;

type Answers = mpsc::OwnedPermit<v1::Answered>;

/// A place for one answer on a peer's stream.
pub(crate) struct PeerTicket {
    ticket: u64,
    place: Answers,
}

impl PeerTicket {
    /// Answers a proposal.
    pub(crate) fn answer(self, attempted: Attempted) {
        let result = match attempted {
            Ok(reply) => match postcard::to_stdvec(&reply) {
                Ok(encoded) => Wire::Applied(encoded.into()),
                Err(error) => Wire::Unknown(error.to_string()),
            },
            Err(Attempt::NotTaken(reason)) => Wire::NotTaken(reason),
            Err(Attempt::Unknown(reason)) => Wire::Unknown(reason),
        };
        self.send(result);
    }

    pub(crate) fn send(self, result: Wire) {
        self.place.send(v1::Answered {
            ticket: self.ticket,
            result: Some(result),
        });
    }
}

/// Serves one stream of a member; returns its answers.
pub(crate) fn serve(
    core: &Arc<Core>,
    peer: PeerIdentity,
    questions: Streaming<v1::AskRequest>,
) -> BoxStream<'static, Result<v1::AskAnswer, Status>> {
    let (sender, answers) = mpsc::channel(UNANSWERED);
    let reader = Arc::clone(core);
    core.tasks.spawn(async move {
        let id = peer.node_id;
        tokio::select! {
            () = reader.stop.cancelled() => {}
            ended = read(&reader, &peer, questions, sender) => if let Err(status) = ended {
                tracing::debug!(peer = id, %status, "a stream of questions ended");
            }
        }
    });
    stream::unfold(Outgoing::new(answers), |mut outgoing| async move {
        let message = outgoing.next().await?;
        Some((Ok(message), outgoing))
    })
    .boxed()
}

async fn read(
    core: &Arc<Core>,
    peer: &PeerIdentity,
    mut questions: Streaming<v1::AskRequest>,
    sender: mpsc::Sender<v1::Answered>,
) -> Result<(), Status> {
    while let Some(message) = questions.message().await? {
        core.peers.check(peer).map_err(Status::permission_denied)?;
        let mut proposals = Vec::with_capacity(message.questions.len());
        for asked in message.questions {
            let Ok(place) = sender.clone().reserve_owned().await else {
                return Ok(());
            };
            let ticket = PeerTicket {
                ticket: asked.ticket,
                place,
            };
            match asked.question {
                Some(Question::Proposal(encoded)) => {
                    proposals.extend(Submission::of_peer(encoded, ticket));
                }
                Some(Question::ReadIndex(_)) => read_index(core, peer.node_id, ticket),
                Some(Question::RenewLease(id)) => lease(core, Inquiry::Renew, id, ticket),
                Some(Question::LeaseTimes(id)) => lease(core, Inquiry::Times, id, ticket),
                None => ticket.send(Wire::NotTaken("an empty question".into())),
            }
        }
        if !proposals.is_empty() {
            intake::submit(core, proposals);
        }
    }
    Ok(())
}

fn read_index(core: &Arc<Core>, _peer: NodeId, ticket: PeerTicket) {
    let own = Arc::clone(core);
    core.tasks.spawn(async move {
        ticket.send(match own.read_index_here().await {
            Ok(index) => Wire::ReadIndex(index),
            Err(reason) => Wire::NotTaken(reason),
        });
    });
}

fn lease(core: &Core, inquiry: Inquiry, id: i64, ticket: PeerTicket) {
    let times = match leases::answer_here(core, inquiry, LeaseId(id)) {
        Ok(times) => Some(v1::LeaseTimes {
            ttl_ms: times.ttl_ms,
            remaining_ms: times.remaining_ms,
        }),
        Err(Silence::NotFound) => None,
        Err(Silence::NotLeading) => {
            let own = core.config.node_id;
            return ticket.send(Wire::NotTaken(format!("node {own} does not lead")));
        }
    };
    ticket.send(Wire::Lease(v1::LeaseAnswer { times }));
}

/// Answers on their way out.
struct Outgoing {
    answers: mpsc::Receiver<v1::Answered>,
    /// Pieces of a large answer that go first, in order.
    pieces: Vec<v1::Answered>,
}

impl Outgoing {
    fn new(answers: mpsc::Receiver<v1::Answered>) -> Self {
        Self {
            answers,
            pieces: Vec::new(),
        }
    }

    /// Everything that waits, up to a message's size.
    async fn next(&mut self) -> Option<v1::AskAnswer> {
        if let Some(piece) = self.pieces.pop() {
            return Some(v1::AskAnswer {
                answers: vec![piece],
            });
        }
        let first = self.answers.recv().await?;
        let (mut answers, mut bytes) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(answer) = next {
            let size = size(&answer);
            if size > PIECE_BYTES {
                self.pieces = in_pieces(answer);
                break;
            }
            bytes += size;
            answers.push(answer);
            if bytes >= MESSAGE_BYTES || answers.len() >= MESSAGE_ITEMS {
                break;
            }
            next = self.answers.try_recv().ok();
        }
        Some(v1::AskAnswer { answers })
    }
}

fn size(answer: &v1::Answered) -> usize {
    match &answer.result {
        Some(Wire::Applied(reply) | Wire::Part(reply)) => reply.len(),
        _ => 0,
    }
}

/// The last piece first.
fn in_pieces(answer: v1::Answered) -> Vec<v1::Answered> {
    let ticket = answer.ticket;
    let piece = |result| v1::Answered {
        ticket,
        result: Some(result),
    };
    let Some(Wire::Applied(mut rest)) = answer.result else {
        return vec![answer];
    };
    let mut pieces = Vec::new();
    while rest.len() > PIECE_BYTES {
        let part: Bytes = rest.split_to(PIECE_BYTES);
        pieces.push(piece(Wire::Part(part)));
    }
    pieces.push(piece(Wire::Applied(rest)));
    pieces.reverse();
    pieces
}
