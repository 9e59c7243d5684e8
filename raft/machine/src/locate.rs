//! Ranges: the look-up in the index and the reading of rows are apart, so that the
//! index is locked for the look-up only.
//!
//! Invariants
//! - A look-up walks as many keys as it finds, not as many as the range holds: the
//!   count comes from the index's branches.
//! - What is read is what was asked for: keys of the range, in order, or an error that
//!   names the row.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::encoding::{Change, Place, decode_change, row_error};
use crate::index::KeyIndex;
use crate::read::missing;
use crate::rows::{RowError, Rows, Space};
use crate::types::{KeyRange, KeyValue, RangeRequest, RangeResponse, Revision};

/// Reads the put that stands at a place.
pub type ReadPut<'a> = dyn FnMut(Place) -> Result<KeyValue, RowError> + 'a;

/// A range answered from the index; the rows are yet to be read.
#[derive(Debug, Clone)]
pub struct Located {
    range: KeyRange,
    current: Revision,
    places: Vec<Place>,
    /// The answer without values, where the index has it all.
    named: Option<Vec<KeyValue>>,
    count: u64,
    more: bool,
    keys_only: bool,
}

impl Located {
    pub(crate) fn look_up(index: &KeyIndex, request: &RangeRequest, current: Revision) -> Self {
        let past = request.revision.filter(|at| *at != 0 && *at != current);
        let mut located = Self {
            range: request.range.clone(),
            current,
            places: Vec::new(),
            named: (request.keys_only && past.is_none()).then(Vec::new),
            count: 0,
            more: false,
            keys_only: request.keys_only,
        };
        let limit = request.limit.filter(|limit| *limit != 0);
        if !request.count_only {
            let limit = limit.and_then(|limit| usize::try_from(limit).ok());
            located.find(index, past, limit.unwrap_or(usize::MAX));
        }
        let found = located.rows() as u64;
        located.count = match past {
            _ if limit.is_none() && !request.count_only => found,
            None => index.count_living(&request.range),
            Some(revision) => index.count_at(&request.range, revision),
        };
        located.more = !request.count_only && located.count > found;
        located
    }

    fn find(&mut self, index: &KeyIndex, past: Option<Revision>, limit: usize) {
        let range = self.range.clone();
        let (places, named) = (&mut self.places, &mut self.named);
        let goes_on = |found: usize| match found < limit {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        };
        if let Some(revision) = past {
            index.visit_at(&range, revision, &mut |_, place| {
                places.push(place);
                goes_on(places.len())
            });
            return;
        }
        index.visit_living(&range, &mut |key, place, life| match named {
            None => {
                places.push(place);
                goes_on(places.len())
            }
            Some(named) => {
                named.push(KeyValue {
                    key: key.to_vec().into(),
                    value: Bytes::new(),
                    create_revision: life.create_revision,
                    mod_revision: place.revision,
                    version: life.version,
                    lease: life.lease,
                });
                goes_on(named.len())
            }
        });
    }

    /// Reads the rows by `read`.
    pub fn read_with(self, read: &mut ReadPut<'_>) -> Result<RangeResponse, RowError> {
        let kvs = match self.named {
            Some(named) => named,
            None => {
                let mut kvs: Vec<KeyValue> = Vec::with_capacity(self.places.len());
                for place in self.places {
                    let mut kv = read(place)?;
                    let follows = kvs.last().is_none_or(|last| last.key < kv.key);
                    if !follows || !self.range.contains(&kv.key) {
                        let reason = "it does not hold the put that the index says it holds";
                        return Err(row_error(Space::Revision, &place.row_key(), reason));
                    }
                    if self.keys_only {
                        kv.value = Bytes::new();
                    }
                    kvs.push(kv);
                }
                kvs
            }
        };
        Ok(RangeResponse {
            revision: self.current,
            kvs,
            more: self.more,
            count: self.count,
        })
    }

    /// Reads the rows.
    pub fn read(self, rows: &dyn Rows) -> Result<RangeResponse, RowError> {
        self.read_with(&mut |place| {
            let key = place.row_key();
            let row = rows
                .get(Space::Revision, &key)?
                .ok_or_else(|| missing(place))?;
            put_at(place, decode_change(place, &row)?.change)
        })
    }

    /// The places of the rows to be read, in the order of their keys.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// How many keys were found.
    pub fn rows(&self) -> usize {
        self.named.as_ref().map_or(self.places.len(), Vec::len)
    }
}

/// The put that stands at a place.
pub(crate) fn put_at(place: Place, change: Change) -> Result<KeyValue, RowError> {
    match change {
        Change::Put(kv) => Ok(kv),
        Change::Tombstone(_) => Err(row_error(
            Space::Revision,
            &place.row_key(),
            "it holds a deletion where the index says that a put is",
        )),
    }
}
