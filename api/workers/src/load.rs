//! How busy a worker says it is. Pure.

use serde::{Deserialize, Serialize};

/// A share of a worker's resource, in hundredths of a percent: 0 to 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Share(u16);

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self(10_000);

    /// Of a percentage; below 0 and above 100 it is cut off there.
    pub fn of_percent(percent: f64) -> Self {
        let hundredths = (percent * 100.0)
            .round()
            .clamp(0.0, f64::from(Self::WHOLE.0));
        // Within 0 to 10,000, or not a number, which becomes 0.
        Self(hundredths as u16)
    }

    /// In hundredths of a percent.
    pub fn basis_points(self) -> u16 {
        self.0
    }

    /// That share of `whole`, rounded down.
    pub fn of(self, whole: u128) -> u128 {
        // Divided first where the product would not fit.
        let (share, all) = (u128::from(self.0), u128::from(Self::WHOLE.0));
        whole
            .checked_mul(share)
            .map_or(whole / all * share, |product| product / all)
    }
}

/// Use of a worker's resources, as its last beats said; absent where none did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Of its processors.
    pub cpu: Option<Share>,
    /// Of its memory.
    pub memory: Option<Share>,
    /// Of its disk.
    pub disk: Option<Share>,
}

impl Load {
    /// What `newer` says, and this where it says nothing.
    pub fn updated(self, newer: Self) -> Self {
        Self {
            cpu: newer.cpu.or(self.cpu),
            memory: newer.memory.or(self.memory),
            disk: newer.disk.or(self.disk),
        }
    }
}

/// What a worker said, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadReport {
    /// How busy it is.
    pub load: Load,
    /// How long ago it said so, in milliseconds.
    pub age_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_cut_off_at_nothing_and_at_all() {
        for (percent, of_a_million) in [
            (-3.0, 0),
            (0.0, 0),
            (12.345, 123_500),
            (100.0, 1_000_000),
            (317.0, 1_000_000),
            (f64::NAN, 0),
        ] {
            assert_eq!(
                Share::of_percent(percent).of(1_000_000),
                of_a_million,
                "{percent}"
            );
        }
        assert_eq!(Share::WHOLE.of(u128::MAX), u128::MAX / 10_000 * 10_000);
    }

    #[test]
    fn what_a_beat_leaves_out_stays() {
        let half = Some(Share::of_percent(50.0));
        let load = Load {
            cpu: half,
            ..Load::default()
        };
        let newer = Load {
            memory: half,
            ..Load::default()
        };
        assert_eq!(
            load.updated(newer),
            Load {
                cpu: half,
                memory: half,
                disk: None
            }
        );
    }
}
