//! The face for the Go workers: registration, heartbeats, health and attestation, in
//! the exact form they speak (JSON over HTTP).
//!
//! Knows no TLS and no consensus: it speaks to the quorum through [`Kv`] and to the
//! leader's memory through [`LeaderChannel`]. Its pure parts ([`deadlines`],
//! [`lifecycle`], [`load`], [`removal`], [`roster`], [`wire`], [`node_object`]) know no clock
//! and no runtime.
//!
//! Invariants
//! - A beat costs memory on the leader and nothing in the log; what is replicated is a
//!   change of state.
//! - A new leader starts every deadline anew: no election makes a live worker NotReady.
//! - No token is stored, logged or sent to another node.

mod answer;
mod attestation;
mod beat;
pub mod chain;
pub mod clock;
pub mod deadlines;
pub mod events;
pub mod facts;
pub mod file_judge;
mod forward;
pub mod joins;
pub mod judge;
mod kubelet_leases;
mod leader;
pub mod lease_object;
pub mod lifecycle;
pub mod limits;
pub mod load;
mod loads;
pub mod machine;
mod message;
pub mod node_object;
mod owners;
mod places;
pub mod proof;
mod register;
pub mod removal;
pub mod roster;
mod routes;
pub mod row;
mod rows_store;
mod scan;
mod sweep;
mod terms;
pub mod tier;
pub mod token;
pub mod verdicts;
pub mod wire;
mod wire_beat;
pub mod zones;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use nautilus_machine::{Kv, LeaderChannel};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

pub use answer::TokenProblem;
pub use clock::{Clock, SystemClock};
pub use facts::{Evidence, EvidenceForm, Facts, Probes, QuorumView};
pub use file_judge::{FileJudge, TokenFileError};
pub use joins::{JoinRefusal, Joins};
pub use judge::{Judgement, TokenJudge, Verdict};
pub use leader::Leader;
pub use lifecycle::{Phase, Stake};
pub use load::{Load, LoadReport, Share};
pub use loads::loads;
pub use roster::RosterSettings;
pub use row::WorkerRow;
pub use tier::{StakeTier, StakeTiers};
pub use token::{SealToken, TokenHash};
pub use verdicts::{VerdictSettings, Verdicts};

use answer::Refusal;
use forward::Forwarder;

/// Evidence being made at once.
const ATTESTATIONS_IN_FLIGHT_LIMIT: usize = 16;

/// Everything the face needs.
pub struct WorkersContext {
    /// The replicated key space.
    pub kv: Arc<dyn Kv>,
    /// The way to the leader's [`Leader`].
    pub channel: Arc<dyn LeaderChannel>,
    /// Who may speak for a node; whoever makes this runs it too.
    pub verdicts: Arc<Verdicts>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What does not change.
    pub facts: Facts,
    /// What does.
    pub probes: Probes,
    /// Limits an operator may set.
    pub settings: WorkersSettings,
}

/// Limits an operator may set for this node's face.
#[derive(Debug, Clone)]
pub struct WorkersSettings {
    /// How far a registration's clock may be off.
    pub clock_skew_limit: Duration,
    /// What a stake permits.
    pub stake_tiers: StakeTiers,
}

impl Default for WorkersSettings {
    fn default() -> Self {
        Self {
            clock_skew_limit: limits::CLOCK_SKEW_LIMIT,
            stake_tiers: StakeTiers::default(),
        }
    }
}

/// The face, shared by its requests.
pub(crate) struct Workers {
    kv: Arc<dyn Kv>,
    channel: Arc<dyn LeaderChannel>,
    clock: Arc<dyn Clock>,
    verdicts: Arc<Verdicts>,
    forwarder: Forwarder,
    facts: Facts,
    probes: Probes,
    settings: WorkersSettings,
    requests: Semaphore,
    attestations: Semaphore,
}

impl Workers {
    fn permit(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        self.requests
            .try_acquire()
            .map_err(|_| Refusal::Busy("too many requests are under way"))
    }

    /// Refuses a timestamp further from this node's clock than the limit.
    fn near_our_clock(&self, timestamp_s: i64) -> Result<(), Refusal> {
        let now_s = i64::try_from(self.clock.unix_ms() / 1000).unwrap_or(i64::MAX);
        let off_s = now_s.abs_diff(timestamp_s);
        let limit_s = self.settings.clock_skew_limit.as_secs();
        if off_s > limit_s {
            return Err(Refusal::Skew { off_s, limit_s });
        }
        Ok(())
    }
}

/// The routes of the face. They read `nautilus_machinery::identity::User` from a
/// request's extensions where it matters (`/kubectl/config`). Must be called in a runtime: the
/// way of beats to the leader is a task, which ends with the routes.
pub fn workers_router(context: WorkersContext) -> Router {
    describe_metrics();
    let WorkersContext {
        kv,
        channel,
        verdicts,
        clock,
        facts,
        probes,
        settings,
    } = context;
    routes::router(Arc::new(Workers {
        forwarder: Forwarder::start(Arc::clone(&kv), Arc::clone(&channel)),
        kv,
        channel,
        verdicts,
        clock,
        facts,
        probes,
        settings,
        requests: Semaphore::new(limits::REQUESTS_IN_FLIGHT_LIMIT),
        attestations: Semaphore::new(ATTESTATIONS_IN_FLIGHT_LIMIT),
    }))
}

/// The background work: follows who leads, and does the leader's part while it is this
/// node. Ends with `shutdown`.
pub async fn run(leader: Arc<Leader>, kv: Arc<dyn Kv>, shutdown: CancellationToken) {
    leader.run(kv, shutdown).await;
}

fn describe_metrics() {
    metrics::describe_gauge!(
        "nautilus_workers",
        "Workers by state, as the leader sees them; zero on followers."
    );
    metrics::describe_gauge!(
        "nautilus_worker_zones",
        "Zones of workers by how much of them is silent, as the leader sees them; zero on followers."
    );
    metrics::describe_counter!(
        "nautilus_workers_evicted_total",
        "Silent workers whose pods were ordered away by this node while it led."
    );
    metrics::describe_counter!(
        "nautilus_heartbeats_total",
        "Heartbeats of workers taken by this node, by outcome."
    );
    metrics::describe_histogram!(
        "nautilus_heartbeat_duration_seconds",
        metrics::Unit::Seconds,
        "Time from a heartbeat's arrival to its answer."
    );
    // A rate over a counter that is not there yet misses its first increment.
    metrics::counter!("nautilus_heartbeats_total", "outcome" => "acknowledged").increment(0);
    let _ = metrics::histogram!("nautilus_heartbeat_duration_seconds");
    metrics::counter!("nautilus_workers_evicted_total").increment(0);
    leader::record_counts(roster::Counts::default());
    verdicts::describe_metrics();
    leader::record_zones(|_| 0);
}
