//! Reading versions: the look-up in the index and the reading of rows are apart,
//! so that the index is locked for the look-up only.
//!
//! Invariant: a row that the index names and that is not there, or that holds
//! another key, is an error that names it, never an empty answer. (A caller that
//! reads rows outside its lock must look again whether a compaction passed by.)

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::encoding::{Change, Place, decode_change, row_error};
use crate::event::{Event, EventKind};
use crate::machine::Machine;
use crate::port::{RangeError, WatchError};
use crate::rows::{RowBatch, RowError, Rows, Space};
use crate::types::{KeyRange, KeyValue, Revision};

/// Rows that one call of [`HistoryScan::collect`] reads at most, but for the rest
/// of a revision.
pub const HISTORY_ROWS_MAX: usize = 16_384;

/// Rows as seen in the middle of a batch.
#[derive(Clone, Copy)]
pub(crate) struct Sight<'a> {
    pub(crate) rows: &'a dyn Rows,
    pub(crate) batch: Option<&'a RowBatch>,
}

impl Sight<'_> {
    pub(crate) fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, RowError> {
        match self.batch.and_then(|batch| batch.get(space, key)) {
            Some(written) => Ok(written),
            None => self.rows.get(space, key),
        }
    }

    pub(crate) fn change(&self, place: Place) -> Result<Change, RowError> {
        let key = place.row_key();
        let row = self.get(Space::Revision, &key)?;
        let row = row.ok_or_else(|| missing(place))?;
        Ok(decode_change(place, &row)?.change)
    }

    /// The put of `key` that stands at `place`.
    pub(crate) fn put(&self, key: &[u8], place: Place) -> Result<KeyValue, RowError> {
        put_of(place, self.change(place)?, key)
    }
}

pub(crate) fn missing(place: Place) -> RowError {
    row_error(
        Space::Revision,
        &place.row_key(),
        &format!(
            "the row of revision {} position {} is missing",
            place.revision, place.sub
        ),
    )
}

/// The version of `key` that stands at `place`; `None` if a compaction has removed it,
/// which the caller must know to be so.
pub fn read_version(
    rows: &dyn Rows,
    key: &[u8],
    place: Place,
) -> Result<Option<KeyValue>, RowError> {
    let row_key = place.row_key();
    let Some(row) = rows.get(Space::Revision, &row_key)? else {
        return Ok(None);
    };
    put_of(place, decode_change(place, &row)?.change, key).map(Some)
}

pub(crate) fn put_of(place: Place, change: Change, key: &[u8]) -> Result<KeyValue, RowError> {
    match change {
        Change::Put(kv) if kv.key == key => Ok(kv),
        _ => Err(another_put(place)),
    }
}

fn another_put(place: Place) -> RowError {
    row_error(
        Space::Revision,
        &place.row_key(),
        "it does not hold the put that the index says it holds",
    )
}

/// Events of the past.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// In order; those of one revision are never split.
    pub events: Vec<Event>,
    /// Every matching event from the revision asked up to this one is in `events`.
    pub through: Revision,
}

/// A stretch of history in the making: [`collect`](Self::collect) from the rows,
/// [`link`](Self::link) with the index, [`finish`](Self::finish) from the rows.
#[derive(Debug)]
pub struct HistoryScan {
    from: Revision,
    through: Revision,
    changes: Vec<(Place, Change)>,
    previous: Vec<Option<Place>>,
}

impl HistoryScan {
    /// Reads the changes of `range` from revision `from` on, up to `current`, or
    /// until `limit` of them are found or [`HISTORY_ROWS_MAX`] rows are read.
    pub fn collect(
        rows: &dyn Rows,
        range: &KeyRange,
        from: Revision,
        current: Revision,
        limit: usize,
    ) -> Result<Self, RowError> {
        // Revision 1 is the empty store: the first change is revision 2.
        let first = from.max(2);
        let mut scan = Self {
            from,
            through: current,
            changes: Vec::new(),
            previous: Vec::new(),
        };
        let mut read = 0usize;
        let mut chain = Chain::starting(first);
        let mut failure = None;
        let start = Place {
            revision: first,
            sub: 0,
        }
        .row_key();
        let end = Place {
            revision: current.saturating_add(1),
            sub: 0,
        }
        .row_key();
        if first > current {
            return Ok(scan);
        }
        let mut cut = false;
        rows.scan(Space::Revision, &start, Some(&end), &mut |key, row| {
            let step = Place::from_row_key(key).and_then(|place| {
                let full = scan.changes.len() >= limit.max(1) || read >= HISTORY_ROWS_MAX;
                if place.sub == 0 && full {
                    scan.through = place.revision - 1;
                    cut = true;
                    return Ok(ControlFlow::Break(()));
                }
                let version = decode_change(place, &row)?;
                chain.follow(place, version.stamp.last)?;
                read += 1;
                if range.contains(version.change.key()) {
                    scan.changes.push((place, version.change));
                }
                Ok(ControlFlow::Continue(()))
            });
            step.unwrap_or_else(|error| {
                failure = Some(error);
                ControlFlow::Break(())
            })
        })?;
        match failure {
            Some(error) => Err(error),
            None if cut => Ok(scan),
            None => chain.ends_at(current).map(|()| scan),
        }
    }

