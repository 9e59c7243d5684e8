//! Operators, sizes and containment.

use std::cmp::Ordering;

use super::{Context, ONE, Outcome, Row, arg, by_evaluator, count, list};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::library::time::{add_to_timestamp, between};
use crate::value::{Key, List, Opaque, Value};

pub(super) const ROWS: &[Row] = &[
    ("_?_:_", "(bool, A, A) -> A", Cost::Choice, by_evaluator),
    ("_&&_", "(bool, bool) -> bool", Cost::Logic, by_evaluator),
    ("_||_", "(bool, bool) -> bool", Cost::Logic, by_evaluator),
    ("!_", "(bool) -> bool", ONE, not),
    ("@not_strictly_false", "(bool) -> bool", ONE, by_evaluator),
    ("_==_", "(A, A) -> bool", Cost::Equality, equal),
    ("_!=_", "(A, A) -> bool", Cost::Equality, not_equal),
    ("_+_", "(bytes, bytes) -> bytes", Cost::AddText, add),
    ("_+_", "(double, double) -> double", ONE, add),
    ("_+_", "(duration, duration) -> duration", ONE, add),
    ("_+_", "(duration, timestamp) -> timestamp", ONE, add),
    ("_+_", "(timestamp, duration) -> timestamp", ONE, add),
    ("_+_", "(int, int) -> int", ONE, add),
    (
        "_+_",
        "(list(A), list(A)) -> list(A)",
        Cost::AddList,
        add_lists,
    ),
    ("_+_", "(string, string) -> string", Cost::AddText, add),
    ("_+_", "(uint, uint) -> uint", ONE, add),
    ("_/_", "(double, double) -> double", ONE, divide),
    ("_/_", "(int, int) -> int", ONE, divide),
    ("_/_", "(uint, uint) -> uint", ONE, divide),
    ("_%_", "(int, int) -> int", ONE, modulo),
    ("_%_", "(uint, uint) -> uint", ONE, modulo),
    ("_*_", "(double, double) -> double", ONE, multiply),
    ("_*_", "(int, int) -> int", ONE, multiply),
    ("_*_", "(uint, uint) -> uint", ONE, multiply),
    ("-_", "(double) -> double", ONE, negate),
    ("-_", "(int) -> int", ONE, negate),
    ("_-_", "(double, double) -> double", ONE, subtract),
    ("_-_", "(duration, duration) -> duration", ONE, subtract),
    ("_-_", "(int, int) -> int", ONE, subtract),
    ("_-_", "(timestamp, duration) -> timestamp", ONE, subtract),
    ("_-_", "(timestamp, timestamp) -> duration", ONE, subtract),
    ("_-_", "(uint, uint) -> uint", ONE, subtract),
    ("_[_]", "(list(A), int) -> A", ONE, by_evaluator),
    ("_[_]", "(map(A, B), A) -> B", ONE, by_evaluator),
    (
        "_[_]",
        "(optional(list(A)), int) -> optional(A)",
        ONE,
        by_evaluator,
    ),
    (
        "_[_]",
        "(optional(map(A, B)), A) -> optional(B)",
        ONE,
        by_evaluator,
    ),
    ("_[?_]", "(list(A), int) -> optional(A)", ONE, by_evaluator),
    (
        "_[?_]",
        "(optional(list(A)), int) -> optional(A)",
        ONE,
        by_evaluator,
    ),
    ("_[?_]", "(map(A, B), A) -> optional(B)", ONE, by_evaluator),
    (
        "_[?_]",
        "(optional(map(A, B)), A) -> optional(B)",
        ONE,
        by_evaluator,
    ),
    ("_?._", "(dyn, string) -> optional(A)", ONE, by_evaluator),
    ("@in", "(A, list(A)) -> bool", Cost::InList, in_list),
    ("@in", "(A, map(A, B)) -> bool", ONE, in_map),
    ("size", "(bytes) -> int", ONE, size),
    ("size", "bytes.() -> int", ONE, size),
    ("size", "(list(A)) -> int", ONE, size),
    ("size", "list(A).() -> int", ONE, size),
    ("size", "(map(A, B)) -> int", ONE, size),
    ("size", "map(A, B).() -> int", ONE, size),
    ("size", "(string) -> int", ONE, size),
    ("size", "string.() -> int", ONE, size),
    (
        "cel.@mapInsert",
        "(map(A, B), A, B) -> map(A, B)",
        ONE,
        by_evaluator,
    ),
    (
        "cel.@mapInsert",
        "(map(A, B), map(A, B)) -> map(A, B)",
        ONE,
        by_evaluator,
    ),
];

