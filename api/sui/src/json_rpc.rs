//! A full node by its JSON-RPC 2.0 face, which the chain is about to retire.
//!
//! Invariant: nothing here is proved; where answers must be, this face is a second opinion only.

use std::cmp::Ordering;

use http::{StatusCode, Uri};
use nautilus_workers::chain::{ChainEvent, Cursor};
use rustls::RootCertStore;
use serde_json::{Value, json};
use sui_sdk_types::{Address, Digest, StructTag};

use crate::event::{self, Place};
use crate::face::{
    Asked, CheckpointState, Face, FaceError, Following, ObjectState, Part, TransactionState,
    shortened,
};
use crate::merge::{self, Listed, Position};
use crate::meter::Meter;
use crate::shape::EVENT_MODULES;
use crate::{limits, tls, value};

/// JSON-RPC 2.0's code.
const METHOD_NOT_FOUND: i64 = -32601;

/// A full node's JSON-RPC face.
pub(crate) struct JsonRpcFace {
    client: reqwest::Client,
    url: String,
    package: Address,
    meter: Meter,
}

impl JsonRpcFace {
    /// The face at `url` (`http` or `https`).
    pub(crate) fn new(
        url: &Uri,
        package: Address,
        roots: RootCertStore,
        meter: Meter,
    ) -> Result<Self, String> {
        let config = tls::client_config(roots, b"http/1.1").map_err(|error| error.to_string())?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(limits::CONNECT_TIMEOUT)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            client,
            url: url.to_string(),
            package,
            meter,
        })
    }

    /// The result of `method`; `None` where the full node knows nothing of that name.
    async fn call(
        &self,
        method: &'static str,
        params: Value,
        limit_bytes: usize,
    ) -> Result<Option<Value>, FaceError> {
        let request = self.request(method, params, limit_bytes);
        self.meter.counted(method, request).await
    }

    async fn request(
        &self,
        method: &str,
        params: Value,
        limit_bytes: usize,
    ) -> Result<Option<Value>, FaceError> {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        // The URL may hold a provider's key: no error shows it.
        let unreachable =
            |error: reqwest::Error| FaceError::Unreachable(error.without_url().to_string());
        let mut response = self
            .client
            .post(&self.url)
            .json(&body)
            .send()
            .await
            .map_err(unreachable)?;
        match response.status() {
            StatusCode::TOO_MANY_REQUESTS => return Err(FaceError::RateLimited),
            status if !status.is_success() => return Err(FaceError::Refused(status.to_string())),
            _ => {}
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if bytes.len() + chunk.len() > limit_bytes {
                return Err(malformed("longer than its limit"));
            }
            bytes.extend_from_slice(&chunk);
        }
        let mut answer: Value =
            serde_json::from_slice(&bytes).map_err(|_| malformed("it is not JSON"))?;
        if let Some(error) = answer.get("error") {
            let message = error["message"].as_str().unwrap_or_default();
            // The face has no code of its own for what is not there.
            let is_missing = ["not find", "not found"]
                .iter()
                .any(|words| message.to_ascii_lowercase().contains(words));
            if is_missing && error["code"].as_i64() != Some(METHOD_NOT_FOUND) {
                return Ok(None);
            }
            return Err(FaceError::Refused(shortened(message)));
        }
        match answer.get_mut("result") {
            Some(result) => Ok(Some(result.take())),
            None => Err(malformed("it has no result")),
        }
    }

    async fn get_object(&self, id: Address) -> Result<Option<ObjectState>, FaceError> {
        let options = json!({
            "showType": true, "showOwner": true, "showContent": true,
        });
        let params = json!([id.to_string(), options]);
        let answer = self
            .call("sui_getObject", params, limits::ANSWER_LIMIT_BYTES)
            .await?;
        let Some(answer) = answer else {
            return Ok(None);
        };
        if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
            let code = error["code"].as_str().unwrap_or_default();
            return match code {
                "notExists" | "deleted" | "dynamicFieldNotFound" => Ok(None),
                _ => Err(FaceError::Refused(shortened(code))),
            };
        }
        object_state(id, &answer["data"]).map(Some)
    }

    async fn get_transaction(&self, digest: Digest) -> Result<Option<TransactionState>, FaceError> {
        let params = json!([digest.to_base58(), {"showEvents": true}]);
        let answer = self
            .call(
                "sui_getTransactionBlock",
                params,
                limits::ANSWER_LIMIT_BYTES,
            )
            .await?;
        let Some(answer) = answer else {
            return Ok(None);
        };
        if parsed::<Digest>(&answer["digest"], "digest")? != digest {
            return Err(malformed("another transaction"));
        }
        let place = Place {
            transaction: digest,
            timestamp_ms: number(&answer["timestampMs"]).unwrap_or_default(),
            checkpoint: number(&answer["checkpoint"]),
        };
        let events = answer["events"].as_array().map_or(&[][..], Vec::as_slice);
        if events.len() > limits::EVENTS_PER_TRANSACTION {
            return Err(malformed("more events than a transaction may have"));
        }
        let events = events
            .iter()
            .filter_map(|event| self.event(event, Some(place)).transpose())
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Some(TransactionState {
            digest,
            checkpoint: place.checkpoint,
            events,
            proof: None,
        }))
    }

    /// A followed event; `None`: another's. Where it stands is its own word without a `place`.
    fn event(&self, event: &Value, place: Option<Place>) -> Result<Option<ChainEvent>, FaceError> {
        let type_tag: StructTag = parsed(&event["type"], "type")?;
        let Some(shape) = event::followed(self.package, &type_tag) else {
            return Ok(None);
        };
        let Value::Object(fields) = &event["parsedJson"] else {
            return Err(malformed("parsedJson"));
        };
        let stated = parsed::<Digest>(&event["id"]["txDigest"], "txDigest")?;
        let place = match place {
            Some(place) if place.transaction != stated => return Err(malformed("txDigest")),
            Some(place) => place,
            None => Place {
                transaction: stated,
                timestamp_ms: number(&event["timestampMs"]).ok_or(malformed("timestampMs"))?,
                checkpoint: None,
            },
        };
        let event_seq = number(&event["id"]["eventSeq"]).ok_or(malformed("eventSeq"))?;
        let sender = parsed(&event["sender"], "sender")?;
        let fields = value::plain_fields(fields);
        Ok(Some(event::one(shape, place, event_seq, sender, fields)))
    }

    async fn get_checkpoint(
        &self,
        sequence: Option<u64>,
    ) -> Result<Option<CheckpointState>, FaceError> {
        let sequence = match sequence {
            Some(sequence) => sequence,
            None => {
                let method = "sui_getLatestCheckpointSequenceNumber";
                let newest = self
                    .call(method, json!([]), limits::ANSWER_LIMIT_BYTES)
                    .await?;
                newest
                    .as_ref()
                    .and_then(number)
                    .ok_or(malformed("no number"))?
            }
        };
        let params = json!([sequence.to_string()]);
        let answer = self
            .call("sui_getCheckpoint", params, limits::CHECKPOINT_LIMIT_BYTES)
            .await?;
        let Some(answer) = answer else {
            return Ok(None);
        };
        if number(&answer["sequenceNumber"]) != Some(sequence) {
            return Err(malformed("another checkpoint"));
        }
        let digests = answer["transactions"].as_array();
        Ok(Some(CheckpointState {
            sequence,
            timestamp_ms: number(&answer["timestampMs"]).ok_or(malformed("timestampMs"))?,
            signed: None,
            contents: None,
            digests: digests
                .into_iter()
                .flatten()
                .map(|digest| parsed(digest, "transactions"))
                .collect::<Result<_, _>>()?,
            transactions: Vec::new(),
        }))
    }

    async fn events_after(&self, cursor: Cursor, limit: usize) -> Result<Following, FaceError> {
        let from = match &cursor.event {
            Some(event) => {
                json!({"txDigest": event.tx_digest, "eventSeq": event.event_seq.to_string()})
            }
            None => Value::Null,
        };
        let count = limit.clamp(1, limits::EVENTS_PER_QUERY);
        let mut lists = Vec::new();
        for module in EVENT_MODULES {
            lists.push(self.events_of_module(module, &from, count).await?);
        }
        let mut positions = merge::Positions::new();
        for digest in merge::tied(&lists) {
            positions.insert(digest.clone(), self.position(&digest).await?);
        }
        let (mut events, more) = merge::merge(lists, &positions);
        let read = match cursor.checkpoint {
            Some(read) => self.until(&events, read).await?,
            None => 0,
        };
        let passed = events.drain(..read).next_back().map(|event| event.id);
        Ok(Following::Events {
            events,
            more,
            passed,
        })
    }

    /// How many of `events` are in checkpoints until `read`: those that a cursor of the other face,
    /// which names a checkpoint later than its event, has passed.
    async fn until(&self, events: &[ChainEvent], read: u64) -> Result<usize, FaceError> {
        if events.is_empty() {
            return Ok(0);
        }
        let gone = || FaceError::Gone(format!("the checkpoint {read}"));
        let checkpoint = self.get_checkpoint(Some(read)).await?.ok_or_else(gone)?;
        let mut count = 0;
        for event in events {
            // Checkpoints of one time are told apart by asking.
            let is_read = match event.timestamp_ms.cmp(&checkpoint.timestamp_ms) {
                Ordering::Less => true,
                Ordering::Equal => self.position(&event.id.tx_digest).await?.0 <= read,
                Ordering::Greater => false,
            };
            if !is_read {
                break;
            }
            count += 1;
        }
        Ok(count)
    }

    async fn events_of_module(
        &self,
        module: &str,
        from: &Value,
        count: usize,
    ) -> Result<Listed, FaceError> {
        let package = self.package.to_string();
        let filter = json!({"MoveEventModule": {"package": package, "module": module}});
        let (mut events, mut from) = (Vec::new(), from.clone());
        for _ in 0..limits::QUERIES_PER_PAGE {
            let answer = self
                .call(
                    "suix_queryEvents",
                    json!([filter, from, count, false]),
                    limits::CHECKPOINT_LIMIT_BYTES,
                )
                .await?
                .ok_or_else(|| FaceError::Gone("the cursor's event".to_owned()))?;
            let data = answer["data"].as_array().ok_or(malformed("data"))?;
            let mut ends_followed = true;
            for event in data {
                let event = self.event(event, None)?;
                ends_followed = event.is_some();
                events.extend(event);
            }
            let more = answer["hasNextPage"].as_bool().unwrap_or(false);
            // The last one says how far the module was read: it must be one that is given out.
            if !more || ends_followed {
                return Ok(Listed { events, more });
            }
            from = answer["nextCursor"].clone();
        }
        Err(FaceError::Unsupported(
            "so many events of one module that are not followed",
        ))
    }

    /// Where a transaction stands among all.
    async fn position(&self, tx_digest: &str) -> Result<Position, FaceError> {
        let gone = || FaceError::Gone(format!("the transaction {}", shortened(tx_digest)));
        let digest: Digest = tx_digest.parse().map_err(|_| gone())?;
        let transaction = self.get_transaction(digest).await?.ok_or_else(gone)?;
        let sequence = transaction.checkpoint.ok_or_else(gone)?;
        let checkpoint = self
            .get_checkpoint(Some(sequence))
            .await?
            .ok_or_else(gone)?;
        let mut digests = checkpoint.digests.iter();
        let index = digests.position(|it| *it == digest).ok_or_else(gone)?;
        Ok((sequence, index))
    }
}

