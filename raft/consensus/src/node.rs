//! One node of the quorum: started, initialized, stopped.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use nautilus_attest_protocol::restart::Rejoin;
use nautilus_machine::{
    Cluster, Kv, LeaderChannel, LeaderHandler, Leadership, Leases, Ledger, Maintenance, NodeId,
};
use nautilus_store::{Envelope, Keyring, Store};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{InitializeError as RaftInitializeError, RaftError};
use openraft::{Config, SnapshotPolicy};
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::applied::AppliedTracker;
use crate::barrier::{self, Barrier};
use crate::channel::Channel;
use crate::cluster::{self, ClusterPort};
use crate::config::{ConsensusConfig, MachineCounter, PROPOSAL_BYTES_MAX, PROPOSALS_PENDING_BYTES};
use crate::error::{FatalError, InitializeError, StartError};
use crate::hub::Hub;
use crate::intake::Intake;
use crate::keys::NodeKeys;
use crate::kv::KvPort;
use crate::leases::LeasesPort;
use crate::ledger::LedgerPort;
use crate::lessor::Lessor;
use crate::link::Links;
use crate::log::{Wal, WalOptions, WriteFault};
use crate::log_storage::LogStorage;
use crate::loss::{self, LossDetector};
use crate::maintenance::MaintenancePort;
use crate::network::NetworkFactory;
use crate::node_core::{AttestedPeer, Core, LeaderClock, PromotionGuard, SecretsSource};
use crate::peers::Peers;
use crate::restart::{self, Lives, Registrar, Restart};
use crate::server;
use crate::snapshots::Snapshots;
use crate::state_machine::{self, Machinery, Newest, StateMachine};
use crate::telemetry;
use crate::transport::{PeerIdentity, Transport};
use crate::types::{NodeInfo, Raft};
use crate::upkeep;

/// Milliseconds a snapshot may take to be installed: as long as it needs, the
/// transfer has its own limit on standing still.
const INSTALL_TIMEOUT_MS: u64 = 3_600_000;
/// Entries of one append at most; its bytes are bounded by the log's reader.
const APPEND_ENTRIES: u64 = 1024;

/// A running node. Dropping it stops everything at once, as a crash would;
/// [`Consensus::shutdown`] is the orderly way.
pub struct Consensus {
    core: Arc<Core>,
}

impl Consensus {
    /// Recovers log and store from `config.data_dir`, and takes part from now on.
    /// `listener` is where peers connect; `secrets` are what a joiner gets.
    pub async fn start(
        config: ConsensusConfig,
        keyring: &Keyring,
        transport: Arc<dyn Transport>,
        listener: TcpListener,
        secrets: SecretsSource,
    ) -> Result<Self, StartError> {
        Self::start_with_fault(config, keyring, transport, listener, secrets, None).await
    }

    /// As [`Consensus::start`], with writes of the log that fail when `fault` says so.
    #[cfg(feature = "test-transport")]
    pub async fn start_with_write_fault(
        config: ConsensusConfig,
        keyring: &Keyring,
        transport: Arc<dyn Transport>,
        listener: TcpListener,
        secrets: SecretsSource,
        fault: Arc<dyn Fn(usize) -> Option<std::io::Error> + Send + Sync>,
    ) -> Result<Self, StartError> {
        Self::start_with_fault(config, keyring, transport, listener, secrets, Some(fault)).await
    }

