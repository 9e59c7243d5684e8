//! The bytes of the machine's rows. Versioned: a row of an unknown version is an
//! error that names it, never a guess.
//!
//! | space | key | value |
//! |---|---|---|
//! | Revision | revision u64 BE ‖ sub u32 BE | version byte, flags, leaf u64 BE, term u64 BE, log index u64 BE, and for a put create revision, version, lease (u64 BE each), key length u32 BE, key, value; for a tombstone key length, key |
//! | Lease | id u64 BE | version byte, ttl ms u64 BE |
//! | Meta `machine` | | version byte, counters (postcard) |
//! | Ledger | level u8 ‖ number u64 BE | see [`crate::ledger`] |
//!
//! Nothing of an older version is read: no version of this program was released with it.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::digest::RowSum;
use crate::ledger::tiles::LedgerNote;
use crate::machine::Sums;
use crate::rows::{RowError, Space};
use crate::types::{Digest, KeyValue, LeaseId, LogPosition, Revision, UnixMillis};

/// The key of the machine's own row in [`Space::Meta`].
pub const MACHINE_ROW: &[u8] = b"machine";

const ROW_VERSION: u8 = 2;
const LEASE_VERSION: u8 = 2;
const COUNTERS_VERSION: u8 = 3;
const FLAG_TOMBSTONE: u8 = 1;
/// Set on the last change of its revision, so that a row missing at the end of a
/// revision is noticed.
const FLAG_LAST: u8 = 2;
/// Set on what was taken over from another store.
const FLAG_LOADED: u8 = 4;
const STAMP_BYTES: usize = 2 + 8 + 8 + 8;
const PUT_HEAD_BYTES: usize = STAMP_BYTES + 8 + 8 + 8 + 4;
const TOMBSTONE_HEAD_BYTES: usize = STAMP_BYTES + 4;
/// About what the machine's own row takes.
const COUNTERS_BYTES: usize = 1024;

/// The place of a change. What stands at a place never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Its revision.
    pub revision: Revision,
    /// Its position within the revision, from 0.
    pub sub: u32,
}

impl Place {
    /// The key of its row in [`Space::Revision`].
    pub fn row_key(self) -> [u8; 12] {
        let mut key = [0; 12];
        key[..8].copy_from_slice(&self.revision.to_be_bytes());
        key[8..].copy_from_slice(&self.sub.to_be_bytes());
        key
    }

    pub(crate) fn from_row_key(key: &[u8]) -> Result<Self, RowError> {
        let bytes: [u8; 12] = key.try_into().map_err(|_| {
            row_error(
                Space::Revision,
                key,
                "its key is not a revision and a position",
            )
        })?;
        let mut revision = [0; 8];
        revision.copy_from_slice(&bytes[..8]);
        let mut sub = [0; 4];
        sub.copy_from_slice(&bytes[8..]);
        Ok(Self {
            revision: u64::from_be_bytes(revision),
            sub: u32::from_be_bytes(sub),
        })
    }
}

/// A decoded row of [`Space::Revision`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VersionRow {
    pub(crate) change: Change,
    pub(crate) stamp: Stamp,
}

/// How a change came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The index of its leaf in the ledger.
    pub(crate) leaf: u64,
    /// The entry that made it.
    pub(crate) log: LogPosition,
    /// It is the last of its revision.
    pub(crate) last: bool,
    /// It was taken over from another store.
    pub(crate) loaded: bool,
}

/// What a version row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Put(KeyValue),
    Tombstone(Bytes),
}

impl Change {
    pub(crate) fn key(&self) -> &Bytes {
        match self {
            Self::Put(kv) => &kv.key,
            Self::Tombstone(key) => key,
        }
    }
}

impl Stamp {
    /// Of a change that an entry makes; its leaf is yet to be appended.
    pub(crate) fn new(log: LogPosition, last: bool) -> Self {
        Self {
            leaf: 0,
            log,
            last,
            loaded: false,
        }
    }

    fn put_into(self, row: &mut BytesMut, tombstone: u8) {
        let last = if self.last { FLAG_LAST } else { 0 };
        let loaded = if self.loaded { FLAG_LOADED } else { 0 };
        row.put_u8(ROW_VERSION);
        row.put_u8(last | loaded | tombstone);
        row.put_u64(self.leaf);
        row.put_u64(self.log.term);
        row.put_u64(self.log.index);
    }
}

pub(crate) fn encode_change(change: &Change, stamp: Stamp) -> Bytes {
    match change {
        Change::Put(kv) => {
            let mut row = BytesMut::with_capacity(PUT_HEAD_BYTES + kv.key.len() + kv.value.len());
            stamp.put_into(&mut row, 0);
            row.put_u64(kv.create_revision);
            row.put_u64(kv.version);
            row.put_i64(kv.lease.map_or(0, |lease| lease.0));
            row.put_u32(length(&kv.key));
            row.put_slice(&kv.key);
            row.put_slice(&kv.value);
            row.freeze()
        }
        Change::Tombstone(key) => {
            let mut row = BytesMut::with_capacity(TOMBSTONE_HEAD_BYTES + key.len());
            stamp.put_into(&mut row, FLAG_TOMBSTONE);
            row.put_u32(length(key));
            row.put_slice(key);
            row.freeze()
        }
    }
}

