//! The shell's notes: small values that the consensus keeps beside the rows, written
//! in the same batch (its applied log id, its membership).
//!
//! All notes stand in one row with the hash of the machine's own row and a sequence
//! number of batches: a note cannot be put back to an older one without the rest,
//! and the mark of the last flush tells whether the whole was put back.
//!
//! Invariant: `machine_hash` is that of the machine's row in the same batch.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use bytes::Bytes;
use nautilus_machine::{MACHINE_ROW, RowBatch, Rows, Space};
use serde::{Deserialize, Serialize};

use crate::error::StoreError;

/// Bytes that all notes together may have, names included.
pub const NOTES_BYTES_MAX: usize = 1 << 20;

const SHELL_ROW: &[u8] = b"shell";
const VERSION: u8 = 1;

/// The shell's row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notes {
    /// Batches written since the engine was made.
    pub(crate) sequence: u64,
    machine_hash: [u8; 32],
    notes: BTreeMap<String, Bytes>,
}

impl Notes {
    /// Reads the row, and checks that it belongs to the machine's row.
    pub(crate) fn load(rows: &dyn Rows) -> Result<Self, StoreError> {
        let broken = |reason: &str| StoreError::corrupt("Meta row of the shell's notes", reason);
        let row = rows
            .get(Space::Meta, SHELL_ROW)?
            .ok_or_else(|| broken("it is missing"))?;
        let notes: Self = match row.split_first() {
            Some((&VERSION, rest)) => {
                postcard::from_bytes(rest).map_err(|error| broken(&error.to_string()))?
            }
            _ => return Err(broken("its version is not known to this program")),
        };
        let machine = rows.get(Space::Meta, MACHINE_ROW)?.unwrap_or_default();
        if notes.machine_hash != hash(&machine) {
            return Err(broken(
                "it is of another batch than the machine's row: one is an old one",
            ));
        }
        Ok(notes)
    }

    pub(crate) fn get(&self, name: &str) -> Option<Bytes> {
        self.notes.get(name).cloned()
    }

    /// The notes with changes, checked against the limit.
    pub(crate) fn with(&self, changes: &[(&str, Bytes)]) -> Result<Self, StoreError> {
        let mut next = self.clone();
        for (name, value) in changes {
            next.notes.insert((*name).to_owned(), value.clone());
        }
        let size_bytes: usize = next
            .notes
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if size_bytes > NOTES_BYTES_MAX {
            let limit_bytes = NOTES_BYTES_MAX;
            return Err(StoreError::TooLarge {
                what: "notes",
                size_bytes,
                limit_bytes,
            });
        }
        next.sequence += 1;
        Ok(next)
    }

    /// Adds the row to a batch, after the machine's.
    pub(crate) fn put_into(&mut self, batch: &mut RowBatch) -> Result<(), StoreError> {
        if let Some(Some(machine)) = batch.get(Space::Meta, MACHINE_ROW) {
            self.machine_hash = hash(&machine);
        }
        let row = postcard::to_extend(self, vec![VERSION]);
        let row = row.map_err(|error| StoreError::Engine(format!("notes: {error}")))?;
        batch.put(Space::Meta, SHELL_ROW, row);
        Ok(())
    }
}

fn hash(row: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, row).as_ref());
    hash
}
