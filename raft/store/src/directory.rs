//! The store's directory.
//!
//! ```text
//! CURRENT                which engine counts; authenticated
//! lock                   held while the store is open
//! engine-0000000000000001/
//!   epochs, epochs.lock  data keys (envelope)
//!   flushed              sealed: the sequence of batches at the last flush
//!   index                sealed: the index's checkpoint, to start from (may be missing)
//!   rows/                RocksDB
//! ```
//!
//! Invariants
//! - `CURRENT` names a whole, flushed engine, or none has been made yet; it is
//!   switched by one rename. Every other engine directory is rubbish.
//! - An engine never stands before its `flushed` mark: a RocksDB that lost the end
//!   of its manifest is noticed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::hmac;

use crate::envelope::{Aad, Envelope, Kind, hex};
use crate::error::StoreError;
use crate::files;
use crate::keys::{Generation, KeyError, Keyring};
use crate::rocks::{Presence, RocksEngine};
use crate::rocks_options::RocksMemory;

const CURRENT_FILE: &str = "CURRENT";
const LOCK_FILE: &str = "lock";
const FLUSHED_FILE: &str = "flushed";
const ROWS_DIRECTORY: &str = "rows";
const ENGINE_PREFIX: &str = "engine-";
/// More than `CURRENT` or a flush mark ever has.
const MARK_BYTES_MAX: usize = 256;

/// The directory, locked.
pub(crate) struct Directory {
    path: PathBuf,
    keyring: Keyring,
    memory: RocksMemory,
    _lock: File,
}

impl Directory {
    /// Locks the directory (made if it is not there), and gives the engine that counts,
    /// `None` in a new one.
    pub(crate) fn open(
        path: &Path,
        keyring: &Keyring,
        memory: RocksMemory,
    ) -> Result<(Self, Option<u64>), StoreError> {
        fs::create_dir_all(path).map_err(StoreError::io("create", path))?;
        let lock_path = path.join(LOCK_FILE);
        let lock = files::lock(&lock_path).map_err(StoreError::io("lock", &lock_path))?;
        let lock = lock.ok_or_else(|| StoreError::InUse {
            path: path.to_owned(),
        })?;
        let directory = Self {
            path: path.to_owned(),
            keyring: keyring.clone(),
            memory,
            _lock: lock,
        };
        let current = directory.read_current()?;
        directory.sweep(current)?;
        Ok((directory, current))
    }

    /// Makes a new, empty engine; it does not count before [`Self::point_to`].
    pub(crate) fn create_engine(&self, number: u64) -> Result<Arc<RocksEngine>, StoreError> {
        let home = self.engine_path(number);
        if home.exists() {
            fs::remove_dir_all(&home).map_err(StoreError::io("remove", &home))?;
        }
        fs::create_dir_all(&home).map_err(StoreError::io("create", &home))?;
        files::sync_parent(&home).map_err(StoreError::io("sync", &self.path))?;
        self.engine(number, Presence::Create)
    }

    /// Opens an engine that counts.
    pub(crate) fn open_engine(&self, number: u64) -> Result<Arc<RocksEngine>, StoreError> {
        let home = self.engine_path(number);
        for part in [
            home.clone(),
            crate::epochs::path(&home),
            home.join(FLUSHED_FILE),
        ] {
            if !part.exists() {
                let reason = "it is missing, though CURRENT names its engine";
                return Err(StoreError::corrupt(part.display().to_string(), reason));
            }
        }
        self.engine(number, Presence::Open)
    }

    fn engine(&self, number: u64, presence: Presence) -> Result<Arc<RocksEngine>, StoreError> {
        let home = self.engine_path(number);
        let envelope = Envelope::open_dir(&home, &self.keyring)?;
        let rows = home.join(ROWS_DIRECTORY);
        let engine = RocksEngine::open(&rows, &home, envelope, presence, self.memory)?;
        Ok(Arc::new(engine))
    }

    /// Makes an engine the one that counts.
    pub(crate) fn point_to(&self, number: u64) -> Result<(), StoreError> {
        let path = self.path.join(CURRENT_FILE);
        let line = self.current_line(number, self.keyring.current())?;
        files::replace(&path, line.as_bytes()).map_err(StoreError::io("write", &path))
    }

    /// Notes durably that everything up to batch `sequence` is.
    pub(crate) fn mark_flushed(
        &self,
        number: u64,
        engine: &RocksEngine,
        sequence: u64,
    ) -> Result<(), StoreError> {
        let path = self.engine_path(number).join(FLUSHED_FILE);
        let mark = engine.envelope().seal(FLUSHED, &sequence.to_be_bytes());
        files::replace(&path, &mark).map_err(StoreError::io("write", &path))
    }

