//! JSON to protobuf, as the reference's generated code writes it: fields in
//! ascending order; what is no pointer is always written, zero or not; maps by
//! ascending key. Where a message and its JSON form differ (times, quantities,
//! int-or-strings, raw extensions, inlined messages) the JSON form is read.

use serde_json::{Map, Value};

use super::{MAX_DEPTH, base64_bytes};
use crate::schema::{self, Field, SchemaOr, Shape, Type};
use crate::timestamp;

/// Why a value can't be written: it does not conform to its type.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The field's value has another shape.
    #[error("field {0} has a value of another type")]
    Shape(String),
    /// Nested too deeply.
    #[error("nests deeper than {MAX_DEPTH} levels")]
    Depth,
}

const EMPTY: &[Value] = &[];

/// The bytes of one message.
pub fn message(found: &Type, value: &Value) -> Result<Vec<u8>, WriteError> {
    let mut output = Vec::new();
    match value {
        Value::Object(map) => write_message(&mut output, found, map, MAX_DEPTH)?,
        Value::Null => write_message(&mut output, found, &Map::new(), MAX_DEPTH)?,
        _ => return Err(WriteError::Shape(found.name.clone())),
    }
    Ok(output)
}

/// A `runtime.Unknown` around a message.
pub fn unknown(output: &mut Vec<u8>, api_version: &str, kind: &str, message: &[u8]) {
    let mut type_meta = Vec::new();
    bytes(&mut type_meta, 1, api_version.as_bytes());
    bytes(&mut type_meta, 2, kind.as_bytes());
    bytes(output, 1, &type_meta);
    bytes(output, 2, message);
    bytes(output, 3, b"");
    bytes(output, 4, b"");
}

/// The metadata of a list, whose field it is in lists of every kind.
pub fn list_meta(output: &mut Vec<u8>, message: &[u8]) {
    bytes(output, 1, message);
}

/// One more item of a list, whose field it is in lists of every kind.
pub fn list_item(output: &mut Vec<u8>, message: &[u8]) {
    bytes(output, 2, message);
}

/// A `WatchEvent` message around a whole body.
pub fn watch_event(output: &mut Vec<u8>, kind: &str, body: &[u8]) {
    bytes(output, 1, kind.as_bytes());
    let mut raw = Vec::new();
    bytes(&mut raw, 1, body);
    bytes(output, 2, &raw);
}

fn write_message(
    output: &mut Vec<u8>,
    found: &Type,
    map: &Map<String, Value>,
    depth: usize,
) -> Result<(), WriteError> {
    let depth = depth.checked_sub(1).ok_or(WriteError::Depth)?;
    for field in found.by_number() {
        if field.inlined {
            if let Some(inner) = crate::fields::message_of(&field.shape) {
                let mut nested = Vec::new();
                write_message(&mut nested, inner, map, depth)?;
                bytes(output, field.number, &nested);
            }
            continue;
        }
        let value = map.get(&field.name).unwrap_or(&Value::Null);
        write_field(output, field, value, depth)?;
    }
    Ok(())
}

fn write_field(
    output: &mut Vec<u8>,
    field: &Field,
    value: &Value,
    depth: usize,
) -> Result<(), WriteError> {
    match (&field.shape, value) {
        (Shape::List(_) | Shape::Map(_) | Shape::Bytes, Value::Null) => Ok(()),
        (Shape::List(element), Value::Array(list)) => {
            for item in list {
                write_value(output, field, element, item, field.number, depth)?;
            }
            Ok(())
        }
        (Shape::Map(element), Value::Object(map)) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by(|left, right| left.0.cmp(right.0));
            for (key, value) in entries {
                let mut entry = Vec::new();
                bytes(&mut entry, 1, key.as_bytes());
                if !(value.is_null() && **element == Shape::Bytes) {
                    write_value(&mut entry, field, element, value, 2, depth)?;
                }
                bytes(output, field.number, &entry);
            }
            Ok(())
        }
        (_, Value::Null) if field.pointer => Ok(()),
        (shape, value) => write_value(output, field, shape, value, field.number, depth),
    }
}