pub(crate) fn decode_change(place: Place, row: &Bytes) -> Result<VersionRow, RowError> {
    let key = place.row_key();
    let broken = |reason: &str| row_error(Space::Revision, &key, reason);
    let mut reader = Reader { row, at: 0 };
    let short = || broken("it is shorter than its own lengths say");
    let version = reader.u8().ok_or_else(short)?;
    if version != ROW_VERSION {
        return Err(broken(&unknown_version(version, ROW_VERSION)));
    }
    let flags = reader.u8().ok_or_else(short)?;
    let leaf = reader.u64().ok_or_else(short)?;
    let term = reader.u64().ok_or_else(short)?;
    let index = reader.u64().ok_or_else(short)?;
    let stamp = Stamp {
        leaf,
        log: LogPosition { term, index },
        last: flags & FLAG_LAST != 0,
        loaded: flags & FLAG_LOADED != 0,
    };
    if flags & FLAG_TOMBSTONE != 0 {
        let key_bytes = reader.u32().ok_or_else(short)?;
        let key = reader.take(key_bytes).ok_or_else(short)?;
        return Ok(VersionRow {
            change: Change::Tombstone(key),
            stamp,
        });
    }
    let create_revision = reader.u64().ok_or_else(short)?;
    let put_version = reader.u64().ok_or_else(short)?;
    let lease = reader.u64().ok_or_else(short)?;
    let key_bytes = reader.u32().ok_or_else(short)?;
    let key = reader.take(key_bytes).ok_or_else(short)?;
    let value = row.slice(reader.at..);
    let lease = i64::from_be_bytes(lease.to_be_bytes());
    Ok(VersionRow {
        change: Change::Put(KeyValue {
            key,
            value,
            create_revision,
            mod_revision: place.revision,
            version: put_version,
            lease: (lease != 0).then_some(LeaseId(lease)),
        }),
        stamp,
    })
}

pub(crate) fn lease_row_key(id: LeaseId) -> [u8; 8] {
    id.0.to_be_bytes()
}

pub(crate) fn encode_lease(ttl_ms: u64) -> Bytes {
    let mut row = BytesMut::with_capacity(9);
    row.put_u8(LEASE_VERSION);
    row.put_u64(ttl_ms);
    row.freeze()
}

pub(crate) fn decode_lease(key: &[u8], row: &Bytes) -> Result<(LeaseId, u64), RowError> {
    let broken = |reason: &str| row_error(Space::Lease, key, reason);
    let id: [u8; 8] = key
        .try_into()
        .map_err(|_| broken("its key is not a lease's id"))?;
    let mut reader = Reader { row, at: 0 };
    let version = reader.u8().unwrap_or_default();
    if version != LEASE_VERSION {
        return Err(broken(&unknown_version(version, LEASE_VERSION)));
    }
    match (reader.u64(), reader.at == row.len()) {
        (Some(ttl_ms), true) => Ok((LeaseId(i64::from_be_bytes(id)), ttl_ms)),
        _ => Err(broken("it is not as long as a lease")),
    }
}

/// What the machine's own row holds beside the rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CountersRow {
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) time: UnixMillis,
    pub(crate) loading: bool,
    pub(crate) applied: Option<LogPosition>,
    pub(crate) checkpoint: Option<(LogPosition, Digest)>,
    pub(crate) version_rows: u64,
    pub(crate) lease_rows: u64,
    pub(crate) version_sum: [u8; 32],
    pub(crate) lease_sum: [u8; 32],
    pub(crate) written_sum: [u8; 32],
    pub(crate) ledger: LedgerNote,
}

impl CountersRow {
    pub(crate) fn sums(&self) -> Sums {
        Sums {
            versions: RowSum::from_bytes(&self.version_sum),
            leases: RowSum::from_bytes(&self.lease_sum),
            written: RowSum::from_bytes(&self.written_sum),
        }
    }
}

pub(crate) fn encode_counters(counters: &CountersRow) -> Result<Bytes, RowError> {
    let mut row = Vec::with_capacity(COUNTERS_BYTES);
    row.push(COUNTERS_VERSION);
    row = postcard::to_extend(counters, row)
        .map_err(|error| row_error(Space::Meta, MACHINE_ROW, &error.to_string()))?;
    Ok(row.into())
}

pub(crate) fn decode_counters(row: &[u8]) -> Result<CountersRow, RowError> {
    let broken = |reason: &str| row_error(Space::Meta, MACHINE_ROW, reason);
    match row.split_first() {
        Some((&COUNTERS_VERSION, rest)) => {
            postcard::from_bytes(rest).map_err(|error| broken(&error.to_string()))
        }
        Some((version, _)) => Err(broken(&unknown_version(*version, COUNTERS_VERSION))),
        None => Err(broken("it is empty")),
    }
}

pub(crate) fn row_error(space: Space, key: &[u8], reason: &str) -> RowError {
    let mut name = String::with_capacity(key.len() * 2);
    for byte in key {
        name.push_str(&format!("{byte:02x}"));
    }
    RowError {
        space,
        key: name,
        reason: reason.to_owned(),
    }
}

fn unknown_version(version: u8, written: u8) -> String {
    format!("its version {version} is not known to this program (it writes {written})")
}

/// Keys are bounded by the proposal's size, far below 4 GiB.
fn length(key: &Bytes) -> u32 {
    u32::try_from(key.len()).unwrap_or_else(|_| panic!("a key of {} bytes", key.len()))
}

struct Reader<'a> {
    row: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self
            .row
            .get(self.at..self.at.checked_add(N)?)?
            .try_into()
            .ok()?;
        self.at += N;
        Some(bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn take(&mut self, bytes: u32) -> Option<Bytes> {
        let end = self.at.checked_add(usize::try_from(bytes).ok()?)?;
        if end > self.row.len() {
            return None;
        }
        let taken = self.row.slice(self.at..end);
        self.at = end;
        Some(taken)
    }
}
