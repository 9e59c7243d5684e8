//! What a `Status` says beside its message: whom it is about, and each cause.

use serde_json::{Map, Value, json};

#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Details {
    pub(super) name: String,
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) uid: String,
    pub(super) causes: Vec<Cause>,
    pub(super) retry_after_seconds: u32,
}

/// One reason among several: a field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cause {
    /// The field's path, as `spec.containers[0].image`.
    pub field: String,
    /// `FieldValueRequired` and its kin.
    pub reason: String,
    /// What is wrong, without the path.
    pub message: String,
}

impl Details {
    pub(super) fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (key, text) in [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.kind),
            ("uid", &self.uid),
        ] {
            if !text.is_empty() {
                map.insert(key.to_owned(), json!(text));
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(Cause::to_value).collect();
            map.insert("causes".to_owned(), Value::Array(causes));
        }
        if self.retry_after_seconds > 0 {
            map.insert(
                "retryAfterSeconds".to_owned(),
                json!(self.retry_after_seconds),
            );
        }
        Value::Object(map)
    }
}

impl Cause {
    pub(super) fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (key, text) in [
            ("reason", &self.reason),
            ("message", &self.message),
            ("field", &self.field),
        ] {
            if !text.is_empty() {
                map.insert(key.to_owned(), json!(text));
            }
        }
        Value::Object(map)
    }
}
