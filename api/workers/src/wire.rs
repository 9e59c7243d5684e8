//! The worker's bodies, from bytes to checked values. Pure.
//!
//! Invariant: an error names the field that is wrong and never quotes a token.

use http::HeaderMap;
use serde_json::{Map, Value};

use crate::lifecycle::Stake;
use crate::limits::{NODE_ID_LIMIT_BYTES, RUNNING_PODS_LIMIT};
use crate::load::{Load, Share};
use crate::machine::Machine;
use crate::roster::BeatFacts;
use crate::token::SealToken;
use crate::wire_beat::{BeatBody, Text};

/// The header that may carry the token.
pub const TOKEN_HEADER: &str = "x-seal-token";

/// `POST /api/v1/register-worker`.
pub struct Registration {
    /// As the worker calls itself.
    pub node_id: String,
    /// Its token.
    pub token: Result<SealToken, TokenFault>,
    /// Its clock, in Unix seconds.
    pub timestamp_s: i64,
    /// What it says of its machine.
    pub machine: Machine,
}

/// `POST /api/v1/heartbeat`.
pub struct Heartbeat {
    /// As the worker calls itself.
    pub node_id: String,
    /// Its token.
    pub token: Result<SealToken, TokenFault>,
    /// Its clock, in Unix seconds.
    pub timestamp_s: Option<i64>,
    /// What it says of itself.
    pub facts: BeatFacts,
}

/// A body that is not in the wire's form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Malformed {
    /// The field that is wrong; `body` when it is the whole.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A token that needs no judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Neither header nor body has one.
    #[error("there is no token in the X-Seal-Token header or the field seal_token")]
    Missing,
    /// Header and body differ.
    #[error("the X-Seal-Token header and the field seal_token differ")]
    Differ,
    /// Longer than the limit, or no text.
    #[error("the token is empty, too long or no text")]
    Unusable,
}

/// Reads a registration.
pub fn registration(headers: &HeaderMap, body: &[u8]) -> Result<Registration, Malformed> {
    let mut fields = fields(body)?;
    Ok(Registration {
        node_id: node_id(&mut fields)?,
        token: token(headers, token_field(&mut fields)?),
        timestamp_s: match fields.get("timestamp") {
            None | Some(Value::Null) => return Err(wrong("timestamp", "is missing")),
            Some(value) => unix_seconds(value)?,
        },
        machine: Machine::read(&fields)?,
    })
}

/// Reads a heartbeat. Every field but `node_id` may be absent or null.
pub fn heartbeat(headers: &HeaderMap, body: &[u8]) -> Result<Heartbeat, Malformed> {
    let Some(read) = BeatBody::read(body) else {
        return careful_heartbeat(headers, body);
    };
    let (facts, timestamp_s) = (read.facts(), read.timestamp_s);
    let in_body = read.seal_token.map(|Text(text)| text.into_owned());
    Ok(Heartbeat {
        node_id: checked_id(read.node_id.into_owned())?,
        token: token(headers, in_body),
        timestamp_s,
        facts,
    })
}

/// The same field by field, for a body that is unusual or wrong.
fn careful_heartbeat(headers: &HeaderMap, body: &[u8]) -> Result<Heartbeat, Malformed> {
    let mut fields = fields(body)?;
    let node_id = node_id(&mut fields)?;
    let token = token(headers, token_field(&mut fields)?);
    let timestamp_s = present(&fields, "timestamp")
        .map(unix_seconds)
        .transpose()?;
    let load = resource_usage(&fields)?;
    let stake = present(&fields, "stake_status").map(|value| {
        value.as_str().and_then(Stake::parse).ok_or_else(|| {
            wrong(
                "stake_status",
                "must be \"active\", \"slashed\" or \"withdrawn\"",
            )
        })
    });
    let stake_amount = present(&fields, "stake_amount").map(|value| {
        value
            .as_u64()
            .ok_or_else(|| wrong("stake_amount", "must be a whole number of MIST"))
    });
    let running_pods = present(&fields, "running_pods").map(|value| {
        value
            .as_u64()
            .and_then(|pods| u32::try_from(pods).ok())
            .filter(|pods| *pods <= RUNNING_PODS_LIMIT)
            .ok_or_else(|| {
                wrong(
                    "running_pods",
                    format!("must be a whole number from 0 to {RUNNING_PODS_LIMIT}"),
                )
            })
    });
    let facts = BeatFacts {
        stake: stake.transpose()?,
        stake_amount: stake_amount.transpose()?,
        running_pods: running_pods.transpose()?,
        // Not the worker's to say.
        token_expires_at_s: None,
        load,
    };
    Ok(Heartbeat {
        node_id,
        token,
        timestamp_s,
        facts,
    })
}

