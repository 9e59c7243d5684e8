//! Values as the reference shows them in messages: as its internal types, whose
//! JSON names are Go's, with every field, zero or not.
//!
//! Invariant: only for messages; nothing is stored or served in this form.

use std::fmt::Write as _;

use serde_json::Value;

use crate::schema::{self, Field, Shape, Type};
use crate::validation::escape_markup;

const MACHINERY: &str = "io.k8s.apimachinery.";
/// Types nest no deeper than this in any message.
const MAX_DEPTH: usize = 32;

/// A value of that type in one line.
pub(crate) fn show(type_name: &str, value: &Value) -> String {
    let mut text = String::new();
    match schema::find(type_name) {
        Some(found) => message(found, value, &mut text, MAX_DEPTH),
        None => text.push_str(&escape_markup(&value.to_string())),
    }
    text
}

/// A list of values of that type in one line.
pub(crate) fn show_list(type_name: &str, value: &Value) -> String {
    let mut text = String::new();
    let element = Shape::Message(type_name.into());
    shape(
        &Shape::List(Box::new(element)),
        true,
        value,
        &mut text,
        MAX_DEPTH,
    );
    text
}

fn message(found: &Type, value: &Value, text: &mut String, depth: usize) {
    if depth == 0 {
        text.push_str("null");
        return;
    }
    if found.name.starts_with(MACHINERY) {
        text.push_str(&escape_markup(&value.to_string()));
        return;
    }
    text.push('{');
    fields(found, value, text, depth);
    text.push('}');
}

fn fields(found: &Type, value: &Value, text: &mut String, depth: usize) {
    for field in &found.fields {
        if field.inlined {
            // An embedded struct's fields are its owner's.
            if let Shape::Message(name) = &field.shape
                && let Some(inner) = schema::find(name)
            {
                fields(inner, value, text, depth);
            }
            continue;
        }
        if field.type_meta {
            continue;
        }
        if field.name == "metadata" {
            embedded(value.get("metadata").unwrap_or(&Value::Null), text);
            continue;
        }
        if !text.ends_with('{') {
            text.push(',');
        }
        // Writing to a string does not fail.
        let _ = write!(text, "\"{}\":", go_name(&field.name));
        let own = value.get(&field.name).unwrap_or(&Value::Null);
        shape(&field.shape, is_pointer(field), own, text, depth - 1);
    }
}

/// Metadata is embedded, in the form it always has.
fn embedded(metadata: &Value, text: &mut String) {
    for (key, own) in metadata.as_object().into_iter().flatten() {
        if !text.ends_with('{') {
            text.push(',');
        }
        // Writing to a string does not fail.
        let _ = write!(text, "\"{key}\":{}", escape_markup(&own.to_string()));
    }
}

fn is_pointer(field: &Field) -> bool {
    // What the internal type holds as a plain number.
    let plain = ["partition"].contains(&field.name.as_str());
    (field.pointer && !plain) || matches!(field.shape, Shape::List(_) | Shape::Map(_))
}

fn shape(shape_of: &Shape, pointer: bool, value: &Value, text: &mut String, depth: usize) {
    if value.is_null() && pointer {
        text.push_str("null");
        return;
    }
    match (shape_of, value) {
        (Shape::Message(name), value) => match schema::find(name) {
            Some(found) => message(found, value, text, depth),
            None => text.push_str("null"),
        },
        (Shape::List(element), Value::Array(list)) => {
            text.push('[');
            for (at, item) in list.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                shape(element, false, item, text, depth);
            }
            text.push(']');
        }
        (Shape::Map(element), Value::Object(map)) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            text.push('{');
            for (at, (key, item)) in entries.into_iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                text.push_str(&escape_markup(&Value::from(key.as_str()).to_string()));
                text.push(':');
                shape(element, false, item, text, depth);
            }
            text.push('}');
        }
        (_, Value::Null) => text.push_str(zero(shape_of)),
        (_, value) => text.push_str(&escape_markup(&value.to_string())),
    }
}

fn zero(shape_of: &Shape) -> &'static str {
    match shape_of {
        Shape::String => "\"\"",
        Shape::Bool => "false",
        Shape::Int32 | Shape::Int64 | Shape::Double | Shape::IntOrString => "0",
        Shape::Quantity => "\"0\"",
        Shape::Duration => "\"0s\"",
        _ => "null",
    }
}

/// `hostIP` is `HostIP`; a few names differ by more than their first letter.
pub(crate) fn go_name(name: &str) -> String {
    for (json, go) in [
        ("apiVersion", "APIVersion"),
        ("apiGroup", "APIGroup"),
        ("apiGroups", "APIGroups"),
        ("uid", "UID"),
        ("ip", "IP"),
        ("tty", "TTY"),
        ("grpc", "GRPC"),
        ("httpGet", "HTTPGet"),
        ("httpHeaders", "HTTPHeaders"),
        ("tcpSocket", "TCPSocket"),
        ("fsGroup", "FSGroup"),
        ("fsGroupChangePolicy", "FSGroupChangePolicy"),
        ("fsType", "FSType"),
        ("seLinuxOptions", "SELinuxOptions"),
        ("seLinuxChangePolicy", "SELinuxChangePolicy"),
        ("dnsPolicy", "DNSPolicy"),
        ("dnsConfig", "DNSConfig"),
        ("os", "OS"),
        ("setHostnameAsFQDN", "SetHostnameAsFQDN"),
        ("serviceAccount", "DeprecatedServiceAccount"),
        ("nfs", "NFS"),
        ("iscsi", "ISCSI"),
        ("rbd", "RBD"),
        ("csi", "CSI"),
        ("fc", "FC"),
        ("cephfs", "CephFS"),
        ("storageos", "StorageOS"),
        ("awsElasticBlockStore", "AWSElasticBlockStore"),
        ("gcePersistentDisk", "GCEPersistentDisk"),
    ] {
        if name == json {
            return go.to_owned();
        }
    }
    let mut characters = name.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().chain(characters).collect(),
        None => String::new(),
    }
}

/// A value of that type over many lines, each level indented by a space.
pub(crate) fn show_lines(type_name: &str, value: &Value) -> String {
    let line = show(type_name, value);
    let mut text = String::with_capacity(line.len() * 2);
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        if in_text {
            text.push(character);
            in_text = escaped || character != '"';
            escaped = !escaped && character == '\\';
            continue;
        }
        match character {
            '{' | '[' if matches!(characters.peek(), Some('}' | ']')) => text.push(character),
            '{' | '[' => {
                depth += 1;
                text.push(character);
                new_line(&mut text, depth);
            }
            '}' | ']' if matches!(text.chars().last(), Some('{' | '[')) => text.push(character),
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut text, depth);
                text.push(character);
            }
            ',' => {
                text.push(character);
                new_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            _ => {
                in_text = character == '"';
                text.push(character);
            }
        }
    }
    text
}

fn new_line(text: &mut String, depth: usize) {
    text.push('\n');
    text.extend(std::iter::repeat_n(' ', depth));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_is_shown_with_its_zero() {
        let reference = json!({"name": "a", "resourceClaimName": "b"});
        assert_eq!(
            show("io.k8s.api.core.v1.PodResourceClaim", &reference),
            r#"{"Name":"a","ResourceClaimName":"b","ResourceClaimTemplateName":null}"#
        );
        assert_eq!(
            show_lines("io.k8s.api.core.v1.PodResourceClaim", &reference),
            "{\n \"Name\": \"a\",\n \"ResourceClaimName\": \"b\",\n \"ResourceClaimTemplateName\": null\n}"
        );
    }
}
