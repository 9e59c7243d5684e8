//! What can happen on the stand-in's chain: the calls of the K3s-DaaS package, the older package's
//! tokens, any event at all, and the end of an epoch. The admin face takes the same in JSON.

use serde::{Deserialize, Serialize};
use sui_sdk_types::{Address, Digest};

use crate::value::MoveValue;

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// A worker registers, with its stake: `WorkerRegisteredEvent`, `StakeDepositedEvent`.
    RegisterWorker {
        /// The key in the registry.
        node_id: String,
        /// Who sends it and owns the worker.
        owner: Address,
        /// In MIST.
        stake: u64,
        /// Its Seal token.
        seal_token: String,
    },
    /// The worker's status changes (`active`, `slashed`, `withdrawn` or any other text):
    /// `WorkerStatusChangedEvent`.
    SetStatus {
        /// Which.
        node_id: String,
        /// What it becomes.
        status: String,
    },
    /// The worker's Seal token is replaced, without an event.
    SetSealToken {
        /// Which.
        node_id: String,
        /// The new one.
        seal_token: String,
    },
    /// More stake: `StakeDepositedEvent`.
    Deposit {
        /// Which.
        node_id: String,
        /// In MIST.
        amount: u64,
    },
    /// The owner takes the stake back: the proof goes, `WorkerStatusChangedEvent` to `withdrawn`.
    Withdraw {
        /// Which.
        node_id: String,
    },
    /// A join token is set: `JoinTokenSetEvent`.
    SetJoinToken {
        /// Which.
        node_id: String,
        /// The new one.
        join_token: String,
    },
    /// The worker's heartbeat, on chain: a new version, no event.
    Heartbeat {
        /// Which.
        node_id: String,
    },
    /// The older package: a token object (the first of what is created) and its stake (the second).
    IssueToken {
        /// Who sends it and owns both.
        owner: Address,
        /// In MIST.
        stake: u64,
        /// In Unix milliseconds.
        expires_at_ms: u64,
    },
    /// The older package: the status of a stake object.
    SetStakeStatus {
        /// The stake's id.
        stake: Address,
        /// What it becomes.
        status: String,
    },
    /// The older package: the token object is deleted.
    RevokeToken {
        /// The token's id.
        token: Address,
    },
    /// `K8sAPIRequestScheduledEvent`.
    ScheduleApiRequest(ApiRequest),
    /// `K8sAPIResultEvent`.
    RecordApiResult {
        /// Of which request.
        request_id: String,
        /// Who did it.
        assigned_worker: String,
        /// How it went.
        success: bool,
        /// What it said.
        output: String,
        /// What went wrong.
        error: String,
        /// How long it took.
        execution_time_ms: u64,
    },
    /// `WorkerAssignedEvent`.
    AssignWorker {
        /// Of which request.
        request_id: String,
        /// To whom.
        worker_id: String,
        /// How many it has now.
        workload_count: u64,
    },
    /// Any event of the package, well or badly formed.
    Emit {
        /// The Move module.
        module: String,
        /// The struct's name.
        name: String,
        /// Who sends it.
        sender: Address,
        /// Its fields.
        fields: Vec<(String, MoveValue)>,
    },
    /// The epoch ends: the next one has another committee.
    EndEpoch,
}

/// What `K8sAPIRequestScheduledEvent` has beside its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiRequest {
    /// What makes it one.
    pub request_id: String,
    /// `GET`, `POST` and so on.
    pub method: String,
    /// `pods` and so on.
    pub resource: String,
    /// Empty for cluster-wide kinds.
    pub namespace: String,
    /// Empty for lists and creations.
    pub name: String,
    /// The body.
    pub payload: String,
    /// The requester's Seal token.
    pub seal_token: String,
    /// Who asks, and sends the transaction.
    pub requester: Address,
    /// From 0.
    pub priority: u8,
    /// Empty: anyone.
    pub assigned_worker: String,
}

/// What became of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The transaction.
    pub tx_digest: Digest,
    /// The checkpoint that it is in.
    pub checkpoint: u64,
    /// The objects it created, in order.
    pub created: Vec<Address>,
}
