//! Events by both faces, from one cursor.

use nautilus_sui::{Agreement, ChainEvents};
use nautilus_sui_standin::{Answer, ApiRequest, Link, Operation};
use nautilus_workers::chain::{ChainError, ChainEvent, Cursor, EventId, EventSource as _};

use crate::world::{By, OWNER, SUI, World, events};

/// What happens on the chain of these tests: several modules in one checkpoint, checkpoints without
/// events, and others' events.
fn happen(world: &World) {
    for n in 0..5 {
        let request = ApiRequest {
            request_id: format!("request-{n}"),
            method: "GET".into(),
            resource: "pods".into(),
            namespace: "default".into(),
            name: String::new(),
            payload: String::new(),
            seal_token: "seal".into(),
            requester: OWNER,
            priority: 3,
            assigned_worker: String::new(),
        };
        let registered = Operation::RegisterWorker {
            node_id: format!("worker-{n}"),
            owner: OWNER,
            stake: SUI,
            seal_token: "seal".into(),
        };
        let heartbeat = Operation::Heartbeat {
            node_id: format!("worker-{n}"),
        };
        let operations = [
            registered,
            Operation::ScheduleApiRequest(request.clone()),
            heartbeat,
        ];
        world.chain.apply_all(&operations).expect("applied");
        let beat = operations[2].clone();
        world.chain.apply(beat).expect("applied");
        world
            .chain
            .set_status(&format!("worker-{n}"), "slashed")
            .expect("applied");
        world
            .chain
            .schedule_api_request(ApiRequest {
                request_id: format!("later-{n}"),
                ..request
            })
            .expect("applied");
    }
}

/// Everything until there is no more.
async fn all(
    source: &ChainEvents,
    mut cursor: Option<Cursor>,
    limit: usize,
) -> (Vec<ChainEvent>, Cursor) {
    let mut events = Vec::new();
    loop {
        let page = source.page(cursor, limit).await.expect("a page");
        assert!(page.events.len() <= limit);
        events.extend(page.events);
        if !page.more {
            return (events, page.next);
        }
        cursor = Some(page.next);
    }
}

fn names(events: &[ChainEvent]) -> Vec<(String, String, String)> {
    let names = events.iter();
    names
        .map(|it| {
            (
                it.id.tx_digest.clone(),
                it.name.clone(),
                it.fields.to_string(),
            )
        })
        .collect()
}

#[tokio::test]
async fn both_faces_tell_the_same_events_in_the_same_order() {
    let world = World::with(1).await;
    happen(&world);
    let mut told = Vec::new();
    for (by, limit, is_proved) in [
        (By::Grpc, 1000, false),
        (By::Grpc, 3, true),
        (By::JsonRpc, 1000, false),
        (By::JsonRpc, 3, false),
    ] {
        let mut settings = world.settings(by);
        settings.events_from = Some(0);
        if is_proved {
            settings.verification = world.committee();
        }
        let (events, _) = all(&events(&settings), None, limit).await;
        // Registered, deposited, scheduled, slashed, scheduled.
        assert_eq!(events.len(), 25, "{by:?} {limit}");
        told.push(names(&events));
    }
    assert!(told.windows(2).all(|two| two[0] == two[1]), "{told:#?}");
}

#[tokio::test]
async fn a_cursor_goes_from_one_face_to_the_other() {
    let world = World::with(1).await;
    let settings = |by| {
        let mut settings = world.settings(by);
        settings.events_from = Some(0);
        settings
    };
    let (grpc, json_rpc) = (events(&settings(By::Grpc)), events(&settings(By::JsonRpc)));
    happen(&world);
    let (whole, _) = all(&grpc, None, 1000).await;
    for limit in 1..6 {
        let (mut told, mut cursor) = (Vec::new(), None);
        loop {
            let mut is_over = true;
            for source in [&grpc, &json_rpc] {
                let page = source.page(cursor, limit).await.expect("a page");
                told.extend(page.events);
                cursor = Some(page.next);
                is_over &= !page.more;
            }
            if is_over {
                break;
            }
        }
        assert_eq!(names(&told), names(&whole), "{limit} at once");
    }
}

