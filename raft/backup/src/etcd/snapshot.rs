//! Reading an etcd snapshot: the newest version of every living key, and the leases.
//!
//! Invariants
//! - The SHA-256 at the file's end is checked before anything is believed; a file
//!   without one (copied from a data directory) is read only when that is said.
//! - Memory holds keys and places; values are read from the file when they are asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

use aws_lc_rs::digest;
use bytes::Bytes;
use nautilus_machine::types::is_reserved;
use nautilus_machine::{KeyValue, LeaseId, Revision};
use prost::Message as _;

use super::bolt::Bolt;
use super::{
    FINISHED_COMPACT, KEY_BUCKET, KeyValueMessage, LEASE_BUCKET, LeaseMessage, META_BUCKET,
    parse_revision,
};
use crate::error::BackupError;
use crate::record::{Lease, Record};

/// Bytes of the trailing hash, and what the file's length then leaves modulo 512.
const HASH_BYTES: u64 = 32;
/// Bytes read at once while the hash is checked.
const READ_BYTES: usize = 1 << 20;

/// Whether a snapshot must have its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integrity {
    /// It must, and it must be right.
    Hashed,
    /// A file copied from a data directory has none.
    Unchecked,
}

/// An opened etcd snapshot.
pub struct EtcdSnapshot {
    bolt: Bolt,
    revision: Revision,
    keys: BTreeMap<Bytes, Row>,
    leases: BTreeMap<LeaseId, u64>,
}

/// Where a version lies in the file.
#[derive(Clone, Copy)]
struct Row {
    at: u64,
    bytes: usize,
    lease: i64,
}

impl EtcdSnapshot {
    /// Opens and indexes a snapshot file.
    pub fn open(path: &Path, integrity: Integrity) -> Result<Self, BackupError> {
        let file = File::open(path).map_err(BackupError::io("open the snapshot"))?;
        let metadata = file.metadata();
        let length = metadata
            .map_err(BackupError::io("open the snapshot"))?
            .len();
        let length = match (length % 512 == HASH_BYTES, integrity) {
            (true, _) => check_hash(&file, length - HASH_BYTES)?,
            (false, Integrity::Unchecked) => length,
            (false, Integrity::Hashed) => {
                return Err(BackupError::NotAnArchive(
                    "it has no SHA-256 at its end: it is cut, or was copied from a data directory"
                        .into(),
                ));
            }
        };
        let mut snapshot = Self {
            bolt: Bolt::open(file, length)?,
            revision: 1,
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
        };
        snapshot.read_leases()?;
        snapshot.read_keys()?;
        snapshot.read_compaction()?;
        Ok(snapshot)
    }

    /// The revision of the key space in it.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Living keys.
    pub fn keys(&self) -> u64 {
        self.keys.len() as u64
    }

    /// The leases, by id, with their times to live in milliseconds.
    pub fn leases(&self) -> &BTreeMap<LeaseId, u64> {
        &self.leases
    }

    /// Keys whose lease the snapshot does not know; they are read without it.
    pub fn orphans(&self) -> u64 {
        let orphans = self
            .keys
            .values()
            .filter(|row| row.lease != 0 && !self.leases.contains_key(&LeaseId(row.lease)));
        orphans.count() as u64
    }

    /// Visits the leases and then the living keys, in order.
    pub fn each_record(
        &self,
        visit: &mut dyn FnMut(Record) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        for (&id, &ttl_ms) in &self.leases {
            visit(Record::Lease(Lease { id, ttl_ms }))?;
        }
        for (key, row) in &self.keys {
            visit(Record::Key(self.read(key, *row)?))?;
        }
        Ok(())
    }

    /// At most `limit` living keys from `from` on.
    pub fn page(&self, from: &[u8], limit: usize) -> Result<Vec<KeyValue>, BackupError> {
        let rows = self
            .keys
            .range::<[u8], _>((std::ops::Bound::Included(from), std::ops::Bound::Unbounded));
        rows.take(limit)
            .map(|(key, row)| self.read(key, *row))
            .collect()
    }

