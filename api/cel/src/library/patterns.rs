//! Regular expressions. The engine's time is linear in the text and its programs are
//! bounded, so that no pattern runs away.
//!
//! Invariant: a pattern that is a literal of the expression was compiled with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use super::{Context, Outcome, Row, int, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::limits::{MAX_PATTERN_CHARACTERS, MAX_REGEX_BYTES};
use crate::value::Value;

pub(super) const ROWS: &[Row] = &[
    (
        "matches",
        "(string, string) -> bool",
        Cost::Matches,
        matches,
    ),
    ("matches", "string.(string) -> bool", Cost::Matches, matches),
    ("find", "string.(string) -> string", Cost::Find, find),
    (
        "findAll",
        "string.(string) -> list(string)",
        Cost::Find,
        find_all,
    ),
    (
        "findAll",
        "string.(string, int) -> list(string)",
        Cost::Find,
        find_all,
    ),
];

/// Patterns made at run time that one evaluation keeps.
const MAX_KEPT: usize = 64;

/// Compiled patterns by their text.
pub(crate) type Compiled = BTreeMap<String, Arc<Regex>>;

/// The patterns of one evaluation.
pub(crate) struct Patterns<'p> {
    literal: &'p Compiled,
    made: Compiled,
}

impl<'p> Patterns<'p> {
    pub(crate) fn new(literal: &'p Compiled) -> Self {
        Self {
            literal,
            made: Compiled::new(),
        }
    }

    fn get(&mut self, pattern: &str) -> Result<Arc<Regex>, EvalError> {
        if let Some(found) = self.literal.get(pattern).or_else(|| self.made.get(pattern)) {
            return Ok(Arc::clone(found));
        }
        let compiled = compile(pattern).map_err(EvalError::failed)?;
        if self.made.len() < MAX_KEPT {
            self.made.insert(pattern.to_owned(), Arc::clone(&compiled));
        }
        Ok(compiled)
    }
}

/// The compiled pattern, or why it is none.
pub fn compile(pattern: &str) -> Result<Arc<Regex>, String> {
    if pattern.len() > MAX_PATTERN_CHARACTERS {
        return Err("error parsing regexp: expression too large".to_owned());
    }
    RegexBuilder::new(&translated(pattern))
        .size_limit(MAX_REGEX_BYTES)
        .dfa_size_limit(MAX_REGEX_BYTES)
        .nest_limit(100)
        .build()
        .map(Arc::new)
        .map_err(|error| explain(pattern, &error))
}

/// The pattern in this engine's dialect: Go's classes are of ASCII, and its brackets know
/// no nesting and no set operations.
fn translated(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(character) = rest.next() {
        match character {
            '\\' => {
                let Some(escape) = rest.next() else {
                    out.push('\\');
                    break;
                };
                let class = match escape {
                    'd' => "0-9",
                    'w' => "0-9A-Za-z_",
                    's' => r"\t\n\f\r ",
                    'D' => "^0-9",
                    'W' => "^0-9A-Za-z_",
                    'S' => r"^\t\n\f\r ",
                    'b' | 'B' if !in_class => {
                        out.push_str(&format!("(?-u:\\{escape})"));
                        continue;
                    }
                    'Q' if !in_class => {
                        let literal: String = rest.by_ref().collect();
                        let (quoted, after) = literal.split_once(r"\E").unwrap_or((&literal, ""));
                        out.push_str(&regex::escape(quoted));
                        out.push_str(&translated(after));
                        return out;
                    }
                    other => {
                        out.push('\\');
                        out.push(other);
                        continue;
                    }
                };
                if in_class && !class.starts_with('^') {
                    out.push_str(class);
                } else {
                    out.push_str(&format!("[{class}]"));
                }
            }
            '[' if in_class && rest.peek() != Some(&':') => out.push_str(r"\["),
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                if rest.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                if rest.next_if_eq(&']').is_some() {
                    out.push_str(r"\]");
                }
            }
            '[' => {
                // `[:alpha:]`
                out.push('[');
                for inner in rest.by_ref() {
                    out.push(inner);
                    if inner == ']' {
                        break;
                    }
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(character);
            }
            other => out.push(other),
        }
    }
    out
}

