//! The one thread that writes: batches requests into a frame, writes it, syncs it,
//! and only then tells the callers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use nautilus_machine::LogPosition;
use nautilus_store::{Drain, EnvelopeError};
use tokio::sync::mpsc;

use super::LogError;
use super::frame::{self, Header};
use super::index::Place;
use super::record::Record;
use super::segment::{self, Preparer, Segment};
use super::wal::{Shared, WalOptions, WriteFault};
use super::watermark::Watermark;

/// Plaintext bytes after which a frame takes no further request.
const BATCH_BYTES: usize = 1 << 20;

type Done = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// Records to be made durable together, and whom to tell.
pub(crate) struct Request {
    pub(crate) records: Vec<Record>,
    pub(crate) done: Option<Done>,
}

/// Where the next frame goes.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) segment: Option<Arc<Segment>>,
    pub(crate) offset: u64,
    pub(crate) capacity: u64,
    pub(crate) next_frame: u64,
    pub(crate) next_segment: u64,
}

/// The writer's state.
pub(crate) struct Flusher {
    dir: PathBuf,
    shared: Arc<Shared>,
    tail: Tail,
    preparer: Preparer,
    watermark: Watermark,
    segment_bytes: u64,
    write_fault: Option<WriteFault>,
    /// Data keys before this epoch go when nobody reads under them any more.
    retiring: Option<(u32, Drain)>,
    plain: Vec<u8>,
    out: Vec<u8>,
}

impl Flusher {
    pub(crate) fn new(
        options: &WalOptions,
        shared: Arc<Shared>,
        tail: Tail,
        watermark: Watermark,
    ) -> Result<Self, LogError> {
        Ok(Self {
            dir: options.dir.clone(),
            shared,
            tail,
            preparer: Preparer::start(&options.dir, options.segment_bytes)?,
            watermark,
            segment_bytes: options.segment_bytes,
            write_fault: options.write_fault.clone(),
            retiring: None,
            plain: Vec::with_capacity(BATCH_BYTES),
            out: Vec::with_capacity(BATCH_BYTES),
        })
    }

    fn flush(&mut self, batch: &[Request]) -> Result<(), LogError> {
        let mut records: Vec<&Record> = batch.iter().flat_map(|request| &request.records).collect();
        let committed = self.shared.index.lock().committed.map(Record::Committed);
        records.extend(committed.as_ref());
        let size: usize = records.iter().map(|record| record.encoded_len()).sum();
        if frame::frame_bytes(size) > frame::MAX_FRAME_BYTES {
            return Err(LogError::Stopped(format!(
                "a batch of {size} bytes is over the limit"
            )));
        }
        let place = self.write(&records, size)?;
        self.settle(&records, place);
        self.drop_purged_segments()?;
        self.retire_keys()
    }

    /// Writes and syncs one frame, in a new segment where the present one is full.
    fn write(&mut self, records: &[&Record], size: usize) -> Result<Place, LogError> {
        self.out.clear();
        let full = self.tail.offset + frame::frame_bytes(size) as u64 > self.tail.capacity;
        let asked = self.shared.roll_asked.swap(false, Ordering::AcqRel);
        if self.tail.segment.is_none() || asked || (full && self.tail.offset > 0) {
            self.roll()?;
        }
        if self.tail.offset == 0 {
            // The vote and the marks are carried into every segment, so that older ones can go.
            let carried = self.carried();
            self.encode(&carried.iter().collect::<Vec<_>>(), 0)?;
        }
        let first_index = records.iter().find_map(|record| match record {
            Record::Entry(entry) => Some(entry.position.index),
            _ => None,
        });
        let frame_start = self.out.len() as u64;
        self.encode(records, first_index.unwrap_or(0))?;
        let segment = self.current()?;
        let place = Place {
            segment: segment.id,
            offset: self.tail.offset + frame_start,
        };
        if let Some(error) = self
            .write_fault
            .as_ref()
            .and_then(|fault| fault(self.out.len()))
        {
            return Err(LogError::io("writing", &segment.path, &error));
        }
        segment.write_all_at(&self.out, self.tail.offset)?;
        let started = Instant::now();
        segment.sync()?;
        metrics::histogram!("nautilus_wal_fsync_duration_seconds").record(started.elapsed());
        self.tail.offset += self.out.len() as u64;
        self.watermark
            .advance(&self.shared.envelope, self.tail.next_frame - 1)?;
        Ok(place)
    }

    fn encode(&mut self, records: &[&Record], first_index: u64) -> Result<(), LogError> {
        self.plain.clear();
        for record in records {
            record.encode(&mut self.plain);
        }
        let segment = self.current()?;
        let header = Header {
            length: 0,
            number: self.tail.next_frame,
            first_index,
        };
        frame::seal(
            &self.shared.envelope,
            segment.id,
            &header,
            &self.plain,
            &mut self.out,
        )
        .map_err(|reason| LogError::Stopped(format!("sealing a frame: {reason}")))?;
        self.tail.next_frame += 1;
        Ok(())
    }

