//! Seals and opens the records of one directory.
//!
//! version u8 ‖ epoch u32 BE ‖ counter u64 BE ‖ ciphertext ‖ tag (16 bytes), by
//! AES-256-GCM under the epoch's data key; nonce = epoch ‖ counter; associated data =
//! kind ‖ position.
//!
//! Invariants
//! - One [`Envelope`] at a time per directory (a file lock), one data key per epoch,
//!   one counter per data key: no nonce comes twice under a key. The counter is taken
//!   by `fetch_add` and its end is asserted, long before it wraps.
//! - A record opens only as what it was sealed for: its kind at its position.
//! - A data key that was retired opens nothing any more, here or on the disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::cipher::{NONCE_BYTES, OpenError, SealKey, TAG_BYTES};
use crate::epochs::{self, Epoch};
use crate::files;
use crate::keys::{Generation, KeyError, Keyring, Purpose};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 4 + 8;
/// What sealing adds to a record.
pub const SEAL_OVERHEAD_BYTES: usize = HEAD_BYTES + TAG_BYTES;
/// Records that one data key may seal: far more than a process writes in years.
const COUNTER_END: u64 = 1 << 48;
/// Bytes of a position at most.
pub(crate) const POSITION_BYTES_MAX: usize = 63;
const LOCK_FILE: &str = "epochs.lock";

/// What a record is. The numbers are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A row of the machine or the shell.
    Row = 1,
    /// The engine's mark of its last flush.
    FlushMark = 2,
    /// A frame of the log.
    LogFrame = 3,
    /// The head of a log segment.
    LogHead = 4,
    /// The vote.
    Vote = 5,
    /// Other state of the node itself.
    NodeState = 6,
    /// A piece of the index's checkpoint.
    IndexPiece = 7,
}

/// What a record is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Aad<'a> {
    /// What it is.
    pub kind: Kind,
    /// Where it stands: at most 63 bytes, unique among its kind.
    pub position: &'a [u8],
}

/// Why a record or a directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// The record is not what was sealed for this place.
    #[error("{kind:?} record at {position}: {reason}")]
    Refused {
        /// What it should be.
        kind: Kind,
        /// Its position in hex.
        position: String,
        /// What is wrong.
        reason: String,
    },
    /// The table of epochs is damaged or of another quorum.
    #[error("{}: {reason}", .path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Another process has the directory open.
    #[error("{} is in use by another process", .path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("could not {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No random bytes.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl EnvelopeError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// Seals under a data key of its own; opens what any earlier one sealed here.
pub struct Envelope {
    dir: PathBuf,
    keyring: Keyring,
    /// The table as it is on disk; held while it changes. Taken before `keys`.
    table: Mutex<Vec<Epoch>>,
    keys: RwLock<Keys>,
    /// Shared by those who read now; see [`Envelope::reading`].
    readers: RwLock<Reading>,
    _lock: File,
}

struct Keys {
    current: DataKey,
    earlier: BTreeMap<u32, SealKey>,
}

struct DataKey {
    epoch: u32,
    key: SealKey,
    counter: AtomicU64,
}

impl DataKey {
    fn new(epoch: &Epoch, key: SealKey) -> Self {
        Self {
            epoch: epoch.number,
            key,
            counter: AtomicU64::new(0),
        }
    }
}

