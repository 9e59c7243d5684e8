//! How many seats each level has: its nominal share, what of that it lends, how far it
//! may borrow.

use super::schema::PriorityLevel;

/// A level's seats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// By its shares of the server's seats.
    pub nominal: u64,
    /// What it never lends.
    pub lower: u64,
    /// How many it may take with what others lend.
    pub upper: u64,
    /// Whether it is not limited at all.
    pub exempt: bool,
}

impl Share {
    /// Of a level whose configuration is gone: one at a time, until it is empty.
    pub(super) const RETIRED: Self = Self {
        nominal: 1,
        lower: 1,
        upper: 1,
        exempt: false,
    };

    /// Seats that others can't have while the level takes so many.
    pub(super) fn kept(&self, used: u64) -> u64 {
        used.max(self.lower)
    }
}

/// The shares of `total` seats, in the levels' order. Each limited level has at least
/// one seat; what is rounded up adds to the total.
pub(super) fn shares(total: u64, levels: &[PriorityLevel]) -> Vec<Share> {
    let sum: u64 = levels.iter().map(|level| level.shares).sum();
    let nominal = |level: &PriorityLevel| match sum {
        0 => u64::from(!level.exempt),
        _ => (total * level.shares)
            .div_ceil(sum)
            .max(u64::from(!level.exempt)),
    };
    let capacity: u64 = levels
        .iter()
        .filter(|level| !level.exempt)
        .map(nominal)
        .sum();
    levels
        .iter()
        .map(|level| {
            let nominal = nominal(level);
            // Rounded to the nearest, as the reference does.
            let lends = (nominal * level.lendable_percent.min(100) + 50) / 100;
            let upper = match level.borrowing_limit_percent {
                Some(percent) => {
                    nominal + (nominal.saturating_mul(percent).saturating_add(50)) / 100
                }
                None => capacity,
            };
            Share {
                nominal,
                lower: nominal - lends,
                upper: upper.min(capacity).max(nominal),
                exempt: level.exempt,
            }
        })
        .collect()
}
