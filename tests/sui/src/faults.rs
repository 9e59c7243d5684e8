//! How a face misbehaves, switchable while it runs, and how often each method was asked for.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sui_sdk_types::Address;
use tokio::sync::watch;

/// How a face answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// It waits so long before every answer.
    pub slow_ms: u64,
    /// What it answers.
    pub answer: Answer,
}

/// What a face answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// What is so.
    #[default]
    Truth,
    /// Nothing: the port is closed, and open connections are cut.
    Refused,
    /// That it can't: HTTP 503, gRPC `UNAVAILABLE`.
    Unavailable,
    /// That it was asked too often: HTTP 429 with `Retry-After`, gRPC `RESOURCE_EXHAUSTED`.
    RateLimited,
    /// Yes to everything: any id is a valid token, any stake is large and active. The rest of the
    /// chain (effects, checkpoints, signatures) is true.
    Wrong(Lies),
    /// What is so on another chain, as far down as [`Link`] says.
    Forked(Link),
    /// What was so that many checkpoints ago.
    Lagging(u64),
    /// Bytes that mean nothing, with status 200.
    Garbage,
}

/// How much of the chain of evidence is of the fork; the rest is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// Objects only.
    Objects,
    /// Transactions' effects and events too.
    Effects,
    /// The checkpoints' contents too.
    Contents,
    /// The checkpoints' summaries too, with the true signatures.
    Summaries,
    /// All of it: signed by validators of its own, under an identifier of its own.
    Everything,
}

/// What a full node that says yes to everything knows of its accomplices. Of others it can't say
/// yes convincingly: who asks by a dynamic field's id names no token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lies {
    /// Workers that it says are registered.
    pub workers: Vec<Accomplice>,
    /// Whom it names as owner of tokens that don't exist.
    pub token_owner: Option<Address>,
}

/// A worker that was never registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accomplice {
    /// Under which id.
    pub node_id: String,
    /// Whose.
    pub owner: Address,
    /// With which token.
    pub seal_token: String,
}

/// A face's switch and counters.
pub struct Control {
    faults: watch::Sender<Faults>,
    requests: Mutex<BTreeMap<String, u64>>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            faults: watch::Sender::new(Faults::default()),
            requests: Mutex::default(),
        }
    }
}

impl Control {
    /// Misbehaves so from now on.
    pub fn set(&self, faults: Faults) {
        self.faults.send_replace(faults);
    }

    /// Answers so from now on, without delay.
    pub fn answer(&self, answer: Answer) {
        self.set(Faults { slow_ms: 0, answer });
    }

    /// Waits so long before every answer from now on, and answers the truth.
    pub fn slow_ms(&self, slow_ms: u64) {
        self.set(Faults {
            slow_ms,
            answer: Answer::Truth,
        });
    }

    /// How it misbehaves now.
    pub fn faults(&self) -> Faults {
        self.faults.borrow().clone()
    }

    /// How often each method was asked for, whatever was answered. Connections that were refused
    /// are not among them.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.requests.lock().clone()
    }

    /// How often anything was asked for.
    pub fn total_requests(&self) -> u64 {
        self.requests.lock().values().sum()
    }

    /// Counts from zero again.
    pub fn reset_requests(&self) {
        self.requests.lock().clear();
    }

    pub(crate) fn count(&self, method: &str) {
        *self.requests.lock().entry(method.to_owned()).or_default() += 1;
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Faults> {
        self.faults.subscribe()
    }
}
