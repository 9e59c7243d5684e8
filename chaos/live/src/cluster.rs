//! The quorum under test: one process per namespace, founded and grown by the CLI
//! as an operator would.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use nautilus_attest_tee::{PlatformSecret, SimulatedRoot};

use crate::network::{address, namespace};

/// How long a step of the set-up may take.
const PATIENCE: Duration = Duration::from_secs(60);
const API_PORT: u16 = 6443;
const PEER_PORT: u16 = 7443;

/// Processes and their folder.
pub(crate) struct Cluster {
    binary: PathBuf,
    folder: PathBuf,
    nodes: Vec<Option<Child>>,
}

impl Cluster {
    /// Founds a quorum of `nodes` in `folder`.
    pub(crate) fn found(binary: PathBuf, folder: &Path, nodes: u64) -> Result<Self> {
        let mut cluster = Self {
            binary,
            folder: folder.to_owned(),
            nodes: Vec::new(),
        };
        let root = SimulatedRoot::load_or_create(&folder.join("simulated-root"))
            .context("the signing root of simulated evidence")?;
        std::fs::write(
            folder.join("simulated-root.pub"),
            root.public_key().to_string(),
        )?;
        let key = rcgen::KeyPair::generate()?;
        std::fs::write(folder.join("operator.key"), key.serialize_pem())?;
        std::fs::write(folder.join("operator.pub"), key.public_key_pem())?;
        for id in 1..=nodes {
            cluster.prepare(id, nodes)?;
            cluster.nodes.push(None);
            if id > 1 {
                cluster.admit("add", id)?;
            }
            cluster.start(id)?;
            if id == 1 {
                cluster.fetch_credentials()?;
            } else {
                cluster.admit("promote", id)?;
            }
        }
        Ok(cluster)
    }

    /// `https://…` of a node.
    pub(crate) fn api(id: u64) -> String {
        format!("https://{}:{API_PORT}", address(id))
    }

    /// The operator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, id: u64) -> Result<()> {
        if let Some(mut child) = self.slot(id)?.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Starts a node that is down.
    pub(crate) fn start(&mut self, id: u64) -> Result<()> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.node_folder(id).join("log"))?;
        let child = Command::new("ip")
            .args(["netns", "exec", &namespace(id)])
            .arg(&self.binary)
            .args(["node", "--config"])
            .arg(self.node_folder(id).join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        *self.slot(id)? = Some(child);
        Ok(())
    }

    /// Fails when a node that should run has ended by itself.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        for id in 1..=self.nodes.len() as u64 {
            if let Some(child) = self.slot(id)?.as_mut()
                && let Some(status) = child.try_wait()?
            {
                bail!("node {id} ended by itself: {status}\n{}", self.log_tail(id));
            }
        }
        Ok(())
    }

    /// The last lines of a node's log.
    pub(crate) fn log_tail(&self, id: u64) -> String {
        let log = std::fs::read_to_string(self.node_folder(id).join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn slot(&mut self, id: u64) -> Result<&mut Option<Child>> {
        let index = usize::try_from(id)? - 1;
        self.nodes
            .get_mut(index)
            .with_context(|| format!("no node {id}"))
    }

    fn node_folder(&self, id: u64) -> PathBuf {
        self.folder.join(format!("node-{id}"))
    }

    fn prepare(&self, id: u64, nodes: u64) -> Result<()> {
        let folder = self.node_folder(id);
        std::fs::create_dir_all(&folder)?;
        PlatformSecret::load_or_create(&folder.join("platform-secret"))
            .context("the platform's secret")?;
        let bootstrap = if id == 1 {
            "bootstrap = \"genesis\"".to_owned()
        } else {
            let others: Vec<String> = (1..=nodes)
                .filter(|&other| other != id)
                .map(|other| format!("\"{}:{PEER_PORT}\"", address(other)))
                .collect();
            format!(
                "bootstrap = \"join\"\njoin_addresses = [{}]",
                others.join(", ")
            )
        };
        let text = format!(
            r#"cluster_id = "chaos"
node_id = {id}
data_dir = "{data}"
{bootstrap}
operators = ["admin={root}/operator.pub"]
checkpoint_every = 2000

[peer]
listen = "{address}:{PEER_PORT}"

[api]
listen = "{address}:{API_PORT}"

[attestation]
provider = "simulated"
allow_simulated = true
simulated_root = "{root}/simulated-root"
platform_secret = "{node}/platform-secret"
"#,
            data = folder.join("data").display(),
            node = folder.display(),
            root = self.folder.display(),
            address = address(id),
        );
        std::fs::write(folder.join("config.toml"), text)?;
        Ok(())
    }

    fn fetch_credentials(&self) -> Result<()> {
        let root = self.folder.join("simulated-root.pub");
        let key = self.folder.join("operator.key");
        self.until_accepted(|command| {
            command
                .args(["kubeconfig", "--server", &Self::api(1), "--allow-simulated"])
                .arg("--simulated-root-key")
                .arg(&root)
                .arg("--key")
                .arg(&key)
                .arg("--out")
                .arg(self.kubeconfig());
        })
    }

    fn admit(&self, verb: &str, id: u64) -> Result<()> {
        let peer = format!("{}:{PEER_PORT}", address(id));
        self.until_accepted(|command| {
            command.args(["member", verb, &id.to_string()]);
            if verb == "add" {
                command.arg(&peer);
            }
            command
                .args(["--server", &Self::api(1)])
                .arg("--kubeconfig")
                .arg(self.kubeconfig());
        })
    }

    /// Runs the CLI until it succeeds.
    fn until_accepted(&self, arguments: impl Fn(&mut Command)) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut command = Command::new(&self.binary);
            arguments(&mut command);
            let output = command.output()?;
            if output.status.success() {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{command:?}: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
