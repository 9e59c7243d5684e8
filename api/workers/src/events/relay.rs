//! `POST /api/v1/sui-events`: events that somebody else has seen.
//!
//! A relayed event is a hint to ask the chain for its transaction. What the chain then says
//! wakes the follower, on whichever node it is, whose turn it is to apply it; only the loss of a
//! stake acts at once.
//!
//! Invariants
//! - Nothing acts that the chain did not confirm, and then by the chain's word.
//! - Relayers cost the chain a bounded number of questions in a second.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde_json::json;

use super::batch::{Batch, Row};
use super::effects::Effect;
use super::follower::{Committed, Setback};
use super::hint::{Hint, hints};
use super::ledger::{LEDGER_KEY, Ledger, Place};
use super::limits::{
    APPLY_ATTEMPTS, RELAY_BODY_LIMIT_BYTES, RELAY_MEMORY, RELAY_MEMORY_LIMIT,
    RELAY_QUESTIONS_BURST, RELAY_QUESTIONS_PER_SECOND, RELAY_WAIT,
};
use super::nodes::ChainNode;
use super::{Events, NO_CHAIN};
use crate::answer::Refusal;
use crate::beat;
use crate::chain::ChainEvent;
use crate::lifecycle::Stake;
use crate::message::LeaderMessage;
use crate::roster::millis;

/// Questions about relayed transactions under way for one request.
const QUESTIONS_AT_ONCE: usize = 8;

pub(super) fn router(events: Option<Arc<Events>>) -> Router {
    Router::new()
        .route("/api/v1/sui-events", post(take))
        .layer(DefaultBodyLimit::max(RELAY_BODY_LIMIT_BYTES))
        .with_state(events)
}

async fn take(
    State(events): State<Option<Arc<Events>>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let taken = async {
        let events = events.ok_or_else(|| Refusal::Unavailable(NO_CHAIN.to_owned()))?;
        let body = body.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge {
                limit_bytes: RELAY_BODY_LIMIT_BYTES,
            },
            _ => Refusal::BrokenBody(rejection.body_text()),
        })?;
        events.relayed(hints(&body)?).await
    };
    match taken.await {
        Ok(counts) => {
            let code = match counts.unconfirmed {
                0 => StatusCode::OK,
                _ => StatusCode::ACCEPTED,
            };
            (code, Json(counts.to_json())).into_response()
        }
        Err(refusal) => refusal.respond(&headers),
    }
}

/// What became of the events of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    /// The chain has them; they were not applied before.
    accepted: u64,
    /// They were applied, or relayed, before.
    duplicate: u64,
    /// The chain does not know them.
    unconfirmed: u64,
}

impl Counts {
    fn to_json(self) -> serde_json::Value {
        json!({
            "accepted": self.accepted,
            "duplicate": self.duplicate,
            "unconfirmed": self.unconfirmed,
        })
    }

    fn count(&mut self, outcome: &'static str) {
        match outcome {
            ACCEPTED => self.accepted += 1,
            DUPLICATE => self.duplicate += 1,
            _ => self.unconfirmed += 1,
        }
        count(outcome);
    }
}

const ACCEPTED: &str = "accepted";
const DUPLICATE: &str = "duplicate";
const UNCONFIRMED: &str = "unconfirmed";
/// Confirmed, and not as it was relayed: counted beside what became of it.
const FORGED: &str = "forged";
/// Not asked for: relayers ask too much.
const LIMITED: &str = "limited";

fn count(outcome: &'static str) {
    metrics::counter!("nautilus_sui_relayed_events_total", "outcome" => outcome).increment(1);
}

impl Events {
    async fn relayed(&self, hints: Vec<Hint>) -> Result<Counts, Refusal> {
        let transactions: BTreeSet<String> =
            hints.iter().map(|hint| hint.tx_digest.clone()).collect();
        let answers: Vec<Result<(String, Answer), Refusal>> = stream::iter(transactions)
            .map(|digest| async move {
                let answer = self.confirm(&digest).await?;
                Ok((digest, answer))
            })
            .buffer_unordered(QUESTIONS_AT_ONCE)
            .collect()
            .await;
        // What could be confirmed acts, also where something else could not be.
        let mut failed = None;
        let mut known: BTreeMap<String, Answer> = BTreeMap::new();
        for answer in answers {
            match answer {
                Ok((digest, answer)) => {
                    known.insert(digest, answer);
                }
                Err(refusal) => failed = Some(refusal),
            }
        }
        let mut counts = Counts::default();
        for hint in &hints {
            if let Some(answer) = known.get(&hint.tx_digest) {
                counts.count(judge(hint, answer));
            }
        }
        failed.map_or(Ok(counts), Err)
    }

