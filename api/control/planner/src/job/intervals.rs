//! Completion indexes as jobs write them: `1,3-5,7`.
//!
//! Invariant: intervals are in order, apart, and not empty.

use std::fmt;

/// Some indexes of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Intervals(Vec<(i64, i64)>);

impl Intervals {
    /// Reads a status or a rule; what is no interval, or at or past `completions`, is left
    /// out.
    pub(super) fn parse(text: &str, completions: i64) -> Self {
        let number = |text: &str| text.parse::<i64>().ok().filter(|own| *own >= 0);
        let intervals = text.split(',').filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?.min(completions - 1));
            (first <= last).then_some((first, last))
        });
        Self::of(intervals.collect())
    }

    fn of(mut intervals: Vec<(i64, i64)>) -> Self {
        intervals.sort_unstable();
        let mut merged: Vec<(i64, i64)> = Vec::with_capacity(intervals.len());
        for (first, last) in intervals {
            match merged.last_mut() {
                Some(own) if first <= own.1 + 1 => own.1 = own.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// These and more.
    pub(super) fn with(&self, indexes: impl IntoIterator<Item = i64>) -> Self {
        let more = indexes.into_iter().map(|index| (index, index));
        Self::of(self.0.iter().copied().chain(more).collect())
    }

    /// These and those.
    pub(super) fn and(&self, others: &Self) -> Self {
        Self::of(self.0.iter().chain(&others.0).copied().collect())
    }

    /// How many there are.
    pub(super) fn total(&self) -> i64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether an index is among them.
    pub(super) fn has(&self, index: i64) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many are in both.
    pub(super) fn in_common(&self, others: &Self) -> i64 {
        let (mut own, mut other, mut common) = (0, 0, 0);
        while let (Some(a), Some(b)) = (self.0.get(own), others.0.get(other)) {
            common += (a.1.min(b.1) - a.0.max(b.0) + 1).max(0);
            if a.1 <= b.1 {
                own += 1;
            }
            if b.1 <= a.1 {
                other += 1;
            }
        }
        common
    }

    /// The first `count` indexes below `completions` that are not among them.
    pub(super) fn missing(&self, count: usize, completions: i64) -> Vec<i64> {
        let mut missing = Vec::new();
        let mut next = 0;
        for (first, last) in self.0.iter().copied().chain([(completions, completions)]) {
            while next < first.min(completions) && missing.len() < count {
                missing.push(next);
                next += 1;
            }
            next = next.max(last + 1);
        }
        missing
    }
}

impl fmt::Display for Intervals {
    fn fmt(&self, output: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            if at > 0 {
                output.write_str(",")?;
            }
            match last - first {
                0 => write!(output, "{first}")?,
                1 => write!(output, "{first},{last}")?,
                _ => write!(output, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_written_as_read() {
        for (text, completions, expected, total) in [
            ("", 9, "", 0),
            ("1,3-5,7", 9, "1,3-5,7", 5),
            ("1,2,3", 9, "1-3", 3),
            ("0,1", 9, "0,1", 2),
            ("3-9", 5, "3,4", 2),
            ("7", 5, "", 0),
            ("x,2,4-y,3", 9, "2,3", 2),
        ] {
            let read = Intervals::parse(text, completions);
            assert_eq!(
                (read.to_string().as_str(), read.total()),
                (expected, total),
                "{text}"
            );
        }
    }

    #[test]
    fn gaps_are_filled_from_the_front() {
        let own = Intervals::parse("1,3-5", 8);
        assert_eq!(own.missing(9, 8), [0, 2, 6, 7]);
        assert_eq!(own.missing(2, 8), [0, 2]);
        assert_eq!(own.missing(9, 5), [0, 2]);
        assert!(own.has(4) && !own.has(2) && !own.has(6));
        assert_eq!(own.with([2, 9]).to_string(), "1-5,9");
        assert_eq!(own.in_common(&Intervals::parse("0-3,5-7", 8)), 3);
        assert_eq!(own.and(&Intervals::parse("6", 8)).to_string(), "1,3-6");
    }
}
