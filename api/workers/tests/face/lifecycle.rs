//! What becomes of a worker over time, and through elections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::BoxStream;
use http::StatusCode;
use nautilus_machine::solo::SoloKv;
use nautilus_machine::{
    Applied, BarrierError, Command, KeyRange, Kv, Leadership, Operation, Proposal, ProposeError,
    RangeError, RangeRequest, RangeResponse, Revision, Txn, WatchError, WatchGroup, WatchRequest,
    Watcher,
};
use nautilus_machinery::strategy::{Change, Context, before_update};
use nautilus_machinery::table::{IncludeObject, render};
use nautilus_workers::limits::{BEAT_INTERVAL, LEADER_WAIT, LOST_AFTER, PODS_STEP};
use nautilus_workers::{Phase, Stake, Verdict};
use serde_json::json;

use crate::world::{World, active};

#[tokio::test(start_paused = true)]
async fn a_worker_is_not_ready_then_ready_then_unknown_when_it_falls_silent() {
    let world = World::leading().await;
    assert_eq!(world.register("w1", "seal-1").await.code, StatusCode::OK);
    assert_eq!(world.ready("w1"), "False WorkerRegistered");
    assert_eq!(
        world.beat("w1", "seal-1", json!({})).await.code,
        StatusCode::OK
    );
    world.settle().await;
    assert_eq!(world.ready("w1"), "True WorkerReady");
    world.pass(LOST_AFTER + BEAT_INTERVAL).await;
    assert_eq!(world.ready("w1"), "Unknown NodeStatusUnknown");
    assert_eq!(world.row("w1").expect("a row").phase, Phase::Lost);
    assert_eq!(
        world.beat("w1", "seal-1", json!({})).await.code,
        StatusCode::OK
    );
    world.settle().await;
    assert_eq!(world.ready("w1"), "True WorkerReady");
}

#[tokio::test(start_paused = true)]
async fn the_leader_tells_how_busy_its_beating_workers_are() {
    let world = World::leading().await;
    world.register("w1", "seal-1").await;
    let usage = json!({"resource_usage": {"cpu_percent": 12.5, "disk_percent": 80}});
    world.beat("w1", "seal-1", usage).await;
    world
        .beat(
            "w1",
            "seal-1",
            json!({"resource_usage": {"memory_percent": 40}}),
        )
        .await;
    world.pass(Duration::from_secs(7)).await;
    let ask = async || {
        let ids = ["w1".to_owned(), "nobody".to_owned()];
        nautilus_workers::loads(&world.kv, &ids)
            .await
            .expect("a leader")
    };
    let told = ask().await;
    let (report, nobody) = (told[0].expect("it beats"), told[1]);
    assert_eq!(nobody, None);
    let points = |share: Option<nautilus_workers::Share>| share.map(|share| share.basis_points());
    assert_eq!(points(report.load.cpu), Some(1250));
    assert_eq!(points(report.load.memory), Some(4000));
    assert_eq!(points(report.load.disk), Some(8000));
    assert_eq!(report.age_ms / 1000, 7);
    world.pass(LOST_AFTER).await;
    assert_eq!(ask().await, [None, None]);
}

/// Registers workers that beat once.
async fn beaten(world: &World, names: &[String]) {
    for name in names {
        world.register(name, "seal-1").await;
        world.beat(name, "seal-1", json!({})).await;
    }
    world.settle().await;
}

