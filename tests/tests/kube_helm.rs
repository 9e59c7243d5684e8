//! Helm's own library installs, upgrades, rolls back and removes a chart
//! (`tests/e2e/cmd/helm`).

use std::path::Path;
use std::process::Command;

use nautilus_tests::{Quorum, program};

/// What the program goes through.
const STEPS: [&str; 6] = [
    "installed",
    "upgraded",
    "rolled back",
    "listed",
    "uninstalled",
    "ok",
];

#[test]
fn helm_takes_a_chart_through_its_life() {
    let quorum = Quorum::start();
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/cmd/helm/chart");
    let output = Command::new(program("helm"))
        .arg(quorum.dir().join("kubeconfig"))
        .arg(chart)
        .env("HOME", quorum.dir())
        .output()
        .expect("the program");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.lines().collect::<Vec<_>>(), STEPS, "{complaint}");
}
