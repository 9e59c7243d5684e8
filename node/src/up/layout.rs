//! The folder of a quorum on this machine: what lies where.
//!
//! ```text
//! DIR/quorum.json         names, ports, the build's measurement; changed by upgrades only
//! DIR/kubeconfig          the administrator's kubeconfig (0600)
//! DIR/ca.crt              the quorum's authority, for workers
//! DIR/tokens.toml         Seal tokens of the development judge (0600)
//! DIR/operator.key, .pub  the operator's key, pinned at genesis (0600)
//! DIR/simulated-root      the signing root of simulated evidence (0600), and .pub
//! DIR/etcd/client.{crt,key}, etcdctl.env   the administrator as an etcd client (0600)
//! DIR/proxy/{pid,log}     the stable endpoint's process
//! DIR/node-N/{config.toml,pid,log,platform-secret,data/}
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::config::{
    self, ApiSettings, AttestationSettings, EtcdSettings, PeerSettings, RestoreSettings, Settings,
};
use crate::data_dir::write_durably;
use crate::exit::Failure;

/// Where `up` keeps a quorum when nothing is said: in the present folder.
pub(crate) const DEFAULT_DIR: &str = ".nautilus";
/// The administrator's user name.
pub(crate) const OPERATOR: &str = "admin";
/// The file that makes a folder a quorum's.
const QUORUM: &str = "quorum.json";
/// The form of the folder this build writes.
const FORMAT: u32 = 2;

/// A quorum on this machine, as `DIR/quorum.json` keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Quorum {
    /// The form of the folder.
    pub(crate) format: u32,
    /// The quorum's name.
    pub(crate) cluster_id: String,
    /// Hex of the measurement of the build that made it.
    pub(crate) measurement: String,
    /// The stable endpoint's port.
    pub(crate) proxy_port: u16,
    /// The nodes, by id from 1.
    pub(crate) nodes: Vec<LocalNode>,
    /// The snapshot it was founded with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) restore: Option<RestoreSettings>,
}

/// A node on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LocalNode {
    /// Its id.
    pub(crate) id: u64,
    /// Its port for clients.
    pub(crate) api_port: u16,
    /// Its port for peers.
    pub(crate) peer_port: u16,
    /// Its port for etcd clients.
    pub(crate) etcd_port: u16,
    /// Other measurements than its own that it accepts until it knows the quorum's
    /// policy: those of the build it takes over from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) accepts: Vec<String>,
    /// It is about to stop: the stable endpoint gives it no new connection.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) leaving: bool,
}

impl LocalNode {
    /// `host:port` for clients.
    pub(crate) fn api(&self) -> String {
        format!("127.0.0.1:{}", self.api_port)
    }

    /// `host:port` for peers.
    pub(crate) fn peer(&self) -> String {
        format!("127.0.0.1:{}", self.peer_port)
    }

    /// `host:port` for etcd clients.
    pub(crate) fn etcd(&self) -> String {
        format!("127.0.0.1:{}", self.etcd_port)
    }

    /// `https://host:port` for clients.
    pub(crate) fn server(&self) -> String {
        format!("https://{}", self.api())
    }
}

/// Whether a quorum is being made or stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    /// Being made.
    New,
    /// Every node has been a voter.
    Standing,
}

/// Paths of a quorum's folder.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
    /// Which controllers its nodes run; `None`: what the environment or the default says.
    controllers: Option<Vec<String>>,
}

impl Layout {
    /// The folder `dir`, made absolute, whether it exists or not.
    pub(crate) fn new(dir: &Path) -> anyhow::Result<Self> {
        let root = std::path::absolute(dir).with_context(|| format!("--dir {}", dir.display()))?;
        Ok(Self {
            root,
            controllers: None,
        })
    }

    /// The same with nodes that run these controllers alone.
    pub(crate) fn with_controllers(self, names: &[&str]) -> Self {
        let names = names.iter().map(|own| (*own).to_owned());
        Self {
            controllers: Some(names.collect()),
            ..self
        }
    }

    /// The folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// The quorum's authority, for clients without a kubeconfig (workers).
    pub(crate) fn authority(&self) -> PathBuf {
        self.root.join("ca.crt")
    }

    /// The administrator's certificate and key for etcd clients, and the variables
    /// that name them: `client.crt`, `client.key`, `etcdctl.env`.
    pub(crate) fn etcd(&self) -> EtcdFiles {
        EtcdFiles {
            folder: self.root.join("etcd"),
        }
    }

    /// The development judge's Seal tokens.
    pub(crate) fn tokens(&self) -> PathBuf {
        self.root.join("tokens.toml")
    }

    /// The operator's private key.
    pub(crate) fn operator_key(&self) -> PathBuf {
        self.root.join("operator.key")
    }

    /// The operator's public key.
    pub(crate) fn operator_public_key(&self) -> PathBuf {
        self.root.join("operator.pub")
    }

    /// The signing root of simulated evidence.
    pub(crate) fn simulated_root(&self) -> PathBuf {
        self.root.join("simulated-root")
    }

