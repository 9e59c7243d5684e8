//! Values: what expressions are made of and give. JSON is wrapped, not copied; a field
//! becomes a value when it is read.
//!
//! Invariants
//! - Cloning a value costs no more than its outermost level.
//! - Comparing and converting charge the meter for every element, and stop at a depth.

mod containers;
mod json;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use nautilus_machinery::timestamp::{self, Instant};
use serde_json::Value as Json;

use crate::declaration::{Declaration, ObjectDeclaration};
use crate::error::EvalError;
use crate::library::authorizer::AuthorizerValue;
use crate::library::format::NamedFormat;
use crate::library::numbers::go_double;
use crate::library::quantity::QuantityValue;
use crate::library::semver::Semver;
use crate::library::time::format_rfc3339;
use crate::library::url::Url;
use crate::limits::{MAX_VALUE_DEPTH, MAX_WORK};

/// A value. Borrows the JSON it was made from.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A number.
    Double(f64),
    /// Text.
    String(Text<'a>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A point in time.
    Timestamp(Instant),
    /// A span of time, in nanoseconds.
    Duration(i64),
    /// A list.
    List(List<'a>),
    /// A map or an object.
    Map(Map<'a>),
    /// A type, by its name.
    Type(Arc<str>),
    /// One of a value and nothing.
    Optional(Option<Arc<Value<'a>>>),
    /// A value of one of Kubernetes' libraries.
    Opaque(Opaque),
}

/// A value of one of Kubernetes' libraries.
#[derive(Clone, Debug)]
pub enum Opaque {
    /// A quantity, as `100m`.
    Quantity(QuantityValue),
    /// An address.
    Ip(IpAddr),
    /// A network: address and length of the prefix.
    Cidr(IpAddr, u8),
    /// A parsed URL.
    Url(Arc<Url>),
    /// A semantic version.
    Semver(Arc<Semver>),
    /// A named format.
    Format(&'static NamedFormat),
    /// The authorizer, a question to it or its answer.
    Authorizer(AuthorizerValue),
}

/// Text, borrowed or shared.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    /// Out of JSON.
    Borrowed(&'a str),
    /// Made here.
    Shared(Arc<str>),
}

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

/// A list.
#[derive(Clone, Debug)]
pub enum List<'a> {
    /// Out of JSON, and what its elements are declared as.
    Json(&'a [Json], Arc<Declaration>),
    /// Made here.
    Owned(Arc<Vec<Value<'a>>>),
}

/// A map or an object.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// Out of JSON.
    Json(&'a serde_json::Map<String, Json>, Entries),
    /// Made here.
    Owned(Arc<BTreeMap<Key, Value<'a>>>),
    /// An object made here; its type's name.
    Made(Arc<str>, Arc<BTreeMap<Key, Value<'a>>>),
    /// Made here; a name that is looked up and not there has an empty map.
    Defaulting(Arc<BTreeMap<Key, Value<'a>>>),
}

/// How the entries of a JSON object are declared.
#[derive(Clone, Debug)]
pub enum Entries {
    /// All alike.
    Each(Arc<Declaration>),
    /// By name.
    Fields(Arc<ObjectDeclaration>),
}

/// A key of a map. Integers that fit are [`Key::Int`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An integer above those.
    Uint(u64),
    /// Text.
    String(Arc<str>),
}

/// Work that no cost was charged for.
#[derive(Debug)]
pub(crate) struct Work(u64);

impl Work {
    pub(crate) fn new() -> Self {
        Self(MAX_WORK)
    }

    pub(crate) fn spend(&mut self, steps: usize) -> Result<(), EvalError> {
        let steps = u64::try_from(steps).unwrap_or(u64::MAX);
        match self.0.checked_sub(steps) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => Err(EvalError::CostExceeded),
        }
    }
}

impl<'a> Value<'a> {
    /// Text made here.
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::String(Text::Shared(Arc::from(text.as_ref())))
    }

    /// A list made here.
    pub fn list(elements: Vec<Self>) -> Self {
        Self::List(List::Owned(Arc::new(elements)))
    }

    /// A map from names.
    pub fn map(entries: impl IntoIterator<Item = (String, Self)>) -> Self {
        let entries = entries
            .into_iter()
            .map(|(name, value)| (Key::String(name.into()), value))
            .collect();
        Self::Map(Map::Owned(Arc::new(entries)))
    }

    /// Nothing, where something may be.
    pub fn none() -> Self {
        Self::Optional(None)
    }

    /// Something.
    pub fn some(value: Self) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// The boolean that this is.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The text that this is.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The name of its type.
    pub fn type_name(&self) -> &str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::List(_) => "list",
            Self::Map(Map::Json(_, Entries::Fields(object))) => &object.name,
            Self::Map(Map::Made(name, _)) => name,
            Self::Map(_) => "map",
            Self::Type(_) => "type",
            Self::Optional(_) => "optional_type",
            Self::Opaque(value) => value.type_name(),
        }
    }

    /// The size that costs are computed from.
    pub(crate) fn size(&self) -> u64 {
        let size = match self {
            Self::String(text) => text.chars().count(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(list) => list.len(),
            Self::Map(map) => map.len(),
            Self::Optional(Some(inner)) => return inner.size(),
            Self::Opaque(Opaque::Ip(IpAddr::V4(_))) => 4,
            Self::Opaque(Opaque::Ip(IpAddr::V6(_))) => 16,
            Self::Opaque(Opaque::Cidr(_, bits)) => usize::from(*bits).div_ceil(8),
            _ => 1,
        };
        u64::try_from(size).unwrap_or(u64::MAX)
    }

    /// Whether this is the zero of its type.
    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(value) => !value,
            Self::Int(value) | Self::Duration(value) => *value == 0,
            Self::Uint(value) => *value == 0,
            Self::Double(value) => *value == 0.0,
            Self::String(_) | Self::Bytes(_) | Self::List(_) | Self::Map(_) => self.size() == 0,
            Self::Optional(inner) => inner.as_ref().is_none_or(|inner| inner.is_zero()),
            Self::Timestamp(_) | Self::Type(_) | Self::Opaque(_) => false,
        }
    }

    /// Equality over all types: values of types that have nothing in common differ.
    pub(crate) fn equals(&self, other: &Self, work: &mut Work) -> Result<bool, EvalError> {
        self.equals_at(other, work, 0)
    }

    fn equals_at(&self, other: &Self, work: &mut Work, depth: usize) -> Result<bool, EvalError> {
        work.spend(1)?;
        if depth > MAX_VALUE_DEPTH {
            return Err(EvalError::CostExceeded);
        }
        Ok(match (self, other) {
            (Self::Null, Self::Null) | (Self::Optional(None), Self::Optional(None)) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::String(a), Self::String(b)) => {
                work.spend(a.len().min(b.len()) / 16)?;
                **a == **b
            }
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Optional(Some(a)), Self::Optional(Some(b))) => {
                a.equals_at(b, work, depth + 1)?
            }
            (Self::Opaque(a), Self::Opaque(b)) => a.equals(b),
            (Self::List(a), Self::List(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for at in 0..a.len() {
                    if !a.get(at)?.equals_at(&b.get(at)?, work, depth + 1)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Self::Map(a), Self::Map(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for key in a.keys() {
                    let (Some(left), Some(right)) = (a.get(&key), b.get(&key)) else {
                        return Ok(false);
                    };
                    if !left?.equals_at(&right?, work, depth + 1)? {
                        return Ok(false);
                    }
                }
                true
            }
            _ => self.compare_numbers(other) == Some(Ordering::Equal),
        })
    }

    fn compare_numbers(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Uint(a), Self::Uint(b)) => Some(a.cmp(b)),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            (Self::Int(a), Self::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Uint(a), Self::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Double(a), Self::Int(b)) => compare_double(*a, i128::from(*b)),
            (Self::Double(a), Self::Uint(b)) => compare_double(*a, i128::from(*b)),
            (Self::Int(a), Self::Double(b)) => {
                compare_double(*b, i128::from(*a)).map(Ordering::reverse)
            }
            (Self::Uint(a), Self::Double(b)) => {
                compare_double(*b, i128::from(*a)).map(Ordering::reverse)
            }
            _ => None,
        }
    }

    /// Order, where the types have one.
    pub(crate) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::String(a), Self::String(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Timestamp(a), Self::Timestamp(b)) => {
                Some((a.seconds, a.nanoseconds).cmp(&(b.seconds, b.nanoseconds)))
            }
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            _ => self.compare_numbers(other),
        }
    }
}

