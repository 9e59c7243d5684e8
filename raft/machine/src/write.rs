//! The writes of one entry: all its changes get one revision and positions in it.
//!
//! Invariants
//! - An [`Edit`] that changes something takes exactly one revision; one that changes
//!   nothing takes none.
//! - The last change of the revision is marked as last.
//! - Index, leases, events and rows say the same.

use bytes::Bytes;

use crate::command::Put;
use crate::encoding::{Change, Place, encode_change};
use crate::event::Event;
use crate::index::Life;
use crate::machine::Machine;
use crate::outcome::TxnOutcome;
use crate::read::{Located, Sight, event};
use crate::rows::{RowBatch, RowError, Rows, Space};
use crate::txn::{Path, Step};
use crate::types::{KeyRange, KeyValue, RangeRequest, RangeResponse, Revision};

/// An entry's changes in the making.
pub(crate) struct Edit<'a> {
    machine: &'a mut Machine,
    rows: &'a dyn Rows,
    batch: &'a mut RowBatch,
    revision: Revision,
    changes: Vec<Change>,
    events: Vec<Event>,
}

impl<'a> Edit<'a> {
    pub(crate) fn begin(
        machine: &'a mut Machine,
        rows: &'a dyn Rows,
        batch: &'a mut RowBatch,
    ) -> Self {
        let revision = machine.revision() + 1;
        Self {
            machine,
            rows,
            batch,
            revision,
            changes: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Writes the rows and takes the revision, if anything changed.
    pub(crate) fn commit(self) -> Vec<Event> {
        let Self {
            machine,
            batch,
            revision,
            changes,
            events,
            ..
        } = self;
        let count = changes.len();
        for (sub, change) in changes.iter().enumerate() {
            let place = Place {
                revision,
                sub: position(sub),
            };
            let row = encode_change(change, sub + 1 == count);
            machine.row_added(Space::Revision, &place.row_key(), &row);
            batch.put(Space::Revision, &place.row_key(), row);
        }
        if count > 0 {
            machine.take_revision(revision);
        }
        events
    }

    /// Runs a path that was checked.
    pub(crate) fn run(&mut self, path: &Path<'_>) -> Result<Vec<TxnOutcome>, RowError> {
        let mut results = Vec::with_capacity(path.steps.len());
        for step in &path.steps {
            results.push(match step {
                Step::Put(put) => self.put(put)?,
                Step::Delete { range, prev_kv } => self.delete_range(range, *prev_kv)?,
                Step::Range(request) => TxnOutcome::Range(self.range(request)?),
                Step::Txn(nested) => TxnOutcome::Txn {
                    succeeded: nested.succeeded,
                    results: self.run(nested)?,
                },
            });
        }
        Ok(results)
    }

    fn put(&mut self, put: &Put) -> Result<TxnOutcome, RowError> {
        let life = self.machine.index().life(&put.key);
        let prev = match self
            .machine
            .index()
            .get(&put.key)
            .and_then(|h| h.newest_place())
        {
            Some(place) => Some(self.read(&put.key, place)?),
            None => None,
        };
        let value = match (&prev, put.ignore_value) {
            (Some(prev), true) => prev.value.clone(),
            _ => Bytes::copy_from_slice(&put.value),
        };
        let lease = if put.ignore_lease {
            life.and_then(|life| life.lease)
        } else {
            put.lease
        };
        let next = Life {
            create_revision: life.map_or(self.revision, |life| life.create_revision),
            version: life.map_or(0, |life| life.version) + 1,
            lease,
        };
        let place = self.next_place();
        self.machine.index_mut().put(&put.key, place, next);
        let key = self.machine.index().interned(&put.key);
        self.machine
            .leases_mut()
            .attach(&key, life.and_then(|life| life.lease), lease);
        self.record(
            place,
            Change::Put(KeyValue {
                key,
                value,
                create_revision: next.create_revision,
                mod_revision: self.revision,
                version: next.version,
                lease,
            }),
            prev.clone(),
        );
        Ok(TxnOutcome::Put(prev.filter(|_| put.prev_kv)))
    }

    fn delete_range(&mut self, range: &KeyRange, prev_kv: bool) -> Result<TxnOutcome, RowError> {
        let living: Vec<Bytes> = self
            .machine
            .index()
            .range(range)
            .filter(|(_, history)| history.newest.is_some())
            .map(|(key, _)| key.clone())
            .collect();
        let mut prev = Vec::new();
        for key in &living {
            let deleted = self.delete(key)?;
            if prev_kv {
                prev.extend(deleted);
            }
        }
        Ok(TxnOutcome::Delete {
            deleted: living.len() as u64,
            prev,
        })
    }

    /// Deletes a key; gives the version deleted, if the key lived.
    pub(crate) fn delete(&mut self, key: &Bytes) -> Result<Option<KeyValue>, RowError> {
        let Some(place) = self.machine.index().get(key).and_then(|h| h.newest_place()) else {
            return Ok(None);
        };
        let prev = self.read(key, place)?;
        let place = self.next_place();
        self.machine.index_mut().delete(key, place);
        self.machine.leases_mut().attach(key, prev.lease, None);
        self.record(place, Change::Tombstone(key.clone()), Some(prev.clone()));
        Ok(Some(prev))
    }

    fn range(&mut self, request: &RangeRequest) -> Result<RangeResponse, RowError> {
        let current = if self.changes.is_empty() {
            self.machine.revision()
        } else {
            self.revision
        };
        let located = Located::look_up(self.machine.index(), request, current);
        located.read_with(&mut |key, place| self.read(key, place))
    }

    /// A put, of this edit, of the batch, or of the rows.
    fn read(&self, key: &[u8], place: Place) -> Result<KeyValue, RowError> {
        if place.revision == self.revision {
            return match &self.changes[place.sub as usize] {
                Change::Put(kv) if kv.key == key => Ok(kv.clone()),
                change => panic!("the index says a put stands where {change:?} was recorded"),
            };
        }
        Sight {
            rows: self.rows,
            batch: Some(self.batch),
        }
        .put(key, place)
    }

    fn next_place(&self) -> Place {
        Place {
            revision: self.revision,
            sub: position(self.changes.len()),
        }
    }

    fn record(&mut self, place: Place, change: Change, prev: Option<KeyValue>) {
        self.changes.push(change.clone());
        self.events.push(event(place, change, prev));
    }
}

fn position(sub: usize) -> u32 {
    u32::try_from(sub).unwrap_or_else(|_| panic!("more than 2^32 changes in one revision"))
}
