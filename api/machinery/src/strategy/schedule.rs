//! Schedules in the form of cron, and names of time zones.
//!
//! Source: crontab(5), and the words of the parser that the reference uses; the zones
//! of the IANA time zone database.

use crate::timestamp;

struct Bounds {
    low: u64,
    high: u64,
    names: &'static [&'static str],
}

/// Minute, hour, day of the month, month, day of the week.
const FIELDS: [Bounds; 5] = [
    Bounds {
        low: 0,
        high: 59,
        names: &[],
    },
    Bounds {
        low: 0,
        high: 23,
        names: &[],
    },
    Bounds {
        low: 1,
        high: 31,
        names: &[],
    },
    Bounds {
        low: 1,
        high: 12,
        names: &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    },
    Bounds {
        low: 0,
        high: 6,
        names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    },
];

const ZONES: &str = include_str!("time_zones.txt");

/// Whether there is a time zone of that name.
pub fn is_time_zone(name: &str) -> bool {
    name == "UTC" || ZONES.lines().any(|zone| zone == name)
}

/// A schedule, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The time zone that it names itself (`TZ=Europe/Berlin * * * * *`).
    pub zone: Option<String>,
    /// When it is due.
    pub times: Times,
}

/// When a schedule is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Times {
    /// At the minutes that all fields hold.
    At(Fields),
    /// This many seconds after the last time; at least one.
    Every(i64),
}

/// Minutes by the wall clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// 0 to 59.
    pub minutes: Field,
    /// 0 to 23.
    pub hours: Field,
    /// 1 to 31.
    pub days: Field,
    /// 1 to 12.
    pub months: Field,
    /// 0 (Sunday) to 6.
    pub weekdays: Field,
}

/// The values of one field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Field {
    bits: u64,
    /// Whether it is written as any: `*` or `?`.
    pub is_any: bool,
}

impl Field {
    /// Whether a value, below 64, is one of them.
    pub fn has(self, value: i8) -> bool {
        let bit = u32::try_from(value)
            .ok()
            .and_then(|at| 1_u64.checked_shl(at));
        bit.is_some_and(|bit| self.bits & bit != 0)
    }
}

impl Schedule {
    /// Reads a schedule; what is wrong with it in the words of the reference.
    ///
    /// # Errors
    /// What is no schedule.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("empty spec string".to_owned());
        }
        let (mut zone, mut rest) = (None, text);
        if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
            let Some((named, after)) = text.split_once(' ') else {
                return Err(
                    "invalid schedule format: runtime error: slice bounds out of range [:-1]"
                        .to_owned(),
                );
            };
            let name = named.split_once('=').map_or("", |(_, name)| name);
            if !name.is_empty() && !is_time_zone(name) {
                return Err(format!(
                    "provided bad location {name}: unknown time zone {name}"
                ));
            }
            zone = Some(name.to_owned());
            rest = after.trim();
        }
        let times = match rest.starts_with('@') {
            true => descriptor(rest)?,
            false => Times::At(fields(rest)?),
        };
        Ok(Self { zone, times })
    }
}

fn fields(text: &str) -> Result<Fields, String> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Err(format!(
            "expected exactly 5 fields, found {}: [{}]",
            parts.len(),
            parts.join(" ")
        ));
    }
    let mut fields = [Field::default(); FIELDS.len()];
    for ((part, bounds), field) in parts.iter().zip(&FIELDS).zip(&mut fields) {
        for text in part.split(',').filter(|range| !range.is_empty()) {
            let own = range(text, bounds)?;
            field.bits |= own.bits;
            field.is_any |= own.is_any;
        }
    }
    let [minutes, hours, days, months, weekdays] = fields;
    Ok(Fields {
        minutes,
        hours,
        days,
        months,
        weekdays,
    })
}

fn descriptor(text: &str) -> Result<Times, String> {
    const NANOSECONDS: i64 = 1_000_000_000;
    let known = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let Some(duration) = text.strip_prefix("@every ") else {
                return Err(format!("unrecognized descriptor: {text}"));
            };
            return match timestamp::parse_duration(duration) {
                Some(duration) => Ok(Times::Every((duration / NANOSECONDS).max(1))),
                None => Err(format!(
                    "failed to parse duration {text}: time: invalid duration \"{duration}\""
                )),
            };
        }
    };
    fields(known).map(Times::At)
}

