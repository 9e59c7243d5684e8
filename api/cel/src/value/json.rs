//! Values out of JSON and back.

use std::sync::{Arc, LazyLock};

use nautilus_machinery::timestamp;
use serde_json::Value as Json;

use super::{Entries, List, Map, Opaque, Text, Value};
use crate::declaration::{Declaration, Shape};
use crate::error::EvalError;
use crate::library::base64;
use crate::library::time::format_rfc3339;
use crate::limits::MAX_VALUE_DEPTH;

impl<'a> Value<'a> {
    /// JSON as it was declared. Fails on text that is no time or base64 where one was
    /// declared; what is of another type than declared is read as what it is.
    pub fn from_json(json: &'a Json, declared: &Declaration) -> Result<Self, EvalError> {
        Ok(match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match (&declared.shape, number.as_i64()) {
                (Shape::Double, _) | (_, None) => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
                (_, Some(value)) => Self::Int(value),
            },
            Json::String(text) => return text_from_json(text, &declared.shape),
            Json::Array(items) => {
                let element = match &declared.shape {
                    Shape::List(element) => Arc::clone(element),
                    _ => dynamic(),
                };
                Self::List(List::Json(items, element))
            }
            Json::Object(entries) => {
                let declared = match &declared.shape {
                    Shape::Map(value) => Entries::Each(Arc::clone(value)),
                    Shape::Object(object) => Entries::Fields(Arc::clone(object)),
                    _ => Entries::Each(dynamic()),
                };
                Self::Map(Map::Json(entries, declared))
            }
        })
    }

    /// The JSON that this is written as, for patches and annotations. Fails on what has
    /// no JSON.
    pub fn to_json(&self) -> Result<Json, EvalError> {
        self.to_json_at(0)
    }

    fn to_json_at(&self, depth: usize) -> Result<Json, EvalError> {
        if depth > MAX_VALUE_DEPTH {
            return Err(EvalError::CostExceeded);
        }
        Ok(match self {
            Self::Null | Self::Optional(None) => Json::Null,
            Self::Bool(value) => Json::from(*value),
            Self::Int(value) => Json::from(*value),
            Self::Uint(value) => Json::from(*value),
            Self::Double(value) => Json::from(*value),
            Self::String(text) => Json::from(&**text),
            Self::Timestamp(instant) => Json::from(format_rfc3339(*instant)),
            Self::Duration(nanoseconds) => Json::from(duration_json(*nanoseconds)),
            Self::Optional(Some(inner)) => inner.to_json_at(depth + 1)?,
            Self::Bytes(bytes) => Json::from(base64::encode(bytes)),
            Self::List(List::Json(items, _)) => Json::Array(items.to_vec()),
            Self::List(List::Owned(items)) => Json::Array(
                items
                    .iter()
                    .map(|item| item.to_json_at(depth + 1))
                    .collect::<Result<_, _>>()?,
            ),
            Self::Map(Map::Json(entries, _)) => Json::Object((*entries).clone()),
            Self::Map(Map::Owned(entries) | Map::Made(_, entries) | Map::Defaulting(entries)) => {
                let mut object = serde_json::Map::new();
                for (key, value) in entries.iter() {
                    if matches!(value, Self::Optional(None)) {
                        continue;
                    }
                    object.insert(key.to_text(), value.to_json_at(depth + 1)?);
                }
                Json::Object(object)
            }
            Self::Opaque(Opaque::Quantity(quantity)) => Json::from(quantity.to_text()),
            Self::Opaque(Opaque::Ip(address)) => Json::from(address.to_string()),
            Self::Opaque(Opaque::Cidr(address, bits)) => Json::from(format!("{address}/{bits}")),
            Self::Type(_) | Self::Opaque(_) => {
                return Err(EvalError::failed(format!(
                    "unsupported type conversion from '{}' to JSON",
                    self.type_name()
                )));
            }
        })
    }
}

/// Protobuf's JSON of a duration: seconds with up to nine digits.
fn duration_json(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let whole = nanoseconds.unsigned_abs();
    let (seconds, rest) = (whole / 1_000_000_000, whole % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let digits = format!("{rest:09}");
    let length = [3, 6, 9]
        .into_iter()
        .find(|length| digits.bytes().skip(*length).all(|digit| digit == b'0'))
        .unwrap_or(9);
    let digits = &digits[..length];
    format!("{sign}{seconds}.{digits}s")
}

/// The declaration of anything.
fn dynamic() -> Arc<Declaration> {
    static DYNAMIC: LazyLock<Arc<Declaration>> = LazyLock::new(|| Arc::new(Declaration::dynamic()));
    Arc::clone(&DYNAMIC)
}

fn text_from_json<'a>(text: &'a str, shape: &Shape) -> Result<Value<'a>, EvalError> {
    Ok(match shape {
        Shape::Duration => Value::Duration(timestamp::parse_duration(text).ok_or_else(|| {
            EvalError::failed(format!("failed to parse duration format value: {text:?}"))
        })?),
        Shape::Timestamp => Value::Timestamp(timestamp::parse(text).ok_or_else(|| {
            EvalError::failed(format!("failed to parse date-time format value: {text:?}"))
        })?),
        Shape::Date => {
            let midnight = format!("{text}T00:00:00Z");
            Value::Timestamp(timestamp::parse(&midnight).ok_or_else(|| {
                EvalError::failed(format!("failed to parse date format value: {text:?}"))
            })?)
        }
        Shape::Bytes => Value::Bytes(
            base64::decode(text)
                .ok_or_else(|| EvalError::failed(format!("failed to decode base64: {text:?}")))?,
        ),
        _ => Value::String(Text::Borrowed(text)),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn declared_text_becomes_what_it_says() {
        let json = json!("1h30m");
        let declared = Declaration {
            shape: Shape::Duration,
            max_elements: None,
            min_bytes: 3,
        };
        let value = Value::from_json(&json, &declared).expect("a duration");
        assert!(matches!(value, Value::Duration(5_400_000_000_000)));
        assert!(Value::from_json(&json!("soon"), &declared).is_err());
    }

    #[test]
    fn durations_are_written_as_protobuf_does() {
        assert_eq!(duration_json(1_500_000_000), "1.500s");
        assert_eq!(duration_json(-1), "-0.000000001s");
        assert_eq!(duration_json(60_000_000_000), "60s");
    }
}
