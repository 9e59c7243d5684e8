//! Relayed events as they come in: what they name, and what they claim of it. Pure.
//!
//! Invariant: nothing that is claimed acts; it is only compared with what the chain says.

use serde_json::Value;

use super::effects::address;
use super::limits::RELAYED_PER_REQUEST;
use crate::chain::ChainEvent;
use crate::wire::{Malformed, wrong};

/// Longest digest of a transaction: 32 bytes in Base58.
const DIGEST_LIMIT_BYTES: usize = 44;

/// One relayed event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Hint {
    /// The transaction to ask the chain for.
    pub(crate) tx_digest: String,
    /// The place in it; where it is not told, every event of that name is meant.
    pub(crate) event_seq: Option<u64>,
    module: String,
    name: String,
    sender: Option<String>,
    fields: Option<Value>,
    timestamp_ms: Option<u64>,
}

/// Reads one event or a list of them.
pub(crate) fn hints(body: &[u8]) -> Result<Vec<Hint>, Malformed> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| wrong("body", format!("is not JSON: {error}")))?;
    match body {
        Value::Array(events) if events.len() > RELAYED_PER_REQUEST => Err(wrong(
            "body",
            format!("holds more than {RELAYED_PER_REQUEST} events"),
        )),
        Value::Array(events) => events.iter().map(hint).collect(),
        event => Ok(vec![hint(&event)?]),
    }
}

impl Hint {
    /// Whether it names that event of its transaction.
    pub(crate) fn names(&self, event: &ChainEvent) -> bool {
        match self.event_seq {
            Some(seq) => seq == event.id.event_seq,
            None => self.module == event.module && self.name == event.name,
        }
    }

    /// The first field in which it differs from what the chain says of the event.
    pub(crate) fn differs(&self, event: &ChainEvent) -> Option<&'static str> {
        let sender = |text: &str| address(text).unwrap_or_else(|| text.to_owned());
        if self.module != event.module || self.name != event.name {
            return Some("type");
        }
        if (self.sender.as_ref()).is_some_and(|claimed| sender(claimed) != sender(&event.sender)) {
            return Some("sender");
        }
        if (self.fields.as_ref()).is_some_and(|claimed| !same(claimed, &event.fields)) {
            return Some("parsedJson");
        }
        let claimed = self.timestamp_ms;
        claimed
            .is_some_and(|claimed| claimed != event.timestamp_ms)
            .then_some("timestampMs")
    }
}

fn hint(event: &Value) -> Result<Hint, Malformed> {
    if !event.is_object() {
        return Err(wrong("body", "must be an event or a list of events"));
    }
    let text = |field: &str| match event.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(wrong(field, "must be a string")),
    };
    let full = text("type")?.ok_or_else(|| wrong("type", "is missing"))?;
    let mut parts = full.split("::");
    let (Some(_package), Some(module), Some(name), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong("type", "must be <package>::<module>::<Event>"));
    };
    for field in ["packageId", "module", "transactionModule"] {
        text(field)?;
    }
    let (tx_digest, event_seq) = match event.get("id") {
        None | Some(Value::Null) => (text("transactionDigest")?, None),
        Some(id) => {
            let seq = id.get("eventSeq").and_then(whole);
            let seq = seq.ok_or_else(|| wrong("id.eventSeq", "must be a whole number"))?;
            let digest = id.get("txDigest").and_then(Value::as_str);
            (digest.map(str::to_owned), Some(seq))
        }
    };
    let tx_digest = tx_digest
        .filter(|digest| is_digest(digest))
        .ok_or_else(|| {
            wrong(
                "id.txDigest",
                "must be a transaction's digest in Base58, here or in transactionDigest",
            )
        })?;
    Ok(Hint {
        tx_digest,
        event_seq,
        module: module.to_owned(),
        name: name.to_owned(),
        sender: text("sender")?,
        fields: event
            .get("parsedJson")
            .filter(|fields| !fields.is_null())
            .cloned(),
        timestamp_ms: match event.get("timestampMs") {
            None | Some(Value::Null) => None,
            Some(time) => {
                Some(whole(time).ok_or_else(|| wrong("timestampMs", "must be Unix milliseconds"))?)
            }
        },
    })
}

/// A whole number, written as one or as text.
fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64(),
    }
}

