//! Reads the segments back, and tells a torn tail from corruption.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use nautilus_store::Envelope;

use super::LogError;
use super::flusher::Tail;
use super::frame::{self, ALIGN, HEADER_BYTES, Header, MAX_FRAME_BYTES};
use super::index::{Index, Place};
use super::record::Record;
use super::segment::{self, Segment};
use super::wal::WalOptions;
use super::watermark::Watermark;

/// Bytes of a segment that are believed, where none so long is configured: a length
/// comes from the disk, and is read into memory.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// What was found.
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) segments: BTreeMap<u64, Arc<Segment>>,
    pub(crate) tail: Tail,
    pub(crate) watermark: Watermark,
}

/// Reads every segment, cuts a torn tail, refuses everything else that is wrong.
pub(crate) fn recover(options: &WalOptions, envelope: &Envelope) -> Result<Recovered, LogError> {
    let dir = &options.dir;
    let ids = segment::list(dir)?;
    let index = Index::new(options.cache_bytes);
    let tail = Tail {
        segment: None,
        offset: 0,
        capacity: 0,
        next_frame: 1,
        next_segment: 1,
    };
    if ids.is_empty() {
        // A log that had segments also has a watermark above zero.
        if let Ok((_, synced)) = Watermark::open(dir, envelope)
            && synced > 0
        {
            return Err(LogError::corrupt(
                dir,
                0,
                format!("no segment is left, but {synced} frames were synced"),
            ));
        }
        let watermark = Watermark::create(dir, envelope)?;
        return Ok(Recovered {
            index,
            segments: BTreeMap::new(),
            tail,
            watermark,
        });
    }
    let (mut watermark, synced) = Watermark::open(dir, envelope)?;
    let mut reader = Reader {
        envelope,
        index,
        next_frame: None,
        gap_before: None,
        synced,
        // The last frame of a segment may reach over its end.
        segment_limit_bytes: options.segment_bytes.max(SEGMENT_BYTES_MAX) + MAX_FRAME_BYTES as u64,
    };
    let mut segments = BTreeMap::new();
    let mut tail = tail;
    for (at, id) in ids.iter().enumerate() {
        if at > 0 && ids[at - 1] + 1 != *id {
            let path = segment::segment_path(dir, ids[at - 1] + 1);
            return Err(LogError::corrupt(path, 0, "the segment is missing"));
        }
        let segment = Arc::new(Segment::open(dir, *id, envelope)?);
        let is_last = at + 1 == ids.len();
        tail.offset = reader.read_segment(&segment, is_last)?;
        tail.capacity = segment.len()?.max(options.segment_bytes);
        tail.next_segment = id + 1;
        tail.segment = Some(Arc::clone(&segment));
        segments.insert(*id, segment);
    }
    tail.next_frame = reader.finish(dir)?;
    watermark.purged = reader.index.purged();
    // What was read may have been written but not synced; from here on it counts.
    if let Some(segment) = &tail.segment {
        segment.sync()?;
        watermark.advance(envelope, tail.next_frame - 1)?;
    }
    Ok(Recovered {
        index: reader.index,
        segments,
        tail,
        watermark,
    })
}

struct Reader<'a> {
    envelope: &'a Envelope,
    index: Index,
    next_frame: Option<u64>,
    /// Entries up to here are absent and must turn out to be purged.
    gap_before: Option<u64>,
    synced: u64,
    segment_limit_bytes: u64,
}

