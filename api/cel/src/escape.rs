//! Names of properties as identifiers, and back (the reference's rules for fields of a
//! schema: `__dot__`, `__dash__`, `__slash__`, `__underscores__`, `__<keyword>__`).

use crate::lexer::RESERVED;

/// The identifier of a property, if it has one.
pub fn escape(name: &str) -> Option<String> {
    let first = name.as_bytes().first()?;
    if first.is_ascii_digit() {
        return None;
    }
    if is_keyword(name) {
        return Some(format!("__{name}__"));
    }
    let mut escaped = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(character) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("__") {
            escaped.push_str("__underscores__");
            rest = after;
            continue;
        }
        match character {
            '.' => escaped.push_str("__dot__"),
            '-' => escaped.push_str("__dash__"),
            '/' => escaped.push_str("__slash__"),
            '_' => escaped.push('_'),
            plain if plain.is_ascii_alphanumeric() => escaped.push(plain),
            _ => return None,
        }
        rest = &rest[character.len_utf8()..];
    }
    Some(escaped)
}

/// The property of an identifier, if it is the escape of one.
pub fn unescape(identifier: &str) -> Option<String> {
    let mut name = String::with_capacity(identifier.len());
    let mut rest = identifier;
    while let Some(start) = rest.find("__") {
        name.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        let Some(end) = after.find('_').filter(|end| *end > 0) else {
            // Not followed by a word: the underscores stand for themselves.
            name.push('_');
            rest = &rest[start + 1..];
            continue;
        };
        let Some(tail) = after[end..].strip_prefix("__") else {
            name.push('_');
            rest = &rest[start + 1..];
            continue;
        };
        match &after[..end] {
            "underscores" => name.push_str("__"),
            "dot" => name.push('.'),
            "dash" => name.push('-'),
            "slash" => name.push('/'),
            word if is_keyword(word) && word.len() + 4 == identifier.len() => name.push_str(word),
            _ => return None,
        }
        rest = tail;
    }
    name.push_str(rest);
    Some(name)
}

/// Whether the field may be read at the root of every object.
pub fn is_root_field(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

fn is_keyword(word: &str) -> bool {
    matches!(word, "true" | "false" | "null" | "in") || RESERVED.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for (name, identifier) in [
            ("a", "a"),
            ("a.b-c/d", "a__dot__b__dash__c__slash__d"),
            ("a__b", "a__underscores__b"),
            ("namespace", "__namespace__"),
            ("in", "__in__"),
            ("_x_", "_x_"),
        ] {
            assert_eq!(escape(name).as_deref(), Some(identifier));
            assert_eq!(unescape(identifier).as_deref(), Some(name));
        }
        for none in ["", "1a", "a$", "ä"] {
            assert_eq!(escape(none), None, "{none}");
        }
        assert_eq!(unescape("a__what__b"), None);
    }
}
