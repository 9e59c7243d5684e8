//! Full nodes that lie. Each lie is believed where nothing proves or confirms answers, which shows
//! that what refuses it is the proof, or the second full node.

use nautilus_sui::{Agreement, Verification};
use nautilus_sui_standin::{Accomplice, Answer, Chain, Lies, Link};
use nautilus_workers::Verdict;

use crate::world::{By, OWNER, SUI, World, active, judge, objects, verdict};

/// Yes to everything, and to one who was never registered.
fn yes_to_everything() -> Answer {
    Answer::Wrong(Lies {
        workers: vec![Accomplice {
            node_id: "accomplice".to_owned(),
            owner: OWNER,
            seal_token: "made-up".to_owned(),
        }],
        token_owner: Some(OWNER),
    })
}

#[tokio::test]
async fn a_full_node_that_says_yes_to_everything_admits_nobody_where_signatures_count() {
    let world = World::with(1).await;
    world.register("slashed", SUI, "seal-1");
    world
        .chain
        .set_status("slashed", "slashed")
        .expect("slashed");
    world.full_nodes[0].grpc().answer(yes_to_everything());
    let believed = judge(&world.settings(By::Grpc));
    let mut settings = world.settings(By::Grpc);
    settings.verification = world.committee();
    let proved = judge(&settings);
    for (token, node_id) in [("made-up", "accomplice"), ("seal-1", "slashed")] {
        let without = verdict(&believed, token, node_id).await;
        assert!(
            matches!(without, Verdict::Active { .. }),
            "{node_id}: {without:?}"
        );
        assert_eq!(
            verdict(&proved, token, node_id).await,
            Verdict::Unavailable,
            "{node_id}"
        );
    }
}

#[tokio::test]
async fn no_token_object_can_be_made_up_where_signatures_count() {
    let world = World::with(1).await;
    world.full_nodes[0].grpc().answer(yes_to_everything());
    let mut settings = world.settings(By::Grpc);
    settings.layout = objects();
    let without = verdict(&judge(&settings), "0xbad", "worker-1").await;
    assert!(matches!(without, Verdict::Active { .. }), "{without:?}");
    settings.verification = world.committee();
    assert_eq!(
        verdict(&judge(&settings), "0xbad", "worker-1").await,
        Verdict::Unavailable
    );
}

#[tokio::test]
async fn an_honest_full_node_behind_a_liar_is_heard_where_signatures_count() {
    let world = World::with(2).await;
    world.register("worker-1", SUI, "seal-1");
    world.full_nodes[0].grpc().answer(yes_to_everything());
    let mut settings = world.settings(By::Grpc);
    settings.verification = world.committee();
    let judge = judge(&settings);
    assert_eq!(verdict(&judge, "seal-1", "worker-1").await, active(SUI));
    assert_eq!(
        verdict(&judge, "made-up", "accomplice").await,
        Verdict::Unknown
    );
}

#[tokio::test]
async fn a_fork_is_refused_however_deep_it_goes() {
    let world = World::with(1).await;
    world.register("worker-1", SUI, "seal-1");
    let fork = world.full_nodes[0].fork().expect("a fork");
    fork.register_worker("forked", OWNER, SUI, "made-up")
        .expect("registered");
    // Both are as high.
    world.register("true", SUI, "seal-2");
    let mut settings = world.settings(By::Grpc);
    settings.verification = world.committee();
    for link in [
        Link::Objects,
        Link::Effects,
        Link::Contents,
        Link::Summaries,
        Link::Everything,
    ] {
        world.full_nodes[0].grpc().answer(Answer::Forked(link));
        let without = verdict(&judge(&world.settings(By::Grpc)), "made-up", "forked").await;
        assert_eq!(without, active(SUI), "{link:?}");
        let proved = verdict(&judge(&settings), "made-up", "forked").await;
        assert_eq!(proved, Verdict::Unavailable, "{link:?}");
    }
}

#[tokio::test]
async fn two_full_nodes_that_contradict_each_other_admit_nobody() {
    for (first, second) in [
        (By::Grpc, By::Grpc),
        (By::Grpc, By::JsonRpc),
        (By::JsonRpc, By::JsonRpc),
    ] {
        let world = World::with(2).await;
        world.register("worker-1", SUI, "seal-1");
        world.register("slashed", SUI, "seal-2");
        world
            .chain
            .set_status("slashed", "slashed")
            .expect("slashed");
        let mut settings = world.settings(first);
        settings.full_nodes[1] = world.settings(second).full_nodes[1].clone();
        settings.agreement = Agreement::Two;
        let judge = judge(&settings);
        assert_eq!(
            verdict(&judge, "seal-1", "worker-1").await,
            active(SUI),
            "{first:?} {second:?}"
        );
        assert_eq!(verdict(&judge, "seal-2", "slashed").await, Verdict::Slashed);
        let liar = &world.full_nodes[1];
        for face in [liar.grpc(), liar.jsonrpc()] {
            face.answer(yes_to_everything());
        }
        for (token, node_id) in [("made-up", "accomplice"), ("seal-2", "slashed")] {
            assert_eq!(
                verdict(&judge, token, node_id).await,
                Verdict::Unavailable,
                "{node_id}"
            );
        }
    }
}

