//! The machine: applies entries to the index, the leases and a batch of rows.
//!
//! Invariants
//! - What is in memory and what the rows hold (with the batch written) say the same;
//!   [`Machine::restore`] of the rows gives the same machine.
//! - After an error of [`Machine::apply`] the machine must not be used again: it may
//!   have taken part of an entry. (A refusal is not an error.)
//! - A refused entry changes nothing but the note of the last position and time.

use crate::command::{Command, Entry};
use crate::digest::{DigestKey, RowSum};
use crate::encoding::{
    Change, CountersRow, MACHINE_ROW, Place, Stamp, encode_change, encode_counters, encode_lease,
    lease_row_key,
};
use crate::index::KeyIndex;
use crate::lease::{LeaseView, Leases};
use crate::ledger::prove::{LedgerView, leaf_of};
use crate::ledger::tiles::Ledger;
use crate::load::Piece;
use crate::locate::Located;
use crate::outcome::{Applied, Outcome, Refusal};
use crate::port::RangeError;
use crate::read::{Sight, check_revision};
use crate::rows::{RowBatch, RowError, Rows, Space};
use crate::txn;
use crate::types::{Digest, LeaseId, LogPosition, RangeRequest, Revision, UnixMillis};
use crate::write::{Edit, Events};

/// Why the machine could not go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MachineError {
    /// A row could not be read, or does not hold what it must.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The rows as a whole are not those that the machine wrote.
    #[error("the rows are not those that were written: {0}")]
    Rows(String),
    /// The entry was applied already, or comes too early.
    #[error("entry {} was given after entry {}", .position.index, .applied.index)]
    OutOfOrder {
        /// The entry given.
        position: LogPosition,
        /// The last one applied.
        applied: LogPosition,
    },
}

/// The replicated state machine.
pub struct Machine {
    key: DigestKey,
    index: KeyIndex,
    leases: Leases,
    revision: Revision,
    compacted: Revision,
    time: UnixMillis,
    applied: Option<LogPosition>,
    checkpoint: Option<(LogPosition, Digest)>,
    version_rows: u64,
    /// A restore is under way: nothing else is written.
    loading: bool,
    sums: Sums,
    ledger: Ledger,
}

/// The sums of the rows' terms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Of the version rows that are there.
    pub(crate) versions: RowSum,
    /// Of the leases' rows.
    pub(crate) leases: RowSum,
    /// Of every version row ever written: what was written since a checkpoint of the
    /// index is known by the difference.
    pub(crate) written: RowSum,
}