fn compare_double(left: f64, right: i128) -> Option<Ordering> {
    if left.is_nan() {
        return None;
    }
    // All integers here are below 2^64, so that a double outside is never equal to one.
    if left >= 18_446_744_073_709_551_616.0 {
        return Some(Ordering::Greater);
    }
    if left < -9_223_372_036_854_775_808.0 {
        return Some(Ordering::Less);
    }
    let floor = left.floor();
    #[allow(clippy::cast_possible_truncation)]
    let whole = floor as i128;
    Some(whole.cmp(&right).then(if left > floor {
        Ordering::Greater
    } else {
        Ordering::Equal
    }))
}

impl Key {
    /// The key that a value is.
    pub(crate) fn of(value: &Value<'_>) -> Option<Self> {
        Some(match value {
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Int(*value),
            Value::Uint(value) => match i64::try_from(*value) {
                Ok(value) => Self::Int(value),
                Err(_) => Self::Uint(*value),
            },
            #[allow(clippy::cast_possible_truncation)]
            Value::Double(value) if value.fract() == 0.0 && value.abs() < 9.2e18 => {
                Self::Int(*value as i64)
            }
            Value::String(text) => Self::String(match text {
                Text::Shared(text) => Arc::clone(text),
                Text::Borrowed(text) => Arc::from(*text),
            }),
            _ => return None,
        })
    }

