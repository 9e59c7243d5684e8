//! The writes of one entry: all its changes get one revision and positions in it.
//!
//! Invariants
//! - An [`Edit`] that changes something takes exactly one revision; one that changes
//!   nothing takes none.
//! - The last change of the revision is marked as last.
//! - Index, leases, events and rows say the same.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::command::Put;
use crate::encoding::{Change, Place, Stamp};
use crate::event::Event;
use crate::index::{Life, Newest};
use crate::locate::{Located, put_at};
use crate::machine::Machine;
use crate::outcome::TxnOutcome;
use crate::read::{Sight, event, put_of};
use crate::rows::{RowBatch, RowError, Rows};
use crate::txn::{Path, Step};
use crate::types::{KeyRange, KeyValue, LogPosition, RangeRequest, RangeResponse, Revision};

/// What watchers hear of an entry, and where the version before each event stands.
#[derive(Debug, Default)]
pub(crate) struct Events {
    pub(crate) events: Vec<Event>,
    pub(crate) previous: Vec<Option<Place>>,
}

/// An entry's changes in the making.
pub(crate) struct Edit<'a> {
    machine: &'a mut Machine,
    rows: &'a dyn Rows,
    batch: &'a mut RowBatch,
    log: LogPosition,
    revision: Revision,
    /// Each with the place of the version before it.
    changes: Vec<(Change, Option<Place>)>,
}

impl<'a> Edit<'a> {
    pub(crate) fn begin(
        machine: &'a mut Machine,
        log: LogPosition,
        rows: &'a dyn Rows,
        batch: &'a mut RowBatch,
    ) -> Self {
        let revision = machine.revision() + 1;
        Self {
            machine,
            rows,
            batch,
            log,
            revision,
            changes: Vec::new(),
        }
    }

    /// Writes the rows and takes the revision, if anything changed.
    pub(crate) fn commit(self) -> Events {
        let Self {
            machine,
            batch,
            log,
            revision,
            changes,
            ..
        } = self;
        let count = changes.len();
        let mut events = Events {
            events: Vec::with_capacity(count),
            previous: Vec::with_capacity(count),
        };
        for (sub, (change, previous)) in changes.into_iter().enumerate() {
            let place = Place {
                revision,
                sub: position(sub),
            };
            let stamp = Stamp::new(log, sub + 1 == count);
            machine.write_version(place, &change, stamp, batch);
            events.events.push(event(place, change, None));
            events.previous.push(previous);
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
        // Looked up and read only where the request or its answer needs it.
        let present = match put.prev_kv || put.ignore_value {
            true => self.machine.index().living(&put.key),
            false => None,
        };
        let prev = match present {
            Some((place, _)) => Some(self.read(&put.key, place)?),
            None => None,
        };
        let value = match &prev {
            Some(prev) if put.ignore_value => prev.value.clone(),
            _ => put.value.clone(),
        };
        let (place, revision) = (self.next_place(), self.revision);
        let (mut lease_before, mut next) = (None, None);
        let before = self.machine.index_mut().put(&put.key, place, |life| {
            lease_before = life.and_then(|life| life.lease);
            let life = Life {
                create_revision: life.map_or(revision, |life| life.create_revision),
                version: life.map_or(0, |life| life.version) + 1,
                lease: if put.ignore_lease {
                    lease_before
                } else {
                    put.lease
                },
            };
            *next.insert(life)
        });
        let Some(Life {
            create_revision,
            version,
            lease,
        }) = next
        else {
            unreachable!("the index asks for the life of what it notes")
        };
        self.machine
            .leases_mut()
            .attach(&put.key, lease_before, lease);
        let change = Change::Put(KeyValue {
            key: put.key.clone(),
            value,
            create_revision,
            mod_revision: revision,
            version,
            lease,
        });
        let previous = before.and_then(Newest::living).map(|(place, _)| place);
        self.changes.push((change, previous));
        Ok(TxnOutcome::Put(prev.filter(|_| put.prev_kv)))
    }

    fn delete_range(&mut self, range: &KeyRange, prev_kv: bool) -> Result<TxnOutcome, RowError> {
        let mut living = Vec::new();
        self.machine
            .index()
            .visit_living(range, &mut |key, place, _| {
                living.push((Bytes::from(key.to_vec()), place));
                ControlFlow::Continue(())
            });
        let mut prev = Vec::new();
        for (key, place) in &living {
            if prev_kv {
                prev.push(self.read(key, *place)?);
            }
            self.delete(key);
        }
        Ok(TxnOutcome::Delete {
            deleted: living.len() as u64,
            prev,
        })
    }

    /// Deletes a key, which lives.
    pub(crate) fn delete(&mut self, key: &Bytes) {
        let place = self.next_place();
        let before = self.machine.index_mut().delete(key, place);
        let Some((before, life)) = before.and_then(Newest::living) else {
            panic!("a key was deleted that does not live");
        };
        self.machine.leases_mut().attach(key, life.lease, None);
        let change = Change::Tombstone(key.clone());
        self.changes.push((change, Some(before)));
    }

    fn range(&mut self, request: &RangeRequest) -> Result<RangeResponse, RowError> {
        let current = if self.changes.is_empty() {
            self.machine.revision()
        } else {
            self.revision
        };
        let located = Located::look_up(self.machine.index(), request, current);
        located.read_with(&mut |place| put_at(place, self.change(place)?))
    }

    /// A put, of this edit, of the batch, or of the rows.
    fn read(&self, key: &[u8], place: Place) -> Result<KeyValue, RowError> {
        put_of(place, self.change(place)?, key)
    }

    fn change(&self, place: Place) -> Result<Change, RowError> {
        if place.revision == self.revision {
            return Ok(self.changes[place.sub as usize].0.clone());
        }
        let sight = Sight {
            rows: self.rows,
            batch: Some(self.batch),
        };
        sight.change(place)
    }

    fn next_place(&self) -> Place {
        Place {
            revision: self.revision,
            sub: position(self.changes.len()),
        }
    }
}

fn position(sub: usize) -> u32 {
    u32::try_from(sub).unwrap_or_else(|_| panic!("more than 2^32 changes in one revision"))
}
