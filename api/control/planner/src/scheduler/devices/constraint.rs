//! What a claim's devices must have in common, or must not.
//!
//! Invariant: taking a device away undoes adding it, in the reverse order.

use serde_json::Value;

use super::slice::{Attribute, Device};
use crate::object;

/// A constraint of a claim.
#[derive(Debug, Clone)]
pub(super) struct Constraint {
    /// Requests it is about, `request` or `request/part`; empty: all.
    requests: Vec<String>,
    attribute: String,
    is: Is,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Alike,
    Distinct,
    Unknown,
}

impl Constraint {
    pub(super) fn read(own: &Value) -> Self {
        let requests = object::items(&own["requests"]).filter_map(Value::as_str);
        let requests = requests.map(str::to_owned).collect();
        let kinds = [
            ("matchAttribute", Is::Alike),
            ("distinctAttribute", Is::Distinct),
        ];
        let found = kinds
            .into_iter()
            .find_map(|(field, is)| Some((own[field].as_str()?, is)));
        let (attribute, is) = found.unwrap_or(("", Is::Unknown));
        Self {
            requests,
            attribute: attribute.to_owned(),
            is,
        }
    }

    /// Whether it is one that is known.
    pub(super) fn is_known(&self) -> bool {
        self.is != Is::Unknown
    }

    fn is_about(&self, request: &str, name: &str) -> bool {
        let mut requests = self.requests.iter();
        self.requests.is_empty() || requests.any(|own| own == request || own == name)
    }
}

/// A constraint, and the devices that it holds for so far.
#[derive(Debug)]
pub(super) struct Held<'a> {
    constraint: &'a Constraint,
    attributes: Vec<&'a Attribute>,
}

impl<'a> Held<'a> {
    pub(super) fn new(constraint: &'a Constraint) -> Self {
        Self {
            constraint,
            attributes: Vec::new(),
        }
    }

    /// Whether it would hold with one more device; `request` is what `name` is a part of.
    pub(super) fn admits(&self, request: &str, name: &str, device: &Device) -> bool {
        if !self.constraint.is_about(request, name) {
            return true;
        }
        let Some(own) = device.attribute(&self.constraint.attribute) else {
            return false;
        };
        match (self.constraint.is, self.attributes.first()) {
            (Is::Alike, None) => true,
            (Is::Alike, Some(first)) => *own != Attribute::Other && own == *first,
            _ if self.attributes.is_empty() => true,
            _ => *own != Attribute::Other && !self.attributes.contains(&own),
        }
    }

    pub(super) fn add(&mut self, request: &str, name: &str, device: &'a Device) {
        if self.constraint.is_about(request, name)
            && let Some(own) = device.attribute(&self.constraint.attribute)
        {
            self.attributes.push(own);
        }
    }

    pub(super) fn take_back(&mut self, request: &str, name: &str) {
        if self.constraint.is_about(request, name) {
            self.attributes.pop();
        }
    }
}
