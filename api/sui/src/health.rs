//! How one full node has been doing: whether to ask it, and how long it usually takes. Pure: time
//! and chance are arguments.
//!
//! ```text
//! closed --FAILURES_UNTIL_OPEN in a row--> open --pause over--> trial --answer--> closed
//!                                           ^---------failure-----'
//! ```
//! Invariants
//! - An open breaker lets nothing through; a trial lets one request through.
//! - Each failure of a trial at most doubles the pause, which is never above its limit.

use std::collections::VecDeque;
use std::time::Duration;

use crate::limits;

/// Whether requests go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breaker {
    /// They do; so many have failed in a row.
    Closed {
        /// In a row.
        failures: u32,
    },
    /// None does until then.
    Open {
        /// On the clock of the arguments.
        until_ms: u64,
        /// How often it was opened in a row.
        times: u32,
    },
    /// One does.
    Trial {
        /// When it was let through: one that is never heard of again must not be the last.
        since_ms: u64,
        /// How often it was opened in a row.
        times: u32,
    },
}

impl Breaker {
    /// Whether a request may go through now.
    pub(crate) fn admit(&mut self, now_ms: u64) -> bool {
        match *self {
            Self::Closed { .. } => true,
            Self::Open { until_ms, times } if now_ms >= until_ms => {
                *self = Self::Trial {
                    since_ms: now_ms,
                    times,
                };
                true
            }
            Self::Trial { since_ms, times }
                if now_ms >= since_ms.saturating_add(millis(limits::OPEN_FOR_MAX)) =>
            {
                *self = Self::Trial {
                    since_ms: now_ms,
                    times,
                };
                true
            }
            Self::Open { .. } | Self::Trial { .. } => false,
        }
    }

    /// A request was answered.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::Closed { failures: 0 };
    }

    /// A request failed; `chance` (any number) spreads the pauses of many nodes.
    pub(crate) fn failed(&mut self, now_ms: u64, chance: u64) {
        *self = match *self {
            Self::Closed { failures } if failures + 1 < limits::FAILURES_UNTIL_OPEN => {
                Self::Closed {
                    failures: failures + 1,
                }
            }
            Self::Closed { .. } => Self::open(now_ms, 1, chance),
            Self::Trial { times, .. } => Self::open(now_ms, times.saturating_add(1), chance),
            // Of a request that was under way when it was opened.
            Self::Open { until_ms, times } => Self::Open { until_ms, times },
        };
    }

    /// It asks to be left alone.
    pub(crate) fn told_to_wait(&mut self, now_ms: u64, chance: u64) {
        let times = match *self {
            Self::Closed { .. } => 1,
            Self::Open { times, .. } => times,
            Self::Trial { times, .. } => times.saturating_add(1),
        };
        *self = Self::open(now_ms, times, chance);
    }

    pub(crate) fn is_closed(self) -> bool {
        matches!(self, Self::Closed { .. })
    }

    fn open(now_ms: u64, times: u32, chance: u64) -> Self {
        Self::Open {
            until_ms: now_ms.saturating_add(pause_ms(limits::OPEN_FOR, times, chance)),
            times,
        }
    }
}

/// `base`, doubled with each time after the first, at most [`limits::OPEN_FOR_MAX`]; of that
/// between a half and the whole, by `chance`.
pub(crate) fn pause_ms(base: Duration, times: u32, chance: u64) -> u64 {
    let doublings = times.saturating_sub(1).min(20);
    let whole = millis(base)
        .saturating_mul(1 << doublings)
        .min(millis(limits::OPEN_FOR_MAX));
    let half = whole / 2;
    half + chance % (whole - half + 1)
}

/// How long answers took of late.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latencies(VecDeque<u64>);

impl Latencies {
    /// Remembers one, in milliseconds.
    pub(crate) fn observe(&mut self, took_ms: u64) {
        if self.0.len() >= limits::LATENCIES {
            self.0.pop_front();
        }
        self.0.push_back(took_ms);
    }

    /// How long to wait before another full node is asked too: what nine in ten answers took, at
    /// most `longest`.
    pub(crate) fn hedge_after_ms(&self, longest: Duration) -> u64 {
        let mut sorted: Vec<u64> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let usual = sorted.get(sorted.len() * 9 / 10).copied();
        usual
            .map_or(millis(longest), |usual| usual.saturating_add(usual / 4))
            .clamp(
                millis(limits::HEDGE_AFTER_MIN),
                millis(longest).max(millis(limits::HEDGE_AFTER_MIN)),
            )
    }
}

/// So many requests per second, and as many at once after a quiet second.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    per_second: u64,
    /// Thousandths of requests that may go now.
    left: u64,
    at_ms: u64,
}

