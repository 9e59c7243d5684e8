//! Lists and sets.

use std::cmp::Ordering;

use super::operators::append;
use super::{Context, Outcome, Row, arg, count, int, list};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::limits::MAX_VALUE_DEPTH;
use crate::value::{List, Value, Work};

const EACH: Cost = Cost::Elements;
const SORT: Cost = Cost::SelfCompare { of: 0 };

pub(super) const ROWS: &[Row] = &[
    ("isSorted", "list(int).() -> bool", EACH, is_sorted),
    ("isSorted", "list(uint).() -> bool", EACH, is_sorted),
    ("isSorted", "list(double).() -> bool", EACH, is_sorted),
    ("isSorted", "list(bool).() -> bool", EACH, is_sorted),
    ("isSorted", "list(duration).() -> bool", EACH, is_sorted),
    ("isSorted", "list(timestamp).() -> bool", EACH, is_sorted),
    ("isSorted", "list(string).() -> bool", EACH, is_sorted),
    ("isSorted", "list(bytes).() -> bool", EACH, is_sorted),
    ("sum", "list(int).() -> int", EACH, sum_int),
    ("sum", "list(uint).() -> uint", EACH, sum_uint),
    ("sum", "list(double).() -> double", EACH, sum_double),
    ("sum", "list(duration).() -> duration", EACH, sum_duration),
    ("max", "list(int).() -> int", EACH, max),
    ("max", "list(uint).() -> uint", EACH, max),
    ("max", "list(double).() -> double", EACH, max),
    ("max", "list(bool).() -> bool", EACH, max),
    ("max", "list(duration).() -> duration", EACH, max),
    ("max", "list(timestamp).() -> timestamp", EACH, max),
    ("max", "list(string).() -> string", EACH, max),
    ("max", "list(bytes).() -> bytes", EACH, max),
    ("min", "list(int).() -> int", EACH, min),
    ("min", "list(uint).() -> uint", EACH, min),
    ("min", "list(double).() -> double", EACH, min),
    ("min", "list(bool).() -> bool", EACH, min),
    ("min", "list(duration).() -> duration", EACH, min),
    ("min", "list(timestamp).() -> timestamp", EACH, min),
    ("min", "list(string).() -> string", EACH, min),
    ("min", "list(bytes).() -> bytes", EACH, min),
    ("indexOf", "list(A).(A) -> int", EACH, index_of),
    ("lastIndexOf", "list(A).(A) -> int", EACH, last_index_of),
    ("includes", "dyn.(dyn) -> bool", EACH, includes),
    ("slice", "list(A).(int, int) -> list(A)", Cost::Slice, slice),
    (
        "flatten",
        "list(list(A)).() -> list(A)",
        Cost::Flatten,
        flatten,
    ),
    (
        "flatten",
        "list(dyn).(int) -> list(dyn)",
        Cost::Flatten,
        flatten,
    ),
    ("sort", "list(int).() -> list(int)", SORT, sort),
    ("sort", "list(uint).() -> list(uint)", SORT, sort),
    ("sort", "list(double).() -> list(double)", SORT, sort),
    ("sort", "list(bool).() -> list(bool)", SORT, sort),
    ("sort", "list(duration).() -> list(duration)", SORT, sort),
    ("sort", "list(timestamp).() -> list(timestamp)", SORT, sort),
    ("sort", "list(string).() -> list(string)", SORT, sort),
    ("sort", "list(bytes).() -> list(bytes)", SORT, sort),
    (
        "@sortByAssociatedKeys",
        "list(A).(list(int)) -> list(A)",
        BY_KEYS,
        sort_by,
    ),
    (
        "@sortByAssociatedKeys",
        "list(A).(list(uint)) -> list(A)",
        BY_KEYS,
        sort_by,
    ),
    (
        "@sortByAssociatedKeys",
        "list(A).(list(double)) -> list(A)",
        BY_KEYS,
        sort_by,
    ),
    (
        "@sortByAssociatedKeys",
        "list(A).(list(bool)) -> list(A)",
        BY_KEYS,
        sort_by,
    ),
    (
        "@sortByAssociatedKeys",
        "list(A).(list(duration)) -> list(A)",
        BY_KEYS,
        sort_by,
    ),
    (
        "@sortByAssociatedKeys",
        "list(A).(list(timestamp)) -> list(A)",
        BY_KEYS,
        sort_by,
    ),
    (
        "@sortByAssociatedKeys",
        "list(A).(list(string)) -> list(A)",
        BY_KEYS,
        sort_by,
    ),
    (
        "@sortByAssociatedKeys",
        "list(A).(list(bytes)) -> list(A)",
        BY_KEYS,
        sort_by,
    ),
    ("lists.range", "(int) -> list(int)", Cost::Range, range),
    ("reverse", "list(A).() -> list(A)", Cost::Reverse, reverse),
    ("distinct", "list(A).() -> list(A)", SORT, distinct),
    (
        "sets.contains",
        "(list(A), list(A)) -> bool",
        Cost::Sets(1),
        contains,
    ),
    (
        "sets.equivalent",
        "(list(A), list(A)) -> bool",
        Cost::Sets(2),
        equivalent,
    ),
    (
        "sets.intersects",
        "(list(A), list(A)) -> bool",
        Cost::Sets(1),
        intersects,
    ),
];