/// The rows of an operator that compares.
macro_rules! comparison {
    ($operator:literal, $call:ident) => {
        &[
            ($operator, "(bool, bool) -> bool", ONE, $call),
            ($operator, "(int, int) -> bool", ONE, $call),
            ($operator, "(int, double) -> bool", ONE, $call),
            ($operator, "(int, uint) -> bool", ONE, $call),
            ($operator, "(uint, uint) -> bool", ONE, $call),
            ($operator, "(uint, double) -> bool", ONE, $call),
            ($operator, "(uint, int) -> bool", ONE, $call),
            ($operator, "(double, double) -> bool", ONE, $call),
            ($operator, "(double, int) -> bool", ONE, $call),
            ($operator, "(double, uint) -> bool", ONE, $call),
            ($operator, "(string, string) -> bool", Cost::Equality, $call),
            ($operator, "(bytes, bytes) -> bool", Cost::Equality, $call),
            ($operator, "(timestamp, timestamp) -> bool", ONE, $call),
            ($operator, "(duration, duration) -> bool", ONE, $call),
        ]
    };
}

pub(super) const LESS: &[Row] = comparison!("_<_", less);
pub(super) const LESS_EQUAL: &[Row] = comparison!("_<=_", less_equal);
pub(super) const GREATER: &[Row] = comparison!("_>_", greater);
pub(super) const GREATER_EQUAL: &[Row] = comparison!("_>=_", greater_equal);

const INTEGER: &str = "integer";
const UNSIGNED: &str = "unsigned integer";
const DURATION: &str = "duration";

fn overflow(what: &str) -> EvalError {
    EvalError::failed(format!("{what} overflow"))
}

/// What was computed, unless it left its range.
fn within<'a>(computed: Option<Value<'a>>, what: &str) -> Outcome<'a> {
    computed.ok_or_else(|| overflow(what))
}

fn pair<'v, 'a>(args: &'v [Value<'a>]) -> Result<(&'v Value<'a>, &'v Value<'a>), EvalError> {
    Ok((arg(args, 0)?, arg(args, 1)?))
}

fn not<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(!value)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn equal<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let (left, right) = pair(args)?;
    Ok(Value::Bool(left.equals(right, &mut context.work)?))
}

fn not_equal<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let (left, right) = pair(args)?;
    Ok(Value::Bool(!left.equals(right, &mut context.work)?))
}

fn add<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(match pair(args)? {
        (Value::Int(a), Value::Int(b)) => within(a.checked_add(*b).map(Value::Int), INTEGER)?,
        (Value::Uint(a), Value::Uint(b)) => within(a.checked_add(*b).map(Value::Uint), UNSIGNED)?,
        (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
        (Value::String(a), Value::String(b)) => Value::text(format!("{}{}", &**a, &**b)),
        (Value::Bytes(a), Value::Bytes(b)) => Value::Bytes([&**a, &**b].concat().into()),
        (Value::Duration(a), Value::Duration(b)) => {
            within(a.checked_add(*b).map(Value::Duration), DURATION)?
        }
        (Value::Duration(by), Value::Timestamp(at))
        | (Value::Timestamp(at), Value::Duration(by)) => {
            Value::Timestamp(add_to_timestamp(*at, *by)?)
        }
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn add_lists<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let (left, right) = (list(args, 0)?, list(args, 1)?);
    context.work.spend(left.len() + right.len())?;
    let mut all = left.to_vec()?;
    all.extend(right.to_vec()?);
    Ok(Value::list(all))
}

/// `left + right` where nobody else holds `left`: the accumulator of a fold grows in place.
pub(crate) fn append<'a>(
    left: Value<'a>,
    right: &Value<'a>,
    context: &mut Context<'_>,
) -> Outcome<'a> {
    let (Value::List(List::Owned(mut items)), Value::List(more)) = (left, right) else {
        return Err(EvalError::no_such_overload());
    };
    context.work.spend(more.len())?;
    let all = std::sync::Arc::make_mut(&mut items);
    all.extend(more.to_vec()?);
    Ok(Value::List(List::Owned(items)))
}

