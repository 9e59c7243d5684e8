//! Times as Kubernetes writes them: RFC 3339 in UTC, to the second (`Time`) or
//! to the microsecond (`MicroTime`). Reads no clock.

use jiff::Timestamp;

/// Seconds since 1970 and nanoseconds within the second.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: i32,
}

/// Reads RFC 3339 with any offset; `None` where it is not that.
pub fn parse(text: &str) -> Option<Instant> {
    let shaped = text.len() >= 20 && matches!(text.as_bytes().get(10), Some(b'T' | b't'));
    if !shaped {
        return None;
    }
    let timestamp: Timestamp = text.parse().ok()?;
    let seconds = timestamp.as_second();
    let nanoseconds = timestamp.subsec_nanosecond();
    if nanoseconds < 0 {
        return Some(Instant {
            seconds: seconds - 1,
            nanoseconds: nanoseconds + 1_000_000_000,
        });
    }
    Some(Instant {
        seconds,
        nanoseconds,
    })
}

/// As `2026-01-02T03:04:05Z`; `None` outside years 1 to 9999.
pub fn format_seconds(seconds: i64) -> Option<String> {
    let text = Timestamp::from_second(seconds).ok()?.to_string();
    // Years outside 0 to 9999 are written longer.
    (text.len() == "2026-01-02T03:04:05Z".len() && !text.starts_with("0000")).then_some(text)
}

/// As `2026-01-02T03:04:05.000006Z`; `None` outside years 1 to 9999.
pub fn format_micros(instant: Instant) -> Option<String> {
    let whole = format_seconds(instant.seconds)?;
    let whole = whole.strip_suffix('Z')?;
    Some(format!("{whole}.{:06}Z", instant.nanoseconds / 1000))
}

/// Go's duration text (`1h2m3.5s`) in nanoseconds.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: f64 = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        let after = rest.get(digits..)?;
        let unit_len = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let scale = match after.get(..unit_len)? {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * scale;
        rest = after.get(unit_len..)?;
    }
    if total > 9.2e18 {
        return None;
    }
    let nanoseconds = total.round() as i64;
    Some(if negative { -nanoseconds } else { nanoseconds })
}

/// Nanoseconds as Go prints a duration.
pub fn format_duration(nanoseconds: i64) -> String {
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let fraction = |value: u64, unit: u64, name: &str| {
        let text = format!(
            "{}.{:0>9}",
            value / unit,
            value % unit * (1_000_000_000 / unit)
        );
        let text = text.trim_end_matches('0').trim_end_matches('.').to_owned();
        format!("{text}{name}")
    };
    let text = if total < 1_000 {
        format!("{total}ns")
    } else if total < 1_000_000 {
        fraction(total, 1_000, "µs")
    } else if total < 1_000_000_000 {
        fraction(total, 1_000_000, "ms")
    } else {
        let minutes = total / 60_000_000_000;
        let seconds = fraction(total % 60_000_000_000, 1_000_000_000, "s");
        match (minutes / 60, minutes % 60) {
            (0, 0) => seconds,
            (0, minutes) => format!("{minutes}m{seconds}"),
            (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_turned_into_utc() {
        let instant = parse("2026-01-02T03:04:05+01:00").expect("a time");
        assert_eq!(
            format_seconds(instant.seconds).as_deref(),
            Some("2026-01-02T02:04:05Z")
        );
    }

    #[test]
    fn microseconds_are_always_written() {
        let instant = parse("2026-01-02T03:04:05.5Z").expect("a time");
        assert_eq!(
            format_micros(instant).as_deref(),
            Some("2026-01-02T03:04:05.500000Z")
        );
    }

    #[test]
    fn a_date_alone_is_no_time() {
        assert_eq!(parse("2026-01-02"), None);
    }

    #[test]
    fn durations_read_and_print_as_in_go() {
        for text in ["0s", "1h0m0s", "1m30s", "1.5s", "250ms", "-2s", "10ns"] {
            let parsed = parse_duration(text).expect(text);
            assert_eq!(format_duration(parsed), text);
        }
        assert_eq!(parse_duration("5"), None);
    }
}