/// Whether two values of Move are the same: large numbers may be text in one of them.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(field, one)| other.get(field).is_some_and(|other| same(one, other)))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Number(_), Value::String(_)) | (Value::String(_), Value::Number(_)) => {
            whole(one).is_some() && whole(one) == whole(other)
        }
        (Value::String(one), Value::String(other)) => {
            one == other || address(one).is_some_and(|one| address(other) == Some(one))
        }
        (one, other) => one == other,
    }
}

fn is_digest(text: &str) -> bool {
    // Base58 leaves out what reads alike.
    let is_base58 = |c: char| c.is_ascii_alphanumeric() && !matches!(c, '0' | 'O' | 'I' | 'l');
    !text.is_empty() && text.len() <= DIGEST_LIMIT_BYTES && text.chars().all(is_base58)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::chain::EventId;

    fn relayed() -> Value {
        json!({
            "type": "0x7::worker_registry::StakeDepositedEvent",
            "packageId": "0x7",
            "transactionModule": "worker_registry",
            "sender": "0xa1",
            "parsedJson": {"node_id": "a", "owner": "0xa1", "amount": 5, "timestamp": "1"},
            "id": {"txDigest": "9xQe", "eventSeq": "1"},
            "timestampMs": "1790000000000",
        })
    }

    fn on_chain() -> ChainEvent {
        ChainEvent {
            id: EventId {
                tx_digest: "9xQe".into(),
                event_seq: 1,
            },
            module: "worker_registry".into(),
            name: "StakeDepositedEvent".into(),
            sender: format!("0x{:0>64}", "a1"),
            fields: json!({"node_id": "a", "owner": "0xa1", "amount": "5", "timestamp": "1"}),
            timestamp_ms: 1_790_000_000_000,
            checkpoint: Some(9),
        }
    }

    fn one(event: &Value) -> Result<Hint, Malformed> {
        let mut hints = hints(event.to_string().as_bytes())?;
        Ok(hints.remove(0))
    }

    #[test]
    fn both_forms_of_an_id_and_of_a_time_are_read() {
        let by_id = one(&relayed()).expect("whole");
        assert_eq!(
            (by_id.event_seq, by_id.tx_digest.as_str()),
            (Some(1), "9xQe")
        );
        assert!(by_id.names(&on_chain()));
        assert_eq!(by_id.differs(&on_chain()), None);

        let mut event = relayed();
        event.as_object_mut().expect("an object").remove("id");
        event["transactionDigest"] = "9xQe".into();
        event["timestampMs"] = json!(1_790_000_000_000_u64);
        let by_digest = one(&event).expect("whole");
        assert_eq!(by_digest.event_seq, None);
        assert!(by_digest.names(&on_chain()));
        assert_eq!(by_digest.differs(&on_chain()), None);
    }

    #[test]
    fn a_claim_that_the_chain_does_not_make_is_named() {
        for (pointer, forged, field) in [
            (
                "/type",
                json!("0x7::worker_registry::JoinTokenSetEvent"),
                "type",
            ),
            ("/sender", json!("0xb2"), "sender"),
            ("/parsedJson/amount", json!("5000"), "parsedJson"),
            ("/timestampMs", json!(1), "timestampMs"),
        ] {
            let mut event = relayed();
            *event.pointer_mut(pointer).expect("a field") = forged;
            let hint = one(&event).expect("readable");
            assert_eq!(hint.differs(&on_chain()), Some(field));
        }
    }

    #[test]
    fn what_is_malformed_is_named_by_its_field() {
        for (pointer, bad, says) in [
            (
                "/type",
                json!("StakeDepositedEvent"),
                "type: must be <package>",
            ),
            ("/id/txDigest", json!("0OIl"), "id.txDigest: must be"),
            ("/id/eventSeq", json!(-1), "id.eventSeq: must be"),
            ("/timestampMs", json!("soon"), "timestampMs: must be"),
            ("/sender", json!(1), "sender: must be a string"),
        ] {
            let mut event = relayed();
            *event.pointer_mut(pointer).expect("a field") = bad;
            let said = one(&event).expect_err("refused").to_string();
            assert!(said.starts_with(says), "{said}");
        }
        let many = Value::Array(vec![relayed(); RELAYED_PER_REQUEST + 1]);
        assert!(hints(many.to_string().as_bytes()).is_err());
        assert!(hints(b"{").is_err() && hints(b"7").is_err());
    }
}
