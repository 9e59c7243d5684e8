//! Objects and dynamic fields.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sui_sdk_types::{Address, Owner, StructTag, TypeTag};

use super::{Params, RpcError, RpcResult, page};
use crate::ledger::Live;
use crate::value::{MoveValue, short_type, short_type_tag};
use crate::view::View;

/// The most objects of one request, and of one page.
const OBJECTS_LIMIT: usize = 50;
/// The digest by which a deleted object is named.
pub(super) const DELETED_DIGEST: &str = "7gyGAp71YXQRoxmFBaHxofQXAipvgHyBKPyxmdSJxyvz";

/// What of an object is asked for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Options {
    show_type: bool,
    show_owner: bool,
    show_previous_transaction: bool,
    show_content: bool,
    show_bcs: bool,
    show_storage_rebate: bool,
}

impl Options {
    /// What a dynamic field's object is told with.
    fn full() -> Self {
        Self {
            show_type: true,
            show_owner: true,
            show_previous_transaction: true,
            show_content: true,
            show_bcs: false,
            show_storage_rebate: true,
        }
    }
}

pub(super) fn get(view: &View<'_>, params: Params<'_>) -> RpcResult {
    let options = params.optional(1)?.unwrap_or_default();
    Ok(response(view, params.required(0)?, &options))
}

pub(super) fn get_many(view: &View<'_>, params: Params<'_>) -> RpcResult {
    let ids: Vec<Address> = params.required(0)?;
    let options: Options = params.optional(1)?.unwrap_or_default();
    if ids.len() > OBJECTS_LIMIT {
        let message = format!("Input exceeds limit of {OBJECTS_LIMIT}");
        return Err(RpcError::invalid(message));
    }
    Ok(ids.iter().map(|id| response(view, *id, &options)).collect())
}

pub(super) fn get_past(view: &View<'_>, params: Params<'_>) -> RpcResult {
    let id: Address = params.required(0)?;
    let version: Number = params.required(1)?;
    let options = params.optional(2)?.unwrap_or_default();
    if let Some(live) = view.object_at(id, version.0) {
        let details = data(id, &live, &options);
        return Ok(json!({ "status": "VersionFound", "details": details }));
    }
    if view.object(id).is_none() && view.deleted(id).is_none() {
        let details = id.to_string();
        return Ok(json!({ "status": "ObjectNotExists", "details": details }));
    }
    let details = json!([id.to_string(), version.0.to_string()]);
    Ok(json!({ "status": "VersionNotFound", "details": details }))
}

pub(super) fn get_dynamic_field(view: &View<'_>, params: Params<'_>) -> RpcResult {
    let parent: Address = params.required(0)?;
    let name: Name = params.required(1)?;
    let id = parent.derive_dynamic_child_id(&name.type_, &key(&name)?);
    if view.object(id).is_none() {
        let parent_object_id = parent.to_string();
        let code = "dynamicFieldNotFound";
        return Ok(json!({ "error": { "code": code, "parent_object_id": parent_object_id } }));
    }
    Ok(response(view, id, &Options::full()))
}

pub(super) fn list_dynamic_fields(view: &View<'_>, params: Params<'_>) -> RpcResult {
    let parent: Address = params.required(0)?;
    let found = live(view, view.children(parent));
    paged(found, params, 1, dynamic_field)
}

pub(super) fn list_owned(view: &View<'_>, params: Params<'_>) -> RpcResult {
    let owner: Address = params.required(0)?;
    let query: Query = params.optional(1)?.unwrap_or_default();
    let found = live(view, view.owned(owner)).filter(|(_, live)| match &query.filter {
        Some(Filter::StructType(wanted)) => live.record.tag == *wanted,
        None => true,
    });
    let options = query.options.clone().unwrap_or_default();
    paged(found, params, 2, |id, live| {
        Some(json!({ "data": data(id, live, &options) }))
    })
}

/// What of owned objects is asked for.
#[derive(Default, Deserialize)]
struct Query {
    filter: Option<Filter>,
    options: Option<Options>,
}

#[derive(Deserialize)]
enum Filter {
    StructType(StructTag),
}

fn live(
    view: &View<'_>,
    ids: impl Iterator<Item = Address>,
) -> impl Iterator<Item = (Address, Live)> {
    ids.filter_map(|id| Some((id, view.object(id)?)))
}

