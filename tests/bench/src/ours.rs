//! Our side: a quorum made by `nautilus up`, its nodes started and stopped one by one
//! afterwards, so that the times are the nodes' and not the command's.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;

use crate::drive::Endpoint;
use crate::etcd::run;
use crate::side::Side;

/// Nodes.
const NODES: usize = 3;
/// For a node to stop in order.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at an ending process.
const POLL: Duration = Duration::from_millis(5);

/// `DIR/quorum.json`, as far as it is of use here.
#[derive(Deserialize)]
struct Quorum {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: u64,
    etcd_port: u16,
    api_port: u16,
}

/// A node's process.
enum Process {
    /// Started by `nautilus up`.
    Foreign(Pid),
    /// Started here.
    Child(Child),
}

/// A quorum and its folder.
pub struct Ours {
    binary: PathBuf,
    folder: PathBuf,
    /// What opens the snapshots.
    identity: PathBuf,
    endpoints: Vec<Endpoint>,
    api_ports: Vec<u16>,
    nodes: Vec<u64>,
    processes: Vec<Option<Process>>,
}

impl Ours {
    /// A quorum that will live in `folder`, run by `binary`.
    pub fn prepare(binary: &Path, folder: &Path) -> anyhow::Result<Self> {
        let identity = folder.join("backup.key");
        let folder = folder.join("quorum");
        ensure!(binary.is_file(), "{} is missing", binary.display());
        Ok(Self {
            binary: binary.to_owned(),
            folder,
            identity,
            endpoints: Vec::new(),
            api_ports: Vec::new(),
            nodes: Vec::new(),
            processes: Vec::new(),
        })
    }

    /// Where `nautilus up` has made it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The ports of the nodes' Kubernetes API.
    pub fn api_ports(&self) -> &[u16] {
        &self.api_ports
    }

    fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--dir").arg(&self.folder);
        // Our log is as quiet as the peer's.
        command.env("NAUTILUS_LOG", "warn");
        command
    }

    /// `nautilus up`, and what it left behind.
    fn make(&mut self, arguments: &[&str]) -> anyhow::Result<()> {
        run(self
            .cli(&["up", "--detach", "--nodes", &NODES.to_string()])
            .args(arguments))?;
        let quorum = fs::read(self.folder.join("quorum.json"))?;
        let quorum: Quorum = serde_json::from_slice(&quorum).context("quorum.json")?;
        let tls = Arc::new(client_tls(&self.folder)?);
        self.endpoints = quorum
            .nodes
            .iter()
            .map(|node| Endpoint {
                port: node.etcd_port,
                tls: Arc::clone(&tls),
                server_name: ServerName::IpAddress(Ipv4Addr::LOCALHOST.into()),
            })
            .collect();
        self.api_ports = quorum.nodes.iter().map(|node| node.api_port).collect();
        self.nodes = quorum.nodes.iter().map(|node| node.id).collect();
        self.processes = self
            .nodes
            .iter()
            .map(|id| Ok(Some(Process::Foreign(self.noted_pid(*id)?))))
            .collect::<anyhow::Result<_>>()?;
        Ok(())
    }

    fn node_folder(&self, id: u64) -> PathBuf {
        self.folder.join(format!("node-{id}"))
    }

    fn noted_pid(&self, id: u64) -> anyhow::Result<Pid> {
        let path = self.node_folder(id).join("pid");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let pid = Pid::from_raw(text.trim().parse()?);
        pid.with_context(|| path.display().to_string())
    }

    fn start_node(&self, id: u64) -> anyhow::Result<Child> {
        let folder = self.node_folder(id);
        let log = fs::File::options().append(true).open(folder.join("log"))?;
        let child = Command::new(&self.binary)
            .arg("node")
            .arg("--config")
            .arg(folder.join("config.toml"))
            .env("NAUTILUS_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start a node")?;
        // `nautilus down` and `status` find it there.
        fs::write(folder.join("pid"), format!("{}\n", child.id()))?;
        Ok(child)
    }
}

