//! A cluster as its clients see it: kubectl, plain reads through `kubectl proxy`, and kwok
//! playing the nodes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::folder;
use crate::{Streamed, eventually, program};

/// How long a read may take.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// The nodes that a cluster has.
pub enum Nodes {
    /// Those of `workloads/nodes.yaml`.
    Standard,
    /// So many, in ten zones.
    Many(u32),
}

impl Nodes {
    fn manifests(&self) -> String {
        match self {
            Self::Standard => std::fs::read_to_string(folder().join("nodes.yaml")).expect("nodes"),
            Self::Many(count) => {
                let nodes: Vec<Value> = (0..*count).map(node).collect();
                json!({ "apiVersion": "v1", "kind": "List", "items": nodes }).to_string()
            }
        }
    }

    /// Seconds for which kwok says that a node lives; it renews that four times in these.
    /// Many nodes renew as seldom as a master's patience (50 s) allows.
    fn lease_s(&self) -> &'static str {
        match self {
            Self::Standard => "40",
            Self::Many(_) => "120",
        }
    }
}

fn node(number: u32) -> Value {
    let name = format!("many-{number}");
    let room = json!({ "cpu": "32", "memory": "128Gi", "pods": "110" });
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": name, "labels": {
            "played-by": "kwok", "kubernetes.io/hostname": name,
            "topology.kubernetes.io/region": "r",
            "topology.kubernetes.io/zone": format!("zone-{}", number % 10),
        } },
        "status": { "capacity": room, "allocatable": room },
    })
}

/// A cluster with nodes; dropped, its proxy and its kwok end.
pub struct Cluster {
    home: TempDir,
    kubeconfig: PathBuf,
    proxy: Mutex<Streamed>,
    port: u16,
    kwok: Child,
}

impl Cluster {
    /// Puts nodes into the cluster of a kubeconfig, played by kwok, and waits until they
    /// are ready.
    ///
    /// # Panics
    /// When a program is missing or the nodes do not get ready.
    pub fn start(kubeconfig: &Path, nodes: &Nodes) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let mut proxy = Command::new(program("kubectl"));
        proxy.arg("--kubeconfig").arg(kubeconfig);
        proxy.args(["proxy", "--port=0"]);
        let mut proxy = Streamed::start(proxy);
        let line = proxy.wait_for("kubectl's proxy", |line| line.contains("127.0.0.1:"));
        let port = line
            .rsplit(':')
            .next()
            .and_then(|port| port.trim().parse().ok());
        let log = std::fs::File::create(home.path().join("kwok.log")).expect("a log");
        let kwok = Command::new(program("kwok"))
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--config")
            .arg(folder().join("stages.yaml"))
            .args(["--manage-nodes-with-label-selector", "played-by=kwok"])
            .args(["--node-lease-duration-seconds", nodes.lease_s()])
            .args(["--server-address", "127.0.0.1:0"])
            .env("HOME", home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("kwok");
        let cluster = Self {
            home,
            kubeconfig: kubeconfig.to_owned(),
            proxy: Mutex::new(proxy),
            port: port.expect("its port"),
            kwok,
        };
        let made = cluster.kubectl(&["create", "-f", "-"], &nodes.manifests());
        made.expect("nodes");
        cluster.wait_for_nodes();
        cluster
    }

    /// Waits until every node is ready and may be used.
    ///
    /// # Panics
    /// When that does not come.
    pub fn wait_for_nodes(&self) {
        eventually("ready nodes", || {
            let nodes = self
                .get("/api/v1/nodes")
                .map_err(|error| error.to_string())?;
            let waiting: Vec<&Value> = items(&nodes)
                .filter(|node| {
                    let ready = items_of(&node["status"]["conditions"])
                        .any(|own| own["type"] == "Ready" && own["status"] == "True");
                    let tainted = items_of(&node["spec"]["taints"])
                        .any(|taint| taint["key"] == "node.kubernetes.io/not-ready");
                    !ready || tainted
                })
                .map(|node| &node["metadata"]["name"])
                .collect();
            waiting
                .is_empty()
                .then_some(())
                .ok_or(format!("{waiting:?}"))
        });
    }

    /// Runs kubectl with `input` on its standard input.
    ///
    /// # Errors
    /// What it said when it failed.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut child = Command::new(program("kubectl"))
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(self.home.path().join("cache"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut to = child.stdin.take().context("piped")?;
        to.write_all(input.as_bytes())?;
        drop(to);
        let output = child.wait_with_output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.success(),
            "kubectl {arguments:?}: {printed}{complaint}"
        );
        Ok(printed)
    }

    /// Reads what is at a path.
    ///
    /// # Errors
    /// When no answer comes, or another than 200.
    pub fn get(&self, path: &str) -> Result<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        // HTTP/1.0: an answer ends with its connection and has no chunks.
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let head = answer.windows(4).position(|at| at == b"\r\n\r\n");
        let head = head.context("an answer without an end of its headers")?;
        let status = String::from_utf8_lossy(&answer[..head]);
        if status.split(' ').nth(1) != Some("200") {
            bail!("{path}: {status}");
        }
        Ok(serde_json::from_slice(&answer[head + 4..])?)
    }

    /// What kwok and the proxy said last, for a test that failed.
    pub fn log(&mut self) -> String {
        let log = std::fs::read_to_string(self.home.path().join("kwok.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let proxy = self.proxy.get_mut().unwrap_or_else(PoisonError::into_inner);
        let proxy = proxy.drain(Duration::ZERO).join("\n");
        format!(
            "{proxy}\n{}",
            lines[lines.len().saturating_sub(20)..].join("\n")
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- kwok\n{}", self.log());
        }
        let _ = self.kwok.kill();
        let _ = self.kwok.wait();
    }
}

/// The objects of a list.
pub(super) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    items_of(&list["items"])
}

/// The elements of an array; nothing where there is none.
pub(super) fn items_of(array: &Value) -> impl Iterator<Item = &Value> {
    array.as_array().into_iter().flatten()
}
