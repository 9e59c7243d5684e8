//! Workers whose Seal tokens lie on the chain: a whole quorum before a stand-in for a full node
//! of Sui, which is believed in what validators signed alone.

use std::time::{Duration, Instant};

use nautilus_tests::{Quorum, Streamed, SuiStandin, eventually};
use serde_json::{Value, json};

/// As in the settings of the quorum.
const VERDICT_LIFETIME: Duration = Duration::from_secs(3);

fn registered(node_id: &str, seal_token: &str) -> Value {
    json!({
        "operation": "register_worker",
        "node_id": node_id,
        "owner": format!("0x{:0>64}", "a11ce"),
        "stake": 2_000_000_000_u64,
        "seal_token": seal_token,
    })
}

fn before(chain: &SuiStandin, folder: &std::path::Path) -> Quorum {
    let state = chain.state();
    let committee = folder.join("committee.json");
    std::fs::write(&committee, state["committee"].to_string()).expect("written");
    Quorum::start_with(&[
        (
            "NAUTILUS_SUI_FULL_NODES",
            &format!("grpc={}", chain.url("grpc")),
        ),
        (
            "NAUTILUS_SUI_PACKAGE",
            state["package"].as_str().expect("an id"),
        ),
        (
            "NAUTILUS_SUI_REGISTRY",
            state["registry"].as_str().expect("an id"),
        ),
        ("NAUTILUS_SUI_VERIFY", "checkpoints"),
        ("NAUTILUS_SUI_VERDICT_LIFETIME", "3s"),
        (
            "NAUTILUS_SUI_COMMITTEE",
            committee.to_str().expect("a path"),
        ),
    ])
}

#[test]
fn workers_go_by_the_chain_through_its_outage_and_the_leaders_death() {
    let chain = SuiStandin::start();
    chain.apply(&json!([
        registered("worker-1", "seal-1"),
        registered("late", "seal-2")
    ]));
    let folder = tempfile::tempdir().expect("a folder");
    let quorum = before(&chain, folder.path());
    let beating = quorum.worker("worker-1", "seal-1", &["--interval=500ms", "--count=0"]);
    let mut running = Streamed::start(beating);
    running.wait_for("the registration", |line| line.contains("registered"));
    running.wait_for("a beat", |line| line.contains("acknowledged"));

    // Out of reach: who was judged goes on by that verdict under any leader; who was not is asked
    // to come again.
    chain.set_faults("grpc", &json!({"answer": "refused"}));
    let out_of_reach = Instant::now();
    quorum.kill(&quorum.leader());
    // No verdict stands by its own lifetime any more: the grace alone carries them.
    let mut beats = 0;
    while beats < 4 || out_of_reach.elapsed() < VERDICT_LIFETIME * 3 {
        running.wait_for("beats after the leader's death", |line| {
            line.contains("acknowledged")
        });
        beats += 1;
    }
    quorum.up();
    let once = || quorum.worker("late", "seal-2", &["--count=1"]);
    let mut late = Streamed::start(once());
    late.wait_for("the refusal for now", |line| line.contains("503"));

    // A full node that says yes to everything admits nobody.
    let lies = json!({"workers": [{
        "node_id": "thief", "owner": format!("0x{:0>64}", "bad"), "seal_token": "made-up",
    }]});
    chain.set_faults("grpc", &json!({"answer": {"wrong": lies}}));
    let mut thief = Streamed::start(quorum.worker("thief", "made-up", &["--count=1"]));
    let answer = thief.wait_for("an answer", |line| line.contains("\"status\":"));
    assert!(!answer.contains("\"status\":200"), "{answer}");

    chain.set_faults("grpc", &json!({"answer": "truth"}));
    eventually("the late worker", || {
        let output = once().output().expect("the worker runs");
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stdout).into_owned()),
        }
    });

    // What the chain says of a stake holds at once.
    chain.apply(&json!({
        "operation": "set_status", "node_id": "worker-1", "status": "slashed",
    }));
    running.wait_for("the end of its beats", |line| line.contains("401"));
    eventually("the cordon", || {
        let node = quorum.kubectl_ok(&["get", "node", "worker-1", "-o", "json"]);
        let node: Value = serde_json::from_str(&node).expect("JSON");
        match node["spec"]["unschedulable"] == true {
            true => Ok(()),
            false => Err(node["spec"].to_string()),
        }
    });
}
