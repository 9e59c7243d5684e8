//! Printer columns: the values at a column's path (a subset of JSONPath: fields, indexes,
//! wildcards, filters by equality).

use nautilus_machinery::timestamp;
use serde_json::Value;

/// Steps of a path.
const MAX_STEPS: usize = 64;
/// Values that one path may find.
const MAX_FOUND: usize = 10_000;

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    All,
    /// Everything below.
    Deep,
    /// Elements with a field that compares so.
    Filter {
        path: Vec<Step>,
        equal: Option<bool>,
        value: Value,
    },
}

impl ColumnPath {
    /// Reads a path, as `.spec.items[0].name`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser {
            text: text.chars().collect(),
            at: 0,
        };
        let steps = parser.steps(false)?;
        if parser.at < parser.text.len() {
            return Err(format!(
                "unrecognized character in action: {:?}",
                parser.text[parser.at]
            ));
        }
        Ok(Self(steps))
    }

    /// The values that the path finds, in order.
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        follow(&self.0, vec![value])
    }
}

fn follow<'v>(steps: &[Step], start: Vec<&'v Value>) -> Vec<&'v Value> {
    let mut found = start;
    for step in steps {
        let mut next = Vec::new();
        for value in found {
            take(step, value, &mut next);
            next.truncate(MAX_FOUND);
        }
        found = next;
    }
    found
}

fn take<'v>(step: &Step, value: &'v Value, next: &mut Vec<&'v Value>) {
    match (step, value) {
        (Step::Field(name), Value::Object(entries)) => next.extend(entries.get(name)),
        (Step::Index(at), Value::Array(items)) => {
            next.extend(position(*at, items.len()).and_then(|at| items.get(at)));
        }
        (Step::Slice(from, to), Value::Array(items)) => {
            let from = from.and_then(|at| position(at, items.len())).unwrap_or(0);
            let to = match to {
                Some(at) if *at >= 0 => usize::try_from(*at).unwrap_or(0).min(items.len()),
                Some(at) => position(*at, items.len()).unwrap_or(0),
                None => items.len(),
            };
            next.extend(items.iter().take(to).skip(from));
        }
        (Step::All, Value::Array(items)) => next.extend(items),
        (Step::All, Value::Object(entries)) => next.extend(entries.values()),
        (Step::Deep, value) => deep(value, next),
        (
            Step::Filter {
                path,
                equal,
                value: wanted,
            },
            Value::Array(items),
        ) => {
            next.extend(items.iter().filter(|item| {
                let found = follow(path, vec![item]);
                match equal {
                    None => !found.is_empty(),
                    Some(equal) => found
                        .first()
                        .is_some_and(|found| (*found == wanted) == *equal),
                }
            }));
        }
        _ => {}
    }
}

fn deep<'v>(value: &'v Value, next: &mut Vec<&'v Value>) {
    if next.len() >= MAX_FOUND {
        return;
    }
    next.push(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| deep(item, next)),
        Value::Object(entries) => entries.values().for_each(|entry| deep(entry, next)),
        _ => {}
    }
}

fn position(at: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    let at = if at < 0 { at + length } else { at };
    usize::try_from(at).ok().filter(|_| at < length)
}

