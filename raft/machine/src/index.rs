//! The index of names: which versions a key has, kept in memory only (names never
//! stand in a row's key).
//!
//! Invariants
//! - A key's marks grow strictly by revision; a tombstone is never first but after
//!   a compaction at its own revision.
//! - `newest` is there exactly when the last mark is a put.
//! - Every mark that a later compaction can remove has an entry in `removable`
//!   at the lowest revision whose compaction removes it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;

use crate::encoding::Place;
use crate::types::{KeyRange, LeaseId, RangeEnd, Revision};

/// One version of a key: where its row stands, and whether it is a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) place: Place,
    pub(crate) live: bool,
}

/// What the next put of a living key needs to know without reading a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) create_revision: Revision,
    pub(crate) version: u64,
    pub(crate) lease: Option<LeaseId>,
}

/// The versions of one key, oldest first.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) marks: Vec<Mark>,
    pub(crate) newest: Option<Life>,
}

impl History {
    /// The put that stands at `revision`, if the key lived then.
    pub(crate) fn at(&self, revision: Revision) -> Option<Place> {
        let after = self
            .marks
            .partition_point(|mark| mark.place.revision <= revision);
        let mark = self.marks[..after].last()?;
        mark.live.then_some(mark.place)
    }

    /// The newest put, if the key lives.
    pub(crate) fn newest_place(&self) -> Option<Place> {
        self.marks
            .last()
            .filter(|mark| mark.live)
            .map(|mark| mark.place)
    }
}

/// All keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyIndex {
    keys: BTreeMap<Bytes, History>,
    removable: BTreeSet<(Revision, Bytes)>,
}

impl KeyIndex {
    pub(crate) fn get(&self, key: &[u8]) -> Option<&History> {
        self.keys.get(key)
    }

    /// The life of a living key.
    pub(crate) fn life(&self, key: &[u8]) -> Option<Life> {
        self.keys.get(key)?.newest
    }

    /// The histories of `range`, in key order.
    pub(crate) fn range<'a>(
        &'a self,
        range: &'a KeyRange,
    ) -> Box<dyn Iterator<Item = (&'a Bytes, &'a History)> + 'a> {
        let start = Bound::Included(&range.start[..]);
        let all: Box<dyn Iterator<Item = (&'a Bytes, &'a History)> + 'a> = match &range.end {
            RangeEnd::Single => Box::new(self.keys.get_key_value(&range.start[..]).into_iter()),
            RangeEnd::Key(end) if *end <= range.start => Box::new(std::iter::empty()),
            RangeEnd::Key(end) => Box::new(
                self.keys
                    .range::<[u8], _>((start, Bound::Excluded(&end[..]))),
            ),
            RangeEnd::Unbounded => Box::new(self.keys.range::<[u8], _>((start, Bound::Unbounded))),
        };
        Box::new(all.filter(|(key, _)| range.contains(key)))
    }

    /// Every living key, in order.
    pub(crate) fn living(&self) -> impl Iterator<Item = (&Bytes, Place, Life)> {
        self.keys
            .iter()
            .filter_map(|(key, history)| Some((key, history.newest_place()?, history.newest?)))
    }

    /// The key's own copy of `key`, so that a large request is not kept alive by it.
    pub(crate) fn interned(&self, key: &Bytes) -> Bytes {
        match self.keys.get_key_value(&key[..]) {
            Some((known, _)) => known.clone(),
            None => Bytes::copy_from_slice(key),
        }
    }

    pub(crate) fn put(&mut self, key: &Bytes, place: Place, life: Life) {
        let key = self.interned(key);
        let history = self.keys.entry(key.clone()).or_default();
        let superseded = !history.marks.is_empty();
        push(history, Mark { place, live: true });
        history.newest = Some(life);
        if superseded {
            self.removable.insert((place.revision, key));
        }
    }

    pub(crate) fn delete(&mut self, key: &Bytes, place: Place) {
        let key = self.interned(key);
        let history = self.keys.entry(key.clone()).or_default();
        let superseded = !history.marks.is_empty();
        push(history, Mark { place, live: false });
        history.newest = None;
        if superseded {
            self.removable.insert((place.revision, key.clone()));
        }
        self.removable.insert((place.revision + 1, key));
    }

    /// Forgets what compaction at `revision` forgets, and gives the places of the
    /// rows to be removed, in order of keys' supersession. A tombstone at exactly
    /// `revision` stays, so that a watch from there misses nothing.
    pub(crate) fn compact(&mut self, revision: Revision) -> Vec<(Bytes, Place)> {
        let mut removed = Vec::new();
        while let Some(first) = self.removable.first() {
            if first.0 > revision {
                break;
            }
            let Some((_, key)) = self.removable.pop_first() else {
                break;
            };
            let Some(history) = self.keys.get_mut(&key) else {
                continue;
            };
            let after = history
                .marks
                .partition_point(|mark| mark.place.revision <= revision);
            let Some(kept) = after.checked_sub(1) else {
                continue;
            };
            let mark = history.marks[kept];
            let gone = !mark.live && mark.place.revision < revision;
            let cut = if gone { after } else { kept };
            removed.extend(
                history
                    .marks
                    .drain(..cut)
                    .map(|mark| (key.clone(), mark.place)),
            );
            if history.marks.is_empty() {
                self.keys.remove(&key);
            }
        }
        removed
    }
}

fn push(history: &mut History, mark: Mark) {
    if let Some(last) = history.marks.last() {
        assert!(
            last.place < mark.place,
            "versions of a key must grow: {:?} after {:?}",
            mark.place,
            last.place
        );
    }
    history.marks.push(mark);
}
