//! Bodies of requests about objects of defined kinds: JSON and YAML; what their schema
//! does not know is told or refused as the request asks.

use std::fmt;

use http::HeaderMap;
use nautilus_machinery::fields::FieldValidation;
use nautilus_machinery::resource::{Defined, Resource};
use nautilus_machinery::status::ApiError;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use crate::body::{Warnings, content_type, yaml_to_json};

/// Levels of an object.
const MAX_DEPTH: usize = 100;
/// Duplicate fields that are told.
const MAX_DUPLICATES: usize = 100;
const SERVED: [&str; 2] = ["application/json", "application/yaml"];

/// Reads an object of a defined kind.
pub(crate) fn decode(
    resource: &Resource,
    defined: &dyn Defined,
    headers: &HeaderMap,
    body: &[u8],
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<Value, ApiError> {
    let json = match content_type(headers).as_str() {
        "application/json" => body.to_vec(),
        "application/yaml" | "application/x-yaml" => yaml_to_json(body)?.to_vec(),
        _ => return Err(ApiError::unsupported_media_type(&SERVED)),
    };
    let mut object: Value = serde_json::from_slice(&json).map_err(|error| {
        ApiError::bad_request(format!(
            "couldn't get version/kind; json parse error: {error}"
        ))
    })?;
    check_kind(resource, &mut object)?;
    let found = duplicates(&json);
    judge(resource, defined, &mut object, found, validation, warnings)?;
    Ok(object)
}

/// What the reference says of an object of another kind.
fn check_kind(resource: &Resource, object: &mut Value) -> Result<(), ApiError> {
    if !object.is_object() {
        return Err(ApiError::bad_request(
            "couldn't get version/kind; json parse error: json: cannot unmarshal into Go value of type struct { APIVersion string; Kind string }",
        ));
    }
    let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
    let (own, kind) = (text("apiVersion"), text("kind"));
    if own.is_empty() {
        object["apiVersion"] = json!(resource.api_version());
    } else if own != resource.api_version() {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({own}) does not match the expected API version ({})",
            resource.api_version()
        )));
    }
    if kind.is_empty() {
        object["kind"] = json!(resource.kind);
    } else if kind != resource.kind {
        return Err(ApiError::bad_request(format!(
            "{kind} in version \"{}\" cannot be handled as a {}: converting ({}) to ({}): unknown conversion",
            resource.version, resource.kind, kind, resource.kind
        )));
    }
    Ok(())
}

/// Makes the object what is stored; unknown fields, and those found before, are told or
/// refused.
pub(crate) fn judge(
    resource: &Resource,
    defined: &dyn Defined,
    object: &mut Value,
    mut found: Vec<String>,
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<(), ApiError> {
    let unknown = defined.normalize(object).map_err(|causes| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        ApiError::invalid(resource, name, causes)
    })?;
    found.extend(unknown.iter().map(|path| format!("unknown field {path:?}")));
    match validation {
        FieldValidation::Ignore => {}
        FieldValidation::Strict if !found.is_empty() => {
            return Err(ApiError::bad_request(format!(
                "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
                resource.kind,
                resource.version,
                resource.kind,
                found.join(", ")
            )));
        }
        FieldValidation::Strict | FieldValidation::Warn => warnings.replace(found),
    }
    Ok(())
}

/// Fields that stand twice in an object.
fn duplicates(json: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let walk = Walk {
        path: String::new(),
        depth: 0,
        found: &mut found,
    };
    // Whatever cannot be read was refused before.
    let _ = walk.deserialize(&mut serde_json::Deserializer::from_slice(json));
    found
}

struct Walk<'f> {
    path: String,
    depth: usize,
    found: &'f mut Vec<String>,
}

impl Walk<'_> {
    fn under(&mut self, path: String) -> Walk<'_> {
        Walk {
            path,
            depth: self.depth + 1,
            found: self.found,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.depth > MAX_DEPTH {
            return IgnoredAny::deserialize_in(deserializer);
        }
        deserializer.deserialize_any(self)
    }
}

/// Reads a value and forgets it.
trait Ignored: Sized {
    fn deserialize_in<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error>;
}

impl Ignored for IgnoredAny {
    fn deserialize_in<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_ignored_any(Self).map(|_| ())
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, output: &mut fmt::Formatter<'_>) -> fmt::Result {
        output.write_str("JSON")
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

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let mut at = 0_usize;
        loop {
            let path = format!("{}[{at}]", self.path);
            if items.next_element_seed(self.under(path))?.is_none() {
                return Ok(());
            }
            at += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        let mut seen = std::collections::BTreeSet::new();
        while let Some(name) = entries.next_key::<String>()? {
            let path = match self.path.is_empty() {
                true => name.clone(),
                false => format!("{}.{name}", self.path),
            };
            if !seen.insert(name) && self.found.len() < MAX_DUPLICATES {
                self.found.push(format!("duplicate field {path:?}"));
            }
            entries.next_value_seed(self.under(path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_stand_twice_are_found() {
        assert_eq!(
            duplicates(br#"{"a":1,"b":{"c":[{"d":1,"d":2}]},"a":2}"#),
            ["duplicate field \"b.c[0].d\"", "duplicate field \"a\""]
        );
    }
}
