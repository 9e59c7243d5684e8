//! `nautilus up` and `nautilus down`: a quorum of real processes on one machine.
//!
//! `up` does what an operator would do on separate machines, and can be run again
//! at any time: it starts what is stopped, admits and promotes what is not yet a
//! voter, and changes nothing else. Every step looks at the present state first, so
//! that an interrupted `up` is finished by the next one.

pub(crate) mod admit;
pub(crate) mod layout;
pub(crate) mod process;
pub(crate) mod progress;
mod watch;

use std::ffi::OsStr;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use nautilus_backup::{Archive, Opener, SignerKey};
use rustix::process::Signal;

use crate::cli::status::{QuorumStatus, local};
use crate::cli::{Global, print, read_identity};
use crate::config::RestoreSettings;
use crate::data_dir::write_durably;
use crate::exit::Failure;
use crate::simulated;
use layout::{Age, Layout, LocalNode, Ports, Quorum, is_free};
use progress::Progress;

/// Examples of `up --help`.
pub(crate) const UP_EXAMPLES: &str = "\
Without --detach the command stays, shows changes, and Ctrl-C stops the quorum in order.
Run it again on an existing folder to start what is stopped. With NAUTILUS_SUI_FULL_NODES
and the other settings of [sui] in the environment, the nodes judge Seal tokens by the chain
and not by DIR/tokens.toml.

Examples:
  nautilus up
  nautilus up --detach --nodes 3 --dir q
  nautilus up --dir q --base-port 7000      ports 7000 and following
  nautilus up --dir q2 --restore s.archive --identity backup.key";

/// Examples of `down --help`.
pub(crate) const DOWN_EXAMPLES: &str = "\
Examples:
  nautilus down
  nautilus down --dir q --purge      and remove everything the quorum kept";

/// The most nodes of a quorum on one machine.
const NODES_MAX: u64 = 9;
/// For a node to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// The same for a quorum that begins with a snapshot's content: an hour for large ones. A
/// founder that has ended is noticed at once.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(3_600);
/// Between two looks at something awaited.
const POLL: Duration = Duration::from_millis(100);
/// For a node to stop in order before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// The last node of a quorum that is stopped whole may finish for so long before it is
/// told that it is the last.
const LAST_NODE_PATIENCE: Duration = Duration::from_millis(300);
/// For a killed process to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// `nautilus up`.
#[derive(Args, Clone)]
pub(crate) struct UpArgs {
    /// How many nodes a new quorum has
    #[arg(long, env = "NAUTILUS_NODES", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=NODES_MAX), value_name = "N")]
    pub(crate) nodes: u64,
    /// Return when the quorum is ready, and leave it running
    #[arg(long)]
    pub(crate) detach: bool,
    /// Look for free ports from here on, for a new quorum [default: by the folder's name]
    #[arg(long, value_name = "PORT")]
    pub(crate) base_port: Option<u16>,
    #[command(flatten)]
    pub(crate) restore: RestoreArgs,
}

/// Founding with a snapshot's content.
#[derive(Args, Clone, Default)]
pub(crate) struct RestoreArgs {
    /// Found a new quorum with the content of this snapshot
    #[arg(long = "restore", value_name = "FILE", requires = "identity")]
    pub(crate) file: Option<PathBuf>,
    /// The private key that opens the snapshot (`nautilus snapshot keygen`)
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) options: RestoreOptions,
}

/// How a snapshot is restored.
#[derive(Args, Clone, Default)]
pub(crate) struct RestoreOptions {
    /// Refuse a snapshot that another has signed
    #[arg(long, value_name = "KEY")]
    pub(crate) signer: Option<SignerKey>,
    /// Stand so far above the snapshot's revision, so that no client takes what it saw
    /// after the snapshot for the present
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) bump_revision: u64,
    /// Accepted as etcdutl has it; a restored store is always compacted at its revision
    #[arg(long)]
    pub(crate) mark_compacted: bool,
}

impl UpArgs {
    /// Founds a quorum with a snapshot's content, in the background.
    pub(crate) fn restoring(nodes: u64, restore: RestoreArgs) -> Self {
        Self {
            nodes,
            detach: true,
            base_port: None,
            restore,
        }
    }
}