    /// The value that a key is.
    pub(crate) fn to_value<'a>(&self) -> Value<'a> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Uint(value) => Value::Uint(*value),
            Self::String(text) => Value::String(Text::Shared(Arc::clone(text))),
        }
    }

    fn to_text(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Uint(value) => value.to_string(),
            Self::String(text) => text.to_string(),
        }
    }
}

impl Opaque {
    fn type_name(&self) -> &'static str {
        match self {
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Ip(_) => "net.IP",
            Self::Cidr(..) => "net.CIDR",
            Self::Url(_) => "kubernetes.URL",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Authorizer(value) => value.type_name(),
        }
    }

    fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a, n), Self::Cidr(b, m)) => a == b && n == m,
            (Self::Url(a), Self::Url(b)) => a == b,
            (Self::Semver(a), Self::Semver(b)) => a.same_version(b),
            (Self::Format(a), Self::Format(b)) => a.name == b.name,
            _ => false,
        }
    }
}

/// How messages show a value.
impl std::fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Uint(value) => write!(f, "{value}"),
            Self::Double(value) => f.write_str(&go_double(*value)),
            Self::String(text) => f.write_str(text),
            Self::Type(name) => f.write_str(name),
            Self::Timestamp(instant) => f.write_str(&format_rfc3339(*instant)),
            Self::Duration(value) => f.write_str(&timestamp::format_duration(*value)),
            _ => f.write_str(self.type_name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn same(left: &Value<'_>, right: &Value<'_>) -> bool {
        left.equals(right, &mut Work::new()).expect("in bounds")
    }

    #[test]
    fn numbers_of_all_types_compare() {
        assert!(same(&Value::Int(1), &Value::Uint(1)));
        assert!(same(&Value::Int(1), &Value::Double(1.0)));
        assert!(!same(&Value::Int(1), &Value::Double(1.5)));
        assert!(!same(
            &Value::Uint(u64::MAX),
            &Value::Double(1.8446744073709552e19)
        ));
        assert_eq!(
            Value::Int(-1).compare(&Value::Uint(0)),
            Some(Ordering::Less)
        );
        assert_eq!(Value::Double(f64::NAN).compare(&Value::Int(0)), None);
        assert!(!same(&Value::Int(1), &Value::text("1")));
    }

    #[test]
    fn undeclared_fields_are_not_there() {
        let json = json!({"a": 1, "b": 2});
        let fields = [(
            "a".to_owned(),
            crate::Field {
                key: "a".to_owned(),
                declaration: Declaration::int(),
            },
        )];
        let declared = Declaration::object("O", fields.into_iter().collect());
        let Ok(Value::Map(map)) = Value::from_json(&json, &declared) else {
            panic!("an object");
        };
        assert_eq!(map.len(), 1);
        assert!(map.field("b").is_none());
    }
}
