//! Which events of the chain were applied: one replicated row, and the rules that make an
//! event count once, ever, on the whole quorum. Pure.
//!
//! Invariants
//! - The row changes by compare-and-swap, in the transaction of the effects it tells of:
//!   what it says was applied is applied, and nothing else is.
//! - An event at or behind the cursor is never fresh again.
//! - A relayed event is ahead of its turn only in a checkpoint of which nothing was read yet.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::limits::RECENT_LIMIT;
use crate::chain::{ChainEvent, Cursor, EventId, EventPage};

/// The row's key.
pub(crate) const LEDGER_KEY: &str = "/nautilus/sui/cursor";

/// How far the quorum has applied the chain's events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ledger {
    /// Where the chain is read on; `None` before the first page.
    pub(crate) cursor: Option<Cursor>,
    /// The last checkpoint that was read whole, by whichever face: it never goes back.
    passed: Option<u64>,
    /// The newest checkpoint of which something was read.
    reach: Reach,
    /// Applied, and of a checkpoint that is not read whole or not known: the newest last.
    recent: VecDeque<Seen>,
    /// API requests taken from events so far: the next one's place in their order.
    pub(crate) requests: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reach {
    /// An event was read whose checkpoint the full node did not name.
    Unknown,
    /// Nothing was read yet.
    #[default]
    Nothing,
    Checkpoint(u64),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    id: EventId,
    checkpoint: Option<u64>,
}

/// Where a relayed event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It was applied.
    Applied,
    /// Nothing of its checkpoint was read: it may act ahead of its turn.
    Ahead,
    /// Its turn is near, or can't be told: it waits for it.
    Waits,
}

impl Ledger {
    /// Whether the cursor has read the checkpoint whole.
    pub(crate) fn has_passed(&self, checkpoint: u64) -> bool {
        self.passed.is_some_and(|passed| checkpoint <= passed)
    }

    /// Takes a page in: which of its events are to be applied now, in their order.
    pub(crate) fn turn(&mut self, page: &EventPage) -> Vec<bool> {
        let fresh: Vec<bool> = page.events.iter().map(|event| self.take(event)).collect();
        self.passed = self.passed.max(page.next.checkpoint);
        let next = Cursor {
            // A full node that is behind another takes nothing back. One that names no checkpoint
            // goes on from its event: an older checkpoint would give out again what is between.
            checkpoint: page.next.checkpoint.and(self.passed),
            event: page.next.event.clone(),
        };
        if let (Reach::Checkpoint(_) | Reach::Nothing, Some(checkpoint)) =
            (self.reach, next.checkpoint)
        {
            self.reaches(checkpoint);
        }
        self.cursor = Some(next);
        let mut recent = std::mem::take(&mut self.recent);
        recent.retain(|seen| !seen.checkpoint.is_some_and(|at| self.has_passed(at)));
        let too_many = recent.len().saturating_sub(RECENT_LIMIT);
        recent.drain(..too_many);
        self.recent = recent;
        fresh
    }

    /// Whether a position is beyond everything that was applied.
    pub(crate) fn is_before(&self, other: &Cursor) -> bool {
        other.checkpoint > self.passed
    }

    /// Goes on at another position, beyond this one, by an operator's word.
    pub(crate) fn go_on_at(&mut self, other: Cursor) {
        self.passed = other.checkpoint;
        self.cursor = Some(other);
        self.reach = Reach::Nothing;
        self.recent.clear();
    }

    /// Where a relayed event, confirmed by the chain, stands.
    pub(crate) fn place(&self, event: &ChainEvent) -> Place {
        if self.has_applied(event) {
            return Place::Applied;
        }
        match (event.checkpoint, self.reach) {
            (Some(at), Reach::Checkpoint(reach)) if at > reach => Place::Ahead,
            _ => Place::Waits,
        }
    }

    fn take(&mut self, event: &ChainEvent) -> bool {
        if self.has_applied(event) {
            return false;
        }
        match event.checkpoint {
            Some(checkpoint) => self.reaches(checkpoint),
            None => self.reach = Reach::Unknown,
        }
        self.recent.push_back(Seen {
            id: event.id.clone(),
            checkpoint: event.checkpoint,
        });
        true
    }

    fn has_applied(&self, event: &ChainEvent) -> bool {
        event.checkpoint.is_some_and(|at| self.has_passed(at))
            || self.recent.iter().any(|seen| seen.id == event.id)
            || self
                .cursor
                .as_ref()
                .is_some_and(|cursor| cursor.event.as_ref() == Some(&event.id))
    }

