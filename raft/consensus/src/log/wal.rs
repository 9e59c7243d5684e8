//! The log's face: append, vote, truncate, purge, read.
//!
//! Memory is changed at once, in the caller's order; the flusher thread makes it
//! durable in the same order. Callers are serialized by the caller (one Raft core).

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use bytes::Bytes;
use nautilus_machine::LogPosition;
use nautilus_store::Envelope;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::LogError;
use super::flusher::{self, Flusher, Request};
use super::frame;
use super::index::{Found, Index, Place};
use super::record::{HardVote, RawEntry, Record};
use super::recovery;
use super::segment::Segment;

/// Requests that may wait for the flusher before an append has to wait itself.
const QUEUE_REQUESTS: usize = 4096;
/// Encoded bytes of one request's entries: an append of more goes in pieces, so that
/// no frame comes near [`frame::MAX_FRAME_BYTES`], whatever was proposed together.
const REQUEST_BYTES: usize = 8 << 20;

/// Decides whether a write fails, for tests: called with the bytes about to be written.
pub(crate) type WriteFault = Arc<dyn Fn(usize) -> Option<std::io::Error> + Send + Sync>;

/// How to open a log.
#[derive(Clone)]
pub(crate) struct WalOptions {
    /// The log's own directory.
    pub(crate) dir: PathBuf,
    /// Bytes preallocated per segment.
    pub(crate) segment_bytes: u64,
    /// Bytes of entries kept in memory, those not yet on disk apart.
    pub(crate) cache_bytes: usize,
    /// Lets tests fail a write.
    pub(crate) write_fault: Option<WriteFault>,
}

/// What the flusher and the readers share.
pub(crate) struct Shared {
    pub(crate) index: Mutex<Index>,
    pub(crate) segments: Mutex<BTreeMap<u64, Arc<Segment>>>,
    pub(crate) envelope: Envelope,
    pub(crate) failed: Mutex<Option<LogError>>,
    /// The next frame begins a segment, and with it a data key.
    pub(crate) roll_asked: AtomicBool,
}

/// The open log.
pub(crate) struct Wal {
    shared: Arc<Shared>,
    queue: Option<mpsc::Sender<Request>>,
    flusher: Option<JoinHandle<()>>,
}

impl Wal {
    /// Recovers the log in `options.dir`, or starts an empty one.
    pub(crate) fn open(options: &WalOptions, envelope: Envelope) -> Result<Self, LogError> {
        std::fs::create_dir_all(&options.dir)
            .map_err(|error| LogError::io("creating", &options.dir, &error))?;
        let recovered = recovery::recover(options, &envelope)?;
        let shared = Arc::new(Shared {
            index: Mutex::new(recovered.index),
            segments: Mutex::new(recovered.segments),
            envelope,
            failed: Mutex::new(None),
            roll_asked: AtomicBool::new(false),
        });
        let flusher = Flusher::new(
            options,
            Arc::clone(&shared),
            recovered.tail,
            recovered.watermark,
        )?;
        let (queue, requests) = mpsc::channel(QUEUE_REQUESTS);
        let thread = std::thread::Builder::new()
            .name("log-flush".into())
            .spawn(move || flusher::run(flusher, requests))
            .map_err(|error| LogError::io("starting a thread for", &options.dir, &error))?;
        Ok(Self {
            shared,
            queue: Some(queue),
            flusher: Some(thread),
        })
    }

