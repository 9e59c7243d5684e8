//! Protobuf to JSON. Unknown fields are skipped, as protobuf wants; everything
//! else that does not fit the schema is an error with the byte offset.
//!
//! Never panics and never allocates more than a small multiple of its input.

use serde_json::{Map, Value, json};

use super::{MAX_DEPTH, base64_text};
use crate::fields::message_of;
use crate::schema::{Field, JSON_SCHEMA_PROPS, SchemaOr, Shape, Type};
use crate::timestamp::{self, Instant};

/// Why bytes are no message of the type.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Ends within a field.
    #[error("it ends within a field")]
    Truncated,
    /// A varint of more than ten bytes.
    #[error("a number is longer than 64 bits")]
    Varint,
    /// Field number 0 or above 2^29, or a group.
    #[error("there is an illegal tag")]
    Tag,
    /// The field is on the wire as something else.
    #[error("field {0} has wire type {1}")]
    WireType(String, u8),
    /// The field's text is no UTF-8.
    #[error("field {0} is not UTF-8")]
    Utf8(String),
    /// The field's content has no JSON form.
    #[error("field {0} has a value that can't be represented")]
    Value(String),
    /// Nested too deeply.
    #[error("it nests deeper than {MAX_DEPTH} levels")]
    Depth,
}

/// The parts of a `runtime.Unknown`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unknown<'a> {
    /// As `v1`.
    pub api_version: String,
    /// As `Pod`.
    pub kind: String,
    /// The message.
    pub raw: &'a [u8],
    /// Empty for a plain message.
    pub content_encoding: String,
}

/// Reads an envelope (without its magic).
pub fn unknown(body: &[u8]) -> Result<Unknown<'_>, ReadError> {
    let mut found = Unknown::default();
    let mut wire = Wire { rest: body };
    while let Some((number, part)) = wire.field()? {
        match (number, part) {
            (1, Part::Bytes(type_meta)) => {
                let mut wire = Wire { rest: type_meta };
                while let Some((number, part)) = wire.field()? {
                    match (number, part) {
                        (1, Part::Bytes(text)) => found.api_version = utf8(text, "apiVersion")?,
                        (2, Part::Bytes(text)) => found.kind = utf8(text, "kind")?,
                        _ => {}
                    }
                }
            }
            (2, Part::Bytes(raw)) => found.raw = raw,
            (3, Part::Bytes(text)) => found.content_encoding = utf8(text, "contentEncoding")?,
            _ => {}
        }
    }
    Ok(found)
}

/// Reads one message; the result still has to be conformed.
pub fn message(found: &Type, body: &[u8]) -> Result<Value, ReadError> {
    let mut map = Map::new();
    read_message(&mut map, found, body, MAX_DEPTH)?;
    Ok(Value::Object(map))
}

fn read_message(
    map: &mut Map<String, Value>,
    found: &Type,
    body: &[u8],
    depth: usize,
) -> Result<(), ReadError> {
    let depth = depth.checked_sub(1).ok_or(ReadError::Depth)?;
    let mut wire = Wire { rest: body };
    while let Some((number, part)) = wire.field()? {
        let Some(field) = found.fields.iter().find(|field| field.number == number) else {
            continue;
        };
        if field.inlined {
            if let Some(inner) = message_of(&field.shape) {
                read_message(map, inner, part.bytes(field)?, depth)?;
            }
            continue;
        }
        match &field.shape {
            Shape::List(element) => {
                let value = read_value(field, element, part, depth)?;
                match map
                    .entry(field.name.clone())
                    .or_insert_with(|| Value::Array(Vec::new()))
                {
                    Value::Array(list) => list.push(value),
                    other => *other = Value::Array(vec![value]),
                }
            }
            Shape::Map(element) => {
                let (key, value) = read_entry(field, element, part.bytes(field)?, depth)?;
                match map
                    .entry(field.name.clone())
                    .or_insert_with(|| Value::Object(Map::new()))
                {
                    Value::Object(entries) => {
                        entries.insert(key, value);
                    }
                    other => *other = json!({ key: value }),
                }
            }
            shape => {
                let value = read_value(field, shape, part, depth)?;
                map.insert(field.name.clone(), value);
            }
        }
    }
    Ok(())
}