const BY_KEYS: Cost = Cost::SelfCompare { of: 1 };
/// Elements of `lists.range`; the reference has no limit but its cost.
const MAX_RANGE: i64 = 1_000_000;

fn compared(left: &Value<'_>, right: &Value<'_>) -> Result<Ordering, EvalError> {
    left.compare(right).ok_or_else(EvalError::no_such_overload)
}

fn is_sorted<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let all = list(args, 0)?;
    context.work.spend(all.len())?;
    for at in 1..all.len() {
        if compared(&all.get(at - 1)?, &all.get(at)?)?.is_gt() {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(args: &[Value<'a>], context: &mut Context<'_>, zero: Value<'a>) -> Outcome<'a> {
    let all = list(args, 0)?;
    let add = super::find("_+_")
        .iter()
        .find(|overload| overload.accepts(&[zero.clone(), zero.clone()]))
        .ok_or_else(EvalError::no_such_overload)?;
    let mut total = zero;
    for at in 0..all.len() {
        context.work.spend(1)?;
        total = (add.call)(&[total, all.get(at)?], context)?;
    }
    Ok(total)
}

fn sum_int<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    sum(args, context, Value::Int(0))
}

fn sum_uint<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    sum(args, context, Value::Uint(0))
}

fn sum_double<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    sum(args, context, Value::Double(0.0))
}

fn sum_duration<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    sum(args, context, Value::Duration(0))
}

fn best<'a>(
    args: &[Value<'a>],
    context: &mut Context<'_>,
    name: &str,
    better: fn(Ordering) -> bool,
) -> Outcome<'a> {
    let all = list(args, 0)?;
    context.work.spend(all.len())?;
    if all.is_empty() {
        return Err(EvalError::failed(format!("{name} called on empty list")));
    }
    let mut found = all.get(0)?;
    for at in 1..all.len() {
        let next = all.get(at)?;
        if better(compared(&next, &found)?) {
            found = next;
        }
    }
    Ok(found)
}

fn max<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    best(args, context, "max", Ordering::is_gt)
}

fn min<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    best(args, context, "min", Ordering::is_lt)
}

fn position(
    all: &List<'_>,
    element: &Value<'_>,
    work: &mut Work,
) -> Result<Option<usize>, EvalError> {
    for at in 0..all.len() {
        if all.get(at)?.equals(element, work)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn index_of<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let found = position(list(args, 0)?, arg(args, 1)?, &mut context.work)?;
    Ok(found.map_or(Value::Int(-1), count))
}

fn last_index_of<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let (all, element) = (list(args, 0)?, arg(args, 1)?);
    for at in (0..all.len()).rev() {
        if all.get(at)?.equals(element, &mut context.work)? {
            return Ok(count(at));
        }
    }
    Ok(Value::Int(-1))
}

fn includes<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let (target, element) = (arg(args, 0)?, arg(args, 1)?);
    let found = match target {
        Value::List(all) => position(all, element, &mut context.work)?.is_some(),
        other => other.equals(element, &mut context.work)?,
    };
    Ok(Value::Bool(found))
}

