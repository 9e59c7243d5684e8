//! The composition root: one node, put together from its parts.
//!
//! ```text
//! data directory -> TEE -> attested endpoint -> root key -> consensus -> authority
//!                                                                     -> API faces
//! ```
//! Each step needs the one before it and nothing else. From the attested endpoint on
//! there is no way back: a node that can't prove what it is gets no key, and without
//! the key there is no log to read.

mod etcd;
mod events;
mod faces;
mod forms;
mod identity;
mod joins;
mod keys;
mod policy;
mod restart;
mod restore;
mod sui;
mod transport;
mod usages;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use nautilus_consensus::{Consensus, ConsensusConfig, MachineCounter, Timing};
use nautilus_machine::Kv;
use nautilus_rest::Authority;
use nautilus_store::Keyring;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{Bootstrap, Endorsements, NodeConfig};
use crate::data_dir::DataDir;
use crate::endorsements::{Endorsed, read_directory};
use crate::exit::Failure;
use crate::node::StopSignals;
use crate::policy::PolicySource;
use crate::recovery::{self, DeskParts, Recovered};
use crate::telemetry;
use identity::Identity;
use keys::SealedKeys;
use transport::AttestedTransport;

/// Pause before a step that needs a quorum is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// In the data directory once a recovery is finished: the next start is an ordinary one.
const RECOVERED_NOTE: &str = "recovered";

/// Runs one node until the first of `signals` or until it can't go on. The second
/// signal ends the orderly end: whoever stops the last nodes of a quorum need not
/// wait for an heir that can't come.
pub(crate) async fn run(
    config: NodeConfig,
    metrics: PrometheusHandle,
    mut signals: StopSignals,
) -> anyhow::Result<()> {
    let stopped = CancellationToken::new();
    let hurried = CancellationToken::new();
    let tokens = (stopped.clone(), hurried.clone());
    tokio::spawn(async move {
        signals.next().await;
        tracing::info!("told to stop");
        tokens.0.cancel();
        signals.next().await;
        tokens.1.cancel();
    });
    let node = Node::start(&config, &stopped).await?;
    let Some(node) = node else { return Ok(()) };
    tokio::spawn(telemetry::process_metrics(
        metrics.clone(),
        node.identity.measurement(),
    ));
    let served = node.serve(&config, &metrics, &stopped).await;
    tokio::select! {
        () = node.consensus.shutdown() => {}
        () = hurried.cancelled() => tracing::info!("told again: leaving at once"),
        () = tokio::time::sleep(config.shutdown_timeout) => tracing::warn!(
            after_ms = u64::try_from(config.shutdown_timeout.as_millis()).unwrap_or(u64::MAX),
            "the orderly end took too long; the log has everything that was acknowledged"
        ),
    }
    tracing::info!("stopped");
    served
}

/// A node that takes part in consensus.
struct Node {
    identity: Arc<Identity>,
    endorsed: Arc<Endorsed>,
    transport: Arc<AttestedTransport>,
    policy: Arc<PolicySource>,
    consensus: Consensus,
    keyring: Keyring,
    sealed_keys: Arc<SealedKeys>,
    /// Operators brought this node back, and what follows is not done yet.
    recovered: Option<Recovered>,
    api: TcpListener,
    etcd: Option<TcpListener>,
    plain: Option<TcpListener>,
}

