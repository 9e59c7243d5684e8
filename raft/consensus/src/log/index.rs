//! Which entries live, where their frames are, and the newest of them in memory.
//!
//! Pure. Invariants: indexes are consecutive; an entry that is not on disk yet is
//! always in memory; memory for entries that are on disk stays under the limit.

use std::collections::VecDeque;
use std::ops::Range;

use nautilus_machine::LogPosition;

use super::record::{HardVote, RawEntry};

/// Where an entry's frame starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

#[derive(Debug)]
struct Slot {
    term: u64,
    place: Option<Place>,
    cached: Option<RawEntry>,
}

/// One entry as a reader finds it.
#[derive(Debug)]
pub(crate) enum Found {
    /// In memory.
    Cached(RawEntry),
    /// On disk.
    At(Place),
}

/// The log's content by index.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) vote: Option<HardVote>,
    pub(crate) committed: Option<LogPosition>,
    purged: Option<LogPosition>,
    first: u64,
    slots: VecDeque<Slot>,
    cached_bytes: usize,
    cache_limit_bytes: usize,
    /// Everything before this index is out of memory or can't leave it.
    evict_next: u64,
    /// Truncations made in memory whose records are not durable yet.
    pub(crate) truncations_pending: usize,
}

impl Index {
    pub(crate) fn new(cache_limit_bytes: usize) -> Self {
        Self {
            vote: None,
            committed: None,
            purged: None,
            first: 0,
            slots: VecDeque::new(),
            cached_bytes: 0,
            cache_limit_bytes,
            evict_next: 0,
            truncations_pending: 0,
        }
    }

    pub(crate) fn purged(&self) -> Option<LogPosition> {
        self.purged
    }

    /// The newest entry, or the purge mark when none is left.
    pub(crate) fn last(&self) -> Option<LogPosition> {
        match self.slots.back() {
            Some(slot) => Some(LogPosition {
                term: slot.term,
                index: self.first + self.slots.len() as u64 - 1,
            }),
            None => self.purged,
        }
    }

    /// The indexes that can be read.
    pub(crate) fn live(&self) -> Range<u64> {
        self.first..self.first + self.slots.len() as u64
    }

    /// Adds an entry right after the last one, or after the purge mark. Where entries
    /// are read back from disk, the mark may come after them.
    pub(crate) fn append(&mut self, entry: RawEntry, place: Option<Place>) -> Result<(), String> {
        let index = entry.position.index;
        if self.slots.is_empty() && place.is_some() {
            self.first = index;
        } else if index != self.live().end {
            return Err(format!(
                "entry {index} comes where entry {} is wanted",
                self.live().end
            ));
        }
        if self.slots.is_empty() {
            self.evict_next = index;
        }
        self.cached_bytes += weight(&entry);
        self.slots.push_back(Slot {
            term: entry.position.term,
            place,
            cached: Some(entry),
        });
        self.evict();
        Ok(())
    }

    /// Notes that an entry is on disk; a slot that was replaced meanwhile is left alone.
    pub(crate) fn settle(&mut self, position: LogPosition, place: Place) {
        if let Some(slot) = self.slot_mut(position.index)
            && slot.term == position.term
            && slot.place.is_none()
        {
            slot.place = Some(place);
        }
    }

    pub(crate) fn truncate_from(&mut self, index: u64) {
        let keep = index
            .saturating_sub(self.first)
            .min(self.slots.len() as u64) as usize;
        for slot in self.slots.drain(keep..) {
            self.cached_bytes -= slot.cached.as_ref().map_or(0, weight);
        }
        if self.slots.is_empty() {
            // Read back from disk, the entries before may have gone with their segment.
            let after_purge = self.purged.map_or(0, |purged| purged.index + 1);
            self.first = self.first.min(index.max(after_purge));
        }
        self.evict_next = self.evict_next.min(self.live().end);
    }

    pub(crate) fn purge(&mut self, upto: LogPosition) {
        if self.purged >= Some(upto) {
            return;
        }
        let drop_count = (upto.index + 1)
            .saturating_sub(self.first)
            .min(self.slots.len() as u64);
        for slot in self.slots.drain(..drop_count as usize) {
            self.cached_bytes -= slot.cached.as_ref().map_or(0, weight);
        }
        self.first = self.first.max(upto.index + 1);
        self.evict_next = self.evict_next.max(self.first);
        self.purged = Some(upto);
    }

    /// The entries of `range` that live, in order, and the index of the first of them.
    pub(crate) fn find(&self, range: &Range<u64>) -> (u64, Vec<Found>) {
        let live = self.live();
        let (from, to) = (range.start.max(live.start), range.end.min(live.end));
        if from >= to {
            return (from, Vec::new());
        }
        let slots = self
            .slots
            .range((from - self.first) as usize..(to - self.first) as usize);
        let found = slots.map_while(|slot| match (&slot.cached, slot.place) {
            (Some(entry), _) => Some(Found::Cached(entry.clone())),
            (None, Some(place)) => Some(Found::At(place)),
            (None, None) => None,
        });
        (from, found.collect())
    }

    /// The oldest segment that still holds a live entry.
    pub(crate) fn oldest_segment(&self) -> Option<u64> {
        self.slots
            .front()
            .and_then(|slot| slot.place)
            .map(|place| place.segment)
    }

    /// Lets the oldest entries that are on disk go until the rest fits.
    pub(crate) fn evict(&mut self) {
        while self.cached_bytes > self.cache_limit_bytes {
            let index = self.evict_next;
            let Some(slot) = self.slot_mut(index) else {
                return;
            };
            if slot.place.is_none() {
                return;
            }
            let freed = slot.cached.take().as_ref().map_or(0, weight);
            self.cached_bytes -= freed;
            self.evict_next += 1;
        }
    }

    fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        let at = index.checked_sub(self.first)?;
        self.slots.get_mut(usize::try_from(at).ok()?)
    }
}

fn weight(entry: &RawEntry) -> usize {
    size_of::<Slot>() + entry.body.len()
}
