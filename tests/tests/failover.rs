//! SIGKILL of the leader, as often as one likes: nothing acknowledged is lost, and
//! clients that speak to a living node do not notice.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use nautilus_tests::{Quorum, Streamed, eventually, program};
use serde_json::Value;

#[test]
fn a_watch_through_the_stable_endpoint_goes_on_when_the_leader_dies() {
    let quorum = Quorum::start();
    quorum.kubectl_ok(&["create", "namespace", "a"]);
    let mut watch = Streamed::start(quorum.kubectl_command(&["get", "pods", "-A", "-w"]));
    quorum.kubectl_ok(&[
        "-n",
        "a",
        "run",
        "before",
        "--image=registry.example/web:1.0",
    ]);
    watch.wait_for("the pod before", |line| line.contains("before"));

    let killed = quorum.leader();
    quorum.kill(&killed);
    eventually("a write after the leader's death", || {
        let output = quorum.kubectl(&[
            "-n",
            "a",
            "run",
            "after",
            "--image=registry.example/web:1.0",
        ]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() || error.contains("already exists") {
            Ok(())
        } else {
            Err(error)
        }
    });
    watch.wait_for("the pod after", |line| line.contains("after"));
    assert!(watch.is_running());

    let next = quorum.leader();
    assert_ne!(next.id, killed.id);
    assert!(next.term > killed.term);
}

#[test]
fn every_acknowledged_write_survives_repeated_kills() {
    let quorum = Quorum::start();
    let mut acknowledged = BTreeSet::new();
    for round in 0..4 {
        for write in 0..5 {
            let name = format!("w-{round}-{write}");
            if quorum
                .kubectl(&["create", "configmap", &name])
                .status
                .success()
            {
                acknowledged.insert(name);
            }
        }
        quorum.kill(&quorum.leader());
        // While one node is down the other two go on.
        let name = format!("w-{round}-alone");
        eventually("a write by two nodes", || {
            let output = quorum.kubectl(&["create", "configmap", &name]);
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() || error.contains("already exists") {
                Ok(())
            } else {
                Err(error)
            }
        });
        acknowledged.insert(name);
        quorum.up();
    }
    assert!(acknowledged.len() >= 24, "{acknowledged:?}");
    for node in 1..=3 {
        let names = quorum.kubectl_on(node, &["get", "configmaps", "-o", "name"]);
        let found: BTreeSet<String> = names
            .lines()
            .filter_map(|line| line.split('/').nth(1))
            .map(String::from)
            .collect();
        let missing: Vec<_> = acknowledged.difference(&found).collect();
        assert!(missing.is_empty(), "node {node} lacks {missing:?}");
    }
}

#[test]
fn an_informer_sees_every_change_once_across_a_failover() {
    for encoding in ["--protobuf=false", "--protobuf=true"] {
        let quorum = Quorum::start();
        let mut informer = Streamed::start({
            let mut command = Command::new(program("informer"));
            command
                .arg("--kubeconfig")
                .arg(quorum.dir().join("kubeconfig"))
                .arg("--resource=configmaps")
                .arg(encoding);
            command
        });
        let create = |name: &str| {
            eventually("a created configmap", || {
                let output = quorum.kubectl(&["create", "configmap", name]);
                let error = String::from_utf8_lossy(&output.stderr).into_owned();
                if output.status.success() || error.contains("already exists") {
                    Ok(())
                } else {
                    Err(error)
                }
            });
        };
        create("n-0");
        informer.wait_for("the first object", |line| line.contains("n-0"));
        for index in 1..=10 {
            if index == 4 || index == 8 {
                quorum.kill(&quorum.leader());
            }
            create(&format!("n-{index}"));
            if index == 4 {
                quorum.up();
            }
        }
        informer.wait_for("the last object", |line| line.contains("n-10"));
        let mut added: BTreeMap<String, u32> = BTreeMap::new();
        for line in informer.drain(Duration::from_millis(500)) {
            let event: Value = serde_json::from_str(line).expect("a JSON line");
            let name = event["name"].as_str().unwrap_or_default();
            if name.starts_with("n-") && event["type"] == "ADDED" {
                *added.entry(name.into()).or_default() += 1;
            }
        }
        let expected: BTreeMap<String, u32> = (0..=10).map(|i| (format!("n-{i}"), 1)).collect();
        assert_eq!(added, expected);
    }
}

#[test]
fn an_orderly_stop_hands_leadership_over_before_it_ends() {
    let quorum = Quorum::start();
    let leader = quorum.leader();
    let pid = rustix::process::Pid::from_raw(leader.pid.expect("pid")).expect("pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("SIGTERM");
    let next = eventually("another leader", || {
        let leader_now = quorum.leader();
        if leader_now.id == leader.id {
            Err(format!("{leader_now:?}"))
        } else {
            Ok(leader_now)
        }
    });
    assert!(next.term > leader.term);
    let log = std::fs::read_to_string(quorum.dir().join(format!("node-{}", leader.id)).join("log"))
        .expect("the node's log");
    assert!(
        log.contains("transferred leadership before stopping"),
        "no word of a transfer in:\n{log}"
    );
}

#[test]
fn leadership_moves_where_the_operator_says() {
    let quorum = Quorum::start();
    let target = quorum.follower();
    let output = quorum.nautilus(&["member", "transfer", &target.id.to_string()]);
    assert!(output.status.success(), "{output:?}");
    eventually("the new leader", || {
        let leader = quorum.leader();
        if leader.id == target.id {
            Ok(())
        } else {
            Err(format!("{leader:?}"))
        }
    });
}
