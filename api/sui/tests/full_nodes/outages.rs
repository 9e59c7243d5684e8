//! Full nodes that are dead, slow, overloaded or talk nonsense.

use std::time::Duration;

use nautilus_sui_standin::Answer;
use nautilus_workers::Verdict;
use tokio::time::Instant;

use crate::world::{By, SUI, World, active, chain, judge, judge_of, verdict};

#[tokio::test]
async fn the_second_full_node_answers_for_a_first_that_does_not() {
    for by in [By::Grpc, By::JsonRpc] {
        let world = World::with(2).await;
        world.register("worker-1", SUI, "seal-1");
        let first = &world.full_nodes[0];
        for answer in [
            Answer::Refused,
            Answer::Unavailable,
            Answer::RateLimited,
            Answer::Garbage,
        ] {
            first.grpc().answer(answer.clone());
            first.jsonrpc().answer(answer.clone());
            let judge = judge(&world.settings(by));
            assert_eq!(
                verdict(&judge, "seal-1", "worker-1").await,
                active(SUI),
                "{by:?} {answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_slow_full_node_is_not_waited_for() {
    for by in [By::Grpc, By::JsonRpc] {
        let world = World::with(2).await;
        world.register("worker-1", SUI, "seal-1");
        let mut settings = world.settings(by);
        // Longer than any answer is waited for: the second alone can give it.
        settings.request_timeout = Duration::from_secs(30);
        world.full_nodes[0].grpc().slow_ms(30_000);
        world.full_nodes[0].jsonrpc().slow_ms(30_000);
        assert_eq!(
            verdict(&judge(&settings), "seal-1", "worker-1").await,
            active(SUI),
            "{by:?}"
        );
    }
}

#[tokio::test]
async fn nobody_is_judged_while_no_full_node_answers() {
    let world = World::with(2).await;
    world.register("worker-1", SUI, "seal-1");
    let settings = world.settings(By::Grpc);
    let chain = chain(&settings);
    let judge = judge_of(&chain, &settings);
    assert!(!chain.is_reachable(), "nobody was asked yet");
    for full_node in &world.full_nodes {
        full_node.grpc().answer(Answer::Unavailable);
    }
    assert_eq!(
        verdict(&judge, "seal-1", "worker-1").await,
        Verdict::Unavailable
    );
    assert!(!chain.is_reachable());
    world.full_nodes[1].grpc().answer(Answer::Truth);
    while verdict(&judge, "seal-1", "worker-1").await != active(SUI) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(chain.is_reachable());
}

#[tokio::test]
async fn a_full_node_that_fails_is_left_alone() {
    let world = World::with(2).await;
    world.register("worker-1", SUI, "seal-1");
    let first = world.full_nodes[0].grpc();
    first.answer(Answer::RateLimited);
    let judge = judge(&world.settings(By::Grpc));
    for _ in 0..50 {
        assert_eq!(verdict(&judge, "seal-1", "worker-1").await, active(SUI));
    }
    let asked = first.total_requests();
    assert!(asked < 50, "it was asked {asked} times");
}

#[tokio::test]
async fn a_flood_of_questions_does_not_reach_the_chain() {
    const RATE: u32 = 10;
    let world = World::with(1).await;
    let mut settings = world.settings(By::Grpc);
    settings.requests_per_second = RATE;
    let judge = judge(&settings);
    let started = Instant::now();
    let flood = (0..200).map(|n| {
        let judge = &judge;
        async move { verdict(judge, "made-up", &format!("worker-{n}")).await }
    });
    let verdicts = futures_util::future::join_all(flood).await;
    assert!(
        verdicts
            .iter()
            .all(|it| matches!(it, Verdict::Unknown | Verdict::Unavailable))
    );
    let asked = world.full_nodes[0].grpc().total_requests();
    let allowed = f64::from(RATE) * (1.0 + started.elapsed().as_secs_f64());
    assert!(
        asked as f64 <= allowed,
        "{asked} requests, {allowed} allowed"
    );
}