impl Machine {
    /// The empty store, at revision 1.
    pub fn new(key: DigestKey) -> Self {
        Self {
            key,
            index: KeyIndex::default(),
            leases: Leases::default(),
            revision: 1,
            compacted: 0,
            time: UnixMillis(0),
            applied: None,
            checkpoint: None,
            version_rows: 0,
            loading: false,
            sums: Sums::default(),
            ledger: Ledger::default(),
        }
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The revision of the last compaction, the oldest that can be read; 0 before it.
    pub fn compacted_revision(&self) -> Revision {
        self.compacted
    }

    /// The digest of keys, versions, leases and the ledger; the time, the position and the
    /// checkpoint's note are not part of it.
    pub fn digest(&self) -> Digest {
        let counters = [
            self.revision,
            self.compacted,
            u64::from(self.loading),
            self.version_rows,
            self.leases.len(),
            self.ledger.size(),
        ];
        let sums = [&self.sums.versions, &self.sums.leases, self.ledger.sum()];
        self.key.state(sums, &self.ledger.root(), &counters)
    }

    /// The ledger as it is now, to make proofs of it with the rows.
    pub fn ledger(&self) -> LedgerView {
        let term = self.applied.map_or(0, |applied| applied.term);
        let (revision, compacted) = (self.revision, self.compacted);
        LedgerView::of(&self.ledger, self.key.clone(), term, revision, compacted)
    }

    /// The last checkpoint: where, and the digest there.
    pub fn checkpoint(&self) -> Option<(LogPosition, Digest)> {
        self.checkpoint
    }

    /// The last entry applied.
    pub fn applied(&self) -> Option<LogPosition> {
        self.applied
    }

    /// The time of the last entry applied.
    pub fn time(&self) -> UnixMillis {
        self.time
    }

    /// One lease.
    pub fn lease(&self, id: LeaseId) -> Option<LeaseView> {
        self.leases.view(id)
    }

    /// Every lease's id and time to live in milliseconds, in order of ids.
    pub fn lease_times(&self) -> Vec<(LeaseId, u64)> {
        self.leases.times().collect()
    }

    /// The ids of all leases, in order.
    pub fn lease_ids(&self) -> Vec<LeaseId> {
        self.leases.ids().collect()
    }

    /// Looks up a range in the index; the rows are read by [`Located::read`].
    pub fn locate(&self, request: &RangeRequest) -> Result<Located, RangeError> {
        check_revision(request.revision, self.revision, self.compacted)?;
        Ok(Located::look_up(&self.index, request, self.revision))
    }

    /// How many keys the index has, deleted ones that are not compacted included.
    pub fn index_keys(&self) -> u64 {
        self.index.keys()
    }

    /// How many version rows there are.
    pub fn version_rows(&self) -> u64 {
        self.version_rows
    }

    /// The memory that the index takes, in bytes.
    pub fn index_memory_bytes(&self) -> u64 {
        self.index.memory_bytes()
    }

    /// Whether a restore is under way, which only [`Command::Load`] goes on with.
    pub fn is_loading(&self) -> bool {
        self.loading
    }

    /// The machine's own row as it stands after the last entry: to be written with
    /// every batch. An empty store has one too, so that a row that is missing is
    /// always an error.
    pub fn write_counters(&self, batch: &mut RowBatch) -> Result<(), MachineError> {
        let counters = encode_counters(&self.counters())?;
        batch.put(Space::Meta, MACHINE_ROW, counters);
        Ok(())
    }

    /// Applies one entry. Reads see the earlier writes of `batch`, which must be
    /// written, whole and with [the machine's own row](Self::write_counters), before
    /// `rows` is asked again.
    pub fn apply(
        &mut self,
        position: LogPosition,
        entry: &Entry,
        rows: &dyn Rows,
        batch: &mut RowBatch,
    ) -> Result<Applied, MachineError> {
        if let Some(applied) = self.applied
            && (position.index <= applied.index || position.term < applied.term)
        {
            return Err(MachineError::OutOfOrder { position, applied });
        }
        let time = self.time.max(entry.time);
        let guard = entry.proposal.guard_term.unwrap_or(position.term);
        let (outcome, events) = if guard == position.term {
            self.run(position, &entry.proposal.command, rows, batch)?
        } else {
            let refusal = Refusal::Fenced {
                expected: guard,
                actual: position.term,
            };
            (Outcome::Refused(refusal), Events::default())
        };
        self.applied = Some(position);
        self.time = time;
        Ok(Applied {
            position,
            time,
            revision: self.revision,
            outcome,
            events: events.events,
            previous: events.previous,
        })
    }

    fn run(
        &mut self,
        position: LogPosition,
        command: &Command,
        rows: &dyn Rows,
        batch: &mut RowBatch,
    ) -> Result<Done, MachineError> {
        if self.loading && writes_keys(command) {
            return quiet(Outcome::Refused(Refusal::Loading));
        }
        match command {
            Command::Txn(txn) => self.run_txn(position, txn, rows, batch),
            Command::LeaseGrant { id, ttl_ms } => quiet(self.grant(*id, *ttl_ms, batch)),
            Command::LeaseRevoke { id } => {
                if self.leases.get(*id).is_none() {
                    return quiet(Outcome::Refused(Refusal::LeaseNotFound));
                }
                self.end_leases(position, &[*id], rows, batch)
            }
            Command::ExpireLeases { ids } => self.end_leases(position, ids, rows, batch),
            Command::Compact { revision } => quiet(self.compact(*revision, rows, batch)?),
            Command::CompactStep => {
                self.sweep(rows, batch)?;
                quiet(Outcome::Done)
            }
            Command::Load { kvs, leases, last } => {
                let piece = Piece {
                    kvs,
                    leases,
                    last: *last,
                };
                quiet(self.load(position, piece, rows, batch)?)
            }
            Command::Checkpoint { .. } => {
                let digest = self.digest();
                let previous = self.checkpoint.replace((position, digest));
                quiet(Outcome::Checkpoint { digest, previous })
            }
        }
    }

    fn run_txn(
        &mut self,
        position: LogPosition,
        txn: &crate::command::Txn,
        rows: &dyn Rows,
        batch: &mut RowBatch,
    ) -> Result<Done, MachineError> {
        let sight = Sight {
            rows,
            batch: Some(batch),
        };
        let path = match txn::plan(self, sight, txn)? {
            Ok(path) => path,
            Err(refusal) => return quiet(Outcome::Refused(refusal)),
        };
        let mut edit = Edit::begin(self, position, rows, batch);
        let results = edit.run(&path)?;
        let events = edit.commit();
        let succeeded = path.succeeded;
        Ok((Outcome::Txn { succeeded, results }, events))
    }

    fn grant(&mut self, id: LeaseId, ttl_ms: u64, batch: &mut RowBatch) -> Outcome {
        if id.0 == 0 || ttl_ms == 0 {
            return Outcome::Refused(Refusal::LeaseInvalid);
        }
        if self.leases.get(id).is_some() {
            return Outcome::Refused(Refusal::LeaseExists);
        }
        self.add_lease(id, ttl_ms, batch);
        Outcome::Lease { id, ttl_ms }
    }

    /// Ends those of the leases that live, and deletes their keys, in one revision.
    fn end_leases(
        &mut self,
        position: LogPosition,
        ids: &[LeaseId],
        rows: &dyn Rows,
        batch: &mut RowBatch,
    ) -> Result<Done, MachineError> {
        let mut ended = Vec::with_capacity(ids.len());
        let mut keys = Vec::new();
        for id in ids {
            let Some(lease) = self.leases.take_keys(*id) else {
                continue;
            };
            let key = lease_row_key(*id);
            let row = encode_lease(lease.ttl_ms);
            self.sums
                .leases
                .remove(&self.key.row(Space::Lease, &key, &row));
            batch.delete(Space::Lease, &key);
            keys.extend(lease.keys);
            ended.push(*id);
        }
        let mut edit = Edit::begin(self, position, rows, batch);
        for key in &keys {
            edit.delete(key);
        }
        let events = edit.commit();
        Ok((Outcome::LeasesEnded(ended), events))
    }
}

/// What a command did.
type Done = (Outcome, Events);

fn quiet(outcome: Outcome) -> Result<Done, MachineError> {
    Ok((outcome, Events::default()))
}

/// Whether a restore in progress keeps the command out.
fn writes_keys(command: &Command) -> bool {
    match command {
        Command::Txn(_)
        | Command::LeaseGrant { .. }
        | Command::LeaseRevoke { .. }
        | Command::ExpireLeases { .. }
        | Command::Compact { .. }
        | Command::CompactStep => true,
        Command::Load { .. } | Command::Checkpoint { .. } => false,
    }
}

/// For the machine's other files.
impl Machine {
    pub(crate) fn from_parts(
        key: DigestKey,
        index: KeyIndex,
        leases: Leases,
        ledger: Ledger,
        counters: &CountersRow,
    ) -> Self {
        Self {
            key,
            index,
            leases,
            revision: counters.revision,
            compacted: counters.compacted,
            time: counters.time,
            applied: counters.applied,
            checkpoint: counters.checkpoint,
            version_rows: counters.version_rows,
            loading: counters.loading,
            sums: counters.sums(),
            ledger,
        }
    }

