//! The reference: an unmodified kube-apiserver with its store on a quorum's etcd face.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{Quorum, eventually, program};

/// The administrator's token.
const TOKEN: &str = "an-administrators-token";

/// A kube-apiserver; dropped, it is killed.
pub struct ApiServer {
    process: Child,
    port: u16,
    home: TempDir,
}

impl ApiServer {
    /// Starts one on `quorum`'s etcd face and waits until it is ready.
    ///
    /// # Panics
    /// When it ends, or does not get ready, with the last lines of its log.
    pub fn start(quorum: &Quorum) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path();
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
            home,
        };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&mut self) {
        eventually("a ready kube-apiserver", || {
            if let Ok(Some(status)) = self.process.try_wait() {
                panic!("kube-apiserver ended: {status}\n{}", self.log());
            }
            let mut probe = self.kubectl(&["get", "--raw", "/readyz"]);
            let output = probe.stdin(Stdio::null()).output().expect("kubectl runs");
            let answer = [output.stdout, output.stderr].concat();
            let answer = String::from_utf8_lossy(&answer).into_owned();
            output.status.success().then_some(()).ok_or(answer)
        });
    }

    /// A kubeconfig of the administrator.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn kubeconfig(&self) -> PathBuf {
        let path = self.home.path().join("kubeconfig");
        let content = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "reference",
            "clusters": [{ "name": "reference", "cluster": {
                "server": self.server(), "insecure-skip-tls-verify": true,
            } }],
            "users": [{ "name": "admin", "user": { "token": TOKEN } }],
            "contexts": [{ "name": "reference", "context": {
                "cluster": "reference", "user": "admin",
            } }],
        });
        std::fs::write(&path, content.to_string()).expect("written");
        path
    }

    fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// kubectl as the administrator.
    pub fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("kubectl"));
        command
            .args(["--kubeconfig", "/dev/null", "--insecure-skip-tls-verify"])
            .args(["--server", &self.server()])
            .args(["--token", TOKEN])
            .arg("--cache-dir")
            .arg(self.home.path().join("kubectl-cache"))
            .args(arguments);
        command
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
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
