//! Values that may be absent.

use super::{Context, ONE, Outcome, Row, arg, by_evaluator, list};
use crate::error::EvalError;
use crate::value::Value;

pub(super) const ROWS: &[Row] = &[
    ("optional.of", "(A) -> optional(A)", ONE, of),
    (
        "optional.ofNonZeroValue",
        "(A) -> optional(A)",
        ONE,
        of_non_zero,
    ),
    ("optional.none", "() -> optional(A)", ONE, none),
    ("value", "optional(A).() -> A", ONE, value),
    ("hasValue", "optional(A).() -> bool", ONE, has_value),
    (
        "or",
        "optional(A).(optional(A)) -> optional(A)",
        ONE,
        by_evaluator,
    ),
    ("orValue", "optional(A).(A) -> A", ONE, by_evaluator),
    ("first", "list(A).() -> optional(A)", ONE, first),
    ("last", "list(A).() -> optional(A)", ONE, last),
    (
        "optional.unwrap",
        "(list(optional(A))) -> list(A)",
        ONE,
        unwrap,
    ),
    ("unwrapOpt", "list(optional(A)).() -> list(A)", ONE, unwrap),
];

fn of<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::some(arg(args, 0)?.clone()))
}

fn of_non_zero<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let value = arg(args, 0)?;
    Ok(if value.is_zero() {
        Value::none()
    } else {
        Value::some(value.clone())
    })
}

fn none<'a>(_: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::none())
}

fn value<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    match arg(args, 0)? {
        Value::Optional(Some(value)) => Ok((**value).clone()),
        Value::Optional(None) => Err(EvalError::failed("optional.none() dereference")),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn has_value<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    match arg(args, 0)? {
        Value::Optional(inner) => Ok(Value::Bool(inner.is_some())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn first<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let all = list(args, 0)?;
    if all.is_empty() {
        return Ok(Value::none());
    }
    all.get(0).map(Value::some)
}

fn last<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let all = list(args, 0)?;
    match all.len().checked_sub(1) {
        Some(at) => all.get(at).map(Value::some),
        None => Ok(Value::none()),
    }
}

fn unwrap<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let all = list(args, 0)?;
    context.work.spend(all.len())?;
    let mut found = Vec::new();
    for at in 0..all.len() {
        match all.get(at)? {
            Value::Optional(Some(value)) => found.push((*value).clone()),
            Value::Optional(None) => {}
            _ => return Err(EvalError::no_such_overload()),
        }
    }
    Ok(Value::list(found))
}