    /// A second handle for reading.
    pub(crate) fn reader(&self) -> WalReader {
        WalReader {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Adds `entries`; they can be read when this returns, and are durable when
    /// `done` is called.
    pub(crate) async fn append(
        &self,
        entries: Vec<RawEntry>,
        done: impl FnOnce(Result<(), LogError>) + Send + 'static,
    ) -> Result<(), LogError> {
        self.check()?;
        {
            let mut index = self.shared.index.lock();
            for entry in &entries {
                index
                    .append(entry.clone(), None)
                    .map_err(LogError::Stopped)?;
            }
        }
        // The queue is served in order and a failure is final: when the last piece is
        // durable, all are.
        let (pieces, last) = in_pieces(entries);
        for records in pieces {
            self.send(Request {
                records,
                done: None,
            })
            .await?;
        }
        self.send(Request {
            records: last,
            done: Some(Box::new(done)),
        })
        .await
    }

    /// Durable when this returns.
    pub(crate) async fn save_vote(&self, vote: HardVote) -> Result<(), LogError> {
        self.check()?;
        // The flusher puts it into memory, before it can write another frame: a segment
        // that begins then must carry this vote, not the one before.
        self.write_through(Record::Vote(vote)).await
    }

    /// Forgets every entry from `index` on; durable when this returns.
    pub(crate) async fn truncate_from(&self, index: u64) -> Result<(), LogError> {
        self.check()?;
        {
            let mut memory = self.shared.index.lock();
            memory.truncate_from(index);
            memory.truncations_pending += 1;
        }
        self.write_through(Record::TruncateFrom(index)).await
    }

    /// Forgets every entry up to `upto`; segments go once the mark is durable.
    pub(crate) async fn purge(&self, upto: LogPosition) -> Result<(), LogError> {
        self.check()?;
        self.shared.index.lock().purge(upto);
        self.write_through(Record::Purge(upto)).await
    }

    /// Notes what is committed; written with the next frame, never synced for itself.
    pub(crate) fn save_committed(&self, position: Option<LogPosition>) {
        self.shared.index.lock().committed = position;
    }

    /// Stops the flusher after everything queued is durable.
    pub(crate) fn close(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.flusher.take() {
            // A panic there was already reported by its own message.
            let _ = thread.join();
        }
    }

    async fn write_through(&self, record: Record) -> Result<(), LogError> {
        let (sender, receiver) = oneshot::channel();
        let done = move |result| {
            // The caller may have gone; the record is durable all the same.
            let _ = sender.send(result);
        };
        self.send(Request {
            records: vec![record],
            done: Some(Box::new(done)),
        })
        .await?;
        receiver.await.map_err(|_| self.stopped())?
    }

    async fn send(&self, request: Request) -> Result<(), LogError> {
        let queue = self.queue.as_ref().ok_or_else(|| self.stopped())?;
        queue.send(request).await.map_err(|_| self.stopped())
    }

    fn check(&self) -> Result<(), LogError> {
        match self.shared.failed.lock().as_ref() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn stopped(&self) -> LogError {
        let failed = self.shared.failed.lock().clone();
        failed.unwrap_or_else(|| LogError::Stopped("the log is closed".into()))
    }
}

/// The last piece apart from those before it; each is under the limit or one entry.
fn in_pieces(entries: Vec<RawEntry>) -> (Vec<Vec<Record>>, Vec<Record>) {
    let (mut pieces, mut piece, mut size) = (Vec::new(), Vec::new(), 0);
    for record in entries.into_iter().map(Record::Entry) {
        let length = record.encoded_len();
        if size > 0 && size + length > REQUEST_BYTES {
            pieces.push(std::mem::take(&mut piece));
            size = 0;
        }
        size += length;
        piece.push(record);
    }
    (pieces, piece)
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.close();
    }
}

/// Reads the log from any task.
#[derive(Clone)]
pub(crate) struct WalReader {
    pub(super) shared: Arc<Shared>,
}

impl WalReader {
    /// What the log holds: purge mark and last entry.
    pub(crate) fn bounds(&self) -> (Option<LogPosition>, Option<LogPosition>) {
        let index = self.shared.index.lock();
        (index.purged(), index.last())
    }

    pub(crate) fn vote(&self) -> Option<HardVote> {
        self.shared.index.lock().vote
    }

    pub(crate) fn committed(&self) -> Option<LogPosition> {
        self.shared.index.lock().committed
    }

    /// The indexes that can be read.
    #[cfg(test)]
    pub(crate) fn live(&self) -> Range<u64> {
        self.shared.index.lock().live()
    }

    /// The entries of `range`, cut after `max_bytes` (but never before the first).
    /// Reads from disk block for a frame's length.
    pub(crate) fn read(
        &self,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<RawEntry>, LogError> {
        let (first, found) = self.shared.index.lock().find(&range);
        let mut entries = Vec::with_capacity(found.len());
        let mut bytes = 0;
        let mut frame: Option<(Place, Vec<Record>)> = None;
        for (index, found) in (first..).zip(found) {
            let entry = match found {
                Found::Cached(entry) => entry,
                Found::At(place) => {
                    if frame.as_ref().map(|(at, _)| *at) != Some(place) {
                        frame = Some((place, self.read_frame(place)?));
                    }
                    let records = frame.as_ref().map_or(&[][..], |(_, records)| &records[..]);
                    self.pick(records, index, place)?
                }
            };
            bytes += entry.body.len();
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn read_frame(&self, place: Place) -> Result<Vec<Record>, LogError> {
        let _reading = self.shared.envelope.reading();
        let segment = self.shared.segments.lock().get(&place.segment).cloned();
        let segment = segment
            .ok_or_else(|| LogError::Stopped(format!("segment {} is gone", place.segment)))?;
        let mut header = [0; frame::HEADER_BYTES];
        segment.read_exact_at(&mut header, place.offset)?;
        let broken = |reason: String| LogError::corrupt(&segment.path, place.offset, reason);
        let parsed = frame::Header::parse(&header).ok_or_else(|| broken("not a frame".into()))?;
        if parsed.length as usize > frame::MAX_FRAME_BYTES {
            return Err(broken(format!("a frame of {} bytes", parsed.length)));
        }
        let mut body = vec![0; parsed.length as usize];
        segment.read_exact_at(&mut body, place.offset + frame::HEADER_BYTES as u64)?;
        let plain =
            frame::open(&self.shared.envelope, segment.id, &parsed, &body).map_err(broken)?;
        Record::decode_all(Bytes::from(plain)).map_err(broken)
    }

    fn pick(&self, records: &[Record], index: u64, place: Place) -> Result<RawEntry, LogError> {
        let entry = records.iter().find_map(|record| match record {
            Record::Entry(entry) if entry.position.index == index => Some(entry.clone()),
            _ => None,
        });
        entry.ok_or_else(|| {
            let path = self
                .shared
                .segments
                .lock()
                .get(&place.segment)
                .map(|s| s.path.clone());
            LogError::corrupt(
                path.unwrap_or_default(),
                place.offset,
                format!("the frame does not hold entry {index}"),
            )
        })
    }
}
