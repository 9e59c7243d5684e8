//! A quorum of real `nautilus` processes, started and stopped by the CLI as an
//! operator would.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nautilus_attest_tee::PlatformSecret;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::Deserialize;
use tempfile::TempDir;
use toml::Table;

use crate::client::program;
use crate::eventually;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A node as `nautilus status --output json` shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct NodeStatus {
    /// Its id.
    pub id: u64,
    /// `leader`, `follower`, `learner`, `candidate` or `unreachable`.
    pub role: String,
    /// Its term.
    pub term: Option<u64>,
    /// Its last applied log index.
    pub applied: Option<serde_json::Value>,
    /// Its process.
    pub pid: Option<i32>,
    /// `https://host:port` of its API.
    pub api: String,
    /// Hex of its measurement.
    pub measurement: Option<String>,
    /// Its TEE.
    pub tee: Option<String>,
}

/// A running quorum in a temporary folder; dropped, it is stopped and removed.
pub struct Quorum {
    folder: TempDir,
    environment: Vec<(String, String)>,
    _alone: MutexGuard<'static, ()>,
}

/// For [`Quorum::start_with`]: a test says itself what controllers would.
pub const WITHOUT_CONTROLLERS: [(&str, &str); 1] = [("NAUTILUS_CONTROLLERS", "-*")];

impl Quorum {
    /// Starts three nodes and waits until they are ready.
    ///
    /// # Panics
    /// When the quorum does not come up, with the CLI's output.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, with settings for every node in the environment.
    ///
    /// # Panics
    /// As [`Quorum::start`].
    pub fn start_with(environment: &[(&str, &str)]) -> Self {
        let mut quorum = Self::prepare();
        quorum.environment = environment
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect();
        quorum.up();
        quorum
    }