    fn read(&self, key: &Bytes, row: Row) -> Result<KeyValue, BackupError> {
        let bytes = Bytes::from(self.bolt.read_at(row.at, row.bytes)?);
        let message = decode(bytes)?;
        if message.key != key {
            return Err(BackupError::Content(
                "the file changed while it was read".into(),
            ));
        }
        let unsigned = |number: i64| {
            u64::try_from(number).map_err(|_| BackupError::Content("a negative revision".into()))
        };
        Ok(KeyValue {
            key: message.key,
            value: message.value,
            create_revision: unsigned(message.create_revision)?,
            mod_revision: unsigned(message.mod_revision)?,
            version: unsigned(message.version)?,
            lease: Some(LeaseId(message.lease)).filter(|id| self.leases.contains_key(id)),
        })
    }

    fn read_leases(&mut self) -> Result<(), BackupError> {
        let Self { bolt, leases, .. } = self;
        bolt.each(LEASE_BUCKET, &mut |_, value, _| {
            let lease = LeaseMessage::decode(value);
            let lease = lease.map_err(|error| BackupError::Content(error.to_string()))?;
            let seconds = u64::try_from(lease.ttl_seconds).unwrap_or(0).max(1);
            leases.insert(LeaseId(lease.id), seconds.saturating_mul(1000));
            Ok(())
        })
    }

    fn read_keys(&mut self) -> Result<(), BackupError> {
        let Self {
            bolt,
            keys,
            revision,
            ..
        } = self;
        bolt.each(KEY_BUCKET, &mut |row_key, value, at| {
            let (main, is_tombstone) = parse_revision(row_key)
                .ok_or_else(|| BackupError::Content("a row's key is no revision".into()))?;
            *revision = main.max(*revision);
            // A bump of the revision leaves an empty row.
            if value.is_empty() {
                return Ok(());
            }
            let message = decode(Bytes::copy_from_slice(value))?;
            if is_reserved(&message.key) {
                return Err(BackupError::Content(format!(
                    "key {:?} is under /nautilus/, which is the quorum's own",
                    String::from_utf8_lossy(&message.key)
                )));
            }
            if is_tombstone {
                keys.remove(&message.key);
                return Ok(());
            }
            let row = Row {
                at,
                bytes: value.len(),
                lease: message.lease,
            };
            // A copy: the message's key would hold on to its value.
            keys.insert(Bytes::copy_from_slice(&message.key), row);
            Ok(())
        })
    }

    fn read_compaction(&mut self) -> Result<(), BackupError> {
        let Self { bolt, revision, .. } = self;
        bolt.each(META_BUCKET, &mut |key, value, _| {
            if key == FINISHED_COMPACT
                && let Some((compacted, _)) = parse_revision(value)
            {
                *revision = compacted.max(*revision);
            }
            Ok(())
        })
    }
}

fn decode(bytes: Bytes) -> Result<KeyValueMessage, BackupError> {
    KeyValueMessage::decode(bytes).map_err(|error| BackupError::Content(error.to_string()))
}

/// Checks the SHA-256 behind the first `length` bytes.
fn check_hash(file: &File, length: u64) -> Result<u64, BackupError> {
    let mut reader = BufReader::with_capacity(READ_BYTES, file);
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; READ_BYTES];
    let mut left = length;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES);
        let read = reader.read_exact(&mut buffer[..now]);
        read.map_err(BackupError::cut("its pages"))?;
        context.update(&buffer[..now]);
        left -= now as u64;
    }
    let mut hash = [0; HASH_BYTES as usize];
    let read = reader.read_exact(&mut hash);
    read.map_err(BackupError::cut("its hash"))?;
    if context.finish().as_ref() != hash {
        return Err(BackupError::Content(
            "its SHA-256 is another than the one at its end: the file was changed".into(),
        ));
    }
    Ok(length)
}