fn subtract<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(match pair(args)? {
        (Value::Int(a), Value::Int(b)) => within(a.checked_sub(*b).map(Value::Int), INTEGER)?,
        (Value::Uint(a), Value::Uint(b)) => within(a.checked_sub(*b).map(Value::Uint), UNSIGNED)?,
        (Value::Double(a), Value::Double(b)) => Value::Double(a - b),
        (Value::Duration(a), Value::Duration(b)) => {
            within(a.checked_sub(*b).map(Value::Duration), DURATION)?
        }
        (Value::Timestamp(at), Value::Duration(by)) => {
            let by = by.checked_neg().ok_or_else(|| overflow(DURATION))?;
            Value::Timestamp(add_to_timestamp(*at, by)?)
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => Value::Duration(between(*a, *b)?),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn multiply<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(match pair(args)? {
        (Value::Int(a), Value::Int(b)) => within(a.checked_mul(*b).map(Value::Int), INTEGER)?,
        (Value::Uint(a), Value::Uint(b)) => within(a.checked_mul(*b).map(Value::Uint), UNSIGNED)?,
        (Value::Double(a), Value::Double(b)) => Value::Double(a * b),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn divide<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(match pair(args)? {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => {
            return Err(EvalError::failed("division by zero"));
        }
        (Value::Int(a), Value::Int(b)) => within(a.checked_div(*b).map(Value::Int), INTEGER)?,
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a / b),
        (Value::Double(a), Value::Double(b)) => Value::Double(a / b),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn modulo<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(match pair(args)? {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => {
            return Err(EvalError::failed("modulus by zero"));
        }
        (Value::Int(a), Value::Int(b)) => within(a.checked_rem(*b).map(Value::Int), INTEGER)?,
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a % b),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn negate<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    match arg(args, 0)? {
        Value::Int(value) => within(value.checked_neg().map(Value::Int), INTEGER),
        Value::Double(value) => Ok(Value::Double(-value)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn ordered<'a>(args: &[Value<'a>], holds: fn(Ordering) -> bool) -> Outcome<'a> {
    let (left, right) = pair(args)?;
    match left.compare(right) {
        Some(order) => Ok(Value::Bool(holds(order))),
        None => Err(EvalError::failed("NaN values cannot be ordered")),
    }
}

fn less<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    ordered(args, Ordering::is_lt)
}

fn less_equal<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    ordered(args, Ordering::is_le)
}

fn greater<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    ordered(args, Ordering::is_gt)
}

fn greater_equal<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    ordered(args, Ordering::is_ge)
}

/// How two quantities or two versions stand to each other.
fn order(args: &[Value<'_>]) -> Result<Ordering, EvalError> {
    match pair(args)? {
        (Value::Opaque(Opaque::Quantity(a)), Value::Opaque(Opaque::Quantity(b))) => {
            Ok(a.0.cmp(&b.0))
        }
        (Value::Opaque(Opaque::Semver(a)), Value::Opaque(Opaque::Semver(b))) => Ok(a.order(b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

pub(super) fn is_greater<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Bool(order(args)?.is_gt()))
}

pub(super) fn is_less<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Bool(order(args)?.is_lt()))
}

pub(super) fn compare<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Int(order(args)? as i64))
}

fn in_list<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let element = arg(args, 0)?;
    let all = list(args, 1)?;
    for at in 0..all.len() {
        if all.get(at)?.equals(element, &mut context.work)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn in_map<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let Value::Map(map) = arg(args, 1)? else {
        return Err(EvalError::no_such_overload());
    };
    let found = Key::of(arg(args, 0)?).is_some_and(|key| map.contains(&key));
    Ok(Value::Bool(found))
}

fn size<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let length = arg(args, 0)?.size();
    Ok(count(usize::try_from(length).unwrap_or(usize::MAX)))
}
