//! Turns at asking the chain: at most so many questions in any second. Pure.
//!
//! Invariant: in any stretch of time there are at most as many turns as its seconds times this
//! node's share of the rate, and one more.

use std::time::Duration;

/// Gives turns at even intervals, in the order of asking.
#[derive(Debug)]
pub(crate) struct Pace {
    interval_us: u64,
    next_us: u64,
}

impl Pace {
    /// At most `per_second` turns (at least 1).
    pub(crate) fn new(per_second: u32) -> Self {
        Self {
            interval_us: 1_000_000_u64.div_ceil(u64::from(per_second.max(1))),
            next_us: 0,
        }
    }

    /// How long to wait for the next turn, which is then taken; `None` when that is longer than
    /// `patience`, and nothing is taken. One of `members` that go by the same rate waits so many
    /// times as long between its turns.
    pub(crate) fn turn(
        &mut self,
        now_ms: u64,
        patience: Duration,
        members: usize,
    ) -> Option<Duration> {
        let now_us = now_ms.saturating_mul(1000);
        let at_us = self.next_us.max(now_us);
        let wait = Duration::from_micros(at_us - now_us);
        if wait > patience {
            return None;
        }
        let members = u64::try_from(members).unwrap_or(u64::MAX).max(1);
        self.next_us = at_us.saturating_add(self.interval_us.saturating_mul(members));
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_second_has_more_turns_than_the_rate_and_one(
            per_second in 1..500_u32,
            members in 1..8_usize,
            pauses in prop::collection::vec(0..40_u64, 1..400),
        ) {
            let mut pace = Pace::new(per_second);
            let mut now_ms = 0;
            let mut turns_us = Vec::new();
            for pause in pauses {
                now_ms += pause;
                if let Some(wait) = pace.turn(now_ms, Duration::from_secs(2), members) {
                    prop_assert!(wait <= Duration::from_secs(2));
                    turns_us.push(now_ms * 1000 + u64::try_from(wait.as_micros()).expect("short"));
                }
            }
            for (first, start_us) in turns_us.iter().enumerate() {
                let within = turns_us[first..]
                    .iter()
                    .take_while(|at_us| **at_us < start_us + 1_000_000)
                    .count();
                let share = per_second as usize / members;
                prop_assert!(within <= share + 1, "{within} of {per_second} / {members}");
            }
        }
    }

    #[test]
    fn a_turn_beyond_patience_is_refused_and_leaves_the_queue_as_it_was() {
        let mut pace = Pace::new(10);
        let patience = Duration::from_millis(150);
        assert_eq!(pace.turn(0, patience, 1), Some(Duration::ZERO));
        assert_eq!(pace.turn(0, patience, 1), Some(Duration::from_millis(100)));
        assert_eq!(pace.turn(0, patience, 1), None);
        assert_eq!(pace.turn(60, patience, 3), Some(Duration::from_millis(140)));
        assert_eq!(
            pace.turn(400, patience, 1),
            Some(Duration::from_millis(100))
        );
    }
}
