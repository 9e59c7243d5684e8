//! The client libraries' examples against a quorum: they believe only its code, and beat
//! through the death of its leader.

use std::process::Command;

use nautilus_tests::{Quorum, Streamed, eventually, program};

/// A measurement that no binary has.
const NOBODYS: &str = "00";

/// The examples of both libraries, with their own name for an interval of 300 ms.
const EXAMPLES: [(&str, &str); 2] = [
    ("client-go", "--interval=300ms"),
    ("client-rust", "--interval-ms=300"),
];

/// An example that knows one member, and the token of `worker-1`.
fn example(quorum: &Quorum, (name, interval): (&str, &str), measurement: &str) -> Command {
    let file = |name: &str| quorum.dir().join(name);
    let tokens = std::fs::read_to_string(file("tokens.toml")).expect("tokens.toml");
    let token = tokens
        .lines()
        .find_map(|line| line.trim().strip_prefix("token = "))
        .expect("a token");
    let mut command = Command::new(program(name));
    command
        .args(["--server", &quorum.leader().api, "--node-id", "worker-1"])
        .args(["--measurement", &format!("simulated:{measurement}")])
        .arg("--simulated-root-key")
        .arg(file("simulated-root.pub"))
        .arg("--ca")
        .arg(file("ca.crt"))
        .arg("--cache")
        .arg(file(name))
        .arg(interval)
        .env("SEAL_TOKEN", token.trim_matches('"'));
    command
}

#[test]
fn both_libraries_beat_through_the_death_of_the_leader() {
    let quorum = Quorum::start();
    let measurement = quorum.leader().measurement.expect("told");
    for example_of in EXAMPLES {
        let mut running = Streamed::start(example(&quorum, example_of, &measurement));
        // It was told of one member and has found the others.
        let beats = |line: &str| {
            let line = line.to_lowercase();
            (line.contains("acknowledged") || line.contains("beat:"))
                && line.contains("3 members known")
        };
        running.wait_for("a beat", beats);
        // The very member that it was told of.
        quorum.kill(&quorum.leader());
        for _ in 0..3 {
            running.wait_for("beats after the leader's death", beats);
        }
        assert!(running.is_running());
        let is_ready = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        let ready = quorum.kubectl_ok(&["get", "node", "worker-1", "-o", is_ready]);
        assert_eq!(ready, "True");
        quorum.up();
        // The next start needs none of those it was told of: the cache names them all.
        let kept = std::fs::read_to_string(quorum.dir().join(example_of.0)).expect("a cache");
        for node in quorum.nodes() {
            assert!(kept.contains(&node.api), "{kept}");
        }
    }
}

#[test]
fn no_library_gives_its_token_to_other_code() {
    let quorum = Quorum::start();
    for example_of in EXAMPLES {
        let output = example(&quorum, example_of, NOBODYS)
            .output()
            .expect("it runs");
        assert!(!output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("is not in the policy"), "{said}");
    }
    eventually("no worker", || {
        let output = quorum.kubectl(&["get", "node", "worker-1"]);
        match String::from_utf8_lossy(&output.stderr).contains("NotFound") {
            true => Ok(()),
            false => Err(format!("{output:?}")),
        }
    });
}
