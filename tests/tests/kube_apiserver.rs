//! An unmodified kube-apiserver with its store on our etcd face: 1,000 pods are created by
//! kubectl while the leader of the store is killed, and nothing that was told is lost.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nautilus_tests::{Quorum, Streamed, eventually, program};

/// Pods that are created.
const PODS: usize = 1000;
/// Pods that the watch has shown when the leader is killed.
const PODS_BEFORE_THE_KILL: usize = 300;
/// The administrator's token.
const TOKEN: &str = "an-administrators-token";

#[test]
fn a_kube_apiserver_loses_nothing_when_the_leader_of_its_store_dies() {
    let quorum = Quorum::start();
    let folder = tempfile::tempdir().expect("a folder");
    let server = ApiServer::start(&quorum, folder.path());
    let pods = folder.path().join("pods.yaml");
    std::fs::write(&pods, manifests()).expect("written");

    let mut watch = Streamed::start(server.kubectl(&["get", "pods", "--watch", "-o", "name"]));
    let create = server
        .kubectl(&["create", "-o", "name", "-f"])
        .arg(&pods)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl");
    for _ in 0..PODS_BEFORE_THE_KILL {
        watch.wait_for("a pod", |line| line.starts_with("pod/"));
    }
    quorum.kill(&quorum.leader());
    let created = create.wait_with_output().expect("kubectl's output");
    let told = names(&created);
    assert!(
        told.len() > PODS_BEFORE_THE_KILL,
        "nothing was created after the kill: {}",
        text(&created.stderr)
    );

    // The next leader serves, and everything that was told is there.
    let present = eventually("a list of the pods", || {
        let output = run(&mut server.kubectl(&["get", "pods", "-o", "name"]));
        output
            .status
            .success()
            .then(|| names(&output))
            .ok_or(text(&output.stderr))
    });
    let lost: Vec<_> = told.difference(&present).collect();
    assert!(lost.is_empty(), "told but not there: {lost:?}");

    // Whatever the kill made fail can be created now.
    eventually("the rest of the pods", || {
        let mut again = server.kubectl(&["create", "-o", "name", "-f"]);
        let output = run(again.arg(&pods));
        let refused = text(&output.stderr);
        match refused.lines().find(|line| !line.contains("AlreadyExists")) {
            Some(other) => Err(other.to_owned()),
            None => Ok(()),
        }
    });
    let all = names(&run(&mut server.kubectl(&["get", "pods", "-o", "name"])));
    assert_eq!(all.len(), PODS);

    // The watch that ran all the time has shown each of them once.
    let mut shown = Vec::new();
    eventually("the watch's events", || {
        shown = pod_lines(watch.drain(std::time::Duration::from_millis(300)).iter());
        if shown.len() >= PODS {
            Ok(())
        } else {
            Err(format!("{} pods", shown.len()))
        }
    });
    assert_eq!(shown.len(), PODS, "a pod was shown twice");
    assert_eq!(shown.into_iter().collect::<BTreeSet<_>>(), all);
}

/// A kube-apiserver; dropped, it is killed.
struct ApiServer {
    process: Child,
    port: u16,
    home: PathBuf,
}

impl ApiServer {
    /// Starts one on `quorum`'s etcd face and waits until it is ready.
    fn start(quorum: &Quorum, folder: &Path) -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let private = folder.join("accounts.key");
        let public = folder.join("accounts.pub");
        let tokens = folder.join("tokens.csv");
        for (path, content) in [
            (&private, key.serialize_pem()),
            (&public, key.public_key_pem()),
            (&tokens, format!("{TOKEN},admin,1,system:masters\n")),
        ] {
            std::fs::write(path, content).expect("written");
        }
        let port = TcpListener::bind(("127.0.0.1", 0))
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let etcd = quorum.dir().join("etcd");
        let log = std::fs::File::create(folder.join("log")).expect("a log");
        let process = Command::new(program("kube-apiserver"))
            .args(["--etcd-servers", &endpoints(quorum)])
            .arg("--etcd-cafile")
            .arg(quorum.dir().join("ca.crt"))
            .arg("--etcd-certfile")
            .arg(etcd.join("client.crt"))
            .arg("--etcd-keyfile")
            .arg(etcd.join("client.key"))
            .args(["--service-account-issuer", "https://nautilus.test"])
            .arg("--service-account-signing-key-file")
            .arg(&private)
            .arg("--service-account-key-file")
            .arg(&public)
            .arg("--token-auth-file")
            .arg(&tokens)
            .args(["--authorization-mode", "RBAC"])
            .args(["--service-cluster-ip-range", "10.0.0.0/24"])
            // No controller makes the account that it asks for.
            .args(["--disable-admission-plugins", "ServiceAccount"])
            .args([
                "--bind-address",
                "127.0.0.1",
                "--secure-port",
                &port.to_string(),
            ])
            .arg("--cert-dir")
            .arg(folder.join("serving"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("kube-apiserver");
        let mut server = Self {
            process,
            port,
            home: folder.to_owned(),
        };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&mut self) {
        eventually("a ready kube-apiserver", || {
            if let Ok(Some(status)) = self.process.try_wait() {
                panic!("kube-apiserver ended: {status}\n{}", self.log());
            }
            let output = run(&mut self.kubectl(&["get", "--raw", "/readyz"]));
            let answer = text(&output.stdout) + &text(&output.stderr);
            output.status.success().then_some(()).ok_or(answer)
        });
    }

    /// kubectl as the administrator.
    fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("kubectl"));
        command
            .args(["--kubeconfig", "/dev/null", "--insecure-skip-tls-verify"])
            .args(["--server", &format!("https://127.0.0.1:{}", self.port)])
            .args(["--token", TOKEN])
            .arg("--cache-dir")
            .arg(self.home.join("kubectl-cache"))
            .args(arguments);
        command
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.home.join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- kube-apiserver\n{}", self.log());
        }
    }
}

/// Where the etcd face is served, from the file that `nautilus up` leaves for etcdctl.
fn endpoints(quorum: &Quorum) -> String {
    let path = quorum.dir().join("etcd/etcdctl.env");
    let environment = std::fs::read_to_string(&path).expect("etcdctl.env");
    let line = environment
        .lines()
        .find_map(|line| line.strip_prefix("export ETCDCTL_ENDPOINTS="));
    line.expect("the endpoints").trim_matches('\'').to_owned()
}

/// Every pod, as YAML documents.
fn manifests() -> String {
    (0..PODS).fold(String::new(), |mut all, number| {
        let _ = write!(
            all,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: pod-{number}, namespace: default}}\n\
             spec: {{containers: [{{name: only, image: example.com/nothing}}]}}\n"
        );
        all
    })
}

fn names(output: &Output) -> BTreeSet<String> {
    let stdout = text(&output.stdout);
    stdout.lines().map(str::to_owned).collect()
}

fn pod_lines<'a>(lines: impl Iterator<Item = &'a String>) -> Vec<String> {
    lines
        .filter(|line| line.starts_with("pod/"))
        .cloned()
        .collect()
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("kubectl runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
