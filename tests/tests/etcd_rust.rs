//! The Rust client `etcd-client`, unmodified, against a quorum (`tests/e2e/rust/etcd`).

use std::process::Command;

use nautilus_tests::{Quorum, program};

/// What the program goes through.
const PARTS: [&str; 7] = [
    "keys",
    "transactions",
    "watches",
    "leases",
    "locks",
    "elections",
    "upkeep",
];

#[test]
fn the_rust_client_finds_what_it_finds_in_etcd() {
    let quorum = Quorum::start();
    let variables = std::fs::read_to_string(quorum.dir().join("etcd/etcdctl.env"));
    let variables = variables.expect("the variables of etcd clients");
    let variables = variables
        .lines()
        .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
        .map(|(name, value)| (name, value.trim_matches('\'')));
    let output = Command::new(program("etcdrust"))
        .envs(variables)
        .output()
        .expect("the client's program");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "after {said:?}: {complaint}");
    assert_eq!(said.lines().collect::<Vec<_>>(), PARTS);
}
