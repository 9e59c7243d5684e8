//! The index of names: which versions a key has, kept in memory only (names never
//! stand in a row's key).
//!
//! Two parts: a [tree](tree) of packed [leaves](leaf) with every key and its newest
//! version, and the [past](past) with the versions before it, known by their places.
//! A key with one version costs its own bytes, less what it shares with its neighbours,
//! and about 20 more.
//!
//! Invariants
//! - A key's versions grow strictly by place; a tombstone is never first but after a
//!   compaction at its own revision.
//! - A key's newest version has a life exactly when it is a put.
//! - Every version but the newest is `before` of exactly one link, until swept.
//! - Whoever asks for a revision has checked that it is not compacted.

pub(crate) mod build;
mod leaf;
mod past;
#[cfg(test)]
mod tests;
mod tree;

use std::ops::ControlFlow;

use bytes::Bytes;

pub(crate) use crate::index::leaf::KeyParts;
use crate::index::past::Past;
pub(crate) use crate::index::past::Swept;
use crate::index::tree::{Bounds, Summary, Tree, Visit};

use crate::encoding::Place;
use crate::types::{
    KeyRange, LeaseId, RESERVED_END, RESERVED_PREFIX, RangeEnd, Revision, is_reserved,
};

/// What the next put of a living key needs to know without reading a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) create_revision: Revision,
    pub(crate) version: u64,
    pub(crate) lease: Option<LeaseId>,
}

/// The newest version of a key; a tombstone has no life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Newest {
    pub(crate) place: Place,
    pub(crate) life: Option<Life>,
}

impl Newest {
    /// The newest put, if the key lives.
    pub(crate) fn living(self) -> Option<(Place, Life)> {
        Some((self.place, self.life?))
    }
}

/// All keys. A clone is cheap and stays as it is.
#[derive(Debug, Default, Clone)]
pub(crate) struct KeyIndex {
    tree: Tree,
    past: Past,
}

