//! Sets of keys as permissions speak of them: intervals, merged.
//!
//! Invariant: the intervals of a set are sorted, disjoint and do not touch, so that a
//! range is covered by the set exactly when one interval covers it.

use bytes::Bytes;

/// Where an interval ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// Before this key.
    Key(Bytes),
    /// With the key space.
    Unbounded,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Interval {
    start: Bytes,
    end: End,
}

impl Interval {
    /// `key` and `range_end` as in requests: no end is the key alone, one zero byte is
    /// the end of the key space.
    fn new(key: &Bytes, range_end: &Bytes) -> Self {
        let end = match &range_end[..] {
            [] => End::Key(after(key)),
            [0] => End::Unbounded,
            _ => End::Key(range_end.clone()),
        };
        Self {
            start: key.clone(),
            end,
        }
    }
}

/// The smallest key above `key`.
fn after(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// Whether a permission may be given for this range: not of no key, not empty.
pub(super) fn is_valid(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || range_end == [0] || key < range_end)
}

/// A set of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RangeSet(Vec<Interval>);

impl RangeSet {
    /// The union of ranges, given by key and range end.
    pub(super) fn of<'a>(ranges: impl Iterator<Item = (&'a Bytes, &'a Bytes)>) -> Self {
        let mut intervals: Vec<Interval> = ranges
            .map(|(key, range_end)| Interval::new(key, range_end))
            .collect();
        intervals.sort_unstable();
        let mut merged: Vec<Interval> = Vec::with_capacity(intervals.len());
        for interval in intervals {
            match merged.last_mut() {
                Some(last) if touches(last, &interval) => {
                    if interval.end > last.end {
                        last.end = interval.end;
                    }
                }
                _ => merged.push(interval),
            }
        }
        Self(merged)
    }

    /// Whether every key of the range asked for is in the set.
    pub(super) fn covers(&self, key: &[u8], range_end: &[u8]) -> bool {
        let at = self
            .0
            .partition_point(|interval| interval.start[..] <= *key);
        let Some(interval) = at.checked_sub(1).and_then(|at| self.0.get(at)) else {
            return false;
        };
        match (&interval.end, range_end) {
            (End::Unbounded, _) => true,
            (End::Key(_), [0]) => false,
            (End::Key(end), []) => *key < end[..],
            (End::Key(end), range_end) => *key < end[..] && *range_end <= end[..],
        }
    }
}

fn touches(last: &Interval, next: &Interval) -> bool {
    match &last.end {
        End::Unbounded => true,
        End::Key(end) => next.start <= *end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(&'static str, &'static str)]) -> RangeSet {
        let owned: Vec<(Bytes, Bytes)> = ranges
            .iter()
            .map(|(key, end)| {
                (
                    Bytes::from_static(key.as_bytes()),
                    Bytes::from_static(end.as_bytes()),
                )
            })
            .collect();
        RangeSet::of(owned.iter().map(|(key, end)| (key, end)))
    }

    #[test]
    fn a_single_key_covers_itself_only() {
        let keys = set(&[("foo", "")]);
        assert!(keys.covers(b"foo", b""));
        assert!(
            !keys.covers(b"foo\0", b"") && !keys.covers(b"fo", b"") && !keys.covers(b"foo", b"fop")
        );
        assert!(
            keys.covers(b"foo", b"foo\0"),
            "the same key, said as a range"
        );
    }

    #[test]
    fn ranges_that_touch_cover_a_range_across_their_border() {
        let keys = set(&[("c", "e"), ("a", "c")]);
        assert!(keys.covers(b"a", b"e") && keys.covers(b"b", b"d"));
        assert!(!keys.covers(b"a", b"f") && !keys.covers(b"e", b""));
    }

    #[test]
    fn ranges_with_a_gap_do_not_cover_a_range_across_it() {
        let keys = set(&[("a", "c"), ("d", "e")]);
        assert!(!keys.covers(b"b", b"e"));
        assert!(keys.covers(b"d", b"e") && !keys.covers(b"c", b""));
    }

    #[test]
    fn a_key_right_after_a_range_lengthens_it() {
        let keys = set(&[("a", "c"), ("c", "")]);
        assert!(keys.covers(b"a", b"c\0") && !keys.covers(b"a", b"c\0\0"));
    }

    #[test]
    fn only_an_open_range_covers_an_open_request() {
        let open = set(&[("b", "\0")]);
        assert!(
            open.covers(b"b", b"\0") && open.covers(b"zzz", b"\0") && !open.covers(b"a", b"\0")
        );
        assert!(!set(&[("b", "zzzz")]).covers(b"b", b"\0"));
        assert!(
            set(&[("\0", "\0")]).covers(b"\0", b"\0"),
            "the whole key space"
        );
    }

    #[test]
    fn a_permission_needs_a_key_and_an_end_after_it() {
        assert!(is_valid(b"a", b"") && is_valid(b"a", b"b") && is_valid(b"a", b"\0"));
        assert!(!is_valid(b"", b"b") && !is_valid(b"b", b"a") && !is_valid(b"b", b"b"));
    }
}
