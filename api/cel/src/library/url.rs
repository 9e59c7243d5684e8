//! URLs, as Go's `net/url` reads those of requests: absolute, or a path from the root.

use std::sync::Arc;

use super::{Context, ONE, Outcome, Row, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::{Opaque, Value};

const PARSE: Cost = Cost::Walk {
    of: 0,
    times: 1,
    sized: true,
};

pub(super) const ROWS: &[Row] = &[
    ("url", "(string) -> URL", PARSE, parse),
    ("isURL", "(string) -> bool", ONE, is_url_value),
    ("getScheme", "URL.() -> string", ONE, scheme),
    ("getHost", "URL.() -> string", ONE, host),
    ("getHostname", "URL.() -> string", ONE, hostname),
    ("getPort", "URL.() -> string", ONE, port),
    ("getEscapedPath", "URL.() -> string", ONE, escaped_path),
    (
        "getQuery",
        "URL.() -> map(string, list(string))",
        ONE,
        query,
    ),
];

/// A parsed URL.
#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    host: String,
    /// As written, percent signs and all.
    path: String,
    query: String,
}

/// The URL that the text is, or why it is none, in Go's words.
pub(crate) fn read(raw: &str) -> Result<Url, String> {
    let wrong = |why: &str| format!("parse {raw:?}: {why}");
    if raw.is_empty() {
        return Err(wrong("empty url"));
    }
    if raw.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return Err(wrong("net/url: invalid control character in URL"));
    }
    let before_fragment = raw.split_once('#').map_or(raw, |(before, _)| before);
    let (scheme, rest) = split_scheme(before_fragment).map_err(&wrong)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !rest.starts_with('/') {
        if scheme.is_empty() {
            return Err(wrong("invalid URI for request"));
        }
        return Err(wrong("invalid URI for request"));
    }
    let (host, path) = match rest.strip_prefix("//") {
        Some(authority) if !scheme.is_empty() || !rest.starts_with("///") => {
            let end = authority.find('/').unwrap_or(authority.len());
            authority.split_at(end)
        }
        _ => ("", rest),
    };
    let host = match host.rsplit_once('@') {
        Some((user, host)) => {
            if user.bytes().any(|byte| b" <>\"".contains(&byte)) {
                return Err(wrong("net/url: invalid userinfo"));
            }
            host
        }
        None => host,
    };
    check_host(host).map_err(|why| wrong(&why))?;
    check_escapes(path).map_err(|why| wrong(&why))?;
    Ok(Url {
        scheme: scheme.to_ascii_lowercase(),
        host: host.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
    })
}

/// Whether the text is a URL of a request: absolute, or a path from the root.
pub fn is_url(raw: &str) -> bool {
    read(raw).is_ok()
}

fn split_scheme(raw: &str) -> Result<(&str, &str), &'static str> {
    for (at, byte) in raw.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme"),
            b':' => return Ok((&raw[..at], &raw[at + 1..])),
            _ => break,
        }
    }
    if raw
        .split('/')
        .next()
        .is_some_and(|first| first.contains(':'))
    {
        return Err("first path segment in URL cannot contain colon");
    }
    Ok(("", raw))
}

fn check_host(host: &str) -> Result<(), String> {
    let port = if let Some(inside) = host.strip_prefix('[') {
        let Some((_, after)) = inside.split_once(']') else {
            return Err("missing ']' in host".to_owned());
        };
        after
    } else {
        host.find(':').map_or("", |at| &host[at..])
    };
    let good = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
    if !good {
        return Err(format!("invalid port {port:?} after host"));
    }
    match host.chars().find(|c| " <>\"^`{}|\\".contains(*c)) {
        Some(bad) => Err(format!(
            "invalid character {:?} in host name",
            bad.to_string()
        )),
        None => Ok(()),
    }
}

fn check_escapes(path: &str) -> Result<(), String> {
    let bytes = path.as_bytes();
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%') {
        let digits = bytes.get(at + 1..at + 3);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            let shown: String = path[at..].chars().take(3).collect();
            return Err(format!("invalid URL escape {shown:?}"));
        }
    }
    Ok(())
}

fn unescape(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = std::str::from_utf8(bytes.get(at..at + 2)?).ok()?;
                out.push(u8::from_str_radix(digits, 16).ok()?);
                at += 2;
            }
            other => out.push(*other),
        }
    }
    String::from_utf8(out).ok()
}

fn url<'v>(args: &'v [Value<'_>]) -> Result<&'v Url, EvalError> {
    match args.first() {
        Some(Value::Opaque(Opaque::Url(url))) => Ok(url),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn parse<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    match read(text(args, 0)?) {
        Ok(url) => Ok(Value::Opaque(Opaque::Url(Arc::new(url)))),
        Err(why) => Err(EvalError::failed(format!(
            "URL parse error during conversion from string: {why}"
        ))),
    }
}

fn is_url_value<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Bool(read(text(args, 0)?).is_ok()))
}

fn scheme<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::text(&url(args)?.scheme))
}

fn host<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::text(&url(args)?.host))
}

/// The name without brackets, and the port.
fn split_host(host: &str) -> (&str, &str) {
    if let Some((inside, after)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (inside, after.strip_prefix(':').unwrap_or(""));
    }
    host.rsplit_once(':').unwrap_or((host, ""))
}

fn hostname<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::text(split_host(&url(args)?.host).0))
}

fn port<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::text(split_host(&url(args)?.host).1))
}

fn escaped_path<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let mut escaped = String::new();
    for byte in url(args)?.path.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*%".contains(&byte);
        if plain {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    Ok(Value::text(escaped))
}

fn query<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let mut all: std::collections::BTreeMap<String, Vec<Value<'a>>> = Default::default();
    for pair in url(args)?.query.split('&') {
        if pair.is_empty() || pair.contains(';') {
            continue;
        }
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let (Some(key), Some(value)) = (unescape(key), unescape(value)) {
            all.entry(key).or_default().push(Value::text(value));
        }
    }
    Ok(Value::map(
        all.into_iter()
            .map(|(key, values)| (key, Value::list(values))),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_requests_are_read() {
        let url = read("https://user@example.com:80/a%20b?k=1#f").expect("a URL");
        assert_eq!(url.host, "example.com:80");
        assert_eq!(url.path, "/a%20b");
        assert!(read("/path").is_ok());
        for wrong in [
            "",
            "example.com",
            "../a",
            "https://a:b/",
            "https://a/%zz",
            ":a",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(split_host("[::1]:80"), ("::1", "80"));
    }
}
