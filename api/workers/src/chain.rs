//! What the chain tells this face: the evidence behind a verdict, and its events. The ports
//! that a client of full nodes implements.
//!
//! Invariant: an event is what a full node said of itself when it was asked; a relayed one is
//! only the identity to ask for.

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The state of the chain by which a token was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainEvidence {
    /// The object that speaks for the token: `0x` and hex.
    pub object_id: String,
    /// Its version.
    pub version: u64,
    /// Its digest, in Base58.
    pub digest: String,
    /// The checkpoint as of which it was read; `None` where the full node named none.
    pub checkpoint: Option<u64>,
}

/// What makes an event one: the transaction and the place in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventId {
    /// The transaction's digest, in Base58.
    pub tx_digest: String,
    /// The place among that transaction's events, from 0.
    pub event_seq: u64,
}

/// One event of the configured package.
#[derive(Debug, Clone, PartialEq)]
pub struct ChainEvent {
    /// What it is, ever.
    pub id: EventId,
    /// The Move module that emitted it.
    pub module: String,
    /// The struct's name: `WorkerRegisteredEvent` and its like.
    pub name: String,
    /// Who sent the transaction: `0x` and hex.
    pub sender: String,
    /// Its fields, as the chain writes Move values in JSON (u64 as text).
    pub fields: Value,
    /// When its checkpoint was made, in Unix milliseconds.
    pub timestamp_ms: u64,
    /// The checkpoint that it is in; `None` where the full node named none.
    pub checkpoint: Option<u64>,
}

/// How far the events were read: everything up to here has been given out. Means the same to
/// every full node and either of its faces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The last checkpoint that was read whole.
    pub checkpoint: Option<u64>,
    /// The last event that was given out.
    pub event: Option<EventId>,
}

/// Some events in the chain's order, and where to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct EventPage {
    /// Not yet given out at the cursor that was asked for.
    pub events: Vec<ChainEvent>,
    /// What to ask for next.
    pub next: Cursor,
    /// Whether more are there already.
    pub more: bool,
}

/// Why the chain did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// No full node answered, or they contradict each other: ask again later.
    #[error("the chain is out of reach: {0}")]
    OutOfReach(String),
    /// The full nodes don't know the cursor: they have pruned it, or it is of another chain.
    #[error("the chain's full nodes can't go on from {cursor:?}: {reason}")]
    LostCursor {
        /// As it was asked for.
        cursor: Box<Cursor>,
        /// What they say.
        reason: String,
    },
}

/// The events of the configured package's modules.
pub trait EventSource: Send + Sync + 'static {
    /// At most `limit` events of all followed modules after `after`, in the chain's order; without
    /// it from where the configuration says. An empty page means that there is none yet.
    fn page(
        &self,
        after: Option<Cursor>,
        limit: usize,
    ) -> BoxFuture<'_, Result<EventPage, ChainError>>;

    /// The events of one transaction, as the chain has them; `None`: it knows no such transaction.
    fn of_transaction(
        &self,
        tx_digest: &str,
    ) -> BoxFuture<'_, Result<Option<Vec<ChainEvent>>, ChainError>>;
}
