//! The reference's control plane: etcd, kube-apiserver, kube-controller-manager and
//! kube-scheduler, unmodified.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{eventually, program};

/// The administrator's token, and the controllers'.
const TOKEN: &str = "an-administrators-token";

/// Requests per second that the reference's components may send: more than they do.
const REQUESTS_PER_S: &str = "1000";

/// A whole control plane; dropped, it is killed.
pub struct Reference {
    home: TempDir,
    processes: Vec<Child>,
}

impl Reference {
    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    pub fn start() -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let mut reference = Self {
            home,
            processes: Vec::new(),
        };
        let [client, peer, api] = [(); 3].map(|()| free_port());
        let etcd = format!("http://127.0.0.1:{client}");
        let between = format!("http://127.0.0.1:{peer}");
        reference.spawn(
            "etcd",
            &[
                ("data-dir", reference.path("etcd")),
                ("listen-client-urls", etcd.clone()),
                ("advertise-client-urls", etcd.clone()),
                ("listen-peer-urls", between.clone()),
                ("initial-advertise-peer-urls", between.clone()),
                ("initial-cluster", format!("default={between}")),
                ("unsafe-no-fsync", "true".into()),
            ],
        );
        let key = rcgen::KeyPair::generate().expect("a key");
        reference.write("accounts.key", &key.serialize_pem());
        reference.write("accounts.pub", &key.public_key_pem());
        reference.write("tokens.csv", &format!("{TOKEN},admin,1,system:masters\n"));
        reference.spawn(
            "kube-apiserver",
            &[
                ("etcd-servers", etcd),
                ("service-account-issuer", "https://reference.test".into()),
                (
                    "service-account-signing-key-file",
                    reference.path("accounts.key"),
                ),
                ("service-account-key-file", reference.path("accounts.pub")),
                ("token-auth-file", reference.path("tokens.csv")),
                ("authorization-mode", "RBAC".into()),
                ("service-cluster-ip-range", "10.0.0.0/16".into()),
                ("bind-address", "127.0.0.1".into()),
                ("secure-port", api.to_string()),
                ("cert-dir", reference.path("serving")),
            ],
        );
        let kubeconfig = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "reference",
            "clusters": [{ "name": "reference", "cluster": {
                "server": format!("https://127.0.0.1:{api}"), "insecure-skip-tls-verify": true,
            } }],
            "users": [{ "name": "admin", "user": { "token": TOKEN } }],
            "contexts": [{ "name": "reference", "context": {
                "cluster": "reference", "user": "admin",
            } }],
        });
        reference.write("kubeconfig", &kubeconfig.to_string());
        reference.wait_until_ready();
        let common = [
            ("kubeconfig", reference.path("kubeconfig")),
            ("leader-elect", "false".into()),
            ("kube-api-qps", REQUESTS_PER_S.into()),
            ("kube-api-burst", REQUESTS_PER_S.into()),
            ("secure-port", "0".into()),
        ];
        reference.spawn("kube-scheduler", &common);
        let own = (
            "service-account-private-key-file",
            reference.path("accounts.key"),
        );
        reference.spawn("kube-controller-manager", &[&common[..], &[own]].concat());
        reference
    }

    /// A kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("kubeconfig")
    }

    fn path(&self, name: &str) -> String {
        let path: &Path = self.home.path();
        path.join(name).to_str().expect("UTF-8").to_owned()
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).expect("written");
    }

    fn spawn(&mut self, name: &str, flags: &[(&str, String)]) {
        let log = std::fs::File::create(self.path(&format!("{name}.log"))).expect("a log");
        let flags = flags
            .iter()
            .map(|(flag, value)| format!("--{flag}={value}"));
        let process = Command::new(program(name))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        self.processes.push(process);
    }

    fn wait_until_ready(&self) {
        eventually("a ready kube-apiserver", || {
            let output = Command::new(program("kubectl"))
                .arg("--kubeconfig")
                .arg(self.kubeconfig())
                .args(["get", "--raw", "/api/v1/namespaces/default"])
                .stdin(Stdio::null())
                .output()
                .expect("kubectl runs");
            let answer = [output.stdout, output.stderr].concat();
            let answer = String::from_utf8_lossy(&answer).into_owned();
            output.status.success().then_some(()).ok_or(answer)
        });
    }

    /// The last lines of every log.
    fn logs(&self) -> String {
        let mut all = String::new();
        for name in [
            "etcd",
            "kube-apiserver",
            "kube-scheduler",
            "kube-controller-manager",
        ] {
            let log = std::fs::read_to_string(self.path(&format!("{name}.log")));
            let log = log.unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(20)..];
            all += &format!("--- {name}\n{}\n", tail.join("\n"));
        }
        all
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}