    async fn start_with_fault(
        config: ConsensusConfig,
        keyring: &Keyring,
        transport: Arc<dyn Transport>,
        listener: TcpListener,
        secrets: SecretsSource,
        write_fault: Option<WriteFault>,
    ) -> Result<Self, StartError> {
        if config.node_id == 0 {
            return Err(StartError::Config("node_id must not be 0".into()));
        }
        if config.limits.proposal_bytes > PROPOSAL_BYTES_MAX {
            return Err(StartError::Config(format!(
                "proposal_bytes is {}, more than {PROPOSAL_BYTES_MAX} can't be replicated",
                config.limits.proposal_bytes
            )));
        }
        telemetry::describe_metrics();
        let raft_config = Arc::new(raft_config(&config)?);
        let (opening, ring) = (config.clone(), keyring.clone());
        let opened = tokio::task::spawn_blocking(move || open(&opening, &ring, write_fault));
        let (wal, machinery, lives) = opened
            .await
            .map_err(|error| StartError::Storage(error.to_string()))??;
        if let Some(platform) = &config.stand_alone {
            let applied = state_machine::applied_note(&machinery.store)
                .map_err(|error| StartError::Storage(error.to_string()))?;
            restart::stand_alone(&wal, &config, applied, platform)
                .await
                .map_err(StartError::Storage)?;
        }
        let machine = StateMachine::new(Arc::clone(&machinery))
            .map_err(|error| StartError::Storage(error.to_string()))?;
        let log = wal.reader();
        let reader = log.clone();
        let end = tokio::task::spawn_blocking(move || restart::log_end(&reader)).await;
        let end = end
            .map_err(|error| StartError::Storage(error.to_string()))?
            .map_err(StartError::Storage)?;
        let peers = Peers::new(config.node_id, Arc::clone(&transport), Arc::clone(&lives));
        let registrar = Arc::new(Registrar::default());
        let network = NetworkFactory {
            peers: Arc::clone(&peers),
            registrar: Arc::clone(&registrar),
            machinery: Arc::downgrade(&machinery),
        };
        let raft = Raft::new(
            config.node_id,
            raft_config,
            network,
            LogStorage::new(wal, Arc::clone(&lives)),
            machine,
        )
        .await;
        let raft = raft.map_err(|error| StartError::Storage(error.to_string()))?;
        // Until the restart rule lets it in, and its log is whole.
        raft.runtime_config().elect(false);
        peers.set_membership(raft.metrics().borrow_watched().membership_config.clone());
        let (losses, ended) = LossDetector::new();
        let core = Arc::new(Core {
            pending: Semaphore::new(config.limits.proposals_pending),
            pending_kib: Semaphore::new(PROPOSALS_PENDING_BYTES / 1024),
            config,
            raft,
            peers,
            machinery,
            log,
            secrets,
            handler: RwLock::new(None),
            promotion_guard: RwLock::new(None),
            leadership: watch::channel(Leadership::default()).0,
            barrier: Barrier::default(),
            intake: Intake::default(),
            links: Links::default(),
            losses,
            restart: Restart::new(&lives, &end),
            lives,
            registrar,
            clock: LeaderClock::default(),
            fatal: watch::channel(None).0,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        core.tasks.spawn(upkeep::observe(Arc::clone(&core)));
        core.tasks.spawn(upkeep::lead(Arc::clone(&core)));
        core.tasks.spawn(upkeep::shorten_log(Arc::clone(&core)));
        core.tasks.spawn(upkeep::report(Arc::clone(&core)));
        core.tasks.spawn(restart::come_back(Arc::clone(&core)));
        core.tasks.spawn(restart::register_lives(Arc::clone(&core)));
        core.tasks.spawn(barrier::run(Arc::clone(&core)));
        core.tasks.spawn(loss::run(Arc::clone(&core), ended));
        core.tasks
            .spawn(server::serve(Arc::clone(&core), transport, listener));
        Ok(Self { core })
    }

    /// Genesis: makes this node the only voter of a new quorum, pinned to `platform`.
    pub async fn initialize(&self, platform: &str) -> Result<(), InitializeError> {
        let config = &self.core.config;
        let node = NodeInfo {
            peer_address: config.peer_address.clone(),
            api_address: config.api_address.clone(),
            client_address: config.client_address.clone(),
            platform: platform.to_owned(),
            incarnation: self.core.lives.own(),
        };
        let members: BTreeMap<NodeId, NodeInfo> = BTreeMap::from([(config.node_id, node)]);
        self.core
            .raft
            .initialize(members)
            .await
            .map_err(|error| match error {
                RaftError::APIError(RaftInitializeError::NotAllowed(_)) => {
                    InitializeError::AlreadyInitialized
                }
                other => InitializeError::Raft(other.to_string()),
            })?;
        self.core.restart.found();
        self.core.raft.runtime_config().elect(true);
        Ok(())
    }

    /// How this node came back after its start; pending until it has, and for good on
    /// one that founds its quorum.
    pub fn rejoined(&self) -> impl Future<Output = Rejoin> + Send + 'static {
        let mut rejoined = WatchStream::new(self.core.restart.rejoined());
        async move {
            while let Some(rejoin) = rejoined.next().await {
                if let Some(rejoin) = rejoin {
                    return rejoin;
                }
            }
            std::future::pending().await
        }
    }

    /// Whether this node belongs to a quorum already (genesis or a first append was here).
    pub fn is_initialized(&self) -> bool {
        self.core.log.bounds().1.is_some() || self.core.applied().is_some()
    }

    /// The replicated key space.
    pub fn kv(&self) -> Arc<dyn Kv> {
        Arc::new(KvPort(Arc::clone(&self.core)))
    }

    /// Members and status.
    pub fn cluster(&self) -> Arc<dyn Cluster> {
        Arc::new(ClusterPort(Arc::clone(&self.core)))
    }

    /// The leases' clock.
    pub fn leases(&self) -> Arc<dyn Leases> {
        Arc::new(LeasesPort(Arc::clone(&self.core)))
    }

    /// The upkeep of this node's store.
    pub fn maintenance(&self) -> Arc<dyn Maintenance> {
        Arc::new(MaintenancePort(Arc::clone(&self.core)))
    }

    /// Proofs of changes.
    pub fn ledger(&self) -> Arc<dyn Ledger> {
        Arc::new(LedgerPort(Arc::clone(&self.core)))
    }

    /// The keys under which this node's disk is sealed.
    pub fn keys(&self) -> NodeKeys {
        NodeKeys::new(Arc::clone(&self.core))
    }

    /// Messages to the leader's memory.
    pub fn leader_channel(&self) -> Arc<dyn LeaderChannel> {
        Arc::new(Channel(Arc::clone(&self.core)))
    }

    /// What was attested of another member on its newest connection with this node.
    pub fn attested_peer(&self, id: NodeId) -> Option<PeerIdentity> {
        self.core.peers.attested(id)
    }

    /// As [`Consensus::attested_peer`], for whoever asks later.
    pub fn attested_peers(&self) -> AttestedPeer {
        let peers = Arc::clone(&self.core.peers);
        Arc::new(move |id| peers.attested(id))
    }

    /// Who has a word before this node, as the leader, gives a learner a vote.
    pub fn set_promotion_guard(&self, guard: PromotionGuard) {
        *self.core.promotion_guard.write() = Some(guard);
    }

    /// Who answers such messages while this node leads.
    pub fn set_leader_handler(&self, handler: Arc<dyn LeaderHandler>) {
        *self.core.handler.write() = Some(handler);
    }

    /// Resolves with the error that must end the process; never, if there is none.
    pub fn fatal(&self) -> impl Future<Output = FatalError> + Send + 'static {
        let mut errors = WatchStream::new(self.core.fatal.subscribe());
        async move {
            while let Some(error) = errors.next().await {
                if let Some(error) = error {
                    return error;
                }
            }
            std::future::pending().await
        }
    }

