//! The protobuf form of an OpenAPI v2 document, `openapi.v2.Document` of the
//! gnostic models: what `kubectl` asks for instead of JSON.
//!
//! One writer walks the JSON document along tables of keys and field numbers.
//! The tables hold what [`super::v2`] writes; a key that they do not know is an
//! error, so nothing is lost unseen. Bytes are those of the reference's own
//! conversion: fields in ascending order, zero values left out, extensions as
//! YAML text (in which we quote what some readers would not take for text).

use serde_json::{Map, Value};

use crate::codec::writer::{bytes, tag, varint_field};

/// Why a document can't be written.
#[derive(Debug, thiserror::Error)]
pub enum GnosticError {
    /// No table has this key.
    #[error("the OpenAPI document has the key {0}, which its protobuf form has no field for")]
    Unknown(String),
    /// The value under this key has another form than the table says.
    #[error("the OpenAPI document's {0} has a value of another form")]
    Form(String),
}

/// The protobuf form of the whole document.
///
/// # Errors
/// When the document has what its tables do not name.
pub fn document(v2: &Value) -> Result<Vec<u8>, GnosticError> {
    message(&DOCUMENT, "document", v2)
}

/// A message: its fields by number, then its extensions.
struct Message {
    fields: &'static [Field],
    /// The field of `x-` keys, after all others; 0 where there are none.
    extensions: u32,
}

/// Where the value under a key goes: the numbers from the message inward.
struct Field {
    key: &'static str,
    path: &'static [u32],
    form: Form,
}