impl Bucket {
    pub(crate) fn new(per_second: u32) -> Self {
        let per_second = u64::from(per_second.max(1));
        Self {
            per_second,
            left: per_second * 1000,
            at_ms: 0,
        }
    }

    /// Takes one, or tells in how many milliseconds there may be one.
    pub(crate) fn take(&mut self, now_ms: u64) -> Result<(), u64> {
        let passed = now_ms.saturating_sub(self.at_ms);
        self.at_ms = self.at_ms.max(now_ms);
        self.left = self
            .left
            .saturating_add(passed.saturating_mul(self.per_second))
            .min(self.per_second * 1000);
        match self.left.checked_sub(1000) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err((1000 - self.left).div_ceil(self.per_second)),
        }
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_breaker_opens_after_failures_in_a_row_and_closes_with_an_answer() {
        let mut breaker = Breaker::Closed { failures: 0 };
        for _ in 1..limits::FAILURES_UNTIL_OPEN {
            breaker.failed(0, 0);
            assert!(breaker.admit(0));
        }
        breaker.succeeded();
        for _ in 0..limits::FAILURES_UNTIL_OPEN {
            breaker.failed(100, u64::MAX);
        }
        let Breaker::Open { until_ms, times: 1 } = breaker else {
            panic!("{breaker:?}");
        };
        assert!(!breaker.admit(until_ms - 1));
        assert!(breaker.admit(until_ms), "one on trial");
        assert!(!breaker.admit(until_ms), "one alone");
        breaker.failed(until_ms, 0);
        assert!(matches!(breaker, Breaker::Open { times: 2, .. }));
        assert!(breaker.admit(u64::MAX));
        breaker.succeeded();
        assert_eq!(breaker, Breaker::Closed { failures: 0 });
    }

    #[test]
    fn a_trial_that_is_never_heard_of_is_not_the_last() {
        let mut breaker = Breaker::Trial {
            since_ms: 0,
            times: 1,
        };
        assert!(!breaker.admit(millis(limits::OPEN_FOR_MAX) - 1));
        assert!(breaker.admit(millis(limits::OPEN_FOR_MAX)));
    }

    #[test]
    fn a_hedge_comes_a_little_after_the_usual() {
        let longest = Duration::from_millis(600);
        let mut latencies = Latencies::default();
        assert_eq!(
            latencies.hedge_after_ms(longest),
            600,
            "nothing is known yet"
        );
        for _ in 0..limits::LATENCIES {
            latencies.observe(200);
        }
        assert_eq!(latencies.hedge_after_ms(longest), 250);
        for _ in 0..limits::LATENCIES {
            latencies.observe(5000);
        }
        assert_eq!(latencies.hedge_after_ms(longest), 600);
    }

    proptest! {
        #[test]
        fn a_pause_is_within_its_limits(times in 0_u32..100, chance in any::<u64>()) {
            let pause = pause_ms(limits::OPEN_FOR, times, chance);
            prop_assert!(pause >= millis(limits::OPEN_FOR) / 2);
            prop_assert!(pause <= millis(limits::OPEN_FOR_MAX));
        }

        /// Over any time no more go than the rate allows, and whoever waits as told gets one.
        #[test]
        fn a_bucket_holds_its_rate(rate in 1_u32..200, steps in proptest::collection::vec(0_u64..50, 1..200)) {
            let mut bucket = Bucket::new(rate);
            let (mut now, mut taken) = (0, 0_u64);
            for step in steps {
                now += step;
                match bucket.take(now) {
                    Ok(()) => taken += 1,
                    Err(wait) => {
                        now += wait;
                        prop_assert_eq!(bucket.take(now), Ok(()));
                        taken += 1;
                    }
                }
            }
            prop_assert!(taken * 1000 <= u64::from(rate) * (1000 + now));
        }

        /// Whatever happens, an open breaker lets nothing through before its time.
        #[test]
        fn nothing_passes_an_open_breaker(happenings in proptest::collection::vec((0_u8..4, 0_u64..1000), 1..60)) {
            let (mut breaker, mut now) = (Breaker::Closed { failures: 0 }, 0);
            for (what, after) in happenings {
                now += after;
                if let Breaker::Open { until_ms, .. } = breaker {
                    prop_assert_eq!(breaker.clone().admit(now), now >= until_ms);
                    prop_assert!(until_ms <= now + millis(limits::OPEN_FOR_MAX));
                }
                match what {
                    0 => { breaker.admit(now); }
                    1 => breaker.succeeded(),
                    2 => breaker.failed(now, after),
                    _ => breaker.told_to_wait(now, after),
                }
            }
        }
    }
}
