//! The configuration that an apply request carries.

use std::cell::RefCell;
use std::fmt;

use nautilus_apply::{FieldManager, Versions as _};
use nautilus_machinery::fields::{self, FieldValidation};
use nautilus_machinery::status::ApiError;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{KindVersions, reset};
use crate::body::Warnings;
use crate::ids;
use crate::options::WriteOptions;
use crate::storage::Target;

/// The media type of an apply.
pub(crate) const MEDIA_TYPES: [&str; 1] = ["application/apply-patch+yaml"];

/// A parsed configuration.
pub(crate) struct Configuration {
    value: Value,
    /// Fields that are there twice.
    repeated: Option<String>,
}

impl Configuration {
    /// Reads a body in YAML, of which JSON is a part.
    pub(crate) fn read(body: &[u8]) -> Result<Self, ApiError> {
        let repeated = RefCell::new(None);
        let seed = Node {
            repeated: &repeated,
        };
        // Most clients send JSON, which is read much faster as such.
        let json = match body.first() {
            Some(b'{') => seed
                .deserialize(&mut serde_json::Deserializer::from_slice(body))
                .ok(),
            _ => None,
        };
        let value = match json {
            Some(value) => value,
            None => {
                repeated.replace(None);
                seed.deserialize(serde_yaml_ng::Deserializer::from_slice(body))
                    .map_err(|error| {
                        ApiError::bad_request(format!("error encoding patch: yaml: {error}"))
                    })?
            }
        };
        let form = match &value {
            Value::Object(_) | Value::Null => None,
            Value::Array(_) => Some("array"),
            Value::String(_) => Some("string"),
            Value::Number(_) => Some("number"),
            Value::Bool(_) => Some("bool"),
        };
        if let Some(form) = form {
            return Err(ApiError::bad_request(format!(
                "error decoding patch: error unmarshaling JSON: while decoding JSON: json: \
                 cannot unmarshal {form} into Go value of type map[string]interface {{}}"
            )));
        }
        let repeated = repeated.into_inner().map(|key| {
            format!(
                "line {}: key {key:?} already set in map",
                line_of(&key, body)
            )
        });
        Ok(Self { value, repeated })
    }

    /// 409 where the configuration is for an object that is no more.
    pub(crate) fn refuse_uid(&self, target: &Target<'_>) -> Result<(), ApiError> {
        match self.value["metadata"]["uid"].as_str().unwrap_or_default() {
            "" => Ok(()),
            uid => Err(ApiError::conflict_with(
                target.resource,
                target.name,
                &format!(
                    "uid mismatch: the provided object specified uid {uid}, and no existing \
                     object was found"
                ),
            )),
        }
    }

    /// The object with the configuration applied, as a typed server would keep it.
    /// `current` is what stands; `None`: nothing does.
    pub(crate) fn apply(
        &self,
        target: &Target<'_>,
        options: &WriteOptions,
        current: Option<&Value>,
        warnings: &Warnings,
    ) -> Result<Value, ApiError> {
        let resource = target.resource;
        let versions = KindVersions {
            resource,
            reset: reset::of(resource, target.subresource),
        };
        let api_version = resource.api_version();
        let now = ids::now_rfc3339();
        let manager = FieldManager {
            versions: &versions,
            api_version: &api_version,
            kind: &resource.kind,
            subresource: target.subresource.unwrap_or_default(),
            now: &now,
        };
        let empty;
        let live = match current {
            Some(current) => current,
            None => {
                empty = versions.empty();
                &empty
            }
        };
        let applied = manager.apply(
            live,
            &self.value,
            &options.field_manager,
            options.force.unwrap_or_default(),
        )?;
        self.judge_repeated(options.field_validation, warnings)?;
        match &resource.defined {
            Some(defined) => {
                let mut applied = applied;
                let validation = options.field_validation;
                let defined = defined.as_ref();
                crate::custom::judge(
                    resource,
                    defined,
                    &mut applied,
                    Vec::new(),
                    validation,
                    warnings,
                )?;
                Ok(applied)
            }
            None => fields::conform(&resource.schema, &applied),
        }
    }

    fn judge_repeated(
        &self,
        validation: FieldValidation,
        warnings: &Warnings,
    ) -> Result<(), ApiError> {
        let Some(what) = &self.repeated else {
            return Ok(());
        };
        let what = format!("error converting YAML to JSON: yaml: unmarshal errors:\n  {what}");
        match validation {
            FieldValidation::Ignore => Ok(()),
            FieldValidation::Warn => {
                warnings.replace(vec![what]);
                Ok(())
            }
            FieldValidation::Strict => Err(ApiError::bad_request(format!(
                "error strict decoding patch: {what}"
            ))),
        }
    }
}

/// The line on which a key stands for the second time.
fn line_of(key: &str, body: &[u8]) -> usize {
    let text = String::from_utf8_lossy(body);
    let names_it = |line: &str| {
        let line = line.trim_start().trim_start_matches(['"', '\'']);
        line.strip_prefix(key)
            .is_some_and(|rest| rest.trim_start_matches(['"', '\'']).starts_with(':'))
    };
    let places = text.lines().enumerate().filter(|(_, line)| names_it(line));
    places.map(|(at, _)| at + 1).nth(1).unwrap_or(1)
}

/// Builds a value and notes the first key that a map has twice; the last one counts.
#[derive(Clone, Copy)]
struct Node<'a> {
    repeated: &'a RefCell<Option<String>>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = access.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(self)?;
            if map.contains_key(&key) {
                self.repeated
                    .borrow_mut()
                    .get_or_insert_with(|| key.clone());
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
