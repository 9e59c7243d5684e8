//! Strict decoding: fields that a type does not have, and fields named twice.
//!
//! Invariant: a body is read once, in order, and nothing of it is kept.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::message_of;
use crate::schema::{self, SchemaOr, Shape};

/// Most strict errors reported for one body.
pub const MAX_STRICT_ERRORS: usize = 100;

/// What strict decoding says of a body: `unknown field "spec.foo"`, `duplicate
/// field "data.a"`, in order, without repeats. A body that is no JSON has none.
pub fn unknown_and_duplicate(schema: &str, raw_json: &[u8]) -> Vec<String> {
    let mut found = Strict {
        messages: Vec::new(),
        seen: BTreeSet::new(),
    };
    let shape = Shape::Message(schema.to_owned());
    let mut deserializer = serde_json::Deserializer::from_slice(raw_json);
    let walk = Walk {
        shape: Some(&shape),
        path: String::new(),
        found: &mut found,
    };
    // What is wrong with the JSON itself is for the decoder to say.
    let _ = walk.deserialize(&mut deserializer);
    found.messages
}

struct Strict {
    messages: Vec<String>,
    seen: BTreeSet<String>,
}

impl Strict {
    fn note(&mut self, what: &str, path: &str) {
        let message = format!("{what} field {}", crate::status::quote(path));
        if self.messages.len() < MAX_STRICT_ERRORS && self.seen.insert(message.clone()) {
            self.messages.push(message);
        }
    }
}

struct Walk<'a> {
    /// `None`: below an unknown field or a free-form value, where anything goes.
    shape: Option<&'a Shape>,
    path: String,
    found: &'a mut Strict,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let schemas = Shape::Message(schema::JSON_SCHEMA_PROPS.to_owned());
        let element = match self.shape {
            Some(Shape::List(element)) => Some(element.as_ref()),
            Some(Shape::SchemaOr(SchemaOr::Schemas)) => Some(&schemas),
            _ => None,
        };
        let mut at = 0usize;
        loop {
            let path = format!("{}[{at}]", self.path);
            let walk = Walk {
                shape: element,
                path,
                found: &mut *self.found,
            };
            if list.next_element_seed(walk)?.is_none() {
                return Ok(());
            }
            at += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let owner = match self.shape {
            Some(Shape::SchemaOr(_)) => schema::find(schema::JSON_SCHEMA_PROPS),
            shape => shape.and_then(message_of),
        };
        let element = match self.shape {
            Some(Shape::Map(element)) => Some(element.as_ref()),
            _ => None,
        };
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let path = if self.path.is_empty() {
                key.clone()
            } else {
                format!("{}.{key}", self.path)
            };
            let field = owner.and_then(|owner| owner.field(&key));
            if owner.is_some() && field.is_none() {
                self.found.note("unknown", &path);
            } else if (owner.is_some() || element.is_some()) && !seen.insert(key) {
                self.found.note("duplicate", &path);
            }
            let shape = field.map(|field| &field.shape).or(element);
            map.next_value_seed(Walk {
                shape,
                path,
                found: &mut *self.found,
            })?;
        }
        Ok(())
    }
}