/// A page of objects: the cursor is the last one's id, at `place`, then the limit.
fn paged(
    found: impl Iterator<Item = (Address, Live)>,
    params: Params<'_>,
    place: usize,
    form: impl Fn(Address, &Live) -> Option<Value>,
) -> RpcResult {
    let cursor: Option<Address> = params.optional(place)?;
    let limit: Option<usize> = params.optional(place + 1)?;
    let limit = limit.unwrap_or(OBJECTS_LIMIT).clamp(1, OBJECTS_LIMIT);
    let mut found = found.filter(|(id, _)| cursor.is_none_or(|cursor| *id > cursor));
    let shown: Vec<_> = found.by_ref().take(limit).collect();
    let more = found.next().is_some();
    let last = shown.last().map(|(id, _)| *id).or(cursor);
    let values = shown.iter().filter_map(|(id, live)| form(*id, live));
    let values: Vec<Value> = values.collect();
    let cursor = last.map_or(Value::Null, |id| json!(id.to_string()));
    Ok(page(&values, more, &cursor))
}

/// A dynamic field's name.
#[derive(Deserialize)]
struct Name {
    #[serde(rename = "type")]
    type_: TypeTag,
    value: Value,
}

/// A dynamic field's name in BCS.
fn key(name: &Name) -> Result<Vec<u8>, RpcError> {
    let value = match (&name.type_, &name.value) {
        (TypeTag::Address, Value::String(it)) => {
            let address = it.parse();
            MoveValue::Address(address.map_err(|_| RpcError::invalid("Invalid address"))?)
        }
        (TypeTag::U64, value) => MoveValue::U64(super::parse::<Number>(value)?.0),
        (TypeTag::Bool, Value::Bool(it)) => MoveValue::Bool(*it),
        (TypeTag::Struct(tag), Value::String(it)) if short_type(tag) == "0x1::string::String" => {
            MoveValue::String(it.clone())
        }
        (tag, _) => {
            let message = format!("the stand-in has no names of the type {tag}");
            return Err(RpcError::invalid(message));
        }
    };
    Ok(value.bcs())
}

/// A `u64` as text or as a number.
pub(super) struct Number(pub(super) u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let number = match &value {
            Value::String(text) => text.parse().ok(),
            other => other.as_u64(),
        };
        let number = number.ok_or_else(|| serde::de::Error::custom("expected a u64"))?;
        Ok(Self(number))
    }
}

fn response(view: &View<'_>, id: Address, options: &Options) -> Value {
    if let Some(live) = view.object(id) {
        return json!({ "data": data(id, &live, options) });
    }
    let error = match view.deleted(id) {
        Some(version) => json!({
            "code": "deleted",
            "object_id": id.to_string(),
            "version": version.to_string(),
            "digest": DELETED_DIGEST,
        }),
        None => json!({ "code": "notExists", "object_id": id.to_string() }),
    };
    json!({ "error": error })
}

fn data(id: Address, live: &Live, options: &Options) -> Value {
    let mut data = Map::new();
    let mut put = |name: &str, value: Value| data.insert(name.to_owned(), value);
    put("objectId", json!(id.to_string()));
    put("version", json!(live.object.version().to_string()));
    put("digest", json!(live.object.digest().to_string()));
    let type_ = short_type(&live.record.tag);
    if options.show_type {
        put("type", json!(type_));
    }
    if options.show_owner {
        put("owner", owner(live.object.owner()));
    }
    if options.show_previous_transaction {
        let digest = live.object.previous_transaction().to_string();
        put("previousTransaction", json!(digest));
    }
    if options.show_storage_rebate {
        let rebate = live.object.storage_rebate().to_string();
        put("storageRebate", json!(rebate));
    }
    if options.show_content {
        let content = json!({
            "dataType": "moveObject",
            "type": type_,
            "hasPublicTransfer": false,
            "fields": live.record.typed_json(),
        });
        put("content", content);
    }
    if options.show_bcs {
        let bcs = json!({
            "dataType": "moveObject",
            "type": type_,
            "hasPublicTransfer": false,
            "version": live.object.version(),
            "bcsBytes": STANDARD.encode(live.record.bcs()),
        });
        put("bcs", bcs);
    }
    Value::Object(data)
}

/// Who owns an object, as JSON-RPC says it.
pub(super) fn owner(owner: &Owner) -> Value {
    match owner {
        Owner::Address(it) => json!({ "AddressOwner": it.to_string() }),
        Owner::Object(it) => json!({ "ObjectOwner": it.to_string() }),
        Owner::Shared(version) => json!({ "Shared": { "initial_shared_version": version } }),
        _ => json!("Immutable"),
    }
}

fn dynamic_field(id: Address, live: &Live) -> Option<Value> {
    let name = live.record.get("name")?;
    let [name_type, value_type] = live.record.tag.type_params() else {
        return None;
    };
    Some(json!({
        "name": { "type": short_type_tag(name_type), "value": name.plain_json() },
        "bcsEncoding": "base64",
        "bcsName": STANDARD.encode(name.bcs()),
        "type": "DynamicField",
        "objectType": short_type_tag(value_type),
        "objectId": id.to_string(),
        "version": live.object.version(),
        "digest": live.object.digest().to_string(),
    }))
}