fn resource_usage(fields: &Map<String, Value>) -> Result<Load, Malformed> {
    let Some(usage) = present(fields, "resource_usage") else {
        return Ok(Load::default());
    };
    let Some(usage) = usage.as_object() else {
        return Err(wrong("resource_usage", "must be an object"));
    };
    let share = |field: &str| match present(usage, field).map(Value::as_f64) {
        None => Ok(None),
        Some(Some(percent)) => Ok(Some(Share::of_percent(percent))),
        Some(None) => Err(wrong(format!("resource_usage.{field}"), "must be a number")),
    };
    Ok(Load {
        cpu: share("cpu_percent")?,
        memory: share("memory_percent")?,
        disk: share("disk_percent")?,
    })
}

fn fields(body: &[u8]) -> Result<Map<String, Value>, Malformed> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(wrong("body", "must be a JSON object")),
        Err(error) => {
            let place = format!(
                "is not JSON (line {} column {})",
                error.line(),
                error.column()
            );
            Err(wrong(field_at(body, error.line(), error.column()), place))
        }
    }
}

/// The last field's name that stands complete before a syntax error.
fn field_at(body: &[u8], line: usize, column: usize) -> String {
    let text = String::from_utf8_lossy(body);
    let mut before = String::new();
    for (number, content) in text.split('\n').enumerate().take(line) {
        let whole = number + 1 < line;
        before.extend(
            content
                .chars()
                .take(if whole { usize::MAX } else { column }),
        );
        before.push('\n');
    }
    let name = before.rfind("\":").and_then(|end| {
        let start = before[..end].rfind('"')?;
        Some(&before[start + 1..end])
    });
    match name {
        // Only names of the wire's form are repeated: anything else may be a value.
        Some(
            name @ ("node_id" | "seal_token" | "timestamp" | "stake_status" | "stake_amount"
            | "running_pods" | "resource_usage" | "cpu_percent" | "memory_percent"
            | "disk_percent"),
        ) => name.to_owned(),
        _ => "body".to_owned(),
    }
}

fn node_id(fields: &mut Map<String, Value>) -> Result<String, Malformed> {
    match fields.remove("node_id") {
        None | Some(Value::Null) => Err(wrong("node_id", "is missing")),
        Some(Value::String(id)) => checked_id(id),
        Some(_) => Err(wrong("node_id", "must be a string")),
    }
}

fn checked_id(id: String) -> Result<String, Malformed> {
    if id.is_empty() || id.len() > NODE_ID_LIMIT_BYTES {
        let reason = format!("must be 1 to {NODE_ID_LIMIT_BYTES} bytes long");
        Err(wrong("node_id", reason))
    } else if id.chars().any(|c| c.is_control() || c == '/') {
        Err(wrong(
            "node_id",
            "must hold neither slashes nor control characters",
        ))
    } else {
        Ok(id)
    }
}

fn token_field(fields: &mut Map<String, Value>) -> Result<Option<String>, Malformed> {
    match fields.remove("seal_token") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong("seal_token", "must be a string")),
    }
}

fn token(headers: &HeaderMap, in_body: Option<String>) -> Result<SealToken, TokenFault> {
    let in_body = in_body.map(|text| SealToken::new(text).ok_or(TokenFault::Unusable));
    let in_header = headers.get(TOKEN_HEADER).map(|value| {
        value
            .to_str()
            .ok()
            .and_then(|text| SealToken::new(text.into()))
            .ok_or(TokenFault::Unusable)
    });
    match (in_header, in_body) {
        (None, None) => Err(TokenFault::Missing),
        (Some(Ok(header)), Some(Ok(body))) if !header.same_as(&body) => Err(TokenFault::Differ),
        (Some(Err(fault)), _) | (_, Some(Err(fault))) => Err(fault),
        (Some(Ok(token)), _) | (None, Some(Ok(token))) => Ok(token),
    }
}

fn unix_seconds(value: &Value) -> Result<i64, Malformed> {
    value
        .as_i64()
        .ok_or_else(|| wrong("timestamp", "must be a whole number of Unix seconds"))
}

pub(crate) fn present<'a>(fields: &'a Map<String, Value>, field: &str) -> Option<&'a Value> {
    fields.get(field).filter(|value| !value.is_null())
}

