//! A value and where it stands in its object: what checks are written on. The
//! path is a chain of borrowed steps that becomes text only when an error is
//! reported, so that checking a good object allocates nothing.
//!
//! Invariant: what is absent reads as null, as an empty text, as an empty list.

use std::fmt::Write as _;

use serde_json::Value;

use super::{Errors, render};
use crate::quantity::Quantity;
use crate::status::quote;

/// What is wrong with a text; nothing: it is good.
pub type Check = fn(&str) -> Vec<String>;

const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// A value, with its path from the object's root.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    /// The value; null where there is none.
    pub value: &'a Value,
    up: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Item(usize),
    Key(&'a str),
}

impl<'a> At<'a> {
    /// The object itself.
    pub fn root(value: &'a Value) -> Self {
        Self {
            value,
            up: None,
            step: Step::Root,
        }
    }

    fn below(&'a self, value: &'a Value, step: Step<'a>) -> At<'a> {
        At {
            value,
            up: Some(self),
            step,
        }
    }

    /// The field of that name, or at that dotted path.
    pub fn get(&'a self, name: &'a str) -> At<'a> {
        let value = match self.value.get(name) {
            Some(value) => value,
            None if name.contains('.') => name
                .split('.')
                .try_fold(self.value, |value, part| value.get(part))
                .unwrap_or(&Value::Null),
            None => &Value::Null,
        };
        self.below(value, Step::Field(name))
    }

    /// The same value under another name: where the reference calls it so.
    #[must_use]
    pub fn named(self, name: &'a str) -> At<'a> {
        At {
            step: Step::Field(name),
            ..self
        }
    }

    /// The entry of a map.
    pub fn key(&'a self, key: &'a str) -> At<'a> {
        let value = self.value.get(key).unwrap_or(&Value::Null);
        self.below(value, Step::Key(key))
    }