impl Face for JsonRpcFace {
    fn name(&self) -> &str {
        &self.meter.name
    }

    fn object(&self, id: Address) -> Asked<'_, Option<ObjectState>> {
        Box::pin(self.get_object(id))
    }

    fn transaction(&self, digest: Digest) -> Asked<'_, Option<TransactionState>> {
        Box::pin(self.get_transaction(digest))
    }

    fn checkpoint(&self, sequence: Option<u64>, part: Part) -> Asked<'_, Option<CheckpointState>> {
        Box::pin(async move {
            match part {
                Part::Transactions => Err(FaceError::Unsupported("whole checkpoints")),
                Part::Summary | Part::Contents => self.get_checkpoint(sequence).await,
            }
        })
    }

    fn end_of_epoch(&self, _epoch: u64) -> Asked<'_, Option<u64>> {
        Box::pin(std::future::ready(Err(FaceError::Unsupported(
            "what validators signed",
        ))))
    }

    fn following(&self, cursor: Cursor, limit: usize) -> Asked<'_, Following> {
        Box::pin(self.events_after(cursor, limit))
    }
}

fn object_state(id: Address, data: &Value) -> Result<ObjectState, FaceError> {
    if parsed::<Address>(&data["objectId"], "objectId")? != id {
        return Err(malformed("another object"));
    }
    let content = &data["content"];
    let Value::Object(fields) = &content["fields"] else {
        return Err(malformed("content.fields"));
    };
    let owner = &data["owner"];
    let account = [
        &owner["AddressOwner"],
        &owner["ConsensusAddressOwner"]["owner"],
    ];
    Ok(ObjectState {
        id,
        version: number(&data["version"]).ok_or(malformed("version"))?,
        digest: parsed(&data["digest"], "digest")?,
        type_tag: parsed(&data["type"], "type")?,
        owner: account
            .into_iter()
            .find_map(|owner| owner.as_str())
            .map(|owner| owner.parse().map_err(|_| malformed("owner")))
            .transpose()?,
        fields: value::plain_fields(fields),
        bytes: None,
    })
}

/// A number, or the text of one.
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    }
}

fn parsed<T: std::str::FromStr>(value: &Value, field: &'static str) -> Result<T, FaceError> {
    let text = value.as_str().ok_or(malformed(field))?;
    text.parse().map_err(|_| malformed(field))
}

fn malformed(what: &'static str) -> FaceError {
    FaceError::Malformed(what.to_owned())
}