impl Node {
    /// Everything up to consensus; `None` when told to stop before that.
    async fn start(
        config: &NodeConfig,
        stopped: &CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        let data_dir = DataDir::open(&config.data_dir, &config.cluster_id, config.node_id)
            .map_err(|error| Failure::Refused.error(error))?;
        let data_dir = Arc::new(data_dir);
        // Ports are taken before anything is promised to anybody.
        let peers = bind("peer.listen", config.peer.listen).await?;
        let api = bind("api.listen", config.api.listen).await?;
        let etcd = match &config.etcd {
            Some(face) => Some(bind("etcd.listen", face.endpoint.listen).await?),
            None => None,
        };
        let plain = match config.plain_http_listen {
            Some(address) => Some(bind("plain_http_listen", address).await?),
            None => None,
        };
        let endorsed = Arc::new(endorsed(&config.attestation.endorsements)?);
        let at_hand = Arc::clone(&endorsed) as _;
        let identity = Arc::new(Identity::new(&config.attestation, at_hand)?);
        check_cipher(config)?;
        tracing::info!(
            node = config.node_id,
            quorum = %config.cluster_id,
            measurement = %identity.measurement(),
            tee = %identity.tee(),
            "starting"
        );
        let policy = Arc::new(PolicySource::open(
            &config.cluster_id,
            data_dir.path(),
            Arc::clone(identity.provider()) as _,
            identity.policy().clone(),
        )?);
        let members = Arc::new(OnceLock::new());
        let transport =
            AttestedTransport::new(config, &identity, policy.subscribe(), Arc::clone(&members));
        let transport = Arc::new(transport.await?);
        let sealed_keys = Arc::new(SealedKeys {
            data_dir: Arc::clone(&data_dir),
            identity: Arc::clone(&identity),
        });
        let recovered = if is_recovering(config, &data_dir)? {
            let recovered = recover(config, &sealed_keys, &api, stopped).await?;
            let Some(recovered) = recovered else {
                return Ok(None);
            };
            Some(recovered)
        } else {
            None
        };
        let keys = keys::obtain(config, &sealed_keys, &transport);
        let keyring = tokio::select! {
            keyring = keys => keyring?,
            () = stopped.cancelled() => return Ok(None),
        };
        let kv = Arc::new(OnceLock::new());
        let mut settings = consensus_config(config);
        settings.counter = identity.provider().counter().map(MachineCounter);
        let platform = recovered.as_ref().map(|_| identity.provider().platform());
        settings.stand_alone = platform;
        let consensus = Consensus::start(
            settings,
            &keyring,
            transport.clone(),
            peers,
            keys::secrets(&keyring, &kv),
        )
        .await
        .map_err(|error| Failure::Fatal.error(error))?;
        // Set once, here: whoever asked before had nothing pinned yet.
        let _ = members.set(consensus.cluster());
        let _ = kv.set(consensus.kv());
        // From here on, also while there is no leader: a node that was away learns which
        // code is good before it can serve.
        tokio::spawn(crate::policy::follow(
            Arc::clone(&policy),
            consensus.kv(),
            stopped.clone(),
        ));
        let (settings, who) = (config.clone(), Arc::clone(&identity));
        let is_founded = consensus.is_initialized();
        let folder = Arc::clone(&data_dir);
        let opened = tokio::task::spawn_blocking(move || {
            restore::open(&settings, &folder, &who, is_founded)
        })
        .await??;
        if config.bootstrap == Bootstrap::Genesis && !is_founded {
            consensus
                .initialize(&identity.provider().platform())
                .await
                .context("found the quorum")?;
            tracing::info!("founded the quorum");
        }
        if let Some(opened) = opened {
            restore::run(opened, &consensus.kv(), &data_dir).await?;
        }
        Ok(Some(Self {
            identity,
            endorsed,
            transport,
            policy,
            consensus,
            keyring,
            sealed_keys,
            recovered,
            api,
            etcd,
            plain,
        }))
    }

    /// Serves until told to stop; an error is one that the process must end with.
    async fn serve(
        &self,
        config: &NodeConfig,
        metrics: &PrometheusHandle,
        stopped: &CancellationToken,
    ) -> anyhow::Result<()> {
        let fatal = self.consensus.fatal();
        tokio::select! {
            served = faces::serve(self, config, metrics, stopped) => served,
            error = fatal => {
                stopped.cancel();
                Err(Failure::Fatal.error(format!(
                    "{error}; the node must not serve on: see what the message names, then start \
                     it again"
                )))
            }
        }
    }
}

