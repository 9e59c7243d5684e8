//! Sealing anew what an older generation of keys has sealed, while the store serves.
//!
//! Rows are rewritten in place, a few at a time, between two calls of [`Store::apply`];
//! then the files that held the old ones are written anew without them, and only then
//! the old data keys go. How far it came is told by the heads of the records themselves:
//! whatever breaks it off, the next call goes on where work is left.
//!
//! Invariants
//! - At every moment all rows open, for readers and after a crash.
//! - When it is done, no file of the store has a byte that an older generation's root
//!   would open, and no older data key is left, in memory or on disk.

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use crate::error::StoreError;
use crate::files;
use crate::keys::{Generation, Keyring};
use crate::snapshot::{SnapshotReader, SnapshotWriter};
use crate::store::{DiskEngine, Place, Store};

/// Rows seen and written at most in one step: so long an apply may have to wait.
const STEP: Work = Work {
    seen_bytes: 2 << 20,
    written_bytes: 256 << 10,
};
/// Rounds over the files before the next call has to go on.
const FILE_ROUNDS: usize = 16;
/// Pause while somebody still reads under an old key.
const READERS_PAUSE: Duration = Duration::from_millis(10);

/// Bytes gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Looked at.
    pub seen_bytes: u64,
    /// Written anew.
    pub written_bytes: u64,
}

/// Called after every step, with its bytes. It may sleep to bound the load; it breaks
/// off what it is called from.
pub type Pace<'a> = dyn FnMut(Work) -> ControlFlow<()> + Send + 'a;

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is left that an older generation sealed.
    Done,
    /// Broken off, by its pace or because the engine was replaced: call again.
    Unfinished,
}

impl Store {
    /// The oldest generation that something on disk still needs.
    pub fn oldest_generation(&self) -> Result<Generation, StoreError> {
        let current = self.keyring.current();
        let (Place::Directory(directory), Some(disk)) = (&self.place, self.disk()) else {
            return Ok(current);
        };
        let engine = disk.engine.envelope().oldest_generation();
        let pointer = directory.current_generation()?.unwrap_or_default();
        Ok(current.min(engine).min(pointer))
    }

    /// How many data keys the rows have.
    pub fn epochs(&self) -> usize {
        self.disk()
            .map_or(0, |disk| disk.engine.envelope().epochs())
    }

    /// Seals everything under the current generation and destroys older data keys.
    /// Blocks for as long as the store is large; everything else goes on.
    pub fn reencrypt(&self, pace: &mut Pace<'_>) -> Result<Outcome, StoreError> {
        let (Place::Directory(directory), Some(disk)) = (&self.place, self.disk()) else {
            return Ok(Outcome::Done);
        };
        if self.oldest_generation()? == self.keyring.current() {
            return Ok(Outcome::Done);
        }
        let floor = self.begin(&disk)?;
        for family in 0..disk.engine.families().len() {
            if self.reseal_family(&disk, family, floor, pace)?.is_break() {
                return Ok(Outcome::Unfinished);
            }
        }
        self.no_flush().forget(&disk)?;
        self.flush()?;
        {
            // An engine is replaced under this lock.
            let _settled = self.unsettled.lock();
            if !self.is_still(&disk) {
                return Ok(Outcome::Unfinished);
            }
            directory.point_to(disk.number)?;
        }
        let outcome = settle(&disk, pace)?;
        if outcome == Outcome::Done {
            disk.engine.envelope().retire_before(floor)?;
        }
        Ok(outcome)
    }

    fn disk(&self) -> Option<DiskEngine> {
        self.state.read().disk.clone()
    }

    fn is_still(&self, disk: &DiskEngine) -> bool {
        self.disk().is_some_and(|now| now.number == disk.number)
    }

    /// From here on everything new is sealed under the current generation.
    fn begin(&self, disk: &DiskEngine) -> Result<u32, StoreError> {
        let envelope = disk.engine.envelope();
        if let Some(floor) = envelope.first_current_epoch() {
            return Ok(floor);
        }
        // Nobody holds sealed rows or marks that are not written yet.
        let _no_flush = self.no_flush();
        let _settled = self.unsettled.lock();
        Ok(envelope.renew()?)
    }

    fn reseal_family(
        &self,
        disk: &DiskEngine,
        family: usize,
        floor: u32,
        pace: &mut Pace<'_>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let mut from = Vec::new();
        loop {
            let (work, more) = {
                let _settled = self.unsettled.lock();
                if !self.is_still(disk) {
                    return Ok(ControlFlow::Break(()));
                }
                disk.engine.reseal_rows(family, &mut from, floor, STEP)?
            };
            if pace(work).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            if more.is_break() {
                return Ok(ControlFlow::Continue(()));
            }
        }
    }
}

/// Waits for those who read old rows, then writes the files anew that hold any.
fn settle(disk: &DiskEngine, pace: &mut Pace<'_>) -> Result<Outcome, StoreError> {
    let engine = &disk.engine;
    let readers = engine.envelope().drain();
    while !readers.is_over() {
        if pace(Work::default()).is_break() {
            return Ok(Outcome::Unfinished);
        }
        std::thread::sleep(READERS_PAUSE);
    }
    let old: BTreeSet<String> = engine.row_files()?.into_iter().map(|f| f.name).collect();
    for _ in 0..FILE_ROUNDS {
        let files = engine.row_files()?;
        let mut left = files
            .iter()
            .filter(|file| old.contains(&file.name))
            .peekable();
        if left.peek().is_none() {
            return Ok(Outcome::Done);
        }
        for file in left {
            // An earlier one's compaction may have taken it along.
            if !engine.row_files()?.iter().any(|now| now.name == file.name) {
                continue;
            }
            engine.compact_file(file);
            let bytes = file.size as u64;
            let work = Work {
                seen_bytes: 0,
                written_bytes: bytes,
            };
            if pace(work).is_break() {
                return Ok(Outcome::Unfinished);
            }
        }
    }
    Ok(Outcome::Unfinished)
}

/// Writes a snapshot file anew under the current generation, durably, with the header
/// and the rows it has. `pace` may break it off: then nothing of use is at `to`.
pub fn reseal_snapshot(
    from: &Path,
    to: &Path,
    keyring: &Keyring,
    pace: &mut Pace<'_>,
) -> Result<Outcome, StoreError> {
    let reader = SnapshotReader::open(from, keyring)?;
    let file = File::create(to).map_err(StoreError::io("create", to))?;
    let begun = SnapshotWriter::begin(file, keyring, &reader.header);
    let mut writer = begun.map_err(StoreError::io("write", to))?;
    let (mut since, mut broken_off) = (Work::default(), false);
    let copied = reader.each_row(&mut |space, key, value| {
        let bytes = (key.len() + value.len()) as u64;
        since.seen_bytes += bytes;
        since.written_bytes += bytes;
        if since.written_bytes >= STEP.written_bytes {
            broken_off = pace(std::mem::take(&mut since)).is_break();
        }
        if broken_off {
            // Any error ends the reading; this one is not told to anybody.
            return Err(StoreError::Stopped("broken off".to_owned()));
        }
        writer
            .row(space, key, &value)
            .map_err(StoreError::io("write", to))
    });
    if broken_off {
        return Ok(Outcome::Unfinished);
    }
    copied?;
    let (file, _, _) = writer.finish().map_err(StoreError::io("write", to))?;
    file.sync_all()
        .and_then(|()| files::sync_parent(to))
        .map_err(StoreError::io("sync", to))?;
    Ok(Outcome::Done)
}
