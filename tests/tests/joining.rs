//! Workers that join with their Seal token alone, in the two ways that there are: a stock
//! kubelet's bootstrap (`tests/e2e/cmd/node`) and an agent of K3s (`tests/e2e/cmd/k3sagent`);
//! and what is left of one whose stake is slashed.

use std::path::PathBuf;
use std::process::Command;

use nautilus_tests::{Quorum, Streamed, eventually, program};

/// The development judge's token of a worker.
fn token(quorum: &Quorum, worker: &str) -> String {
    let tokens = std::fs::read_to_string(quorum.dir().join("tokens.toml")).expect("tokens.toml");
    let own = tokens
        .split("[[token]]")
        .find(|entry| entry.contains(&format!("\"{worker}\"")))
        .expect("the worker's entry");
    own.lines()
        .find_map(|line| line.trim().strip_prefix("token = "))
        .map(|value| value.trim_matches('"').to_owned())
        .expect("a token")
}

/// Slashes the stake behind a token: the judge reads its file again when it changes.
fn slash(quorum: &Quorum, worker: &str) {
    let path = quorum.dir().join("tokens.toml");
    let tokens = std::fs::read_to_string(&path).expect("tokens.toml");
    let own = format!("node_id = \"{worker}\"");
    let slashed = tokens.replace(&own, &format!("{own}\nslashed = true"));
    assert_ne!(slashed, tokens);
    std::fs::write(&path, slashed).expect("written");
}

/// A kubeconfig with the token and nobody's certificate.
fn kubeconfig(quorum: &Quorum, token: &str) -> PathBuf {
    let path = quorum.dir().join("bootstrap.kubeconfig");
    let authority = quorum.dir().join("ca.crt");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: x\nclusters:\n- name: c\n  cluster:\n    \
         server: {}\n    certificate-authority: {}\ncontexts:\n- name: x\n  context: {{cluster: c, \
         user: u}}\nusers:\n- name: u\n  user:\n    token: {token}\n",
        quorum.server(),
        authority.display(),
    );
    std::fs::write(&path, text).expect("a kubeconfig");
    path
}

fn ready(quorum: &Quorum, node: &str) -> String {
    let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
    let output = quorum.kubectl(&["get", "node", node, "-o", path]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_stock_kubelet_bootstraps_with_a_seal_token_and_keeps_its_worker_ready() {
    let quorum = Quorum::start();
    let kubeconfig = kubeconfig(&quorum, &token(&quorum, "worker-1"));
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(program("node"));
    command.arg(&kubeconfig).arg("worker-1").arg(folder.path());
    let mut kubelet = Streamed::start(command);
    for step in ["asking", "certified", "registered", "rotated"] {
        let line = kubelet.wait_for(step, |_| true);
        assert_eq!(line, step);
    }
    let label = "jsonpath={.metadata.labels.nautilus\\.io/stake-tier}";
    let tier = quorum.kubectl_ok(&["get", "node", "worker-1", "-o", label]);
    assert_eq!(tier, "node");
    eventually("a ready node", || {
        match ready(&quorum, "worker-1").as_str() {
            "True" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    assert!(kubelet.is_running());
}

#[test]
fn an_agent_of_k3s_joins_is_reached_through_its_tunnel_and_is_shut_out_when_slashed() {
    let quorum = Quorum::start();
    let seal = token(&quorum, "worker-2");
    let mut command = Command::new(program("worker"));
    for node in quorum.nodes() {
        command.arg("--server").arg(node.api);
    }
    command
        .arg("--ca")
        .arg(quorum.dir().join("ca.crt"))
        .args(["--token", &seal, "--node-id", "worker-2"])
        .args(["--interval=500ms", "--count=0"]);
    let mut worker = Streamed::start(command);
    worker.wait_for("a beat", |line| line.contains("acknowledged"));

    let folder = tempfile::tempdir().expect("a folder");
    let server = quorum.server();
    let agent = |token: &str, password: &str| {
        let mut command = Command::new(program("k3sagent"));
        command.args([&server, token, "worker-2", password]);
        command.arg(folder.path());
        Streamed::start(command)
    };
    let summed = Command::new("sha256sum")
        .arg(quorum.dir().join("ca.crt"))
        .output()
        .expect("sha256sum");
    let summed = String::from_utf8_lossy(&summed.stdout).into_owned();
    let hash = summed.split_whitespace().next().expect("a hash");
    let mut running = agent(&format!("K10{hash}::node:{seal}"), "first");
    for step in ["trusted", "configured", "certified"] {
        let line = running.wait_for(step, |_| true);
        assert_eq!(line, step);
    }
    running.wait_for("the servers", |line| line.starts_with("servers "));
    running.wait_for("the node", |line| line == "registered");
    // Side by side, in either order.
    let mut awaited = vec!["connected", "renewed"];
    while !awaited.is_empty() {
        let line = running.wait_for("the tunnel and the lease", |line| awaited.contains(&line));
        awaited.retain(|own| *own != line);
    }
    eventually("the kubelet, through its tunnel", || {
        let path = "/api/v1/nodes/worker-2/proxy/hello";
        let output = quorum.kubectl(&["get", "--raw", path]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let reached = said.contains("asked by kube-apiserver-kubelet-client");
        reached
            .then_some(())
            .ok_or_else(|| format!("{said}{}", String::from_utf8_lossy(&output.stderr)))
    });

    // Its kubeconfig and its key are what kubectl needs.
    let own = |name: &str| folder.path().join(name).display().to_string();
    let as_node = || {
        Command::new(program("kubectl"))
            .args(["--kubeconfig", &own("kubeconfig")])
            .args(["--client-certificate", &own("client-kubelet.crt")])
            .args(["--client-key", &own("client-kubelet.key")])
            .args(["get", "node", "worker-2", "-o", "name"])
            .output()
            .expect("kubectl")
    };
    let output = as_node();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "node/worker-2",
        "{output:?}"
    );

    // Whoever has the token and not the password does not take its place.
    let mut thief = agent(&seal, "second");
    let refusal = thief.wait_for("a refusal", |line| line.starts_with("failed: "));
    assert!(
        refusal.contains("joined with another password"),
        "{refusal}"
    );

    slash(&quorum, "worker-2");
    let columns = eventually("a cordoned node", || {
        let listed = quorum.kubectl_ok(&["get", "nodes", "--no-headers"]);
        let own = listed.lines().find(|line| line.starts_with("worker-2"));
        match own {
            Some(line) if line.contains("SchedulingDisabled") => Ok(line.to_owned()),
            _ => Err(listed),
        }
    });
    assert!(columns.contains("NotReady"), "{columns}");
    let taints = quorum.kubectl_ok(&["get", "node", "worker-2", "-o", "jsonpath={.spec.taints}"]);
    assert!(taints.contains("nautilus.io/stake-slashed"), "{taints}");
    running.wait_for("the refusal of its lease", |line| {
        line.starts_with("lease:") && line.contains("Unauthorized")
    });
    assert!(!as_node().status.success());
}
