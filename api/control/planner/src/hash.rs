//! Short names of contents, which stay the same wherever and whenever they are made.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

/// Letters and digits of which no word that offends can be made.
const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

const FNV_OFFSET: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

/// The name of a value: FNV-1 over its JSON with sorted fields, as Go writes it, and
/// `probe`; the digits of the sum, each as a safe letter.
pub fn name_of(value: &Value, probe: Option<i64>) -> String {
    let mut text = sorted(value).to_string();
    for (character, escape) in [
        ("&", "\\u0026"),
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("\u{2028}", "\\u2028"),
        ("\u{2029}", "\\u2029"),
    ] {
        text = text.replace(character, escape);
    }
    if let Some(probe) = probe {
        text.push_str(&probe.to_string());
    }
    let sum = text.bytes().fold(FNV_OFFSET, |sum, byte| {
        sum.wrapping_mul(FNV_PRIME) ^ u32::from(byte)
    });
    safe(&sum.to_string())
}

/// Every byte of a text as a safe letter.
pub fn safe(text: &str) -> String {
    text.bytes()
        .map(|byte| char::from(SAFE[usize::from(byte) % SAFE.len()]))
        .collect()
}

/// SHA-256 of a text, in lower-case hexadecimal digits.
pub fn sha256(text: &str) -> String {
    let sum = digest(&SHA256, text.as_bytes());
    sum.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<&String, &Value> = fields.iter().collect();
            let fields = fields
                .into_iter()
                .map(|(name, value)| (name.clone(), sorted(value)));
            Value::Object(fields.collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_depends_on_contents_alone() {
        let one = json!({"a": 1, "b": {"c": "<&>", "d": [2]}});
        let two = json!({"b": {"d": [2], "c": "<&>"}, "a": 1});
        assert_eq!(name_of(&one, Some(0)), name_of(&two, Some(0)));
        assert_ne!(name_of(&one, Some(0)), name_of(&one, Some(1)));
        assert_ne!(name_of(&one, None), name_of(&json!({"a": 2}), None));
    }

    #[test]
    fn digits_have_their_letters() {
        assert_eq!(safe("0123456789"), "456789bcdf");
        assert_eq!(name_of(&json!({"a": "<"}), Some(0)), "7649c48bbf");
    }
}