impl Side for Ours {
    fn name(&self) -> &'static str {
        "nautilus"
    }

    fn start(&mut self) -> anyhow::Result<()> {
        if self.nodes.is_empty() {
            return self.make(&[]);
        }
        for at in 0..self.nodes.len() {
            if self.processes[at].is_none() {
                self.processes[at] = Some(Process::Child(self.start_node(self.nodes[at])?));
            }
        }
        Ok(())
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        for process in self.processes.iter().flatten() {
            kill_process(process.pid()?, Signal::TERM)?;
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        for process in &mut self.processes {
            let Some(mut process) = process.take() else {
                continue;
            };
            while !process.has_ended()? {
                if Instant::now() > deadline {
                    kill_process(process.pid()?, Signal::KILL)?;
                    bail!("a node did not stop in {STOP_TIMEOUT:?}");
                }
                std::thread::sleep(POLL);
            }
        }
        Ok(())
    }

    fn kill(&mut self, at: usize) -> anyhow::Result<()> {
        let mut process = self.processes[at].take().context("it does not run")?;
        // It may have been killed already, and even be gone.
        let _ = kill_process(process.pid()?, Signal::KILL);
        while !process.has_ended()? {
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        self.endpoints.clone()
    }

    fn processes(&self) -> Vec<u32> {
        let processes = self.processes.iter().flatten();
        processes
            .filter_map(|process| u32::try_from(process.pid().ok()?.as_raw_nonzero().get()).ok())
            .collect()
    }

    fn save_snapshot(&self, file: &Path) -> anyhow::Result<()> {
        let made = Command::new(&self.binary)
            .args(["snapshot", "keygen"])
            .arg(&self.identity)
            .output()
            .context("snapshot keygen")?;
        let recipient = String::from_utf8(made.stdout).context("a recipient")?;
        run(self
            .cli(&["snapshot", "save", "--recipient", recipient.trim()])
            .arg(file))
    }

    fn restore(&mut self, file: &Path, folder: &Path) -> anyhow::Result<()> {
        ensure!(self.processes().is_empty(), "the nodes still run");
        // The stable endpoint of the old quorum is a process of its own.
        run(&mut self.cli(&["down"]))?;
        fs::create_dir_all(folder)?;
        self.folder = folder.join("quorum");
        self.nodes.clear();
        let utf8 = |path: &Path| path.to_str().map(str::to_owned).context("a path in UTF-8");
        let (file, identity) = (utf8(file)?, utf8(&self.identity)?);
        self.make(&["--restore", &file, "--identity", &identity])
    }
}

impl Process {
    fn pid(&self) -> anyhow::Result<Pid> {
        match self {
            Self::Foreign(pid) => Ok(*pid),
            Self::Child(child) => Pid::from_raw(i32::try_from(child.id())?).context("a process id"),
        }
    }

    /// A killed process of ours is reaped; one of `nautilus up` belongs to init.
    fn has_ended(&mut self) -> anyhow::Result<bool> {
        match self {
            Self::Child(child) => Ok(child.try_wait()?.is_some()),
            Self::Foreign(pid) => Ok(test_kill_process(*pid).is_err() || is_zombie(*pid)),
        }
    }
}

fn is_zombie(pid: Pid) -> bool {
    let folder = format!("/proc/{}", pid.as_raw_nonzero());
    let stat = fs::read_to_string(format!("{folder}/stat")).unwrap_or_default();
    let ended = stat
        .rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('Z'));
    let threads = fs::read_dir(format!("{folder}/task")).map_or(0, Iterator::count);
    ended && threads <= 1
}

impl Drop for Ours {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().flatten() {
            if let Ok(pid) = process.pid() {
                let _ = kill_process(pid, Signal::KILL);
            }
            if let Process::Child(child) = process {
                let _ = child.wait();
            }
        }
        // The stable endpoint's process goes too.
        let _ = run(&mut self.cli(&["down", "--purge"]));
    }
}

/// The administrator's side of TLS, from the files that `nautilus up` leaves.
fn client_tls(folder: &Path) -> anyhow::Result<ClientConfig> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read(&path).with_context(|| path.display().to_string())
    };
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(&read("ca.crt")?) {
        roots.add(authority?)?;
    }
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&read("etcd/client.crt")?).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(&read("etcd/client.key")?)?;
    let mut tls = ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()?
    .with_root_certificates(roots)
    .with_client_auth_cert(chain, key)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}
