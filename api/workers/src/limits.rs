//! Every bound and every default time of the worker face, by name and unit.

use std::time::Duration;

/// Largest body of a registration or a heartbeat, in bytes.
pub const BODY_LIMIT_BYTES: usize = 64 * 1024;
/// Longest Seal token, in bytes.
pub const TOKEN_LIMIT_BYTES: usize = 4096;
/// Longest `node_id`, in bytes: as long as a Kubernetes name may be.
pub const NODE_ID_LIMIT_BYTES: usize = 253;
/// Most pods a worker may say it runs.
pub const RUNNING_PODS_LIMIT: u32 = 100_000;
/// Most workers of one quorum, registered or lost.
pub const WORKERS_LIMIT: usize = 100_000;
/// Registrations and heartbeats under way on one node; more are asked to come back.
pub const REQUESTS_IN_FLIGHT_LIMIT: usize = 4096;
/// Heartbeats of one node that wait for the leader; more are asked to come back.
pub const BEATS_QUEUE_LIMIT: usize = REQUESTS_IN_FLIGHT_LIMIT;
/// Heartbeats told to the leader in one message. With names as long as they may be that is
/// less than what one message may hold.
pub const BEATS_PER_MESSAGE: usize = 512;
/// Messages of heartbeats of one node under way at once.
pub const MESSAGES_IN_FLIGHT: usize = 4;
/// Workers whose load is asked in one message.
pub const LOADS_PER_MESSAGE: usize = 1000;
/// Longest name of a token's owner, in bytes.
pub const OWNER_LIMIT_BYTES: usize = 1024;
/// Verdicts on tokens in the store, and in each node's memory; bound keys likewise.
pub const VERDICTS_LIMIT: usize = 131_072;
/// Verdicts on strangers' tokens in one node's memory, in no row.
pub const PASSING_VERDICTS_LIMIT: usize = 16_384;
/// Questions for the judge under way on one node, those that wait for their turn included.
pub const QUESTIONS_UNDER_WAY_LIMIT: usize = 1024;
/// Questions for the chain that a quorum begins in a second.
pub const QUESTIONS_PER_SECOND: u32 = 100;
/// Times that a question is asked anew because its row changed meanwhile.
pub const QUESTION_ATTEMPTS: u32 = 3;
/// Verdicts about one node that are ended in one transaction.
pub const EVICTIONS_PER_PROPOSAL: usize = 64;
/// Bytes of an owner's name, as the size of the verdicts counts it: `0x` and 64 digits.
pub const OWNER_BYTES: usize = 66;
/// Longest owner's proof, in bytes of Base64: a signature of 65 bytes and a key of 33 are 132.
pub const PROOF_LIMIT_BYTES: usize = 192;
/// Largest file of development tokens, in bytes.
pub const TOKEN_FILE_LIMIT_BYTES: u64 = 16 * 1024 * 1024;
/// Shortest and longest nonce of an attestation request, in bytes.
pub const NONCE_BYTES: std::ops::RangeInclusive<usize> = 8..=64;
/// Workers whose changed state is proposed in one transaction.
pub const CHANGES_PER_PROPOSAL: usize = 64;
/// Rows read at once when a leader learns who is registered.
pub const ROWS_PER_PAGE: u64 = 1000;
/// How often a registration is judged anew because verdicts about its node were ended meanwhile.
pub const ADMISSION_ATTEMPTS: u32 = 3;
/// Attempts of one registration against concurrent writers of the same keys.
pub const REGISTRATION_ATTEMPTS: u32 = 64;

