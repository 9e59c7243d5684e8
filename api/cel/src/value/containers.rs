//! Lists and maps: their elements become values when they are read.

use std::collections::BTreeMap;

use super::{Entries, Key, List, Map, Value};
use crate::declaration::{Declaration, Field};
use crate::error::EvalError;

impl<'a> List<'a> {
    /// Its length.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(items, _) => items.len(),
            Self::Owned(items) => items.len(),
        }
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element at an index that was checked.
    pub(crate) fn get(&self, at: usize) -> Result<Value<'a>, EvalError> {
        let missing = || EvalError::failed(format!("index out of bounds: {at}"));
        match self {
            Self::Json(items, declared) => {
                Value::from_json(items.get(at).ok_or_else(missing)?, declared)
            }
            Self::Owned(items) => items.get(at).cloned().ok_or_else(missing),
        }
    }

    /// Its elements, as values.
    pub(crate) fn to_vec(&self) -> Result<Vec<Value<'a>>, EvalError> {
        (0..self.len()).map(|at| self.get(at)).collect()
    }
}

impl<'a> Map<'a> {
    /// The number of entries.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(entries, Entries::Each(_)) => entries.len(),
            Self::Json(entries, Entries::Fields(object)) => {
                if object.open {
                    return entries.len();
                }
                let declared = |field: &&Field| entries.contains_key(&field.key);
                object.fields.values().filter(declared).count()
            }
            Self::Owned(entries) | Self::Made(_, entries) | Self::Defaulting(entries) => {
                entries.len()
            }
        }
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &Key) -> Option<Result<Value<'a>, EvalError>> {
        match (self, key) {
            (Self::Json(..), Key::String(name)) => self.field(name),
            (Self::Json(..), _) => None,
            (Self::Owned(entries) | Self::Made(_, entries), _) => entries.get(key).cloned().map(Ok),
            (Self::Defaulting(entries), _) => {
                let empty = || Value::map([]);
                Some(Ok(entries.get(key).cloned().unwrap_or_else(empty)))
            }
        }
    }

    /// Whether it has an entry of a key.
    pub(crate) fn contains(&self, key: &Key) -> bool {
        match self {
            Self::Defaulting(entries) => entries.contains_key(key),
            _ => self.get(key).is_some(),
        }
    }

    /// The value of a name.
    pub(crate) fn field(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            Self::Json(entries, Entries::Each(declared)) => entries
                .get(name)
                .map(|value| Value::from_json(value, declared)),
            Self::Json(entries, Entries::Fields(object)) => match object.fields.get(name) {
                Some(field) => entries
                    .get(&field.key)
                    .map(|value| Value::from_json(value, &field.declaration)),
                None if object.open => entries
                    .get(name)
                    .map(|value| Value::from_json(value, &Declaration::dynamic())),
                None => None,
            },
            Self::Owned(_) | Self::Made(..) | Self::Defaulting(_) => {
                self.get(&Key::String(name.into()))
            }
        }
    }

    /// Its keys.
    pub(crate) fn keys(&self) -> Vec<Key> {
        match self {
            Self::Json(entries, Entries::Each(_)) => entries
                .keys()
                .map(|name| Key::String(name.as_str().into()))
                .collect(),
            Self::Json(entries, Entries::Fields(object)) => {
                let mut keys: Vec<Key> = object
                    .fields
                    .iter()
                    .filter(|(_, field)| entries.contains_key(&field.key))
                    .map(|(name, _)| Key::String(name.as_str().into()))
                    .collect();
                if object.open {
                    keys = entries
                        .keys()
                        .map(|name| Key::String(name.as_str().into()))
                        .collect();
                }
                keys
            }
            Self::Owned(entries) | Self::Made(_, entries) | Self::Defaulting(entries) => {
                entries.keys().cloned().collect()
            }
        }
    }

    /// Its entries, as values.
    pub(crate) fn to_entries(&self) -> Result<BTreeMap<Key, Value<'a>>, EvalError> {
        match self {
            Self::Owned(entries) | Self::Made(_, entries) | Self::Defaulting(entries) => {
                Ok((**entries).clone())
            }
            Self::Json(..) => self
                .keys()
                .into_iter()
                .filter_map(|key| self.get(&key).map(|value| (key, value)))
                .map(|(key, value)| value.map(|value| (key, value)))
                .collect(),
        }
    }
}