impl KeyIndex {
    /// The newest version of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Newest> {
        self.tree.get(key)
    }

    /// The newest put of a living key.
    pub(crate) fn living(&self, key: &[u8]) -> Option<(Place, Life)> {
        self.get(key)?.living()
    }

    /// The put of `key` that stands at `revision`, if the key lived then.
    #[cfg(test)]
    pub(crate) fn at(&self, key: &[u8], revision: Revision) -> Option<Place> {
        self.past.at(self.get(key)?, revision)
    }

    /// The put before the version at `place`, if there is one and it is not swept.
    pub(crate) fn before(&self, place: Place) -> Option<Place> {
        self.past.before(place)
    }

    /// Visits the living keys of `range` in order.
    pub(crate) fn visit_living(
        &self,
        range: &KeyRange,
        visit: &mut dyn FnMut(KeyParts<'_>, Place, Life) -> ControlFlow<()>,
    ) {
        self.visit(
            range,
            &|below| below.living == 0,
            &mut |key, newest| match newest.living() {
                Some((place, life)) => visit(key, place, life),
                None => ControlFlow::Continue(()),
            },
        );
    }

    /// Visits the puts that stood at `revision` in `range`, in order.
    pub(crate) fn visit_at(
        &self,
        range: &KeyRange,
        revision: Revision,
        visit: &mut dyn FnMut(KeyParts<'_>, Place) -> ControlFlow<()>,
    ) {
        let none = |below: &Summary| below.living == 0 && below.changed <= revision;
        self.visit(
            range,
            &none,
            &mut |key, newest| match self.past.at(newest, revision) {
                Some(place) => visit(key, place),
                None => ControlFlow::Continue(()),
            },
        );
    }

    fn visit(&self, range: &KeyRange, skip: &dyn Fn(&Summary) -> bool, visit: &mut Visit<'_>) {
        if range.end == RangeEnd::Single {
            if let Some(newest) = self.get(&range.start) {
                let key = KeyParts {
                    prefix: &[],
                    suffix: &range.start,
                };
                // There is nothing after it that could be skipped.
                let _ = visit(key, newest);
            }
            return;
        }
        for bounds in stretches(range).into_iter().flatten() {
            if self.tree.visit(bounds, skip, visit).is_break() {
                return;
            }
        }
    }

    /// How many keys of `range` live.
    pub(crate) fn count_living(&self, range: &KeyRange) -> u64 {
        if range.end == RangeEnd::Single {
            return u64::from(self.living(&range.start).is_some());
        }
        let stretches = stretches(range).into_iter().flatten();
        stretches.map(|bounds| self.tree.living(bounds)).sum()
    }

    /// How many keys of `range` lived at `revision`.
    pub(crate) fn count_at(&self, range: &KeyRange, revision: Revision) -> u64 {
        if range.end == RangeEnd::Single {
            let newest = self.get(&range.start);
            return u64::from(
                newest.is_some_and(|newest| self.past.at(newest, revision).is_some()),
            );
        }
        let count = |bounds| self.tree.living_at(bounds, revision, &self.past);
        stretches(range).into_iter().flatten().map(count).sum()
    }

    /// Notes a put; `next` is given the life that it continues, and gives its own.
    /// Gives the version before it.
    pub(crate) fn put(
        &mut self,
        key: &[u8],
        place: Place,
        next: impl FnOnce(Option<Life>) -> Life,
    ) -> Option<Newest> {
        let mut next = Some(next);
        self.note(key, place, &mut |before| {
            let life = before.and_then(|newest: Newest| newest.life);
            next.take().map(|next| next(life))
        })
    }

    /// Notes a deletion; gives the version before it.
    pub(crate) fn delete(&mut self, key: &[u8], place: Place) -> Option<Newest> {
        let before = self.note(key, place, &mut |_| None);
        self.past.tombstone(place);
        before
    }

    fn note(
        &mut self,
        key: &[u8],
        place: Place,
        life: &mut dyn FnMut(Option<Newest>) -> Option<Life>,
    ) -> Option<Newest> {
        let mut superseded = None;
        self.tree.put(key, &mut |before| {
            superseded = before;
            if let Some(before) = before {
                assert!(
                    before.place < place,
                    "versions of a key must grow: {place:?} after {:?}",
                    before.place
                );
            }
            Newest {
                place,
                life: life(before),
            }
        });
        if let Some(before) = superseded {
            self.past.link(place, before.place, before.life.is_some());
        }
        superseded
    }

    /// The next row that a compaction at `compacted` removes; a tombstone is then to
    /// be [forgotten](Self::forget).
    pub(crate) fn sweep(&mut self, compacted: Revision) -> Option<Swept> {
        self.past.sweep(compacted)
    }

    /// Forgets a key whose newest version is the tombstone at `place`, which was swept.
    pub(crate) fn forget(&mut self, key: &[u8], place: Place) {
        let newest = self.get(key);
        if newest.is_some_and(|newest| newest.place == place) {
            assert!(self.living(key).is_none(), "a living key is not forgotten");
            self.tree.remove(key);
        }
    }

    /// Whether a compaction at `compacted` has nothing more to remove.
    pub(crate) fn is_swept(&self, compacted: Revision) -> bool {
        self.past.is_swept(compacted)
    }

    /// The places that [`Self::sweep`] would still give, in order of their places.
    pub(crate) fn unswept(&self, compacted: Revision) -> Vec<Place> {
        let mut places: Vec<Place> = self.past.unswept(compacted).collect();
        places.sort_unstable();
        places
    }

    /// How many keys there are, deleted ones that are not swept included.
    pub(crate) fn keys(&self) -> u64 {
        self.tree.summary().keys
    }

    /// No version is of a later revision.
    pub(crate) fn changed(&self) -> Revision {
        self.tree.summary().changed
    }

    /// The memory it takes, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.tree.summary().memory_bytes + self.past.memory_bytes()
    }

    /// Every living key that hangs on a lease, in order.
    pub(crate) fn leased(&self) -> Vec<(Bytes, Place, LeaseId)> {
        let mut leased = Vec::new();
        let everything = Bounds {
            start: &[],
            end: None,
        };
        let all = self.tree.visit(everything, &|_| false, &mut |key, newest| {
            if let Some((place, life)) = newest.living()
                && let Some(lease) = life.lease
            {
                leased.push((key.to_vec().into(), place, lease));
            }
            ControlFlow::Continue(())
        });
        assert!(all.is_continue(), "every key was seen");
        leased
    }

    #[cfg(test)]
    fn check(&self) {
        self.tree.check();
    }
}

/// The stretches of the tree that are `range`, which is not of a single key: one, or
/// two around the reserved keys.
fn stretches(range: &KeyRange) -> [Option<Bounds<'_>>; 2] {
    let start = &range.start[..];
    let end = match &range.end {
        RangeEnd::Key(end) => Some(&end[..]),
        RangeEnd::Single | RangeEnd::Unbounded => None,
    };
    let reaches = end.is_none_or(|end| end > RESERVED_PREFIX);
    if is_reserved(start) || start >= RESERVED_END || !reaches {
        return [bounds(start, end), None];
    }
    [
        bounds(start, Some(RESERVED_PREFIX)),
        bounds(RESERVED_END, end),
    ]
}

/// Bounds with room for a key.
fn bounds<'a>(start: &'a [u8], end: Option<&'a [u8]>) -> Option<Bounds<'a>> {
    let is_empty = end.is_some_and(|end| end <= start);
    (!is_empty).then_some(Bounds { start, end })
}