fn slice<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let (all, start, end) = (list(args, 0)?, int(args, 1)?, int(args, 2)?);
    if start < 0 || end < 0 {
        return Err(EvalError::failed(format!(
            "cannot slice({start}, {end}), negative indexes not supported"
        )));
    }
    if start > end {
        return Err(EvalError::failed(format!(
            "cannot slice({start}, {end}), start index must be less than or equal to end index"
        )));
    }
    let length = i64::try_from(all.len()).unwrap_or(i64::MAX);
    if length < end {
        return Err(EvalError::failed(format!(
            "cannot slice({start}, {end}), list is length {length}"
        )));
    }
    let within = |at: i64| usize::try_from(at).unwrap_or_default();
    context.work.spend(within(end - start))?;
    let part: Result<Vec<_>, _> = (within(start)..within(end)).map(|at| all.get(at)).collect();
    Ok(Value::list(part?))
}

fn flatten<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let depth = if args.len() > 1 { int(args, 1)? } else { 1 };
    if depth < 0 {
        return Err(EvalError::failed("level must be non-negative"));
    }
    let mut flat = Vec::new();
    let depth = usize::try_from(depth).unwrap_or(MAX_VALUE_DEPTH);
    flatten_into(
        list(args, 0)?,
        depth.min(MAX_VALUE_DEPTH),
        &mut flat,
        context,
    )?;
    Ok(Value::list(flat))
}

fn flatten_into<'a>(
    all: &List<'a>,
    depth: usize,
    flat: &mut Vec<Value<'a>>,
    context: &mut Context<'_>,
) -> Result<(), EvalError> {
    for at in 0..all.len() {
        context.work.spend(1)?;
        match all.get(at)? {
            Value::List(inner) if depth > 0 => flatten_into(&inner, depth - 1, flat, context)?,
            other => flat.push(other),
        }
    }
    Ok(())
}

fn sort<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let all = arg(args, 0)?.clone();
    sort_by(&[all.clone(), all], context)
}

fn sort_by<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let (elements, keys) = (list(args, 0)?, list(args, 1)?);
    if elements.len() != keys.len() {
        return Err(EvalError::failed(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list",
        ));
    }
    let length = keys.len();
    context
        .work
        .spend(length.saturating_mul(usize::BITS as usize - length.leading_zeros() as usize))?;
    let mut pairs: Vec<(Value<'a>, Value<'a>)> =
        keys.to_vec()?.into_iter().zip(elements.to_vec()?).collect();
    if let Some((first, _)) = pairs.first() {
        let alike = pairs
            .iter()
            .all(|(key, _)| key.type_name() == first.type_name() && key.compare(key).is_some());
        if !alike {
            return Err(EvalError::failed("list elements must have the same type"));
        }
    }
    pairs.sort_by(|(left, _), (right, _)| left.compare(right).unwrap_or(Ordering::Equal));
    Ok(Value::list(
        pairs.into_iter().map(|(_, element)| element).collect(),
    ))
}

fn range<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let end = int(args, 0)?;
    if end > MAX_RANGE {
        return Err(EvalError::CostExceeded);
    }
    context
        .work
        .spend(usize::try_from(end).unwrap_or_default())?;
    Ok(Value::list((0..end).map(Value::Int).collect()))
}

fn reverse<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let all = list(args, 0)?;
    context.work.spend(all.len())?;
    let mut elements = all.to_vec()?;
    elements.reverse();
    Ok(Value::list(elements))
}

fn distinct<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let all = list(args, 0)?;
    let mut found = Value::list(Vec::new());
    for at in 0..all.len() {
        let element = all.get(at)?;
        let Value::List(so_far) = &found else {
            return Err(EvalError::no_such_overload());
        };
        if position(so_far, &element, &mut context.work)?.is_none() {
            found = append(found, &Value::list(vec![element]), context)?;
        }
    }
    Ok(found)
}

fn holds_all(all: &List<'_>, part: &List<'_>, work: &mut Work) -> Result<bool, EvalError> {
    for at in 0..part.len() {
        if position(all, &part.get(at)?, work)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn contains<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let (all, part) = (list(args, 0)?, list(args, 1)?);
    Ok(Value::Bool(holds_all(all, part, &mut context.work)?))
}

fn equivalent<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let (left, right) = (list(args, 0)?, list(args, 1)?);
    let work = &mut context.work;
    Ok(Value::Bool(
        holds_all(left, right, work)? && holds_all(right, left, work)?,
    ))
}

fn intersects<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let (left, right) = (list(args, 0)?, list(args, 1)?);
    for at in 0..left.len() {
        if position(right, &left.get(at)?, &mut context.work)?.is_some() {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}
