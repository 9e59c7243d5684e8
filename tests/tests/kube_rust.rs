//! kube-rs, unmodified, against a quorum (`tests/e2e/rust/kube`).

use std::process::Command;

use nautilus_tests::{Quorum, program};

/// What the program goes through.
const PARTS: [&str; 6] = [
    "objects",
    "watches",
    "applies",
    "definitions",
    "rights",
    "ok",
];

#[test]
fn kube_rs_finds_what_it_finds_in_kubernetes() {
    let quorum = Quorum::start();
    let output = Command::new(program("kubers"))
        .arg(quorum.dir().join("kubeconfig"))
        .output()
        .expect("the client's program");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.lines().collect::<Vec<_>>(), PARTS, "{complaint}");
    assert!(output.status.success());
}
