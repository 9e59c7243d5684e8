//! Proposing writes.
//!
//! Invariant: a write that was judged by rules of rights is applied only if those rules
//! are still the ones in force (the guard of its [`Grant`]).

use nautilus_machine::{Applied, Command, Operation, Outcome, Proposal, Revision, Txn, TxnOutcome};
use tonic::Status;

use crate::access::Grant;
use crate::context::EtcdContext;
use crate::errors;

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
        let guarded = grant.guard.is_some();
        let txn = match grant.guard {
            None => txn,
            Some(guard) => Txn {
                compare: vec![guard],
                then: vec![Operation::Txn(txn)],
                otherwise: Vec::new(),
            },
        };
        let applied = self.propose(Command::Txn(txn)).await?;
        let revision = applied.revision;
        let Outcome::Txn { succeeded, results } = applied.outcome else {
            return Err(Status::internal(
                "etcdserver: not the outcome of a transaction",
            ));
        };
        if !guarded {
            return Ok(Written {
                revision,
                succeeded,
                results,
            });
        }
        match results.into_iter().next() {
            Some(TxnOutcome::Txn { succeeded, results }) => Ok(Written {
                revision,
                succeeded,
                results,
            }),
            _ => Err(errors::AUTH_OLD_REVISION.into()),
        }
    }
}