#[tokio::test(start_paused = true)]
async fn of_workers_that_fall_silent_together_one_after_the_other_loses_its_pods() {
    let world = World::leading().await;
    let names: Vec<String> = (0..9).map(|number| format!("w{number}")).collect();
    beaten(&world, &names).await;
    // A third falls silent, and a new leader does not forget what it found.
    let rest = LOST_AFTER + BEAT_INTERVAL / 2;
    for _ in 0..rest.as_secs() / BEAT_INTERVAL.as_secs() + 1 {
        world.pass(BEAT_INTERVAL).await;
        for name in &names[3..] {
            world.beat(name, "seal-1", json!({})).await;
        }
    }
    let count = |effect: &str| {
        let taint = format!("node.kubernetes.io/unreachable:{effect}");
        let taints = names.iter().map(|name| world.taints(name));
        taints.filter(|taints| taints.contains(&taint)).count()
    };
    assert_eq!((count("NoSchedule"), count("NoExecute")), (3, 3));
    assert_eq!(world.ready("w0"), "Unknown NodeStatusUnknown");
    assert!(world.taints("w3").is_empty());
}

#[tokio::test(start_paused = true)]
async fn when_all_workers_fall_silent_none_loses_its_pods() {
    let world = World::leading().await;
    let names: Vec<String> = (0..3).map(|number| format!("w{number}")).collect();
    beaten(&world, &names).await;
    world.pass(LOST_AFTER * 10).await;
    for name in &names {
        assert_eq!(
            world.taints(name),
            ["node.kubernetes.io/unreachable:NoSchedule"]
        );
        assert_eq!(world.row(name).expect("a row").phase, Phase::Lost);
    }
}

