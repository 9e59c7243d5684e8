//! Who starts and stops nodes during an upgrade: this command, for the quorum of a folder
//! on this machine; people, for any other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use nautilus_attest_protocol::Measurement;
use nautilus_attest_tee::PlatformSecret;
use nautilus_machine::NewMember;
use rustix::process::Signal;

use crate::cli::Global;
use crate::exit::Failure;
use crate::kubeconfig::Kubeconfig;
use crate::simulated::make_folder;
use crate::up::layout::{Age, Layout, Quorum};
use crate::up::progress::Progress;
use crate::up::{admit, configure, process, start_node_with};

/// For the stable endpoint to see that a node is about to stop, and for connections that
/// it gave to the node before.
const LEAVE_TIME: Duration = Duration::from_millis(1_500);
/// For a node to stop in order.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// For a node of this machine to answer.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// For people to start or stop a machine.
const PEOPLE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// Where the nodes run.
pub(super) enum Machines {
    /// In a folder of this machine.
    Here(Box<Here>),
    /// Elsewhere: these are the new ones.
    Elsewhere(Vec<NewMember>),
}

/// The quorum of a folder, and the new build.
pub(super) struct Here {
    layout: Layout,
    quorum: Quorum,
    binary: PathBuf,
}

impl Machines {
    /// The folder's, unless another quorum or new nodes elsewhere are named.
    pub(super) fn new(
        global: &Global,
        binary: Option<&Path>,
        nodes: Vec<NewMember>,
    ) -> anyhow::Result<Self> {
        let elsewhere = global.names_a_quorum() || !nodes.is_empty();
        match binary {
            Some(binary) if !elsewhere => {
                let layout = global.layout()?;
                let quorum = layout.existing()?;
                let binary = std::path::absolute(binary)?;
                Ok(Self::Here(Box::new(Here {
                    layout,
                    quorum,
                    binary,
                })))
            }
            _ if !nodes.is_empty() => Ok(Self::Elsewhere(nodes)),
            _ => Err(Failure::Usage.error(
                "name the new binary (--binary) of the quorum in this folder, or every new node of \
                 one elsewhere (--node ID=HOST:PORT)",
            )),
        }
    }

    /// A new node, configured but not started; `used` are the members' ids, `accepts` the
    /// measurements it must accept to join.
    pub(super) fn new_node(
        &mut self,
        used: Vec<u64>,
        accepts: Vec<String>,
    ) -> anyhow::Result<NewMember> {
        match self {
            Self::Here(here) => here.new_node(used, accepts),
            Self::Elsewhere(nodes) => {
                let unused = nodes.iter().position(|node| !used.contains(&node.id));
                let unused = unused.ok_or_else(|| {
                    Failure::Usage.error(
                        "every node named with --node is a member already, or was; name one more, \
                         under an id never used",
                    )
                })?;
                Ok(nodes.remove(unused))
            }
        }
    }

    /// Starts a node, or asks for it.
    pub(super) fn start(&mut self, id: u64, progress: &Progress) -> anyhow::Result<()> {
        match self {
            Self::Here(here) => here.start(id),
            Self::Elsewhere(_) => {
                progress.say(&format!(
                    "start node {id} with the new build and bootstrap = \"join\"; its \
                     attestation.allowed_measurements must name the old build's beside \"self\""
                ));
                Ok(())
            }
        }
    }

    /// How long a node may take to answer.
    pub(super) fn start_patience(&self) -> Duration {
        match self {
            Self::Here(_) => START_TIMEOUT,
            Self::Elsewhere(_) => PEOPLE_TIMEOUT,
        }
    }

    /// Fails with the end of its log when a node of this machine has ended.
    pub(super) fn check(&self, id: u64) -> anyhow::Result<()> {
        let Self::Here(here) = self else {
            return Ok(());
        };
        let files = here.layout.node(id);
        if process::running(&files).is_some() {
            return Ok(());
        }
        Err(Failure::General.error(format!(
            "node {id} has ended; the end of {}:\n{}",
            files.log().display(),
            process::log_tail(&files)
        )))
    }