    /// Looks up where the versions before the changes stand.
    pub fn link(&mut self, machine: &Machine) -> Result<(), WatchError> {
        let compacted = machine.compacted_revision();
        if self.from < compacted {
            return Err(WatchError::Compacted { compacted });
        }
        let before = |(place, _): &(Place, Change)| {
            // What was superseded at the compaction's own revision is compacted away,
            // whether its row is there still or not.
            let kept = place.revision > compacted;
            kept.then(|| machine.index().before(*place)).flatten()
        };
        self.previous = self.changes.iter().map(before).collect();
        Ok(())
    }

    /// The events without the versions before them: for those who do not want them.
    pub fn without_previous(self) -> History {
        let changes = self.changes.into_iter();
        History {
            events: changes
                .map(|(place, change)| event(place, change, None))
                .collect(),
            through: self.through,
        }
    }

    /// Reads the versions before the changes.
    pub fn finish(self, rows: &dyn Rows) -> Result<History, RowError> {
        assert_eq!(
            self.previous.len(),
            self.changes.len(),
            "link comes before finish"
        );
        let sight = Sight { rows, batch: None };
        let mut events = Vec::with_capacity(self.changes.len());
        for ((place, change), previous) in self.changes.into_iter().zip(self.previous) {
            let prev = match previous {
                Some(before) => Some(sight.put(change.key(), before)?),
                None => None,
            };
            events.push(event(place, change, prev));
        }
        Ok(History {
            events,
            through: self.through,
        })
    }
}

/// What watchers see of a change.
pub(crate) fn event(place: Place, change: Change, prev: Option<KeyValue>) -> Event {
    match change {
        Change::Put(kv) => Event {
            kind: EventKind::Put,
            kv,
            prev,
        },
        Change::Tombstone(key) => Event {
            kind: EventKind::Delete,
            kv: KeyValue {
                key,
                value: Bytes::new(),
                create_revision: 0,
                mod_revision: place.revision,
                version: 0,
                lease: None,
            },
            prev,
        },
    }
}

/// Checks that no row is missing in a stretch of history that is not compacted:
/// every revision is there, each from position 0 to the one marked as last.
#[derive(Debug)]
pub(crate) struct Chain {
    next: Place,
}

impl Chain {
    pub(crate) fn starting(revision: Revision) -> Self {
        Self {
            next: Place { revision, sub: 0 },
        }
    }

    pub(crate) fn follow(&mut self, place: Place, last: bool) -> Result<(), RowError> {
        if place != self.next {
            return Err(missing(self.next));
        }
        self.next = if last {
            Place {
                revision: place.revision + 1,
                sub: 0,
            }
        } else {
            Place {
                revision: place.revision,
                sub: place.sub + 1,
            }
        };
        Ok(())
    }

    pub(crate) fn ends_at(&self, current: Revision) -> Result<(), RowError> {
        if self.next
            == (Place {
                revision: current + 1,
                sub: 0,
            })
        {
            return Ok(());
        }
        Err(missing(self.next))
    }
}

/// Whether `revision` can be read, of a store that stands at `current` and was
/// compacted at `compacted`. 0 stands for the newest, as in etcd.
pub(crate) fn check_revision(
    revision: Option<Revision>,
    current: Revision,
    compacted: Revision,
) -> Result<(), RangeError> {
    match revision {
        None | Some(0) => Ok(()),
        Some(revision) if revision > current => Err(RangeError::FutureRevision { current }),
        Some(revision) if revision < compacted => Err(RangeError::Compacted { compacted }),
        Some(_) => Ok(()),
    }
}
