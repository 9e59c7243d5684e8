//! The scheduler of a quorum: pods get nodes whoever leads, are told why they have none, and
//! the decision can be asked for.

use nautilus_tests::{Quorum, eventually};
use serde_json::{Value, json};

fn apply(quorum: &Quorum, object: &Value) {
    let applied = quorum.kubectl_with_input(&["apply", "-f", "-"], &object.to_string());
    assert!(applied.status.success(), "{applied:?}");
}

/// A node that nobody runs, with room for so many pods of one CPU.
fn node(quorum: &Quorum, name: &str, cpus: u32) {
    let room = json!({"cpu": cpus.to_string(), "memory": "8Gi", "pods": "100"});
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"capacity": room, "allocatable": room},
    });
    let made = quorum.kubectl_with_input(&["create", "-f", "-"], &node.to_string());
    assert!(made.status.success(), "{made:?}");
}

fn pod(quorum: &Quorum, name: &str) {
    apply(
        quorum,
        &json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "containers": [{
                    "name": "c", "image": "example/c",
                    "resources": {"requests": {"cpu": "1"}},
                }],
                // Nobody says that the nodes are well.
                "tolerations": [{"operator": "Exists"}],
            },
        }),
    );
}

fn field(quorum: &Quorum, name: &str, path: &str) -> String {
    quorum.kubectl_ok(&["get", "pod", name, "-o", &format!("jsonpath={{{path}}}")])
}

fn is_on(quorum: &Quorum, name: &str, node: &str) {
    eventually(&format!("{name} is on {node}"), || {
        let own = field(quorum, name, ".spec.nodeName");
        if own == node { Ok(()) } else { Err(own) }
    });
}

fn explained(quorum: &Quorum, name: &str) -> Value {
    eventually("the decision is explained", || {
        let pod = format!("default/{name}");
        let output = quorum.nautilus(&["explain", "pod", &pod, "--output", "json"]);
        match output.status.success() {
            true => serde_json::from_slice(&output.stdout).map_err(|error| error.to_string()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    })
}

#[test]
fn pods_get_nodes_whoever_leads() {
    let quorum = Quorum::start();
    node(&quorum, "a", 2);
    for name in ["one", "two"] {
        pod(&quorum, name);
        is_on(&quorum, name, "a");
    }
    pod(&quorum, "three");
    let message = r#".status.conditions[?(@.type=="PodScheduled")].message"#;
    eventually("the third is told why it waits", || {
        let own = field(&quorum, "three", message);
        match own.starts_with("0/1 nodes are available: 1 Insufficient cpu.") {
            true => Ok(()),
            false => Err(own),
        }
    });
    let why = explained(&quorum, "three");
    assert_eq!(why["state"], "Unschedulable");
    assert_eq!(why["nodes"][0]["reasons"], json!(["Insufficient cpu"]));

    quorum.kill(&quorum.leader());
    node(&quorum, "b", 1);
    is_on(&quorum, "three", "b");
    assert_eq!(explained(&quorum, "three")["node"], "b");
    for name in ["one", "two"] {
        is_on(&quorum, name, "a");
    }
    eventually("events tell of it", || {
        let events = quorum.kubectl_ok(&["get", "events"]);
        let told = ["Scheduled", "FailedScheduling"];
        match told.iter().all(|reason| events.contains(reason)) {
            true => Ok(()),
            false => Err(events),
        }
    });
}
