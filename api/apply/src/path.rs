//! Paths of fields: how one step names a child, how steps are ordered, printed and
//! written as keys of `fieldsV1`.
//!
//! Source: the FieldsV1 type of `meta.k8s.io` v1. `f:<name>` is a field,
//! `k:<keys>` an element of a list by its keys, `v:<value>` an element of a set,
//! `i:<index>` a place in a list.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Value};

use crate::value;

/// One step.
#[derive(Debug, Clone)]
pub enum PathElement {
    /// A field of a map or struct.
    Field(String),
    /// The element of a list whose fields have these values; ordered by name.
    Key(Vec<(String, Value)>),
    /// The element of a set.
    Value(Value),
    /// A place in a list.
    Index(i64),
}

/// From an object's root down.
pub type Path = Vec<PathElement>;

/// Why a key of `fieldsV1` names no step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyError {
    /// A kind of step that this release does not know: left out.
    Unknown,
    /// Not a step at all.
    Malformed(String),
}

impl PathElement {
    /// A field.
    pub fn field(name: &str) -> Self {
        Self::Field(name.to_owned())
    }

    /// The key of `fieldsV1`.
    pub fn to_key(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(fields) => {
                let fields: Vec<String> = fields
                    .iter()
                    .map(|(name, value)| format!("{}:{}", json_text(name), json(value)))
                    .collect();
                format!("k:{{{}}}", fields.join(","))
            }
            Self::Value(value) => format!("v:{}", json(value)),
            Self::Index(at) => format!("i:{at}"),
        }
    }

    /// Reads a key of `fieldsV1`.
    pub fn from_key(key: &str) -> Result<Self, KeyError> {
        if key.len() < 2 {
            return Err(KeyError::Malformed(
                "key must be 2 characters long:".to_owned(),
            ));
        }
        let (kind, rest) = match key.split_once(':') {
            Some((kind, rest)) if kind.len() == 1 => (kind, rest),
            _ => return Err(KeyError::Malformed(format!("missing colon: {key}"))),
        };
        let malformed = |error: serde_json::Error| KeyError::Malformed(error.to_string());
        match kind {
            "f" => Ok(Self::Field(rest.to_owned())),
            "v" => serde_json::from_str(rest)
                .map(Self::Value)
                .map_err(malformed),
            "k" => {
                let map: Map<String, Value> = serde_json::from_str(rest).map_err(malformed)?;
                let mut fields: Vec<(String, Value)> = map.into_iter().collect();
                fields.sort_by(|left, right| left.0.cmp(&right.0));
                Ok(Self::Key(fields))
            }
            "i" => rest.parse().map(Self::Index).map_err(|_| {
                KeyError::Malformed(format!(
                    "strconv.Atoi: parsing {}: invalid syntax",
                    value::quoted(rest)
                ))
            }),
            _ => Err(KeyError::Unknown),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        }
    }
}

/// A value inside a key, with the letters escaped that Go escapes for HTML.
fn json(value: &Value) -> String {
    match value {
        Value::Number(number) => value::number_text(number),
        Value::String(text) => value::escaped(&json_text(text)),
        _ => value.to_string(),
    }
}

fn json_text(text: &str) -> String {
    Value::from(text).to_string()
}

impl Ord for PathElement {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(left), Self::Field(right)) => left.cmp(right),
            (Self::Key(left), Self::Key(right)) => {
                for (l, r) in left.iter().zip(right) {
                    let order = l.0.cmp(&r.0).then_with(|| value::compare(&l.1, &r.1));
                    if order.is_ne() {
                        return order;
                    }
                }
                left.len().cmp(&right.len())
            }
            (Self::Value(left), Self::Value(right)) => value::compare(left, right),
            (Self::Index(left), Self::Index(right)) => left.cmp(right),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for PathElement {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for PathElement {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for PathElement {}

impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                let fields: Vec<String> = fields
                    .iter()
                    .map(|(name, value)| format!("{name}={}", value::shown(value)))
                    .collect();
                write!(f, "[{}]", fields.join(","))
            }
            Self::Value(value) => write!(f, "[={}]", value::shown(value)),
            Self::Index(at) => write!(f, "[{at}]"),
        }
    }
}

/// A path as messages print it: `.spec.containers[name="a"].image`.
pub fn shown(path: &[PathElement]) -> String {
    path.iter().map(ToString::to_string).collect()
}