impl RestoreArgs {
    /// Finds out that a snapshot can't be restored before anything is made for it. The
    /// founder reads it whole.
    fn check(&self, file: &Path, identity: &Path) -> anyhow::Result<()> {
        let refused = |error| Failure::Refused.error(error);
        let archive = Archive::open(BufReader::new(File::open(file)?)).map_err(refused)?;
        if let Some(signer) = &self.options.signer {
            archive.expect_signer(signer).map_err(refused)?;
        }
        let opener = Opener::Operator(read_identity(identity)?);
        archive.unseal(&opener).map(|_| ()).map_err(refused)
    }

    /// As the founder's settings; nothing when there is nothing to restore.
    fn settings(&self) -> anyhow::Result<Option<RestoreSettings>> {
        let (Some(file), Some(identity)) = (&self.file, &self.identity) else {
            return Ok(None);
        };
        self.check(file, identity)
            .map_err(|error| error.context(file.display().to_string()))?;
        Ok(Some(RestoreSettings {
            file: Some(std::path::absolute(file)?),
            identity: Some(std::path::absolute(identity)?),
            sealed_keys: None,
            signer: self.options.signer.as_ref().map(ToString::to_string),
            bump_revision: (self.options.bump_revision > 0).then_some(self.options.bump_revision),
        }))
    }
}

/// `nautilus down`.
#[derive(Args)]
pub(crate) struct DownArgs {
    /// Remove the quorum with its data, keys and kubeconfig
    #[arg(long)]
    purge: bool,
}

/// Starts a quorum, or what is stopped of it.
pub(crate) async fn up(global: &Global, arguments: UpArgs) -> anyhow::Result<()> {
    let layout = global.layout()?;
    let progress = Progress::start();
    let interrupted = tokio::signal::ctrl_c();
    let quorum = tokio::select! {
        quorum = bring_up(&layout, &arguments, &progress) => quorum?,
        _ = interrupted => {
            progress.say("interrupted; what was started keeps running, `nautilus down` stops it");
            return Err(Failure::General.error("interrupted before the quorum was ready"));
        }
    };
    progress.end();
    let status = local(&layout, &quorum).await;
    print(&summary(
        &layout,
        &quorum,
        &status,
        global.named_dir().is_some(),
    ));
    if arguments.detach {
        return Ok(());
    }
    print("\nCtrl-C stops the quorum.");
    watch::until_interrupted(&layout, &quorum).await?;
    stop(&layout, &quorum, &Progress::start()).await
}

/// The quorum of `layout`, made if absent, with every node a ready voter.
pub(crate) async fn bring_up(
    layout: &Layout,
    arguments: &UpArgs,
    progress: &Progress,
) -> anyhow::Result<Quorum> {
    let measurement = simulated::own_measurement()?;
    let quorum = match layout.load()? {
        Some(quorum) => {
            if let Some(file) = &arguments.restore.file {
                return Err(Failure::Refused.error(format!(
                    "{} holds a quorum already; {} can only be restored into a new one: name \
                     another folder with --dir",
                    layout.root().display(),
                    file.display()
                )));
            }
            same_build(layout, quorum, &measurement)?
        }
        None => found(layout, arguments, measurement, progress)?,
    };
    start_proxy(layout, &quorum)?;
    let mut started = Vec::new();
    for (index, node) in quorum.nodes.iter().enumerate() {
        let is_a_member = index == 0 || layout.node(node.id).has_data();
        if is_a_member && start_node(layout, node)? {
            started.push(node.id);
        }
    }
    if !started.is_empty() {
        progress.say(&format!("started node {}", by_commas(&started)));
    }
    admit::credentials(layout, &quorum, progress).await?;
    admit::everyone(layout, &quorum, progress).await?;
    ready(layout, &quorum, progress).await?;
    settle(layout, &quorum)?;
    Ok(quorum)
}

/// A folder made by another build can't be unsealed by this one.
fn same_build(layout: &Layout, quorum: Quorum, measurement: &str) -> anyhow::Result<Quorum> {
    if quorum.measurement == measurement {
        return Ok(quorum);
    }
    let dir = layout.root().display();
    let short = |text: &str| text.get(..16).unwrap_or(text).to_owned();
    Err(Failure::Refused.error(format!(
        "the quorum in {dir} was made by another build of nautilus (measurement {}.., this one is {}..), \
         and its keys open to that build alone: run that binary, or start anew with \
         `nautilus down --purge --dir {dir}` and `nautilus up --dir {dir}`",
        short(&quorum.measurement),
        short(measurement),
    )))
}

