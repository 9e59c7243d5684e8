//! The chain's events: followed by the leader, confirmed where somebody relays them, applied
//! once on the whole quorum.
//!
//! ```text
//! full node -> follower -> batch -> one transaction: ledger, nodes, workers, requests
//! relayed   -> relay    ---^                                          requests -> API server
//! ```
//! Invariants
//! - The cursor moves in the transaction of the effects of what it passes.
//! - What nobody confirmed on the chain changes nothing.
//! - A verdict that an event overtakes is taken back before the cursor passes the event: a
//!   leader's death in between takes it back twice, never not at all.

mod batch;
mod effects;
mod follower;
mod hint;
mod join_tokens;
mod ledger;
pub mod limits;
mod nodes;
mod relay;
mod requests;
mod stakes;
mod status;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use nautilus_machine::{Kv, LeaderChannel};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::chain::{Cursor, EventSource};
use crate::clock::Clock;
use crate::terms;
use crate::tier::StakeTiers;
use crate::verdicts::Verdicts;

pub use join_tokens::WithJoinTokens;
pub use requests::{ApiAnswer, ApiRequest, ApiRequests};

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct EventsSettings {
    /// Pause between two looks for events while there is none.
    pub poll_interval: Duration,
    /// Where to go on once the full nodes don't know the quorum's position any more, if it is
    /// beyond that: what lies between is never applied.
    pub resume_at: Option<Cursor>,
    /// What a stake lets its owner do.
    pub stake_tiers: StakeTiers,
    /// How long a node drains whose stake was withdrawn.
    pub drain: Duration,
}

impl Default for EventsSettings {
    fn default() -> Self {
        Self {
            poll_interval: limits::POLL_INTERVAL,
            resume_at: None,
            stake_tiers: StakeTiers::default(),
            drain: crate::limits::DRAIN,
        }
    }
}

/// Everything that following the chain needs.
pub struct EventsContext {
    /// The replicated key space.
    pub kv: Arc<dyn Kv>,
    /// The way to the leader, who follows the chain.
    pub channel: Arc<dyn LeaderChannel>,
    /// Where this node hears what others tell it as the leader: [`crate::Leader::hints`].
    pub hints: Arc<Notify>,
    /// The chain's events.
    pub source: Arc<dyn EventSource>,
    /// Who remembers verdicts.
    pub verdicts: Arc<Verdicts>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What an operator may set.
    pub settings: EventsSettings,
}

/// This node's part in following the chain.
pub struct Events {
    kv: Arc<dyn Kv>,
    channel: Arc<dyn LeaderChannel>,
    source: Arc<dyn EventSource>,
    verdicts: Arc<Verdicts>,
    clock: Arc<dyn Clock>,
    settings: EventsSettings,
    /// There may be something to read.
    hinted: Arc<Notify>,
    relays: relay::Relays,
}

impl Events {
    /// Ready to relay, and to follow.
    pub fn new(context: EventsContext) -> Arc<Self> {
        describe_metrics();
        let EventsContext {
            kv,
            channel,
            hints,
            source,
            verdicts,
            clock,
            settings,
        } = context;
        let relays = relay::Relays::new(clock.monotonic_ms());
        Arc::new(Self {
            kv,
            source,
            verdicts,
            clock,
            settings,
            hinted: hints,
            channel,
            relays,
        })
    }

    /// Whether the leader follows the chain, and if not, why. As this node knows it.
    pub fn connected(&self) -> Result<(), String> {
        status::connected(&*self.kv)
    }

    /// Follows the chain and runs its API requests while this node leads. Ends with `shutdown`
    /// or with the node's leadership stream.
    pub async fn run(self: Arc<Self>, api: Arc<dyn ApiRequests>, shutdown: CancellationToken) {
        let (this, api) = (&self, &*api);
        let work = |term| async move {
            tokio::join!(follower::follow(this, term), requests::run(this, term, api));
        };
        terms::each(&*self.kv, &shutdown, work, follower::reset_metrics).await;
    }
}

/// `POST /api/v1/sui-events` and `GET /api/v1/sui-requests/{id}`; both say so where no chain
/// is followed.
pub fn events_router(events: Option<Arc<Events>>) -> Router {
    relay::router(events.clone()).merge(requests::router(events))
}

/// Said by the faces of a node that follows no chain.
const NO_CHAIN: &str = "this quorum follows no chain: [sui] is not configured";

/// What came of an event, in metrics.
mod outcome {
    pub(super) const APPLIED: &str = "applied";
    pub(super) const DUPLICATE: &str = "duplicate";
    pub(super) const IGNORED: &str = "ignored";
    pub(super) const MALFORMED: &str = "malformed";
    pub(super) const FAILED: &str = "failed";
    /// A request's id was used before.
    pub(super) const REPEATED_ID: &str = "repeated_id";
    /// Nothing is known of the request that it speaks of.
    pub(super) const NO_REQUEST: &str = "no_request";
    /// As many requests are kept as may be.
    pub(super) const FULL: &str = "full";
}

fn describe_metrics() {
    metrics::describe_counter!(
        "nautilus_sui_events_total",
        "Events of the chain whose turn came on this node, by event and outcome."
    );
    metrics::describe_counter!(
        "nautilus_sui_relayed_events_total",
        "Events of the chain relayed to this node, by outcome."
    );
    metrics::describe_counter!(
        "nautilus_sui_api_requests_total",
        "API requests of the chain that this node ran, by verb and outcome."
    );
    metrics::describe_gauge!(
        "nautilus_sui_cursor_checkpoint",
        "Last checkpoint of the chain that the quorum has applied whole; zero on followers."
    );
    metrics::describe_gauge!(
        "nautilus_sui_event_lag_seconds",
        "Age of the last applied event when it was applied; zero on followers."
    );
    metrics::describe_gauge!(
        "nautilus_sui_cursor_lost",
        "1 while the chain's full nodes do not know the quorum's position: an operator must act."
    );
    follower::reset_metrics();
}
