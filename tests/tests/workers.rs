//! The Go worker in its exact wire form, through the death of the leader.

use nautilus_tests::{Quorum, Streamed, eventually};

/// The development judge's first token, as `nautilus up` writes it.
fn token(quorum: &Quorum) -> String {
    let tokens = std::fs::read_to_string(quorum.dir().join("tokens.toml")).expect("tokens.toml");
    tokens
        .lines()
        .find_map(|line| line.trim().strip_prefix("token = "))
        .map(|value| value.trim_matches('"').to_owned())
        .expect("a token")
}

#[test]
fn a_worker_registers_beats_and_stays_ready_while_leaders_die() {
    let quorum = Quorum::start();
    let token = token(&quorum);
    let mut running =
        Streamed::start(quorum.worker("worker-1", &token, &["--interval=500ms", "--count=0"]));
    running.wait_for("the registration", |line| line.contains("registered"));
    running.wait_for("a beat", |line| line.contains("acknowledged"));

    let ready = || {
        quorum.kubectl_ok(&[
            "get",
            "node",
            "worker-1",
            "-o",
            r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#,
        ])
    };
    eventually("a ready node", || match ready().as_str() {
        "True" => Ok(()),
        other => Err(other.to_owned()),
    });
    for _ in 0..2 {
        quorum.kill(&quorum.leader());
        running.wait_for("a beat after the leader's death", |line| {
            line.contains("acknowledged")
        });
        assert_eq!(ready(), "True");
        quorum.up();
    }
    assert!(running.is_running());
    let listed = quorum.kubectl_ok(&["get", "nodes"]);
    let status = listed
        .lines()
        .find_map(|line| line.strip_prefix("worker-1")?.split_whitespace().next());
    assert_eq!(status, Some("Ready"), "{listed}");
}

#[test]
fn kubectl_top_shows_how_busy_workers_say_they_are_from_any_master() {
    let quorum = Quorum::start();
    let token = token(&quorum);
    let mut running =
        Streamed::start(quorum.worker("worker-1", &token, &["--interval=500ms", "--count=0"]));
    running.wait_for("a beat", |line| line.contains("acknowledged"));
    let size = r#"{"cpu": "4", "memory": "8Gi", "pods": "110"}"#;
    let patch = format!(r#"{{"status": {{"capacity": {size}, "allocatable": {size}}}}}"#);
    quorum.kubectl_ok(&[
        "patch",
        "node",
        "worker-1",
        "--subresource=status",
        "-p",
        &patch,
    ]);
    for node in quorum.nodes() {
        let server = format!("--server={}", node.api);
        eventually("how busy the worker is", || {
            let output = quorum.kubectl(&["top", "nodes", "--no-headers", &server]);
            let shown = String::from_utf8_lossy(&output.stdout);
            match shown.split_whitespace().collect::<Vec<_>>()[..] {
                ["worker-1", "500m", "12%", "3276Mi", "40%"] => Ok(()),
                _ => Err(format!(
                    "{shown}{}",
                    String::from_utf8_lossy(&output.stderr)
                )),
            }
        });
    }
    let other = quorum.kubectl(&["top", "node", "worker-2"]);
    assert!(!other.status.success());
    assert!(running.is_running());
}

#[test]
fn a_worker_with_an_unknown_token_is_refused_in_the_words_it_matches_on() {
    let quorum = Quorum::start();
    let mut running = Streamed::start(quorum.worker("worker-1", "not-a-token", &["--count=1"]));
    running.wait_for("the refusal", |line| {
        line.contains("401") && line.contains("Invalid Seal token")
    });
    assert!(!running.join().success());
    assert!(
        !quorum
            .kubectl(&["get", "node", "worker-1"])
            .status
            .success()
    );
}