    /// What the chain says of a transaction; its events act, if they are new.
    async fn confirm(&self, tx_digest: &str) -> Result<Answer, Refusal> {
        let now_ms = self.clock.monotonic_ms();
        if let Some(answer) = self.relays.recall(tx_digest, now_ms) {
            return Ok(answer);
        }
        if !self.relays.may_ask(now_ms) {
            count(LIMITED);
            return Err(Refusal::Busy("too many relayed events are to be confirmed"));
        }
        let asked = tokio::time::timeout(RELAY_WAIT, self.source.of_transaction(tx_digest));
        let found = match asked.await {
            Ok(Ok(found)) => found.unwrap_or_default(),
            Ok(Err(error)) => return Err(Refusal::Unavailable(error.to_string())),
            Err(_) => {
                let waited_s = RELAY_WAIT.as_secs();
                let reason = format!("the chain did not answer within {waited_s} s");
                return Err(Refusal::Unavailable(reason));
            }
        };
        let mut events = Vec::with_capacity(found.len());
        for event in found {
            let is_new = self.act(&event).await.map_err(|setback| {
                Refusal::Unavailable(format!("a relayed event can't be taken in: {setback}"))
            })?;
            events.push((event, is_new));
        }
        if events.iter().any(|(_, is_new)| *is_new) {
            self.hint().await;
        }
        self.relays.remember(tx_digest, &events, now_ms);
        Ok(Answer::Asked(events))
    }

    /// Wakes whoever follows the chain. One who does not hear it looks by itself, only later.
    async fn hint(&self) {
        if self.kv.leadership().is_self {
            self.hinted.notify_one();
        } else if let Err(error) = beat::call(&*self.channel, &LeaderMessage::Hinted).await {
            tracing::debug!(error, "the leader was not told of the chain's news");
        }
    }

    /// Lets a confirmed event act as far as it may; whether it is new.
    async fn act(&self, event: &ChainEvent) -> Result<bool, Setback> {
        let kv = &*self.kv;
        for _ in 0..APPLY_ATTEMPTS {
            let row = Row::<Ledger>::read(kv, LEDGER_KEY)?;
            let ledger = row.value.unwrap_or_default();
            let place = ledger.place(event);
            if place == Place::Applied {
                return Ok(false);
            }
            let (Place::Ahead, Some((node_id, stake))) = (place, loss(event)) else {
                return Ok(true);
            };
            let node = Row::<ChainNode>::read(kv, &ChainNode::key(&node_id))?.value;
            if node.is_some_and(|node| node.is_ahead(&event.id)) {
                return Ok(false);
            }
            let mut batch = Batch::new(kv, ledger, row.revision)?;
            if !batch.lose_ahead(event, &node_id, stake)? {
                return Ok(true);
            }
            match self.commit(batch, None).await? {
                Committed::Done => {
                    tracing::info!(id = ?event.id, node_id, ?stake, "a relayed event acts ahead of its turn");
                    return Ok(true);
                }
                Committed::TooLarge => return Ok(true),
                // The ledger or the node has moved: this node catches up, and looks again.
                Committed::Overtaken => {
                    let barrier = kv.read_barrier().await;
                    barrier.map_err(|error| Setback::Quorum(error.to_string()))?;
                }
            }
        }
        // The follower, with whom this competes, applies it.
        Ok(true)
    }
}

/// The node whose stake an event takes, and how.
fn loss(event: &ChainEvent) -> Option<(String, Stake)> {
    match Effect::of(event).ok()?? {
        Effect::StatusChanged {
            node_id,
            stake: Some(stake @ (Stake::Slashed | Stake::Withdrawn)),
        } => Some((node_id, stake)),
        _ => None,
    }
}

