//! The functions that expressions may call: the language's own, and Kubernetes'
//! libraries. One row each: name, signature, cost, implementation; checker, estimator
//! and evaluator read the same row.
//!
//! Invariants
//! - Every signature can be read (a test holds it); names are those of the reference.
//! - A function that walks over more than its arguments' heads charges cost or work.

pub(crate) mod authorizer;
pub(crate) mod base64;
mod convert;
pub(crate) mod format;
mod lists;
mod net;
pub(crate) mod numbers;
mod operators;
mod optional;
pub(crate) mod patterns;
mod printf;
pub(crate) mod quantity;
pub(crate) mod semver;
mod strings;
pub(crate) mod time;
pub(crate) mod url;

pub(crate) use operators::append;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::cost::Cost;
use crate::error::EvalError;
use crate::types::{OPAQUE, Type};
use crate::value::{Opaque, Value, Work};

/// What a call gives.
pub(crate) type Outcome<'a> = Result<Value<'a>, EvalError>;
/// The implementation of a function; a member's receiver is its first argument.
pub(crate) type Native = for<'a> fn(&[Value<'a>], &mut Context<'_>) -> Outcome<'a>;
/// Name, signature, cost, implementation.
pub(crate) type Row = (&'static str, &'static str, Cost, Native);

/// What most functions cost.
const ONE: Cost = Cost::Fixed(1);
/// What it costs to read a text.
const PARSE: Cost = Cost::Walk {
    of: 0,
    times: 1,
    sized: false,
};

/// What functions may use.
pub(crate) struct Context<'p> {
    pub(crate) work: Work,
    pub(crate) patterns: patterns::Patterns<'p>,
}

/// One form of a function.
#[derive(Debug)]
pub(crate) struct Overload {
    /// Whether it is called on a receiver.
    pub(crate) member: bool,
    pub(crate) params: Vec<Type>,
    pub(crate) result: Type,
    /// Type parameters in `params` and `result`, numbered from 0.
    pub(crate) type_params: usize,
    pub(crate) cost: Cost,
    pub(crate) call: Native,
}

impl Overload {
    /// Whether the values may be its arguments.
    pub(crate) fn accepts(&self, args: &[Value<'_>]) -> bool {
        args.len() == self.params.len()
            && args
                .iter()
                .zip(&self.params)
                .all(|(arg, param)| accepts(param, arg))
    }
}

fn accepts(param: &Type, arg: &Value<'_>) -> bool {
    match (param, arg) {
        (Type::Dyn | Type::Param(_), _)
        | (Type::Null, Value::Null)
        | (Type::Bool, Value::Bool(_))
        | (Type::Int, Value::Int(_))
        | (Type::Uint, Value::Uint(_))
        | (Type::Double, Value::Double(_))
        | (Type::String, Value::String(_))
        | (Type::Bytes, Value::Bytes(_))
        | (Type::Timestamp, Value::Timestamp(_))
        | (Type::Duration, Value::Duration(_))
        | (Type::Map(_), Value::Map(_))
        | (Type::Type(_), Value::Type(_)) => true,
        (Type::List(element), Value::List(list)) => match &**element {
            Type::Dyn | Type::Param(_) => true,
            // Enough to tell the overloads of one function apart.
            element => match list.get(0) {
                Ok(first) if !list.is_empty() => accepts(element, &first),
                _ => list.is_empty(),
            },
        },
        (Type::Optional(inner), Value::Optional(value)) => {
            value.as_ref().is_none_or(|value| accepts(inner, value))
        }
        (Type::Opaque(name), Value::Opaque(value)) => {
            Value::Opaque(Opaque::clone(value)).type_name() == *name
        }
        _ => false,
    }
}

/// The forms of the function of that name.
pub(crate) fn find(function: &str) -> &'static [Overload] {
    FUNCTIONS.get(function).map_or(&[], Vec::as_slice)
}

static FUNCTIONS: LazyLock<BTreeMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let mut functions: BTreeMap<&'static str, Vec<Overload>> = BTreeMap::new();
    for (function, signature, cost, call) in rows() {
        if let Some(overload) = read_signature(signature, cost, call) {
            functions.entry(function).or_default().push(overload);
        }
    }
    functions
});