/// Makes the folder, its keys and each node's configuration.
fn found(
    layout: &Layout,
    arguments: &UpArgs,
    measurement: String,
    progress: &Progress,
) -> anyhow::Result<Quorum> {
    let nodes = usize::try_from(arguments.nodes).context("--nodes")?;
    let base = arguments
        .base_port
        .unwrap_or_else(|| Ports::base_for(layout.root()));
    let ports = Ports::pick(base, nodes, is_free)?;
    let cluster_id = format!("nautilus-{}", simulated::random_hex::<4>()?);
    progress.say(&format!(
        "making quorum {cluster_id} in {}",
        layout.root().display()
    ));
    let mut quorum = Quorum::new(cluster_id, measurement, &ports);
    quorum.restore = arguments.restore.settings()?;
    simulated::make_keys(layout, &quorum)?;
    for node in &quorum.nodes {
        configure(layout, &quorum, node, Age::New)?;
    }
    // Last: a folder without it is unfinished and is made again.
    layout.save(&quorum)?;
    Ok(quorum)
}

/// Writes a node's configuration.
pub(crate) fn configure(
    layout: &Layout,
    quorum: &Quorum,
    node: &LocalNode,
    age: Age,
) -> anyhow::Result<()> {
    let path = layout.node(node.id).config();
    let text = layout.settings(quorum, node, age).to_toml()?;
    write_durably(&path, text.as_bytes(), 0o600).with_context(|| path.display().to_string())
}

/// Takes the word `genesis` out of the founder's file, whatever else stands there now.
fn settle(layout: &Layout, quorum: &Quorum) -> anyhow::Result<()> {
    let Some(founder) = quorum.nodes.first() else {
        return Ok(());
    };
    let fresh = layout.settings(quorum, founder, Age::New).to_toml()?;
    let path = layout.node(founder.id).config();
    let present = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    // A file that a person has changed is that person's.
    if present == fresh {
        configure(layout, quorum, founder, Age::Standing)?;
    }
    Ok(())
}

/// Starts a node unless it runs; says whether it did.
pub(crate) fn start_node(layout: &Layout, node: &LocalNode) -> anyhow::Result<bool> {
    start_node_with(&std::env::current_exe()?, layout, node)
}

/// The same with another build.
pub(crate) fn start_node_with(
    binary: &Path,
    layout: &Layout,
    node: &LocalNode,
) -> anyhow::Result<bool> {
    let files = layout.node(node.id);
    if process::running(&files).is_some() {
        return Ok(false);
    }
    let config = files.config();
    process::start_binary(
        binary,
        &files,
        &[
            OsStr::new("node"),
            OsStr::new("--config"),
            config.as_os_str(),
        ],
    )?;
    Ok(true)
}

fn start_proxy(layout: &Layout, quorum: &Quorum) -> anyhow::Result<()> {
    let files = layout.proxy();
    if process::running(&files).is_some() {
        return Ok(());
    }
    // The kubeconfig's path also marks the process as this folder's; without nodes of its
    // own the endpoint follows the folder, which an upgrade changes.
    let kubeconfig = files.folder().join("..").join("kubeconfig");
    let listen = format!("127.0.0.1:{}", quorum.proxy_port);
    let arguments = [
        OsStr::new("proxy"),
        OsStr::new("--listen"),
        OsStr::new(&listen),
        OsStr::new("--kubeconfig"),
        kubeconfig.as_os_str(),
        OsStr::new("--dir"),
        layout.root().as_os_str(),
    ];
    process::start(&files, &arguments)?;
    Ok(())
}

/// How long a quorum may take until it serves.
fn patience(quorum: &Quorum) -> Duration {
    match quorum.restore {
        Some(_) => RESTORE_TIMEOUT,
        None => READY_TIMEOUT,
    }
}

/// Waits until every node says that it is ready.
pub(crate) async fn ready(
    layout: &Layout,
    quorum: &Quorum,
    progress: &Progress,
) -> anyhow::Result<()> {
    let clients = admit::clients(layout, quorum)?;
    let patience = patience(quorum);
    let deadline = Instant::now() + patience;
    loop {
        let mut waiting = Vec::new();
        for (node, client) in &clients {
            if !client.ready(POLL * 10).await {
                alive(layout, node)?;
                waiting.push(node.id);
            }
        }
        if waiting.is_empty() {
            progress.say("every node is ready");
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(late(layout, &waiting, patience));
        }
        progress.wait(&format!(
            "waiting until node {} is ready",
            by_commas(&waiting)
        ));
        tokio::time::sleep(POLL).await;
    }
}