    /// The orderly end: hands leadership over if this node leads, stops, and flushes.
    pub async fn shutdown(&self) {
        let core = &self.core;
        if core.raft_leader() == Some(core.config.node_id) {
            cluster::hand_over(core).await;
        }
        core.pending.close();
        core.pending_kib.close();
        core.stop.cancel();
        core.machinery.hub.close();
        if let Err(error) = core.raft.shutdown().await {
            tracing::warn!(%error, "raft's core had ended badly");
        }
        core.tasks.close();
        core.tasks.wait().await;
        // A log that lacks what was acknowledged must not be proven.
        if core.restart.may_stand() {
            let (lives, log) = (Arc::clone(&core.lives), core.log.clone());
            let stopped = tokio::task::spawn_blocking(move || lives.stop(restart::log_end(&log)?));
            let stopped = stopped.await.unwrap_or_else(|error| Err(error.to_string()));
            if let Err(error) = stopped {
                tracing::warn!(%error, "the counter does not prove this stop; peers will be asked");
            }
        }
        let store = Arc::clone(&core.machinery.store);
        match tokio::task::spawn_blocking(move || store.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the store was not flushed; the log has it all");
            }
            Err(error) => tracing::warn!(%error, "the store was not flushed; the log has it all"),
        }
    }
}

