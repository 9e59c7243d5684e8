//! API requests scheduled on the chain.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use nautilus_machine::{Command, Kv as _, Operation, Proposal, Put, Txn};
use nautilus_machinery::identity::{MASTERS_GROUP, User};
use nautilus_workers::chain::ChainEvent;
use nautilus_workers::events::limits::{REQUEST_LIFETIME, REQUESTS_PER_REQUESTER};
use serde_json::{Value, json};

use super::{Chain, ChainWorld, EventsSettings, address};

const SUI: u64 = 1_000_000_000;

/// Schedules a request of the owner of every node.
fn schedule(chain: &Chain, id: &str, method: &str, name: &str, payload: &str) -> ChainEvent {
    schedule_of("0xa1", chain, id, &json!([method, name, payload]))
}

/// Schedules a request of `requester`: its method, the name and the payload.
fn schedule_of(requester: &str, chain: &Chain, id: &str, what: &Value) -> ChainEvent {
    let fields = json!({
        "request_id": id, "method": what[0], "resource": "configmaps", "namespace": "default",
        "name": what[1], "payload": what[2], "seal_token": "seal-1", "requester": requester,
        "priority": 5, "assigned_worker": "", "timestamp": "1",
    });
    let checkpoint = 9 + chain.events.lock().len() as u64;
    chain.emit(
        checkpoint,
        "k8s_scheduler",
        "K8sAPIRequestScheduledEvent",
        fields,
    )
}

/// The result of a request, as a user sees it.
async fn result(world: &ChainWorld, id: &str, user: User) -> (StatusCode, Value) {
    let request = Request::get(format!("/api/v1/sui-requests/{id}")).extension(user);
    let request = request.body(Body::empty()).expect("a request");
    world.send(0, request).await
}

fn master() -> User {
    User::authenticated("admin", vec![MASTERS_GROUP.to_owned()])
}

#[tokio::test(start_paused = true)]
async fn a_request_runs_once_as_its_requester_with_what_the_stake_gives() {
    for (stake, groups) in [
        (SUI / 2, "nautilus:stake:view system:authenticated"),
        (
            SUI,
            "nautilus:stake:view nautilus:stake:node system:authenticated",
        ),
        (
            10 * SUI,
            "nautilus:stake:view nautilus:stake:node nautilus:stake:admin system:authenticated",
        ),
    ] {
        let world = ChainWorld::new(1).await;
        world.chain.registered(1, "w1", stake);
        schedule(&world.chain, "r1", "POST", "c", r#"{"data":{"a":"b"}}"#);
        world.settle().await;
        let asked = world.api.asked.lock().clone();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].0.name, format!("sui:{}", address("a1")));
        assert_eq!(asked[0].0.groups.join(" "), groups);
        let (code, found) = result(&world, "r1", master()).await;
        assert_eq!(code, StatusCode::OK);
        assert_eq!(found["state"], "done");
        assert_eq!(found["result"]["success"], true);
        assert_eq!(found["result"]["code"], 201);
    }
}

