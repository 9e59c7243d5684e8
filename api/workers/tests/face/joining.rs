//! What a registration makes of a worker for the rest of Kubernetes, and what is left of it
//! when its stake is gone.

use std::time::Duration;

use http::StatusCode;
use nautilus_machine::{Command, KeyRange, Kv as _, Operation, Proposal, Put, Txn};
use nautilus_workers::limits::NODE_CERTIFICATE_LIFETIME;
use nautilus_workers::{JoinRefusal, Joins, Phase, Stake, StakeTiers, TokenProblem, Verdict};
use serde_json::{Value, json};

use crate::world::{BEGIN_S, World, active};

const LEASE: &str = "/nautilus/registry/coordination.k8s.io/leases/kube-node-lease/w1";
const BARRED: &str = "/nautilus/barred/w1";

fn joins(world: &World) -> Joins {
    let kv = std::sync::Arc::new(world.kv.clone());
    let verdicts = std::sync::Arc::clone(&world.verdicts);
    Joins::new(kv, verdicts, world.clock(), StakeTiers::default())
}

async fn write(world: &World, operation: Operation) {
    let txn = Txn {
        then: vec![operation],
        ..Txn::default()
    };
    let proposal = Proposal::new(Command::Txn(txn));
    world.kv.propose(proposal).await.expect("written");
}

#[tokio::test(start_paused = true)]
async fn a_registration_makes_a_node_with_its_machine_its_tier_and_its_lease() {
    let world = World::leading().await;
    let body = json!({
        "node_id": "w1", "seal_token": "seal-1", "timestamp": world.now_s(),
        "capacity": {"cpu": "8", "memory": "16Gi"}, "topology": {"region": "eu", "zone": "eu-1"},
        "unheard_of": true,
    });
    let path = "/api/v1/register-worker";
    let answer = world.post(path, Some("seal-1"), body.to_string()).await;
    assert_eq!(answer.code, StatusCode::OK, "{answer:?}");
    let node = world.node("w1").expect("a node");
    let labels = &node["metadata"]["labels"];
    assert_eq!(labels["topology.kubernetes.io/zone"], "eu-1");
    assert_eq!(labels["nautilus.io/stake-tier"], "node");
    assert_eq!(
        node["status"]["allocatable"],
        json!({"pods": "110", "cpu": "8", "memory": "16Gi"})
    );
    let lease = world.value(LEASE).expect("a lease");
    assert_eq!(lease["spec"]["holderIdentity"], "w1");
    let owner = &lease["metadata"]["ownerReferences"][0];
    assert_eq!(owner["uid"], node["metadata"]["uid"]);
    let leases = nautilus_machinery::resource::find("coordination.k8s.io", "v1", "leases");
    let leases = leases.expect("served");
    let conformed = nautilus_machinery::fields::conform(&leases.schema, &lease).expect("conforms");
    assert_eq!(conformed, lease);
}

#[tokio::test(start_paused = true)]
async fn a_lease_goes_over_to_the_node_that_is_made_anew() {
    let world = World::leading().await;
    world.register("w1", "seal-1").await;
    let nodes = nautilus_machinery::resource::find("", "v1", "nodes").expect("served");
    let gone = Operation::Delete {
        range: KeyRange::single(nodes.key(None, "w1")),
        prev_kv: false,
    };
    write(&world, gone).await;
    world.pass(Duration::from_secs(1)).await;
    world.register("w1", "seal-1").await;
    let uid = world.node("w1").expect("a node")["metadata"]["uid"].clone();
    let lease = world.value(LEASE).expect("a lease");
    assert_eq!(lease["metadata"]["ownerReferences"][0]["uid"], uid);
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_renews_its_lease_keeps_its_worker_ready_without_beats() {
    let world = World::leading().await;
    world.register("w1", "seal-1").await;
    world.pass(Duration::from_secs(80)).await;
    assert_eq!(world.ready("w1"), "False WorkerRegistered");
    let mut lease = world.value(LEASE).expect("a lease");
    for second in 10..30 {
        lease["spec"]["renewTime"] = format!("2026-09-22T00:00:{second}.000000Z").into();
        let put = Put::new(LEASE.to_owned(), lease.to_string());
        write(&world, Operation::Put(put)).await;
        world.pass(Duration::from_secs(10)).await;
        assert_eq!(world.ready("w1"), "True WorkerReady");
    }
    world.pass(Duration::from_secs(80)).await;
    // Somebody else's change of the lease is no sign of life.
    lease["metadata"]["annotations"] = json!({"by": "somebody"});
    write(
        &world,
        Operation::Put(Put::new(LEASE.to_owned(), lease.to_string())),
    )
    .await;
    world.pass(Duration::from_secs(11)).await;
    assert_eq!(world.ready("w1"), "Unknown NodeStatusUnknown");
}

#[tokio::test(start_paused = true)]
async fn no_token_takes_over_a_node_that_somebody_else_made() {
    let world = World::leading().await;
    let nodes = nautilus_machinery::resource::find("", "v1", "nodes").expect("served");
    let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "gpu-1"}});
    let put = Put::new(nodes.key(None, "gpu-1"), node.to_string());
    write(&world, Operation::Put(put)).await;
    let answer = world.register("gpu-1", "seal-1").await;
    assert_eq!(answer.code, StatusCode::UNAUTHORIZED, "{answer:?}");
    assert!(world.row("gpu-1").is_none());
    assert_eq!(world.node("gpu-1").expect("as it was"), node);
}

