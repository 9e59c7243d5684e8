//! Events of several modules, each in the chain's order, as one list in the chain's order. Pure.
//!
//! The JSON-RPC face gives an event's time, which is its checkpoint's, but not its place. Times
//! never go back along the chain, so only transactions of one time must be looked up.
//!
//! Invariant: nothing is given out that might come after something not read yet.

use std::collections::{BTreeMap, BTreeSet};

use nautilus_workers::chain::ChainEvent;

/// Events of one module.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) events: Vec<ChainEvent>,
    /// Whether the module has more after them.
    pub(crate) more: bool,
}

/// Where a transaction stands: checkpoint, and place in it.
pub(crate) type Position = (u64, usize);
/// Time, place of the transaction, place in it.
type Key = (u64, Position, u64);
/// By digest.
pub(crate) type Positions = BTreeMap<String, Position>;

/// The transactions whose order their times don't tell.
pub(crate) fn tied(lists: &[Listed]) -> BTreeSet<String> {
    let mut by_time: BTreeMap<u64, (BTreeSet<&str>, BTreeSet<usize>)> = BTreeMap::new();
    for (list, listed) in lists.iter().enumerate() {
        for event in &listed.events {
            let (digests, in_lists) = by_time.entry(event.timestamp_ms).or_default();
            digests.insert(&event.id.tx_digest);
            in_lists.insert(list);
        }
    }
    by_time
        .into_values()
        .filter(|(digests, in_lists)| digests.len() > 1 && in_lists.len() > 1)
        .flat_map(|(digests, _)| digests.into_iter().map(str::to_owned))
        .collect()
}

/// One list, and whether there is more after it.
pub(crate) fn merge(lists: Vec<Listed>, positions: &Positions) -> (Vec<ChainEvent>, bool) {
    let mut more = false;
    let mut end = None;
    let mut all = Vec::new();
    for listed in lists {
        let mut last: Option<Key> = None;
        let mut last_digest = String::new();
        for event in listed.events {
            let (time, digest) = (event.timestamp_ms, &event.id.tx_digest);
            // Transactions of one time and one list keep their order there.
            let order = match last {
                Some((last, (_, order), _)) if last == time => {
                    order + usize::from(*digest != last_digest)
                }
                _ => 0,
            };
            let position = positions.get(digest).copied().unwrap_or((0, order));
            let key = (time, position, event.id.event_seq);
            last = Some(key);
            last_digest.clone_from(digest);
            all.push((key, event));
        }
        if listed.more {
            more = true;
            end = match (end, last) {
                (Some(end), Some(last)) => Some(std::cmp::min(end, last)),
                (end, last) => end.or(last),
            };
        }
    }
    all.sort_by_key(|(key, _)| *key);
    if let Some(end) = end {
        let read = all.len();
        all.retain(|(key, _)| *key <= end);
        more |= all.len() < read;
    }
    (all.into_iter().map(|(_, event)| event).collect(), more)
}

#[cfg(test)]
mod tests {
    use nautilus_workers::chain::EventId;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn event(tx: u64, seq: u64, time: u64, module: &str) -> ChainEvent {
        ChainEvent {
            id: EventId {
                tx_digest: format!("tx-{tx}"),
                event_seq: seq,
            },
            module: module.to_owned(),
            name: "E".to_owned(),
            sender: "0x1".to_owned(),
            fields: Value::Null,
            timestamp_ms: time,
            checkpoint: None,
        }
    }

    proptest! {
        /// Whatever is in which module and however short the pages, the chain's order comes out.
        #[test]
        fn pages_of_two_modules_are_the_chains_order(
            chain in proptest::collection::vec((0_u64..3, proptest::collection::vec(0_usize..2, 1..4)), 0..12),
            page in 1_usize..5,
        ) {
            let modules = ["a", "b"];
            let (mut time, mut events, mut positions) = (0, Vec::new(), Positions::new());
            for (tx, (step, emitted)) in chain.into_iter().enumerate() {
                time += step;
                positions.insert(format!("tx-{tx}"), (time, tx));
                for (seq, module) in emitted.into_iter().enumerate() {
                    events.push(event(tx as u64, seq as u64, time, modules[module]));
                }
            }
            let (mut given, mut done) = (Vec::new(), 0);
            loop {
                let lists: Vec<Listed> = modules.iter().map(|module| {
                    let mut rest = events[done..].iter().filter(|it| it.module == *module).cloned();
                    let events: Vec<_> = rest.by_ref().take(page).collect();
                    Listed { events, more: rest.next().is_some() }
                }).collect();
                let needed = tied(&lists);
                let known = positions.iter().filter(|(digest, _)| needed.contains(*digest));
                let known = known.map(|(digest, it)| (digest.clone(), *it)).collect();
                let (out, more) = merge(lists, &known);
                prop_assert!(!more || !out.is_empty(), "a page goes on or is the last");
                done += out.len();
                given.extend(out);
                if !more { break; }
            }
            prop_assert_eq!(given, events);
        }
    }
}
