//! The rows: what each number means, and which way is better.

use std::collections::{BTreeMap, BTreeSet};

/// What is aimed at, in terms of ours by the peer's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Aim {
    /// At least so many times the peer's.
    AtLeast(f64),
    /// At most so many times the peer's.
    AtMost(f64),
    /// Ours alone, at most so much.
    OursAtMost(f64),
    /// Looked at without an aim; more is better.
    More,
    /// Looked at without an aim; less is better.
    Less,
}

/// A row's name, unit and aim.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Its name in the JSON.
    pub what: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// What is aimed at.
    pub aim: Aim,
}

const fn row(what: &'static str, unit: &'static str, aim: Aim) -> Row {
    Row { what, unit, aim }
}

/// Rows of [`crate::serve`].
pub const SERVE: &[Row] = &[
    row("put_sequential_ms_p50", "ms", Aim::AtMost(1.0)),
    row("put_sequential_ms_p99", "ms", Aim::AtMost(1.0)),
    row("put_256b_c1_per_s", "puts/s", Aim::AtLeast(1.0)),
    row("put_256b_c64_per_s", "puts/s", Aim::AtLeast(2.0)),
    row("put_256b_c512_per_s", "puts/s", Aim::AtLeast(2.0)),
    row("put_1kib_c1_per_s", "puts/s", Aim::AtLeast(1.0)),
    row("put_1kib_c64_per_s", "puts/s", Aim::AtLeast(2.0)),
    row("put_1kib_c512_per_s", "puts/s", Aim::AtLeast(2.0)),
    row(
        "range_linearizable_leader_per_s",
        "reads/s",
        Aim::AtLeast(3.0),
    ),
    row(
        "range_linearizable_follower_per_s",
        "reads/s",
        Aim::AtLeast(3.0),
    ),
    row("mixed_90_10_per_s", "calls/s", Aim::More),
    row("txn_contended_per_s", "transactions/s", Aim::More),
    row(
        "watch_fanout_1000_events_per_s",
        "events/s",
        Aim::AtLeast(3.0),
    ),
    row("watch_10000_keys_events_per_s", "events/s", Aim::More),
    row("lease_keepalive_per_s", "renewals/s", Aim::More),
];
/// Rows of [`crate::failover`].
pub const FAILOVER: &[Row] = &[row("failover_gap_ms", "ms", Aim::AtMost(0.25))];
/// Rows of [`crate::growth`].
pub const GROWTH: &[Row] = &[
    row("start_100k_keys_s", "s", Aim::Less),
    row("start_1m_keys_s", "s", Aim::Less),
    row("bytes_per_key_resident", "B", Aim::AtMost(0.5)),
    row("bytes_per_key_anonymous", "B", Aim::Less),
];
/// Rows of [`crate::snapshot`].
pub const SNAPSHOT: &[Row] = &[
    row("snapshot_1gib_s", "s", Aim::Less),
    row("restore_1gib_s", "s", Aim::Less),
];
/// The row of the null cipher.
pub const ENCRYPTION: &[Row] = &[row("encryption_cost_share", "share", Aim::OursAtMost(0.05))];

/// Every row with a fixed name, in the order of the report.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    [SERVE, GROWTH, SNAPSHOT, FAILOVER, ENCRYPTION]
        .into_iter()
        .flatten()
}

/// The rows that were asked for.
#[derive(Debug, Clone)]
pub struct Wanted(Option<BTreeSet<String>>);

impl Wanted {
    /// Those of `only`, all when it is empty.
    ///
    /// # Errors
    /// When a name is none of a row; `growth` means all of them.
    pub fn new(only: &[String]) -> anyhow::Result<Self> {
        if only.is_empty() {
            return Ok(Self(None));
        }
        for name in only {
            let known = name == "growth" || rows().any(|row| row.what == name);
            anyhow::ensure!(known, "there is no row {name}");
        }
        Ok(Self(Some(only.iter().cloned().collect())))
    }

    /// Those of `only` among `rows`, all when it is empty.
    ///
    /// # Errors
    /// When a name is none of a row.
    pub fn among(only: &[String], rows: &[Row]) -> anyhow::Result<Self> {
        if only.is_empty() {
            return Ok(Self(None));
        }
        for name in only {
            let known = rows.iter().any(|row| row.what == name);
            anyhow::ensure!(known, "there is no row {name}");
        }
        Ok(Self(Some(only.iter().cloned().collect())))
    }

    /// Whether one of `names` is wanted.
    pub fn any(&self, names: &[&str]) -> bool {
        let Self(Some(wanted)) = self else {
            return true;
        };
        names.iter().any(|name| wanted.contains(*name))
    }

    /// Whether one of `rows` is wanted.
    pub fn any_of(&self, rows: &[Row]) -> bool {
        rows.iter().any(|row| self.any(&[row.what]))
    }
}

/// The numbers of one side in one pair.
#[derive(Debug, Clone, Default)]
pub struct Numbers(pub BTreeMap<String, f64>);

impl Numbers {
    /// Notes a number.
    pub fn add(&mut self, what: &str, number: f64) {
        self.0.insert(what.to_owned(), number);
    }
}

/// The middle one; the mean of the two in the middle.
pub fn median(numbers: &[f64]) -> Option<f64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(*upper);
    }
    sorted
        .get(middle - 1)
        .map(|lower| f64::midpoint(*lower, *upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_row_that_does_not_exist_is_refused() {
        Wanted::new(&["put_nothing".to_owned()]).expect_err("no such row");
        let wanted = Wanted::new(&["failover_gap_ms".to_owned()]).expect("a row");
        assert!(wanted.any_of(FAILOVER) && !wanted.any_of(SERVE));
    }
}
