//! Paths that definitions name: `.spec.replicas`, `.spec['a.b']`.

use serde_json::Value;

use crate::schema::Schema;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A field.
    Field(String),
    /// A key of a map.
    Key(String),
}

/// The steps of a path through a schema and the schema at its end, or why it is none.
pub fn parse_field_path<'s>(
    path: &str,
    schema: &'s Schema,
    brackets_allowed: bool,
) -> Result<(Vec<Step>, &'s Schema), String> {
    let mut steps = Vec::new();
    let mut at = schema;
    let mut tokens = tokens(path).into_iter();
    while let Some(token) = tokens.next() {
        let name = match token.as_str() {
            "[" => {
                if !brackets_allowed {
                    return Err("array notation is not allowed".to_owned());
                }
                let quoted = tokens.next().ok_or(END)?;
                let inside = quoted
                    .strip_prefix('\'')
                    .and_then(|rest| rest.strip_suffix('\''))
                    .filter(|_| quoted.len() >= 2)
                    .ok_or_else(|| format!("expected single quoted string but got {quoted}"))?;
                let name = unescape(inside)?;
                at = step(&mut steps, at, &name)?;
                let close = tokens.next().ok_or(END)?;
                if close != "]" {
                    return Err(format!("expected ] but got {close}"));
                }
                continue;
            }
            "." => tokens.next().ok_or(END)?,
            other => return Err(format!("expected [ or . but got: {other}")),
        };
        at = step(&mut steps, at, &name)?;
    }
    Ok((steps, at))
}

const END: &str = "unexpected end of JSON path";

fn step<'s>(steps: &mut Vec<Step>, at: &'s Schema, name: &str) -> Result<&'s Schema, String> {
    let unknown = || "does not refer to a valid field".to_owned();
    if !at.properties.is_empty() {
        steps.push(Step::Field(name.to_owned()));
        return at.properties.get(name).ok_or_else(unknown);
    }
    steps.push(Step::Key(name.to_owned()));
    at.each_value().ok_or_else(unknown)
}

fn tokens(path: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut current = String::new();
    let mut quoted = false;
    let mut before = '\0';
    for character in path.chars() {
        let starts = current.is_empty() && character == '\'';
        if quoted || starts {
            current.push(character);
            if quoted && character == '\'' && before != '\\' {
                tokens.push(std::mem::take(&mut current));
                quoted = false;
            } else {
                quoted = true;
            }
        } else if matches!(character, '.' | '[' | ']') {
            if !current.is_empty() {
                tokens.push(std::mem::take(&mut current));
            }
            tokens.push(character.to_string());
        } else {
            current.push(character);
        }
        before = character;
    }
    if !current.is_empty() {
        tokens.push(current);
    }
    tokens
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        let Some(escape) = rest.next() else {
            out.push('\\');
            break;
        };
        out.push(match escape {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\'' | '\\' => escape,
            other => {
                return Err(format!(
                    "invalid string literal: invalid escape char \\{other}"
                ));
            }
        });
    }
    Ok(out)
}

/// The path as messages write it.
pub(crate) fn shown(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        match step {
            Step::Field(name) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
            Step::Key(name) => {
                text.push('[');
                text.push_str(name);
                text.push(']');
            }
        }
    }
    text
}

/// The value at a path of plain fields: `.spec.replicas`.
pub fn find_field<'v>(object: &'v Value, path: &str) -> Option<&'v Value> {
    path.strip_prefix('.')
        .unwrap_or(path)
        .split('.')
        .try_fold(object, |at, name| at.get(name))
}
