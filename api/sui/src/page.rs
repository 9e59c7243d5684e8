//! Pages of events out of what full nodes know, and the cursor after each. Pure.
//!
//! Invariants
//! - Going on from a page's cursor gives what follows it: nothing is left out, nothing twice.
//! - A cursor means the same to every full node and either face: its `checkpoint` was read whole
//!   and its `event` is the last one given out, whichever is later.

use nautilus_workers::chain::{ChainEvent, Cursor, EventId, EventPage};

use crate::face::CheckpointState;

/// At most `limit` of the events of whole `checkpoints`, which begin where `after` says.
pub(crate) fn of_checkpoints(
    after: &Cursor,
    checkpoints: Vec<CheckpointState>,
    more: bool,
    limit: usize,
) -> EventPage {
    let mut page = EventPage {
        events: Vec::new(),
        next: after.clone(),
        more,
    };
    // Of the first checkpoint a part may have been given out.
    let mut given = after.event.clone();
    for checkpoint in checkpoints {
        let events: Vec<ChainEvent> = checkpoint
            .transactions
            .into_iter()
            .flat_map(|it| it.events)
            .collect();
        let skipped = given
            .take()
            .and_then(|last| events.iter().position(|it| it.id == last));
        for event in events.into_iter().skip(skipped.map_or(0, |last| last + 1)) {
            if page.events.len() >= limit {
                page.more = true;
                return page;
            }
            page.next.event = Some(event.id.clone());
            page.events.push(event);
        }
        page.next.checkpoint = Some(checkpoint.sequence);
    }
    page
}

/// At most `limit` of `events`, which begin after the event of `after`, or after the one that was
/// `passed` over.
pub(crate) fn of_events(
    after: &Cursor,
    events: Vec<ChainEvent>,
    more: bool,
    limit: usize,
    passed: Option<EventId>,
) -> EventPage {
    let mut next = after.clone();
    if passed.is_some() {
        next.event = passed;
    }
    let more = more || events.len() > limit;
    let events: Vec<ChainEvent> = events.into_iter().take(limit).collect();
    if let Some(last) = events.last() {
        // The face does not say which checkpoints it has read.
        next = Cursor {
            checkpoint: None,
            event: Some(last.id.clone()),
        };
    }
    EventPage { events, next, more }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;
    use sui_sdk_types::Digest;

    use super::*;
    use crate::face::TransactionState;

    fn checkpoint(sequence: u64, events_of_each: &[usize]) -> CheckpointState {
        let transactions = events_of_each
            .iter()
            .zip(0..)
            .map(|(count, tx)| TransactionState {
                digest: Digest::ZERO,
                checkpoint: Some(sequence),
                events: (0..*count as u64)
                    .map(|seq| event(sequence, tx, seq))
                    .collect(),
                proof: None,
            });
        CheckpointState {
            sequence,
            timestamp_ms: sequence,
            signed: None,
            contents: None,
            digests: Vec::new(),
            transactions: transactions.collect(),
        }
    }

    fn event(sequence: u64, tx: u64, seq: u64) -> ChainEvent {
        ChainEvent {
            id: EventId {
                tx_digest: format!("{sequence}-{tx}"),
                event_seq: seq,
            },
            module: "m".into(),
            name: "E".into(),
            sender: "0x1".into(),
            fields: Value::Null,
            timestamp_ms: sequence,
            checkpoint: Some(sequence),
        }
    }

    proptest! {
        /// However the chain lies in checkpoints and whichever face gives the next page, its
        /// events come out once and in order.
        #[test]
        fn every_event_comes_once(
            chain in proptest::collection::vec(proptest::collection::vec(0_usize..4, 0..3), 1..8),
            limit in 1_usize..5,
            at_once in 1_usize..4,
            faces in proptest::collection::vec(any::<bool>(), 1..6),
        ) {
            let checkpoints: Vec<CheckpointState> =
                chain.iter().zip(0..).map(|(it, sequence)| checkpoint(sequence, it)).collect();
            let all: Vec<ChainEvent> = checkpoints.iter()
                .flat_map(|it| it.transactions.iter().flat_map(|it| it.events.clone())).collect();
            let mut cursor = Cursor { checkpoint: Some(0), event: None };
            let expected: Vec<ChainEvent> =
                all.iter().filter(|it| it.checkpoint > Some(0)).cloned().collect();
            let mut given = Vec::new();
            for turn in 0..200 {
                let page = if faces[turn % faces.len()] {
                    let from = cursor.checkpoint.map_or_else(
                        || {
                            let event = cursor.event.as_ref().expect("one of both");
                            all.iter().find(|it| it.id == *event).and_then(|it| it.checkpoint)
                        },
                        |read| Some(read + 1),
                    ).expect("a checkpoint");
                    let rest: Vec<_> = checkpoints.iter().filter(|it| it.sequence >= from).cloned().collect();
                    let more = rest.len() > at_once;
                    of_checkpoints(&cursor, rest.into_iter().take(at_once).collect(), more, limit)
                } else {
                    let from = cursor.event.as_ref().and_then(|id| all.iter().position(|it| it.id == *id));
                    let rest = &all[from.map_or(0, |at| at + 1)..];
                    let more = rest.len() > at_once;
                    let (passed, events): (Vec<_>, Vec<_>) = rest
                        .iter()
                        .take(at_once)
                        .cloned()
                        .partition(|it| it.checkpoint <= cursor.checkpoint);
                    let passed = passed.last().map(|it| it.id.clone());
                    of_events(&cursor, events, more, limit, passed)
                };
                prop_assert!(page.events.len() <= limit);
                given.extend(page.events);
                cursor = page.next;
            }
            prop_assert_eq!(given, expected);
        }
    }
}