    /// The element of a list.
    pub fn item(&'a self, index: usize) -> At<'a> {
        let value = self.value.get(index).unwrap_or(&Value::Null);
        self.below(value, Step::Item(index))
    }

    /// Another value at a place below this one: of an error about what is not there.
    pub fn with(self, value: &'a Value) -> At<'a> {
        At { value, ..self }
    }

    /// The elements of a list.
    pub fn items(&'a self) -> impl ExactSizeIterator<Item = At<'a>> + DoubleEndedIterator {
        let list = self.value.as_array().map_or(&[][..], Vec::as_slice);
        let each = list.iter().enumerate();
        each.map(|(index, value)| self.below(value, Step::Item(index)))
    }

    /// The entries of a map.
    pub fn entries(&'a self) -> impl Iterator<Item = (&'a str, At<'a>)> {
        let map = self.value.as_object().into_iter().flatten();
        map.map(|(key, value)| (key.as_str(), self.below(value, Step::Key(key))))
    }

    /// As `spec.containers[0].name`.
    pub fn path(&self) -> String {
        let mut text = String::with_capacity(64);
        self.write_path(&mut text);
        text
    }

    fn write_path(&self, text: &mut String) {
        if let Some(up) = self.up {
            up.write_path(text);
        }
        match self.step {
            Step::Root => {}
            Step::Field(name) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
            // Writing to a string does not fail.
            Step::Item(index) => {
                let _ = write!(text, "[{index}]");
            }
            Step::Key(key) => {
                let _ = write!(text, "[{key}]");
            }
        }
    }

    /// Whether there is nothing here.
    pub fn is_null(&self) -> bool {
        self.value.is_null()
    }

    /// Whether there is something here.
    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// The text here.
    pub fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    /// The text of a field.
    pub fn str(&self, name: &str) -> &'a str {
        self.value
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The number here.
    pub fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// Whether this is the boolean true.
    pub fn is_true(&self) -> bool {
        self.value == &Value::Bool(true)
    }

    /// Whether a field is the boolean true.
    pub fn flag(&self, name: &str) -> bool {
        self.value.get(name) == Some(&Value::Bool(true))
    }

    /// Whether a field is there.
    pub fn has(&self, name: &str) -> bool {
        self.value.get(name).is_some_and(|value| !value.is_null())
    }

    /// The elements of a list or map; of a text its bytes.
    pub fn len(&self) -> usize {
        match self.value {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            Value::String(text) => text.len(),
            _ => 0,
        }
    }

    /// Whether there is no element or byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The quantity here.
    pub fn quantity(&self) -> Option<Quantity> {
        Quantity::parse(self.value.as_str()?).ok()
    }

    /// Whether the list holds that text.
    pub fn contains(&self, text: &str) -> bool {
        self.value
            .as_array()
            .is_some_and(|list| list.iter().any(|item| item == text))
    }
}

/// What is reported about a place.
impl At<'_> {
    /// The field is missing or empty.
    pub fn required(&self, errors: &mut Errors, detail: &str) {
        errors.required(&self.path(), detail);
    }

    /// The value breaks a rule.
    pub fn invalid(&self, errors: &mut Errors, detail: &str) {
        errors.invalid(&self.path(), self.value, detail);
    }

    /// The text, empty if absent, breaks a rule.
    pub fn invalid_text(&self, errors: &mut Errors, detail: &str) {
        errors.invalid_text(&self.path(), self.text(), detail);
    }

    /// The number, 0 if absent, breaks a rule.
    pub fn invalid_int(&self, errors: &mut Errors, detail: &str) {
        let value = Value::from(self.int().unwrap_or(0));
        errors.invalid(&self.path(), &value, detail);
    }

    /// Something else breaks a rule here.
    pub fn invalid_as(&self, errors: &mut Errors, shown: impl Into<Value>, detail: &str) {
        errors.invalid(&self.path(), &shown.into(), detail);
    }

    /// What the reference shows in a form of its own breaks a rule here.
    pub fn invalid_shown(&self, errors: &mut Errors, shown: &str, detail: &str) {
        errors.invalid_shown(&self.path(), shown, detail);
    }

    /// The value is none of `supported`.
    pub fn unsupported(&self, errors: &mut Errors, supported: &[&str]) {
        errors.not_supported(&self.path(), self.text(), supported);
    }

    /// The value stands twice.
    pub fn duplicate(&self, errors: &mut Errors) {
        errors.duplicate(&self.path(), self.value);
    }

    /// That stands twice.
    pub fn duplicate_as(&self, errors: &mut Errors, shown: impl Into<Value>) {
        errors.duplicate(&self.path(), &shown.into());
    }

    /// The value names nothing.
    pub fn not_found(&self, errors: &mut Errors) {
        errors.not_found(&self.path(), self.text());
    }

    /// The value may not be here.
    pub fn forbidden(&self, errors: &mut Errors, detail: &str) {
        errors.forbidden(&self.path(), detail);
    }

    /// The value is longer than `max_bytes`.
    pub fn too_long(&self, errors: &mut Errors, max_bytes: usize) {
        errors.too_long(&self.path(), max_bytes);
    }

    /// The list holds more than `max` elements.
    pub fn too_many(&self, errors: &mut Errors, max: usize) {
        errors.too_many(&self.path(), self.len(), max);
    }
}

/// Checks of one place; the answer is whether it is good.
impl At<'_> {
    /// Something must be here.
    pub fn need(&self, errors: &mut Errors) -> bool {
        let there = match self.value {
            Value::Null => false,
            Value::String(_) | Value::Array(_) => !self.is_empty(),
            _ => true,
        };
        if !there {
            self.required(errors, "");
        }
        there
    }

    /// The text must pass a check, empty or not.
    pub fn check(&self, errors: &mut Errors, check: Check) -> bool {
        let wrong = check(self.text());
        for message in &wrong {
            self.invalid_text(errors, message);
        }
        wrong.is_empty()
    }

    /// A text that passes a check must be here.
    pub fn need_check(&self, errors: &mut Errors, check: Check) -> bool {
        self.need(errors) && self.check(errors, check)
    }

    /// A text that is not empty must pass a check.
    pub fn may_check(&self, errors: &mut Errors, check: Check) -> bool {
        self.text().is_empty() || self.check(errors, check)
    }

    /// One of these must be here.
    pub fn choice(&self, errors: &mut Errors, known: &[&str]) -> bool {
        self.need(errors) && self.one_of(errors, known)
    }

    /// The text must be one of these, empty or not.
    pub fn one_of(&self, errors: &mut Errors, known: &[&str]) -> bool {
        let good = known.contains(&self.text());
        if !good {
            self.unsupported(errors, known);
        }
        good
    }

    /// If something is here, it must be one of these.
    pub fn may_one_of(&self, errors: &mut Errors, known: &[&str]) -> bool {
        self.is_null() || self.one_of(errors, known)
    }

    /// The number, if any, must not be negative.
    pub fn not_negative(&self, errors: &mut Errors) -> bool {
        let good = self.int().unwrap_or(0) >= 0;
        if !good {
            self.invalid(errors, NOT_NEGATIVE);
        }
        good
    }

    /// The number, 0 if absent, must be above zero.
    pub fn positive(&self, errors: &mut Errors) -> bool {
        let good = self.int().unwrap_or(0) > 0;
        if !good {
            self.invalid_int(errors, "must be greater than zero");
        }
        good
    }

    /// The number, if any, must lie in a range.
    pub fn within(&self, errors: &mut Errors, low: i64, high: i64) -> bool {
        let good = self.int().is_none_or(|own| (low..=high).contains(&own));
        if !good {
            let detail = format!("must be between {low} and {high}, inclusive");
            self.invalid(errors, &detail);
        }
        good
    }

    /// Nothing may be here.
    pub fn absent(&self, errors: &mut Errors, detail: &str) -> bool {
        if self.is_set() {
            self.forbidden(errors, detail);
        }
        self.is_null()
    }

    /// The value must be what it was; the reference does not show what it is to be
    /// where the type itself says so.
    pub fn fixed(&self, errors: &mut Errors, old: &Value) -> bool {
        let same = self.value == old;
        if !same {
            self.invalid_as(errors, Value::Null, "field is immutable");
        }
        same
    }

    /// The value must be what it was.
    pub fn unchanged(&self, errors: &mut Errors, old: &Value, detail: &str) -> bool {
        let same = self.value == old;
        if !same {
            self.invalid(errors, detail);
        }
        same
    }
}

impl std::fmt::Display for At<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.value {
            Value::String(text) => formatter.write_str(&quote(text)),
            other => formatter.write_str(&render(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_is_written_as_the_reference_writes_it() {
        let object = json!({"spec": {"list": [{"map": {"a/b": 1}}]}});
        let root = At::root(&object);
        let list = root.get("spec.list");
        let item = list.item(0);
        let map = item.get("map");
        assert_eq!(map.key("a/b").path(), "spec.list[0].map[a/b]");
        assert_eq!(map.key("a/b").int(), Some(1));
    }

    #[test]
    fn what_is_absent_reads_as_empty() {
        let object = json!({});
        let root = At::root(&object);
        assert_eq!(root.get("spec.containers").items().len(), 0);
        assert_eq!(root.str("name"), "");
        assert!(root.get("spec").is_null());
    }
}