#[tokio::test]
async fn without_a_beginning_only_what_happens_from_now_on_is_told() {
    for by in [By::Grpc, By::JsonRpc] {
        let world = World::with(1).await;
        world.register("before", SUI, "seal-1");
        let source = events(&world.settings(by));
        let (nothing, cursor) = all(&source, None, 10).await;
        assert_eq!(nothing, []);
        let (nothing, cursor) = all(&source, Some(cursor), 10).await;
        assert_eq!(nothing, []);
        world.register("after", SUI, "seal-2");
        let (told, cursor) = all(&source, Some(cursor), 10).await;
        assert_eq!(told.len(), 2, "{by:?}");
        assert!(told.iter().all(|it| it.fields["node_id"] == "after"));
        assert_eq!(all(&source, Some(cursor), 10).await.0, []);
    }
}

#[tokio::test]
async fn a_transactions_events_are_those_of_the_package() {
    let world = World::with(2).await;
    let receipt = world
        .chain
        .register_worker("worker-1", OWNER, SUI, "seal-1")
        .expect("registered");
    for (by, agreement) in [
        (By::Grpc, Agreement::One),
        (By::JsonRpc, Agreement::One),
        (By::Grpc, Agreement::Two),
        (By::JsonRpc, Agreement::Two),
    ] {
        let mut settings = world.settings(by);
        settings.agreement = agreement;
        let source = events(&settings);
        let told = source.of_transaction(&receipt.tx_digest.to_base58()).await;
        let told = told.expect("reachable").expect("it is there");
        let first = &told[0];
        assert_eq!(told.len(), 2);
        assert_eq!(first.name, "WorkerRegisteredEvent");
        assert_eq!(
            (first.module.as_str(), first.id.event_seq),
            ("worker_registry", 0)
        );
        assert_eq!(first.fields["stake_amount"], SUI.to_string());
        assert_eq!(first.sender, OWNER.to_string());
        assert_eq!(first.checkpoint, Some(receipt.checkpoint));
        let nowhere = source.of_transaction(&sui_sdk_types::Digest::new([7; 32]).to_base58());
        assert_eq!(nowhere.await, Ok(None), "{by:?}");
        assert_eq!(source.of_transaction("no digest").await, Ok(None));
    }
}

#[tokio::test]
async fn a_forged_event_is_not_told() {
    let world = World::with(2).await;
    world.register("worker-1", SUI, "seal-1");
    let fork = world.full_nodes[0].fork().expect("a fork");
    let receipt = fork.set_status("worker-1", "slashed").expect("on the fork");
    let digest = receipt.tx_digest.to_base58();
    // Both are as high.
    world.register("worker-2", SUI, "seal-2");
    for link in [
        Link::Effects,
        Link::Contents,
        Link::Summaries,
        Link::Everything,
    ] {
        let mut settings = world.settings(By::Grpc);
        settings.full_nodes.truncate(1);
        settings.events_from = Some(0);
        world.full_nodes[0].grpc().answer(Answer::Forked(link));
        let believed = events(&settings).of_transaction(&digest).await;
        assert!(believed.is_ok_and(|it| it.is_some()), "{link:?}");
        settings.verification = world.committee();
        let proved = events(&settings).of_transaction(&digest).await;
        assert!(
            matches!(proved, Err(ChainError::OutOfReach(_))),
            "{link:?}: {proved:?}"
        );
        let genesis = Cursor {
            checkpoint: Some(0),
            event: None,
        };
        let followed = events(&settings).page(Some(genesis), 100).await;
        let told = followed.map(|it| it.events).unwrap_or_default();
        let slashed = told.iter().any(|it| it.name == "WorkerStatusChangedEvent");
        assert!(!slashed, "{link:?}: {told:?}");
    }
    // Nor where the second full node does not confirm it.
    world.full_nodes[0]
        .grpc()
        .answer(Answer::Forked(Link::Everything));
    let mut settings = world.settings(By::Grpc);
    settings.agreement = Agreement::Two;
    let confirmed = events(&settings).of_transaction(&digest).await;
    assert!(
        matches!(confirmed, Err(ChainError::OutOfReach(_))),
        "{confirmed:?}"
    );
}

