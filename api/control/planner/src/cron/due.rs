//! Which time has come due since the last one, and whether there were many.

use nautilus_machinery::timestamp::Instant;

use super::clock::Clock;

/// Times that were missed, above which people are told.
const MANY_MISSED: i64 = 100;

/// The last time that came due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    /// Seconds since 1970.
    pub(super) at: i64,
    /// Whether more than [`MANY_MISSED`] came due since the one before.
    pub(super) are_many_missed: bool,
}

fn whole(seconds: i64) -> Instant {
    Instant {
        seconds,
        nanoseconds: 0,
    }
}

/// The last time that came due after `last`, up to `now`, and within the last `deadline_s`
/// seconds where given. How many came due is reckoned from the distance of the first two,
/// as in the reference.
///
/// # Errors
/// A schedule that never comes due, or only once.
pub(super) fn due(
    clock: &Clock,
    last: Instant,
    now: Instant,
    deadline_s: Option<i64>,
) -> Result<Option<Due>, &'static str> {
    const NEVER: &str = "time difference between two schedules is less than 1 second";
    let from = deadline_s.map_or(last, |deadline| {
        let earliest = Instant {
            seconds: now.seconds.saturating_sub(deadline),
            ..now
        };
        last.max(earliest)
    });
    let first = clock.next(from).ok_or(NEVER)?;
    if now < whole(first) {
        return Ok(None);
    }
    let second = clock.next(whole(first)).ok_or(NEVER)?;
    if now < whole(second) {
        return Ok(Some(Due {
            at: first,
            are_many_missed: false,
        }));
    }
    let interval = second - first;
    let missed = (now.seconds - first) / interval + 1;
    let mut at = None;
    let mut near = first + (missed - 2) * interval;
    while let Some(next) = clock.next(whole(near)).filter(|next| whole(*next) <= now) {
        at = Some(next);
        near = next;
    }
    Ok(at.map(|at| Due {
        at,
        are_many_missed: missed > MANY_MISSED,
    }))
}
