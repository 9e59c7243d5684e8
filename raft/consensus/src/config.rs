//! What a node of the quorum has to be told, and the bounds it keeps.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nautilus_attest_protocol::Counter;
use nautilus_machine::NodeId;
use nautilus_store::StoreOptions;

use crate::hub::HubLimits;

/// How one node takes part.
#[derive(Debug, Clone)]
pub struct ConsensusConfig {
    /// This node's id; never 0, never reused by another machine.
    pub node_id: NodeId,
    /// `host:port` where the other masters reach this one.
    pub peer_address: String,
    /// `https://host:port` where clients reach it.
    pub api_address: String,
    /// `https://host:port` of its etcd face; empty without one.
    pub client_address: String,
    /// The folder of log, store and snapshots.
    pub data_dir: PathBuf,
    /// Elections.
    pub timing: Timing,
    /// Bytes preallocated per segment of the log.
    pub segment_bytes: u64,
    /// Bytes of log entries kept in memory.
    pub log_cache_bytes: usize,
    /// What the store keeps in memory.
    pub store: StoreOptions,
    /// Entries between two checkpoints, more when the state is large (digest compared, snapshot taken).
    pub checkpoint_every_entries: u64,
    /// Entries kept in the log behind a snapshot, for followers that lag and for
    /// everything the core still has queued.
    pub log_tail_entries: u64,
    /// Which revisions are forgotten.
    pub compaction: Compaction,
    /// Bounds on requests and memory.
    pub limits: Limits,
    /// The machine's monotonic counter, where it has one: it proves the disk after an
    /// orderly stop.
    pub counter: Option<MachineCounter>,
    /// Operators decided that this node goes on alone, on this platform: before it
    /// starts, its log gets a membership of it alone.
    pub stand_alone: Option<String>,
}

impl ConsensusConfig {
    /// A node with every default.
    pub fn new(node_id: NodeId, peer_address: &str, api_address: &str, data_dir: PathBuf) -> Self {
        Self {
            node_id,
            peer_address: peer_address.to_owned(),
            api_address: api_address.to_owned(),
            client_address: String::new(),
            data_dir,
            timing: Timing::default(),
            segment_bytes: 64 << 20,
            log_cache_bytes: LOG_CACHE_BYTES,
            store: StoreOptions::default(),
            checkpoint_every_entries: 50_000,
            log_tail_entries: 50_000,
            compaction: Compaction::default(),
            limits: Limits::default(),
            counter: None,
            stand_alone: None,
        }
    }
}

/// A monotonic counter of this machine.
#[derive(Clone)]
pub struct MachineCounter(pub Arc<dyn Counter>);

impl fmt::Debug for MachineCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MachineCounter")
    }
}

/// Times of elections, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats of the leader.
    pub heartbeat_ms: u64,
    /// A follower waits for `election_max_ms` (the leader's lease) and then for a
    /// random time between the two before it asks for votes.
    pub election_min_ms: u64,
    /// See `election_min_ms`.
    pub election_max_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat_ms: 50,
            election_min_ms: 150,
            election_max_ms: 250,
        }
    }
}

/// When old revisions are compacted, by the leader's proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compaction {
    /// Never: somebody else proposes it.
    Off,
    /// Every period, up to the revision that was the newest one period before.
    Periodic(Duration),
    /// Keep so many revisions.
    KeepRevisions(u64),
}

impl Default for Compaction {
    fn default() -> Self {
        Self::Periodic(Duration::from_secs(300))
    }
}

/// Bounds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one proposal.
    pub proposal_bytes: usize,
    /// Proposals of this node under way at once, of [`PROPOSALS_PENDING_BYTES`]
    /// together; more wait, for `propose_timeout` at most.
    pub proposals_pending: usize,
    /// How long a proposal looks for a leader, and then for its outcome.
    pub propose_timeout: Duration,
    /// How long a read barrier looks for a leader.
    pub barrier_timeout: Duration,
    /// Bytes of one message to the leader's memory.
    pub call_bytes: usize,
    /// How long such a message may take.
    pub call_timeout: Duration,
    /// Handshakes of peers under way at once; one address may have a quarter of them.
    pub handshakes: usize,
    /// How long one may take.
    pub handshake_timeout: Duration,
    /// The watch hub's.
    pub hub: HubLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            proposal_bytes: 4 << 20,
            proposals_pending: 4096,
            propose_timeout: Duration::from_secs(10),
            barrier_timeout: Duration::from_secs(5),
            call_bytes: 1 << 20,
            call_timeout: Duration::from_secs(5),
            handshakes: 64,
            handshake_timeout: Duration::from_secs(10),
            hub: HubLimits::default(),
        }
    }
}

/// Bytes of log entries on disk that stay in memory, for followers that are a little behind;
/// who is further behind is read for from the disk.
const LOG_CACHE_BYTES: usize = 8 << 20;
/// Bytes of all proposals of this node that are under way.
pub const PROPOSALS_PENDING_BYTES: usize = 256 << 20;
/// The largest [`Limits::proposal_bytes`]: an entry must fit into a message.
pub const PROPOSAL_BYTES_MAX: usize = PEER_MESSAGE_BYTES / 2;
/// Bytes of one message between masters; a batch of entries and its framing.
pub(crate) const PEER_MESSAGE_BYTES: usize = 16 << 20;
/// Bytes of one chunk of a snapshot.
pub(crate) const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;
/// How long a snapshot's transfer may stand still before it is broken off.
pub(crate) const SNAPSHOT_STALL: Duration = Duration::from_secs(30);
/// A connection on which nothing comes for this long is asked for a sign of life.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_millis(400);
/// And closed when none comes for this long.
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_millis(800);
/// How long connecting to a peer may take, attestation included.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
