//! Field selectors: `metadata.name=a,status.phase!=Running`, over the fields that a kind
//! lets be selected.

use serde_json::Value;

use super::MAX_SELECTOR_BYTES;
use crate::resource::{Resource, Selectable};
use crate::status::{ApiError, quote};

/// One term of a field selector, whatever the kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    /// The field, as `metadata.name`.
    pub field: String,
    /// `=` rather than `!=`.
    pub equal: bool,
    /// The value.
    pub value: String,
}

/// Reads the terms of a field selector without asking whether a kind has the fields.
pub fn field_terms(text: &str) -> Result<Vec<FieldTerm>, ApiError> {
    if text.len() > MAX_SELECTOR_BYTES {
        return Err(ApiError::bad_request(format!(
            "invalid selector: longer than {MAX_SELECTOR_BYTES} bytes"
        )));
    }
    let mut terms = Vec::new();
    for part in split_terms(text).iter().filter(|part| !part.is_empty()) {
        let Some((field, equal, value)) = split_term(part) else {
            return Err(ApiError::bad_request(format!(
                "invalid selector: '{text}'; can't understand '{part}'"
            )));
        };
        terms.push(FieldTerm {
            field: field.to_owned(),
            equal,
            value: unescape(value).map_err(ApiError::bad_request)?,
        });
    }
    Ok(terms)
}

/// A parsed field selector of one kind.
#[derive(Debug, Clone, Default)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Debug, Clone)]
struct Term {
    field: Selectable,
    equal: bool,
    value: String,
}

impl FieldSelector {
    /// Reads `metadata.name=a,status.phase!=Running`; only fields that the kind
    /// makes selectable may be named.
    pub fn parse(resource: &Resource, text: &str) -> Result<Self, ApiError> {
        let mut terms = Vec::new();
        for FieldTerm {
            field: label,
            equal,
            value,
        } in field_terms(text)?
        {
            let Some(field) = resource
                .selectable
                .iter()
                .find(|field| field.label == label)
            else {
                return Err(ApiError::bad_request(unsupported(resource, &label)));
            };
            terms.push(Term {
                field: field.clone(),
                equal,
                value,
            });
        }
        Ok(Self { terms })
    }

    /// Whether the selector selects everything.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether the object's fields satisfy every term.
    pub fn matches(&self, object: &Value) -> bool {
        self.terms
            .iter()
            .all(|term| (field_text(object, &term.field) == term.value) == term.equal)
    }

    /// Each term: the field's label, whether it must be equal, and to what.
    pub fn terms(&self) -> impl Iterator<Item = (&str, bool, &str)> {
        let terms = self.terms.iter();
        terms.map(|term| (term.field.label.as_str(), term.equal, term.value.as_str()))
    }

    /// The one name selected, where the selector demands one.
    pub fn exact_name(&self) -> Option<&str> {
        self.exact("metadata.name")
    }

    /// The one namespace selected, where the selector demands one.
    pub fn exact_namespace(&self) -> Option<&str> {
        self.exact("metadata.namespace")
    }

    fn exact(&self, path: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| term.equal && term.field.path == path)
            .map(|term| term.value.as_str())
    }
}

/// Kinds with selectable fields of their own say less than the others.
fn unsupported(resource: &Resource, label: &str) -> String {
    if resource.selectable.len() > 2 {
        format!("field label not supported: {label}")
    } else {
        format!(
            "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            quote(label)
        )
    }
}

fn field_text(object: &Value, field: &Selectable) -> String {
    for path in field.path.split('|') {
        let found = path
            .split('.')
            .try_fold(object, |value, part| value.get(part));
        match found {
            Some(Value::String(text)) if !text.is_empty() => return text.clone(),
            Some(Value::Bool(flag)) => return flag.to_string(),
            Some(Value::Number(number)) => return number.to_string(),
            _ => {}
        }
    }
    field.default.clone()
}

/// At commas that no backslash precedes.
fn split_terms(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut escaped = false;
    for character in text.chars() {
        if character == ',' && !escaped {
            terms.push(String::new());
            continue;
        }
        escaped = character == '\\' && !escaped;
        if let Some(last) = terms.last_mut() {
            last.push(character);
        }
    }
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.find('=')?;
    let (left, right) = (&term[..at], &term[at + 1..]);
    if let Some(label) = left.strip_suffix('!') {
        return Some((label, false, right));
    }
    Some((left, true, right.strip_prefix('=').unwrap_or(right)))
}

fn unescape(value: &str) -> Result<String, String> {
    let mut text = String::new();
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(next @ ('\\' | ',' | '=')) => text.push(next),
                Some(next) => {
                    return Err(format!(
                        "invalid field selector: invalid escape sequence: \\{next}"
                    ));
                }
                None => {
                    return Err("invalid field selector: invalid escape sequence: \\".to_owned());
                }
            },
            ',' | '=' => {
                return Err(format!(
                    "invalid field selector: unescaped character in value: {character}"
                ));
            }
            other => text.push(other),
        }
    }
    Ok(text)
}