fn read_entry(
    field: &Field,
    element: &Shape,
    body: &[u8],
    depth: usize,
) -> Result<(String, Value), ReadError> {
    let (mut key, mut value) = (String::new(), Value::Null);
    let mut wire = Wire { rest: body };
    while let Some((number, part)) = wire.field()? {
        match number {
            1 => key = utf8(part.bytes(field)?, &field.name)?,
            2 => value = read_value(field, element, part, depth)?,
            _ => {}
        }
    }
    Ok((key, value))
}

fn read_value(
    field: &Field,
    shape: &Shape,
    part: Part<'_>,
    depth: usize,
) -> Result<Value, ReadError> {
    Ok(match shape {
        Shape::String => json!(utf8(part.bytes(field)?, &field.name)?),
        Shape::Bool => json!(part.varint(field)? != 0),
        Shape::Int32 => json!(part.varint(field)? as u32 as i32),
        Shape::Int64 => json!(part.varint(field)?.cast_signed()),
        Shape::Double => match part {
            Part::Fixed64(bits) => serde_json::Number::from_f64(f64::from_bits(bits))
                .map(Value::Number)
                .ok_or_else(|| ReadError::Value(field.name.clone()))?,
            other => return Err(other.unexpected(field)),
        },
        Shape::Bytes => json!(base64_text(part.bytes(field)?)),
        Shape::Message(_) => {
            let mut map = Map::new();
            if let Some(inner) = message_of(shape) {
                read_message(&mut map, inner, part.bytes(field)?, depth)?;
            }
            Value::Object(map)
        }
        Shape::List(element) => read_items(field, element, part.bytes(field)?, depth)?,
        Shape::Map(_) => return Err(ReadError::Value(field.name.clone())),
        Shape::SchemaOr(other) => read_schema_or(field, *other, part.bytes(field)?, depth)?,
        leaf => leaf_value(field, leaf, part.bytes(field)?)?,
    })
}

/// A list that is a message of its own, as map values are.
fn read_items(
    field: &Field,
    element: &Shape,
    body: &[u8],
    depth: usize,
) -> Result<Value, ReadError> {
    let depth = depth.checked_sub(1).ok_or(ReadError::Depth)?;
    let mut items = Vec::new();
    let mut wire = Wire { rest: body };
    while let Some((number, part)) = wire.field()? {
        if number == 1 {
            items.push(read_value(field, element, part, depth)?);
        }
    }
    Ok(Value::Array(items))
}

fn read_schema_or(
    field: &Field,
    other: SchemaOr,
    body: &[u8],
    depth: usize,
) -> Result<Value, ReadError> {
    let (mut schema, mut allows, mut items) = (Value::Null, false, Vec::new());
    let props = Shape::Message(JSON_SCHEMA_PROPS.into());
    let mut wire = Wire { rest: body };
    while let Some((number, part)) = wire.field()? {
        match (other, number) {
            (SchemaOr::Bool, 1) => allows = part.varint(field)? != 0,
            (SchemaOr::Bool, 2) | (_, 1) => schema = read_value(field, &props, part, depth)?,
            (SchemaOr::Schemas, 2) => items.push(read_value(field, &props, part, depth)?),
            (SchemaOr::Strings, 2) => items.push(read_value(field, &Shape::String, part, depth)?),
            _ => {}
        }
    }
    Ok(match other {
        SchemaOr::Schemas | SchemaOr::Strings if !items.is_empty() => Value::Array(items),
        SchemaOr::Bool if schema.is_null() => json!(allows),
        _ => schema,
    })
}

