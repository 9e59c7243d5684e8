//! The table of a directory's incarnations: `epochs`.
//!
//! magic (8 bytes) ‖ count u32 BE ‖ count × (epoch u32 BE ‖ salt, 32 bytes) ‖
//! HMAC-SHA-256 over all before, under a key of the quorum. The salts are no secret.
//!
//! Invariants
//! - Epochs grow by one, from 1; each has a salt drawn when it began.
//! - An epoch is in the durable table before anything is sealed under it.

use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;

use crate::envelope::EnvelopeError;
use crate::files;
use crate::keys::{KEY_BYTES, Keyring, fresh_salt};

/// The table's file.
pub(crate) const EPOCHS_FILE: &str = "epochs";
/// Starts of the process on one directory before it must join anew.
const EPOCHS_MAX: usize = 100_000;

const MAGIC: &[u8; 8] = b"NAUTEPO1";
const ROW_BYTES: usize = 4 + KEY_BYTES;
const TAG_BYTES: usize = 32;
const TABLE_BYTES_MAX: usize = MAGIC.len() + 4 + EPOCHS_MAX * ROW_BYTES + TAG_BYTES;

/// One incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch {
    pub(crate) number: u32,
    pub(crate) salt: [u8; KEY_BYTES],
}

/// Reads the table, adds an epoch of its own for the caller, and makes it durable.
/// The last epoch returned is the new one.
pub(crate) fn begin(dir: &Path, keyring: &Keyring) -> Result<Vec<Epoch>, EnvelopeError> {
    let path = dir.join(EPOCHS_FILE);
    let key = keyring.table_key();
    let content =
        files::read_if_there(&path, TABLE_BYTES_MAX).map_err(EnvelopeError::io("read", &path))?;
    let mut epochs = match content {
        Some(content) => parse(&content, &key).map_err(|reason| EnvelopeError::Table {
            path: path.clone(),
            reason,
        })?,
        None => Vec::new(),
    };
    if epochs.len() >= EPOCHS_MAX {
        let reason = format!("it has reached its limit of {EPOCHS_MAX} incarnations");
        return Err(EnvelopeError::Table { path, reason });
    }
    let number = epochs.last().map_or(0, |epoch| epoch.number) + 1;
    epochs.push(Epoch {
        number,
        salt: fresh_salt()?,
    });
    files::replace(&path, &format_table(&epochs, &key))
        .map_err(EnvelopeError::io("write", &path))?;
    Ok(epochs)
}

fn format_table(epochs: &[Epoch], key: &hmac::Key) -> Vec<u8> {
    let mut table = Vec::with_capacity(MAGIC.len() + 4 + epochs.len() * ROW_BYTES + TAG_BYTES);
    table.extend_from_slice(MAGIC);
    let count = u32::try_from(epochs.len()).unwrap_or(u32::MAX);
    table.extend_from_slice(&count.to_be_bytes());
    for epoch in epochs {
        table.extend_from_slice(&epoch.number.to_be_bytes());
        table.extend_from_slice(&epoch.salt);
    }
    let tag = hmac::sign(key, &table);
    table.extend_from_slice(tag.as_ref());
    table
}

fn parse(content: &[u8], key: &hmac::Key) -> Result<Vec<Epoch>, String> {
    let signed = content
        .len()
        .checked_sub(TAG_BYTES)
        .ok_or("it is cut short")?;
    let (table, tag) = content.split_at(signed);
    hmac::verify(key, table, tag).map_err(|_| {
        "it does not authenticate: it was changed, or it is of another quorum (another root key)"
    })?;
    let rows = table
        .strip_prefix(MAGIC)
        .and_then(|rest| rest.get(4..))
        .ok_or("it is not a table of epochs")?;
    let mut epochs = Vec::with_capacity(rows.len() / ROW_BYTES);
    for (row, expected) in rows.chunks_exact(ROW_BYTES).zip(1u32..) {
        let mut number = [0; 4];
        number.copy_from_slice(&row[..4]);
        let mut salt = [0; KEY_BYTES];
        salt.copy_from_slice(&row[4..]);
        let number = u32::from_be_bytes(number);
        if number != expected {
            return Err(format!("epoch {number} stands where {expected} belongs"));
        }
        epochs.push(Epoch { number, salt });
    }
    Ok(epochs)
}

/// Where the table of `dir` stands.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join(EPOCHS_FILE)
}
