//! How far the log is known to be synced: the number of the last synced frame.
//!
//! Two sealed slots of one small file, written in turn and never synced for
//! themselves: a crash of the process keeps the newest, a loss of power may keep an
//! older one, and either way every frame up to it was synced. The watermark can
//! only be too low.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nautilus_machine::LogPosition;
use nautilus_store::{Aad, Envelope, Kind, SEAL_OVERHEAD_BYTES};

use super::LogError;
use super::segment::sync_dir;

const FILE: &str = "watermark";
const SLOT_BYTES: u64 = 64;
const PLAIN_BYTES: usize = 8;

/// The open file.
#[derive(Debug)]
pub(crate) struct Watermark {
    path: PathBuf,
    file: File,
    next_slot: u64,
    /// The newest purge whose record is durable.
    pub(crate) purged: Option<LogPosition>,
}

impl Watermark {
    /// Makes the file for a log that has no segment yet.
    pub(crate) fn create(dir: &Path, envelope: &Envelope) -> Result<Self, LogError> {
        let path = dir.join(FILE);
        let file = options().create(true).truncate(true).open(&path);
        let file = file.map_err(|error| LogError::io("creating", &path, &error))?;
        let mut watermark = Self {
            path,
            file,
            next_slot: 0,
            purged: None,
        };
        watermark.advance(envelope, 0)?;
        watermark.sync()?;
        sync_dir(dir)?;
        Ok(watermark)
    }

    /// Opens the file of a log that has segments, and tells the last synced frame.
    pub(crate) fn open(dir: &Path, envelope: &Envelope) -> Result<(Self, u64), LogError> {
        let path = dir.join(FILE);
        let file = options().open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                LogError::corrupt(&path, 0, "the file is missing, but segments are there")
            }
            _ => LogError::io("opening", &path, &error),
        })?;
        let slots = [read_slot(&file, envelope, 0), read_slot(&file, envelope, 1)];
        let newest = slots.iter().flatten().max().copied();
        let Some(newest) = newest else {
            return Err(LogError::corrupt(
                &path,
                0,
                "neither of its two slots opens",
            ));
        };
        let next_slot = u64::from(slots[0] == Some(newest));
        Ok((
            Self {
                path,
                file,
                next_slot,
                purged: None,
            },
            newest,
        ))
    }

    /// Notes that every frame up to `frame` is synced.
    pub(crate) fn advance(&mut self, envelope: &Envelope, frame: u64) -> Result<(), LogError> {
        let slot = self.next_slot;
        let aad = Aad {
            kind: Kind::LogHead,
            position: &slot.to_le_bytes(),
        };
        let sealed = envelope.seal(aad, &frame.to_le_bytes());
        self.file
            .write_all_at(&sealed, slot * SLOT_BYTES)
            .map_err(|error| LogError::io("writing", &self.path, &error))?;
        self.next_slot = 1 - slot;
        Ok(())
    }

    pub(crate) fn sync(&self) -> Result<(), LogError> {
        self.file
            .sync_data()
            .map_err(|error| LogError::io("syncing", &self.path, &error))
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options
}

fn read_slot(file: &File, envelope: &Envelope, slot: u64) -> Option<u64> {
    let mut sealed = [0; PLAIN_BYTES + SEAL_OVERHEAD_BYTES];
    file.read_exact_at(&mut sealed, slot * SLOT_BYTES).ok()?;
    let aad = Aad {
        kind: Kind::LogHead,
        position: &slot.to_le_bytes(),
    };
    let plain = envelope.open(aad, &sealed).ok()?;
    plain.try_into().ok().map(u64::from_le_bytes)
}