fn rows() -> impl Iterator<Item = Row> {
    [
        operators::ROWS,
        operators::LESS,
        operators::LESS_EQUAL,
        operators::GREATER,
        operators::GREATER_EQUAL,
        convert::ROWS,
        strings::ROWS,
        printf::ROWS,
        patterns::ROWS,
        time::ROWS,
        lists::ROWS,
        optional::ROWS,
        quantity::ROWS,
        net::ROWS,
        url::ROWS,
        semver::ROWS,
        format::ROWS,
        authorizer::ROWS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// `(int, int) -> bool`, or `string.(int) -> bool` for a member.
fn read_signature(text: &str, cost: Cost, call: Native) -> Option<Overload> {
    let (params, result) = text.split_once(" -> ")?;
    let (receiver, params) = params.strip_suffix(')')?.split_once('(')?;
    // A receiver may hold brackets itself: `list(A).(A)`.
    let (receiver, params) = match receiver.strip_suffix('.') {
        Some(receiver) => (Some(receiver), params),
        None if receiver.is_empty() => (None, params),
        None => {
            let whole = text.split_once(" -> ")?.0;
            let (receiver, params) = whole.split_once(".(")?;
            (Some(receiver), params.strip_suffix(')')?)
        }
    };
    let mut all = Vec::new();
    if let Some(receiver) = receiver {
        all.push(read_type(receiver)?);
    }
    for param in split_top(params) {
        all.push(read_type(param)?);
    }
    Some(Overload {
        member: receiver.is_some(),
        type_params: 2,
        params: all,
        result: read_type(result)?,
        cost,
        call,
    })
}

fn split_top(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() {
        parts.push(text[start..].trim());
    }
    parts
}

fn read_type(text: &str) -> Option<Type> {
    let inner = |prefix: &str| text.strip_prefix(prefix)?.strip_suffix(')');
    if let Some(element) = inner("list(") {
        return Some(Type::list(read_type(element)?));
    }
    if let Some(of) = inner("optional(") {
        return Some(Type::optional(read_type(of)?));
    }
    if let Some(of) = inner("type(") {
        return Some(Type::Type(Some(std::sync::Arc::new(read_type(of)?))));
    }
    if let Some(entry) = inner("map(") {
        let parts = split_top(entry);
        return Some(Type::map(
            read_type(parts.first()?)?,
            read_type(parts.get(1)?)?,
        ));
    }
    Some(match text {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "A" => Type::Param(0),
        "B" => Type::Param(1),
        name => Type::Opaque(
            OPAQUE
                .iter()
                .find(|opaque| opaque.rsplit('.').next() == Some(name))?,
        ),
    })
}

/// The names of types, and what they name.
pub(crate) fn type_identifier(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "double" => Type::Double,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "string" => Type::String,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "null_type" => Type::Null,
        "type" => Type::Type(None),
        "google.protobuf.Duration" => Type::Duration,
        "google.protobuf.Timestamp" => Type::Timestamp,
        "optional_type" => Type::optional(Type::Dyn),
        _ => Type::Opaque(OPAQUE.iter().find(|opaque| **opaque == name)?),
    })
}

pub(crate) fn text<'v>(args: &'v [Value<'_>], at: usize) -> Result<&'v str, EvalError> {
    match args.get(at) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(EvalError::no_such_overload()),
    }
}

pub(crate) fn int(args: &[Value<'_>], at: usize) -> Result<i64, EvalError> {
    match args.get(at) {
        Some(Value::Int(value)) => Ok(*value),
        _ => Err(EvalError::no_such_overload()),
    }
}

pub(crate) fn list<'v, 'a>(
    args: &'v [Value<'a>],
    at: usize,
) -> Result<&'v crate::value::List<'a>, EvalError> {
    match args.get(at) {
        Some(Value::List(list)) => Ok(list),
        _ => Err(EvalError::no_such_overload()),
    }
}

pub(crate) fn arg<'v, 'a>(args: &'v [Value<'a>], at: usize) -> Result<&'v Value<'a>, EvalError> {
    args.get(at).ok_or_else(EvalError::no_such_overload)
}

/// A length as the language counts.
pub(crate) fn count<'a>(length: usize) -> Value<'a> {
    Value::Int(i64::try_from(length).unwrap_or(i64::MAX))
}

/// Implementations that the evaluator does itself.
pub(crate) fn by_evaluator<'a>(_: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Err(EvalError::no_such_overload())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signature_is_read() {
        for (function, signature, cost, call) in rows() {
            assert!(
                read_signature(signature, cost, call).is_some(),
                "{function}: {signature}"
            );
        }
    }

    #[test]
    fn a_receiver_may_be_a_list() {
        let read = read_signature("list(A).(A) -> map(A, B)", Cost::Fixed(1), by_evaluator)
            .expect("a signature");
        assert!(read.member);
        assert_eq!(read.params.len(), 2);
    }
}
