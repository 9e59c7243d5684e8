//! A member's end of its stream to the leader: what it asks goes out in batches, and
//! the answers come back as they are there.
//!
//! Invariants
//! - What never left this node is told apart from what may have: the first is
//!   `NotTaken`, the second, when the stream ends without an answer, `Unknown`.
//! - Everything asked is answered, whatever becomes of the stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use nautilus_machine::{LeaseId, LeaseTimes, NodeId};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::forwarded::{MESSAGE_BYTES, MESSAGE_ITEMS};
use crate::intake::Attempted;
use crate::leases::Inquiry;
use crate::node_core::{Attempt, Core};
use crate::peers::{Lane, chain, never_sent};
use crate::types::AppliedReply;
use crate::wire::v1;

use v1::answered::Result as Wire;
use v1::asked::Question;

/// Questions that wait to leave.
const QUEUE: usize = 8192;
/// How long answers wait for this node to have applied what they tell of.
const APPLIED_SOON: Duration = Duration::from_millis(5);
/// Bytes of one answer put together from pieces.
const ANSWER_BYTES: usize = 1 << 30;

/// The streams to those who lead or led, by id.
#[derive(Default)]
pub(crate) struct Links(Mutex<BTreeMap<NodeId, mpsc::Sender<Asking>>>);

/// A question and who waits for its answer.
struct Asking {
    question: Question,
    waiter: Waiter,
}

/// Hears exactly one answer; when dropped, the one that fits how far it came.
struct Waiter {
    sender: Option<oneshot::Sender<Heard>>,
    left: bool,
}

/// An answer, as far as the link understands it.
enum Heard {
    Applied(AppliedReply),
    Index(u64),
    Lease(Option<v1::LeaseTimes>),
    Failed(Attempt),
}

impl Waiter {
    fn tell(mut self, heard: Heard) {
        if let Some(sender) = self.sender.take() {
            // One that gave up has dropped its receiver.
            let _ = sender.send(heard);
        }
    }

    /// The stream is gone.
    fn lost(self, reason: &str) {
        let attempt = if self.left {
            Attempt::Unknown(reason.to_owned())
        } else {
            Attempt::NotTaken(reason.to_owned())
        };
        self.tell(Heard::Failed(attempt));
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let Some(sender) = self.sender.take() else {
            return;
        };
        let reason = "the stream to the leader ended".to_owned();
        let _ = sender.send(Heard::Failed(match self.left {
            true => Attempt::Unknown(reason),
            false => Attempt::NotTaken(reason),
        }));
    }
}

/// Hands an encoded proposal to `leader`.
pub(crate) async fn propose(core: &Arc<Core>, leader: NodeId, proposal: Bytes) -> Attempted {
    match ask(core, leader, Question::Proposal(proposal)).await {
        Ok(Heard::Applied(reply)) => Ok(reply),
        Ok(Heard::Failed(attempt)) => Err(attempt),
        Ok(Heard::Index(_) | Heard::Lease(_)) => Err(Attempt::Unknown(format!(
            "node {leader} answered another question"
        ))),
        Err(reason) => Err(Attempt::NotTaken(reason)),
    }
}

/// The index a read has to wait for, by `leader`.
pub(crate) async fn read_index(core: &Arc<Core>, leader: NodeId) -> Result<u64, String> {
    match ask(core, leader, Question::ReadIndex(true)).await? {
        Heard::Index(index) => Ok(index),
        Heard::Failed(Attempt::NotTaken(reason) | Attempt::Unknown(reason)) => Err(reason),
        Heard::Applied(_) | Heard::Lease(_) => {
            Err(format!("node {leader} answered another question"))
        }
    }
}

/// A lease's times, by `leader`; `None` if there is no such lease.
pub(crate) async fn lease(
    core: &Arc<Core>,
    leader: NodeId,
    inquiry: Inquiry,
    id: LeaseId,
) -> Result<Option<LeaseTimes>, String> {
    let question = match inquiry {
        Inquiry::Renew => Question::RenewLease(id.0),
        Inquiry::Times => Question::LeaseTimes(id.0),
    };
    match ask(core, leader, question).await? {
        Heard::Lease(times) => Ok(times.map(|times| LeaseTimes {
            ttl_ms: times.ttl_ms,
            remaining_ms: times.remaining_ms,
        })),
        Heard::Failed(Attempt::NotTaken(reason) | Attempt::Unknown(reason)) => Err(reason),
        Heard::Applied(_) | Heard::Index(_) => {
            Err(format!("node {leader} answered another question"))
        }
    }
}

/// An error means that nothing was asked.
async fn ask(core: &Arc<Core>, leader: NodeId, question: Question) -> Result<Heard, String> {
    let (sender, receiver) = oneshot::channel();
    let mut asking = Asking {
        question,
        waiter: Waiter {
            sender: Some(sender),
            left: false,
        },
    };
    let queue = queue_to(core, leader);
    if let Err(refused) = queue.send(asking).await {
        // That stream has just ended; a new one is made once.
        asking = refused.0;
        let queue = queue_to(core, leader);
        if queue.send(asking).await.is_err() {
            return Err(format!("no stream to node {leader} stands"));
        }
    }
    receiver
        .await
        .map_err(|_| format!("the stream to node {leader} ended"))
}