pub(crate) fn wrong(field: impl Into<String>, reason: impl Into<String>) -> Malformed {
    Malformed {
        field: field.into(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_token(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TOKEN_HEADER, token.parse().expect("a header's value"));
        headers
    }

    fn complaint(body: &str) -> String {
        heartbeat(&with_token("seal"), body.as_bytes())
            .err()
            .expect("refused")
            .to_string()
    }

    #[test]
    fn a_complaint_names_the_field_that_is_wrong() {
        for (body, expected) in [
            ("", "body: is not JSON (line 1 column 0)"),
            ("[]", "body: must be a JSON object"),
            ("{}", "node_id: is missing"),
            (r#"{"node_id": 7}"#, "node_id: must be a string"),
            (r#"{"node_id": ""}"#, "node_id: must be 1 to 253 bytes long"),
            (
                r#"{"node_id": "a/b"}"#,
                "node_id: must hold neither slashes nor control characters",
            ),
            (
                r#"{"node_id": "a", "timestamp": }"#,
                "timestamp: is not JSON (line 1 column 31)",
            ),
            (
                r#"{"node_id": "a", "timestamp": "1"}"#,
                "timestamp: must be a whole number of Unix seconds",
            ),
            (
                r#"{"node_id": "a", "stake_status": "gone"}"#,
                "stake_status: must be \"active\", \"slashed\" or \"withdrawn\"",
            ),
            (
                r#"{"node_id": "a", "running_pods": -1}"#,
                "running_pods: must be a whole number from 0 to 100000",
            ),
            (
                r#"{"node_id": "a", "resource_usage": {"cpu_percent": "x"}}"#,
                "resource_usage.cpu_percent: must be a number",
            ),
        ] {
            assert_eq!(complaint(body), expected, "{body}");
        }
    }

    #[test]
    fn header_and_body_must_agree_and_either_alone_is_enough() {
        let body = |token: &str| format!(r#"{{"node_id": "a", "seal_token": "{token}"}}"#);
        let beat = |headers: HeaderMap, body: String| {
            heartbeat(&headers, body.as_bytes())
                .expect("well formed")
                .token
                .err()
        };
        assert_eq!(beat(with_token("x"), r#"{"node_id": "a"}"#.into()), None);
        assert_eq!(beat(HeaderMap::new(), body("x")), None);
        assert_eq!(beat(with_token("x"), body("x")), None);
        assert_eq!(beat(with_token("x"), body("y")), Some(TokenFault::Differ));
        assert_eq!(
            beat(HeaderMap::new(), r#"{"node_id": "a"}"#.into()),
            Some(TokenFault::Missing)
        );
        assert_eq!(
            beat(with_token("x"), body(&"y".repeat(5000))),
            Some(TokenFault::Unusable)
        );
    }

    #[test]
    fn unknown_fields_and_nulls_are_ignored() {
        let body = br#"{"node_id": "a", "colour": 1, "running_pods": null, "stake_amount": 18446744073709551615}"#;
        let beat = heartbeat(&with_token("x"), body).expect("well formed");
        assert_eq!(beat.facts.running_pods, None);
        assert_eq!(beat.facts.stake_amount, Some(u64::MAX));
    }

    /// A value for a field: right, wrong, absent, or odd.
    fn value() -> impl Strategy<Value = String> {
        prop::sample::select(vec![
            "null",
            "0",
            "7",
            "-1",
            "1.5",
            "1e2",
            "100001",
            "18446744073709551616",
            "\"active\"",
            "\"gone\"",
            "\"expired\"",
            "\"a\\u0062\"",
            "\"\"",
            "{}",
            "[]",
            "true",
            "{\"cpu_percent\": 12.5}",
            "{\"cpu_percent\": 3, \"disk_percent\": null, \"x\": []}",
            "{\"memory_percent\": \"x\"}",
            "{\"cpu_percent\": 1, \"cpu_percent\": 2}",
        ])
        .prop_map(str::to_owned)
    }

    fn field() -> impl Strategy<Value = String> {
        prop::sample::select(vec![
            "node_id",
            "seal_token",
            "timestamp",
            "stake_status",
            "stake_amount",
            "running_pods",
            "resource_usage",
            "colour",
        ])
        .prop_map(str::to_owned)
    }

    proptest! {
        #[test]
        fn a_body_reads_the_same_in_one_pass_and_with_care(
            fields in prop::collection::vec((field(), value()), 0..6),
            begins in prop::sample::select(vec!["{", "[{", "{\"node_id\": \"w\", ", "[\"w\", "]),
        ) {
            let fields: Vec<String> = fields
                .into_iter()
                .map(|(name, value)| match begins {
                    "[\"w\", " => value,
                    _ => format!("\"{name}\": {value}"),
                })
                .collect();
            let ends = if begins.starts_with("[\"") { "]" } else { "}" };
            let body = format!("{begins}{}{ends}", fields.join(", "));
            let headers = HeaderMap::new();
            let told = |beat: Result<Heartbeat, Malformed>| {
                beat.map(|beat| {
                    let token = beat.token.map(|token| token.expose().to_owned());
                    (beat.node_id, token, beat.facts)
                })
            };
            prop_assert_eq!(
                told(heartbeat(&headers, body.as_bytes())),
                told(careful_heartbeat(&headers, body.as_bytes()))
            );
        }

        #[test]
        fn no_body_makes_the_parser_panic_and_no_complaint_quotes_a_token(
            cut in 0..120_usize, noise in "\\PC{0,20}",
        ) {
            let whole = r#"{"node_id":"a","seal_token":"planted-secret","timestamp":12,"running_pods":3}"#;
            let kept: String = whole.chars().take(cut).collect();
            if let Err(error) = registration(&HeaderMap::new(), format!("{kept}{noise}").as_bytes()) {
                prop_assert!(!error.to_string().contains("planted"));
            }
        }
    }
}
