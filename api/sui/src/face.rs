//! What is asked of one full node, whichever of its faces it is asked by.
//!
//! Invariants
//! - What is said here is one full node's word: who believes it is decided elsewhere.
//! - An answer longer than its limit is an error, never cut.

use std::time::Duration;

use futures_util::future::BoxFuture;
use nautilus_workers::chain::{ChainEvent, Cursor, EventId};
use serde_json::{Map, Value};
use sui_sdk_types::{
    Address, CheckpointContents, CheckpointSummary, Digest, Object, StructTag, TransactionEffects,
    TransactionEvents, ValidatorAggregatedSignature,
};

/// An object as a full node has it.
#[derive(Debug, Clone)]
pub(crate) struct ObjectState {
    /// Which.
    pub(crate) id: Address,
    /// Its version.
    pub(crate) version: u64,
    /// Its digest.
    pub(crate) digest: Digest,
    /// Its type.
    pub(crate) type_tag: StructTag,
    /// The account that owns it, where one does.
    pub(crate) owner: Option<Address>,
    /// Its content as the full node reads it, in the form of [`crate::shape`].
    pub(crate) fields: Map<String, Value>,
    /// The object itself, where the face gives it.
    pub(crate) bytes: Option<Box<Object>>,
}

/// A transaction as a full node has it.
#[derive(Debug, Clone)]
pub(crate) struct TransactionState {
    /// Which.
    pub(crate) digest: Digest,
    /// The checkpoint that it is in; `None`: in none yet.
    pub(crate) checkpoint: Option<u64>,
    /// The followed events of it, as the full node reads them.
    pub(crate) events: Vec<ChainEvent>,
    /// The effects and events themselves, where the face gives them.
    pub(crate) proof: Option<Box<TransactionProof>>,
}

/// What ties a transaction's events and objects to a checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct TransactionProof {
    /// Its effects.
    pub(crate) effects: TransactionEffects,
    /// All of its events.
    pub(crate) events: Option<TransactionEvents>,
}

/// How much of a checkpoint is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Its summary and who signed it.
    Summary,
    /// And which transactions are in it.
    Contents,
    /// And those.
    Transactions,
}

/// A checkpoint as a full node has it.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointState {
    /// Which.
    pub(crate) sequence: u64,
    /// When it was made, in Unix milliseconds.
    pub(crate) timestamp_ms: u64,
    /// What is signed, where the face gives it.
    pub(crate) signed: Option<Box<SignedSummary>>,
    /// Which transactions are in it, where that was asked for and the face gives it.
    pub(crate) contents: Option<Box<CheckpointContents>>,
    /// The digests of its transactions in their order, where that was asked for.
    pub(crate) digests: Vec<Digest>,
    /// Its transactions in their order, where they were asked for.
    pub(crate) transactions: Vec<TransactionState>,
}

/// A summary and the committee's signature.
#[derive(Debug, Clone)]
pub(crate) struct SignedSummary {
    /// The summary.
    pub(crate) summary: CheckpointSummary,
    /// The signature.
    pub(crate) signature: ValidatorAggregatedSignature,
}

/// What a full node knows after a cursor.
#[derive(Debug, Clone)]
pub(crate) enum Following {
    /// Whole checkpoints, without a gap, from the one that was asked for.
    Checkpoints {
        /// They.
        checkpoints: Vec<CheckpointState>,
        /// Whether more are there already.
        more: bool,
    },
    /// Events in the chain's order.
    Events {
        /// They.
        events: Vec<ChainEvent>,
        /// Whether more are there already.
        more: bool,
        /// The last of those that were passed over, for they are in checkpoints that the cursor has
        /// read.
        passed: Option<EventId>,
    },
}

/// Why a full node gave no answer that counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FaceError {
    /// No connection, or it broke.
    #[error("it can't be reached: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("it did not answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// It is asked too much.
    #[error("it is asked too often")]
    RateLimited,
    /// It says that it failed.
    #[error("it refused: {0}")]
    Refused(String),
    /// Its answer is not of the form, or too long.
    #[error("its answer is wrong: {0}")]
    Malformed(String),
    /// Its answer is longer than its limit.
    #[error("its answer is longer than {0} bytes")]
    TooLong(usize),
    /// Its answer contradicts what the validators signed.
    #[error("its answer is forged: {0}")]
    Forged(String),
    /// It is behind what another full node has shown.
    #[error("it lags: {0}")]
    Lagging(String),
    /// It has pruned what was asked for, or never had it.
    #[error("it does not have it: {0}")]
    Gone(String),
    /// This face can't tell that.
    #[error("its face can't tell: {0}")]
    Unsupported(&'static str),
}

impl FaceError {
    /// In one word, for metrics.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::TimedOut(_) => "timeout",
            Self::RateLimited => "rate_limited",
            Self::Refused(_) => "refused",
            Self::Malformed(_) | Self::TooLong(_) => "malformed",
            Self::Forged(_) => "forged",
            Self::Lagging(_) => "lagging",
            Self::Gone(_) => "gone",
            Self::Unsupported(_) => "unsupported",
        }
    }

    /// Whether it says something about the full node's health.
    pub(crate) fn is_failure(&self) -> bool {
        !matches!(
            self,
            Self::Lagging(_) | Self::Gone(_) | Self::Unsupported(_)
        )
    }
}

/// An answer under way.
pub(crate) type Asked<'a, T> = BoxFuture<'a, Result<T, FaceError>>;

/// One full node. `None` where it knows nothing of that name.
pub(crate) trait Face: Send + Sync + 'static {
    /// `host:port`.
    fn name(&self) -> &str;

    /// The newest version of an object.
    fn object(&self, id: Address) -> Asked<'_, Option<ObjectState>>;

    /// A transaction.
    fn transaction(&self, digest: Digest) -> Asked<'_, Option<TransactionState>>;

    /// A checkpoint; the newest, without a `sequence`.
    fn checkpoint(&self, sequence: Option<u64>, part: Part) -> Asked<'_, Option<CheckpointState>>;

    /// The last checkpoint of an epoch that is over.
    fn end_of_epoch(&self, epoch: u64) -> Asked<'_, Option<u64>>;

    /// What comes after `cursor`, about `limit` events; all that ever was, where it names nothing.
    fn following(&self, cursor: Cursor, limit: usize) -> Asked<'_, Following>;
}

/// `text` short enough to be shown.
pub(crate) fn shortened(text: &str) -> String {
    let limit = crate::limits::REASON_LIMIT_BYTES;
    let end = (0..=limit.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or(0);
    text[..end].to_owned()
}
