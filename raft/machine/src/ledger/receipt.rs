//! What can be asked of a ledger, and answered from a view of it and the rows.
//!
//! Invariants
//! - What is given out verifies: a proof is checked here before it leaves, so that a row
//!   that lies is an error of this node and never a receipt that fails elsewhere.
//! - Nobody learns of the quorum's own keys ([`is_clients`]).

use crate::ledger::hash::TreeHash;
use crate::ledger::prove::{Committed, LedgerView};
use crate::ledger::verify::{verify_consistency, verify_inclusion};
use crate::rows::{RowError, Rows};
use crate::types::{Revision, is_clients};

/// A ledger at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerHead {
    /// How many leaves it has.
    pub size: u64,
    /// Its root.
    pub root: TreeHash,
    /// The term of the last entry applied.
    pub term: u64,
    /// The store's revision.
    pub revision: Revision,
}

/// A change, proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The change and its leaf.
    pub committed: Committed,
    /// The siblings on the leaf's way to the root, lowest first.
    pub proof: Vec<TreeHash>,
    /// The ledger it is proved in.
    pub head: LedgerHead,
}

/// That one ledger begins with another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consistency {
    /// Leaves of the older.
    pub from: u64,
    /// Leaves of the newer.
    pub to: u64,
    /// The proof.
    pub proof: Vec<TreeHash>,
    /// The ledger as it is now.
    pub head: LedgerHead,
}

/// Why there is no proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The revision is yet to come.
    #[error("revision {asked} is yet to come: the store stands at {current}")]
    FutureRevision {
        /// Asked for.
        asked: Revision,
        /// The newest.
        current: Revision,
    },
    /// The ledger has not so many leaves.
    #[error("a ledger of {asked} leaves is yet to come: there are {current}")]
    FutureSize {
        /// Asked for.
        asked: u64,
        /// How many there are.
        current: u64,
    },
    /// What it takes is gone.
    #[error("{what} is compacted away (the store is compacted at revision {compacted})")]
    Compacted {
        /// What was asked for.
        what: String,
        /// The revision of the last compaction.
        compacted: Revision,
    },
    /// Nothing of that key changed there.
    #[error("revision {revision} changed no such key")]
    NoSuchKey {
        /// Asked for.
        revision: Revision,
    },
    /// Several keys changed there.
    #[error("revision {revision} changed several keys: name one")]
    Ambiguous {
        /// Asked for.
        revision: Revision,
    },
    /// No ledger is so.
    #[error("a proof is from one leaf or more, up to as many or more: not from {from} to {to}")]
    Order {
        /// Asked for.
        from: u64,
        /// Asked for.
        to: u64,
    },
    /// No leader confirmed the read.
    #[error("no leader confirmed the read: {0}")]
    Unavailable(String),
    /// A row could not be read, or lies: the node must not serve.
    #[error("storage failed: {0}")]
    Storage(String),
}

impl From<RowError> for LedgerError {
    fn from(error: RowError) -> Self {
        Self::Storage(error.to_string())
    }
}

impl LedgerView {
    /// The change of `key` at `revision`, or the only one there. What was `compacted` away
    /// may have gone since the view was taken: ask a new view once more, then believe it.
    pub fn receipt(
        &self,
        revision: Revision,
        key: Option<&[u8]>,
        rows: &dyn Rows,
    ) -> Result<Receipt, LedgerError> {
        let LedgerHead {
            revision: current, ..
        } = *self.head();
        if revision > current {
            return Err(LedgerError::FutureRevision {
                asked: revision,
                current,
            });
        }
        let wanted = |name: &[u8]| is_clients(name) && key.is_none_or(|key| key == name);
        let mut found = self.changes(revision, &wanted, 2, rows)?;
        if found.len() > 1 {
            return Err(LedgerError::Ambiguous { revision });
        }
        let gone = || self.compacted_away(format!("what was to be read of revision {revision}"));
        let Some(committed) = found.pop() else {
            return Err(match revision <= self.compacted() {
                true => gone(),
                false => LedgerError::NoSuchKey { revision },
            });
        };
        let proof = self.inclusion(committed.index, rows)?.ok_or_else(gone)?;
        let (leaf, head) = (committed.leaf.hash(), *self.head());
        if !verify_inclusion(&leaf, committed.index, head.size, &proof, &head.root) {
            return Err(LedgerError::Storage(format!(
                "the ledger's tiles do not lead from leaf {} to its root",
                committed.index
            )));
        }
        Ok(Receipt {
            committed,
            proof,
            head,
        })
    }

    /// The proof that the ledger of `to` leaves begins with that of `from` leaves.
    pub fn consistent(
        &self,
        from: u64,
        to: Option<u64>,
        rows: &dyn Rows,
    ) -> Result<Consistency, LedgerError> {
        let head = *self.head();
        let to = to.unwrap_or(head.size);
        if let Some(asked) = [from, to].into_iter().find(|asked| *asked > head.size) {
            let current = head.size;
            return Err(LedgerError::FutureSize { asked, current });
        }
        if from == 0 || from > to {
            return Err(LedgerError::Order { from, to });
        }
        let gone = || self.compacted_away(format!("the ledger around leaf {from} or {to}"));
        let proof = self.consistency(from, to, rows)?.ok_or_else(gone)?;
        let roots = [from, to].map(|size| self.root_of(size, rows));
        let [Some(from_root), Some(to_root)] = [roots[0].clone()?, roots[1].clone()?] else {
            return Err(gone());
        };
        if !verify_consistency(from, &from_root, to, &to_root, &proof) {
            return Err(LedgerError::Storage(format!(
                "the ledger's tiles do not lead from {from} leaves to {to}"
            )));
        }
        Ok(Consistency {
            from,
            to,
            proof,
            head,
        })
    }

    fn compacted_away(&self, what: String) -> LedgerError {
        LedgerError::Compacted {
            what,
            compacted: self.compacted(),
        }
    }
}