enum Form {
    /// A string, or several.
    Text,
    Flag,
    Whole,
    Number,
    /// Any values, as YAML.
    Anything,
    Message(&'static Message),
    /// A message, or a flag in the field after it.
    MessageOrFlag(&'static Message),
    /// An object of any keys: entries of a name (1) and a value (2), which has the
    /// message at this path.
    Entries(&'static [u32], &'static Message),
    /// A list of parameters, each within the messages that its `in` names.
    Parameters,
}

const fn field(key: &'static str, path: &'static [u32], form: Form) -> Field {
    Field { key, path, form }
}

static DOCUMENT: Message = Message {
    fields: &[
        field("swagger", &[1], Form::Text),
        field("info", &[2], Form::Message(&INFO)),
        field("paths", &[8, 2], Form::Entries(&[], &PATH_ITEM)),
        field("definitions", &[9, 1], Form::Entries(&[], &SCHEMA)),
    ],
    extensions: 16,
};

static INFO: Message = Message {
    fields: &[
        field("title", &[1], Form::Text),
        field("version", &[2], Form::Text),
    ],
    extensions: 7,
};

static PATH_ITEM: Message = Message {
    fields: &[
        field("get", &[2], Form::Message(&OPERATION)),
        field("put", &[3], Form::Message(&OPERATION)),
        field("post", &[4], Form::Message(&OPERATION)),
        field("delete", &[5], Form::Message(&OPERATION)),
        field("patch", &[8], Form::Message(&OPERATION)),
        field("parameters", &[9], Form::Parameters),
    ],
    extensions: 10,
};

static OPERATION: Message = Message {
    fields: &[
        field("tags", &[1], Form::Text),
        field("description", &[3], Form::Text),
        field("operationId", &[5], Form::Text),
        field("produces", &[6], Form::Text),
        field("consumes", &[7], Form::Text),
        field("parameters", &[8], Form::Parameters),
        field("responses", &[9, 1], Form::Entries(&[1], &RESPONSE)),
        field("schemes", &[10], Form::Text),
    ],
    extensions: 13,
};

static RESPONSE: Message = Message {
    fields: &[
        field("description", &[1], Form::Text),
        field("schema", &[2, 1], Form::Message(&SCHEMA)),
    ],
    extensions: 5,
};

/// `in`, the numbers from `ParametersItem` inward, the message there.
static PARAMETERS: [(&str, &[u32], &Message); 3] = [
    ("body", &[1, 1], &BODY_PARAMETER),
    ("query", &[1, 2, 3], &QUERY_PARAMETER),
    ("path", &[1, 2, 4], &PATH_PARAMETER),
];

static BODY_PARAMETER: Message = Message {
    fields: &[
        field("description", &[1], Form::Text),
        field("name", &[2], Form::Text),
        field("in", &[3], Form::Text),
        field("required", &[4], Form::Flag),
        field("schema", &[5], Form::Message(&SCHEMA)),
    ],
    extensions: 6,
};

static QUERY_PARAMETER: Message = Message {
    fields: &[
        field("required", &[1], Form::Flag),
        field("in", &[2], Form::Text),
        field("description", &[3], Form::Text),
        field("name", &[4], Form::Text),
        field("type", &[6], Form::Text),
        field("uniqueItems", &[20], Form::Flag),
    ],
    extensions: 23,
};

static PATH_PARAMETER: Message = Message {
    fields: &[
        field("required", &[1], Form::Flag),
        field("in", &[2], Form::Text),
        field("description", &[3], Form::Text),
        field("name", &[4], Form::Text),
        field("type", &[5], Form::Text),
        field("uniqueItems", &[19], Form::Flag),
    ],
    extensions: 22,
};

static SCHEMA: Message = Message {
    fields: &[
        field("$ref", &[1], Form::Text),
        field("format", &[2], Form::Text),
        field("title", &[3], Form::Text),
        field("description", &[4], Form::Text),
        field("multipleOf", &[6], Form::Number),
        field("maximum", &[7], Form::Number),
        field("exclusiveMaximum", &[8], Form::Flag),
        field("minimum", &[9], Form::Number),
        field("exclusiveMinimum", &[10], Form::Flag),
        field("maxLength", &[11], Form::Whole),
        field("minLength", &[12], Form::Whole),
        field("pattern", &[13], Form::Text),
        field("maxItems", &[14], Form::Whole),
        field("minItems", &[15], Form::Whole),
        field("uniqueItems", &[16], Form::Flag),
        field("maxProperties", &[17], Form::Whole),
        field("minProperties", &[18], Form::Whole),
        field("required", &[19], Form::Text),
        field("enum", &[20], Form::Anything),
        field(
            "additionalProperties",
            &[21, 1],
            Form::MessageOrFlag(&SCHEMA),
        ),
        field("type", &[22, 1], Form::Text),
        field("items", &[23, 1], Form::Message(&SCHEMA)),
        field("properties", &[25, 1], Form::Entries(&[], &SCHEMA)),
        field("externalDocs", &[29], Form::Message(&EXTERNAL_DOCS)),
        field("example", &[30], Form::Anything),
    ],
    extensions: 31,
};

static EXTERNAL_DOCS: Message = Message {
    fields: &[
        field("description", &[1], Form::Text),
        field("url", &[2], Form::Text),
    ],
    extensions: 3,
};

fn message(found: &Message, name: &str, value: &Value) -> Result<Vec<u8>, GnosticError> {
    let form = || GnosticError::Form(name.to_owned());
    let map = value.as_object().ok_or_else(form)?;
    let is_extension = |key: &str| key.starts_with("x-") && found.extensions > 0;
    let unknown = map.keys().find(|key| {
        !is_extension(key) && !found.fields.iter().any(|field| field.key == key.as_str())
    });
    if let Some(key) = unknown {
        return Err(GnosticError::Unknown(key.clone()));
    }
    let mut output = Vec::new();
    for field in found.fields {
        if let Some(value) = map.get(field.key) {
            write_field(&mut output, field, value)?;
        }
    }
    for (key, value) in map.iter().filter(|(key, _)| is_extension(key)) {
        bytes(&mut output, found.extensions, &named(key, &any(value)));
    }
    Ok(output)
}

fn write_field(output: &mut Vec<u8>, field: &Field, value: &Value) -> Result<(), GnosticError> {
    let form = || GnosticError::Form(field.key.to_owned());
    let Some((last, outer)) = field.path.split_last() else {
        return Err(form());
    };
    let mut content = Vec::new();
    match (&field.form, value) {
        (Form::Text, Value::Array(texts)) => {
            for text in texts {
                let text = text.as_str().ok_or_else(form)?;
                bytes(&mut content, *last, text.as_bytes());
            }
        }
        // Empty text and false are proto3's zero values, which are not written.
        (Form::Text, Value::String(text)) if text.is_empty() => {}
        (Form::Text, Value::String(text)) => bytes(&mut content, *last, text.as_bytes()),
        (Form::Flag, Value::Bool(false)) => {}
        (Form::Flag, Value::Bool(true)) => varint_field(&mut content, *last, 1),
        (Form::Whole, Value::Number(number)) => match number.as_i64() {
            Some(0) => {}
            whole => varint_field(&mut content, *last, whole.ok_or_else(form)?.cast_unsigned()),
        },
        (Form::Number, Value::Number(number)) => {
            if let Some(number) = number.as_f64().filter(|number| *number != 0.0) {
                double(&mut content, *last, number);
            }
        }
        (Form::Anything, Value::Array(values)) if field.key == "enum" => {
            for value in values {
                bytes(&mut content, *last, &any(value));
            }
        }
        (Form::Anything, value) => bytes(&mut content, *last, &any(value)),
        (Form::MessageOrFlag(_), Value::Bool(flag)) => {
            varint_field(&mut content, *last + 1, u64::from(*flag));
        }
        (Form::Message(inner) | Form::MessageOrFlag(inner), value) => {
            bytes(&mut content, *last, &message(inner, field.key, value)?);
        }
        (Form::Entries(path, inner), Value::Object(map)) => {
            for (key, value) in map {
                let value = wrapped(path, message(inner, key, value)?);
                bytes(&mut content, *last, &named(key, &value));
            }
        }
        (Form::Parameters, Value::Array(list)) => {
            for parameter in list {
                let (_, path, inner) = PARAMETERS
                    .iter()
                    .find(|(place, _, _)| parameter["in"] == *place)
                    .ok_or_else(form)?;
                let parameter = message(inner, field.key, parameter)?;
                bytes(&mut content, *last, &wrapped(path, parameter));
            }
        }
        _ => return Err(form()),
    }
    output.extend_from_slice(&wrapped(outer, content));
    Ok(())
}

/// The content as the innermost field of messages within each other.
fn wrapped(path: &[u32], content: Vec<u8>) -> Vec<u8> {
    path.iter().rev().fold(content, |content, number| {
        let mut outer = Vec::new();
        bytes(&mut outer, *number, &content);
        outer
    })
}

/// An entry of a map: its key (1), its value (2).
pub(super) fn named(key: &str, value: &[u8]) -> Vec<u8> {
    let mut entry = Vec::new();
    bytes(&mut entry, 1, key.as_bytes());
    bytes(&mut entry, 2, value);
    entry
}

/// A value as YAML; JSON, which is YAML too, for what nests deeper.
pub(super) fn any(value: &Value) -> Vec<u8> {
    let text = yaml(value).unwrap_or_else(|| format!("{value}\n"));
    let mut any = Vec::new();
    bytes(&mut any, 2, text.as_bytes());
    any
}

pub(super) fn double(output: &mut Vec<u8>, number: u32, value: f64) {
    tag(output, number, 1);
    output.extend_from_slice(&value.to_le_bytes());
}

/// An extension as YAML in block style: a scalar, a list of scalars or objects, or an
/// object of scalars and objects. `None` for lists within anything.
fn yaml(value: &Value) -> Option<String> {
    let mut text = String::new();
    match value {
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::Object(map) if !map.is_empty() => {
                        yaml_lines(&mut text, map, "- ", 2)?;
                    }
                    item => text.push_str(&format!("- {}\n", scalar(item)?)),
                }
            }
        }
        Value::Object(map) => yaml_lines(&mut text, map, "", 0)?,
        value => text.push_str(&format!("{}\n", scalar(value)?)),
    }
    Some(text)
}

