//! Who is interested in a key: single keys by hash, ranges by interval.
//!
//! Invariant: the rule of the reserved keys is that of [`KeyRange::contains`].

use std::collections::HashMap;

use bytes::Bytes;
use nautilus_machine::{KeyRange, RangeEnd, is_reserved};

use super::ranges::{End, Ranges};

/// One value for each range that somebody is interested in.
pub(super) struct Interest<V> {
    keys: HashMap<Bytes, V>,
    ranges: Ranges<V>,
}

impl<V> Default for Interest<V> {
    fn default() -> Self {
        Self {
            keys: HashMap::new(),
            ranges: Ranges::default(),
        }
    }
}

impl<V: Default> Interest<V> {
    /// Calls `f` with the value of every range that holds `key`.
    pub(super) fn each<'a>(&'a self, key: &[u8], mut f: impl FnMut(&'a V)) {
        if let Some(value) = self.keys.get(key) {
            f(value);
        }
        let reserved = is_reserved(key);
        self.ranges.each(key, &mut |start, value| {
            if !reserved || is_reserved(start) {
                f(value);
            }
        });
    }

    /// Changes the value of a range, made if it is not there.
    pub(super) fn change(&mut self, range: &KeyRange, f: impl FnOnce(&mut V)) {
        let Some(end) = end_of(range) else {
            if let Some(value) = self.keys.get_mut(&range.start[..]) {
                return f(value);
            }
            let mut value = V::default();
            f(&mut value);
            self.keys.insert(own(&range.start), value);
            return;
        };
        if let Some(value) = self.ranges.get_mut(&range.start, &end) {
            return f(value);
        }
        let mut value = V::default();
        f(&mut value);
        let end = match end {
            End::Before(end) => End::Before(own(&end)),
            End::Never => End::Never,
        };
        self.ranges.insert(own(&range.start), end, value);
    }

    /// Changes the value of a range that is there; it goes when `f` finds it empty.
    pub(super) fn reduce(&mut self, range: &KeyRange, f: impl FnOnce(&mut V) -> bool) {
        match end_of(range) {
            None => {
                if self.keys.get_mut(&range.start[..]).is_some_and(f) {
                    self.keys.remove(&range.start[..]);
                }
            }
            Some(end) => {
                if self.ranges.get_mut(&range.start, &end).is_some_and(f) {
                    self.ranges.remove(&range.start, &end);
                }
            }
        }
    }
}

/// `None` for a single key.
fn end_of(range: &KeyRange) -> Option<End> {
    match &range.end {
        RangeEnd::Single => None,
        RangeEnd::Key(end) => Some(End::Before(end.clone())),
        RangeEnd::Unbounded => Some(End::Never),
    }
}

/// A copy, so that the request the key came in is not kept alive by it.
fn own(key: &Bytes) -> Bytes {
    Bytes::copy_from_slice(key)
}
