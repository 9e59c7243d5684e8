//! Points in time and spans between them. Time zones are UTC and fixed offsets: the
//! names of places change with a database that this crate does not have.

use nautilus_machinery::timestamp::Instant;

use super::{Context, ONE, Outcome, Row, arg, text};
use crate::error::EvalError;
use crate::value::Value;

/// 0001-01-01T00:00:00Z
pub(crate) const MIN_SECONDS: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z
pub(crate) const MAX_SECONDS: i64 = 253_402_300_799;
const NANO: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

pub(super) const ROWS: &[Row] = &[
    ("getFullYear", "timestamp.() -> int", ONE, year),
    ("getFullYear", "timestamp.(string) -> int", ONE, year),
    ("getMonth", "timestamp.() -> int", ONE, month),
    ("getMonth", "timestamp.(string) -> int", ONE, month),
    ("getDayOfYear", "timestamp.() -> int", ONE, day_of_year),
    (
        "getDayOfYear",
        "timestamp.(string) -> int",
        ONE,
        day_of_year,
    ),
    ("getDayOfMonth", "timestamp.() -> int", ONE, day_of_month),
    (
        "getDayOfMonth",
        "timestamp.(string) -> int",
        ONE,
        day_of_month,
    ),
    ("getDate", "timestamp.() -> int", ONE, date),
    ("getDate", "timestamp.(string) -> int", ONE, date),
    ("getDayOfWeek", "timestamp.() -> int", ONE, day_of_week),
    (
        "getDayOfWeek",
        "timestamp.(string) -> int",
        ONE,
        day_of_week,
    ),
    ("getHours", "timestamp.() -> int", ONE, hours),
    ("getHours", "timestamp.(string) -> int", ONE, hours),
    ("getHours", "duration.() -> int", ONE, hours),
    ("getMinutes", "timestamp.() -> int", ONE, minutes),
    ("getMinutes", "timestamp.(string) -> int", ONE, minutes),
    ("getMinutes", "duration.() -> int", ONE, minutes),
    ("getSeconds", "timestamp.() -> int", ONE, seconds),
    ("getSeconds", "timestamp.(string) -> int", ONE, seconds),
    ("getSeconds", "duration.() -> int", ONE, seconds),
    ("getMilliseconds", "timestamp.() -> int", ONE, milliseconds),
    (
        "getMilliseconds",
        "timestamp.(string) -> int",
        ONE,
        milliseconds,
    ),
    ("getMilliseconds", "duration.() -> int", ONE, milliseconds),
];

/// A day of the proleptic Gregorian calendar.
struct Civil {
    year: i64,
    /// From 1.
    month: i64,
    /// From 1.
    day: i64,
}

/// Days since 1970-01-01, by H. Hinnant's algorithm over eras of 400 years.
fn civil(days: i64) -> Civil {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    Civil {
        year: year_of_era + era * 400 + i64::from(month <= 2),
        month,
        day: day_of_year - (153 * shifted_month + 2) / 5 + 1,
    }
}

fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// RFC 3339 with as many digits after the second as there are.
pub(crate) fn format_rfc3339(instant: Instant) -> String {
    let day = civil(instant.seconds.div_euclid(DAY));
    let second = instant.seconds.rem_euclid(DAY);
    let mut text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        day.year,
        day.month,
        day.day,
        second / 3_600,
        second / 60 % 60,
        second % 60
    );
    if instant.nanoseconds > 0 {
        let digits = format!("{:09}", instant.nanoseconds);
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

pub(crate) fn add_to_timestamp(at: Instant, by: i64) -> Result<Instant, EvalError> {
    let overflow = || EvalError::failed("timestamp overflow");
    let nanoseconds = i64::from(at.nanoseconds) + by.rem_euclid(NANO);
    let seconds = at
        .seconds
        .checked_add(by.div_euclid(NANO))
        .and_then(|seconds| seconds.checked_add(nanoseconds / NANO))
        .filter(|seconds| (MIN_SECONDS..=MAX_SECONDS).contains(seconds))
        .ok_or_else(overflow)?;
    Ok(Instant {
        seconds,
        nanoseconds: i32::try_from(nanoseconds % NANO).map_err(|_| overflow())?,
    })
}

pub(crate) fn between(later: Instant, earlier: Instant) -> Result<i64, EvalError> {
    later
        .seconds
        .checked_sub(earlier.seconds)
        .and_then(|seconds| seconds.checked_mul(NANO))
        .and_then(|value| {
            value.checked_add(i64::from(later.nanoseconds) - i64::from(earlier.nanoseconds))
        })
        .ok_or_else(|| EvalError::failed("duration overflow"))
}

/// Seconds of the local clock since 1970, and nanoseconds.
fn local(args: &[Value<'_>]) -> Result<(i64, i64), EvalError> {
    let Value::Timestamp(instant) = arg(args, 0)? else {
        return Err(EvalError::no_such_overload());
    };
    let offset = if args.len() > 1 {
        offset_seconds(text(args, 1)?)?
    } else {
        0
    };
    Ok((instant.seconds + offset, i64::from(instant.nanoseconds)))
}

fn offset_seconds(zone: &str) -> Result<i64, EvalError> {
    let unknown = || EvalError::failed(format!("unknown time zone {zone}"));
    let Some((hours, minutes)) = zone.split_once(':') else {
        return match zone {
            "" | "UTC" | "GMT" | "Etc/UTC" | "Etc/GMT" | "Z" | "Zulu" => Ok(0),
            _ => Err(unknown()),
        };
    };
    let negative = hours.starts_with('-');
    let hours: i64 = hours.parse().map_err(|_| unknown())?;
    let minutes: i64 = minutes.parse().map_err(|_| unknown())?;
    if hours.abs() > 24 || !(0..60).contains(&minutes) {
        return Err(unknown());
    }
    let minutes = if negative { -minutes } else { minutes };
    Ok((hours * 60 + minutes) * 60)
}

fn day(args: &[Value<'_>]) -> Result<(i64, Civil), EvalError> {
    let days = local(args)?.0.div_euclid(DAY);
    Ok((days, civil(days)))
}

fn year<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Int(day(args)?.1.year))
}

fn month<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Int(day(args)?.1.month - 1))
}

fn day_of_year<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let (days, civil) = day(args)?;
    Ok(Value::Int(days - days_of(civil.year, 1, 1)))
}

fn day_of_month<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Int(day(args)?.1.day - 1))
}

fn date<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Int(day(args)?.1.day))
}

fn day_of_week<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    // 1970-01-01 was a Thursday.
    Ok(Value::Int((day(args)?.0 + 4).rem_euclid(7)))
}

/// A unit of a span, or of the local clock within the next larger one.
fn unit<'a>(args: &[Value<'a>], nanoseconds: i64, within: i64) -> Outcome<'a> {
    if let Value::Duration(span) = arg(args, 0)? {
        return Ok(Value::Int(span / nanoseconds));
    }
    let (seconds, _) = local(args)?;
    let length = nanoseconds / NANO;
    Ok(Value::Int(seconds.div_euclid(length).rem_euclid(within)))
}

fn hours<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    unit(args, 3_600 * NANO, 24)
}

fn minutes<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    unit(args, 60 * NANO, 60)
}

fn seconds<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    unit(args, NANO, 60)
}

fn milliseconds<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    if let Value::Duration(span) = arg(args, 0)? {
        return Ok(Value::Int(span / 1_000_000));
    }
    Ok(Value::Int(local(args)?.1 / 1_000_000))
}

#[cfg(test)]
mod tests {
    use nautilus_machinery::timestamp::parse;

    use super::*;

    #[test]
    fn instants_are_written_as_they_were_read() {
        for text in [
            "2023-07-14T10:30:45.123Z",
            "0001-01-01T00:00:00Z",
            "2024-02-29T23:59:59.000000001Z",
            "9999-12-30T21:59:59Z",
        ] {
            assert_eq!(format_rfc3339(parse(text).expect("a time")), text);
        }
    }

    #[test]
    fn days_and_dates_agree() {
        for days in (-800_000..3_000_000).step_by(97) {
            let date = civil(days);
            assert_eq!(days_of(date.year, date.month, date.day), days);
        }
    }

    #[test]
    fn offsets_are_read() {
        assert_eq!(offset_seconds("-08:30"), Ok(-30_600));
        assert_eq!(offset_seconds("02:00"), Ok(7_200));
        assert!(offset_seconds("Mars/Base").is_err());
    }
}