#[tokio::test(start_paused = true)]
async fn a_beating_worker_stays_ready_and_writes_nothing() {
    let world = World::leading().await;
    world.register("w1", "seal-1").await;
    world.beat("w1", "seal-1", json!({})).await;
    world.settle().await;
    let revision = world.kv.revision();
    for _ in 0..20 {
        world.pass(BEAT_INTERVAL).await;
        assert_eq!(
            world.beat("w1", "seal-1", json!({})).await.code,
            StatusCode::OK
        );
    }
    assert_eq!(world.kv.revision(), revision);
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_gives_a_worker_a_whole_deadline_again() {
    let world = World::leading().await;
    world.register("w1", "seal-1").await;
    world.beat("w1", "seal-1", json!({})).await;
    let almost = LOST_AFTER - Duration::from_secs(10);
    world.pass(almost).await;
    world.elect(2, false);
    world.settle().await;
    world.elect(2, true);
    world.pass(almost).await;
    assert_eq!(world.ready("w1"), "True WorkerReady");
    assert_eq!(
        world.beat("w1", "seal-1", json!({})).await.code,
        StatusCode::OK
    );
    world.pass(almost).await;
    assert_eq!(world.ready("w1"), "True WorkerReady");
    world.pass(LOST_AFTER).await;
    assert_eq!(world.ready("w1"), "Unknown NodeStatusUnknown");
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_waits_for_the_election_to_end() {
    let world = World::leading().await;
    world.register("w1", "seal-1").await;
    world.elect(2, false);
    world.settle().await;
    let election = async {
        world.pass(LEADER_WAIT / 2).await;
        world.elect(3, true);
    };
    let (answer, ()) = tokio::join!(world.beat("w1", "seal-1", json!({})), election);
    assert_eq!(answer.code, StatusCode::OK, "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_without_any_leader_is_told_to_come_again() {
    let world = World::not_yet_leading();
    let answer = world.beat("w1", "seal-1", json!({})).await;
    assert_eq!(answer.code, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(answer.text, "no leader took the heartbeat within 5 s");
}

#[tokio::test(start_paused = true)]
async fn a_stake_that_is_gone_makes_the_node_not_ready() {
    let world = World::leading().await;
    for (node, stake, reason) in [
        ("w1", "slashed", "StakeSlashed"),
        ("w2", "withdrawn", "StakeWithdrawn"),
    ] {
        world.register(node, "seal-1").await;
        world
            .beat(node, "seal-1", json!({"stake_status": stake}))
            .await;
        world.settle().await;
        assert_eq!(world.ready(node), format!("False {reason}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_its_judge_finds_slashed_marks_its_worker_at_the_next_beat() {
    let world = World::leading().await;
    world.register("w1", "seal-1").await;
    world.beat("w1", "seal-1", json!({})).await;
    world.judge.set("seal-1", Verdict::Slashed);
    let answer = world.beat("w1", "seal-1", json!({})).await;
    assert_eq!(answer.code, StatusCode::UNAUTHORIZED);
    world.settle().await;
    assert_eq!(world.row("w1").expect("a row").stake, Stake::Slashed);
}

#[tokio::test(start_paused = true)]
async fn pods_are_replicated_by_the_step() {
    let world = World::leading().await;
    world.register("w1", "seal-1").await;
    for (pods, replicated) in [(PODS_STEP - 1, 0), (PODS_STEP + 1, PODS_STEP + 1)] {
        // The first beat writes the change to ready, and the count with it.
        world.beat("w1", "seal-1", json!({"running_pods": 0})).await;
        world.settle().await;
        world
            .beat("w1", "seal-1", json!({"running_pods": pods}))
            .await;
        world.settle().await;
        assert_eq!(world.row("w1").expect("a row").running_pods, replicated);
    }
}

#[tokio::test(start_paused = true)]
async fn many_workers_become_ready_together() {
    let world = World::leading().await;
    let names: Vec<String> = (0..300).map(|number| format!("w{number}")).collect();
    for name in &names {
        assert_eq!(world.register(name, "seal-1").await.code, StatusCode::OK);
    }
    join_all(
        names
            .iter()
            .map(|name| world.beat(name, "seal-1", json!({}))),
    )
    .await;
    world.settle().await;
    for name in &names {
        assert_eq!(world.ready(name), "True WorkerReady", "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn registering_again_keeps_the_object_and_counts() {
    let world = World::leading().await;
    world.register("w1", "seal-1").await;
    let uid = world.node("w1").expect("a node")["metadata"]["uid"].clone();
    world.beat("w1", "seal-1", json!({})).await;
    world.settle().await;
    world.pass(BEAT_INTERVAL).await;
    let again = join_all((0..5).map(|_| world.register("w1", "seal-1"))).await;
    assert!(
        again.iter().all(|answer| answer.code == StatusCode::OK),
        "{again:?}"
    );
    assert_eq!(world.node("w1").expect("a node")["metadata"]["uid"], uid);
    assert_eq!(world.ready("w1"), "True WorkerReady");
}

#[tokio::test(start_paused = true)]
async fn a_name_is_its_owners_until_its_node_object_is_deleted() {
    let world = World::leading().await;
    world.judge.set("seal-2", active("0xb2"));
    world.register("w1", "seal-1").await;
    let answer = world.register("w1", "seal-2").await;
    assert_eq!(
        (answer.code, answer.text.as_str()),
        (StatusCode::UNAUTHORIZED, "Invalid Seal token")
    );
    assert_eq!(
        world.beat("w1", "seal-2", json!({})).await.code,
        StatusCode::UNAUTHORIZED
    );
    let range = KeyRange::prefix("/nautilus/registry/");
    let delete = Operation::Delete {
        range,
        prev_kv: false,
    };
    let txn = Txn {
        then: vec![delete],
        ..Txn::default()
    };
    world
        .kv
        .apply(Proposal::new(Command::Txn(txn)))
        .expect("applied");
    assert_eq!(world.register("w1", "seal-2").await.code, StatusCode::OK);
    assert_eq!(world.row("w1").expect("a row").owner, "0xb2");
}

#[tokio::test(start_paused = true)]
async fn a_registration_whose_outcome_was_unknown_is_made_once() {
    let world = World::with_kv(|kv| Arc::new(ForgetsFirstAnswer(kv, AtomicBool::new(true))));
    assert_eq!(world.register("w1", "seal-1").await.code, StatusCode::OK);
    assert_eq!(world.row("w1").expect("a row").registrations, 1);
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_that_does_not_know_it_loses_nobody() {
    let world = World::not_yet_leading();
    let first_term = world.kv.leadership();
    world.start_leading_over(Arc::new(HearsNoElections(world.kv.clone(), first_term)));
    world.settle().await;
    world.register("w1", "seal-1").await;
    world.beat("w1", "seal-1", json!({})).await;
    world.settle().await;
    world.elect(2, true);
    world.pass(LOST_AFTER + BEAT_INTERVAL).await;
    assert_eq!(world.ready("w1"), "True WorkerReady");
}

#[tokio::test(start_paused = true)]
async fn the_node_object_is_one_that_the_api_would_have_stored() {
    let world = World::leading().await;
    world.register("w1", "seal-1").await;
    let nodes = nautilus_machinery::resource::find("", "v1", "nodes").expect("served");
    let node = world.node("w1").expect("a node");
    let conformed = nautilus_machinery::fields::conform(&nodes.schema, &node).expect("conforms");
    assert_eq!(conformed, node);
    let mut rewritten = node.clone();
    let context = Context {
        now: "2026-09-22T00:00:00Z",
        uid: "",
        name_suffix: "",
        namespace: None,
        user: "admin",
        field_manager: "kubectl",
    };
    let change = before_update(nodes, None, &node, &mut rewritten, &context).expect("valid");
    assert_eq!(change, Change::Unchanged);
    nautilus_machinery::codec::encode_protobuf(&nodes.schema, &node).expect("has a protobuf form");
    world.beat("w1", "seal-1", json!({})).await;
    world.settle().await;
    let items = [world.node("w1").expect("a node")];
    let now_s = i64::try_from(world.now_s()).expect("a small number");
    let list = json!({"resourceVersion": "1"});
    let table = render(nodes, &items, &list, IncludeObject::None, "v1", now_s, true);
    let cells: Vec<String> = table["rows"][0]["cells"].as_array().expect("cells")[..3]
        .iter()
        .map(|cell| cell.to_string())
        .collect();
    assert_eq!(cells.join(" "), r#""w1" "Ready" "worker""#);
}

/// Applies the first proposal and then says that nobody knows.
struct ForgetsFirstAnswer(SoloKv, AtomicBool);

/// Cut off from the news: leads in its first term for ever, by its own account.
struct HearsNoElections(SoloKv, Leadership);

/// The rest of the port, from the store within.
macro_rules! as_within {
    () => {
        fn read_barrier(&self) -> BoxFuture<'_, Result<Revision, BarrierError>> {
            self.0.read_barrier()
        }
        fn watch_group(&self) -> Box<dyn WatchGroup> {
            self.0.watch_group()
        }
        fn range(&self, request: &RangeRequest) -> Result<RangeResponse, RangeError> {
            self.0.range(request)
        }
        fn revision(&self) -> Revision {
            self.0.revision()
        }
        fn compacted_revision(&self) -> Revision {
            self.0.compacted_revision()
        }
        fn watch(&self, request: WatchRequest) -> Result<Box<dyn Watcher>, WatchError> {
            self.0.watch(request)
        }
    };
}

impl Kv for ForgetsFirstAnswer {
    fn propose(&self, proposal: Proposal) -> BoxFuture<'_, Result<Applied, ProposeError>> {
        Box::pin(async move {
            let applied = self.0.propose(proposal).await;
            if self.1.swap(false, Ordering::SeqCst) {
                return Err(ProposeError::Unknown("the leader went away".to_owned()));
            }
            applied
        })
    }
    fn leadership(&self) -> Leadership {
        self.0.leadership()
    }
    fn leadership_changes(&self) -> BoxStream<'static, Leadership> {
        self.0.leadership_changes()
    }
    as_within!();
}

impl Kv for HearsNoElections {
    fn propose(&self, proposal: Proposal) -> BoxFuture<'_, Result<Applied, ProposeError>> {
        self.0.propose(proposal)
    }
    fn leadership(&self) -> Leadership {
        self.1.clone()
    }
    fn leadership_changes(&self) -> BoxStream<'static, Leadership> {
        Box::pin(futures_util::stream::pending())
    }
    as_within!();
}
