//! A node's configuration: from text, environment and flags to one checked value.
//!
//! Every key can stand in the TOML file, in an environment variable `NAUTILUS_*`
//! and on the command line; the flag wins over the variable, the variable over
//! the file, the file over the default. [`Settings`] is what was said,
//! [`NodeConfig`] is what it means: the rest of the program sees only the latter,
//! so that no later place has to check a value again.

mod audit;
mod backup;
mod check;
mod control;
mod endorsements;
mod error;
mod etcd;
mod kubelet;
mod settings;
mod sui;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nautilus_attest_protocol::TeeKind;
use nautilus_attest_tee::PcrSelection;

pub(crate) use backup::{Backup, Restore, RestoreKey, read_secret};
pub(crate) use endorsements::Endorsements;
pub(crate) use error::ConfigError;
pub(crate) use etcd::{Etcd, parse_duration};
pub(crate) use settings::{
    ApiSettings, AttestationSettings, AuditSettings, EndorsementSettings, EtcdSettings,
    LogSettings, PeerSettings, RaftSettings, RestoreSettings, Settings, SuiSettings,
};
pub(crate) use sui::{Sui, names_chain};

/// One node's checked configuration.
#[derive(Debug, Clone)]
pub(crate) struct NodeConfig {
    /// Identifies the node in its quorum; never 0.
    pub(crate) node_id: u64,
    /// Names the quorum: what keeps two quorums' nodes and disks apart.
    pub(crate) cluster_id: String,
    /// Where everything the node keeps lies.
    pub(crate) data_dir: PathBuf,
    /// How an empty data directory becomes a node.
    pub(crate) bootstrap: Bootstrap,
    /// Where peers reach the node.
    pub(crate) peer: Endpoint,
    /// Where clients reach the node.
    pub(crate) api: Endpoint,
    /// The etcd face, unless it is off.
    pub(crate) etcd: Option<Etcd>,
    /// Names and addresses of the serving certificate beyond the built-in ones.
    pub(crate) api_extra_sans: Vec<String>,
    /// Requests served at once: reading ones, changing ones; `None`: the defaults.
    pub(crate) api_inflight: [Option<u32>; 2],
    /// A listener without TLS for workers on this machine; loopback only.
    pub(crate) plain_http_listen: Option<SocketAddr>,
    /// Who may ask for credentials; pinned at genesis.
    pub(crate) operators: Vec<Operator>,
    /// How many of them must sign a change of the policy; pinned at genesis.
    pub(crate) operators_threshold: u32,
    /// Snapshots made on a schedule.
    pub(crate) backup: Option<Backup>,
    /// The snapshot a quorum is founded with.
    pub(crate) restore: Option<Restore>,
    /// How nodes' kubelets are reached.
    pub(crate) kubelets: nautilus_rest::KubeletSettings,
    /// How the node proves what it is, and what it accepts.
    pub(crate) attestation: Attestation,
    /// Seal tokens of the development judge.
    pub(crate) tokens_file: Option<PathBuf>,
    /// The chain that Seal tokens are judged by.
    pub(crate) sui: Option<Sui>,
    /// Timings of consensus.
    pub(crate) raft: RaftTimings,
    /// Log entries between two checkpoints (digest comparison and snapshot).
    pub(crate) checkpoint_every: u64,
    /// Bytes per second that a rotation of keys seals anew at most.
    pub(crate) keys_reencrypt_bytes_per_s: u64,
    /// The `AuthenticationConfiguration`, YAML or JSON, where there is one.
    pub(crate) authentication: Option<PathBuf>,
    /// Who issues service accounts' tokens; empty: the cluster's name for itself.
    pub(crate) service_account_issuers: Vec<String>,
    /// What runs while the node leads.
    pub(crate) control: nautilus_rest::ControlSettings,
    /// The log of requests to the Kubernetes API, where there is one.
    pub(crate) audit: Option<Audit>,
    /// What is logged and how.
    pub(crate) log: Log,
    /// OTLP collector (gRPC), `http://host:4317`.
    pub(crate) otlp_endpoint: Option<String>,
    /// How long an orderly shutdown may take.
    pub(crate) shutdown_timeout: Duration,
}

/// Which requests are recorded, and where.
#[derive(Debug, Clone)]
pub(crate) struct Audit {
    /// The `audit.k8s.io/v1` Policy, YAML or JSON.
    pub(crate) policy_file: PathBuf,
    /// Where events are written.
    pub(crate) log: nautilus_rest::audit::LogFile,
}

/// How an empty data directory becomes a node. A directory that holds a node
/// already is simply restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bootstrap {
    /// Found a new quorum with this node as its only voter.
    Genesis,
    /// Join through one of these peers, which must have admitted the node.
    Join(Vec<String>),
    /// Wait for operators' shares, then go on alone with what the data directory holds.
    Recover,
}

/// A listener and the address others are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Bound here.
    pub(crate) listen: SocketAddr,
    /// `host:port` told to others.
    pub(crate) advertise: String,
}

/// A person who may ask for credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operator {
    /// The user name in certificates and audit.
    pub(crate) user: String,
    /// The public key: DER of a SubjectPublicKeyInfo.
    pub(crate) public_key_der: Vec<u8>,
}

/// How the node proves what it is, and what it accepts of others.
#[derive(Debug, Clone)]
pub(crate) struct Attestation {
    /// Who makes the evidence.
    pub(crate) provider: Provider,
    /// The TPM beside the TEE.
    pub(crate) tpm: Option<Tpm>,
    /// Whether simulated evidence is accepted. It proves nothing about hardware.
    pub(crate) allow_simulated: bool,
    /// The measurements a peer may have, in the form of
    /// [`nautilus_attest_protocol::EvidencePolicy::from_text`].
    pub(crate) allowed_measurements: Vec<String>,
    /// How often evidence is renewed over a standing connection.
    pub(crate) renewal_interval: Duration,
    /// Where endorsements come from.
    pub(crate) endorsements: Endorsements,
}

/// A TPM that releases sealing keys, where the TEE has none, and counts starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tpm {
    /// Its device.
    pub(crate) path: PathBuf,
    /// The registers that its keys are bound to.
    pub(crate) registers: PcrSelection,
}

/// Who makes the evidence.
#[derive(Debug, Clone)]
pub(crate) enum Provider {
    /// No hardware: evidence signed by a root made for one development quorum.
    Simulated {
        /// The signing root, shared by the quorum's nodes.
        root: PathBuf,
        /// This "platform's" own secret: its identity and its sealing key.
        platform_secret: PathBuf,
    },
    /// The machine's TEE: of this kind, or of whichever it has. Never simulated.
    Hardware(Option<TeeKind>),
}

/// Timings of consensus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RaftTimings {
    /// Between a leader's heartbeats.
    pub(crate) heartbeat_interval: Duration,
    /// The shortest silence after which a follower stands for election.
    pub(crate) election_timeout_min: Duration,
    /// The longest.
    pub(crate) election_timeout_max: Duration,
}

/// What is logged and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    /// The form of a line.
    pub(crate) format: LogFormat,
    /// A `tracing` filter such as `info,nautilus_consensus=debug`.
    pub(crate) filter: String,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl NodeConfig {
    /// Reads the file named by `said` (flags and environment) and checks the whole.
    pub(crate) fn load(file: Option<&Path>, said: Settings) -> Result<Self, ConfigError> {
        let from_file = match file {
            Some(path) => Settings::read(path)?,
            None => Settings::default(),
        };
        check::check(said.over(from_file))
    }
}

#[cfg(test)]
mod tests;