fn range(text: &str, bounds: &Bounds) -> Result<Field, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let is_any = matches!(ends.as_slice(), ["*" | "?", ..]);
    let (start, mut end) = match ends.as_slice() {
        ["*" | "?", ..] => (bounds.low, bounds.high),
        [one] => {
            let one = number_or_name(one, bounds)?;
            (one, one)
        }
        [low, high] => (number_or_name(low, bounds)?, number_or_name(high, bounds)?),
        [low, ..] => {
            number_or_name(low, bounds)?;
            return Err(format!("too many hyphens: {text}"));
        }
        [] => return Ok(Field::default()),
    };
    let step = match parts.as_slice() {
        [_] => 1,
        [_, step] => {
            if ends.len() == 1 {
                end = bounds.high;
            }
            number(step)?
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    if start < bounds.low {
        let low = bounds.low;
        return Err(format!(
            "beginning of range ({start}) below minimum ({low}): {text}"
        ));
    }
    if end > bounds.high {
        let high = bounds.high;
        return Err(format!(
            "end of range ({end}) above maximum ({high}): {text}"
        ));
    }
    if start > end {
        return Err(format!(
            "beginning of range ({start}) beyond end of range ({end}): {text}"
        ));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let values = (start..=end).filter(|value| (value - start).is_multiple_of(step));
    Ok(Field {
        bits: values.fold(0, |bits, value| bits | 1 << value),
        is_any: is_any && step == 1,
    })
}

fn number_or_name(text: &str, bounds: &Bounds) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    match bounds.names.iter().position(|name| *name == lower) {
        Some(at) => Ok(bounds.low + at as u64),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u64, String> {
    match text.parse::<i64>() {
        Ok(number) if number < 0 => Err(format!("negative number ({number}) not allowed: {text}")),
        Ok(number) => Ok(number.unsigned_abs()),
        Err(_) => Err(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_told_apart() {
        for good in [
            "* * * * *",
            "*/5 1-3,7 1 jan-MAR sun",
            "@daily",
            "@every 1h30m",
            "0 0 1/2 * ?",
        ] {
            assert!(Schedule::parse(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            (
                "* 5-3 * * *",
                "beginning of range (5) beyond end of range (3): 5-3",
            ),
            ("@ever", "unrecognized descriptor: @ever"),
        ] {
            assert_eq!(Schedule::parse(bad), Err(why.to_owned()), "{bad}");
        }
    }

    #[test]
    fn fields_hold_what_is_written() {
        let read = |text: &str| {
            let Times::At(fields) = Schedule::parse(text).unwrap().times else {
                panic!("no fields: {text}")
            };
            let of = |field: Field| (0..60).filter(|at| field.has(*at)).collect::<Vec<i8>>();
            let any = (fields.days.is_any, fields.weekdays.is_any);
            (
                of(fields.minutes),
                of(fields.months),
                of(fields.weekdays),
                any,
            )
        };
        let every = |step: usize| (0..60).step_by(step).collect::<Vec<i8>>();
        let year: Vec<i8> = (1..13).collect();
        let week: Vec<i8> = (0..7).collect();
        for (text, minutes, months, weekdays, any) in [
            (
                "*/20 * */2 jan-mar,Dec sun",
                every(20),
                vec![1, 2, 3, 12],
                vec![0],
                (false, false),
            ),
            (
                "50/4 * ? 6/3 *",
                vec![50, 54, 58],
                vec![6, 9, 12],
                week.clone(),
                (true, true),
            ),
            (
                "7-9,1 * 1,* * */3",
                vec![1, 7, 8, 9],
                year.clone(),
                vec![0, 3, 6],
                (true, false),
            ),
            ("@weekly", vec![0], year, vec![0], (true, false)),
            ("TZ=UTC @annually", vec![0], vec![1], week, (false, true)),
        ] {
            assert_eq!(read(text), (minutes, months, weekdays, any), "{text}");
        }
        for (text, seconds) in [
            ("@every 1h30m", 5400),
            ("@every 1ms", 1),
            ("@every 1.9s", 1),
        ] {
            let schedule = Schedule::parse(text).unwrap();
            assert_eq!(schedule.times, Times::Every(seconds), "{text}");
        }
        let zone = Schedule::parse("CRON_TZ=Asia/Tokyo * * * * *")
            .unwrap()
            .zone;
        assert_eq!(zone.as_deref(), Some("Asia/Tokyo"));
    }

    #[test]
    fn zones_are_those_of_the_database() {
        assert!(is_time_zone("Europe/Berlin"));
        assert!(is_time_zone("UTC"));
        assert!(!is_time_zone("Europe/Nowhere"));
    }
}