impl Drop for Consensus {
    fn drop(&mut self) {
        self.core.stop.cancel();
        self.core.machinery.hub.close();
    }
}

/// What stands on the disk: the log, the state, and which incarnation this is.
type Opened = (Arc<Wal>, Arc<Machinery>, Arc<Lives>);

/// Opens log and store; blocks.
fn open(
    config: &ConsensusConfig,
    keyring: &Keyring,
    write_fault: Option<WriteFault>,
) -> Result<Opened, StartError> {
    let storage = |error: &dyn std::fmt::Display| StartError::Storage(error.to_string());
    let counter = config
        .counter
        .clone()
        .map(|MachineCounter(counter)| counter);
    let lives = Lives::begin(&config.data_dir, keyring, config.node_id, counter)
        .map_err(|error| storage(&error))?;
    let log_dir = config.data_dir.join("log");
    std::fs::create_dir_all(&log_dir).map_err(|error| storage(&error))?;
    let envelope = Envelope::open_dir(&log_dir, keyring).map_err(|error| storage(&error))?;
    let options = WalOptions {
        dir: log_dir,
        segment_bytes: config.segment_bytes,
        cache_bytes: config.log_cache_bytes,
        write_fault,
    };
    let wal = Wal::open(&options, envelope).map_err(|error| storage(&error))?;
    let folder = config.data_dir.join("store");
    let store =
        Store::open_with(&folder, keyring, config.store).map_err(|error| storage(&error))?;
    let store = Arc::new(store);
    let applied = state_machine::applied_note(&store).map_err(|error| storage(&error))?;
    let folder = config.data_dir.join("snapshots");
    let snapshots = Snapshots::open(folder, config.node_id, &store, applied)
        .map_err(|error| storage(&error))?;
    let machinery = Machinery {
        hub: Hub::new(Arc::clone(&store), config.limits.hub),
        store,
        tracker: AppliedTracker::new(None),
        newest: Newest::default(),
        lessor: Lessor::default(),
        snapshots,
        checkpoints: watch::channel(None).0,
    };
    Ok((Arc::new(wal), Arc::new(machinery), lives))
}

fn raft_config(config: &ConsensusConfig) -> Result<Config, StartError> {
    let timing = config.timing;
    let raft = Config {
        cluster_name: "nautilus".into(),
        heartbeat_interval: timing.heartbeat_ms,
        election_timeout_min: timing.election_min_ms,
        election_timeout_max: timing.election_max_ms,
        install_snapshot_timeout: INSTALL_TIMEOUT_MS,
        max_payload_entries: APPEND_ENTRIES,
        replication_lag_threshold: u64::MAX,
        // Snapshots and purges are ours to drive, by checkpoints.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(true),
        // A member whose disk was put back holds less than it had acknowledged.
        allow_log_reversion: Some(true),
        // The state machine is not synced: a restarted leader has to be elected.
        enable_leader_restore: Some(false),
        broadcast_submitted_on_append: Some(true),
        ..Config::default()
    };
    raft.validate()
        .map_err(|error| StartError::Config(error.to_string()))
}
