//! Sealing segments anew under the current generation of keys.
//!
//! A segment that is not written to any more is copied frame by frame to the same
//! offsets (sealing adds always as much), and takes its name by one rename; the flusher
//! destroys the data keys that no segment needs after that.
//!
//! Invariants
//! - A crash leaves the old segment or the new one, with the same frames.
//! - The segment that is written to is never touched: it is closed first.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nautilus_store::{Envelope, Generation, Outcome, Pace, Work};

use super::LogError;
use super::frame::{self, HEADER_BYTES, Header, MAX_FRAME_BYTES};
use super::segment::{self, RESEALED_SUFFIX, Segment};
use super::wal::WalReader;

impl WalReader {
    /// The oldest generation that a frame on disk needs.
    pub(crate) fn oldest_generation(&self) -> Generation {
        self.shared.envelope.oldest_generation()
    }

    /// How many data keys the log has.
    pub(crate) fn epochs(&self) -> usize {
        self.shared.envelope.epochs()
    }

    /// Bytes of all segments.
    pub(crate) fn size_bytes(&self) -> u64 {
        let segments = self.shared.segments.lock();
        let lengths = segments.values().map(|segment| segment.len());
        lengths.map(|length| length.unwrap_or(0)).sum()
    }

    /// Seals every frame of an older generation anew. Blocks; everything else goes on.
    /// Unfinished as long as the log has not been written to: the segment in use is
    /// closed by the next frame, and the old keys are destroyed by one after it.
    pub(crate) fn reencrypt(&self, pace: &mut Pace<'_>) -> Result<Outcome, LogError> {
        let envelope = &self.shared.envelope;
        let segments: Vec<Arc<Segment>> = self.shared.segments.lock().values().cloned().collect();
        if envelope.is_current() {
            return Ok(Outcome::Done);
        }
        let floor = envelope.first_current_epoch();
        let (Some(floor), Some((tail, closed))) = (floor, segments.split_last()) else {
            self.shared.roll_asked.store(true, Ordering::Release);
            return Ok(Outcome::Unfinished);
        };
        if tail.first_epoch < floor {
            self.shared.roll_asked.store(true, Ordering::Release);
        }
        for old in closed.iter().filter(|old| old.first_epoch < floor) {
            let path = old.path.with_extension(RESEALED_SUFFIX);
            if reseal(old, &path, envelope, pace)? == Outcome::Unfinished {
                segment::remove(&path)?;
                return Ok(Outcome::Unfinished);
            }
            self.replace(old, &path)?;
        }
        Ok(if envelope.is_current() {
            Outcome::Done
        } else {
            Outcome::Unfinished
        })
    }

    /// Gives the new file the old one's name, unless the segment was purged meanwhile.
    fn replace(&self, old: &Segment, path: &Path) -> Result<(), LogError> {
        let mut segments = self.shared.segments.lock();
        if !segments.contains_key(&old.id) {
            return segment::remove(path);
        }
        std::fs::rename(path, &old.path)
            .map_err(|error| LogError::io("naming", &old.path, &error))?;
        if let Some(dir) = old.path.parent() {
            segment::sync_dir(dir)?;
            let new = Segment::open(dir, old.id, &self.shared.envelope)?;
            segments.insert(old.id, Arc::new(new));
        }
        Ok(())
    }
}

/// Copies the frames of `old` to a file at `path`, durably.
fn reseal(
    old: &Segment,
    path: &Path,
    envelope: &Envelope,
    pace: &mut Pace<'_>,
) -> Result<Outcome, LogError> {
    let _reading = envelope.reading();
    let failed = |error: &std::io::Error| LogError::io("writing", path, error);
    let length = old.len()?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(|error| failed(&error))?;
    // What follows the last frame are zeros, as they were.
    file.set_len(length).map_err(|error| failed(&error))?;
    let (mut offset, mut out) = (0, Vec::new());
    while offset + HEADER_BYTES as u64 <= length {
        let broken = |reason: String| LogError::corrupt(&old.path, offset, reason);
        let mut head = [0; HEADER_BYTES];
        old.read_exact_at(&mut head, offset)?;
        let Some(header) = Header::parse(&head) else {
            if head == [0; HEADER_BYTES] {
                break;
            }
            return Err(broken("not a frame".to_owned()));
        };
        if header.length as usize > MAX_FRAME_BYTES {
            return Err(broken(format!("a frame of {} bytes", header.length)));
        }
        let mut body = vec![0; header.length as usize];
        old.read_exact_at(&mut body, offset + HEADER_BYTES as u64)?;
        let plain = frame::open(envelope, old.id, &header, &body).map_err(broken)?;
        out.clear();
        frame::seal(envelope, old.id, &header, &plain, &mut out)
            .map_err(|reason| LogError::Stopped(format!("sealing a frame: {reason}")))?;
        assert_eq!(out.len() as u64, header.span(), "a frame keeps its length");
        file.write_all_at(&out, offset)
            .map_err(|error| failed(&error))?;
        offset += header.span();
        let work = Work {
            seen_bytes: header.span(),
            written_bytes: header.span(),
        };
        if pace(work).is_break() {
            return Ok(Outcome::Unfinished);
        }
    }
    file.sync_all().map_err(|error| failed(&error))?;
    Ok(Outcome::Done)
}
