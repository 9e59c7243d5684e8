//! Histograms by powers of two, in place of the crate of this name.
//!
//! openraft counts sizes of its batches in histograms, and whoever makes the first one of
//! that crate makes its tables for all sixteen resolutions: 25 MiB that every node would
//! keep for a few hundred bytes of use. Nothing of ours reads the counts. This crate has
//! what openraft calls, in its words, without tables; the workspace puts it in the other's
//! place (`[patch.crates-io]`). It knows nothing of openraft or of ours.
//!
//! Invariant: a value is counted in exactly one bucket, whose lower bound is the largest
//! power of two (or zero) that is not above it.

use std::fmt;
use std::marker::PhantomData;

/// Zero, and one bucket for each bit that can be a number's highest.
const BUCKETS: usize = 1 + u64::BITS as usize;

/// How many values there were of each magnitude.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Box<[u64; BUCKETS]>,
    data: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// One without values.
    pub fn new() -> Self {
        Self {
            counts: Box::new([0; BUCKETS]),
            data: PhantomData,
        }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value as if it came `times` times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        self.counts[bucket] = self.counts[bucket].saturating_add(times);
    }

    /// Values counted.
    pub fn total(&self) -> u64 {
        self.counts
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The lower bounds of the buckets that the usual percentiles are in.
    pub fn percentile_stats(&self) -> PercentileStats {
        let samples = self.total();
        let at = |permille| self.at_permille(samples, permille);
        PercentileStats {
            samples,
            p0_1: at(1),
            p1: at(10),
            p5: at(50),
            p10: at(100),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p99_9: at(999),
        }
    }

    /// The lower bound of the bucket with the value that so many thousandths do not exceed.
    fn at_permille(&self, samples: u64, permille: u64) -> u64 {
        let wanted = u128::from(samples) * u128::from(permille);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += u128::from(*count) * 1000;
            seen > 0 && seen >= wanted
        });
        match found {
            None | Some(0) => 0,
            Some(bucket) => 1 << (bucket - 1),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Percentiles of a histogram, each as the lower bound of its bucket; zeros without values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// Values counted.
    pub samples: u64,
    /// A thousandth of the values is at most about this.
    pub p0_1: u64,
    /// A hundredth.
    pub p1: u64,
    /// A twentieth.
    pub p5: u64,
    /// A tenth.
    pub p10: u64,
    /// Half.
    pub p50: u64,
    /// Nine tenths.
    pub p90: u64,
    /// 99 hundredths.
    pub p99: u64,
    /// 999 thousandths.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "n={} p50={} p90={} p99={} p99.9={}",
            self.samples, self.p50, self.p90, self.p99, self.p99_9
        )
    }
}

/// Several histograms for people, one on a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AsciiChart {
    rows: Vec<(String, Histogram)>,
}

impl AsciiChart {
    /// One without rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one more row.
    #[must_use]
    pub fn add(mut self, name: &str, histogram: Histogram) -> Self {
        self.rows.push((name.to_owned(), histogram));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, histogram) in &self.rows {
            writeln!(f, "{name}: {}", histogram.percentile_stats())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_bounds_of_buckets() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.percentile_stats().p99, 0);
        histogram.record(0);
        histogram.record_n(5, 98);
        histogram.record(u64::MAX);
        let stats = histogram.percentile_stats();
        assert_eq!(histogram.total(), 100);
        assert_eq!((stats.p0_1, stats.p1), (0, 0));
        assert_eq!((stats.p5, stats.p50, stats.p99), (4, 4, 4));
        assert_eq!(stats.p99_9, 1 << 63);
        let chart = AsciiChart::new().add("sizes", histogram).to_string();
        assert!(chart.starts_with("sizes: n=100 p50=4"));
    }
}