#[tokio::test(start_paused = true)]
async fn a_silent_worker_whose_node_was_deleted_leaves_nothing() {
    let world = World::leading().await;
    world.register("w1", "seal-1").await;
    let nodes = nautilus_machinery::resource::find("", "v1", "nodes").expect("served");
    let gone = Operation::Delete {
        range: KeyRange::single(nodes.key(None, "w1")),
        prev_kv: false,
    };
    write(&world, gone).await;
    world.pass(Duration::from_secs(200)).await;
    assert!(world.row("w1").is_none());
    assert!(world.node("w1").is_none());
    let tokens = world.everything().into_keys();
    assert!(!tokens.into_iter().any(|key| key.contains("/seal-tokens/")));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_was_evicted_before_its_node_was_deleted_leaves_its_bar_alone() {
    let world = World::leading().await;
    world.register("w1", "seal-1").await;
    world.register("w2", "seal-1").await;
    world.judge.set("seal-1", Verdict::Slashed);
    world.beat("w1", "seal-1", json!({})).await;
    world.judge.set("seal-2", active("0xa1"));
    world.register("w2", "seal-2").await;
    // The other one beats on, so that the silent one is evicted.
    for _ in 0..10 {
        world.pass(Duration::from_secs(30)).await;
        world.beat("w2", "seal-2", json!({})).await;
    }
    assert_eq!(world.row("w1").expect("a row").phase, Phase::Evicted);
    let nodes = nautilus_machinery::resource::find("", "v1", "nodes").expect("served");
    let gone = Operation::Delete {
        range: KeyRange::single(nodes.key(None, "w1")),
        prev_kv: false,
    };
    write(&world, gone).await;
    world.pass(Duration::from_secs(30)).await;
    assert!(world.row("w1").is_none());
    assert!(world.row("w2").is_some());
    let joins = joins(&world);
    let why = joins.barred("w1").expect("readable");
    assert_eq!(why.as_deref(), Some("its stake was slashed"));
    // Of others that left no certificate lives any more.
    let long_ago_ms = world.now_s() * 1000 - NODE_CERTIFICATE_LIFETIME.as_millis() as u64;
    let row = json!({"reason": "its stake was slashed", "from_ms": long_ago_ms});
    for name in ["w2", "w3"] {
        let put = Put::new(format!("/nautilus/barred/{name}"), row.to_string());
        write(&world, Operation::Put(put)).await;
    }
    world.pass(Duration::from_secs(30)).await;
    let everything = world.everything().into_keys();
    let barred = everything.filter(|key| key.starts_with("/nautilus/barred/"));
    let barred: Vec<String> = barred.collect();
    assert_eq!(barred, ["/nautilus/barred/w1", "/nautilus/barred/w2"]);
}

fn taint(node: &Value) -> Option<String> {
    let taints = node["spec"]["taints"].as_array()?;
    let ours = taints.iter().find(|taint| {
        let key = taint["key"].as_str().unwrap_or_default();
        key.starts_with("nautilus.io/")
    })?;
    let text = |field: &str| ours[field].as_str().unwrap_or_default().to_owned();
    Some(format!("{}:{}", text("key"), text("effect")))
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_stake_is_gone_is_cordoned_tainted_and_barred_until_it_is_back() {
    for (verdict, expected, after_s) in [
        (
            Verdict::Slashed,
            "nautilus.io/stake-slashed:NoExecute",
            0..=2,
        ),
        (
            Verdict::Withdrawn,
            "nautilus.io/stake-withdrawn:NoSchedule",
            3600..=3602,
        ),
        (
            Verdict::Expired,
            "nautilus.io/stake-withdrawn:NoSchedule",
            3600..=3602,
        ),
    ] {
        let world = World::leading().await;
        world.register("w1", "seal-1").await;
        world.beat("w1", "seal-1", json!({})).await;
        world.settle().await;
        assert_eq!(world.value(BARRED), None);
        world.judge.set("seal-1", verdict);
        let now_ms = world.now_s() * 1000;
        let answer = world.beat("w1", "seal-1", json!({})).await;
        assert_eq!(answer.code, StatusCode::UNAUTHORIZED);
        world.settle().await;
        let node = world.node("w1").expect("a node");
        assert_eq!(node["spec"]["unschedulable"], true);
        assert_eq!(taint(&node).as_deref(), Some(expected));
        let barred = world.value(BARRED).expect("a row");
        let from_s = (barred["from_ms"].as_u64().expect("a time") - now_ms) / 1000;
        assert!(after_s.contains(&from_s), "{expected}: {from_s}");

        world.judge.set("seal-1", active("0xa1"));
        world.register("w1", "seal-1").await;
        world.beat("w1", "seal-1", json!({})).await;
        world.settle().await;
        let node = world.node("w1").expect("a node");
        assert_eq!(node["spec"].get("unschedulable"), None);
        assert_eq!(taint(&node), None);
        assert_eq!(world.value(BARRED), None);
        assert_eq!(world.ready("w1"), "True WorkerReady");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ends_drains_its_worker_though_it_says_nothing_any_more() {
    let world = World::leading().await;
    let until = Verdict::Active {
        owner: "0xa1".into(),
        stake_amount: 1_000_000_000,
        expires_at: Some(BEGIN_S + 600),
    };
    world.judge.set("seal-1", until);
    world.register("w1", "seal-1").await;
    world.pass(Duration::from_secs(590)).await;
    assert_eq!(taint(&world.node("w1").expect("a node")), None);
    world.pass(Duration::from_secs(20)).await;
    assert_eq!(world.row("w1").expect("a row").stake, Stake::Expired);
    let node = world.node("w1").expect("a node");
    assert_eq!(
        taint(&node).as_deref(),
        Some("nautilus.io/stake-withdrawn:NoSchedule")
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_speaks_for_the_node_that_it_was_registered_for_and_no_other() {
    let world = World::leading().await;
    world.judge.set("seal-2", active("0xa1"));
    world.register("Worker_1", "seal-1").await;
    let name = nautilus_workers::node_object::node_name("Worker_1");
    let joins = joins(&world);
    let node = async |token: &str, claimed: Option<&str>| joins.node_of_token(token, claimed).await;
    assert_eq!(node("seal-1", None).await, Ok(name.clone()));
    assert_eq!(node("seal-1", Some(&name)).await, Ok(name.clone()));
    assert_eq!(
        node("seal-1", Some("other")).await,
        Err(JoinRefusal::Token(TokenProblem::OtherNode))
    );
    // Registered again with another token: the first one is nobody's.
    world.pass(Duration::from_secs(1)).await;
    world.register("Worker_1", "seal-2").await;
    assert_eq!(node("seal-2", None).await, Ok(name));
    assert_eq!(
        node("seal-1", None).await,
        Err(JoinRefusal::Token(TokenProblem::Unknown))
    );
    assert_eq!(
        node(&"x".repeat(5000), None).await,
        Err(JoinRefusal::Token(TokenProblem::Unknown))
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_never_registered_registers_the_node_that_is_claimed_once() {
    let world = World::leading().await;
    let joins = joins(&world);
    for _ in 0..3 {
        let joined = joins.node_of_token("seal-1", Some("w1")).await;
        assert_eq!(joined, Ok("w1".to_owned()));
    }
    let row = world.row("w1").expect("a row");
    assert_eq!((row.registrations, row.owner.as_str()), (1, "0xa1"));
    assert!(world.node("w1").is_some() && world.value(LEASE).is_some());
    // Another owner's token does not get that node.
    world.judge.set("seal-2", active("0xb2"));
    let taken = joins.node_of_token("seal-2", Some("w1")).await;
    assert!(matches!(taken, Err(JoinRefusal::Taken(_))), "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slashed_stake_shuts_its_node_out_and_a_good_one_lets_it_in_again() {
    let world = World::leading().await;
    let joins = joins(&world);
    world.register("w1", "seal-1").await;
    world.beat("w1", "seal-1", json!({})).await;
    assert_eq!(joins.barred("w1"), Ok(None));
    world.judge.set("seal-1", Verdict::Slashed);
    world.beat("w1", "seal-1", json!({})).await;
    world.settle().await;
    assert_eq!(joins.barred("w1"), Ok(Some("its stake was slashed".into())));
    assert_eq!(
        joins.node_of_token("seal-1", None).await,
        Err(JoinRefusal::Token(TokenProblem::Slashed))
    );
    world.judge.set("seal-1", active("0xa1"));
    assert_eq!(joins.node_of_token("seal-1", None).await, Ok("w1".into()));
    assert_eq!(joins.barred("w1"), Ok(None));
    assert_eq!(world.row("w1").expect("a row").stake, Stake::Active);
    // A withdrawn one drains first.
    world.judge.set("seal-1", Verdict::Withdrawn);
    world.beat("w1", "seal-1", json!({})).await;
    world.settle().await;
    assert_eq!(joins.barred("w1"), Ok(None));
    world.pass(Duration::from_secs(3600)).await;
    assert_eq!(
        joins.barred("w1"),
        Ok(Some("its stake was withdrawn".into()))
    );
}
