//! openraft's log, over ours.

use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use crate::log::{Wal, WalReader};
use crate::restart::Lives;
use crate::telemetry;
use crate::types::{
    LogId, Payload, RaftEntry, TypeConfig, Vote, hard_vote, log_id, position, raft_entry,
    raft_vote, raw_entry,
};

/// Bytes of entries one append to a follower carries at most.
const APPEND_BYTES: usize = 1 << 20;

/// The log as openraft writes it.
pub(crate) struct LogStorage {
    wal: Arc<Wal>,
    reader: LogReader,
    lives: Arc<Lives>,
}

impl LogStorage {
    pub(crate) fn new(wal: Arc<Wal>, lives: Arc<Lives>) -> Self {
        let reader = LogReader(wal.reader());
        Self { wal, reader, lives }
    }

    /// Whom an entry outlives is refused before the entry is acknowledged.
    fn hear_lives(&self, entry: &RaftEntry) {
        if let Payload::Membership(membership) = &entry.payload {
            for (id, info) in membership.nodes() {
                // An elder one in the entry is no news.
                let _ = self.lives.hear(*id, info.incarnation);
            }
        }
    }
}

/// The log as openraft reads it.
#[derive(Clone)]
pub(crate) struct LogReader(WalReader);

impl LogReader {
    fn read(&self, range: std::ops::Range<u64>, max_bytes: usize) -> io::Result<Vec<RaftEntry>> {
        let entries = self.0.read(range, max_bytes)?;
        let decoded = entries
            .into_iter()
            .map(raft_entry)
            .collect::<Result<_, _>>();
        decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + std::fmt::Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<RaftEntry>> {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start..end, usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.0.vote().map(raft_vote))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<RaftEntry>> {
        let entries = self.read(start..end, APPEND_BYTES)?;
        // Purged meanwhile: entries from further on would be a hole in a follower's log.
        let whole = entries
            .first()
            .is_some_and(|first| first.log_id.index == start);
        Ok(if whole { entries } else { Vec::new() })
    }
}

impl RaftLogStorage<TypeConfig> for LogStorage {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let (purged, last) = self.reader.0.bounds();
        Ok(LogState {
            last_purged_log_id: purged.map(log_id),
            last_log_id: last.map(log_id),
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        Ok(self.wal.save_vote(hard_vote(vote)).await?)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.wal.save_committed(committed.as_ref().map(position));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        // What was committed beyond the entries that survived is not there to be applied.
        let last = self.reader.0.bounds().1;
        Ok(self.reader.0.committed().min(last).map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Result<Vec<_>, _> = entries
            .into_iter()
            .map(|entry| {
                self.hear_lives(&entry);
                raw_entry(&entry)
            })
            .collect();
        let entries =
            entries.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let spans: Vec<_> = entries.iter().filter_map(telemetry::append_span).collect();
        let done = move |result: Result<(), crate::log::LogError>| {
            drop(spans);
            callback.io_completed(result.map_err(io::Error::from));
        };
        Ok(self.wal.append(entries, done).await?)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |id| id.index + 1);
        Ok(self.wal.truncate_from(from).await?)
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        Ok(self.wal.purge(position(&upto)).await?)
    }
}
