//! The JavaScript client `@kubernetes/client-node`, unmodified, against a quorum
//! (`tests/e2e/javascript/client.mjs`).

use std::process::Command;

use nautilus_tests::{Quorum, program};

/// What the program goes through.
const PARTS: [&str; 7] = [
    "objects",
    "watches",
    "informers",
    "applies",
    "workloads",
    "rights",
    "ok",
];

#[test]
fn javascripts_client_finds_what_it_finds_in_kubernetes() {
    let quorum = Quorum::start();
    let output = Command::new("node")
        .arg(program("javascript/client.mjs"))
        .arg(quorum.dir().join("kubeconfig"))
        .output()
        .expect("node");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.lines().collect::<Vec<_>>(), PARTS, "{complaint}");
    assert!(output.status.success());
}
