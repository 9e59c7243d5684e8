//! Registration: one transaction that writes a worker's row, its `Node` and its lease, again
//! and again until it is in or the time is up.
//!
//! Invariants
//! - Registering twice, or once with an unknown outcome, leaves the same row and object as
//!   registering once.
//! - What was judged before verdicts about the node were ended is never written after it.
//! - A `Node` that this worker did not make is never taken over.
//! - Where a token speaks for one node, no two nodes stand that were registered with it.

use std::sync::Arc;
use std::time::Duration;

use nautilus_machine::{
    Command, Compare, Kv, Outcome, Proposal, ProposeError, RangeRequest, Revision, Txn,
};

use crate::lifecycle::{Happening, Phase, Stake};
use crate::limits;
use crate::machine::Machine;
use crate::node_object;
use crate::row::WorkerRow;
use crate::rows_store::{StoreError, Stored, Writing};
use crate::tier::StakeTier;
use crate::token::TokenHash;
use crate::verdicts::{self, Admission, Denied, Presented, Verdicts};

/// A registration whose token was found good.
pub(crate) struct Admitted {
    pub(crate) node_id: String,
    pub(crate) owner: String,
    pub(crate) token_hash: TokenHash,
    pub(crate) token_expires_at_s: Option<u64>,
    pub(crate) stake_amount: u64,
    pub(crate) tier: StakeTier,
    pub(crate) machine: Machine,
    pub(crate) unix_ms: u64,
    /// See [`Admission`].
    pub(crate) fence: Revision,
    /// See [`Admission`].
    pub(crate) is_exclusive: bool,
}

/// Why a registration failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegisterError {
    #[error("the node id belongs to another owner; deleting its Node object frees it")]
    NotOwner,
    #[error("another node is registered with the token; deleting that Node object frees it")]
    OtherNode,
    #[error("verdicts about the node were ended while it registered; come again")]
    Evicted,
    #[error("the quorum holds {} workers and takes no more", limits::WORKERS_LIMIT)]
    Full,
    #[error("no quorum took the registration in time: {0}")]
    Unavailable(String),
    #[error("the registration failed: {0}")]
    Failed(String),
}

