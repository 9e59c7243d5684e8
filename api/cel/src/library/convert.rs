//! Conversions between types.

use std::sync::Arc;

use nautilus_machinery::timestamp::{self, Instant};

use super::numbers::{go_double, go_fixed};
use super::time::{MAX_SECONDS, MIN_SECONDS, format_rfc3339};
use super::{Context, ONE, Outcome, Row, arg};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::{Opaque, Value};

pub(super) const ROWS: &[Row] = &[
    ("type", "(A) -> type(A)", ONE, type_of),
    ("bool", "(bool) -> bool", ONE, same),
    ("bool", "(string) -> bool", ONE, to_bool),
    ("bytes", "(bytes) -> bytes", ONE, same),
    ("bytes", "(string) -> bytes", Cost::StringToBytes, to_bytes),
    ("double", "(double) -> double", ONE, same),
    ("double", "(int) -> double", ONE, to_double),
    ("double", "(string) -> double", ONE, to_double),
    ("double", "(uint) -> double", ONE, to_double),
    ("duration", "(duration) -> duration", ONE, same),
    ("duration", "(string) -> duration", ONE, to_duration),
    ("dyn", "(A) -> dyn", ONE, same),
    ("int", "(int) -> int", ONE, same),
    ("int", "(double) -> int", ONE, to_int),
    ("int", "(duration) -> int", ONE, to_int),
    ("int", "(string) -> int", ONE, to_int),
    ("int", "(timestamp) -> int", ONE, to_int),
    ("int", "(uint) -> int", ONE, to_int),
    ("string", "(string) -> string", ONE, same),
    ("string", "(bool) -> string", ONE, to_text),
    ("string", "(bytes) -> string", Cost::BytesToString, to_text),
    ("string", "(double) -> string", ONE, to_text),
    ("string", "(duration) -> string", ONE, to_text),
    ("string", "(int) -> string", ONE, to_text),
    ("string", "(timestamp) -> string", ONE, to_text),
    ("string", "(uint) -> string", ONE, to_text),
    ("string", "(IP) -> string", ONE, to_text),
    ("string", "(CIDR) -> string", ONE, to_text),
    ("timestamp", "(timestamp) -> timestamp", ONE, same),
    ("timestamp", "(int) -> timestamp", ONE, to_timestamp),
    ("timestamp", "(string) -> timestamp", ONE, to_timestamp),
    ("uint", "(uint) -> uint", ONE, same),
    ("uint", "(double) -> uint", ONE, to_uint),
    ("uint", "(int) -> uint", ONE, to_uint),
    ("uint", "(string) -> uint", ONE, to_uint),
];

fn no_conversion<'a>(from: &Value<'_>, to: &str) -> Outcome<'a> {
    Err(EvalError::failed(format!(
        "type conversion error from '{}' to '{to}'",
        from.type_name()
    )))
}

fn type_of<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Type(Arc::from(arg(args, 0)?.type_name())))
}

fn same<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    arg(args, 0).cloned()
}

fn to_bool<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let from = arg(args, 0)?;
    match from.as_str() {
        Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(Value::Bool(true)),
        Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(Value::Bool(false)),
        _ => no_conversion(from, "bool"),
    }
}

fn to_bytes<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    match arg(args, 0)? {
        Value::String(text) => Ok(Value::Bytes(text.as_bytes().into())),
        other => no_conversion(other, "bytes"),
    }
}

#[allow(clippy::cast_precision_loss)]
fn to_double<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let from = arg(args, 0)?;
    match from {
        Value::Int(value) => Ok(Value::Double(*value as f64)),
        Value::Uint(value) => Ok(Value::Double(*value as f64)),
        Value::String(text) => match text.parse() {
            Ok(value) if !text.starts_with(' ') => Ok(Value::Double(value)),
            _ => no_conversion(from, "double"),
        },
        other => no_conversion(other, "double"),
    }
}

fn to_duration<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let from = arg(args, 0)?;
    match from.as_str().and_then(timestamp::parse_duration) {
        Some(value) => Ok(Value::Duration(value)),
        None => no_conversion(from, "google.protobuf.Duration"),
    }
}

fn to_int<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let from = arg(args, 0)?;
    let overflow = || Err(EvalError::failed("integer overflow"));
    match from {
        #[allow(clippy::cast_possible_truncation)]
        Value::Double(value) => {
            if value.is_finite()
                && *value > -9_223_372_036_854_775_808.0
                && *value < 9_223_372_036_854_775_808.0
            {
                Ok(Value::Int(*value as i64))
            } else {
                overflow()
            }
        }
        Value::Uint(value) => match i64::try_from(*value) {
            Ok(value) => Ok(Value::Int(value)),
            Err(_) => overflow(),
        },
        Value::Duration(nanoseconds) => Ok(Value::Int(*nanoseconds)),
        Value::Timestamp(instant) => Ok(Value::Int(instant.seconds)),
        Value::String(text) => match text.parse() {
            Ok(value) => Ok(Value::Int(value)),
            Err(_) => no_conversion(from, "int"),
        },
        other => no_conversion(other, "int"),
    }
}

fn to_uint<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let from = arg(args, 0)?;
    let overflow = || Err(EvalError::failed("unsigned integer overflow"));
    match from {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Value::Double(value) => {
            if value.is_finite() && *value >= 0.0 && *value < 18_446_744_073_709_551_616.0 {
                Ok(Value::Uint(*value as u64))
            } else {
                overflow()
            }
        }
        Value::Int(value) => match u64::try_from(*value) {
            Ok(value) => Ok(Value::Uint(value)),
            Err(_) => overflow(),
        },
        Value::String(text) if !text.starts_with('+') => match text.parse() {
            Ok(value) => Ok(Value::Uint(value)),
            Err(_) => no_conversion(from, "uint"),
        },
        other => no_conversion(other, "uint"),
    }
}

fn to_text<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let from = arg(args, 0)?;
    Ok(Value::text(match from {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => go_double(*value),
        Value::Duration(nanoseconds) => duration_text(*nanoseconds),
        Value::Timestamp(instant) => format_rfc3339(*instant),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => {
                return Err(EvalError::failed(
                    "invalid UTF-8 in bytes, cannot convert to string",
                ));
            }
        },
        Value::Opaque(Opaque::Ip(address)) => address.to_string(),
        Value::Opaque(Opaque::Cidr(address, bits)) => format!("{address}/{bits}"),
        other => return no_conversion(other, "string"),
    }))
}

/// Seconds and `s`.
#[allow(clippy::cast_precision_loss)]
pub(super) fn duration_text(nanoseconds: i64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    let rest = nanoseconds % 1_000_000_000;
    format!("{}s", go_fixed(seconds as f64 + rest as f64 / 1e9))
}

fn to_timestamp<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let from = arg(args, 0)?;
    match from {
        Value::Int(seconds) if (MIN_SECONDS..=MAX_SECONDS).contains(seconds) => {
            Ok(Value::Timestamp(Instant {
                seconds: *seconds,
                nanoseconds: 0,
            }))
        }
        Value::Int(_) => Err(EvalError::failed("timestamp overflow")),
        Value::String(text) => match timestamp::parse(text) {
            Some(instant) => Ok(Value::Timestamp(instant)),
            None => no_conversion(from, "google.protobuf.Timestamp"),
        },
        other => no_conversion(other, "google.protobuf.Timestamp"),
    }
}