struct Parser {
    text: Vec<char>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn steps(&mut self, in_filter: bool) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        loop {
            if steps.len() >= MAX_STEPS {
                return Err("path has too many steps".to_owned());
            }
            if self.eat('.') {
                if self.eat('.') {
                    steps.push(Step::Deep);
                }
                if self.eat('*') {
                    steps.push(Step::All);
                    continue;
                }
                let name = self.name();
                if !name.is_empty() {
                    steps.push(Step::Field(name));
                }
            } else if self.eat('[') {
                steps.push(self.bracket()?);
            } else if self.peek().is_none() || in_filter {
                return Ok(steps);
            } else {
                let name = self.name();
                if name.is_empty() {
                    return Ok(steps);
                }
                steps.push(Step::Field(name));
            }
        }
    }

    /// A field's name; a backslash takes the next character as it is.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(next) = self.peek() {
            match next {
                '\\' => {
                    self.at += 1;
                    if let Some(escaped) = self.peek() {
                        name.push(escaped);
                    }
                }
                '.' | '[' | ']' | ' ' | '=' | '!' | ')' | '<' | '>' | '}' => break,
                other => name.push(other),
            }
            self.at += 1;
        }
        name
    }

    fn until(&mut self, end: char) -> Result<String, String> {
        let rest = &self.text[self.at..];
        let Some(length) = rest.iter().position(|c| *c == end) else {
            return Err("unterminated array".to_owned());
        };
        let inside = rest[..length].iter().collect();
        self.at += length + 1;
        Ok(inside)
    }

    fn bracket(&mut self) -> Result<Step, String> {
        if self.eat('?') {
            return self.filter();
        }
        if let Some(quote @ ('\'' | '"')) = self.peek() {
            self.at += 1;
            let name = self.until(quote)?;
            if !self.eat(']') {
                return Err("unterminated array".to_owned());
            }
            return Ok(Step::Field(name));
        }
        let inside = self.until(']')?;
        if inside == "*" {
            return Ok(Step::All);
        }
        let number = |text: &str| text.trim().parse::<i64>();
        if let Some((from, to)) = inside.split_once(':') {
            let to = to.split(':').next().unwrap_or_default();
            return Ok(Step::Slice(number(from).ok(), number(to).ok()));
        }
        number(&inside)
            .map(Step::Index)
            .map_err(|_| format!("invalid array index {inside}"))
    }

    fn filter(&mut self) -> Result<Step, String> {
        if !self.eat('(') || !self.eat('@') {
            return Err("unrecognized filter".to_owned());
        }
        let path = self.steps(true)?;
        while self.eat(' ') {}
        let equal = if self.eat('=') {
            self.eat('=');
            Some(true)
        } else if self.eat('!') {
            self.eat('=');
            Some(false)
        } else {
            None
        };
        while self.eat(' ') {}
        let literal = self.until(')')?;
        if !self.eat(']') {
            return Err("unterminated filter".to_owned());
        }
        let literal = literal.trim();
        let unquoted = literal
            .strip_prefix(['\'', '"'])
            .and_then(|rest| rest.strip_suffix(['\'', '"']));
        let value = match unquoted {
            Some(text) => Value::from(text),
            None => serde_json::from_str(literal).unwrap_or_else(|_| Value::from(literal)),
        };
        Ok(Step::Filter { path, equal, value })
    }
}

/// The cell of a column of that type for what its path found. `now` is in seconds since
/// 1970, for dates.
pub fn cell(kind: &str, found: &[&Value], age: &dyn Fn(i64) -> String) -> Value {
    let Some(first) = found.first() else {
        return Value::Null;
    };
    match (kind, first) {
        (_, Value::Null) => Value::Null,
        ("integer", Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::from(whole),
            #[allow(clippy::cast_possible_truncation)]
            (None, Some(double)) => Value::from(double as i64),
            _ => Value::Null,
        },
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => (*first).clone(),
        ("string", _) => Value::from(joined(found)),
        ("date", Value::String(text)) => match timestamp::parse(text) {
            Some(instant) => Value::from(age(instant.seconds)),
            None => Value::from("<invalid>"),
        },
        _ => Value::Null,
    }
}

fn joined(found: &[&Value]) -> String {
    let texts: Vec<String> = found
        .iter()
        .map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
        .collect();
    texts.join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_find_what_kubectl_would() {
        let object = json!({
            "spec": {"n": 3, "list": [{"name": "a", "v": 1}, {"name": "b", "v": 2}], "a.b": "dotted"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "X", "status": "False"}]}
        });
        let text = |path: &str| {
            let path = ColumnPath::parse(path).expect(path);
            cell("string", &path.find(&object), &|_| String::new())
        };
        assert_eq!(text(".spec.n"), json!("3"));
        assert_eq!(text(".spec.list[0].name"), json!("a"));
        assert_eq!(text(".spec.list[-1].name"), json!("b"));
        assert_eq!(text(".spec.list[*].name"), json!("a b"));
        assert_eq!(
            text(".status.conditions[?(@.type==\"Ready\")].status"),
            json!("True")
        );
        assert_eq!(text(".spec['a.b']"), json!("dotted"));
        assert_eq!(text(".spec.a\\.b"), json!("dotted"));
        assert_eq!(text(".spec.missing"), Value::Null);
        assert_eq!(text("..name"), json!("a b"));
        assert!(ColumnPath::parse(".spec.list[").is_err());
    }
}