/// One value with its tag; null is the zero value.
fn write_value(
    output: &mut Vec<u8>,
    field: &Field,
    shape: &Shape,
    value: &Value,
    number: u32,
    depth: usize,
) -> Result<(), WriteError> {
    let wrong = || WriteError::Shape(field.name.clone());
    match shape {
        Shape::String => {
            let text = or_default(value, "", Value::as_str).ok_or_else(wrong)?;
            bytes(output, number, text.as_bytes());
        }
        Shape::Bool => {
            let flag = or_default(value, false, Value::as_bool).ok_or_else(wrong)?;
            varint_field(output, number, u64::from(flag));
        }
        Shape::Int32 | Shape::Int64 => {
            let whole = or_default(value, 0, Value::as_i64).ok_or_else(wrong)?;
            varint_field(output, number, whole.cast_unsigned());
        }
        Shape::Double => {
            let double = or_default(value, 0.0, Value::as_f64).ok_or_else(wrong)?;
            tag(output, number, 1);
            output.extend_from_slice(&double.to_le_bytes());
        }
        Shape::Bytes => {
            let text = or_default(value, "", Value::as_str).ok_or_else(wrong)?;
            bytes(output, number, &base64_bytes(text).ok_or_else(wrong)?);
        }
        Shape::Message(name) => {
            let inner = schema::find(name).ok_or_else(wrong)?;
            let empty = Map::new();
            let map = or_default(value, &empty, Value::as_object).ok_or_else(wrong)?;
            let mut nested = Vec::new();
            write_message(&mut nested, inner, map, depth)?;
            bytes(output, number, &nested);
        }
        Shape::List(element) => {
            let items = or_default(value, EMPTY, |value| value.as_array().map(Vec::as_slice));
            let depth = depth.checked_sub(1).ok_or(WriteError::Depth)?;
            let mut nested = Vec::new();
            for item in items.ok_or_else(wrong)? {
                write_value(&mut nested, field, element, item, 1, depth)?;
            }
            bytes(output, number, &nested);
        }
        Shape::Map(_) => return Err(wrong()),
        Shape::SchemaOr(other) => {
            let mut nested = Vec::new();
            write_schema_or(&mut nested, field, *other, value, depth)?;
            bytes(output, number, &nested);
        }
        leaf => bytes(
            output,
            number,
            &leaf_message(leaf, value).ok_or_else(wrong)?,
        ),
    }
    Ok(())
}

fn write_schema_or(
    output: &mut Vec<u8>,
    field: &Field,
    other: SchemaOr,
    value: &Value,
    depth: usize,
) -> Result<(), WriteError> {
    let props = Shape::Message(schema::JSON_SCHEMA_PROPS.into());
    let schema_number = match other {
        SchemaOr::Bool => 2,
        SchemaOr::Schemas | SchemaOr::Strings => 1,
    };
    if other == SchemaOr::Bool {
        // A schema allows what it describes.
        let allows = value.as_bool().unwrap_or(value.is_object());
        varint_field(output, 1, u64::from(allows));
    }
    match (other, value) {
        (_, Value::Object(_)) => write_value(output, field, &props, value, schema_number, depth),
        (SchemaOr::Schemas, Value::Array(list)) => list
            .iter()
            .try_for_each(|item| write_value(output, field, &props, item, 2, depth)),
        (SchemaOr::Strings, Value::Array(list)) => list
            .iter()
            .try_for_each(|item| write_value(output, field, &Shape::String, item, 2, depth)),
        _ => Ok(()),
    }
}

fn or_default<'a, T>(
    value: &'a Value,
    default: T,
    read: impl Fn(&'a Value) -> Option<T>,
) -> Option<T> {
    if value.is_null() {
        Some(default)
    } else {
        read(value)
    }
}

/// The message of a shape with its own JSON form.
fn leaf_message(shape: &Shape, value: &Value) -> Option<Vec<u8>> {
    let mut output = Vec::new();
    match (shape, value) {
        (
            Shape::Time | Shape::MicroTime | Shape::Raw | Shape::Json | Shape::FieldsV1,
            Value::Null,
        ) => {}
        (Shape::Time | Shape::MicroTime, Value::String(text)) => {
            let instant = timestamp::parse(text)?;
            varint_field(&mut output, 1, instant.seconds.cast_unsigned());
            let nanoseconds = if *shape == Shape::Time {
                0
            } else {
                instant.nanoseconds / 1000 * 1000
            };
            varint_field(&mut output, 2, i64::from(nanoseconds).cast_unsigned());
        }
        (Shape::Quantity, Value::Null) => bytes(&mut output, 1, b"0"),
        (Shape::Quantity, Value::String(text)) => bytes(&mut output, 1, text.as_bytes()),
        (Shape::IntOrString, value) => {
            let (kind, number, text) = match value {
                Value::Null => (0, 0, ""),
                Value::String(text) => (1, 0, text.as_str()),
                other => (0, other.as_i64()?, ""),
            };
            varint_field(&mut output, 1, kind);
            varint_field(&mut output, 2, number.cast_unsigned());
            bytes(&mut output, 3, text.as_bytes());
        }
        (Shape::Raw | Shape::Json | Shape::FieldsV1, value) => {
            bytes(&mut output, 1, value.to_string().as_bytes());
        }
        (Shape::Duration, Value::String(text)) => {
            varint_field(
                &mut output,
                1,
                timestamp::parse_duration(text)?.cast_unsigned(),
            );
        }
        (Shape::Duration, Value::Null) => varint_field(&mut output, 1, 0),
        _ => return None,
    }
    Some(output)
}

/// A field's number and wire type.
pub(crate) fn tag(output: &mut Vec<u8>, number: u32, wire_type: u32) {
    varint(output, u64::from(number << 3 | wire_type));
}

fn varint(output: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        output.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    output.push(value as u8);
}

/// A whole number with its tag.
pub(crate) fn varint_field(output: &mut Vec<u8>, number: u32, value: u64) {
    tag(output, number, 0);
    varint(output, value);
}

/// Length-delimited content with its tag.
pub(crate) fn bytes(output: &mut Vec<u8>, number: u32, content: &[u8]) {
    tag(output, number, 2);
    varint(output, content.len() as u64);
    output.extend_from_slice(content);
}
