//! The followed events among a transaction's. Pure.
//!
//! Invariant: an event counts by the package and module that define its type, which nobody else
//! can make one of; not by who emitted it.

use nautilus_workers::chain::{ChainEvent, EventId};
use serde_json::{Map, Value};
use sui_sdk_types::{Address, Digest, StructTag, TransactionEvents};

use crate::shape::Shape;

/// Where events stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) transaction: Digest,
    pub(crate) timestamp_ms: u64,
    pub(crate) checkpoint: Option<u64>,
}

/// The struct of a followed event; `None`: another's.
pub(crate) fn followed(package: Address, type_tag: &StructTag) -> Option<&'static Shape> {
    if *type_tag.address() != package || !type_tag.type_params().is_empty() {
        return None;
    }
    Shape::of_event(type_tag.module().as_str(), type_tag.name().as_str())
}

/// The followed events of a transaction, out of their BCS.
pub(crate) fn of_transaction(
    package: Address,
    events: &TransactionEvents,
    place: Place,
) -> Vec<ChainEvent> {
    let numbered = events.0.iter().zip(0..);
    numbered
        .filter_map(|(event, event_seq)| {
            let shape = followed(package, &event.type_)?;
            match shape.decode(&event.contents) {
                Ok(fields) => Some(one(shape, place, event_seq, event.sender, fields)),
                // The chain can't emit it: it stays out, and stops nothing.
                Err(error) => {
                    tracing::error!(transaction = %place.transaction, event_seq, %error, "an event");
                    None
                }
            }
        })
        .collect()
}

/// One event.
pub(crate) fn one(
    shape: &Shape,
    place: Place,
    event_seq: u64,
    sender: Address,
    fields: Map<String, Value>,
) -> ChainEvent {
    ChainEvent {
        id: EventId {
            tx_digest: place.transaction.to_base58(),
            event_seq,
        },
        module: shape.module.to_string(),
        name: shape.name.to_string(),
        sender: sender.to_string(),
        fields: Value::Object(fields),
        timestamp_ms: place.timestamp_ms,
        checkpoint: place.checkpoint,
    }
}
