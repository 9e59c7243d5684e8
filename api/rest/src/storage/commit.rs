//! One compare-and-swap through the quorum, until its outcome is known.

use std::time::Duration;

use bytes::Bytes;
use nautilus_machine::{
    Command, Compare, Operation, Outcome, Proposal, ProposeError, Refusal, Revision, Txn,
};
use serde_json::Value;
use tokio::time::Instant;

use super::companions::Companions;
use super::{Storage, metadata_text};
use crate::failure::{Failure, propose_failure, refused, unknown_outcome};

/// How long a write is carried through elections before the client hears 503 or 504.
const COMMIT_PATIENCE: Duration = Duration::from_secs(30);
/// First pause between two attempts; doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_millis(250);

/// How a write of ours is told from another's after a lost answer.
pub(super) enum Evidence<'a> {
    /// The key holds an object of this uid.
    Uid(&'a str),
    /// The key holds exactly these bytes.
    Bytes(&'a Bytes),
    /// The key is gone.
    Gone,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swap {
    /// Written at this revision.
    Done(Revision),
    /// A comparison did not hold: somebody else was first.
    Lost,
}

impl Storage {
    /// Runs `operation` on `key`, and what goes with it, if every comparison holds.
    pub(super) async fn swap(
        &self,
        key: &str,
        compare: Compare,
        operation: Operation,
        companions: Companions,
        evidence: Evidence<'_>,
    ) -> Result<Swap, Failure> {
        let mut comparisons = vec![compare];
        comparisons.extend(companions.compare);
        let mut operations = vec![operation];
        operations.extend(companions.then);
        let proposal = Proposal {
            command: Command::Txn(Txn {
                compare: comparisons,
                then: operations,
                otherwise: Vec::new(),
            }),
            guard_term: self.guard_term,
            trace: crate::trace::current(),
        };
        let deadline = Instant::now() + COMMIT_PATIENCE;
        let mut pause = FIRST_PAUSE;
        let (mut uncertain, mut granted) = (false, false);
        loop {
            let error = match self.kv.propose(proposal.clone()).await {
                Ok(applied) => match applied.outcome {
                    Outcome::Txn {
                        succeeded: true, ..
                    } => return Ok(Swap::Done(applied.revision)),
                    Outcome::Txn {
                        succeeded: false, ..
                    } if uncertain => {
                        // The first attempt may be what moved the key.
                        return Ok(self.seen(key, &evidence)?.map_or(Swap::Lost, Swap::Done));
                    }
                    Outcome::Txn {
                        succeeded: false, ..
                    } => return Ok(Swap::Lost),
                    // The first object of its lease: the lease has to be granted.
                    Outcome::Refused(Refusal::LeaseNotFound) if !granted => {
                        granted = true;
                        self.grant(&proposal.command).await?;
                        continue;
                    }
                    Outcome::Refused(refusal) => return Err(refused(&refusal)),
                    other => return Err(unknown_outcome(&format!("{other:?}"))),
                },
                Err(error) => error,
            };
            match &error {
                ProposeError::Unavailable(_) => {}
                ProposeError::Unknown(_) => {
                    uncertain = true;
                    if self.kv.read_barrier().await.is_ok()
                        && let Some(revision) = self.seen(key, &evidence)?
                    {
                        return Ok(Swap::Done(revision));
                    }
                }
                ProposeError::TooLarge { .. } | ProposeError::Storage(_) => {
                    return Err(propose_failure(&error));
                }
            }
            if Instant::now() + pause >= deadline {
                return Err(match uncertain {
                    true => unknown_outcome(&error.to_string()),
                    false => propose_failure(&error),
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// The revision at which the evidence stands in this node's state, if it does.
    fn seen(&self, key: &str, evidence: &Evidence<'_>) -> Result<Option<Revision>, Failure> {
        let row = self.read_row(key)?;
        Ok(match (evidence, row) {
            (Evidence::Gone, None) => Some(self.kv.revision()),
            (Evidence::Uid(uid), Some(row)) => {
                let stored: Option<Value> = serde_json::from_slice(&row.value).ok();
                stored
                    .filter(|object| metadata_text(object, "uid") == *uid)
                    .map(|_| row.create_revision)
            }
            (Evidence::Bytes(bytes), Some(row)) if row.value == **bytes => Some(row.mod_revision),
            _ => None,
        })
    }
}
