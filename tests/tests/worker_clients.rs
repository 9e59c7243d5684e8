//! The client libraries' examples against a quorum: they believe only its code, and beat
//! through the death of its leader; workers that know nothing of it do so by the proxy.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nautilus_tests::{Quorum, Streamed, eventually, program};

/// A measurement that no binary has.
const NOBODYS: &str = "00";

/// The address on Sui of the key whose seed is 32 sevens.
const OWNER: &str = "0xa0ccc8bcc83f6c628340134f8546a21e0618fd1aaa02432bba454c4a2c2233da";

/// The examples of both libraries, with their own name for an interval of 300 ms.
const EXAMPLES: [(&str, &str); 2] = [
    ("client-go", "--interval=300ms"),
    ("client-rust", "--interval-ms=300"),
];

/// The development judge's token of `worker-1`.
fn token(quorum: &Quorum) -> String {
    let tokens = std::fs::read_to_string(quorum.dir().join("tokens.toml")).expect("tokens.toml");
    let mut lines = tokens.lines();
    let token = lines.find_map(|line| line.trim().strip_prefix("token = "));
    token.expect("a token").trim_matches('"').to_owned()
}

/// An example that knows one member, and the token of `worker-1`.
fn example(quorum: &Quorum, (name, interval): (&str, &str), measurement: &str) -> Command {
    let file = |name: &str| quorum.dir().join(name);
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
        .env("SEAL_TOKEN", token(quorum));
    command
}

/// A beat that was taken, with every member known.
fn is_beat(line: &str) -> bool {
    (line.contains("acknowledged") || line.contains("Beat:")) && line.contains("3 members known")
}

#[test]
fn both_libraries_beat_through_the_death_of_the_leader() {
    let quorum = Quorum::start();
    let measurement = quorum.leader().measurement.expect("told");
    for example_of in EXAMPLES {
        let mut running = Streamed::start(example(&quorum, example_of, &measurement));
        // It was told of one member and has found the others.
        running.wait_for("a beat", is_beat);
        // The very member that it was told of.
        quorum.kill(&quorum.leader());
        for _ in 0..3 {
            running.wait_for("beats after the leader's death", is_beat);
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
fn the_owners_proof_is_taken_and_a_strangers_is_not() {
    let quorum = Quorum::start();
    let measurement = quorum.leader().measurement.expect("told");
    let tokens = quorum.dir().join("tokens.toml");
    let text = std::fs::read_to_string(&tokens).expect("tokens.toml");
    let owned = text.replacen(
        "owner = \"development\"",
        &format!("owner = \"{OWNER}\""),
        1,
    );
    std::fs::write(&tokens, owned).expect("written");
    let seed = |digits: &str| {
        let path = quorum.dir().join(format!("seed-{digits}"));
        std::fs::write(&path, digits.repeat(32)).expect("written");
        path
    };
    for example_of in EXAMPLES {
        let with = |path: PathBuf| {
            let mut command = example(&quorum, example_of, &measurement);
            command.arg("--owner-key").arg(path);
            command
        };
        let mut running = Streamed::start(with(seed("07")));
        running.wait_for("a beat", is_beat);
        drop(running);
        let output = with(seed("08")).output().expect("it runs");
        assert!(!output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("Invalid Seal token"), "{said}");
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

/// The proxy for workers at `listen`, which keeps the members in a file.
fn proxy(quorum: &Quorum, listen: SocketAddr, server: Option<&str>) -> Streamed {
    let mut command = Command::new(Quorum::binary());
    command
        .args(["proxy", "--anonymous", "--plain", &listen.to_string()])
        .args(["--allow-simulated", "--prefer=leader"])
        .arg("--simulated-root-key")
        .arg(quorum.dir().join("simulated-root.pub"))
        .arg("--members")
        .arg(quorum.dir().join("members.json"));
    if let Some(server) = server {
        command.args(["--server", server]);
    }
    Streamed::start(command)
}

/// A worker of before, at the proxy; it bears two failed beats in a row.
fn unmodified(quorum: &Quorum, listen: SocketAddr) -> Streamed {
    let mut command = Command::new(program("worker"));
    command
        .args(["--server", &format!("http://{listen}")])
        .args(["--token", &token(quorum), "--node-id", "worker-1"])
        .args(["--interval=300ms", "--timeout=30s"]);
    Streamed::start(command)
}

/// Whether the proxy has somebody who answers.
fn healthy(listen: SocketAddr) -> Result<(), String> {
    let mut command = Command::new(program("kubectl"));
    command
        .args([
            "--server",
            &format!("http://{listen}"),
            "get",
            "--raw",
            "/health",
        ])
        .env("KUBECONFIG", "/dev/null");
    let output = command.output().expect("kubectl");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn an_unmodified_worker_goes_on_when_a_master_hangs_and_when_the_one_it_knew_is_gone() {
    let quorum = Quorum::start();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let listen = free.local_addr().expect("bound");
    drop(free);
    let first = quorum.nodes().swap_remove(0);
    let members = quorum.dir().join("members.json");
    let every_member = || {
        let kept = std::fs::read_to_string(&members).unwrap_or_default();
        match quorum.nodes().iter().all(|node| kept.contains(&node.api)) {
            true => Ok(()),
            false => Err(kept),
        }
    };
    let running = proxy(&quorum, listen, Some(&first.api));
    eventually("every member in the file", every_member);
    let mut worker = unmodified(&quorum, listen);
    let is_beat = |line: &str| line.contains("acknowledged");
    worker.wait_for("a beat", is_beat);
    // The host of the leader, where its connection ends, freezes: nothing is closed.
    let leader = quorum.leader();
    let pid = leader.pid.expect("it runs").to_string();
    let stopped = Command::new("kill").args(["-STOP", &pid]).status();
    assert!(stopped.expect("kill").success());
    worker.drain(Duration::from_secs(2));
    for _ in 0..3 {
        worker.wait_for("beats beside the frozen leader", is_beat);
    }
    drop(worker);
    drop(running);
    quorum.kill(&leader);
    quorum.up();
    // The next proxy is told of nobody, and the one that the first was told of is dead.
    let mut nodes = quorum.nodes().into_iter();
    quorum.kill(&nodes.find(|node| node.id == first.id).expect("it is up"));
    let _running = proxy(&quorum, listen, None);
    eventually("an accepted member", || healthy(listen));
    let mut worker = unmodified(&quorum, listen);
    worker.wait_for("a beat by the members that were kept", is_beat);
}
