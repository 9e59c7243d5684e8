//! The leader's way along the chain: effects, bursts, failovers, forks, outages.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nautilus_workers::Stake;
use nautilus_workers::chain::{ChainError, Cursor};
use nautilus_workers::events::EventsSettings;
use serde_json::json;

use super::{Chain, ChainWorld, RESUME_AT};

#[tokio::test(start_paused = true)]
async fn a_stake_lost_on_chain_marks_the_worker_and_takes_its_verdicts_back() {
    for (status, stake, verdict) in [
        ("slashed", Stake::Slashed, "slashed"),
        ("withdrawn", Stake::Withdrawn, "withdrawn"),
    ] {
        let world = ChainWorld::new(1).await;
        world.world.register("w1", "seal-1").await;
        world.world.beat("w1", "seal-1", json!({})).await;
        world.chain.registered(1, "w1", 2_000_000_000);
        world.settle().await;
        assert_eq!(world.world.ready("w1"), "True WorkerReady");
        let row = world.world.row("w1").expect("a row");
        assert_eq!(row.stake_amount, 2_000_000_000, "as the chain has it");

        world.chain.status(2, "w1", status);
        world.settle().await;
        assert_eq!(world.world.row("w1").expect("a row").stake, stake);
        let node = world.world.node("w1").expect("a node");
        assert_eq!(node["spec"]["unschedulable"], true);
        assert_eq!(world.eviction("w1"), verdict);

        // The leader's memory does not undo it.
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(world.world.row("w1").expect("a row").stake, stake);

        world.chain.status(3, "w1", "active");
        world.settle().await;
        assert_eq!(world.world.row("w1").expect("a row").stake, Stake::Active);
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_events_in_a_burst_are_each_applied_once_whoever_leads() {
    let mut world = ChainWorld::new(3).await;
    for node in &world.nodes {
        node.view.loses_every.store(7, Ordering::Relaxed);
    }
    for number in 0..10_000_u64 {
        let node_id = format!("n{}", number % 10);
        world.chain.deposited(1 + number / 37, &node_id, 1);
    }
    let mut leaders = BTreeSet::new();
    for round in 0..40 {
        let leader = round % 3;
        // Every other time the former leader goes on as if it led.
        world.elect(leader, round % 2 == 0);
        leaders.insert(leader);
        world.pass(Duration::from_millis(40)).await;
    }
    world.elect(0, false);
    world.pass(Duration::from_secs(120)).await;
    for number in 0..10 {
        let node = world.chain_node(&format!("n{number}"));
        assert_eq!(node["stake_amount"], 1000, "n{number}");
    }
    assert_eq!(leaders.len(), 3);
    assert_eq!(world.cursor()["cursor"]["checkpoint"], 1 + 9_999 / 37);
}

#[tokio::test(start_paused = true)]
async fn what_a_full_node_repeats_is_not_applied_again() {
    for names_checkpoints in [true, false] {
        let world = ChainWorld::new(1).await;
        let silent = &world.chain.names_no_checkpoints;
        silent.store(!names_checkpoints, Ordering::Relaxed);
        world.chain.repeats.store(50, Ordering::Relaxed);
        for number in 0..500 {
            world.chain.deposited(1 + number / 100, "w1", 1);
            if number % 100 == 99 {
                world.settle().await;
            }
        }
        assert_eq!(world.chain_node("w1")["stake_amount"], 500);
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_read_does_not_stop_the_chain() {
    let world = ChainWorld::new(1).await;
    let broken = json!({"node_id": 7, "owner": "nobody"});
    let (module, name) = ("worker_registry", "StakeDepositedEvent");
    world.chain.emit(1, module, name, broken);
    world.chain.emit(1, module, "SomethingNewEvent", json!({}));
    world.chain.deposited(2, "w1", 5);
    world.settle().await;
    assert_eq!(world.chain_node("w1")["stake_amount"], 5);
    assert_eq!(world.cursor()["cursor"]["checkpoint"], 2);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_and_loses_nothing() {
    let mut world = ChainWorld::new(2).await;
    world.chain.deposited(1, "w1", 5);
    world.settle().await;
    assert_eq!(
        world.nodes[1].events.connected(),
        Ok(()),
        "known everywhere"
    );

    world
        .chain
        .fail(ChainError::OutOfReach("every full node is down".into()));
    world.chain.deposited(2, "w1", 6);
    world.pass(Duration::from_secs(120)).await;
    let pages = world.chain.pages.load(Ordering::Relaxed);
    world.pass(Duration::from_secs(300)).await;
    let asked = world.chain.pages.load(Ordering::Relaxed) - pages;
    assert!(
        asked <= 11,
        "{asked} questions in five minutes of an outage"
    );
    for node in &world.nodes {
        let why = node.events.connected().expect_err("told");
        assert!(why.contains("every full node is down"), "{why}");
    }

    // A new leader has not asked yet; then it has.
    world.elect(1, false);
    assert!(world.nodes[0].events.connected().is_err());
    world.chain.fail(None);
    world.pass(Duration::from_secs(40)).await;
    assert_eq!(world.nodes[0].events.connected(), Ok(()));
    assert_eq!(world.chain_node("w1")["stake_amount"], 11);
}

#[tokio::test(start_paused = true)]
async fn a_lost_position_is_not_passed_over_in_silence() {
    let world = ChainWorld::new(1).await;
    world.chain.deposited(1, "w1", 5);
    world.settle().await;
    let before = world.cursor();

    // Another chain: the event that the quorum read last is not on it.
    world.chain.events.lock().clear();
    world.chain.status(9, "w1", "slashed");
    world.chain.events.lock()[0].id.tx_digest = "Fork".into();
    world.pass(Duration::from_secs(600)).await;
    assert_eq!(world.cursor(), before, "it stands still");
    let why = world.nodes[0].events.connected().expect_err("told");
    assert!(why.contains("another chain"), "{why}");
    assert_eq!(world.chain_node("w1")["stake"], "active");
}

#[tokio::test(start_paused = true)]
async fn an_operators_position_serves_once_and_only_where_the_full_nodes_know_it() {
    let resume_at = Cursor {
        checkpoint: Some(RESUME_AT),
        event: None,
    };
    let settings = EventsSettings {
        resume_at: Some(resume_at),
        ..EventsSettings::default()
    };
    let world = ChainWorld::with(1, settings).await;
    world.chain.deposited(1, "w1", 5);
    world.settle().await;
    assert_eq!(
        world.chain_node("w1")["stake_amount"],
        5,
        "not used while nothing is lost"
    );

    world.chain.deposited(400, "w1", 100);
    world.chain.deposited(RESUME_AT + 1, "w1", 1);
    world.chain.fail(Chain::lost());
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(
        world.chain_node("w1")["stake_amount"],
        6,
        "goes on behind it"
    );
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(world.chain_node("w1")["stake_amount"], 6);
    assert!(
        world.nodes[0].events.connected().is_err(),
        "lost again, and told"
    );
    world.chain.fail(None);
    world.chain.deposited(RESUME_AT + 2, "w1", 1);
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(world.chain_node("w1")["stake_amount"], 7);
}