    /// Takes new clients away from a node and stops it in order, or asks for it.
    pub(super) async fn stop(&mut self, id: u64, progress: &Progress) -> anyhow::Result<()> {
        match self {
            Self::Here(here) => here.stop(id).await,
            Self::Elsewhere(_) => {
                progress.wait(&format!(
                    "stop node {id} (SIGTERM): another has taken its place"
                ));
                tokio::time::sleep(LEAVE_TIME).await;
                Ok(())
            }
        }
    }

    /// A node is no member any more.
    pub(super) async fn removed(&mut self, id: u64, progress: &Progress) -> anyhow::Result<()> {
        match self {
            Self::Here(here) => here.removed(id).await,
            Self::Elsewhere(_) => {
                progress.say(&format!(
                    "node {id} is no member any more; its machine may go"
                ));
                Ok(())
            }
        }
    }

    /// Every member runs the new build.
    pub(super) async fn finish(
        &mut self,
        measurement: &Measurement,
        members: &[u64],
    ) -> anyhow::Result<()> {
        match self {
            Self::Here(here) => here.finish(measurement, members).await,
            Self::Elsewhere(_) => Ok(()),
        }
    }
}

impl Here {
    fn new_node(&mut self, used: Vec<u64>, accepts: Vec<String>) -> anyhow::Result<NewMember> {
        // One that was configured before the upgrade was cut short is used first.
        let begun = self
            .quorum
            .nodes
            .iter()
            .find(|node| !used.contains(&node.id) && !self.layout.node(node.id).has_data());
        let node = match begun {
            Some(node) => node.clone(),
            None => {
                let highest = used.into_iter().max().unwrap_or(0);
                self.quorum.add_node(&self.layout, highest, accepts)?
            }
        };
        let files = self.layout.node(node.id);
        make_folder(files.folder())?;
        PlatformSecret::load_or_create(&files.platform_secret())?;
        configure(&self.layout, &self.quorum, &node, Age::Standing)?;
        // Last: what the folder names is complete.
        self.layout.save(&self.quorum)?;
        Ok(NewMember {
            id: node.id,
            peer_address: node.peer(),
        })
    }

    fn start(&mut self, id: u64) -> anyhow::Result<()> {
        let node = self.quorum.nodes.iter().find(|node| node.id == id);
        let node = node.with_context(|| {
            format!(
                "node {id} was admitted by somebody else and is not in {}; start it, or take it \
                 out with `nautilus member remove {id}`",
                self.layout.root().display()
            )
        })?;
        start_node_with(&self.binary, &self.layout, node).map(|_| ())
    }

    async fn stop(&mut self, id: u64) -> anyhow::Result<()> {
        for node in &mut self.quorum.nodes {
            node.leaving |= node.id == id;
        }
        self.layout.save(&self.quorum)?;
        tokio::time::sleep(LEAVE_TIME).await;
        self.end(id).await
    }

    /// Ends a node's process in order, and by force if it takes too long.
    async fn end(&self, id: u64) -> anyhow::Result<()> {
        let files = self.layout.node(id);
        process::signal(&files, Signal::TERM);
        if process::ended(&files, STOP_TIMEOUT).await {
            return Ok(());
        }
        process::signal(&files, Signal::KILL);
        process::ended(&files, STOP_TIMEOUT).await;
        Ok(())
    }

    async fn removed(&mut self, id: u64) -> anyhow::Result<()> {
        self.end(id).await?;
        self.quorum.nodes.retain(|node| node.id != id);
        self.layout.save(&self.quorum)?;
        let kubeconfig = Kubeconfig::read(&self.layout.kubeconfig())?;
        admit::name_nodes(&self.layout, &self.quorum, kubeconfig)
    }

    async fn finish(&mut self, measurement: &Measurement, members: &[u64]) -> anyhow::Result<()> {
        self.quorum.measurement = measurement.to_string();
        // What an upgrade that was cut short left running, or began in vain.
        for node in &self.quorum.nodes {
            if !members.contains(&node.id) {
                self.end(node.id).await?;
            }
        }
        self.quorum.nodes.retain(|node| members.contains(&node.id));
        for node in &mut self.quorum.nodes {
            node.accepts.clear();
        }
        for node in &self.quorum.nodes {
            configure(&self.layout, &self.quorum, node, Age::Standing)?;
        }
        self.layout.save(&self.quorum)?;
        let kubeconfig = Kubeconfig::read(&self.layout.kubeconfig())?;
        admit::name_nodes(&self.layout, &self.quorum, kubeconfig)
    }
}
