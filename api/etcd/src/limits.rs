//! The face's bounds, with etcd's defaults.

use std::time::Duration;

/// Bytes a gRPC message may have beyond [`EtcdLimits::max_request_bytes`], so that the
/// refusal of a request that is a little too large is etcd's and not the transport's.
pub(crate) const MESSAGE_OVERHEAD_BYTES: usize = 512 * 1024;
/// Seconds a lease may last at most (etcd's `MaxLeaseTTL`).
pub(crate) const MAX_LEASE_TTL_SECONDS: i64 = 9_000_000_000;
/// Shortest interval of progress notifications.
pub(crate) const MIN_PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Bounds on requests and connections. Each is configurable.
#[derive(Debug, Clone)]
pub struct EtcdLimits {
    /// Bytes of a request (`--max-request-bytes`).
    pub max_request_bytes: usize,
    /// Comparisons, and operations of each branch, of a transaction (`--max-txn-ops`).
    pub max_txn_ops: usize,
    /// Bytes of the store at which NOSPACE is raised (`--quota-backend-bytes`); `None`: no quota.
    pub quota_bytes: Option<u64>,
    /// Streams of one connection at once (`--max-concurrent-streams`).
    pub max_concurrent_streams: u32,
    /// Connections at once.
    pub max_connections: usize,
    /// Shorter leases are granted this long, in seconds.
    pub min_lease_ttl_seconds: i64,
    /// Between progress notifications of a watch that asked for them
    /// (`--watch-progress-notify-interval`).
    pub watch_progress_interval: Duration,
    /// Watches of one stream.
    pub max_watches_per_stream: usize,
    /// From accept to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// Pings on a silent connection (`--grpc-keepalive-interval`).
    pub keepalive_interval: Duration,
    /// An unanswered ping ends the connection after this (`--grpc-keepalive-timeout`).
    pub keepalive_timeout: Duration,
    /// Time for requests under way after a stop.
    pub shutdown_grace: Duration,
}

impl EtcdLimits {
    /// Bytes of a gRPC message.
    pub(crate) fn max_message_bytes(&self) -> usize {
        self.max_request_bytes
            .saturating_add(MESSAGE_OVERHEAD_BYTES)
    }
}

impl Default for EtcdLimits {
    fn default() -> Self {
        Self {
            max_request_bytes: 1024 * 1024 * 3 / 2,
            max_txn_ops: 128,
            quota_bytes: Some(2 * 1024 * 1024 * 1024),
            max_concurrent_streams: 65_536,
            max_connections: 16_384,
            min_lease_ttl_seconds: 2,
            watch_progress_interval: Duration::from_secs(600),
            max_watches_per_stream: 65_536,
            handshake_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(2 * 3_600),
            keepalive_timeout: Duration::from_secs(20),
            shutdown_grace: Duration::from_secs(5),
        }
    }
}