    fn reaches(&mut self, checkpoint: u64) {
        self.reach = Reach::Checkpoint(match self.reach {
            Reach::Checkpoint(reach) => reach.max(checkpoint),
            Reach::Unknown | Reach::Nothing => checkpoint,
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn event(number: u64, checkpoint: Option<u64>) -> ChainEvent {
        ChainEvent {
            id: EventId {
                tx_digest: format!("tx{}", number / 3),
                event_seq: number % 3,
            },
            module: "worker_registry".into(),
            name: "StakeDepositedEvent".into(),
            sender: "0x1".into(),
            fields: json!({}),
            timestamp_ms: number,
            checkpoint,
        }
    }

    fn page(events: Vec<ChainEvent>, checkpoint: Option<u64>) -> EventPage {
        EventPage {
            next: Cursor {
                checkpoint,
                event: events.last().map(|event| event.id.clone()),
            },
            events,
            more: false,
        }
    }

    #[test]
    fn an_event_behind_the_cursor_is_applied_and_one_beyond_what_was_read_is_ahead() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.place(&event(0, Some(5))), Place::Waits);
        let events = vec![event(0, Some(5)), event(1, Some(6))];
        assert_eq!(ledger.turn(&page(events, Some(5))), [true, true]);
        assert_eq!(ledger.place(&event(0, Some(5))), Place::Applied);
        assert_eq!(ledger.place(&event(1, Some(6))), Place::Applied);
        // Of the same checkpoint, which is half read.
        assert_eq!(ledger.place(&event(2, Some(6))), Place::Waits);
        assert_eq!(ledger.place(&event(3, Some(7))), Place::Ahead);
        assert_eq!(ledger.place(&event(3, None)), Place::Waits);
    }

    #[test]
    fn while_a_checkpoint_is_unknown_nothing_is_ahead() {
        let mut ledger = Ledger::default();
        ledger.turn(&page(vec![event(0, Some(5))], Some(5)));
        ledger.turn(&page(vec![event(1, None)], Some(5)));
        assert_eq!(ledger.place(&event(9, Some(99))), Place::Waits);
        ledger.turn(&page(vec![event(2, Some(7))], Some(7)));
        assert_eq!(ledger.place(&event(9, Some(99))), Place::Ahead);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut ledger = Ledger::default();
        let many = (0..2 * RECENT_LIMIT as u64).map(|number| event(number, Some(1)));
        ledger.turn(&page(many.collect(), None));
        assert_eq!(ledger.recent.len(), RECENT_LIMIT);
        ledger.turn(&page(Vec::new(), Some(1)));
        assert!(ledger.recent.is_empty(), "the cursor has passed them");
    }

    /// Where a full node goes on from a cursor: the face that knows checkpoints reads whole ones
    /// and looks for the event in the first; the one that knows events passes over what stands in
    /// checkpoints that were read.
    fn resumed(chain: &[ChainEvent], cursor: Option<&Cursor>, by_events: bool) -> usize {
        let Some(cursor) = cursor else { return 0 };
        let given = cursor.event.as_ref().and_then(|event| {
            let found = chain.iter().position(|it| it.id == *event);
            found.map(|at| at + 1)
        });
        let read = chain.partition_point(|event| event.checkpoint <= cursor.checkpoint);
        match (by_events, cursor.checkpoint, given) {
            (true, _, given) => read.max(given.unwrap_or(0)),
            (false, None, given) => given.unwrap_or(0),
            (false, Some(_), Some(given))
                if given > read && chain[given - 1].checkpoint == chain[read].checkpoint =>
            {
                given
            }
            (false, Some(_), _) => read,
        }
    }

    /// A page of a chain of events, by checkpoint, as a full node gives it.
    fn paged(chain: &[ChainEvent], after: usize, limit: usize, by_events: bool) -> EventPage {
        let end = chain.len().min(after + limit);
        let mut events = chain[after..end].to_vec();
        let last = chain[..end].last();
        let mut next = Cursor {
            // The last event's checkpoint counts as whole only if the next one is of another.
            checkpoint: last.and_then(|last| match chain.get(end) {
                Some(next) if next.checkpoint == last.checkpoint => {
                    last.checkpoint.and_then(|at| at.checked_sub(1))
                }
                _ => last.checkpoint,
            }),
            event: last.map(|event| event.id.clone()),
        };
        if by_events {
            next.checkpoint = None;
            events.iter_mut().for_each(|event| event.checkpoint = None);
        }
        EventPage {
            events,
            next,
            more: end < chain.len(),
        }
    }

    #[test]
    fn a_face_that_is_lost_and_found_again_gives_nothing_twice() {
        let count = 4 * RECENT_LIMIT as u64;
        let chain: Vec<ChainEvent> = (0..count).map(|at| event(at, Some(at + 1))).collect();
        let (mut ledger, mut fresh) = (Ledger::default(), 0);
        let mut read = |by_events: bool, limit: usize| {
            let after = resumed(&chain, ledger.cursor.as_ref(), by_events);
            let page = paged(&chain, after, limit, by_events);
            let taken = ledger.turn(&page);
            fresh += taken.iter().filter(|fresh| **fresh).count();
        };
        read(false, 5);
        read(true, 3 * RECENT_LIMIT);
        read(false, chain.len());
        assert_eq!(fresh, chain.len());
    }

    proptest! {
        #[test]
        fn whatever_is_repeated_every_event_is_fresh_once_and_in_order(
            sizes in prop::collection::vec(1..6_u64, 1..20),
            steps in prop::collection::vec((1..8_usize, 0..3_usize, any::<bool>()), 1..60),
        ) {
            let mut chain = Vec::new();
            for (checkpoint, size) in sizes.iter().enumerate() {
                for _ in 0..*size {
                    chain.push(event(chain.len() as u64, Some(checkpoint as u64 + 1)));
                }
            }
            let mut ledger = Ledger::default();
            let mut applied = Vec::new();
            for (limit, back, by_events) in steps.into_iter().chain([(chain.len(), 0, false)]) {
                let after = resumed(&chain, ledger.cursor.as_ref(), by_events);
                // Some of what was given out already comes again, of whole checkpoints.
                let back = if by_events { 0 } else { back };
                let page = paged(&chain, after.saturating_sub(back), limit + back, by_events);
                let fresh = ledger.turn(&page);
                let events = page.events.iter().zip(fresh);
                applied.extend(events.filter(|(_, fresh)| *fresh).map(|(event, _)| event.id.clone()));
                // A new leader reads the row.
                let row = serde_json::to_vec(&ledger).expect("JSON");
                ledger = serde_json::from_slice(&row).expect("the same");
                for event in &chain[..applied.len()] {
                    prop_assert_ne!(ledger.place(event), Place::Ahead);
                }
            }
            let ids: Vec<EventId> = chain.into_iter().map(|event| event.id).collect();
            prop_assert_eq!(applied, ids);
        }
    }
}