#[tokio::test]
async fn a_cursor_that_no_full_node_knows_is_lost_and_one_that_few_can_tell_is_not() {
    for by in [By::Grpc, By::JsonRpc] {
        let world = World::with(2).await;
        world.register("worker-1", SUI, "seal-1");
        let source = events(&world.settings(by));
        let elsewhere = Cursor {
            checkpoint: None,
            event: Some(EventId {
                tx_digest: sui_sdk_types::Digest::new([7; 32]).to_base58(),
                event_seq: 0,
            }),
        };
        let lost = source.page(Some(elsewhere.clone()), 10).await;
        assert!(
            matches!(lost, Err(ChainError::LostCursor { .. })),
            "{by:?}: {lost:?}"
        );
        world.full_nodes[1].grpc().answer(Answer::Unavailable);
        world.full_nodes[1].jsonrpc().answer(Answer::Unavailable);
        let unsure = events(&world.settings(by)).page(Some(elsewhere), 10).await;
        assert!(
            matches!(unsure, Err(ChainError::OutOfReach(_))),
            "{by:?}: {unsure:?}"
        );
    }
}

#[tokio::test]
async fn ten_thousand_events_in_a_burst_come_once_each() {
    let world = World::with(1).await;
    let burst: Vec<Operation> = (0..5000)
        .map(|n| Operation::RegisterWorker {
            node_id: format!("worker-{n}"),
            owner: OWNER,
            stake: SUI,
            seal_token: "seal".into(),
        })
        .collect();
    for checkpoint in burst.chunks(500) {
        world.chain.apply_all(checkpoint).expect("applied");
    }
    let mut settings = world.settings(By::Grpc);
    settings.events_from = Some(0);
    settings.request_timeout = std::time::Duration::from_secs(20);
    let (told, _) = all(&events(&settings), None, 700).await;
    let mut ids: Vec<_> = told.iter().map(|it| it.id.clone()).collect();
    assert_eq!(ids.len(), 10_000);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 10_000);
}

#[tokio::test]
async fn a_checkpoint_larger_than_usual_comes_whole_and_in_its_turn() {
    let world = World::with(1).await;
    let request = |number: usize, payload: usize| {
        Operation::ScheduleApiRequest(ApiRequest {
            request_id: format!("request-{number}"),
            method: "POST".into(),
            resource: "configmaps".into(),
            namespace: "default".into(),
            name: String::new(),
            payload: "x".repeat(payload),
            seal_token: "seal".into(),
            requester: OWNER,
            priority: 3,
            assigned_worker: String::new(),
        })
    };
    // One of them would be asked for beside others, 24 are more than is taken so.
    let payload = 200 * 1024;
    let many: Vec<Operation> = (1..25).map(|number| request(number, payload)).collect();
    for operations in [&[request(0, 1)][..], &many, &[request(25, 1)]] {
        world.chain.apply_all(operations).expect("applied");
    }
    let mut settings = world.settings(By::Grpc);
    settings.events_from = Some(0);
    settings.verification = world.committee();
    settings.request_timeout = std::time::Duration::from_secs(10);
    let (told, _) = all(&events(&settings), None, 1000).await;
    let ids: Vec<_> = told
        .iter()
        .map(|it| it.fields["request_id"].clone())
        .collect();
    let expected: Vec<_> = (0..26).map(|number| format!("request-{number}")).collect();
    assert_eq!(ids, expected);
}
