//! Proposing writes.
//!
//! Invariant: a write that was judged by rules of rights is applied only if those rules
//! are still the ones in force (the guard of its [`Grant`]).

use nautilus_machine::{Applied, Command, Operation, Outcome, Proposal, Revision, Txn, TxnOutcome};
use tonic::Status;

use crate::access::Grant;
use crate::context::EtcdContext;
use crate::errors;

/// Attempts of a write while authentication is off and its rules are being changed.
const GUARD_ATTEMPTS: usize = 8;

/// What a transaction did.
pub(crate) struct Written {
    /// The store's revision after it.
    pub(crate) revision: Revision,
    pub(crate) succeeded: bool,
    pub(crate) results: Vec<TxnOutcome>,
}

impl EtcdContext {
    /// Proposes a command; a refusal comes in etcd's words.
    pub(crate) async fn propose(&self, command: Command) -> Result<Applied, Status> {
        let applied = self.parts.kv.propose(Proposal::new(command)).await;
        let applied = applied.map_err(|error| errors::not_proposed(&error))?;
        if let Outcome::Refused(refusal) = &applied.outcome {
            return Err(errors::refused(refusal));
        }
        Ok(applied)
    }

    /// Proposes a transaction under its grant.
    pub(crate) async fn write(&self, txn: Txn, grant: Grant) -> Result<Written, Status> {
        let Some(guard) = grant.guard else {
            return self.write_once(txn).await;
        };
        let mut guard = Some(guard);
        for _ in 0..GUARD_ATTEMPTS {
            let guarded = Txn {
                compare: guard.into_iter().collect(),
                then: vec![Operation::Txn(txn.clone())],
                otherwise: Vec::new(),
            };
            let written = self.write_once(guarded).await?;
            if let Some(TxnOutcome::Txn { succeeded, results }) = written.results.into_iter().next()
            {
                return Ok(Written {
                    revision: written.revision,
                    succeeded,
                    results,
                });
            }
            // The rules were changed. While there are none to obey the write goes on;
            // otherwise whoever asks is judged anew, as in etcd.
            guard = self.access.guard_without_rules(grant.with_rules)?;
        }
        Err(errors::AUTH_OLD_REVISION.into())
    }

    async fn write_once(&self, txn: Txn) -> Result<Written, Status> {
        let applied = self.propose(Command::Txn(txn)).await?;
        let revision = applied.revision;
        let Outcome::Txn { succeeded, results } = applied.outcome else {
            return Err(Status::internal(
                "etcdserver: not the outcome of a transaction",
            ));
        };
        Ok(Written {
            revision,
            succeeded,
            results,
        })
    }
}
