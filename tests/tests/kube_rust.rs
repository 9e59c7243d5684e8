//! kube-rs, unmodified, against a quorum (`tests/e2e/rust/kube`): requests of every sort, and
//! a controller that goes on over the leader's death.

use std::process::Command;

use nautilus_tests::{Quorum, Streamed, program};

/// What the program goes through before the leader dies.
const PARTS: [&str; 8] = [
    "objects",
    "watches",
    "applies",
    "patches",
    "deletes",
    "definitions",
    "rights",
    "lives",
];

const TENDER: &str = r#"{"apiVersion":"kubers.example.org/v1","kind":"Boat",
    "metadata":{"name":"tender","namespace":"kubers"},"spec":{"seats":4}}"#;

#[test]
fn kube_rs_finds_what_it_finds_in_kubernetes() {
    let quorum = Quorum::start();
    let mut command = Command::new(program("kubers"));
    command.arg(quorum.dir().join("kubeconfig"));
    let mut client = Streamed::start(command);
    for part in PARTS {
        let line = client.wait_for(part, |_| true);
        assert_eq!(line, part);
    }

    // The leader dies; the controller's watches go on, and see what comes after.
    quorum.kill(&quorum.leader());
    quorum.leader();
    let made = quorum.kubectl_with_input(&["create", "-f", "-"], TENDER);
    assert!(made.status.success(), "{made:?}");
    client.wait_for("the boat", |line| line == "launched tender");
    let boats = ["-n", "kubers", "get", "bt", "tender", "--no-headers"];
    let columns = quorum.kubectl_ok(&boats);
    let words: Vec<&str> = columns.split_whitespace().collect();
    assert_eq!(words, ["tender", "4"], "the definition's columns");
    let deletion = ["-n", "kubers", "delete", "boat", "tender", "--timeout=60s"];
    quorum.kubectl_ok(&deletion);
    client.wait_for("its end", |line| line == "scrapped tender");
    client.wait_for("the end", |line| line == "ok");
    assert!(client.join().success());
}
