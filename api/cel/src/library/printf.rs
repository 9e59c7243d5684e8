//! `format`: text with values in it.

use super::convert::duration_text;
use super::numbers::go_double;
use super::time::format_rfc3339;
use super::{Context, Outcome, Row, list, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::limits::MAX_VALUE_DEPTH;
use crate::value::{Map, Value, Work};

pub(super) const ROWS: &[Row] = &[(
    "format",
    "string.(list(dyn)) -> string",
    Cost::Format,
    format_text,
)];

/// Digits after the point that may be asked for.
const MAX_PRECISION: usize = 1000;

fn format_text<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let template = text(args, 0)?;
    let values = list(args, 1)?;
    let mut out = String::new();
    let mut next = 0;
    let mut rest = template.chars().peekable();
    while let Some(character) = rest.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        if rest.peek() == Some(&'%') {
            rest.next();
            out.push('%');
            continue;
        }
        let mut precision = None;
        if rest.peek() == Some(&'.') {
            rest.next();
            let mut digits = 0_usize;
            while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
                rest.next();
                digits = digits.saturating_mul(10).saturating_add(digit as usize);
            }
            precision = Some(digits.min(MAX_PRECISION));
        }
        let Some(clause) = rest.next() else {
            return Err(EvalError::failed(
                "unexpected end of format string".to_owned(),
            ));
        };
        if next >= values.len() {
            return Err(EvalError::failed(format!("index {next} out of range")));
        }
        let value = values.get(next)?;
        next += 1;
        let shown = clause_text(clause, precision, &value, &mut context.work)?;
        context.work.spend(shown.len() / 8)?;
        out.push_str(&shown);
    }
    Ok(Value::text(out))
}

fn clause_text(
    clause: char,
    precision: Option<usize>,
    value: &Value<'_>,
    work: &mut Work,
) -> Result<String, EvalError> {
    let wrong = |what: &str| {
        EvalError::failed(format!(
            "error during formatting: {what} clause can only be used on numbers, was given {}",
            value.type_name()
        ))
    };
    Ok(match (clause, value) {
        ('s', _) => shown(value, work, 0)?,
        ('d', Value::Int(value)) => value.to_string(),
        ('d', Value::Uint(value)) => value.to_string(),
        ('d', _) => return Err(wrong("decimal")),
        ('f' | 'e', Value::Double(value)) if !value.is_finite() => infinite(*value),
        ('f', Value::Double(value)) => format!("{value:.*}", precision.unwrap_or(6)),
        ('e', Value::Double(value)) => scientific(*value, precision.unwrap_or(6)),
        ('f' | 'e', _) => {
            let Some(value) = as_double(value) else {
                return Err(wrong("fixed-point"));
            };
            match clause {
                'f' => format!("{value:.*}", precision.unwrap_or(6)),
                _ => scientific(value, precision.unwrap_or(6)),
            }
        }
        ('b', Value::Int(value)) => signed(*value, |value| format!("{value:b}")),
        ('b', Value::Uint(value)) => format!("{value:b}"),
        ('b', Value::Bool(value)) => u8::from(*value).to_string(),
        ('o', Value::Int(value)) => signed(*value, |value| format!("{value:o}")),
        ('o', Value::Uint(value)) => format!("{value:o}"),
        ('x', Value::Int(value)) => signed(*value, |value| format!("{value:x}")),
        ('x', Value::Uint(value)) => format!("{value:x}"),
        ('X', Value::Int(value)) => signed(*value, |value| format!("{value:X}")),
        ('X', Value::Uint(value)) => format!("{value:X}"),
        ('x', Value::String(text)) => hex(text.as_bytes()),
        ('X', Value::String(text)) => hex(text.as_bytes()).to_uppercase(),
        ('x', Value::Bytes(bytes)) => hex(bytes),
        ('X', Value::Bytes(bytes)) => hex(bytes).to_uppercase(),
        ('b' | 'o' | 'x' | 'X', _) => {
            return Err(EvalError::failed(format!(
                "error during formatting: only integers, byte buffers, and strings can be formatted as hex, was given {}",
                value.type_name()
            )));
        }
        _ => {
            return Err(EvalError::failed(format!(
                "could not parse formatting clause: unrecognized formatting clause \"{clause}\""
            )));
        }
    })
}

#[allow(clippy::cast_precision_loss)]
fn as_double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Uint(value) => Some(*value as f64),
        Value::String(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn infinite(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value > 0.0 {
        "Infinity".to_owned()
    } else {
        "-Infinity".to_owned()
    }
}

fn scientific(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let exponent: i32 = exponent.parse().unwrap_or_default();
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        None => text,
    }
}

fn signed(value: i64, write: impl Fn(u64) -> String) -> String {
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}", write(value.unsigned_abs()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn shown(value: &Value<'_>, work: &mut Work, depth: usize) -> Result<String, EvalError> {
    work.spend(1)?;
    if depth > MAX_VALUE_DEPTH {
        return Err(EvalError::CostExceeded);
    }
    Ok(match value {
        Value::Double(value) if !value.is_finite() => infinite(*value),
        Value::Double(value) => go_double(*value),
        Value::Duration(nanoseconds) => duration_text(*nanoseconds),
        Value::Timestamp(instant) => format_rfc3339(*instant),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::List(list) => {
            let mut parts = Vec::new();
            for at in 0..list.len() {
                let part = shown(&list.get(at)?, work, depth + 1)?;
                work.spend(part.len() / 8)?;
                parts.push(part);
            }
            format!("[{}]", parts.join(", "))
        }
        Value::Map(map) => shown_map(map, work, depth)?,
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Uint(_)
        | Value::String(_)
        | Value::Type(_) => value.to_string(),
        Value::Optional(_) | Value::Opaque(_) => {
            return Err(EvalError::failed(format!(
                "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given {}",
                value.type_name()
            )));
        }
    })
}

fn shown_map(map: &Map<'_>, work: &mut Work, depth: usize) -> Result<String, EvalError> {
    let mut parts = Vec::new();
    for key in map.keys() {
        let Some(value) = map.get(&key) else {
            continue;
        };
        let part = format!("{}: {}", key.to_value(), shown(&value?, work, depth + 1)?);
        work.spend(part.len() / 8)?;
        parts.push(part);
    }
    parts.sort();
    Ok(format!("{{{}}}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_asked() {
        let mut work = Work::new();
        let mut put = |clause, precision, value: Value<'_>| {
            clause_text(clause, precision, &value, &mut work).expect("formats")
        };
        assert_eq!(put('d', None, Value::Int(-5)), "-5");
        assert_eq!(put('f', Some(2), Value::Double(1.005)), "1.00");
        assert_eq!(put('e', None, Value::Double(1234.5)), "1.234500e+03");
        assert_eq!(put('x', None, Value::Int(-255)), "-ff");
        assert_eq!(put('X', None, Value::text("az")), "617A");
        assert_eq!(
            put('s', None, Value::list(vec![Value::Int(1), Value::Null])),
            "[1, null]"
        );
    }
}