impl From<StoreError> for RegisterError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Judges and registers; anew when verdicts about the node were ended in between.
pub(crate) async fn judge_and_register<E: From<Denied> + From<RegisterError>>(
    kv: &dyn Kv,
    verdicts: &Arc<Verdicts>,
    presented: &Presented<'_>,
    admitted: impl Fn(Admission) -> Admitted,
) -> Result<Admitted, E> {
    let mut attempts = 0..limits::ADMISSION_ATTEMPTS;
    loop {
        let admitted = admitted(verdicts.admit_registration(presented).await?);
        match register(kv, &admitted).await {
            Ok(()) => return Ok(admitted),
            Err(RegisterError::Evicted) if attempts.next().is_some() => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Registers, within [`limits::REGISTRATION_WAIT`].
async fn register(kv: &dyn Kv, admitted: &Admitted) -> Result<(), RegisterError> {
    let mut last = "there was no time for an attempt".to_owned();
    let attempts = async {
        for _ in 0..limits::REGISTRATION_ATTEMPTS {
            match attempt(kv, admitted).await {
                Ok(()) => return Ok(()),
                Err(Setback::Again(reason)) => last = reason,
                Err(Setback::AfterPause(reason)) => {
                    last = reason;
                    tokio::time::sleep(limits::LEADER_RETRY).await;
                }
                Err(Setback::Final(error)) => return Err(error),
            }
        }
        Err(RegisterError::Unavailable(
            "too many writers of the same keys".to_owned(),
        ))
    };
    let result = tokio::time::timeout(limits::REGISTRATION_WAIT, attempts).await;
    result.unwrap_or(Err(RegisterError::Unavailable(last)))
}

enum Setback {
    /// Another writer came first: read and try again.
    Again(String),
    /// No leader now.
    AfterPause(String),
    Final(RegisterError),
}

async fn attempt(kv: &dyn Kv, admitted: &Admitted) -> Result<(), Setback> {
    let txn = transaction(kv, admitted).map_err(Setback::Final)?;
    let Some(txn) = txn else { return Ok(()) };
    match kv.propose(Proposal::new(Command::Txn(txn))).await {
        Ok(applied) => match applied.outcome {
            Outcome::Txn {
                succeeded: true, ..
            } => Ok(()),
            Outcome::Txn {
                succeeded: false, ..
            } => Err(Setback::Again("another registration came first".to_owned())),
            other => Err(Setback::Final(RegisterError::Failed(format!("{other:?}")))),
        },
        Err(ProposeError::Unavailable(reason)) => Err(Setback::AfterPause(reason)),
        Err(ProposeError::Unknown(reason)) => {
            // What came of it shows in the row, once this node has caught up.
            match kv.read_barrier().await {
                Ok(_) => Err(Setback::Again(reason)),
                Err(error) => Err(Setback::AfterPause(error.to_string())),
            }
        }
        Err(error @ (ProposeError::TooLarge { .. } | ProposeError::Storage(_))) => {
            Err(Setback::Final(RegisterError::Failed(error.to_string())))
        }
    }
}

/// What to propose; `None` when an earlier attempt with an unknown outcome got in.
fn transaction(kv: &dyn Kv, admitted: &Admitted) -> Result<Option<Txn>, RegisterError> {
    let evicted_key = verdicts::evicted_key(&admitted.node_id);
    if verdicts::evicted_at(kv, &admitted.node_id).map_err(StoreError::from)? != admitted.fence {
        return Err(RegisterError::Evicted);
    }
    let mut stored = Stored::read(kv, &admitted.node_id)?;
    let taken = stored.take_token(kv, &admitted.node_id, &admitted.token_hash)?;
    if admitted.is_exclusive && taken.is_some() {
        return Err(RegisterError::OtherNode);
    }
    let (phase, old) = match stored.row() {
        // A token must not open what stands for a machine that never came by it.
        None if stored.has_node_of_another(&admitted.node_id, &admitted.owner) => {
            return Err(RegisterError::NotOwner);
        }
        None => {
            let count = RangeRequest {
                count_only: true,
                ..RangeRequest::newest(WorkerRow::all())
            };
            let workers = kv.range(&count).map_err(StoreError::from)?.count;
            if workers >= limits::WORKERS_LIMIT as u64 {
                return Err(RegisterError::Full);
            }
            (Phase::Registered, None)
        }
        Some(row) if row.owner != admitted.owner => {
            if stored.has_node() {
                return Err(RegisterError::NotOwner);
            }
            (Phase::Registered, Some(row))
        }
        Some(row) => {
            let same = row.token_hash == admitted.token_hash
                && row.registered_at_ms == admitted.unix_ms
                && stored.has_node();
            if same {
                return Ok(None);
            }
            (row.phase.after(Happening::Registration), Some(row))
        }
    };
    let row = WorkerRow {
        node_id: admitted.node_id.clone(),
        node_name: node_object::node_name(&admitted.node_id),
        phase,
        owner: admitted.owner.clone(),
        token_hash: admitted.token_hash,
        token_expires_at_s: admitted.token_expires_at_s,
        stake: Stake::Active,
        stake_amount: admitted.stake_amount,
        running_pods: old.map_or(0, |row| row.running_pods),
        registrations: old.map_or(1, |row| row.registrations.saturating_add(1)),
        registered_at_ms: admitted.unix_ms,
        phase_since_ms: match old {
            Some(row) if row.phase == phase => row.phase_since_ms,
            _ => admitted.unix_ms,
        },
    };
    let writing = Writing {
        unix_ms: admitted.unix_ms,
        // Whoever is registered stays.
        drain: Duration::ZERO,
        told: Some((admitted.tier, &admitted.machine)),
    };
    let token = stored.compare_token();
    let mut txn = stored.replace(&row, &writing)?;
    txn.compare
        .push(Compare::mod_revision(evicted_key, admitted.fence));
    if admitted.is_exclusive {
        txn.compare.extend(token);
    }
    Ok(Some(txn))
}