impl Reader<'_> {
    /// Reads the frames of one segment; returns where they end.
    fn read_segment(&mut self, segment: &Segment, is_last: bool) -> Result<u64, LogError> {
        let bytes = self.whole(segment)?;
        let mut offset = 0;
        let mut unsynced_from = None;
        while let Some((header, body)) = frame_at(&bytes, offset) {
            if self
                .next_frame
                .is_some_and(|expected| expected != header.number)
            {
                break;
            }
            let Ok(plain) = frame::open(self.envelope, segment.id, &header, body) else {
                break;
            };
            let records = Record::decode_all(Bytes::from(plain))
                .map_err(|reason| LogError::corrupt(&segment.path, offset as u64, reason))?;
            let place = Place {
                segment: segment.id,
                offset: offset as u64,
            };
            for record in records {
                self.take(record, place)
                    .map_err(|reason| LogError::corrupt(&segment.path, offset as u64, reason))?;
            }
            if header.number > self.synced {
                unsynced_from.get_or_insert(offset);
            }
            self.next_frame = Some(header.number + 1);
            offset += header.span() as usize;
        }
        self.judge_end(segment, &bytes, offset, is_last)?;
        if let Some(from) = unsynced_from.filter(|_| is_last) {
            // After a sync that failed, the system may show from its memory what never
            // reached the disk, and sync it no more: written again, it is synced again.
            let again = bytes.get(from..offset).unwrap_or_default();
            segment.write_all_at(again, from as u64)?;
        }
        Ok(offset as u64)
    }

    /// Every byte of a segment.
    fn whole(&self, segment: &Segment) -> Result<Bytes, LogError> {
        let length = segment.len()?;
        if length > self.segment_limit_bytes {
            let limit = self.segment_limit_bytes;
            let reason = format!("the file has {length} bytes, the limit is {limit}");
            return Err(LogError::corrupt(&segment.path, limit, reason));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        segment.read_exact_at(&mut bytes, 0)?;
        Ok(Bytes::from(bytes))
    }

    /// Decides what the bytes after the last good frame are.
    fn judge_end(
        &self,
        segment: &Segment,
        bytes: &[u8],
        offset: usize,
        is_last: bool,
    ) -> Result<(), LogError> {
        let broken = |reason: String| LogError::corrupt(&segment.path, offset as u64, reason);
        let rest = bytes.get(offset..).unwrap_or_default();
        let next = self.next_frame.unwrap_or(1);
        if rest.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        if !is_last {
            return Err(broken(format!(
                "frame {next} does not open, but a newer segment is there"
            )));
        }
        if next <= self.synced {
            return Err(broken(format!(
                "frame {next} does not open, but frames up to {} were synced",
                self.synced
            )));
        }
        if let Some(later) = self.later_frame(segment, bytes, offset + ALIGN) {
            return Err(broken(format!(
                "frame {next} does not open, but frame {later} after it does"
            )));
        }
        tracing::warn!(
            file = %segment.path.display(), offset, frame = next,
            "cutting a torn write off the log; it was never acknowledged"
        );
        segment.zero_from(offset as u64)
    }

    /// The number of a frame that opens somewhere at or after `from`.
    fn later_frame(&self, segment: &Segment, bytes: &[u8], from: usize) -> Option<u64> {
        (from..bytes.len().saturating_sub(HEADER_BYTES))
            .step_by(ALIGN)
            .find_map(|offset| {
                let (header, body) = frame_at(bytes, offset)?;
                frame::open(self.envelope, segment.id, &header, body)
                    .ok()
                    .map(|_| header.number)
            })
    }

    fn take(&mut self, record: Record, place: Place) -> Result<(), String> {
        match record {
            Record::Entry(entry) => {
                let live = self.index.live();
                if live.is_empty() && entry.position.index > live.end {
                    self.gap_before = self.gap_before.max(Some(entry.position.index));
                }
                self.index.append(entry, Some(place))?;
            }
            Record::Vote(vote) => self.index.vote = Some(vote),
            Record::TruncateFrom(index) => {
                // What was above is gone anyway, wherever it had been.
                self.gap_before = self.gap_before.map(|gap| gap.min(index));
                self.index.truncate_from(index);
            }
            Record::Purge(position) => self.index.purge(position),
            Record::Committed(position) => self.index.committed = Some(position),
        }
        Ok(())
    }

    fn finish(&self, dir: &std::path::Path) -> Result<u64, LogError> {
        let next = self.next_frame.unwrap_or(1);
        if next <= self.synced {
            return Err(LogError::corrupt(
                dir,
                0,
                format!(
                    "the log ends before frame {next}, but frames up to {} were synced",
                    self.synced
                ),
            ));
        }
        let purged_next = self.index.purged().map_or(0, |purged| purged.index + 1);
        if let Some(gap) = self.gap_before.filter(|gap| *gap > purged_next) {
            return Err(LogError::corrupt(
                dir,
                0,
                format!("entries {purged_next} to {} are missing", gap - 1),
            ));
        }
        Ok(next)
    }
}

fn frame_at(bytes: &[u8], offset: usize) -> Option<(Header, &[u8])> {
    let header = bytes.get(offset..offset + HEADER_BYTES)?;
    let header = Header::parse(header.try_into().ok()?)?;
    if header.length as usize > MAX_FRAME_BYTES {
        return None;
    }
    let start = offset + HEADER_BYTES;
    let body = bytes.get(start..start.checked_add(header.length as usize)?)?;
    Some((header, body))
}
