//! An index built from keys in order, and taken apart into them: the way to and from a
//! checkpoint.
//!
//! Invariant: what is built has the keys, newest versions and past that were given; keys
//! or versions out of order are an error, never an index in disorder.

use std::ops::ControlFlow;

use crate::encoding::Place;
use crate::index::leaf::Leaf;
use crate::index::tree::{Bounds, Tree};
use crate::index::{KeyIndex, KeyParts, Newest};

/// Keys are given in ascending order, the past in order of its places.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    leaves: Vec<Leaf>,
    open: Leaf,
    last: Option<Vec<u8>>,
    index: KeyIndex,
    last_link: Option<Place>,
    last_tombstone: Option<Place>,
}

/// What is out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfOrder;

impl Builder {
    pub(crate) fn key(&mut self, key: &[u8], newest: Newest) -> Result<(), OutOfOrder> {
        let age_is_sound = newest
            .life
            .is_none_or(|life| life.create_revision <= newest.place.revision);
        if self.last.as_ref().is_some_and(|last| &last[..] >= key) || !age_is_sound {
            return Err(OutOfOrder);
        }
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
        self.open.append(key, newest);
        if self.open.is_overfull() {
            let next = self.open.split_off(self.open.len() - 1);
            self.leaves.push(std::mem::replace(&mut self.open, next));
        }
        Ok(())
    }

    pub(crate) fn link(
        &mut self,
        place: Place,
        before: Place,
        before_lives: bool,
    ) -> Result<(), OutOfOrder> {
        if self.last_link.is_some_and(|last| last >= place) || before >= place {
            return Err(OutOfOrder);
        }
        self.last_link = Some(place);
        self.index.past.link(place, before, before_lives);
        Ok(())
    }

    pub(crate) fn tombstone(&mut self, place: Place) -> Result<(), OutOfOrder> {
        if self.last_tombstone.is_some_and(|last| last >= place) {
            return Err(OutOfOrder);
        }
        self.last_tombstone = Some(place);
        self.index.past.tombstone(place);
        Ok(())
    }

    pub(crate) fn finish(mut self) -> KeyIndex {
        self.leaves.push(self.open);
        self.index.tree = Tree::from_leaves(self.leaves);
        self.index
    }
}

impl KeyIndex {
    /// Visits the keys from `start` on, deleted ones too.
    pub(crate) fn visit_all(
        &self,
        start: &[u8],
        visit: &mut dyn FnMut(KeyParts<'_>, Newest) -> ControlFlow<()>,
    ) {
        let bounds = Bounds { start, end: None };
        // Whether the visitor broke off is its own to know.
        let _ = self.tree.visit(bounds, &|_| false, visit);
    }

    /// What each superseding version came after, and whether that lived, in order.
    pub(crate) fn links(&self) -> impl Iterator<Item = (Place, Place, bool)> {
        self.past.pairs()
    }

    /// The deletions that are not swept, in order.
    pub(crate) fn tombstones(&self) -> impl Iterator<Item = Place> {
        self.past.tombstones()
    }

    /// Forgets every deleted key whose deletion is not after `upto`.
    pub(crate) fn forget_deleted(&mut self, upto: Place) {
        let mut gone = Vec::new();
        self.visit_all(&[], &mut |key, newest| {
            if newest.life.is_none() && newest.place <= upto {
                gone.push(key.to_vec());
            }
            ControlFlow::Continue(())
        });
        for key in &gone {
            self.tree.remove(key);
        }
    }
}
