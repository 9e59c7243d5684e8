//! Events: by filter and cursor, and of one transaction.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use sui_sdk_types::{Address, Digest, StructTag};

use super::objects::Number;
use super::transactions::no_transaction;
use super::{Params, RpcError, RpcResult, page};
use crate::ledger::Executed;
use crate::value::short_type;
use crate::view::{Order, Place, View};

/// The most events of a page.
const EVENTS_LIMIT: usize = 50;

/// Which events are asked for.
#[derive(Deserialize)]
enum Filter {
    All([(); 0]),
    Sender(Address),
    Transaction(Digest),
    MoveModule(Module),
    MoveEventModule(Module),
    MoveEventType(StructTag),
    #[serde(rename_all = "camelCase")]
    TimeRange {
        start_time: Number,
        end_time: Number,
    },
}

/// A Move module.
#[derive(Deserialize)]
struct Module {
    package: Address,
    module: String,
}

/// Where a page ended.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cursor {
    tx_digest: Digest,
    event_seq: Number,
}

pub(super) fn query(view: &View<'_>, params: Params<'_>) -> RpcResult {
    let filter: Filter = params.required(0)?;
    let cursor: Option<Cursor> = params.optional(1)?;
    let limit: Option<usize> = params.optional(2)?;
    let limit = limit.unwrap_or(EVENTS_LIMIT).clamp(1, EVENTS_LIMIT);
    let order = match params.optional(3)? {
        Some(true) => Order::Descending,
        _ => Order::Ascending,
    };
    let after = match &cursor {
        Some(cursor) => Some(place(view, cursor)?),
        None => None,
    };
    let mut found = Vec::new();
    for (executed, event) in view.events(order, after) {
        if !matches(view, &filter, executed, event) {
            continue;
        }
        if found.len() == limit {
            return Ok(paged(view, &found, true, None));
        }
        found.push((executed, event));
    }
    Ok(paged(view, &found, false, cursor.as_ref()))
}

pub(super) fn of_transaction(view: &View<'_>, params: Params<'_>) -> RpcResult {
    let digest: Digest = params.required(0)?;
    let executed = view.transaction(&digest);
    let executed = executed.ok_or_else(|| no_transaction(&digest))?;
    Ok(of_executed(view, executed))
}

/// A transaction's events.
pub(super) fn of_executed(view: &View<'_>, executed: &Executed) -> Value {
    let places = 0..executed.events.len();
    let events = places.filter_map(|event| event_json(view, executed, event));
    events.collect()
}

fn place(view: &View<'_>, cursor: &Cursor) -> Result<Place, RpcError> {
    let executed = view.transaction(&cursor.tx_digest);
    let executed = executed.ok_or_else(|| no_transaction(&cursor.tx_digest))?;
    Ok(Place {
        checkpoint: executed.checkpoint,
        transaction: executed.place,
        event: cursor.event_seq.0,
    })
}

fn paged(
    view: &View<'_>,
    found: &[(&Executed, usize)],
    more: bool,
    after: Option<&Cursor>,
) -> Value {
    let next = match (found.last(), after) {
        (Some((executed, event)), _) => id(&executed.digest, *event as u64),
        (None, Some(cursor)) => id(&cursor.tx_digest, cursor.event_seq.0),
        (None, None) => Value::Null,
    };
    let data = found
        .iter()
        .filter_map(|(executed, event)| event_json(view, executed, *event));
    let data: Vec<Value> = data.collect();
    page(&data, more, &next)
}

fn id(digest: &Digest, event: u64) -> Value {
    json!({ "txDigest": digest.to_string(), "eventSeq": event.to_string() })
}

fn matches(view: &View<'_>, filter: &Filter, executed: &Executed, place: usize) -> bool {
    let Some((event, _)) = executed.events.get(place) else {
        return false;
    };
    match filter {
        Filter::All([]) => true,
        Filter::Sender(sender) => event.sender == *sender,
        Filter::Transaction(digest) => executed.digest == *digest,
        Filter::MoveModule(it) => {
            event.package_id == it.package && event.module.as_str() == it.module
        }
        Filter::MoveEventModule(it) => {
            *event.type_.address() == it.package && event.type_.module().as_str() == it.module
        }
        Filter::MoveEventType(tag) => event.type_ == *tag,
        Filter::TimeRange {
            start_time,
            end_time,
        } => {
            let timestamp_ms = view.timestamp_ms(executed.checkpoint);
            (start_time.0..end_time.0).contains(&timestamp_ms)
        }
    }
}

fn event_json(view: &View<'_>, executed: &Executed, place: usize) -> Option<Value> {
    let (event, record) = executed.events.get(place)?;
    Some(json!({
        "id": id(&executed.digest, place as u64),
        "packageId": event.package_id.to_string(),
        "transactionModule": event.module.as_str(),
        "sender": event.sender.to_string(),
        "type": short_type(&event.type_),
        "parsedJson": record.plain_json(),
        "bcsEncoding": "base64",
        "bcs": STANDARD.encode(&event.contents),
        "timestampMs": view.timestamp_ms(executed.checkpoint).to_string(),
    }))
}
