//! Every bound and every default time of the chain's events, by name and unit.

use std::time::Duration;

/// Events asked for at once, and applied in one transaction.
pub const EVENTS_PER_PAGE: usize = 128;
/// Events of a checkpoint that is not read whole yet, remembered against repetition.
pub const RECENT_LIMIT: usize = 256;
/// Losses of stake that one node's row takes ahead of their turn.
pub const AHEAD_PER_NODE: usize = 8;
/// Pause between two looks for events while there is none.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after the first failure to reach the chain; doubled with each in a row.
pub const FIRST_RETRY: Duration = Duration::from_millis(250);
/// Longest pause before the chain is asked again.
pub const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// Checkpoints without an event that a leader reads before it writes how far it is.
pub const QUIET_CHECKPOINTS: u64 = 1000;
/// Nodes whose verdicts are taken back at once.
pub const EVICTIONS_AT_ONCE: usize = 16;
/// Attempts of one transaction against concurrent writers of the same rows.
pub const APPLY_ATTEMPTS: u32 = 16;

/// Longest `request_id`, in bytes.
pub const REQUEST_ID_LIMIT_BYTES: usize = 253;
/// Longest text field of an event but for payloads and outputs, in bytes.
pub const TEXT_LIMIT_BYTES: usize = 1024;
/// Longest payload of a scheduled API request, in bytes: as long as the chain lets an event be.
pub const PAYLOAD_LIMIT_BYTES: usize = 256 * 1024;
/// What is kept of an API request's answer, in bytes.
pub const OUTPUT_LIMIT_BYTES: usize = 64 * 1024;
/// API requests of the chain that the quorum keeps, whatever became of them.
pub const REQUESTS_LIMIT: u64 = 20_000;
/// The same of one requester.
pub const REQUESTS_PER_REQUESTER: u64 = 1_000;
/// How long a finished API request is kept for query.
pub const REQUEST_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// API requests of the chain that run at once.
pub const EXECUTIONS_AT_ONCE: usize = 8;
/// How long one API request may take.
pub const EXECUTION_WAIT: Duration = Duration::from_secs(30);
/// Pause before an API request is looked at again after the quorum or the chain failed it.
pub const EXECUTION_RETRY: Duration = Duration::from_secs(1);
/// Between two looks for API requests whose lifetime has passed.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Rows removed in one transaction.
pub const SWEPT_PER_PROPOSAL: usize = 256;
/// Nodes of one owner whose stakes are added up.
pub const NODES_PER_OWNER: u64 = 1000;

/// Largest body of relayed events, in bytes.
pub const RELAY_BODY_LIMIT_BYTES: usize = 1024 * 1024;
/// Events relayed in one request.
pub const RELAYED_PER_REQUEST: usize = 256;
/// Transactions that one node asks the chain for on behalf of relayers, per second.
pub const RELAY_QUESTIONS_PER_SECOND: u32 = 20;
/// Such questions that may come at once after a quiet time.
pub const RELAY_QUESTIONS_BURST: u32 = 100;
/// Transactions whose answer one node remembers.
pub const RELAY_MEMORY_LIMIT: usize = 4096;
/// How long an answer about a transaction is remembered.
pub const RELAY_MEMORY: Duration = Duration::from_secs(10);
/// How long the chain may think about one relayed transaction.
pub const RELAY_WAIT: Duration = Duration::from_secs(5);
