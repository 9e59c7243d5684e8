//! `nautilus node`: one process of the quorum, from its configuration to its end.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::compose;
use crate::config::{LogFormat, NodeConfig, Settings};
use crate::exit::{Failure, Logged};
use crate::telemetry::Telemetry;

/// Examples of `--help`.
pub(crate) const EXAMPLES: &str = "\
Every key stands in the TOML file, in an environment variable or in a flag; the flag wins
over the variable, the variable over the file. Sections of the file are the part of a flag
before the first dash: --raft-heartbeat-interval-ms is heartbeat_interval_ms of [raft].

Example file:
  cluster_id = \"alpha\"
  node_id = 1
  data_dir = \"/var/lib/nautilus\"
  bootstrap = \"genesis\"                  # \"join\" on the others,
  # join_addresses = [\"10.0.0.1:7443\"]   # with this
  operators = [\"admin=/etc/nautilus/operator.pub\"]
  [peer]
  listen = \"0.0.0.0:7443\"
  advertise = \"10.0.0.1:7443\"
  [api]
  listen = \"0.0.0.0:6443\"
  advertise = \"10.0.0.1:6443\"
  [attestation]
  provider = \"simulated\"
  allow_simulated = true                 # a development quorum
  simulated_root = \"/etc/nautilus/simulated-root\"
  platform_secret = \"/etc/nautilus/platform-secret\"
  allowed_measurements = [\"self\"]

Examples:
  nautilus node --config node.toml
  NAUTILUS_LOG_FORMAT=json nautilus node --config node.toml --log-filter debug";

/// For blocking work under way when a node has ended.
const LAST_THREADS: Duration = Duration::from_secs(2);

/// `nautilus node`.
#[derive(Args)]
pub(crate) struct NodeArgs {
    /// The configuration (TOML)
    #[arg(long, env = "NAUTILUS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    /// Let the kernel and debuggers dump this process's memory, for development. Keys stay
    /// out of a dump, what clients have stored does not
    #[arg(long, env = "NAUTILUS_ALLOW_CORE_DUMPS")]
    allow_core_dumps: bool,
    /// Leave the session of the terminal
    #[arg(long, hide = true)]
    own_session: bool,
}

/// Runs a node until a signal or a fatal error.
pub(crate) fn run(arguments: NodeArgs) -> anyhow::Result<()> {
    own_session(arguments.own_session);
    let config = NodeConfig::load(arguments.config.as_deref(), arguments.settings)
        .map_err(|error| Failure::Usage.error(error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("nautilus")
        .build()
        .context("start the runtime")?;
    let log_format = config.log.format;
    let result = runtime.block_on(async {
        let instance = format!("{}/{}", config.cluster_id, config.node_id);
        let telemetry = Telemetry::start(&config.log, config.otlp_endpoint.as_deref(), &instance)?;
        protect_memory(arguments.allow_core_dumps);
        let result = compose::run(config, telemetry.metrics(), StopSignals::listen()?).await;
        if let Err(error) = &result {
            tracing::error!(error = %crate::exit::one_line(error), "the node ends");
        }
        // The exporter's last batch blocks; it must not hold up a worker thread.
        let flushed = tokio::task::spawn_blocking(|| telemetry.shutdown());
        flushed.await.context("flush traces")?;
        match log_format {
            LogFormat::Human => result,
            LogFormat::Json => result.context(Logged),
        }
    });
    // What still blocks (a client that never reads, say) does not hold up the end for long;
    // a thread inside RocksDB gets the time to leave it before the process's statics go.
    runtime.shutdown_timeout(LAST_THREADS);
    result
}

/// SIGTERM and SIGINT, one after another.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// From now on they do not end the process by themselves.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("wait for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("wait for SIGINT")?,
        })
    }

    /// The next one. Cancel safe.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Leaves the terminal's session, so that the process outlives it.
pub(crate) fn own_session(wanted: bool) {
    if wanted {
        // Fails only for a process that leads a group already, which is as good.
        let _ = rustix::process::setsid();
    }
}

/// Keys are kept apart in memory that is locked and not dumped; the rest of the memory
/// holds what clients have stored.
fn protect_memory(allow_core_dumps: bool) {
    if allow_core_dumps {
        tracing::warn!("core dumps are allowed: they hold what clients have stored, in clear");
    } else if let Err(error) = nautilus_attest_secret::forbid_core_dumps() {
        tracing::warn!(%error, "a core dump of this process would hold what clients have stored");
    }
    if let Err(error) = nautilus_attest_secret::locking() {
        tracing::warn!("{error}");
    }
}
