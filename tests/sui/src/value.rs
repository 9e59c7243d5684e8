//! Move values of the few kinds that the stand-in's package has: their BCS, and the forms that a
//! full node gives them in JSON.
//!
//! Invariant: what is said in JSON is what the BCS says; both are made of the same value.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sui_sdk_types::{Address, Digest, Identifier, StructTag, TypeTag, hash::Hasher};

/// A Move value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MoveValue {
    /// `bool`.
    Bool(bool),
    /// `u8`.
    U8(u8),
    /// `u64`.
    U64(u64),
    /// `address`.
    Address(Address),
    /// `0x2::object::ID`.
    Id(Address),
    /// `0x2::object::UID`.
    Uid(Address),
    /// `0x1::string::String`.
    String(String),
    /// `vector<..>`.
    Vector(Vec<MoveValue>),
    /// A struct in a struct.
    Struct(MoveStruct),
}

/// A Move struct: its type, and its fields in the order of their definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveStruct {
    /// The type.
    pub tag: StructTag,
    /// Names and values.
    pub fields: Vec<(String, MoveValue)>,
}

impl MoveStruct {
    /// A struct of the type `tag`.
    pub fn new(tag: StructTag, fields: Vec<(&str, MoveValue)>) -> Self {
        let fields = fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        Self { tag, fields }
    }

    /// The field of that name.
    pub fn get(&self, name: &str) -> Option<&MoveValue> {
        let field = self.fields.iter().find(|(field, _)| field == name);
        field.map(|(_, value)| value)
    }

    /// Sets the field of that name, if there is one.
    pub fn set(&mut self, name: &str, value: MoveValue) {
        if let Some(field) = self.fields.iter_mut().find(|(field, _)| field == name) {
            field.1 = value;
        }
    }

    /// The field of that name, if it is a `u64`.
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            Some(MoveValue::U64(number)) => Some(*number),
            _ => None,
        }
    }

    /// The field of that name, if it is a string.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(MoveValue::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The field of that name, if it is an address or an id.
    pub fn address(&self, name: &str) -> Option<Address> {
        match self.get(name) {
            Some(MoveValue::Address(it) | MoveValue::Id(it) | MoveValue::Uid(it)) => Some(*it),
            _ => None,
        }
    }

    /// The value in BCS.
    pub fn bcs(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (_, value) in &self.fields {
            value.write_bcs(&mut bytes);
        }
        bytes
    }

    /// As events and the gRPC face have it: names and values, no types.
    pub fn plain_json(&self) -> Value {
        self.json(MoveValue::plain_json)
    }

    /// The fields as the JSON-RPC face has them in an object's content: structs with their types.
    pub fn typed_json(&self) -> Value {
        self.json(MoveValue::typed_json)
    }

    fn json(&self, form: fn(&MoveValue) -> Value) -> Value {
        let fields: Map<String, Value> = self
            .fields
            .iter()
            .map(|(name, value)| (name.clone(), form(value)))
            .collect();
        Value::Object(fields)
    }
}

impl MoveValue {
    /// The value in BCS.
    pub fn bcs(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_bcs(&mut bytes);
        bytes
    }

    fn write_bcs(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Bool(it) => bytes.push(u8::from(*it)),
            Self::U8(it) => bytes.push(*it),
            Self::U64(it) => bytes.extend(it.to_le_bytes()),
            Self::Address(it) | Self::Id(it) | Self::Uid(it) => bytes.extend(it.as_bytes()),
            Self::String(it) => {
                write_length(it.len(), bytes);
                bytes.extend(it.as_bytes());
            }
            Self::Vector(values) => {
                write_length(values.len(), bytes);
                for value in values {
                    value.write_bcs(bytes);
                }
            }
            Self::Struct(it) => bytes.extend(it.bcs()),
        }
    }

    /// As events and the gRPC face have it.
    pub fn plain_json(&self) -> Value {
        match self {
            Self::Bool(it) => json!(it),
            Self::U8(it) => json!(it),
            Self::U64(it) => json!(it.to_string()),
            Self::Address(it) | Self::Id(it) | Self::Uid(it) => json!(it.to_string()),
            Self::String(it) => json!(it),
            Self::Vector(values) => values.iter().map(Self::plain_json).collect(),
            Self::Struct(it) => it.plain_json(),
        }
    }

    fn typed_json(&self) -> Value {
        match self {
            Self::Uid(it) => json!({ "id": it.to_string() }),
            Self::Vector(values) => values.iter().map(Self::typed_json).collect(),
            Self::Struct(it) => json!({ "type": short_type(&it.tag), "fields": it.typed_json() }),
            other => other.plain_json(),
        }
    }
}

/// Lengths are ULEB128 in BCS.
fn write_length(mut length: usize, bytes: &mut Vec<u8>) {
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
}

/// A type's name as the JSON-RPC face writes it: the framework's addresses short.
pub(crate) fn short_type(tag: &StructTag) -> String {
    let mut text = format!(
        "{}::{}::{}",
        short_address(tag.address()),
        tag.module(),
        tag.name()
    );
    if !tag.type_params().is_empty() {
        let parameters: Vec<String> = tag.type_params().iter().map(short_type_tag).collect();
        text.push_str(&format!("<{}>", parameters.join(", ")));
    }
    text
}

/// Like [`short_type`], for any type.
pub(crate) fn short_type_tag(tag: &TypeTag) -> String {
    match tag {
        TypeTag::Struct(it) => short_type(it),
        TypeTag::Vector(it) => format!("vector<{}>", short_type_tag(it)),
        other => other.to_string(),
    }
}

fn short_address(address: &Address) -> String {
    let bytes = address.as_bytes();
    match bytes.split_last() {
        Some((last, rest)) if rest.iter().all(|byte| *byte == 0) => format!("{last:#x}"),
        _ => address.to_string(),
    }
}

/// The type `<address>::<module>::<name>` without parameters.
pub(crate) fn tag(address: Address, module: &'static str, name: &'static str) -> StructTag {
    StructTag::new(
        address,
        Identifier::from_static(module),
        Identifier::from_static(name),
        Vec::new(),
    )
}

/// The type of strings.
pub(crate) fn string_tag() -> TypeTag {
    TypeTag::Struct(Box::new(tag(
        Address::from_static("0x1"),
        "string",
        "String",
    )))
}

/// An address that follows from a name: the same in every run.
pub(crate) fn named_address(name: &str) -> Address {
    Address::new(named_digest(name).into_inner())
}

/// A digest that follows from a name.
pub(crate) fn named_digest(name: &str) -> Digest {
    Hasher::digest(format!("nautilus stand-in {name}"))
}
