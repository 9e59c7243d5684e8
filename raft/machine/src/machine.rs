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
use crate::encoding::{CountersRow, MACHINE_ROW, encode_counters, encode_lease, lease_row_key};
use crate::index::KeyIndex;
use crate::lease::{LeaseView, Leases};
use crate::outcome::{Applied, Outcome, Refusal};
use crate::port::RangeError;
use crate::read::{Located, Sight, check_revision, missing};
use crate::rows::{RowBatch, RowError, Rows, Space};
use crate::txn;
use crate::types::{Digest, LeaseId, LogPosition, RangeRequest, Revision, UnixMillis};
use crate::write::Edit;

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
    row_sum: RowSum,
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
            row_sum: RowSum::default(),
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

    /// The digest of keys, versions and leases; the time, the position and the
    /// checkpoint's note are not part of it.
    pub fn digest(&self) -> Digest {
        let counters = [
            self.revision,
            self.compacted,
            self.leases.extended().0,
            self.version_rows,
            self.leases.len(),
        ];
        self.key.state(&self.row_sum, &counters)
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

    /// The earliest deadline of a lease: once it has passed, propose
    /// [`Command::ExpireLeases`].
    pub fn next_lease_deadline(&self) -> Option<UnixMillis> {
        self.leases.next_deadline()
    }

    /// One lease.
    pub fn lease(&self, id: LeaseId) -> Option<LeaseView> {
        self.leases.view(id)
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

    /// The machine's own row as it stands after the last entry. An empty store has
    /// one too, so that a row that is missing is always an error.
    pub fn write_counters(&self, batch: &mut RowBatch) -> Result<(), MachineError> {
        let counters = CountersRow {
            revision: self.revision,
            compacted: self.compacted,
            time: self.time,
            leases_extended: self.leases.extended(),
            applied: self.applied,
            checkpoint: self.checkpoint,
            version_rows: self.version_rows,
            lease_rows: self.leases.len(),
            row_sum: self.row_sum.to_bytes(),
        };
        batch.put(Space::Meta, MACHINE_ROW, encode_counters(&counters)?);
        Ok(())
    }

    /// Applies one entry. Reads see the earlier writes of `batch`, which must be
    /// written, whole, before `rows` is asked again.
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
            self.run(position, time, &entry.proposal.command, rows, batch)?
        } else {
            let refusal = Refusal::Fenced {
                expected: guard,
                actual: position.term,
            };
            (Outcome::Refused(refusal), Vec::new())
        };
        self.applied = Some(position);
        self.time = time;
        self.write_counters(batch)?;
        Ok(Applied {
            position,
            time,
            revision: self.revision,
            outcome,
            events,
        })
    }

    fn run(
        &mut self,
        position: LogPosition,
        time: UnixMillis,
        command: &Command,
        rows: &dyn Rows,
        batch: &mut RowBatch,
    ) -> Result<(Outcome, Vec<crate::event::Event>), MachineError> {
        let quiet = |outcome| Ok((outcome, Vec::new()));
        match command {
            Command::Txn(txn) => {
                let path = match txn::plan(
                    self,
                    Sight {
                        rows,
                        batch: Some(batch),
                    },
                    txn,
                )? {
                    Ok(path) => path,
                    Err(refusal) => return quiet(Outcome::Refused(refusal)),
                };
                let mut edit = Edit::begin(self, rows, batch);
                let results = edit.run(&path)?;
                let events = edit.commit();
                Ok((
                    Outcome::Txn {
                        succeeded: path.succeeded,
                        results,
                    },
                    events,
                ))
            }
            Command::LeaseGrant { id, ttl_ms } => quiet(self.grant(*id, *ttl_ms, time, batch)),
            Command::LeaseKeepAlive { id } => quiet(self.keep_alive(*id, time, batch)),
            Command::LeaseRevoke { id } => {
                if self.leases.get(*id).is_none() {
                    return quiet(Outcome::Refused(Refusal::LeaseNotFound));
                }
                self.end_leases(vec![*id], rows, batch)
            }
            Command::ExpireLeases => {
                let due = self.leases.due(time);
                self.end_leases(due, rows, batch)
            }
            Command::ExtendLeases => {
                self.leases.extend_all(time);
                quiet(Outcome::Done)
            }
            Command::Compact { revision } => {
                let outcome = self.compact(*revision, rows, batch)?;
                quiet(outcome)
            }
            Command::Checkpoint { .. } => {
                let digest = self.digest();
                let previous = self.checkpoint.replace((position, digest));
                quiet(Outcome::Checkpoint { digest, previous })
            }
        }
    }

    fn grant(
        &mut self,
        id: LeaseId,
        ttl_ms: u64,
        time: UnixMillis,
        batch: &mut RowBatch,
    ) -> Outcome {
        if id.0 == 0 || ttl_ms == 0 {
            return Outcome::Refused(Refusal::LeaseInvalid);
        }
        if self.leases.get(id).is_some() {
            return Outcome::Refused(Refusal::LeaseExists);
        }
        self.leases.insert(id, ttl_ms, time);
        self.put_lease_row(id, ttl_ms, time, batch);
        Outcome::Lease { id, ttl_ms }
    }

    fn keep_alive(&mut self, id: LeaseId, time: UnixMillis, batch: &mut RowBatch) -> Outcome {
        let Some((ttl_ms, renewed)) = self.leases.get(id).map(|l| (l.ttl_ms, l.renewed)) else {
            return Outcome::Refused(Refusal::LeaseNotFound);
        };
        self.row_removed(
            Space::Lease,
            &lease_row_key(id),
            &encode_lease(ttl_ms, renewed),
        );
        self.leases.renew(id, time);
        self.put_lease_row(id, ttl_ms, time, batch);
        Outcome::Lease { id, ttl_ms }
    }

    fn put_lease_row(
        &mut self,
        id: LeaseId,
        ttl_ms: u64,
        renewed: UnixMillis,
        batch: &mut RowBatch,
    ) {
        let row = encode_lease(ttl_ms, renewed);
        self.row_added(Space::Lease, &lease_row_key(id), &row);
        batch.put(Space::Lease, &lease_row_key(id), row);
    }

    /// Ends leases and deletes their keys, in one revision.
    fn end_leases(
        &mut self,
        ids: Vec<LeaseId>,
        rows: &dyn Rows,
        batch: &mut RowBatch,
    ) -> Result<(Outcome, Vec<crate::event::Event>), MachineError> {
        let mut keys = Vec::new();
        for id in &ids {
            let Some(lease) = self.leases.get(*id) else {
                continue;
            };
            let row = encode_lease(lease.ttl_ms, lease.renewed);
            keys.extend(lease.keys.iter().cloned());
            self.row_removed(Space::Lease, &lease_row_key(*id), &row);
            batch.delete(Space::Lease, &lease_row_key(*id));
        }
        let mut edit = Edit::begin(self, rows, batch);
        for key in &keys {
            edit.delete(key)?;
        }
        let events = edit.commit();
        for id in &ids {
            let ended = self.leases.remove(*id);
            assert!(
                ended.is_some_and(|lease| lease.keys.is_empty()),
                "a lease that ended still has keys"
            );
        }
        Ok((Outcome::LeasesEnded(ids), events))
    }

    /// Removes the rows of every version that is not the newest at `revision`, all
    /// at once: the work is proportional to the versions removed, not to the keys.
    fn compact(
        &mut self,
        revision: Revision,
        rows: &dyn Rows,
        batch: &mut RowBatch,
    ) -> Result<Outcome, MachineError> {
        if revision <= self.compacted {
            return Ok(Outcome::Refused(Refusal::Compacted));
        }
        if revision > self.revision {
            return Ok(Outcome::Refused(Refusal::FutureRevision));
        }
        for (_, place) in self.index.compact(revision) {
            let key = place.row_key();
            let row = Sight {
                rows,
                batch: Some(batch),
            }
            .get(Space::Revision, &key)?;
            let row = row.ok_or_else(|| missing(place))?;
            self.row_removed(Space::Revision, &key, &row);
            batch.delete(Space::Revision, &key);
        }
        self.compacted = revision;
        Ok(Outcome::Done)
    }
}

/// For the machine's other files.
impl Machine {
    pub(crate) fn from_parts(
        key: DigestKey,
        index: KeyIndex,
        leases: Leases,
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
            row_sum: RowSum::from_bytes(&counters.row_sum),
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

    pub(crate) fn row_added(&mut self, space: Space, key: &[u8], value: &[u8]) {
        self.row_sum.add(&self.key.row(space, key, value));
        if space == Space::Revision {
            self.version_rows += 1;
        }
    }

    fn row_removed(&mut self, space: Space, key: &[u8], value: &[u8]) {
        self.row_sum.remove(&self.key.row(space, key, value));
        if space == Space::Revision {
            self.version_rows -= 1;
        }
    }
}
