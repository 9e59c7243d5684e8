//! The table of a directory's data keys: `epochs`.
//!
//! magic (8 bytes) ‖ generation u32 BE ‖ count u32 BE ‖ count × (epoch u32 BE ‖
//! generation u32 BE ‖ wrapped data key, 40 bytes) ‖ HMAC-SHA-256 over all before, under
//! the table key of the generation at its head.
//!
//! An epoch is the time of one data key: the log begins one with every segment, the
//! store with every start, both with a rotation.
//!
//! Invariants
//! - Epochs grow, from 1; each has a data key drawn when it began.
//! - An epoch is in the durable table before anything is sealed under it, and leaves it
//!   only when nothing is: with its row the data key is gone.

use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;

use crate::cipher::SealKey;
use crate::envelope::EnvelopeError;
use crate::files;
use crate::keys::{Generation, Keyring, Purpose, WRAPPED_BYTES, WrappedKey};

/// The table's file.
pub(crate) const EPOCHS_FILE: &str = "epochs";
/// Data keys of one directory at once.
const EPOCHS_MAX: usize = 100_000;

const MAGIC: &[u8; 8] = b"NAUTEPO2";
const HEAD_BYTES: usize = MAGIC.len() + 4 + 4;
const ROW_BYTES: usize = 4 + 4 + WRAPPED_BYTES;
const TAG_BYTES: usize = 32;
const TABLE_BYTES_MAX: usize = HEAD_BYTES + EPOCHS_MAX * ROW_BYTES + TAG_BYTES;

/// One epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch {
    pub(crate) number: u32,
    pub(crate) key: WrappedKey,
}

/// Reads the table of `dir`; empty where there is none.
pub(crate) fn read(dir: &Path, keyring: &Keyring) -> Result<Vec<Epoch>, EnvelopeError> {
    let path = path(dir);
    let content =
        files::read_if_there(&path, TABLE_BYTES_MAX).map_err(EnvelopeError::io("read", &path))?;
    let Some(content) = content else {
        return Ok(Vec::new());
    };
    parse(&content, keyring).map_err(|reason| EnvelopeError::Table { path, reason })
}

/// Makes the table durable, under the current generation.
pub(crate) fn write(dir: &Path, keyring: &Keyring, epochs: &[Epoch]) -> Result<(), EnvelopeError> {
    let path = path(dir);
    if epochs.len() > EPOCHS_MAX {
        let reason = format!("it has reached its limit of {EPOCHS_MAX} data keys");
        return Err(EnvelopeError::Table { path, reason });
    }
    let generation = keyring.current();
    let table = format_table(epochs, generation, &keyring.table_key(generation)?);
    files::replace(&path, &table).map_err(EnvelopeError::io("write", &path))
}

/// An epoch after `epochs`, with a fresh data key.
pub(crate) fn next(epochs: &[Epoch], keyring: &Keyring) -> Result<(Epoch, SealKey), EnvelopeError> {
    let number = epochs.last().map_or(0, |epoch| epoch.number) + 1;
    let (key, seal_key) = keyring.draw(Purpose::Records)?;
    Ok((Epoch { number, key }, seal_key))
}

fn format_table(epochs: &[Epoch], generation: Generation, key: &hmac::Key) -> Vec<u8> {
    let mut table = Vec::with_capacity(HEAD_BYTES + epochs.len() * ROW_BYTES + TAG_BYTES);
    table.extend_from_slice(MAGIC);
    table.extend_from_slice(&generation.to_be_bytes());
    let count = u32::try_from(epochs.len()).unwrap_or(u32::MAX);
    table.extend_from_slice(&count.to_be_bytes());
    for epoch in epochs {
        table.extend_from_slice(&epoch.number.to_be_bytes());
        table.extend_from_slice(&epoch.key.generation.to_be_bytes());
        table.extend_from_slice(&epoch.key.bytes);
    }
    let tag = hmac::sign(key, &table);
    table.extend_from_slice(tag.as_ref());
    table
}

fn parse(content: &[u8], keyring: &Keyring) -> Result<Vec<Epoch>, String> {
    let signed = content
        .len()
        .checked_sub(TAG_BYTES)
        .ok_or("it is cut short")?;
    let (table, tag) = content.split_at(signed);
    let (generation, rest) = table
        .strip_prefix(MAGIC)
        .and_then(|rest| rest.split_first_chunk::<4>())
        .ok_or("it is not a table of epochs that this program knows")?;
    let key = keyring
        .table_key(Generation::from_be_bytes(*generation))
        .map_err(|error| error.to_string())?;
    hmac::verify(&key, table, tag).map_err(|_| {
        "it does not authenticate: it was changed, or it is of another quorum (another root key)"
    })?;
    let rows = rest.get(4..).ok_or("it is cut short")?;
    let mut epochs: Vec<Epoch> = Vec::with_capacity(rows.len() / ROW_BYTES);
    for row in rows.chunks_exact(ROW_BYTES) {
        let epoch = parse_row(row).ok_or("a row is cut short")?;
        if epochs
            .last()
            .is_some_and(|last| last.number >= epoch.number)
        {
            return Err(format!(
                "epoch {} stands where a later one belongs",
                epoch.number
            ));
        }
        epochs.push(epoch);
    }
    Ok(epochs)
}

fn parse_row(row: &[u8]) -> Option<Epoch> {
    let (number, rest) = row.split_first_chunk::<4>()?;
    let (generation, rest) = rest.split_first_chunk::<4>()?;
    Some(Epoch {
        number: u32::from_be_bytes(*number),
        key: WrappedKey {
            generation: Generation::from_be_bytes(*generation),
            bytes: rest.try_into().ok()?,
        },
    })
}

/// Where the table of `dir` stands.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join(EPOCHS_FILE)
}
