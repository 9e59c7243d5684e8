//! Whatever is relayed, repeated, lost or led by whom: the effects are those of every event
//! applied once, in the chain's order.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::{ChainWorld, relayed};

#[derive(Debug, Clone)]
enum Happening {
    /// The chain goes on: node, what, and whether in a checkpoint of its own.
    Event {
        node: u8,
        what: u8,
        is_next: bool,
    },
    /// Somebody relays one of the events to a node.
    Relay {
        event: prop::sample::Index,
        to: u8,
    },
    /// Another leads; the former one may linger.
    Election {
        leader: u8,
        lingers: bool,
    },
    Pass {
        ms: u16,
    },
    /// A full node gives out again what it gave before.
    Repeats {
        events: u8,
    },
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (0..3_u8, 0..5_u8, any::<bool>())
            .prop_map(|(node, what, is_next)| Happening::Event { node, what, is_next }),
        4 => (any::<prop::sample::Index>(), 0..3_u8)
            .prop_map(|(event, to)| Happening::Relay { event, to }),
        1 => (0..3_u8, any::<bool>())
            .prop_map(|(leader, lingers)| Happening::Election { leader, lingers }),
        3 => (0..2000_u16).prop_map(|ms| Happening::Pass { ms }),
        1 => (0..20_u8).prop_map(|events| Happening::Repeats { events }),
    ]
}

fn emit(world: &ChainWorld, checkpoint: u64, node: u8, what: u8) {
    let node_id = format!("n{node}");
    match what {
        0 => world.chain.registered(checkpoint, &node_id, 10),
        1 => world.chain.deposited(checkpoint, &node_id, 1),
        2 => world.chain.status(checkpoint, &node_id, "slashed"),
        3 => world.chain.status(checkpoint, &node_id, "withdrawn"),
        _ => world.chain.status(checkpoint, &node_id, "active"),
    };
}

/// What the events have left behind.
fn effects(world: &ChainWorld) -> BTreeMap<String, Value> {
    let everything = world.world.everything().into_iter();
    let ours = everything.filter(|(key, _)| {
        key.starts_with("/nautilus/sui/nodes/") || key.starts_with("/nautilus/sui/owners/")
    });
    let mut effects: BTreeMap<String, Value> = ours
        .map(|(key, value)| (key, serde_json::from_str(&value).expect("JSON")))
        .collect();
    for node in ["n0", "n1", "n2"] {
        let row = world.world.row(node).expect("registered");
        let stake = serde_json::json!([row.stake, row.stake_amount]);
        effects.insert(format!("worker {node}"), stake);
    }
    effects
}

async fn fresh(nodes: usize) -> ChainWorld {
    let world = ChainWorld::new(nodes).await;
    for node in ["n0", "n1", "n2"] {
        world.world.register(node, "seal-1").await;
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_interleaving_comes_to_what_the_chains_order_comes_to(
        happenings in prop::collection::vec(happening(), 1..60),
        loses_every in 0..6_u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let (mut tried, plain) = (fresh(3).await, fresh(1).await);
            for node in &tried.nodes {
                // Each other proposal at most: or nothing would ever be known to be done.
                let every = if loses_every == 1 { 2 } else { loses_every };
                node.view.loses_every.store(every, Ordering::Relaxed);
            }
            for chain in [&tried.chain, &plain.chain] {
                chain.is_open.store(true, Ordering::Relaxed);
            }
            let mut checkpoint = 1;
            for happening in &happenings {
                match happening {
                    Happening::Event { node, what, is_next } => {
                        checkpoint += u64::from(*is_next);
                        emit(&tried, checkpoint, *node, *what);
                        emit(&plain, checkpoint, *node, *what);
                    }
                    Happening::Relay { event, to } => {
                        let events = tried.chain.events.lock().clone();
                        if !events.is_empty() {
                            tried.relay(usize::from(*to), &relayed(event.get(&events))).await;
                        }
                    }
                    Happening::Election { leader, lingers } => {
                        tried.elect(usize::from(*leader), *lingers);
                    }
                    Happening::Pass { ms } => {
                        tried.pass(Duration::from_millis(u64::from(*ms))).await;
                    }
                    Happening::Repeats { events } => {
                        tried.chain.repeats.store(usize::from(*events), Ordering::Relaxed);
                    }
                }
            }
            tried.elect(0, false);
            tried.pass(Duration::from_secs(90)).await;
            plain.pass(Duration::from_secs(20)).await;
            prop_assert_eq!(effects(&tried), effects(&plain));
            Ok(())
        })?;
    }
}