/// Fails with the end of its log when a node's process has ended.
fn alive(layout: &Layout, node: &LocalNode) -> anyhow::Result<()> {
    let files = layout.node(node.id);
    if process::running(&files).is_some() {
        return Ok(());
    }
    Err(Failure::General.error(format!(
        "node {} has ended; the end of {}:\n{}",
        node.id,
        files.log().display(),
        process::log_tail(&files)
    )))
}

fn late(layout: &Layout, waiting: &[u64], patience: Duration) -> anyhow::Error {
    let logs: Vec<String> = waiting
        .iter()
        .map(|&id| layout.node(id).log().display().to_string())
        .collect();
    Failure::Unavailable.error(format!(
        "node {} is not ready after {} s; read {}, and run `nautilus up` again to go on",
        by_commas(waiting),
        patience.as_secs(),
        logs.join(", ")
    ))
}

fn by_commas(ids: &[u64]) -> String {
    ids.iter()
        .map(u64::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn summary(layout: &Layout, quorum: &Quorum, status: &QuorumStatus, named: bool) -> String {
    let kubeconfig = shown(&layout.kubeconfig());
    let dir = if named {
        format!(" --dir {}", shown(layout.root()))
    } else {
        String::new()
    };
    let etcd: Vec<String> = quorum
        .nodes
        .iter()
        .map(|node| format!("https://{}", node.etcd()))
        .collect();
    format!(
        "\n{}\nquorum      {}\nendpoint    {}\netcd        {}\nkubeconfig  {kubeconfig}\n\nTry next:\n  \
         kubectl --kubeconfig {kubeconfig} get namespaces\n  {} status{dir}\n  \
         . {} && etcdctl endpoint status -w table",
        status.to_table(),
        quorum.cluster_id,
        quorum.server(),
        etcd.join(","),
        program(),
        shown(&layout.etcd().environment()),
    )
}

/// This program as it was called, so that the line printed can be pasted.
fn program() -> String {
    std::env::args_os().next().map_or_else(
        || "nautilus".into(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// A path as short as the present folder allows.
fn shown(path: &std::path::Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here)
        .unwrap_or(path)
        .display()
        .to_string()
}

/// Stops the quorum of a folder.
pub(crate) async fn down(global: &Global, arguments: DownArgs) -> anyhow::Result<()> {
    let layout = global.layout()?;
    let quorum = layout.existing()?;
    let progress = Progress::start();
    stop(&layout, &quorum, &progress).await?;
    if arguments.purge {
        layout.purge()?;
        progress.say(&format!("removed {}", layout.root().display()));
    }
    progress.end();
    Ok(())
}

/// Stops every process: in order, and by force what does not follow in time. A leader
/// hands over while there is somebody to hand over to; the last node has nobody, and
/// is told so by a second signal.
pub(crate) async fn stop(
    layout: &Layout,
    quorum: &Quorum,
    progress: &Progress,
) -> anyhow::Result<()> {
    let nodes: Vec<_> = quorum
        .nodes
        .iter()
        .map(|node| (node.id, layout.node(node.id)))
        .collect();
    for (_, files) in &nodes {
        process::signal(files, Signal::TERM);
    }
    let deadline = Instant::now() + STOP_TIMEOUT;
    let mut last_alone_since = None;
    loop {
        let running: Vec<_> = nodes
            .iter()
            .filter(|(_, files)| process::running(files).is_some())
            .collect();
        match running.as_slice() {
            [] => break,
            [(_, last)] => {
                let since = *last_alone_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= LAST_NODE_PATIENCE {
                    process::signal(last, Signal::TERM);
                }
            }
            _ => {}
        }
        let ids: Vec<u64> = running.iter().map(|(id, _)| *id).collect();
        if Instant::now() >= deadline {
            for (_, files) in running {
                process::signal(files, Signal::KILL);
                process::ended(files, KILL_TIMEOUT).await;
            }
            progress.say(&format!(
                "node {} did not stop within {} s and was killed; nothing acknowledged is lost",
                by_commas(&ids),
                STOP_TIMEOUT.as_secs()
            ));
            break;
        }
        progress.wait("stopping the nodes");
        tokio::time::sleep(POLL).await;
    }
    let proxy = layout.proxy();
    process::signal(&proxy, Signal::TERM);
    if !process::ended(&proxy, KILL_TIMEOUT).await {
        process::signal(&proxy, Signal::KILL);
        process::ended(&proxy, KILL_TIMEOUT).await;
    }
    progress.say("stopped");
    Ok(())
}
