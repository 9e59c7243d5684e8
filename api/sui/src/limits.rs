//! Every bound and every default time of the chain's clients, by name and unit.

use std::time::Duration;

/// Full nodes that may be configured.
pub const ENDPOINTS_LIMIT: usize = 16;
/// Largest answer about one object, transaction or epoch, in bytes. Objects of Sui end at 250 KiB.
pub const ANSWER_LIMIT_BYTES: usize = 2 * 1024 * 1024;
/// Largest answer with a checkpoint or a page of events, in bytes.
pub const CHECKPOINT_LIMIT_BYTES: usize = 32 * 1024 * 1024;
/// How long a full node's sentence about a refusal may be, in bytes, before it is cut.
pub const REASON_LIMIT_BYTES: usize = 200;

/// How long one request to one full node may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long an answer may take, whoever gives it: less than a judge may think.
pub const ANSWER_TIMEOUT: Duration = Duration::from_millis(2500);
/// How long a page of events may take, with all that proves it.
pub const EVENTS_TIMEOUT: Duration = Duration::from_secs(20);
/// A second full node is asked after this long at the latest...
pub const HEDGE_AFTER: Duration = Duration::from_millis(600);
/// ...and never sooner than this.
pub const HEDGE_AFTER_MIN: Duration = Duration::from_millis(20);
/// How long a connection may take to come up.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a connection that is in use is probed.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Requests per second to all full nodes together.
pub const REQUESTS_PER_SECOND: u32 = 50;
/// Failures in a row after which a full node is left alone for a while.
pub const FAILURES_UNTIL_OPEN: u32 = 3;
/// How long it is left alone at first; twice as long each time it fails again.
pub const OPEN_FOR: Duration = Duration::from_millis(500);
/// How long at most.
pub const OPEN_FOR_MAX: Duration = Duration::from_secs(30);
/// Rounds through all full nodes before an answer is given up.
pub const ROUNDS: u32 = 3;
/// Pause after the first round; twice as long after the next.
pub const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// Latencies remembered of one full node.
pub const LATENCIES: usize = 64;

/// How often full nodes that differ by being late are asked again.
pub const LAG_ATTEMPTS: u32 = 4;
/// Pause before they are.
pub const LAG_PAUSE: Duration = Duration::from_millis(250);
/// Objects whose newest version is remembered, so that a late full node is not believed.
pub const NEWEST_LIMIT: usize = 131_072;

/// Committees remembered, one an epoch (a day): three years and a half.
pub const COMMITTEES_LIMIT: usize = 1280;
/// Checkpoints looked through for one page of events.
pub const CHECKPOINTS_PER_PAGE: u64 = 64;
/// Bytes of the checkpoints of one page, but for the last.
pub const PAGE_BYTES: usize = 32 * 1024 * 1024;
/// Largest checkpoint that is asked for beside others, in bytes; a larger one is asked for alone.
pub const USUAL_CHECKPOINT_BYTES: usize = 4 * 1024 * 1024;
/// Checkpoints asked for at once.
pub const CHECKPOINTS_AT_ONCE: usize = 8;
/// Events asked of one module at once: what full nodes give at most.
pub const EVENTS_PER_QUERY: usize = 50;
/// Queries for one module's page of events, where many of them are not followed.
pub const QUERIES_PER_PAGE: usize = 32;
/// Transactions of one page asked for at once, to confirm their events.
pub const CONFIRMATIONS_AT_ONCE: usize = 8;
/// Events of one transaction: Sui's own limit.
pub const EVENTS_PER_TRANSACTION: usize = 1024;

/// How often the chain is looked for while nobody asks it anything.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// For how long after an answer the chain counts as reachable.
pub const REACHABLE_FOR: Duration = Duration::from_secs(30);
