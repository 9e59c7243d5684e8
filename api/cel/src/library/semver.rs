//! Semantic versions (semver.org, 2.0.0).

use std::cmp::Ordering;
use std::sync::Arc;

use super::operators::{compare, is_greater, is_less};
use super::{Context, ONE, Outcome, PARSE, Row, text};
use crate::error::EvalError;
use crate::value::{Opaque, Value};

pub(super) const ROWS: &[Row] = &[
    ("semver", "(string) -> Semver", PARSE, parse),
    ("semver", "(string, bool) -> Semver", PARSE, parse),
    ("isSemver", "(string) -> bool", PARSE, is_semver),
    ("isSemver", "(string, bool) -> bool", PARSE, is_semver),
    ("isGreaterThan", "Semver.(Semver) -> bool", ONE, is_greater),
    ("isLessThan", "Semver.(Semver) -> bool", ONE, is_less),
    ("compareTo", "Semver.(Semver) -> int", ONE, compare),
    ("major", "Semver.() -> int", ONE, major),
    ("minor", "Semver.() -> int", ONE, minor),
    ("patch", "Semver.() -> int", ONE, patch),
];

/// A semantic version.
#[derive(Debug)]
pub struct Semver {
    numbers: [u64; 3],
    pre_release: Vec<Identifier>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Text(String),
}

impl Semver {
    /// The version that a text is; the error is the reference's message.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        read(text)
    }

    pub(super) fn order(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| {
            match (self.pre_release.is_empty(), other.pre_release.is_empty()) {
                (true, true) => Ordering::Equal,
                // A release comes after what led to it.
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => self.pre_release.cmp(&other.pre_release),
            }
        })
    }

    pub(crate) fn same_version(&self, other: &Self) -> bool {
        self.order(other) == Ordering::Equal
    }
}

fn number(text: &str, name: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "Invalid character(s) found in {name} number {text:?}"
        ));
    }
    if text.len() > 1 && text.starts_with('0') {
        let mut capital = name.to_owned();
        capital[..1].make_ascii_uppercase();
        return Err(format!(
            "{capital} number must not contain leading zeroes {text:?}"
        ));
    }
    text.parse()
        .map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"))
}

fn read(raw: &str) -> Result<Semver, String> {
    if raw.is_empty() {
        return Err("Version string empty".to_owned());
    }
    let parts: Vec<&str> = raw.splitn(3, '.').collect();
    let [major, minor, rest] = parts[..] else {
        return Err("No Major.Minor.Patch elements found".to_owned());
    };
    let (rest, build) = match rest.split_once('+') {
        Some((rest, build)) => (rest, Some(build)),
        None => (rest, None),
    };
    let (patch, pre_release) = match rest.split_once('-') {
        Some((patch, pre_release)) => (patch, Some(pre_release)),
        None => (rest, None),
    };
    let numbers = [
        number(major, "major")?,
        number(minor, "minor")?,
        number(patch, "patch")?,
    ];
    let good = |part: &str| {
        part.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let mut identifiers = Vec::new();
    for part in pre_release.iter().flat_map(|text| text.split('.')) {
        if part.is_empty() {
            return Err("Prerelease is empty".to_owned());
        }
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            if part.len() > 1 && part.starts_with('0') {
                return Err(format!(
                    "Numeric PreRelease version must not contain leading zeroes {part:?}"
                ));
            }
            identifiers.push(Identifier::Number(part.parse().unwrap_or(u64::MAX)));
        } else if good(part) {
            identifiers.push(Identifier::Text(part.to_owned()));
        } else {
            return Err(format!("Invalid character(s) found in prerelease {part:?}"));
        }
    }
    for part in build.iter().flat_map(|text| text.split('.')) {
        if part.is_empty() {
            return Err("Build meta data is empty".to_owned());
        }
        if !good(part) {
            return Err(format!(
                "Invalid character(s) found in build meta data {part:?}"
            ));
        }
    }
    Ok(Semver {
        numbers,
        pre_release: identifiers,
    })
}

/// Without a leading `v` or zeroes, filled up to three numbers.
fn normalized(raw: &str) -> Result<String, String> {
    let raw = raw.strip_prefix('v').unwrap_or(raw);
    let mut parts: Vec<String> = raw
        .splitn(3, '.')
        .map(|part| {
            let short = part.trim_start_matches('0');
            match short.bytes().next() {
                _ if part.len() < 2 => part.to_owned(),
                Some(first) if first.is_ascii_digit() => short.to_owned(),
                _ => format!("0{short}"),
            }
        })
        .collect();
    if parts.len() < 3 {
        if parts.last().is_some_and(|last| last.contains(['+', '-'])) {
            return Err("short version cannot contain PreRelease/Build meta data".to_owned());
        }
        parts.resize(3, "0".to_owned());
    }
    Ok(parts.join("."))
}

fn parsed(args: &[Value<'_>]) -> Result<Result<Semver, String>, EvalError> {
    let raw = text(args, 0)?;
    Ok(match args.get(1) {
        Some(Value::Bool(true)) => normalized(raw).and_then(|text| read(&text)),
        _ => read(raw),
    })
}

fn parse<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let version = parsed(args)?.map_err(EvalError::failed)?;
    Ok(Value::Opaque(Opaque::Semver(Arc::new(version))))
}

fn is_semver<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Bool(parsed(args)?.is_ok()))
}

fn component<'a>(args: &[Value<'a>], at: usize) -> Outcome<'a> {
    let Some(Value::Opaque(Opaque::Semver(version))) = args.first() else {
        return Err(EvalError::no_such_overload());
    };
    let number = version.numbers[at];
    Ok(Value::Int(i64::try_from(number).unwrap_or(i64::MAX)))
}

fn major<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    component(args, 0)
}

fn minor<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    component(args, 1)
}

fn patch<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    component(args, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_the_specification_says() {
        let ordered = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.2.0",
            "10.0.0",
        ];
        for pair in ordered.windows(2) {
            let (left, right) = (read(pair[0]).expect("good"), read(pair[1]).expect("good"));
            assert_eq!(left.order(&right), Ordering::Less, "{pair:?}");
        }
        for wrong in [
            "", "1", "1.2", "1.02.3", "1.2.3-", "1.2.3+", "v1.2.3", "1.2.3-é",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(normalized("v01.0"), Ok("1.0.0".to_owned()));
    }
}