/// What a hint comes to, by the chain's answer about its transaction.
fn judge(hint: &Hint, answer: &Answer) -> &'static str {
    match answer {
        Answer::Remembered(known) => match hint.event_seq {
            Some(seq) if !known.contains(&seq) => UNCONFIRMED,
            None if known.is_empty() => UNCONFIRMED,
            _ => DUPLICATE,
        },
        Answer::Asked(events) => {
            let mut named = events
                .iter()
                .filter(|(event, _)| hint.names(event))
                .peekable();
            if named.peek().is_none() {
                return UNCONFIRMED;
            }
            let mut is_new = false;
            for (event, new) in named {
                is_new |= new;
                if let Some(field) = hint.differs(event) {
                    count(FORGED);
                    tracing::warn!(id = ?event.id, field, "a relayed event is not as the chain has it: the chain's word counts");
                }
            }
            if is_new { ACCEPTED } else { DUPLICATE }
        }
    }
}

/// What the chain said of a transaction.
enum Answer {
    /// Now; and which events are new.
    Asked(Vec<(ChainEvent, bool)>),
    /// A short while ago: the places of its events.
    Remembered(Vec<u64>),
}

/// What one node remembers of what was relayed to it.
pub(super) struct Relays(Mutex<Memory>);

struct Memory {
    /// The transaction, when it was asked for, and its events' places.
    known: BTreeMap<String, (u64, Vec<u64>)>,
    by_age: VecDeque<(u64, String)>,
    /// Thousandths of questions that may be asked at once.
    allowance: u64,
    filled_ms: u64,
}

impl Relays {
    pub(super) fn new(now_ms: u64) -> Self {
        Self(Mutex::new(Memory {
            known: BTreeMap::new(),
            by_age: VecDeque::new(),
            allowance: u64::from(RELAY_QUESTIONS_BURST) * 1000,
            filled_ms: now_ms,
        }))
    }

    fn may_ask(&self, now_ms: u64) -> bool {
        let mut memory = self.0.lock();
        let since_ms = now_ms.saturating_sub(memory.filled_ms);
        memory.filled_ms = now_ms;
        let more = since_ms.saturating_mul(u64::from(RELAY_QUESTIONS_PER_SECOND));
        let most = u64::from(RELAY_QUESTIONS_BURST) * 1000;
        memory.allowance = memory.allowance.saturating_add(more).min(most);
        let is_enough = memory.allowance >= 1000;
        if is_enough {
            memory.allowance -= 1000;
        }
        is_enough
    }

    fn recall(&self, tx_digest: &str, now_ms: u64) -> Option<Answer> {
        let memory = self.0.lock();
        let (at_ms, places) = memory.known.get(tx_digest)?;
        (now_ms.saturating_sub(*at_ms) < millis(RELAY_MEMORY))
            .then(|| Answer::Remembered(places.clone()))
    }

    fn remember(&self, tx_digest: &str, events: &[(ChainEvent, bool)], now_ms: u64) {
        let places = events.iter().map(|(event, _)| event.id.event_seq).collect();
        let mut memory = self.0.lock();
        memory.known.insert(tx_digest.to_owned(), (now_ms, places));
        memory.by_age.push_back((now_ms, tx_digest.to_owned()));
        while memory.by_age.len() > RELAY_MEMORY_LIMIT {
            let Some((at_ms, oldest)) = memory.by_age.pop_front() else {
                return;
            };
            if memory
                .known
                .get(&oldest)
                .is_some_and(|known| known.0 == at_ms)
            {
                memory.known.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relayers_ask_a_burst_and_then_so_many_in_a_second() {
        let relays = Relays::new(0);
        let asked = |now_ms, tries: u32| (0..tries).filter(|_| relays.may_ask(now_ms)).count();
        assert_eq!(asked(0, 1000), RELAY_QUESTIONS_BURST as usize);
        assert_eq!(asked(1000, 1000), RELAY_QUESTIONS_PER_SECOND as usize);
        assert_eq!(asked(3_600_000, 1000), RELAY_QUESTIONS_BURST as usize);
    }

    #[test]
    fn an_answer_is_remembered_for_a_while_and_memory_is_bounded() {
        let relays = Relays::new(0);
        relays.remember("first", &[], 0);
        assert!(relays.recall("first", millis(RELAY_MEMORY) - 1).is_some());
        assert!(relays.recall("first", millis(RELAY_MEMORY)).is_none());
        for number in 0..2 * RELAY_MEMORY_LIMIT {
            relays.remember(&number.to_string(), &[], 1);
        }
        let memory = relays.0.lock();
        assert_eq!(memory.known.len(), RELAY_MEMORY_LIMIT);
        assert_eq!(memory.by_age.len(), RELAY_MEMORY_LIMIT);
    }
}