/// The JSON form of a message that has its own.
fn leaf_value(field: &Field, shape: &Shape, body: &[u8]) -> Result<Value, ReadError> {
    let (mut number_1, mut number_2) = (0u64, 0u64);
    let (mut bytes_1, mut bytes_3): (Option<&[u8]>, &[u8]) = (None, &[]);
    let mut wire = Wire { rest: body };
    while let Some((number, part)) = wire.field()? {
        match (number, part) {
            (1, Part::Varint(value)) => number_1 = value,
            (2, Part::Varint(value)) => number_2 = value,
            (1, Part::Bytes(content)) => bytes_1 = Some(content),
            (3, Part::Bytes(content)) => bytes_3 = content,
            _ => {}
        }
    }
    let unfit = || ReadError::Value(field.name.clone());
    Ok(match shape {
        Shape::Time | Shape::MicroTime if body.is_empty() => Value::Null,
        Shape::Time => {
            json!(timestamp::format_seconds(number_1.cast_signed()).ok_or_else(unfit)?)
        }
        Shape::MicroTime => {
            let nanoseconds = i32::try_from(number_2)
                .ok()
                .filter(|n| (0..1_000_000_000).contains(n))
                .ok_or_else(unfit)?;
            let instant = Instant {
                seconds: number_1.cast_signed(),
                nanoseconds,
            };
            json!(timestamp::format_micros(instant).ok_or_else(unfit)?)
        }
        Shape::Quantity => match bytes_1 {
            Some(text) => json!(utf8(text, &field.name)?),
            None => json!("0"),
        },
        Shape::IntOrString if number_1 == 1 => json!(utf8(bytes_3, &field.name)?),
        Shape::IntOrString => json!(number_2 as u32 as i32),
        Shape::Duration => json!(timestamp::format_duration(number_1.cast_signed())),
        _ => match bytes_1 {
            Some(content) if !content.is_empty() => {
                serde_json::from_slice(content).map_err(|_| unfit())?
            }
            _ => Value::Null,
        },
    })
}

fn utf8(content: &[u8], name: &str) -> Result<String, ReadError> {
    match std::str::from_utf8(content) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(ReadError::Utf8(name.to_owned())),
    }
}

#[derive(Debug, Clone, Copy)]
enum Part<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

impl<'a> Part<'a> {
    fn bytes(self, field: &Field) -> Result<&'a [u8], ReadError> {
        match self {
            Self::Bytes(content) => Ok(content),
            other => Err(other.unexpected(field)),
        }
    }

    fn varint(self, field: &Field) -> Result<u64, ReadError> {
        match self {
            Self::Varint(value) => Ok(value),
            other => Err(other.unexpected(field)),
        }
    }

    fn unexpected(self, field: &Field) -> ReadError {
        let wire_type = match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Bytes(_) => 2,
            Self::Fixed32 => 5,
        };
        ReadError::WireType(field.name.clone(), wire_type)
    }
}

struct Wire<'a> {
    rest: &'a [u8],
}

impl<'a> Wire<'a> {
    fn field(&mut self) -> Result<Option<(u32, Part<'a>)>, ReadError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| ReadError::Tag)?;
        if number == 0 || number >= 1 << 29 {
            return Err(ReadError::Tag);
        }
        let part = match tag & 7 {
            0 => Part::Varint(self.varint()?),
            1 => {
                let mut bits = [0; 8];
                bits.copy_from_slice(self.take(8)?);
                Part::Fixed64(u64::from_le_bytes(bits))
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| ReadError::Truncated)?;
                Part::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Part::Fixed32
            }
            _ => return Err(ReadError::Tag),
        };
        Ok(Some((number, part)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ReadError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(ReadError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, ReadError> {
        let mut value = 0u64;
        for shift in 0..10 {
            let (byte, rest) = self.rest.split_first().ok_or(ReadError::Truncated)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << (7 * shift);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ReadError::Varint)
    }
}
