//! The Python client `kubernetes`, unmodified, against a quorum
//! (`tests/e2e/python/kube_client.py`).

use std::path::Path;
use std::process::Command;

use nautilus_tests::{Quorum, program};

/// What the program goes through.
const PARTS: [&str; 7] = [
    "objects",
    "pages",
    "watches",
    "applies",
    "workloads",
    "rights",
    "ok",
];

#[test]
fn pythons_client_finds_what_it_finds_in_kubernetes() {
    let quorum = Quorum::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/python/kube_client.py");
    let output = Command::new(program("python/bin/python"))
        .arg(script)
        .arg(quorum.dir().join("kubeconfig"))
        .output()
        .expect("the client's program");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.lines().collect::<Vec<_>>(), PARTS, "{complaint}");
    assert!(output.status.success());
}