/// An object's lines, after `first` and then each behind `indent` spaces.
fn yaml_lines(
    text: &mut String,
    map: &Map<String, Value>,
    first: &str,
    indent: usize,
) -> Option<()> {
    for (at, (key, value)) in map.iter().enumerate() {
        match at {
            0 => text.push_str(first),
            _ => text.extend(std::iter::repeat_n(' ', indent)),
        }
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                // The reference's writer puts what is nested at the next multiple of 4.
                let indent = 4 * (indent / 4 + 1);
                text.push_str(&format!("{key}:\n"));
                let spaces = " ".repeat(indent);
                yaml_lines(text, inner, &spaces, indent)?;
            }
            value => text.push_str(&format!("{key}: {}\n", scalar(value)?)),
        }
    }
    Some(())
}

/// A scalar: plain where no reader takes it for anything but text, else quoted.
fn scalar(value: &Value) -> Option<String> {
    const NOT_TEXT: &[&str] = &["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let plain = |text: &str| {
        text.starts_with(|first: char| first.is_ascii_alphabetic())
            && text
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || "-_./,+".contains(letter))
            && !NOT_TEXT.contains(&text.to_ascii_lowercase().as_str())
    };
    match value {
        Value::String(text) if plain(text) => Some(text.clone()),
        Value::String(_) | Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::openapi::v2;

    /// The length-delimited fields of a message: all that these tests look at.
    fn fields(mut body: &[u8]) -> Vec<(u64, &[u8])> {
        fn varint(body: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..64).step_by(7) {
                let (byte, rest) = body.split_first().expect("a whole varint");
                *body = rest;
                value |= u64::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            value
        }
        let mut found = Vec::new();
        while !body.is_empty() {
            let tag = varint(&mut body);
            assert_eq!(tag & 7, 2, "length-delimited");
            let length = usize::try_from(varint(&mut body)).expect("a length");
            let (content, rest) = body.split_at(length);
            found.push((tag >> 3, content));
            body = rest;
        }
        found
    }

    #[test]
    fn the_document_is_version_info_paths_and_definitions() {
        let v2 = v2::document(crate::resource::built_in());
        let wire = document(&v2).expect("every key has a field");
        let top = fields(&wire);
        let numbers: Vec<u64> = top.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 2, 8, 9]);
        assert_eq!(top[0].1, b"2.0");
        for (at, key) in [(2, "paths"), (3, "definitions")] {
            let names: Vec<&[u8]> = fields(top[at].1)
                .into_iter()
                .map(|(_, entry)| fields(entry)[0].1)
                .collect();
            let expected: Vec<&[u8]> = v2[key]
                .as_object()
                .expect("an object")
                .keys()
                .map(String::as_bytes)
                .collect();
            assert_eq!(names, expected);
        }
    }

    #[test]
    fn a_key_without_a_field_is_told() {
        let error = document(&json!({"swagger": "2.0", "hosts": "x"})).expect_err("no field");
        assert_eq!(
            error.to_string(),
            "the OpenAPI document has the key hosts, which its protobuf form has no field for"
        );
    }

    #[test]
    fn extensions_are_yaml_that_keeps_text_text() {
        let kinds = json!([{"group": "", "kind": "Pod", "version": "v1"}]);
        assert_eq!(
            yaml(&kinds).expect("shallow"),
            "- group: \"\"\n  kind: Pod\n  version: v1\n"
        );
        assert_eq!(yaml(&json!("no")).expect("a scalar"), "\"no\"\n");
        assert_eq!(
            yaml(&json!([{"a": "x", "b": {"c": 1}}])).as_deref(),
            Some("- a: x\n  b:\n    c: 1\n")
        );
        assert!(yaml(&json!({"a": [1]})).is_none());
    }
}