/// How often a worker beats, as wired.
pub const BEAT_INTERVAL: Duration = Duration::from_secs(30);
/// A worker is lost after three missed beats.
pub const LOST_AFTER: Duration = Duration::from_secs(90);
/// How far a registration's clock may be off.
pub const CLOCK_SKEW_LIMIT: Duration = Duration::from_secs(300);
/// A change of the number of pods smaller than this is not replicated.
pub const PODS_STEP: u32 = 10;
/// How long a heartbeat waits for a leader before it fails.
pub const LEADER_WAIT: Duration = Duration::from_secs(5);
/// How long a registration may take, elections included.
pub const REGISTRATION_WAIT: Duration = Duration::from_secs(10);
/// How long a message waits for the leader's answer before it is told again, perhaps to
/// another leader.
pub const LEADER_ANSWER_WAIT: Duration = Duration::from_secs(1);
/// How long a heartbeat on a follower waits for others to go with.
pub const BEATS_LINGER: Duration = Duration::from_millis(4);
/// Pause between attempts to reach a leader.
pub const LEADER_RETRY: Duration = Duration::from_millis(50);
/// Pause before changes that could not be replicated are proposed again.
pub const CHANGE_RETRY: Duration = Duration::from_millis(200);
/// How long a judge may think about one token.
pub const JUDGE_WAIT: Duration = Duration::from_secs(3);
/// How long a favourable verdict holds without asking again (never past the token's expiry); asked
/// anew from half of it on.
pub const VERDICT_LIFETIME: Duration = Duration::from_secs(30 * 60);
/// How long an unfavourable one holds.
pub const NEGATIVE_VERDICT_LIFETIME: Duration = Duration::from_secs(60);
/// How old a favourable verdict may be that is used because the judge can't be reached.
pub const JUDGE_OUTAGE_GRACE: Duration = Duration::from_secs(2 * 3600);
/// Pause before a judge that did not answer is asked about what can go on without it.
pub const JUDGE_RETRY: Duration = Duration::from_secs(10);
/// How long a question about a known token may wait for its turn.
pub const QUESTION_PATIENCE: Duration = Duration::from_secs(3);
/// How long one about an unknown token may: what is left of the turns is for known ones.
pub const STRANGERS_PATIENCE: Duration = Duration::from_secs(2);
/// The longest that a node's client certificate lives: for so long a node stays barred.
pub const NODE_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(366 * 24 * 3600);
/// Pause between the pages of verdicts, and of workers, that the leader looks through.
pub const SWEEP_PAUSE: Duration = Duration::from_secs(5);
/// Pause between looks at whether the condition `SuiReachable` is true.
pub const CONDITION_PAUSE: Duration = Duration::from_secs(10);
/// How long the chain must have answered, or not, before the condition says so.
pub const CONDITION_AFTER: Duration = Duration::from_secs(30);
/// How long a verdict's row stays after it has lost every use.
pub const SPENT_AFTER: Duration = Duration::from_secs(3600);
/// How long `/health` waits for the quorum to confirm that it can serve.
pub const HEALTH_WAIT: Duration = Duration::from_secs(3);
/// Granularity of the deadlines, and the pace at which they are looked at.
pub const TICK: Duration = Duration::from_secs(1);
/// A leader whose tick is this late was not running, so it can't have heard anyone:
/// it starts every deadline anew.
pub const STALL_LIMIT: Duration = Duration::from_secs(10);
/// How long a node drains whose stake was withdrawn or whose token has ended, before its
/// pods are removed whatever their disruption budgets say.
pub const DRAIN: Duration = Duration::from_secs(3600);

/// Zones that are told apart; workers of further ones are in no zone.
pub const ZONES_LIMIT: usize = 1024;
/// From one eviction of a zone's silent workers to the next.
pub const EVICTION_INTERVAL: Duration = Duration::from_secs(10);
/// The same in a zone of which the greater part is silent.
pub const DISRUPTED_EVICTION_INTERVAL: Duration = Duration::from_secs(100);
/// A zone is disrupted when so many percent of its workers are silent, and more than
/// [`DISRUPTED_ZONE_LEAST`] workers.
pub const DISRUPTED_ZONE_PERCENT: usize = 55;
/// See [`DISRUPTED_ZONE_PERCENT`].
pub const DISRUPTED_ZONE_LEAST: usize = 2;
/// In a disrupted zone of so many workers or fewer nobody is evicted.
pub const SMALL_ZONE: usize = 50;