/// The way to `leader`; a stream is opened where there is none.
fn queue_to(core: &Arc<Core>, leader: NodeId) -> mpsc::Sender<Asking> {
    let mut links = core.links.0.lock();
    if let Some(queue) = links.get(&leader)
        && !queue.is_closed()
    {
        return queue.clone();
    }
    let (queue, questions) = mpsc::channel(QUEUE);
    links.insert(leader, queue.clone());
    let own = Arc::clone(core);
    core.tasks.spawn(async move {
        tokio::select! {
            () = own.stop.cancelled() => {}
            () = run(&own, leader, questions) => {}
        }
    });
    queue
}

/// What left this node and is not answered yet.
#[derive(Default)]
struct Left {
    waiting: BTreeMap<u64, Waiter>,
    next: u64,
}

async fn run(core: &Arc<Core>, leader: NodeId, questions: mpsc::Receiver<Asking>) {
    let left = Arc::new(Mutex::new(Left::default()));
    let mut client = core.peers.client(leader, Lane::Ask);
    let answers = client.ask(outgoing(questions, Arc::clone(&left))).await;
    let ended = match answers {
        Ok(answers) => hear(core, answers.into_inner(), &left).await,
        Err(status) => {
            if never_sent(&status) {
                for waiter in left.lock().waiting.values_mut() {
                    waiter.left = false;
                }
            }
            chain(&status)
        }
    };
    let reason = format!("node {leader}: {ended}");
    let waiting = std::mem::take(&mut left.lock().waiting);
    for (_, waiter) in waiting {
        waiter.lost(&reason);
    }
}

/// Tells the waiters until the stream ends; returns why it did.
async fn hear(
    core: &Core,
    mut answers: tonic::Streaming<v1::AskAnswer>,
    left: &Mutex<Left>,
) -> String {
    let mut parts: BTreeMap<u64, BytesMut> = BTreeMap::new();
    loop {
        let message = match answers.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return "the leader ended the stream".into(),
            Err(status) => return chain(&status),
        };
        let mut applied = Vec::with_capacity(message.answers.len());
        for v1::Answered { ticket, result } in message.answers {
            let heard = match result {
                Some(Wire::Part(part)) => {
                    let whole = parts.entry(ticket).or_default();
                    if whole.len() + part.len() > ANSWER_BYTES {
                        return format!("an answer of more than {ANSWER_BYTES} bytes");
                    }
                    whole.extend_from_slice(&part);
                    continue;
                }
                Some(Wire::Applied(end)) => heard_applied(&whole(parts.remove(&ticket), end)),
                Some(Wire::ReadIndex(index)) => Heard::Index(index),
                Some(Wire::Lease(answer)) => Heard::Lease(answer.times),
                Some(Wire::NotTaken(reason)) => Heard::Failed(Attempt::NotTaken(reason)),
                Some(Wire::Unknown(reason)) => Heard::Failed(Attempt::Unknown(reason)),
                None => Heard::Failed(Attempt::Unknown("an empty answer".into())),
            };
            let Some(waiter) = left.lock().waiting.remove(&ticket) else {
                continue;
            };
            match heard {
                Heard::Applied(reply) => applied.push((waiter, reply)),
                other => waiter.tell(other),
            }
        }
        tell_applied(core, applied).await;
    }
}

fn whole(parts: Option<BytesMut>, end: Bytes) -> Bytes {
    match parts {
        None => end,
        Some(mut whole) => {
            whole.extend_from_slice(&end);
            whole.freeze()
        }
    }
}

fn heard_applied(reply: &Bytes) -> Heard {
    match postcard::from_bytes(reply) {
        Ok(reply) => Heard::Applied(reply),
        Err(error) => Heard::Failed(Attempt::Unknown(format!("a malformed answer: {error}"))),
    }
}

/// Tells of what was applied on the leader once it is applied here too, which is a
/// matter of microseconds: each waiter is woken once. When it takes longer, they are
/// told all the same, and wait by themselves.
async fn tell_applied(core: &Core, applied: Vec<(Waiter, AppliedReply)>) {
    let last = applied.iter().map(|(_, reply)| reply.position.index).max();
    let Some(last) = last else { return };
    let deadline = Instant::now() + APPLIED_SOON;
    core.machinery.tracker.wait_for(last, deadline).await;
    for (waiter, reply) in applied {
        waiter.tell(Heard::Applied(reply));
    }
}

/// Everything that waits, up to a message's size, whenever the connection takes more.
fn outgoing(
    questions: mpsc::Receiver<Asking>,
    left: Arc<Mutex<Left>>,
) -> impl Stream<Item = v1::AskRequest> + Send + 'static {
    stream::unfold((questions, left), |(mut questions, left)| async move {
        let first = questions.recv().await?;
        let (mut message, mut bytes) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(Asking {
            question,
            mut waiter,
        }) = next
        {
            if let Question::Proposal(proposal) = &question {
                bytes += proposal.len();
            }
            waiter.left = true;
            let ticket = {
                let mut left = left.lock();
                let ticket = left.next;
                left.next += 1;
                left.waiting.insert(ticket, waiter);
                ticket
            };
            message.push(v1::Asked {
                ticket,
                question: Some(question),
            });
            if bytes >= MESSAGE_BYTES || message.len() >= MESSAGE_ITEMS {
                break;
            }
            next = questions.try_recv().ok();
        }
        let message = v1::AskRequest { questions: message };
        Some((message, (questions, left)))
    })
}