    /// The key that verifies simulated evidence.
    pub(crate) fn simulated_root_key(&self) -> PathBuf {
        self.root.join("simulated-root.pub")
    }

    /// Log and process id of the stable endpoint.
    pub(crate) fn proxy(&self) -> ProcessFiles {
        ProcessFiles {
            folder: self.root.join("proxy"),
        }
    }

    /// Everything of a node.
    pub(crate) fn node(&self, id: u64) -> ProcessFiles {
        ProcessFiles {
            folder: self.root.join(format!("node-{id}")),
        }
    }

    /// The quorum kept here, if one is.
    pub(crate) fn load(&self) -> anyhow::Result<Option<Quorum>> {
        let path = self.root.join(QUORUM);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let quorum: Quorum = serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged", path.display()))?;
        if quorum.format != FORMAT {
            bail!(
                "{}: format {} is not the format {FORMAT} of this build",
                path.display(),
                quorum.format
            );
        }
        Ok(Some(quorum))
    }

    /// The quorum kept here, which must be one.
    pub(crate) fn existing(&self) -> anyhow::Result<Quorum> {
        self.load()?.ok_or_else(|| {
            Failure::General.error(format!(
                "no quorum in {}; start one with `nautilus up --dir {}`, or name its folder with --dir",
                self.root.display(),
                self.root.display()
            ))
        })
    }

    /// Keeps the quorum.
    pub(crate) fn save(&self, quorum: &Quorum) -> anyhow::Result<()> {
        let path = self.root.join(QUORUM);
        let text = serde_json::to_vec_pretty(quorum)?;
        write_durably(&path, &text, 0o644).with_context(|| path.display().to_string())
    }

    /// Removes the folder with everything in it; refuses a folder that is no quorum's.
    pub(crate) fn purge(&self) -> anyhow::Result<()> {
        if self.load()?.is_none() {
            bail!(
                "{} holds no quorum; nothing was removed",
                self.root.display()
            );
        }
        let files = [
            self.kubeconfig(),
            self.authority(),
            self.tokens(),
            self.operator_key(),
            self.operator_public_key(),
            self.simulated_root(),
            self.simulated_root_key(),
        ];
        for path in &files {
            remove_if_present(path)?;
        }
        for entry in std::fs::read_dir(&self.root)? {
            let entry = entry?;
            let name = entry.file_name();
            let ours = name
                .to_str()
                .is_some_and(|name| matches!(name, "proxy" | "etcd") || name.starts_with("node-"));
            if ours && entry.file_type()?.is_dir() {
                std::fs::remove_dir_all(entry.path())
                    .with_context(|| entry.path().display().to_string())?;
            }
        }
        // Last, so that an interrupted purge can be run again.
        remove_if_present(&self.root.join(QUORUM))?;
        // A folder in which others keep things too stays.
        let _ = std::fs::remove_dir(&self.root);
        Ok(())
    }

    /// A node's settings. In a new quorum the first node founds it and the others join;
    /// once it stands nobody founds: a founder that lost its disk must not make a second
    /// quorum of the same name.
    pub(crate) fn settings(&self, quorum: &Quorum, node: &LocalNode, age: Age) -> Settings {
        let founder = age == Age::New && quorum.nodes.first() == Some(node);
        let founder = founder || quorum.nodes.len() == 1;
        let files = self.node(node.id);
        let others = quorum.nodes.iter().filter(|other| other.id != node.id);
        Settings {
            cluster_id: Some(quorum.cluster_id.clone()),
            node_id: Some(node.id),
            data_dir: Some(files.data()),
            bootstrap: Some(if founder { "genesis" } else { "join" }.to_owned()),
            join_addresses: (!founder).then(|| others.map(LocalNode::peer).collect()),
            operators: Some(vec![format!(
                "{OPERATOR}={}",
                self.operator_public_key().display()
            )]),
            peer: PeerSettings {
                listen: Some(node.peer()),
                advertise: None,
            },
            api: ApiSettings {
                listen: Some(node.api()),
                ..ApiSettings::default()
            },
            etcd: EtcdSettings {
                listen: Some(node.etcd()),
                ..EtcdSettings::default()
            },
            attestation: AttestationSettings {
                provider: Some("simulated".to_owned()),
                allow_simulated: Some(true),
                simulated_root: Some(self.simulated_root()),
                platform_secret: Some(files.platform_secret()),
                allowed_measurements: Some(
                    std::iter::once("self".to_owned())
                        .chain(node.accepts.iter().cloned())
                        .collect(),
                ),
                ..AttestationSettings::default()
            },
            restore: match age {
                Age::New if founder => quorum.restore.clone().unwrap_or_default(),
                Age::New | Age::Standing => RestoreSettings::default(),
            },
            // The nodes inherit the environment, and with it the chain that judges tokens.
            tokens_file: (!config::names_chain()).then(|| self.tokens()),
            controllers: self.controllers.clone(),
            ..Settings::default()
        }
    }
}

