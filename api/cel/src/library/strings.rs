//! Strings, counted in characters (the reference's extension library, version 2).

use super::{Context, ONE, Outcome, Row, count, int, list, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::Value;

const WALK: Cost = Cost::Walk {
    of: 0,
    times: 1,
    sized: true,
};

pub(super) const ROWS: &[Row] = &[
    (
        "contains",
        "string.(string) -> bool",
        Cost::Contains,
        contains,
    ),
    ("endsWith", "string.(string) -> bool", AFFIX, ends_with),
    ("startsWith", "string.(string) -> bool", AFFIX, starts_with),
    ("charAt", "string.(int) -> string", ONE, char_at),
    (
        "indexOf",
        "string.(string) -> int",
        Cost::Elements,
        index_of,
    ),
    (
        "indexOf",
        "string.(string, int) -> int",
        Cost::Elements,
        index_of,
    ),
    (
        "lastIndexOf",
        "string.(string) -> int",
        Cost::Elements,
        last_index_of,
    ),
    (
        "lastIndexOf",
        "string.(string, int) -> int",
        Cost::Elements,
        last_index_of,
    ),
    ("lowerAscii", "string.() -> string", WALK, lower),
    ("upperAscii", "string.() -> string", WALK, upper),
    (
        "replace",
        "string.(string, string) -> string",
        Cost::Replace,
        replace,
    ),
    (
        "replace",
        "string.(string, string, int) -> string",
        Cost::Replace,
        replace,
    ),
    (
        "split",
        "string.(string) -> list(string)",
        Cost::Split,
        split,
    ),
    (
        "split",
        "string.(string, int) -> list(string)",
        Cost::Split,
        split,
    ),
    ("substring", "string.(int) -> string", WALK, substring),
    ("substring", "string.(int, int) -> string", WALK, substring),
    ("trim", "string.() -> string", WALK, trim),
    ("strings.quote", "(string) -> string", Cost::Quote, quote),
    ("join", "list(string).() -> string", Cost::Join, join),
    ("join", "list(string).(string) -> string", Cost::Join, join),
    (
        "jsonpatch.escapeKey",
        "(string) -> string",
        WALK,
        escape_key,
    ),
];

const AFFIX: Cost = Cost::Walk {
    of: 1,
    times: 1,
    sized: false,
};

fn contains<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Bool(text(args, 0)?.contains(text(args, 1)?)))
}

fn ends_with<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Bool(text(args, 0)?.ends_with(text(args, 1)?)))
}

fn starts_with<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Bool(text(args, 0)?.starts_with(text(args, 1)?)))
}

fn out_of_range<'a>(at: i64) -> Outcome<'a> {
    Err(EvalError::failed(format!("index out of range: {at}")))
}

fn char_at<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let (of, at) = (text(args, 0)?, int(args, 1)?);
    let Ok(index) = usize::try_from(at) else {
        return out_of_range(at);
    };
    match of.chars().nth(index) {
        Some(found) => Ok(Value::text(found.to_string())),
        None if of.chars().count() == index => Ok(Value::text("")),
        None => out_of_range(at),
    }
}

fn characters(of: &str) -> Vec<char> {
    of.chars().collect()
}

fn index_of<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let (of, part) = (text(args, 0)?, text(args, 1)?);
    let from = if args.len() > 2 { int(args, 2)? } else { 0 };
    if part.is_empty() {
        return Ok(Value::Int(from));
    }
    let (of, part) = (characters(of), characters(part));
    let Some(start) = usize::try_from(from)
        .ok()
        .filter(|start| *start < of.len().max(1))
    else {
        return out_of_range(from);
    };
    context
        .work
        .spend(of.len().saturating_mul(part.len().min(64)) / 16)?;
    let found = of[start.min(of.len())..]
        .windows(part.len())
        .position(|window| window == part);
    Ok(found.map_or(Value::Int(-1), |at| count(at + start)))
}