/// In the words of Go's package, as far as the kinds of errors agree.
fn explain(pattern: &str, error: &regex::Error) -> String {
    let text = error.to_string();
    let says = |part: &str| text.contains(part);
    if matches!(error, regex::Error::CompiledTooBig(_)) || says("nest limit") {
        return "error parsing regexp: expression too large".to_owned();
    }
    if says("unclosed group") {
        return format!("error parsing regexp: missing closing ): `{pattern}`");
    }
    if says("unopened group") {
        return format!("error parsing regexp: unexpected ): `{pattern}`");
    }
    if says("unclosed character class") {
        let open = pattern.rfind('[').unwrap_or_default();
        return format!(
            "error parsing regexp: missing closing ]: `{}`",
            &pattern[open..]
        );
    }
    if says("repetition operator missing expression") {
        let at = pattern.find(['*', '+', '?']).unwrap_or_default();
        let operator: String = pattern[at..].chars().take(1).collect();
        return format!(
            "error parsing regexp: missing argument to repetition operator: `{operator}`"
        );
    }
    if says("look-around") {
        let at = pattern.find("(?").unwrap_or_default();
        let head: String = pattern[at..].chars().take(3).collect();
        return format!("error parsing regexp: invalid or unsupported Perl syntax: `{head}`");
    }
    format!("error parsing regexp: invalid syntax: `{pattern}`")
}

fn matches<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let pattern = context.patterns.get(text(args, 1)?)?;
    Ok(Value::Bool(pattern.is_match(text(args, 0)?)))
}

fn find<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let pattern = context.patterns.get(text(args, 1)?)?;
    let found = pattern.find(text(args, 0)?);
    Ok(Value::text(found.map_or("", |found| found.as_str())))
}

fn find_all<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let pattern = context.patterns.get(text(args, 1)?)?;
    let of = text(args, 0)?;
    let limit = if args.len() > 2 { int(args, 2)? } else { -1 };
    context.work.spend(of.len())?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let found = pattern
        .find_iter(of)
        .take(limit)
        .map(|found| Value::text(found.as_str()))
        .collect();
    Ok(Value::list(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_patterns_are_told_in_gos_words() {
        for (pattern, message) in [
            ("(", "error parsing regexp: missing closing ): `(`"),
            ("a)", "error parsing regexp: unexpected ): `a)`"),
            ("[a", "error parsing regexp: missing closing ]: `[a`"),
            (
                "*a",
                "error parsing regexp: missing argument to repetition operator: `*`",
            ),
        ] {
            assert_eq!(compile(pattern).expect_err(pattern), message);
        }
    }

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        for (pattern, good, bad) in [
            (r"^\d+$", "12", "\u{663}"),
            (r"^[\w.]+$", "a_.", "ä"),
            (r"^[[]$", "[", "]"),
            (r"^[^\s]$", "a", " "),
            (r"^[[:alpha:]&&]$", "&", "1"),
            (r"^\Qa.b\E$", "a.b", "axb"),
            (r"^[]a]$", "]", "b"),
            (r"\bfoo\b", "a foo b", "afoob"),
        ] {
            let compiled = compile(pattern).expect(pattern);
            assert!(compiled.is_match(good), "{pattern} {good}");
            assert!(!compiled.is_match(bad), "{pattern} {bad}");
        }
    }

    #[test]
    fn huge_patterns_are_refused() {
        assert!(compile("(((a{1,100}){1,100}){1,100}){1,100}").is_err());
        assert!(compile(&"a".repeat(MAX_PATTERN_CHARACTERS + 1)).is_err());
    }
}