    fn current(&self) -> Result<Arc<Segment>, LogError> {
        let current = self.tail.segment.as_ref().map(Arc::clone);
        current.ok_or_else(|| LogError::Stopped("no segment is open".into()))
    }

    fn roll(&mut self) -> Result<(), LogError> {
        let epoch = self
            .shared
            .envelope
            .renew()
            .map_err(|error| keys_failed(&error))?;
        let segment = Arc::new(self.preparer.take(self.tail.next_segment, epoch)?);
        self.shared
            .segments
            .lock()
            .insert(segment.id, Arc::clone(&segment));
        self.tail.next_segment += 1;
        self.tail.segment = Some(segment);
        self.tail.offset = 0;
        self.tail.capacity = self.segment_bytes;
        Ok(())
    }

    fn carried(&self) -> Vec<Record> {
        let index = self.shared.index.lock();
        let purged = self.watermark_purge(index.purged());
        [
            index.vote.map(Record::Vote),
            purged.map(Record::Purge),
            index.committed.map(Record::Committed),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// A purge is only carried once its own record is durable; what memory already
    /// knows may still wait in the queue, behind entries it covers.
    fn watermark_purge(&self, purged: Option<LogPosition>) -> Option<LogPosition> {
        self.watermark.purged.min(purged)
    }

    fn settle(&mut self, records: &[&Record], place: Place) {
        let mut index = self.shared.index.lock();
        for record in records {
            match record {
                Record::Entry(entry) => index.settle(entry.position, place),
                Record::Purge(position) => {
                    self.watermark.purged = self.watermark.purged.max(Some(*position));
                }
                Record::Vote(vote) => index.vote = Some(*vote),
                Record::TruncateFrom(_) => {
                    index.truncations_pending = index.truncations_pending.saturating_sub(1);
                }
                Record::Committed(_) => {}
            }
        }
        index.evict();
    }

    /// Destroys the data keys that no segment needs any more, once nobody reads under
    /// them. The watermark is durable under a later one first.
    fn retire_keys(&mut self) -> Result<(), LogError> {
        let envelope = &self.shared.envelope;
        if self.retiring.is_none() {
            let needed = {
                let segments = self.shared.segments.lock();
                segments.values().map(|segment| segment.first_epoch).min()
            };
            let Some(needed) = needed.filter(|needed| *needed > envelope.oldest_epoch()) else {
                return Ok(());
            };
            self.retiring = Some((needed, envelope.drain()));
        }
        if let Some((epoch, readers)) = &self.retiring
            && readers.is_over()
        {
            self.watermark.sync()?;
            envelope
                .retire_before(*epoch)
                .map_err(|error| keys_failed(&error))?;
            self.retiring = None;
        }
        Ok(())
    }

    /// Removes the oldest segments that hold nothing but purged entries. Not before
    /// the record that explains the gap is durable: memory may be ahead of the disk,
    /// and after a crash the gap alone would look like a loss.
    fn drop_purged_segments(&self) -> Result<(), LogError> {
        let current = self.current()?.id;
        let keep_from = {
            let index = self.shared.index.lock();
            if index.purged() > self.watermark.purged || index.truncations_pending > 0 {
                return Ok(());
            }
            if index.live().is_empty() {
                Some(current)
            } else {
                index.oldest_segment()
            }
        };
        let Some(keep_from) = keep_from.map(|id| id.min(current)) else {
            return Ok(());
        };
        loop {
            let oldest = {
                let mut segments = self.shared.segments.lock();
                match segments.first_entry() {
                    Some(entry) if *entry.key() < keep_from => entry.remove(),
                    _ => return Ok(()),
                }
            };
            segment::remove(&oldest.path)?;
            // The order of removals must survive a crash, or a gap would look like a loss.
            segment::sync_dir(&self.dir)?;
        }
    }
}

fn keys_failed(error: &EnvelopeError) -> LogError {
    LogError::Keys(error.to_string())
}

/// Serves requests until the log is closed or a write fails.
pub(crate) fn run(mut flusher: Flusher, mut requests: mpsc::Receiver<Request>) {
    while let Some(first) = requests.blocking_recv() {
        let mut size: usize = first.records.iter().map(Record::encoded_len).sum();
        let mut batch = vec![first];
        while size < BATCH_BYTES
            && let Ok(next) = requests.try_recv()
        {
            size += next.records.iter().map(Record::encoded_len).sum::<usize>();
            batch.push(next);
        }
        let result = flusher.flush(&batch);
        if let Err(error) = &result {
            tracing::error!(%error, "the log stopped; nothing is acknowledged any more");
            *flusher.shared.failed.lock() = Some(error.clone());
        }
        for done in batch.into_iter().filter_map(|request| request.done) {
            done(result.clone());
        }
        if let Err(error) = result {
            refuse_rest(requests, &error);
            return;
        }
    }
}

fn refuse_rest(mut requests: mpsc::Receiver<Request>, error: &LogError) {
    requests.close();
    while let Some(request) = requests.blocking_recv() {
        if let Some(done) = request.done {
            done(Err(error.clone()));
        }
    }
}
