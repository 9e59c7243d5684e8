//! Field errors with the words of the reference, and checks of names, labels
//! and the like. A check never stops at the first error.
//!
//! Source: `k8s.io/apimachinery` `util/validation` and `util/validation/field`.

mod at;
pub mod common;
pub mod webhook;

use std::collections::BTreeSet;

use serde_json::Value;

pub use self::at::{At, Check};
use crate::status::{Cause, quote};

/// Longest DNS label, in bytes.
pub const DNS_LABEL_MAX_BYTES: usize = 63;
/// Longest DNS subdomain, in bytes.
pub const DNS_SUBDOMAIN_MAX_BYTES: usize = 253;
/// Most bytes of all annotations' keys and values together.
pub const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;

/// The errors found so far, in order.
#[derive(Debug, Default)]
pub struct Errors {
    causes: Vec<Cause>,
}

impl Errors {
    /// No errors yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// All that were found.
    pub fn into_causes(self) -> Vec<Cause> {
        self.causes
    }

    /// All that were found, each once.
    pub fn into_distinct_causes(self) -> Vec<Cause> {
        let mut seen = BTreeSet::new();
        let mut distinct = self.causes;
        distinct.retain(|cause| {
            let own = (&cause.field, &cause.reason, &cause.message);
            seen.insert(format!("{own:?}"))
        });
        distinct
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.causes.is_empty()
    }

    /// How many were found.
    pub fn len(&self) -> usize {
        self.causes.len()
    }

    fn push(&mut self, path: &str, reason: &str, head: String, detail: &str) {
        let message = if detail.is_empty() {
            head
        } else {
            format!("{head}: {detail}")
        };
        self.causes.push(Cause {
            field: path.to_owned(),
            reason: reason.to_owned(),
            message,
        });
    }

    /// A cause whose reason and message the caller knows.
    pub fn other(&mut self, path: &str, reason: &str, message: String) {
        self.push(path, reason, message, "");
    }

    /// The causes of another check, after these.
    pub fn extend(&mut self, others: Self) {
        self.causes.extend(others.causes);
    }

    /// The field is missing or empty.
    pub fn required(&mut self, path: &str, detail: &str) {
        self.push(
            path,
            "FieldValueRequired",
            "Required value".to_owned(),
            detail,
        );
    }

    /// The value breaks a rule.
    pub fn invalid(&mut self, path: &str, value: &Value, detail: &str) {
        let head = format!("Invalid value: {}", render(value));
        self.push(path, "FieldValueInvalid", head, detail);
    }

    /// What is shown in that form breaks a rule.
    pub fn invalid_shown(&mut self, path: &str, shown: &str, detail: &str) {
        let head = format!("Invalid value: {shown}");
        self.push(path, "FieldValueInvalid", head, detail);
    }

    /// The text breaks a rule.
    pub fn invalid_text(&mut self, path: &str, value: &str, detail: &str) {
        let head = format!("Invalid value: {}", quote(value));
        self.push(path, "FieldValueInvalid", head, detail);
    }

    /// The value is none of `supported`.
    pub fn not_supported(&mut self, path: &str, value: &str, supported: &[&str]) {
        let list: Vec<String> = supported.iter().map(|text| quote(text)).collect();
        let head = format!("Unsupported value: {}", quote(value));
        let detail = format!("supported values: {}", list.join(", "));
        self.push(path, "FieldValueNotSupported", head, &detail);
    }

    /// What is shown in that form is none of `supported`.
    pub fn not_supported_shown(&mut self, path: &str, shown: &str, supported: &[&str]) {
        let list: Vec<String> = supported.iter().map(|text| quote(text)).collect();
        let head = format!("Unsupported value: {shown}");
        let detail = format!("supported values: {}", list.join(", "));
        self.push(path, "FieldValueNotSupported", head, &detail);
    }

    /// A value that is not shown breaks a rule.
    pub fn invalid_omitted(&mut self, path: &str, detail: &str) {
        self.push(
            path,
            "FieldValueInvalid",
            "Invalid value".to_owned(),
            detail,
        );
    }

    /// The value stands twice in a list.
    pub fn duplicate(&mut self, path: &str, value: &Value) {
        let head = format!("Duplicate value: {}", render(value));
        self.push(path, "FieldValueDuplicate", head, "");
    }

    /// What is shown in that form stands twice in a list.
    pub fn duplicate_shown(&mut self, path: &str, shown: &str, detail: &str) {
        let head = format!("Duplicate value: {shown}");
        self.push(path, "FieldValueDuplicate", head, detail);
    }

    /// The value refers to nothing.
    pub fn not_found(&mut self, path: &str, value: &str) {
        self.push(
            path,
            "FieldValueNotFound",
            format!("Not found: {}", quote(value)),
            "",
        );
    }

    /// The value refers to nothing, and why.
    pub fn not_found_because(&mut self, path: &str, value: &str, detail: &str) {
        let head = format!("Not found: {}", quote(value));
        self.push(path, "FieldValueNotFound", head, detail);
    }

