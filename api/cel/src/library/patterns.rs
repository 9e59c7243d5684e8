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
pub(crate) fn compile(pattern: &str) -> Result<Arc<Regex>, String> {
    if pattern.len() > MAX_PATTERN_CHARACTERS {
        return Err("error parsing regexp: expression too large".to_owned());
    }
    RegexBuilder::new(pattern)
        .size_limit(MAX_REGEX_BYTES)
        .dfa_size_limit(MAX_REGEX_BYTES)
        .nest_limit(100)
        .build()
        .map(Arc::new)
        .map_err(|error| explain(pattern, &error))
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
    fn huge_patterns_are_refused() {
        assert!(compile("(((a{1,100}){1,100}){1,100}){1,100}").is_err());
        assert!(compile(&"a".repeat(MAX_PATTERN_CHARACTERS + 1)).is_err());
    }
}
