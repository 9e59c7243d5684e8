//! Rust source with the parts that are no code blanked out, so that a search for a
//! call finds calls and not words. A lexer, not a parser.
//!
//! Invariant: every blanked text has the bytes' positions and the lines of the original.

/// One file, in the views that checks need.
pub(crate) struct Source {
    /// As it is.
    pub(crate) text: String,
    /// Comments and the insides of literals blanked.
    pub(crate) code: String,
    /// As `code`, with items under `#[cfg(test)]` blanked too.
    pub(crate) shipped: String,
}

impl Source {
    pub(crate) fn new(text: String) -> Self {
        let code = blank_comments_and_literals(&text);
        let shipped = blank_items_under(&code, "#[cfg(test)]");
        Self {
            text,
            code,
            shipped,
        }
    }

    /// The line number of a byte's position, from 1.
    pub(crate) fn line_of(&self, position: usize) -> usize {
        self.text.as_bytes()[..position]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1
    }
}

/// Positions where `needle` stands in `code` as a whole path or word: not as a part of
/// a longer name.
pub(crate) fn occurrences(code: &str, needle: &str) -> Vec<usize> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let starts_as_name = needle.chars().next().is_some_and(is_name);
    let ends_as_name = needle.chars().next_back().is_some_and(is_name);
    code.match_indices(needle)
        .map(|(position, _)| position)
        .filter(|position| {
            let before = code[..*position].chars().next_back().is_some_and(is_name);
            let after = code[position + needle.len()..]
                .chars()
                .next()
                .is_some_and(is_name);
            !(starts_as_name && before || ends_as_name && after)
        })
        .collect()
}

/// Blanks the item after each `attribute`: up to its closing brace, or its semicolon.
pub(crate) fn blank_items_under(code: &str, attribute: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(found) = code[from..].find(attribute) {
        let start = from + found;
        let end = item_end(code, start + attribute.len());
        blank(&mut bytes[start..end]);
        from = end;
    }
    into_text(bytes)
}

/// Where the item that begins at `start` ends. Other attributes in between belong to it.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in code.as_bytes()[start..].iter().enumerate() {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return start + offset + 1;
                }
            }
            b';' | b',' if depth == 0 => return start + offset + 1,
            _ => {}
        }
    }
    code.len()
}

fn blank_comments_and_literals(text: &str) -> String {
    let source = text.as_bytes();
    let mut bytes = source.to_vec();
    let mut at = 0;
    while at < source.len() {
        let rest = &source[at..];
        let end = if rest.starts_with(b"//") {
            at + rest
                .iter()
                .position(|byte| *byte == b'\n')
                .unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            at + comment_length(rest)
        } else if let Some(hashes) = raw_string_hashes(source, at) {
            let open = at + 1 + hashes + 1;
            let close: Vec<u8> = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
            let length = source[open.min(source.len())..]
                .windows(close.len())
                .position(|window| window == close);
            let inside_end = length.map_or(source.len(), |length| open + length);
            blank(&mut bytes[open.min(source.len())..inside_end]);
            at = (inside_end + close.len()).min(source.len());
            continue;
        } else if rest[0] == b'"' {
            let inside_end = at + 1 + literal_length(&rest[1..], b'"');
            blank(&mut bytes[at + 1..inside_end]);
            at = inside_end + 1;
            continue;
        } else if rest[0] == b'\'' && is_character(rest) {
            let inside_end = at + 1 + literal_length(&rest[1..], b'\'');
            blank(&mut bytes[at + 1..inside_end]);
            at = inside_end + 1;
            continue;
        } else {
            at += 1;
            continue;
        };
        blank(&mut bytes[at..end]);
        at = end;
    }
    into_text(bytes)
}

/// The number of hashes when a raw string begins at the `r` in `at`.
fn raw_string_hashes(source: &[u8], at: usize) -> Option<usize> {
    if source[at] != b'r' {
        return None;
    }
    // `br"…"` and `cr"…"` are raw strings, `for"` is not; nor is `r` within a name.
    let before = at.checked_sub(1).map(|position| source[position]);
    let prefixed = matches!(before, Some(b'b' | b'c'));
    let before = if prefixed {
        at.checked_sub(2).map(|position| source[position])
    } else {
        before
    };
    if before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return None;
    }
    let hashes = source[at + 1..]
        .iter()
        .take_while(|byte| **byte == b'#')
        .count();
    (source.get(at + 1 + hashes) == Some(&b'"')).then_some(hashes)
}

/// A character literal, not a lifetime: an escape, or one character and a quote.
fn is_character(rest: &[u8]) -> bool {
    match rest.get(1) {
        Some(b'\\') => true,
        Some(_) => std::str::from_utf8(&rest[1..rest.len().min(6)])
            .or_else(|error| std::str::from_utf8(&rest[1..=error.valid_up_to()]))
            .ok()
            .and_then(|text| text.chars().next())
            .is_some_and(|c| rest.get(1 + c.len_utf8()) == Some(&b'\'')),
        None => false,
    }
}

/// Bytes before the closing quote, escapes skipped.
fn literal_length(inside: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while at < inside.len() {
        match inside[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at,
            _ => at += 1,
        }
    }
    inside.len()
}

/// Bytes of a block comment, which may hold others.
fn comment_length(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn blank(bytes: &mut [u8]) {
    bytes
        .iter_mut()
        .filter(|byte| **byte != b'\n')
        .for_each(|byte| *byte = b' ');
}

fn into_text(bytes: Vec<u8>) -> String {
    // Blanks replace whole characters, except where a literal breaks off at the file's end.
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squeezed(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn code(text: &str) -> String {
        squeezed(&Source::new(text.to_owned()).code)
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        assert_eq!(code("a(); // b()\nc(/* d() /* e() */ */);"), "a(); c( );");
        assert_eq!(
            code(r#"a("b() \" c()", 'd', '\'', 'é')"#),
            r#"a(" ", ' ', ' ', ' ')"#
        );
        assert_eq!(
            code(r###"a(r#"b() " c()"#, br"d()", b"e")"###),
            r###"a(r#" "#, br" ", b" ")"###
        );
    }

    #[test]
    fn lifetimes_are_code_and_names_that_end_in_r_begin_no_raw_string() {
        assert_eq!(code("fn a<'b>(c: &'b str) {}"), "fn a<'b>(c: &'b str) {}");
        assert_eq!(code("for\"x\""), "for\" \"");
    }

    #[test]
    fn items_under_cfg_test_are_not_shipped() {
        let text = "a();\n#[cfg(test)]\nmod tests { fn b() { c(); } }\nd();\n#[cfg(test)]\n#[path = \"x.rs\"]\nmod e;\nf();";
        let source = Source::new(text.to_owned());
        assert_eq!(squeezed(&source.shipped), "a(); d(); f();");
        assert_eq!(source.shipped.len(), text.len());
        assert_eq!(source.line_of(text.find("f();").expect("there")), 8);
    }

    #[test]
    fn a_name_within_a_longer_one_is_no_occurrence() {
        let code = "HashMap MyHashMap HashMapper x::HashMap::new() .unwrap() .unwrap_or()";
        assert_eq!(occurrences(code, "HashMap").len(), 2);
        assert_eq!(occurrences(code, ".unwrap()").len(), 1);
    }
}