    /// The value may not be set here.
    pub fn forbidden(&mut self, path: &str, detail: &str) {
        self.push(path, "FieldValueForbidden", "Forbidden".to_owned(), detail);
    }

    /// The value is longer than `max_bytes`.
    pub fn too_long(&mut self, path: &str, max_bytes: usize) {
        let unit = if max_bytes == 1 { "byte" } else { "bytes" };
        let detail = format!("may not be more than {max_bytes} {unit}");
        self.push(path, "FieldValueTooLong", "Too long".to_owned(), &detail);
    }

    /// The list holds more than `max` elements.
    pub fn too_many(&mut self, path: &str, actual: usize, max: usize) {
        let unit = if max == 1 { "item" } else { "items" };
        let detail = format!("must have at most {max} {unit}");
        self.push(
            path,
            "FieldValueTooMany",
            format!("Too many: {actual}"),
            &detail,
        );
    }

    /// One `invalid_text` for each message.
    pub fn each(&mut self, path: &str, value: &str, messages: Vec<String>) {
        for message in messages {
            self.invalid_text(path, value, &message);
        }
    }
}

/// As Go writes the value: JSON, with what HTML would take for markup escaped.
fn render(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        Value::Array(_) | Value::Object(_) => escape_markup(&value.to_string()),
        other => other.to_string(),
    }
}

/// JSON as Go writes it.
pub(crate) fn escape_markup(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '&' => escaped.push_str("\\u0026"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            other => escaped.push(other),
        }
    }
    escaped
}

const LABEL_CHARACTERS: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric \
characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN_CHARACTERS: &str = "a lowercase RFC 1123 subdomain must consist of lower case \
alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const LABEL_1035_CHARACTERS: &str = "a DNS-1035 label must consist of lower case alphanumeric \
characters or '-', start with an alphabetic character, and end with an alphanumeric character";
const QUALIFIED_CHARACTERS: &str = "must consist of alphanumeric characters, '-', '_' or '.', and \
must start and end with an alphanumeric character";
const LABEL_VALUE_CHARACTERS: &str = "a valid label must be an empty string or consist of \
alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const CONFIG_KEY_CHARACTERS: &str =
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
const ENV_NAME_CHARACTERS: &str = "a valid environment variable name must consist only of \
printable ASCII characters other than '='";

fn longer_than(max: usize) -> String {
    format!("must be no more than {max} characters")
}

fn more_bytes_than(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn shape(message: &str, pattern: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{pattern}')");
    }
    let examples: Vec<String> = examples
        .iter()
        .map(|example| format!("'{example}', "))
        .collect();
    format!(
        "{message} (e.g. {}regex used for validation is '{pattern}')",
        examples.join(" or ")
    )
}

fn is_lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn framed(text: &str, edge: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => edge(*first) && edge(*last) && bytes.iter().all(|b| inner(*b)),
        _ => false,
    }
}

fn matches_label(text: &str) -> bool {
    framed(text, is_lower_alphanumeric, |byte| {
        is_lower_alphanumeric(byte) || byte == b'-'
    })
}

fn matches_qualified(text: &str) -> bool {
    framed(
        text,
        |byte| byte.is_ascii_alphanumeric(),
        |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'),
    )
}

/// What is wrong with `text` as a DNS-1123 label.
pub fn dns_label(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > DNS_LABEL_MAX_BYTES {
        wrong.push(longer_than(DNS_LABEL_MAX_BYTES));
    }
    if !matches_label(text) {
        if text.split('.').all(matches_label) {
            wrong.push("must not contain dots".to_owned());
        } else {
            wrong.push(shape(
                LABEL_CHARACTERS,
                "[a-z0-9]([-a-z0-9]*[a-z0-9])?",
                &["my-name", "123-abc"],
            ));
        }
    }
    wrong
}