    /// Checks that the engine stands at or after its mark.
    pub(crate) fn check_flushed(
        &self,
        number: u64,
        engine: &RocksEngine,
        sequence: u64,
    ) -> Result<(), StoreError> {
        let path = self.engine_path(number).join(FLUSHED_FILE);
        let broken = |reason: String| StoreError::corrupt(path.display().to_string(), reason);
        let mark = files::read(&path, MARK_BYTES_MAX).map_err(StoreError::io("read", &path))?;
        let mark = engine
            .envelope()
            .open(FLUSHED, &mark)
            .map_err(|e| broken(e.to_string()))?;
        let mark: [u8; 8] = mark
            .try_into()
            .map_err(|_| broken("it is not a batch's number".to_owned()))?;
        let flushed = u64::from_be_bytes(mark);
        if sequence < flushed {
            let rows = self.engine_path(number).join(ROWS_DIRECTORY);
            let reason = format!(
                "the rows stand at batch {sequence}, but batch {flushed} was flushed: the disk \
                 lost or took back what it had confirmed"
            );
            return Err(StoreError::corrupt(rows.display().to_string(), reason));
        }
        Ok(())
    }

    /// The generation under which `CURRENT` stands.
    pub(crate) fn current_generation(&self) -> Result<Option<Generation>, StoreError> {
        let path = self.path.join(CURRENT_FILE);
        let content = files::read(&path, MARK_BYTES_MAX).map_err(StoreError::io("read", &path))?;
        Ok(parse_current(&content).map(|(_, generation)| generation))
    }

    /// Reads `CURRENT`. Writes it before the first engine is made, so that one that is
    /// missing beside an engine is always an error.
    fn read_current(&self) -> Result<Option<u64>, StoreError> {
        let path = self.path.join(CURRENT_FILE);
        let broken = |reason: &str| StoreError::corrupt(path.display().to_string(), reason);
        let content =
            files::read_if_there(&path, MARK_BYTES_MAX).map_err(StoreError::io("read", &path))?;
        let Some(content) = content else {
            if !self.engines()?.is_empty() {
                return Err(broken("it is missing, though there is an engine"));
            }
            self.point_to(0)?;
            return Ok(None);
        };
        let (number, generation) =
            parse_current(&content).ok_or_else(|| broken("it does not name an engine"))?;
        let line = self.current_line(number, generation);
        if line.map_err(|error| broken(&error.to_string()))?.as_bytes() != content {
            return Err(broken(
                "it does not authenticate: it was changed, or it is of another quorum (another \
                 root key)",
            ));
        }
        Ok((number != 0).then_some(number))
    }

    fn current_line(&self, number: u64, generation: Generation) -> Result<String, KeyError> {
        let key = self.keyring.table_key(generation)?;
        let text = format!("{number} {generation}");
        let tag = hmac::sign(&key, format!("CURRENT {text}").as_bytes());
        Ok(format!("{text} {}\n", hex(tag.as_ref())))
    }

    /// Removes what a crash left behind.
    fn sweep(&self, current: Option<u64>) -> Result<(), StoreError> {
        for number in self.engines()? {
            if Some(number) != current {
                let home = self.engine_path(number);
                fs::remove_dir_all(&home).map_err(StoreError::io("remove", &home))?;
            }
        }
        Ok(())
    }

    fn engines(&self) -> Result<Vec<u64>, StoreError> {
        let entries = fs::read_dir(&self.path).map_err(StoreError::io("read", &self.path))?;
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry
                .map_err(StoreError::io("read", &self.path))?
                .file_name();
            let number = name
                .to_str()
                .and_then(|name| name.strip_prefix(ENGINE_PREFIX))
                .and_then(|digits| u64::from_str_radix(digits, 16).ok());
            numbers.extend(number);
        }
        Ok(numbers)
    }

    fn engine_path(&self, number: u64) -> PathBuf {
        self.path.join(format!("{ENGINE_PREFIX}{number:016x}"))
    }
}

/// `CURRENT`'s engine and generation, not authenticated.
fn parse_current(content: &[u8]) -> Option<(u64, Generation)> {
    let mut words = std::str::from_utf8(content).ok()?.split(' ');
    let number = words.next()?.parse().ok()?;
    let generation = words.next()?.parse().ok()?;
    Some((number, generation))
}

const FLUSHED: Aad<'static> = Aad {
    kind: Kind::FlushMark,
    position: b"",
};