fn last_index_of<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let (of, part) = (text(args, 0)?, text(args, 1)?);
    let (of, part) = (characters(of), characters(part));
    let given = if args.len() > 2 {
        Some(int(args, 2)?)
    } else {
        None
    };
    if part.is_empty() {
        return Ok(given.map_or_else(|| count(of.len()), Value::Int));
    }
    let last = match given {
        None => of.len().saturating_sub(part.len()),
        Some(at) => match usize::try_from(at).ok().filter(|at| *at < of.len()) {
            Some(at) => at.min(of.len().saturating_sub(part.len())),
            None => return out_of_range(at),
        },
    };
    context
        .work
        .spend(of.len().saturating_mul(part.len().min(64)) / 16)?;
    let found = of
        .windows(part.len())
        .take(last + 1)
        .rposition(|window| window == part);
    Ok(found.map_or(Value::Int(-1), count))
}

fn lower<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::text(text(args, 0)?.to_ascii_lowercase()))
}

fn upper<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::text(text(args, 0)?.to_ascii_uppercase()))
}

fn replace<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let (of, old, new) = (text(args, 0)?, text(args, 1)?, text(args, 2)?);
    let times = if args.len() > 3 { int(args, 3)? } else { -1 };
    let matches = if old.is_empty() {
        of.len() + 1
    } else {
        of.len() / old.len()
    };
    context
        .work
        .spend(matches.saturating_mul(new.len()).saturating_add(of.len()) / 8)?;
    Ok(Value::text(match usize::try_from(times) {
        Ok(times) => of.replacen(old, new, times),
        Err(_) => of.replace(old, new),
    }))
}

fn split<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let (of, by) = (text(args, 0)?, text(args, 1)?);
    let times = if args.len() > 2 { int(args, 2)? } else { -1 };
    context.work.spend(of.len())?;
    let limit = usize::try_from(times).unwrap_or(usize::MAX);
    let parts: Vec<Value<'a>> = if limit == 0 {
        Vec::new()
    } else if by.is_empty() {
        let mut rest = of;
        let mut parts = Vec::new();
        while let Some(first) = rest.chars().next() {
            if parts.len() + 1 == limit {
                break;
            }
            let (one, after) = rest.split_at(first.len_utf8());
            parts.push(Value::text(one));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Value::text(rest));
        }
        parts
    } else {
        of.splitn(limit, by).map(Value::text).collect()
    };
    Ok(Value::list(parts))
}

fn substring<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let of = characters(text(args, 0)?);
    let from = int(args, 1)?;
    let to = if args.len() > 2 {
        Some(int(args, 2)?)
    } else {
        None
    };
    let within = |at: i64| usize::try_from(at).ok().filter(|at| *at <= of.len());
    let Some(start) = within(from) else {
        return out_of_range(from);
    };
    let end = match to {
        None => of.len(),
        Some(to) => match within(to) {
            Some(end) => end,
            None => return out_of_range(to),
        },
    };
    if start > end {
        return Err(EvalError::failed(format!(
            "invalid substring range. start: {start}, end: {end}"
        )));
    }
    Ok(Value::text(of[start..end].iter().collect::<String>()))
}

fn trim<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::text(text(args, 0)?.trim()))
}

fn quote<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let mut quoted = String::from("\"");
    for character in text(args, 0)?.chars() {
        match character {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    Ok(Value::text(quoted))
}

fn join<'a>(args: &[Value<'a>], context: &mut Context<'_>) -> Outcome<'a> {
    let parts = list(args, 0)?;
    let by = if args.len() > 1 { text(args, 1)? } else { "" };
    let mut joined = String::new();
    for at in 0..parts.len() {
        let part = parts.get(at)?;
        let Some(part) = part.as_str() else {
            return Err(EvalError::failed("join: invalid input: not a string"));
        };
        context.work.spend(1 + (part.len() + by.len()) / 8)?;
        if at > 0 {
            joined.push_str(by);
        }
        joined.push_str(part);
    }
    Ok(Value::text(joined))
}

fn escape_key<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::text(
        text(args, 0)?.replace('~', "~0").replace('/', "~1"),
    ))
}