fn is_recovering(config: &NodeConfig, data_dir: &DataDir) -> anyhow::Result<bool> {
    if config.bootstrap != Bootstrap::Recover {
        return Ok(false);
    }
    let is_done = data_dir.read(RECOVERED_NOTE).context(RECOVERED_NOTE)?;
    if is_done.is_some() {
        tracing::warn!(
            "this node was recovered before: bootstrap = \"recover\" does nothing; remove it, or \
             the file \"{RECOVERED_NOTE}\" in the data directory to recover once more"
        );
    }
    Ok(is_done.is_none())
}

/// Waits for operators' shares, and seals the keys that they open to this node; `None`
/// when told to stop before.
async fn recover(
    config: &NodeConfig,
    sealed_keys: &Arc<SealedKeys>,
    api: &TcpListener,
    stopped: &CancellationToken,
) -> anyhow::Result<Option<Recovered>> {
    let identity = Arc::clone(&sealed_keys.identity);
    let sealed = Arc::clone(sealed_keys);
    let desk = DeskParts {
        node_id: config.node_id,
        escrow: recovery::escrow_of(sealed_keys.data_dir.path(), &config.cluster_id)?,
        evidence: Arc::new(move |report_data| identity.evidence(report_data)),
        accept: Arc::new(move |keyring| keys::take_recovered(&sealed, keyring)),
        names: faces::names(config),
    };
    recovery::recover(desk, faces::duplicate(api)?, stopped).await
}

/// What is at hand before there is a quorum.
fn endorsed(settings: &Endorsements) -> anyhow::Result<Endorsed> {
    let Some(directory) = &settings.directory else {
        return Ok(Endorsed::default());
    };
    let files = read_directory(directory).map_err(|error| {
        Failure::Usage.error(format!("attestation.endorsements.directory: {error:#}"))
    })?;
    tracing::info!(endorsements = files.len(), directory = %directory.display(), "read endorsements");
    Ok(Endorsed::new(files))
}

/// A build that encrypts nothing serves benchmarks, and says so.
fn check_cipher(config: &NodeConfig) -> anyhow::Result<()> {
    if nautilus_store::ENCRYPTS {
        return Ok(());
    }
    if !config.attestation.allow_simulated {
        return Err(Failure::Usage.error(
            "this build has the null cipher, which encrypts nothing, and serves benchmarks on \
             simulated evidence only; use a build without the feature null-cipher",
        ));
    }
    tracing::warn!(
        "NULL CIPHER: this build encrypts nothing at rest; use it for benchmarks only, never \
         for data that matters"
    );
    Ok(())
}

/// The quorum's authority, waited for until there is a quorum.
async fn authority(kv: &dyn Kv, cluster_id: &str) -> anyhow::Result<Arc<Authority>> {
    loop {
        match Authority::load_or_create(kv, cluster_id).await {
            Ok(authority) => return Ok(Arc::new(authority)),
            Err(nautilus_rest::AuthorityError::Store(reason)) => {
                tracing::warn!(%reason, "waiting for a quorum");
            }
            Err(error) => return Err(Failure::Fatal.error(error)),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn bind(key: &str, address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::Usage.error(format!(
            "{key} = {address}: {error}; free it, or choose another"
        ))
    })
}

/// `https://host:port` of the etcd face; empty without one.
fn client_address(config: &NodeConfig) -> String {
    config.etcd.as_ref().map_or_else(String::new, |face| {
        format!("https://{}", face.endpoint.advertise)
    })
}

fn consensus_config(config: &NodeConfig) -> ConsensusConfig {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut consensus = ConsensusConfig::new(
        config.node_id,
        &config.peer.advertise,
        &format!("https://{}", config.api.advertise),
        config.data_dir.clone(),
    );
    consensus.client_address = client_address(config);
    consensus.timing = Timing {
        heartbeat_ms: millis(config.raft.heartbeat_interval),
        election_min_ms: millis(config.raft.election_timeout_min),
        election_max_ms: millis(config.raft.election_timeout_max),
    };
    consensus.checkpoint_every_entries = config.checkpoint_every;
    consensus
}
