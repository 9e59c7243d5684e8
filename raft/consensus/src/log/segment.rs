//! Segment files: names, preallocation, and positioned reads and writes.
//!
//! A segment is written with zeros and synced before it is used, so that a sync
//! of a batch never has to sync the file's metadata too.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use nautilus_store::Envelope;

use super::LogError;
use super::frame::{HEADER_BYTES, Header};

/// Bytes of a sealed record's head that tell its epoch.
const SEALED_HEAD_BYTES: usize = 13;
const SUFFIX: &str = "log";
const PREPARED_SUFFIX: &str = "prepared";
/// A segment that is being sealed anew.
pub(crate) const RESEALED_SUFFIX: &str = "resealed";
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    /// No frame in it is of an earlier one.
    pub(crate) first_epoch: u32,
}

impl Segment {
    pub(crate) fn open(dir: &Path, id: u64, envelope: &Envelope) -> Result<Self, LogError> {
        let path = segment_path(dir, id);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| LogError::io("opening", &path, &error))?;
        let first_epoch = first_epoch(&file).unwrap_or_else(|| envelope.epoch());
        Ok(Self {
            id,
            path,
            file,
            first_epoch,
        })
    }

    pub(crate) fn len(&self) -> Result<u64, LogError> {
        let metadata = self.file.metadata();
        Ok(metadata
            .map_err(|error| LogError::io("measuring", &self.path, &error))?
            .len())
    }

    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), LogError> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|error| LogError::io("reading", &self.path, &error))
    }

    pub(crate) fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), LogError> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(|error| LogError::io("writing", &self.path, &error))
    }

    pub(crate) fn sync(&self) -> Result<(), LogError> {
        self.file
            .sync_data()
            .map_err(|error| LogError::io("syncing", &self.path, &error))
    }

    /// Writes zeros from `offset` to the end of the file, and syncs.
    pub(crate) fn zero_from(&self, offset: u64) -> Result<(), LogError> {
        let end = self.len()?;
        let mut at = offset;
        while at < end {
            let length = (end - at).min(ZEROS.len() as u64) as usize;
            self.file
                .write_all_at(&ZEROS[..length], at)
                .map_err(|error| LogError::io("clearing", &self.path, &error))?;
            at += length as u64;
        }
        self.sync()
    }
}

/// The epoch of the first frame; `None` where there is no frame yet.
fn first_epoch(file: &File) -> Option<u32> {
    let mut head = [0; HEADER_BYTES + SEALED_HEAD_BYTES];
    file.read_exact_at(&mut head, 0).ok()?;
    let (header, sealed) = head.split_first_chunk()?;
    Header::parse(header)?;
    Envelope::epoch_of(sealed)
}

/// The ids of the segments in `dir`, ascending; leftovers of preparing are removed.
pub(crate) fn list(dir: &Path) -> Result<Vec<u64>, LogError> {
    let failed = |error: &std::io::Error| LogError::io("listing", dir, error);
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|error| failed(&error))? {
        let path = entry.map_err(|error| failed(&error))?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(SUFFIX) => {
                let id = path
                    .file_stem()
                    .and_then(|stem| stem.to_str())
                    .and_then(|s| s.parse().ok());
                ids.push(
                    id.ok_or_else(|| LogError::corrupt(&path, 0, "no segment has such a name"))?,
                );
            }
            Some(PREPARED_SUFFIX | RESEALED_SUFFIX) => remove(&path)?,
            _ => {}
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

pub(crate) fn segment_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:020}.{SUFFIX}"))
}

pub(crate) fn remove(path: &Path) -> Result<(), LogError> {
    std::fs::remove_file(path).map_err(|error| LogError::io("removing", path, &error))
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), LogError> {
    File::open(dir)
        .and_then(|handle| handle.sync_all())
        .map_err(|error| LogError::io("syncing", dir, &error))
}

/// Keeps one zeroed segment ready, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Preparer {
    ready: Option<Receiver<Result<(PathBuf, File), LogError>>>,
    thread: Option<JoinHandle<()>>,
    dir: PathBuf,
}

impl Preparer {
    pub(crate) fn start(dir: &Path, segment_bytes: u64) -> Result<Self, LogError> {
        let (sender, ready) = sync_channel(0);
        let folder = dir.to_path_buf();
        let thread = std::thread::Builder::new()
            .name("log-prepare".into())
            .spawn(move || prepare_loop(&folder, segment_bytes, &sender))
            .map_err(|error| LogError::io("starting a thread for", dir, &error))?;
        Ok(Self {
            ready: Some(ready),
            thread: Some(thread),
            dir: dir.to_path_buf(),
        })
    }

    /// The prepared file under its final name; durable in the directory.
    /// `epoch` is the one its frames will be sealed in.
    pub(crate) fn take(&self, id: u64, epoch: u32) -> Result<Segment, LogError> {
        let stopped = || LogError::Stopped("no more segments are prepared".into());
        let ready = self.ready.as_ref().ok_or_else(stopped)?;
        // A failure that waited here may be an old one: the disk was full when the last
        // segment began, and need not be any more. The next answer is made now.
        let (prepared, file) = match ready.recv().map_err(|_| stopped())? {
            Ok(made) => made,
            Err(_) => ready.recv().map_err(|_| stopped())??,
        };
        let path = segment_path(&self.dir, id);
        std::fs::rename(&prepared, &path).map_err(|error| LogError::io("naming", &path, &error))?;
        sync_dir(&self.dir)?;
        Ok(Segment {
            id,
            path,
            file,
            first_epoch: epoch,
        })
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        drop(self.ready.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was already reported by its own message.
            let _ = thread.join();
        }
    }
}

fn prepare_loop(dir: &Path, bytes: u64, sender: &SyncSender<Result<(PathBuf, File), LogError>>) {
    for number in 0_u64.. {
        let path = dir.join(format!("{number}.{PREPARED_SUFFIX}"));
        let made = prepare(&path, bytes);
        let failed = made.is_err();
        if sender.send(made.map(|file| (path.clone(), file))).is_err() {
            // Nobody wants it; the next start removes what can't be removed now.
            let _ = std::fs::remove_file(&path);
            return;
        }
        if failed {
            let _ = std::fs::remove_file(&path);
        }
    }
}

fn prepare(path: &Path, bytes: u64) -> Result<File, LogError> {
    let failed = |error: &std::io::Error| LogError::io("preparing", path, error);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(|error| failed(&error))?;
    let mut left = bytes;
    while left > 0 {
        let length = left.min(ZEROS.len() as u64) as usize;
        file.write_all(&ZEROS[..length])
            .map_err(|error| failed(&error))?;
        left -= length as u64;
    }
    file.sync_all().map_err(|error| failed(&error))?;
    Ok(file)
}