    /// A quorum's folder in which nothing runs yet: [`Quorum::up`] starts it.
    ///
    /// # Panics
    /// When there is no folder to be had.
    pub fn prepare() -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::Builder::new()
            .prefix("nautilus-")
            .tempdir()
            .expect("a folder");
        Self {
            folder,
            environment: Vec::new(),
            _alone: alone,
        }
    }

    /// The quorum's folder.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a configuration for a fourth node, after node 2's and as `alter` leaves it;
    /// gives its file and the peers' address.
    pub fn fourth(&self, alter: impl FnOnce(&mut Table)) -> (PathBuf, String) {
        let folder = self.dir().join("node-4");
        std::fs::create_dir(&folder).expect("a folder");
        PlatformSecret::load_or_create(&folder.join("platform-secret")).expect("a platform");
        let template = self.dir().join("node-2").join("config.toml");
        let text = std::fs::read_to_string(template).expect("node 2's configuration");
        let mut table: Table = text.parse().expect("TOML");
        let path = |path: &Path| toml::Value::from(path.to_str().expect("UTF-8"));
        table["node_id"] = toml::Value::from(4);
        table["data_dir"] = path(&folder.join("data"));
        table["attestation"]["platform_secret"] = path(&folder.join("platform-secret"));
        let mut peer = String::new();
        for section in ["etcd", "api", "peer"] {
            let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            peer = free.local_addr().expect("its address").to_string();
            table[section]["listen"] = toml::Value::from(peer.clone());
        }
        alter(&mut table);
        let file = folder.join("config.toml");
        std::fs::write(&file, table.to_string()).expect("written");
        (file, peer)
    }

    /// The binary under test: `NAUTILUS_BIN`, or the one beside the test's own build.
    pub fn binary() -> PathBuf {
        std::env::var_os("NAUTILUS_BIN").map_or_else(
            || {
                let exe = std::env::current_exe().expect("the test's own path");
                exe.ancestors()
                    .nth(2)
                    .expect("release directory")
                    .join("nautilus")
            },
            PathBuf::from,
        )
    }

    /// The CLI on this quorum's folder.
    pub fn nautilus(&self, arguments: &[&str]) -> Output {
        let environment = self.environment.iter().map(|(key, value)| (key, value));
        run(Command::new(Self::binary())
            .args(arguments)
            .arg("--dir")
            .arg(self.dir())
            .envs(environment))
    }

    /// The Go worker `node_id` with a Seal token, and all nodes to turn to.
    pub fn worker(&self, node_id: &str, token: &str, extra: &[&str]) -> Command {
        let mut command = Command::new(program("worker"));
        for node in self.nodes() {
            command.arg("--server").arg(node.api);
        }
        command
            .arg("--ca")
            .arg(self.dir().join("ca.crt"))
            .args(["--token", token, "--node-id", node_id])
            .args(extra);
        command
    }

    /// Starts whatever does not run, and waits until all is ready.
    pub fn up(&self) {
        let output = self.nautilus(&["up", "--detach", "--nodes", "3"]);
        assert!(
            output.status.success(),
            "up failed: {}{}",
            text(&output.stdout),
            self.logs()
        );
    }

    /// Every node's state.
    pub fn nodes(&self) -> Vec<NodeStatus> {
        #[derive(Deserialize)]
        struct Status {
            nodes: Vec<NodeStatus>,
        }
        let output = self.nautilus(&["status", "--output", "json"]);
        serde_json::from_slice::<Status>(&output.stdout)
            .unwrap_or_else(|error| panic!("status: {error}: {}", text(&output.stdout)))
            .nodes
    }

    /// The node that leads, once one does.
    pub fn leader(&self) -> NodeStatus {
        eventually("a leader", || {
            let nodes = self.nodes();
            nodes
                .iter()
                .filter(|node| node.role == "leader")
                .max_by_key(|node| node.term)
                .cloned()
                .ok_or_else(|| format!("{nodes:?}"))
        })
    }

    /// A node that follows.
    pub fn follower(&self) -> NodeStatus {
        eventually("a follower", || {
            let nodes = self.nodes();
            nodes
                .iter()
                .find(|node| node.role == "follower")
                .cloned()
                .ok_or_else(|| format!("{nodes:?}"))
        })
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&self, node: &NodeStatus) {
        let pid = node.pid.and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, Signal::KILL).expect("kill");
        eventually("the process's end", || match test_kill_process(pid) {
            Ok(()) if !is_zombie(pid) => Err("alive".into()),
            _ => Ok(()),
        });
    }

    /// kubectl through the stable endpoint of `DIR/kubeconfig`.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("kubectl"));
        command
            .arg("--kubeconfig")
            .arg(self.dir().join("kubeconfig"))
            .arg("--cache-dir")
            .arg(self.dir().join("kubectl-cache"))
            .args(arguments);
        command
    }

    /// Runs kubectl.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        run(&mut self.kubectl_command(arguments))
    }

    /// Runs kubectl with `input` on its standard input.
    pub fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Output {
        use std::io::Write;
        let mut child = self
            .kubectl_command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl");
        child
            .stdin
            .take()
            .expect("piped")
            .write_all(input.as_bytes())
            .expect("input");
        child.wait_with_output().expect("kubectl's output")
    }

    /// The address that the operator's kubeconfig names, as `https://127.0.0.1:6443`.
    pub fn server(&self) -> String {
        let path = "jsonpath={.clusters[0].cluster.server}";
        let printed = self.kubectl_ok(&["config", "view", "--minify", "-o", path]);
        printed.trim().to_owned()
    }

    /// Runs kubectl, which must succeed, and returns what it printed.
    pub fn kubectl_ok(&self, arguments: &[&str]) -> String {
        accepted(arguments, &self.kubectl(arguments))
    }

    /// kubectl on one node directly, by its context.
    pub fn kubectl_on(&self, node: u64, arguments: &[&str]) -> String {
        let context = format!("nautilus-{node}");
        let all = [&["--context", &context], arguments].concat();
        self.kubectl_ok(&all)
    }

    /// The last lines of every node's log.
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for id in 1..=9 {
            let path = self.dir().join(format!("node-{id}")).join("log");
            if let Ok(log) = std::fs::read_to_string(&path) {
                let lines: Vec<&str> = log.lines().collect();
                let tail = &lines[lines.len().saturating_sub(30)..];
                all += &format!("\n--- node {id}\n{}\n", tail.join("\n"));
            }
        }
        all
    }
}

impl Drop for Quorum {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        self.nautilus(&["down", "--purge"]);
    }
}

/// What a program printed, after asserting that it succeeded.
fn accepted(arguments: &[&str], output: &Output) -> String {
    assert!(
        output.status.success(),
        "kubectl {arguments:?} failed: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

fn run(command: &mut Command) -> Output {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    if !output.status.success() {
        eprintln!(
            "{command:?}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
    }
    output
}

/// A killed child that nobody has waited for is as good as gone, once its last other
/// thread is: only then are its files closed and its locks free.
fn is_zombie(pid: Pid) -> bool {
    let folder = format!("/proc/{}", pid.as_raw_nonzero());
    let zombie = std::fs::read_to_string(format!("{folder}/stat")).is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim().starts_with('Z'))
    });
    let threads = std::fs::read_dir(format!("{folder}/task")).map_or(0, Iterator::count);
    zombie && threads <= 1
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
