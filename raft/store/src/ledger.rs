//! Proofs out of the ledger.
//!
//! The ledger's edge is taken under the machine's lock, rows are read without it. So
//! what is not there any more is looked up again before it is called compacted: a
//! compaction or an installed snapshot may have passed by.

use std::sync::Arc;

use nautilus_machine::{Consistency, LedgerError, LedgerView, Receipt, Revision, Rows};

use crate::store::Store;

/// How often a proof is tried again when compactions pass by.
const PROOF_ATTEMPTS: usize = 4;

impl Store {
    /// The change of `key` at `revision`, or the only one there, proved.
    pub fn receipt(&self, revision: Revision, key: Option<&[u8]>) -> Result<Receipt, LedgerError> {
        self.prove(|view, rows| view.receipt(revision, key, rows))
    }

    /// The proof that the ledger of `to` leaves (all, when absent) begins with that of
    /// `from` leaves.
    pub fn consistency(&self, from: u64, to: Option<u64>) -> Result<Consistency, LedgerError> {
        self.prove(|view, rows| view.consistent(from, to, rows))
    }

    fn prove<T>(
        &self,
        prove: impl Fn(&LedgerView, &dyn Rows) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (view, rows) = {
                let state = self.state.read();
                state
                    .check()
                    .map_err(|error| LedgerError::Storage(error.to_string()))?;
                (state.machine.ledger(), Arc::clone(&state.rows))
            };
            match prove(&view, &*rows) {
                Err(LedgerError::Compacted { .. } | LedgerError::Storage(_))
                    if attempt < PROOF_ATTEMPTS => {}
                proved => return proved,
            }
        }
    }
}