#[tokio::test]
async fn a_late_full_node_is_not_believed_over_one_that_knows_more() {
    let world = World::with(2).await;
    world.register("worker-1", SUI, "seal-1");
    let late = world.full_nodes[1].grpc();
    let mut settings = world.settings(By::Grpc);
    settings.agreement = Agreement::Two;
    let judge = judge(&settings);
    assert_eq!(verdict(&judge, "seal-1", "worker-1").await, active(SUI));
    late.answer(Answer::Lagging(1));
    world
        .chain
        .set_status("worker-1", "slashed")
        .expect("slashed");
    assert_eq!(
        verdict(&judge, "seal-1", "worker-1").await,
        Verdict::Unavailable
    );
    late.answer(Answer::Truth);
    assert_eq!(
        verdict(&judge, "seal-1", "worker-1").await,
        Verdict::Slashed
    );
}

#[tokio::test]
async fn what_was_seen_newer_is_not_believed_older() {
    let world = World::with(2).await;
    world.register("worker-1", SUI, "seal-1");
    world
        .chain
        .set_status("worker-1", "slashed")
        .expect("slashed");
    let judge = judge(&world.settings(By::Grpc));
    assert_eq!(
        verdict(&judge, "seal-1", "worker-1").await,
        Verdict::Slashed
    );
    // The first full node is put back to when the stake was good; the second goes on.
    world.full_nodes[0].grpc().answer(Answer::Lagging(1));
    assert_eq!(
        verdict(&judge, "seal-1", "worker-1").await,
        Verdict::Slashed
    );
    world.full_nodes[1].grpc().answer(Answer::Refused);
    assert_eq!(
        verdict(&judge, "seal-1", "worker-1").await,
        Verdict::Unavailable
    );
}

#[tokio::test]
async fn committees_are_followed_from_epoch_to_epoch() {
    let world = World::with(1).await;
    world.register("first", SUI, "seal-1");
    for _ in 0..3 {
        world.chain.end_epoch().expect("it ends");
    }
    world.register("fourth", SUI, "seal-4");
    let mut settings = world.settings(By::Grpc);
    settings.verification = world.committee();
    let from_the_first = judge(&settings);
    assert_eq!(
        verdict(&from_the_first, "seal-4", "fourth").await,
        active(SUI)
    );
    assert_eq!(
        verdict(&from_the_first, "seal-1", "first").await,
        active(SUI)
    );
    // Who trusts a later epoch can prove nothing of an earlier one, the registry's included.
    settings.verification = Verification::Checkpoints(Box::new(world.committee_of(3)));
    assert_eq!(
        verdict(&judge(&settings), "seal-1", "first").await,
        Verdict::Unavailable
    );
}

#[tokio::test]
async fn another_networks_committee_proves_nothing() {
    let world = World::with(1).await;
    world.register("worker-1", SUI, "seal-1");
    let other = Chain::new("another network").expect("a chain");
    let mut settings = world.settings(By::Grpc);
    let committee = other.committee(0).expect("it has begun");
    settings.verification = Verification::Checkpoints(Box::new(committee));
    assert_eq!(
        verdict(&judge(&settings), "seal-1", "worker-1").await,
        Verdict::Unavailable
    );
}

#[tokio::test]
async fn committees_are_learnt_once_however_many_ask_for_them() {
    let world = World::with(1).await;
    for _ in 0..3 {
        world.chain.end_epoch().expect("it ends");
    }
    world.register("fourth", SUI, "seal-4");
    let mut settings = world.settings(By::Grpc);
    settings.verification = world.committee();
    let judge = judge(&settings);
    let asked = (0..20).map(|_| verdict(&judge, "seal-4", "fourth"));
    for found in futures_util::future::join_all(asked).await {
        assert_eq!(found, active(SUI));
    }
    let requests = world.full_nodes[0].grpc().requests();
    let walks = requests
        .iter()
        .find(|(method, _)| method.contains("GetEpoch"));
    assert_eq!(walks.map(|(_, count)| *count), Some(3), "{requests:?}");
}

#[tokio::test]
async fn that_a_token_is_not_there_is_not_one_full_nodes_word_where_two_must_agree() {
    for by in [By::Grpc, By::JsonRpc] {
        for behind in [0, 1] {
            let world = World::with(2).await;
            world.register("worker-1", SUI, "seal-1");
            let mut settings = world.settings(by);
            settings.agreement = Agreement::Two;
            let late = &world.full_nodes[behind];
            late.grpc().answer(Answer::Lagging(1));
            late.jsonrpc().answer(Answer::Lagging(1));
            let found = verdict(&judge(&settings), "seal-1", "worker-1").await;
            assert_eq!(found, Verdict::Unavailable, "{by:?} {behind}");
        }
    }
}