/// Held by who reads records, from before they are read until they are opened: so long
/// no data key that was there at its beginning is retired.
#[derive(Clone)]
pub struct Reading(#[allow(dead_code, reason = "it is counted, not read")] Arc<()>);

/// Waits for those who had begun to read before it was taken.
pub struct Drain(Reading);

impl Drain {
    /// Whether they have all ended.
    pub fn is_over(&self) -> bool {
        Arc::strong_count(&self.0.0) == 1
    }
}

impl Envelope {
    /// Opens `dir` (made if it is not there), with a data key for this process.
    pub fn open_dir(dir: &Path, keyring: &Keyring) -> Result<Self, EnvelopeError> {
        fs::create_dir_all(dir).map_err(EnvelopeError::io("create", dir))?;
        let lock_path = dir.join(LOCK_FILE);
        let lock = files::lock(&lock_path).map_err(EnvelopeError::io("lock", &lock_path))?;
        let lock = lock.ok_or_else(|| EnvelopeError::InUse {
            path: dir.to_owned(),
        })?;
        let mut table = epochs::read(dir, keyring)?;
        let mut earlier = BTreeMap::new();
        for epoch in &table {
            let key = keyring.unwrap(Purpose::Records, &epoch.key);
            let key = key.map_err(|error| EnvelopeError::Table {
                path: epochs::path(dir),
                reason: error.to_string(),
            })?;
            earlier.insert(epoch.number, key);
        }
        let (own, key) = epochs::next(&table, keyring)?;
        table.push(own);
        epochs::write(dir, keyring, &table)?;
        Ok(Self {
            dir: dir.to_owned(),
            keyring: keyring.clone(),
            table: Mutex::new(table),
            keys: RwLock::new(Keys {
                current: DataKey::new(&own, key),
                earlier,
            }),
            readers: RwLock::new(Reading(Arc::new(()))),
            _lock: lock,
        })
    }

    /// Begins an epoch: a fresh data key of the current generation. Returns when it is
    /// durable, and no record is being sealed under an earlier one.
    pub fn renew(&self) -> Result<u32, EnvelopeError> {
        let mut table = self.table.lock();
        let (epoch, key) = epochs::next(&table, &self.keyring)?;
        let mut next = table.clone();
        next.push(epoch);
        epochs::write(&self.dir, &self.keyring, &next)?;
        *table = next;
        let mut keys = self.keys.write();
        let before = std::mem::replace(&mut keys.current, DataKey::new(&epoch, key));
        keys.earlier.insert(before.epoch, before.key);
        Ok(epoch.number)
    }

    /// Destroys the data keys before `epoch`, here and on disk. Nothing on the disk may
    /// need them, and nobody may be reading what did (see [`Envelope::drain`]).
    pub fn retire_before(&self, epoch: u32) -> Result<(), EnvelopeError> {
        let mut table = self.table.lock();
        let kept: Vec<Epoch> = table
            .iter()
            .filter(|e| e.number >= epoch)
            .copied()
            .collect();
        assert!(!kept.is_empty(), "the epoch in use can't be retired");
        if kept.len() < table.len() {
            epochs::write(&self.dir, &self.keyring, &kept)?;
            *table = kept;
            let mut keys = self.keys.write();
            keys.earlier = keys.earlier.split_off(&epoch);
        }
        Ok(())
    }

    /// The epoch that seals now.
    pub fn epoch(&self) -> u32 {
        self.keys.read().current.epoch
    }

    /// The epoch from which on all are of the current generation; `None` before
    /// [`Envelope::renew`].
    pub fn first_current_epoch(&self) -> Option<u32> {
        let current = self.keyring.current();
        let table = self.table.lock();
        let newest = table.iter().rev();
        let current = newest.take_while(|epoch| epoch.key.generation >= current);
        current.last().map(|epoch| epoch.number)
    }

    /// The oldest generation that a data key here is of.
    pub fn oldest_generation(&self) -> Generation {
        let table = self.table.lock();
        let oldest = table.iter().map(|epoch| epoch.key.generation).min();
        oldest.unwrap_or_else(|| self.keyring.current())
    }

    /// Whether everything here is of the current generation.
    pub fn is_current(&self) -> bool {
        self.oldest_generation() >= self.keyring.current()
    }

    /// The first epoch whose data key is there.
    pub fn oldest_epoch(&self) -> u32 {
        self.table.lock().first().map_or(0, |epoch| epoch.number)
    }

    /// How many data keys the directory has.
    pub fn epochs(&self) -> usize {
        self.table.lock().len()
    }

    /// The epoch that a record was sealed in, as its head says.
    pub fn epoch_of(sealed: &[u8]) -> Option<u32> {
        parse_head(sealed.get(..HEAD_BYTES)?).map(|(epoch, _)| epoch)
    }

    /// Take it before reading records, and keep it until they are opened.
    pub fn reading(&self) -> Reading {
        self.readers.read().clone()
    }

    /// Tells when everybody has ended who reads now.
    pub fn drain(&self) -> Drain {
        let fresh = Reading(Arc::new(()));
        Drain(std::mem::replace(&mut *self.readers.write(), fresh))
    }

    /// Seals a record.
    pub fn seal(&self, aad: Aad<'_>, plain: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(plain.len() + SEAL_OVERHEAD_BYTES);
        self.seal_into(aad, plain, &mut sealed);
        sealed
    }

    /// Seals a record and appends it: `plain.len() + SEAL_OVERHEAD_BYTES` bytes.
    pub fn seal_into(&self, aad: Aad<'_>, plain: &[u8], sealed: &mut Vec<u8>) {
        // Held until it is sealed: see `renew`.
        let keys = self.keys.read();
        let DataKey {
            epoch,
            key,
            counter,
        } = &keys.current;
        let counter = counter.fetch_add(1, Ordering::Relaxed);
        assert!(
            counter < COUNTER_END,
            "this data key has sealed all it may: restart the node"
        );
        let start = sealed.len();
        sealed.push(VERSION);
        sealed.extend_from_slice(&epoch.to_be_bytes());
        sealed.extend_from_slice(&counter.to_be_bytes());
        sealed.extend_from_slice(plain);
        let body = &mut sealed[start + HEAD_BYTES..];
        let bound = Bound::new(aad);
        let tag = key.seal(nonce(*epoch, counter), bound.bytes(), body);
        sealed.extend_from_slice(&tag);
    }

    /// Opens a record, as what it must be.
    pub fn open(&self, aad: Aad<'_>, sealed: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        let mut plain = Vec::new();
        self.open_into(aad, sealed, &mut plain)?;
        Ok(plain)
    }

    /// Opens a record, as what it must be, into `plain`, whose content is replaced (by
    /// nothing of use, if the record is refused).
    pub fn open_into(
        &self,
        aad: Aad<'_>,
        sealed: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), EnvelopeError> {
        let refused = |reason: &str| EnvelopeError::Refused {
            kind: aad.kind,
            position: hex(aad.position),
            reason: reason.to_owned(),
        };
        let (head, body) = sealed
            .split_at_checked(HEAD_BYTES)
            .ok_or_else(|| refused("it is cut short"))?;
        let Some((epoch, counter)) = parse_head(head) else {
            return Err(refused("its version is not known to this program"));
        };
        let keys = self.keys.read();
        let key = if epoch == keys.current.epoch {
            Some(&keys.current.key)
        } else {
            keys.earlier.get(&epoch)
        };
        let key = key.ok_or_else(|| {
            refused(&format!(
                "it was sealed in epoch {epoch}, which the table does not have"
            ))
        })?;
        let bound = Bound::new(aad);
        let opened = key.open(nonce(epoch, counter), bound.bytes(), body, plain);
        opened.map_err(|error| match error {
            OpenError::Short => refused("it is cut short"),
            OpenError::Unauthentic => {
                refused("it does not authenticate: changed, or moved from another place")
            }
        })
    }
}

fn parse_head(head: &[u8]) -> Option<(u32, u64)> {
    let rest = head.strip_prefix(&[VERSION])?;
    let epoch = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?);
    let counter = u64::from_be_bytes(rest.get(4..)?.try_into().ok()?);
    Some((epoch, counter))
}

fn nonce(epoch: u32, counter: u64) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[..4].copy_from_slice(&epoch.to_be_bytes());
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

/// The associated data's bytes.
struct Bound {
    bytes: [u8; 1 + POSITION_BYTES_MAX],
    length: usize,
}

impl Bound {
    fn new(aad: Aad<'_>) -> Self {
        let length = 1 + aad.position.len();
        assert!(
            length <= 1 + POSITION_BYTES_MAX,
            "a position of {} bytes",
            aad.position.len()
        );
        let mut bytes = [0; 1 + POSITION_BYTES_MAX];
        bytes[0] = aad.kind as u8;
        bytes[1..length].copy_from_slice(aad.position);
        Self { bytes, length }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