#[tokio::test(start_paused = true)]
async fn one_requester_fills_its_own_part_of_the_table_alone() {
    let world = ChainWorld::new(1).await;
    world.chain.registered(1, "w1", SUI);
    let limit = usize::try_from(REQUESTS_PER_REQUESTER).expect("a small number");
    for number in 0..limit + 20 {
        schedule(&world.chain, &format!("r{number}"), "GET", "c", "");
    }
    schedule_of("0xb2", &world.chain, "other", &json!(["GET", "c", ""]));
    world.pass(Duration::from_secs(30)).await;
    let kept = |what: &str| {
        let everything = world.world.everything();
        let prefix = format!("/nautilus/sui/{what}");
        let rows = everything.keys().filter(|key| key.starts_with(&prefix));
        rows.count()
    };
    assert_eq!(kept("requests/r"), limit);
    let (code, _) = result(&world, "other", master()).await;
    assert_eq!(code, StatusCode::OK);
    // Its oldest go, and their marks, so that it can go on.
    world.pass(Duration::from_secs(120)).await;
    assert_eq!(kept("requests/r"), limit / 2);
    assert_eq!(kept("requesters/"), limit / 2 + 1);
    schedule(&world.chain, "later", "GET", "c", "");
    world.pass(Duration::from_secs(30)).await;
    let (code, _) = result(&world, "later", master()).await;
    assert_eq!(code, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_nobody_can_read_goes_after_a_requests_lifetime() {
    let settings = EventsSettings {
        poll_interval: Duration::from_secs(3600),
        ..EventsSettings::default()
    };
    let world = ChainWorld::with(1, settings).await;
    let key = "/nautilus/sui/requests/odd".to_owned();
    let put = Operation::Put(Put::new(key, r#"{"of": "another version"}"#));
    let txn = Txn {
        then: vec![put],
        ..Txn::default()
    };
    let proposal = Proposal::new(Command::Txn(txn));
    world.world.kv.propose(proposal).await.expect("written");
    let stands = || {
        let everything = world.world.everything();
        everything.contains_key("/nautilus/sui/requests/odd")
    };
    world.pass(REQUEST_LIFETIME / 2).await;
    assert!(stands());
    world
        .pass(REQUEST_LIFETIME / 2 + Duration::from_secs(90))
        .await;
    assert!(!stands());
}

#[tokio::test(start_paused = true)]
async fn without_a_stake_nothing_runs() {
    let world = ChainWorld::new(1).await;
    world.chain.registered(1, "w1", SUI / 2 - 1);
    world.chain.registered(2, "w2", SUI);
    world.chain.status(3, "w2", "slashed");
    schedule(&world.chain, "r1", "GET", "c", "");
    world.settle().await;
    assert!(world.api.asked.lock().is_empty());
    let (_, found) = result(&world, "r1", master()).await;
    assert_eq!(found["result"]["code"], 403);
    let why = found["result"]["error"].as_str().expect("a reason");
    assert!(why.contains("499999999 MIST"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_result_is_for_its_requester_and_for_masters() {
    let world = ChainWorld::new(1).await;
    world.chain.registered(1, "w1", SUI);
    schedule(&world.chain, "r1", "GET", "c", "");
    world.settle().await;
    let sui = |short| User::authenticated(format!("sui:{}", address(short)), Vec::new());
    for (user, id, code) in [
        (master(), "r1", StatusCode::OK),
        (sui("a1"), "r1", StatusCode::OK),
        (sui("b2"), "r1", StatusCode::NOT_FOUND),
        (master(), "r2", StatusCode::NOT_FOUND),
        (User::anonymous(), "r1", StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(result(&world, id, user.clone()).await.0, code, "{user:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_and_what_comes_with_a_used_id_is_said() {
    let world = ChainWorld::new(1).await;
    world.chain.registered(1, "w1", SUI);
    schedule(&world.chain, "r1", "BREW", "c", "");
    schedule(&world.chain, "r2", "POST", "c", "{}");
    schedule(&world.chain, "r2", "DELETE", "c", "");
    world.settle().await;
    let (_, found) = result(&world, "r1", master()).await;
    let why = found["result"]["error"].as_str().expect("a reason");
    assert!(why.starts_with("method: "), "{why}");
    assert_eq!(
        world.api.changes(),
        ["POST /api/v1/namespaces/default/configmaps"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_requesters_requests_run_in_the_chains_order() {
    let world = ChainWorld::new(1).await;
    world.chain.registered(1, "w1", SUI);
    let path = "/api/v1/namespaces/default/configmaps";
    let mut expected = Vec::new();
    for round in 0..20 {
        schedule(&world.chain, &format!("c{round}"), "POST", "c", "{}");
        schedule(&world.chain, &format!("d{round}"), "DELETE", "c", "");
        expected.extend([format!("POST {path}"), format!("DELETE {path}/c")]);
    }
    world.settle().await;
    assert_eq!(world.api.changes(), expected);
    assert!(world.api.objects.lock().is_empty());
    let (_, found) = result(&world, "d19", master()).await;
    assert_eq!(found["result"]["success"], true, "{found}");
}

#[tokio::test(start_paused = true)]
async fn what_ran_when_the_leader_was_lost_is_found_and_not_done_twice() {
    let mut world = ChainWorld::new(2).await;
    world.chain.registered(1, "w1", SUI);
    let path = "/api/v1/namespaces/default/configmaps";
    schedule(&world.chain, "made", "POST", "made", "{}");
    world.settle().await;
    let uid = world.api.objects.lock()[&format!("{path}/made")]["metadata"]["uid"].clone();

    // Both are done by the API, and the leader dies before it hears of it.
    world.api.hangs.store(true, Ordering::Relaxed);
    schedule(&world.chain, "again", "POST", "again", "{}");
    world.settle().await;
    let (_, found) = result(&world, "again", master()).await;
    assert_eq!(found["state"], "running");
    world.api.hangs.store(false, Ordering::Relaxed);
    world.elect(1, false);
    world.settle().await;
    let (_, found) = result(&world, "again", master()).await;
    assert_eq!(found["result"]["success"], true, "{found}");
    let made = world.api.objects.lock()[&format!("{path}/again")].clone();
    assert_eq!(
        made["metadata"]["annotations"]["nautilus.io/sui-request"],
        "again"
    );

    // A deletion is of the object that was there: its successor is left alone.
    world.api.hangs.store(true, Ordering::Relaxed);
    schedule(&world.chain, "gone", "DELETE", "made", "");
    // The first question finds the object; the deletion hangs, done.
    let looked = std::sync::Arc::clone(&world.api);
    looked.hangs.store(false, Ordering::Relaxed);
    world.pass(Duration::from_secs(2)).await;
    let (_, found) = result(&world, "gone", master()).await;
    assert_eq!(found["result"]["success"], true, "{found}");
    assert!(
        !world
            .api
            .objects
            .lock()
            .contains_key(&format!("{path}/made"))
    );
    assert_ne!(uid, Value::Null);
    // A creation that somebody else's object stands in the way of is no success.
    schedule(&world.chain, "taken", "POST", "again", "{}");
    world.settle().await;
    let (_, found) = result(&world, "taken", master()).await;
    assert_eq!(found["result"]["code"], 409);
    assert_eq!(found["result"]["success"], false);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_an_end_too() {
    let world = ChainWorld::new(1).await;
    world.chain.registered(1, "w1", SUI);
    world.api.hangs.store(true, Ordering::Relaxed);
    schedule(&world.chain, "r1", "GET", "c", "");
    world.pass(Duration::from_secs(40)).await;
    let (_, found) = result(&world, "r1", master()).await;
    assert_eq!(found["result"]["code"], 504);
}

#[tokio::test(start_paused = true)]
async fn what_workers_told_the_chain_of_a_request_stands_beside_it() {
    let world = ChainWorld::new(1).await;
    world.chain.registered(1, "w1", SUI);
    schedule(&world.chain, "r1", "GET", "c", "");
    let assigned = json!({
        "request_id": "r1", "worker_id": "w1", "workload_count": "3", "timestamp": "1",
    });
    world
        .chain
        .emit(10, "k8s_scheduler", "WorkerAssignedEvent", assigned);
    let reported = json!({
        "request_id": "r1", "assigned_worker": "w1", "success": true, "output": "ok",
        "error": "", "execution_time_ms": "12", "timestamp": "1",
    });
    world
        .chain
        .emit(11, "k8s_scheduler", "K8sAPIResultEvent", reported);
    world.settle().await;
    let (_, found) = result(&world, "r1", master()).await;
    assert_eq!(found["assigned"]["worker"], "w1");
    assert_eq!(found["reported"]["execution_time_ms"], 12);
    assert_eq!(found["state"], "done");
    let row = world
        .world
        .value("/nautilus/sui/requests/r1")
        .expect("a row");
    assert!(!row.to_string().contains("seal-1"), "no token is kept");
}
