//! Quantities.

use nautilus_machinery::quantity::Quantity;

use super::operators::{compare, is_greater, is_less};
use super::{Context, ONE, Outcome, PARSE, Row, arg, text};
use crate::error::EvalError;
use crate::value::{Opaque, Value};

pub(super) const ROWS: &[Row] = &[
    ("quantity", "(string) -> Quantity", PARSE, parse),
    ("isQuantity", "(string) -> bool", PARSE, is_quantity),
    ("sign", "Quantity.() -> int", ONE, sign),
    (
        "isGreaterThan",
        "Quantity.(Quantity) -> bool",
        ONE,
        is_greater,
    ),
    ("isLessThan", "Quantity.(Quantity) -> bool", ONE, is_less),
    ("compareTo", "Quantity.(Quantity) -> int", ONE, compare),
    (
        "asApproximateFloat",
        "Quantity.() -> double",
        ONE,
        as_double,
    ),
    ("asInteger", "Quantity.() -> int", ONE, as_integer),
    ("isInteger", "Quantity.() -> bool", ONE, is_integer),
    ("add", "Quantity.(Quantity) -> Quantity", ONE, add),
    ("add", "Quantity.(int) -> Quantity", ONE, add),
    ("sub", "Quantity.(Quantity) -> Quantity", ONE, sub),
    ("sub", "Quantity.(int) -> Quantity", ONE, sub),
];

const NANO: i128 = 1_000_000_000;

/// A quantity as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantityValue(pub(crate) Quantity);

impl QuantityValue {
    pub(crate) fn to_text(&self) -> String {
        self.0.canonical()
    }
}

fn value<'a>(of: Quantity) -> Value<'a> {
    Value::Opaque(Opaque::Quantity(QuantityValue(of)))
}

fn quantity<'v>(args: &'v [Value<'_>], at: usize) -> Result<&'v Quantity, EvalError> {
    match args.get(at) {
        Some(Value::Opaque(Opaque::Quantity(of))) => Ok(&of.0),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn parse<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Quantity::parse(text(args, 0)?)
        .map(value)
        .map_err(EvalError::failed)
}

fn is_quantity<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Bool(Quantity::parse(text(args, 0)?).is_ok()))
}

fn sign<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let of = quantity(args, 0)?;
    #[allow(clippy::cast_possible_truncation)]
    let sign = of.nanounits().signum() as i64;
    Ok(Value::Int(sign))
}

#[allow(clippy::cast_precision_loss)]
fn as_double<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Double(
        quantity(args, 0)?.nanounits() as f64 / NANO as f64,
    ))
}

fn whole(of: &Quantity) -> Option<i64> {
    if !of.is_integer() {
        return None;
    }
    i64::try_from(of.nanounits() / NANO).ok()
}

fn as_integer<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    whole(quantity(args, 0)?)
        .map(Value::Int)
        .ok_or_else(|| EvalError::failed("cannot convert value to integer"))
}

fn is_integer<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Bool(whole(quantity(args, 0)?).is_some()))
}

fn other(args: &[Value<'_>]) -> Result<Quantity, EvalError> {
    match arg(args, 1)? {
        Value::Int(units) => {
            let magnitude = Quantity::of_count(units.unsigned_abs());
            Ok(if *units < 0 {
                Quantity::of_count(0).minus(&magnitude)
            } else {
                magnitude
            })
        }
        _ => quantity(args, 1).cloned(),
    }
}

fn add<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(value(quantity(args, 0)?.plus(&other(args)?)))
}

fn sub<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(value(quantity(args, 0)?.minus(&other(args)?)))
}