/// What is wrong with `text` as a DNS-1123 subdomain.
pub fn dns_subdomain(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > DNS_SUBDOMAIN_MAX_BYTES {
        wrong.push(longer_than(DNS_SUBDOMAIN_MAX_BYTES));
    }
    if !text.split('.').all(matches_label) {
        wrong.push(shape(
            SUBDOMAIN_CHARACTERS,
            "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    wrong
}

/// What is wrong with `text` as a DNS-1035 label.
pub fn dns_1035_label(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > DNS_LABEL_MAX_BYTES {
        wrong.push(longer_than(DNS_LABEL_MAX_BYTES));
    }
    let starts = text.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    if !starts || !matches_label(text) {
        wrong.push(shape(
            LABEL_1035_CHARACTERS,
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    wrong
}

/// What is wrong with `text` as a qualified name (a label's or annotation's key).
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let example = &["MyName", "my.name", "123-abc"];
    let pattern = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                wrong.extend(
                    dns_subdomain(prefix)
                        .into_iter()
                        .map(|m| format!("prefix part {m}")),
                );
            }
            *name
        }
        _ => {
            let message = shape(
                &format!("a valid label key {QUALIFIED_CHARACTERS}"),
                pattern,
                example,
            );
            wrong.push(format!(
                "{message} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ));
            return wrong;
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > DNS_LABEL_MAX_BYTES {
        wrong.push(format!(
            "name part {}",
            more_bytes_than(DNS_LABEL_MAX_BYTES)
        ));
    }
    if !matches_qualified(name) {
        wrong.push(format!(
            "name part {}",
            shape(QUALIFIED_CHARACTERS, pattern, example)
        ));
    }
    wrong
}

/// What is wrong with `text` as a label's value.
pub fn label_value(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > DNS_LABEL_MAX_BYTES {
        wrong.push(more_bytes_than(DNS_LABEL_MAX_BYTES));
    }
    if !text.is_empty() && !matches_qualified(text) {
        wrong.push(shape(
            LABEL_VALUE_CHARACTERS,
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    wrong
}

/// What is wrong with `text` as a key of a config map or secret.
pub fn config_key(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > DNS_SUBDOMAIN_MAX_BYTES {
        wrong.push(longer_than(DNS_SUBDOMAIN_MAX_BYTES));
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(known) {
        wrong.push(shape(
            CONFIG_KEY_CHARACTERS,
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match text {
        "." => wrong.push("must not be '.'".to_owned()),
        ".." => wrong.push("must not be '..'".to_owned()),
        other if other.starts_with("..") => wrong.push("must not start with '..'".to_owned()),
        _ => {}
    }
    wrong
}

/// What is wrong with `text` as the name of an environment variable.
pub fn env_name(text: &str) -> Vec<String> {
    let known = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'=';
    let mut wrong = Vec::new();
    if text.is_empty() {
        wrong.push("environment variable name must be non-empty".to_owned());
    }
    if !text.bytes().all(known) {
        wrong.push(ENV_NAME_CHARACTERS.to_owned());
    }
    wrong
}

/// What is wrong with `text` as the name of a port.
pub fn port_name(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > 15 {
        wrong.push(longer_than(15));
    }
    let known = |byte: u8| is_lower_alphanumeric(byte) || byte == b'-';
    if text.is_empty() || !text.bytes().all(known) {
        wrong.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_owned());
    }
    wrong
}

/// What is wrong with a port number.
pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) {
        return Vec::new();
    }
    vec!["must be between 1 and 65535, inclusive".to_owned()]
}

/// What is wrong with an object's name, by the kind's rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// Most kinds.
    DnsSubdomain,
    /// Namespaces and services.
    DnsLabel,
    /// Older kinds of names.
    Dns1035Label,
    /// Names that only have to be one path segment.
    PathSegment,
}

impl NameRule {
    /// The messages; with `is_prefix` a trailing dash is allowed (generateName).
    pub fn check(self, name: &str, is_prefix: bool) -> Vec<String> {
        // The reference masks the dash together with the character before it.
        let masked = name
            .strip_suffix('-')
            .filter(|_| is_prefix)
            .and_then(|start| {
                let (at, _) = start.char_indices().next_back()?;
                Some(format!("{}a", &start[..at]))
            });
        let text = masked.as_deref().unwrap_or(name);
        match self {
            Self::DnsSubdomain => dns_subdomain(text),
            Self::DnsLabel => dns_label(text),
            Self::Dns1035Label => dns_1035_label(text),
            Self::PathSegment => path_segment(text),
        }
    }
}

/// What is wrong with a text as one segment of a path.
pub fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"]
        .iter()
        .filter(|part| text.contains(**part))
        .map(|part| format!("may not contain '{part}'"))
        .collect()
}

/// Checks a map of labels.
pub fn labels(errors: &mut Errors, path: &str, value: Option<&Value>) {
    for (key, value) in value.and_then(Value::as_object).into_iter().flatten() {
        errors.each(path, key, qualified_name(key));
        let text = value.as_str().unwrap_or_default();
        errors.each(path, text, label_value(text));
    }
}

/// Checks a map of annotations.
pub fn annotations(errors: &mut Errors, path: &str, value: Option<&Value>) {
    let mut size_bytes = 0;
    for (key, value) in value.and_then(Value::as_object).into_iter().flatten() {
        errors.each(path, key, qualified_name(&key.to_ascii_lowercase()));
        size_bytes += key.len() + value.as_str().unwrap_or_default().len();
    }
    if size_bytes > ANNOTATIONS_MAX_BYTES {
        errors.too_long(path, ANNOTATIONS_MAX_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capital_letter_is_refused_in_the_words_of_the_reference() {
        assert_eq!(
            dns_subdomain("Web"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
    }

    #[test]
    fn a_prefix_may_end_in_a_dash() {
        assert!(NameRule::DnsSubdomain.check("web-", true).is_empty());
        assert!(!NameRule::DnsSubdomain.check("web-", false).is_empty());
    }

    #[test]
    fn a_multibyte_name_is_refused_not_a_panic() {
        assert!(!NameRule::DnsLabel.check("éa-", true).is_empty());
        assert!(!NameRule::DnsLabel.check("é", true).is_empty());
    }
}