    pub(crate) fn counters(&self) -> CountersRow {
        CountersRow {
            revision: self.revision,
            compacted: self.compacted,
            time: self.time,
            loading: self.loading,
            applied: self.applied,
            checkpoint: self.checkpoint,
            version_rows: self.version_rows,
            lease_rows: self.leases.len(),
            version_sum: self.sums.versions.to_bytes(),
            lease_sum: self.sums.leases.to_bytes(),
            written_sum: self.sums.written.to_bytes(),
            ledger: self.ledger.note(),
        }
    }

    pub(crate) fn index(&self) -> &KeyIndex {
        &self.index
    }

    pub(crate) fn index_mut(&mut self) -> &mut KeyIndex {
        &mut self.index
    }

    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    pub(crate) fn leases_mut(&mut self) -> &mut Leases {
        &mut self.leases
    }

    pub(crate) fn take_revision(&mut self, revision: Revision) {
        assert_eq!(
            revision,
            self.revision + 1,
            "a revision is given once, in order"
        );
        self.revision = revision;
    }

    /// Notes how far a compaction goes.
    pub(crate) fn set_compacted(&mut self, revision: Revision) {
        assert!(
            self.compacted < revision && revision <= self.revision,
            "a compaction goes forward, and not beyond the present"
        );
        self.compacted = revision;
    }

    /// Begins a restore, or ends it at a revision.
    pub(crate) fn set_loading(&mut self, last: Option<Revision>) {
        self.loading = last.is_none();
        if let Some(revision) = last {
            self.revision = revision;
            self.compacted = revision;
        }
    }

    /// Adds a lease that does not live.
    pub(crate) fn add_lease(&mut self, id: LeaseId, ttl_ms: u64, batch: &mut RowBatch) {
        self.leases.insert(id, ttl_ms);
        let (key, row) = (lease_row_key(id), encode_lease(ttl_ms));
        self.sums
            .leases
            .add(&self.key.row(Space::Lease, &key, &row));
        batch.put(Space::Lease, &key, row);
    }

    /// Writes the row of a change, whose leaf extends the ledger.
    pub(crate) fn write_version(
        &mut self,
        place: Place,
        change: &Change,
        mut stamp: Stamp,
        batch: &mut RowBatch,
    ) {
        let leaf = leaf_of(&self.key, place, change, &stamp);
        stamp.leaf = self.ledger.append(&self.key, leaf.hash(), batch);
        let (key, row) = (place.row_key(), encode_change(change, stamp));
        let term = self.key.row(Space::Revision, &key, &row);
        self.sums.versions.add(&term);
        self.sums.written.add(&term);
        self.version_rows += 1;
        batch.put(Space::Revision, &key, row);
    }

    /// Deletes the row of a version, whose bytes and leaf are given.
    pub(crate) fn delete_version(
        &mut self,
        place: Place,
        row: &[u8],
        leaf: u64,
        rows: &dyn Rows,
        batch: &mut RowBatch,
    ) -> Result<(), RowError> {
        let key = place.row_key();
        let term = self.key.row(Space::Revision, &key, row);
        self.sums.versions.remove(&term);
        self.version_rows -= 1;
        batch.delete(Space::Revision, &key);
        self.ledger.forget(&self.key, leaf, rows, batch)
    }
}
