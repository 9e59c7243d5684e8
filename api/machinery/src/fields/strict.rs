//! Strict decoding: fields that a type does not have, and fields named twice.
//!
//! Invariant: a body is read once, in order, and nothing of it is kept.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::message_of;
use serde_json::Value;

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
    let shape = Shape::Message(schema.into());
    let mut deserializer = serde_json::Deserializer::from_slice(raw_json);
    let walk = Walk {
        shape: Some(&shape),
        at: At::default(),
        found: &mut found,
    };
    // What is wrong with the JSON itself is for the decoder to say.
    let _ = walk.deserialize(&mut deserializer);
    found.messages
}

/// Fields of an object that its type does not have, as [`unknown_and_duplicate`] tells them.
pub fn unknown(schema: &str, object: &Value) -> Vec<String> {
    let mut found = Strict {
        messages: Vec::new(),
        seen: BTreeSet::new(),
    };
    let shape = Shape::Message(schema.into());
    let walk = Walk {
        shape: Some(&shape),
        at: At::default(),
        found: &mut found,
    };
    // An object in memory has no faults of its text.
    let _ = walk.deserialize(object);
    found.messages
}

struct Strict {
    messages: Vec<String>,
    seen: BTreeSet<String>,
}

impl Strict {
    fn note(&mut self, what: &str, at: &At<'_>) {
        let message = format!("{what} field {}", crate::status::quote(&at.path()));
        if self.messages.len() < MAX_STRICT_ERRORS && self.seen.insert(message.clone()) {
            self.messages.push(message);
        }
    }
}

struct Walk<'a> {
    /// `None`: below an unknown field or a free-form value, where anything goes.
    shape: Option<&'a Shape>,
    at: At<'a>,
    found: &'a mut Strict,
}

/// Where the walk is: written out only where something is found.
#[derive(Clone, Copy, Default)]
struct At<'a> {
    above: Option<&'a At<'a>>,
    part: Part<'a>,
}

#[derive(Clone, Copy, Default)]
enum Part<'a> {
    #[default]
    Root,
    Field(&'a str),
    Index(usize),
}

impl<'a> At<'a> {
    fn join(&'a self, part: Part<'a>) -> Self {
        Self {
            above: Some(self),
            part,
        }
    }

    fn path(&self) -> String {
        let above = self.above.map(At::path).unwrap_or_default();
        match self.part {
            Part::Root => above,
            Part::Index(at) => format!("{above}[{at}]"),
            Part::Field(name) if above.is_empty() => name.to_owned(),
            Part::Field(name) => format!("{above}.{name}"),
        }
    }
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
        let schemas = Shape::Message(schema::JSON_SCHEMA_PROPS.into());
        let element = match self.shape {
            Some(Shape::List(element)) => Some(element.as_ref()),
            Some(Shape::SchemaOr(SchemaOr::Schemas)) => Some(&schemas),
            _ => None,
        };
        let mut at = 0usize;
        loop {
            let walk = Walk {
                shape: element,
                at: self.at.join(Part::Index(at)),
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
            let at = self.at.join(Part::Field(&key));
            let field = owner.and_then(|owner| owner.field(&key));
            if owner.is_some() && field.is_none() {
                self.found.note("unknown", &at);
            } else if (owner.is_some() || element.is_some()) && !seen.insert(key.clone()) {
                self.found.note("duplicate", &at);
            }
            let shape = field.map(|field| &field.shape).or(element);
            map.next_value_seed(Walk {
                shape,
                at,
                found: &mut *self.found,
            })?;
        }
        Ok(())
    }
}