impl Quorum {
    /// A new quorum of this build.
    pub(crate) fn new(cluster_id: String, measurement: String, ports: &Ports) -> Self {
        let nodes = (1..)
            .zip(&ports.nodes)
            .map(|(id, ports)| LocalNode {
                id,
                api_port: ports.api,
                peer_port: ports.peer,
                etcd_port: ports.etcd,
                accepts: Vec::new(),
                leaving: false,
            })
            .collect();
        Self {
            format: FORMAT,
            cluster_id,
            measurement,
            proxy_port: ports.proxy,
            nodes,
            restore: None,
        }
    }

    /// Adds a node under an id never used in this folder, with ports that are free, which
    /// accepts `accepts` besides its own measurement.
    pub(crate) fn add_node(
        &mut self,
        layout: &Layout,
        used: u64,
        accepts: Vec<String>,
    ) -> anyhow::Result<LocalNode> {
        let present = self.nodes.iter().map(|node| node.id);
        let mut id = present.chain([used]).max().unwrap_or(0) + 1;
        while layout.node(id).folder().exists() {
            id += 1;
        }
        let base = self.proxy_port;
        let taken = |port| {
            let mut ports = self.nodes.iter();
            ports.any(|node| [node.api_port, node.peer_port, node.etcd_port].contains(&port))
        };
        let ports = Ports::pick(base, 1, |port| !taken(port) && is_free(port))?;
        let ports = ports.nodes[0];
        let node = LocalNode {
            id,
            api_port: ports.api,
            peer_port: ports.peer,
            etcd_port: ports.etcd,
            accepts,
            leaving: false,
        };
        self.nodes.push(node.clone());
        Ok(node)
    }

    /// `https://host:port` of the stable endpoint.
    pub(crate) fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.proxy_port)
    }
}

/// The ports of a quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ports {
    /// The stable endpoint's.
    pub(crate) proxy: u16,
    /// Each node's.
    pub(crate) nodes: Vec<NodePorts>,
}

/// The ports of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodePorts {
    /// For clients.
    pub(crate) api: u16,
    /// For peers.
    pub(crate) peer: u16,
    /// For etcd clients.
    pub(crate) etcd: u16,
}

impl Ports {
    /// The first free ports from `base` on: the endpoint's, the nodes' for clients,
    /// the nodes' for peers, the nodes' for etcd clients.
    pub(crate) fn pick(
        base: u16,
        nodes: usize,
        is_free: impl Fn(u16) -> bool,
    ) -> anyhow::Result<Self> {
        let wanted = 1 + 3 * nodes;
        let found: Vec<u16> = (base..=u16::MAX)
            .filter(|&port| is_free(port))
            .take(wanted)
            .collect();
        if found.len() < wanted {
            bail!("fewer than {wanted} free ports from {base} on; choose a lower --base-port");
        }
        let node = |index: usize| NodePorts {
            api: found[1 + index],
            peer: found[1 + nodes + index],
            etcd: found[1 + 2 * nodes + index],
        };
        Ok(Self {
            proxy: found[0],
            nodes: (0..nodes).map(node).collect(),
        })
    }

    /// Where to look for ports when nothing is said: below the range from which the
    /// system gives out ports, and elsewhere for each folder.
    pub(crate) fn base_for(root: &Path) -> u16 {
        const FIRST: u16 = 16_000;
        const STRIDE: u16 = 32;
        const FOLDERS: u32 = 500;
        let mut hash: u32 = 0x811c_9dc5; // FNV-1a
        for byte in root.as_os_str().as_encoded_bytes() {
            hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
        let slot = u16::try_from(hash % FOLDERS).unwrap_or(0);
        FIRST + slot * STRIDE
    }
}

/// Whether nobody listens on this loopback port.
pub(crate) fn is_free(port: u16) -> bool {
    std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn remove_if_present(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}

/// What etcd clients need, as files.
#[derive(Debug, Clone)]
pub(crate) struct EtcdFiles {
    folder: PathBuf,
}

impl EtcdFiles {
    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The client's certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.join("client.crt")
    }

    /// The client's key.
    pub(crate) fn key(&self) -> PathBuf {
        self.folder.join("client.key")
    }

    /// `ETCDCTL_*` variables for a shell.
    pub(crate) fn environment(&self) -> PathBuf {
        self.folder.join("etcdctl.env")
    }
}

/// The files of one process in its folder.
#[derive(Debug, Clone)]
pub(crate) struct ProcessFiles {
    folder: PathBuf,
}

impl ProcessFiles {
    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The node's configuration.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    /// What the process prints.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> PathBuf {
        self.folder.join("pid")
    }

    /// The node's simulated platform.
    pub(crate) fn platform_secret(&self) -> PathBuf {
        self.folder.join("platform-secret")
    }

    /// The node's data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Whether the node has ever run.
    pub(crate) fn has_data(&self) -> bool {
        self.data().join("identity.json").exists()
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
