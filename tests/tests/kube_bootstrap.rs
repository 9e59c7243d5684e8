//! A kubelet's way into a quorum, by client-go's own machinery (`tests/e2e/cmd/node`): a
//! bootstrap token, a certificate request, approval by hand and by right, the node, its lease.

use std::path::{Path, PathBuf};
use std::process::Command;

use nautilus_tests::{Quorum, Streamed, eventually, program};

const TOKEN_ID: &str = "abcdef";
const TOKEN_SECRET: &str = "0123456789abcdef";
/// What the bootstrap roles for approved certificate requests begin with.
const APPROVED: &str = "system:certificates.k8s.io:certificatesigningrequests";

/// A kubeconfig with the bootstrap token and nobody's certificate.
fn kubeconfig(quorum: &Quorum) -> PathBuf {
    let path = quorum.dir().join("bootstrap.kubeconfig");
    let file = path.to_str().expect("UTF-8");
    let server = quorum.server();
    let authority = quorum.dir().join("ca.crt");
    let authority = format!("--certificate-authority={}", authority.display());
    let config = |words: &[&str]| {
        let output = Command::new(program("kubectl"))
            .args(["config", "--kubeconfig", file])
            .args(words)
            .output()
            .expect("kubectl");
        assert!(output.status.success(), "{output:?}");
    };
    let server = format!("--server={server}");
    config(&["set-cluster", "c", &server, &authority]);
    let token = format!("--token={TOKEN_ID}.{TOKEN_SECRET}");
    config(&["set-credentials", "u", &token]);
    config(&["set-context", "x", "--cluster=c", "--user=u"]);
    config(&["use-context", "x"]);
    path
}

fn node(kubeconfig: &Path, name: &str, folder: &Path) -> Streamed {
    let mut command = Command::new(program("node"));
    command.arg(kubeconfig).arg(name).arg(folder);
    Streamed::start(command)
}

/// When the node's lease was renewed last.
fn renewed(quorum: &Quorum, name: &str) -> String {
    let path = "jsonpath={.spec.renewTime}";
    let output = quorum.kubectl(&["-n", "kube-node-lease", "get", "lease", name, "-o", path]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn renews(quorum: &Quorum, name: &str) {
    let before = eventually("the lease", || {
        let found = renewed(quorum, name);
        let is_there = !found.is_empty();
        is_there.then_some(found).ok_or_else(String::new)
    });
    eventually("a renewed lease", || {
        let now = renewed(quorum, name);
        let is_renewed = !now.is_empty() && now != before;
        is_renewed.then_some(()).ok_or(now)
    });
}

#[test]
fn kubelets_bootstrap_register_and_renew() {
    let quorum = Quorum::start();
    let id = format!("--from-literal=token-id={TOKEN_ID}");
    let secret = format!("--from-literal=token-secret={TOKEN_SECRET}");
    let name = format!("bootstrap-token-{TOKEN_ID}");
    quorum.kubectl_ok(&[
        "-n",
        "kube-system",
        "create",
        "secret",
        "generic",
        &name,
        "--type=bootstrap.kubernetes.io/token",
        &id,
        &secret,
        "--from-literal=usage-bootstrap-authentication=true",
        "--from-literal=auth-extra-groups=system:bootstrappers:racks",
    ]);
    let bind = |name: &str, role: &str, group: &str| {
        let role = format!("--clusterrole={role}");
        let group = format!("--group={group}");
        quorum.kubectl_ok(&["create", "clusterrolebinding", name, &role, &group]);
    };
    bind("ask", "system:node-bootstrapper", "system:bootstrappers");
    bind(
        "go-on",
        &format!("{APPROVED}:selfnodeclient"),
        "system:nodes",
    );
    let kubeconfig = kubeconfig(&quorum);
    let folder = tempfile::tempdir().expect("a folder");
    let pairs = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).expect("a folder");
        path
    };

    // By hand: the request waits for somebody.
    let mut first = node(&kubeconfig, "first", &pairs("first"));
    first.wait_for("the request", |line| line == "asking");
    let request = eventually("the request", || {
        let requests = quorum.kubectl_ok(&["get", "csr", "-o", "name"]);
        let first = requests.lines().next().map(str::to_owned);
        first.ok_or(requests)
    });
    let columns = quorum.kubectl_ok(&["get", &request, "--no-headers"]);
    for word in [
        "kubernetes.io/kube-apiserver-client-kubelet",
        "system:bootstrap:abcdef",
        "Pending",
    ] {
        assert!(columns.contains(word), "{columns}");
    }
    let path = "jsonpath={.spec.groups}";
    let groups = quorum.kubectl_ok(&["get", &request, "-o", path]);
    assert!(groups.contains("system:bootstrappers:racks"), "{groups}");
    let request = request.rsplit('/').next().unwrap_or_default();
    quorum.kubectl_ok(&["certificate", "approve", request]);
    for step in ["certified", "registered", "rotated"] {
        let line = first.wait_for(step, |_| true);
        assert_eq!(line, step);
    }
    renews(&quorum, "first");

    // By right: whoever may have it gets it.
    bind(
        "be-approved",
        &format!("{APPROVED}:nodeclient"),
        "system:bootstrappers:racks",
    );
    let mut second = node(&kubeconfig, "second", &pairs("second"));
    for step in ["asking", "certified", "registered", "rotated"] {
        let line = second.wait_for(step, |_| true);
        assert_eq!(line, step);
    }
    let nodes = quorum.kubectl_ok(&["get", "nodes", "--no-headers"]);
    let ready = nodes.lines().filter(|line| line.contains(" Ready "));
    assert_eq!(ready.count(), 2, "{nodes}");

    // The leader dies; leases are renewed all the same, by the certificates of before.
    quorum.kill(&quorum.leader());
    quorum.leader();
    renews(&quorum, "first");
    renews(&quorum, "second");
    assert!(first.is_running() && second.is_running());

    // Without the token's secret nobody new comes in; a node keeps its place.
    let removed = ["-n", "kube-system", "delete", "secret", &name];
    quorum.kubectl_ok(&removed);
    let mut third = node(&kubeconfig, "third", &pairs("third"));
    let refusal = third.wait_for("a refusal", |line| line.starts_with("failed: "));
    assert!(refusal.contains("Unauthorized"), "{refusal}");
    renews(&quorum, "first");
}
