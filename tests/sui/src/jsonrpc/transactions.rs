//! Transactions, with their effects and what they changed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sui_sdk_types::bcs::ToBcs;
use sui_sdk_types::{
    Argument, Command, Digest, GasCostSummary, Input, ObjectIn, Owner, ProgrammableTransaction,
    Transaction, TransactionKind,
};

use super::objects::owner;
use super::{Params, RpcError, RpcResult, events};
use crate::ledger::{Change, Executed};
use crate::value::short_type;
use crate::view::{View, input_version};

/// The most transactions of one request.
const TRANSACTIONS_LIMIT: usize = 50;

/// What of a transaction is asked for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Options {
    show_input: bool,
    show_raw_input: bool,
    show_effects: bool,
    show_raw_effects: bool,
    show_events: bool,
    show_object_changes: bool,
    show_balance_changes: bool,
}

pub(super) fn get(view: &View<'_>, params: Params<'_>) -> RpcResult {
    let options = params.optional(1)?.unwrap_or_default();
    one(view, &params.required(0)?, &options)
}

pub(super) fn get_many(view: &View<'_>, params: Params<'_>) -> RpcResult {
    let digests: Vec<Digest> = params.required(0)?;
    let options = params.optional(1)?.unwrap_or_default();
    if digests.len() > TRANSACTIONS_LIMIT {
        let message = format!("Input exceeds limit of {TRANSACTIONS_LIMIT}");
        return Err(RpcError::invalid(message));
    }
    digests.iter().map(|it| one(view, it, &options)).collect()
}

pub(super) fn count(view: &View<'_>) -> RpcResult {
    let latest = view.checkpoint(view.height());
    let count = latest.map_or(0, |it| it.summary.network_total_transactions);
    Ok(json!(count.to_string()))
}

/// What full nodes say of a digest that they don't know.
pub(super) fn no_transaction(digest: &Digest) -> RpcError {
    RpcError::invalid(format!(
        "Could not find the referenced transaction [TransactionDigest({digest})]."
    ))
}

fn one(view: &View<'_>, digest: &Digest, options: &Options) -> RpcResult {
    let executed = view.transaction(digest);
    let executed = executed.ok_or_else(|| no_transaction(digest))?;
    let mut response = Map::new();
    let mut put = |name: &str, value: Value| response.insert(name.to_owned(), value);
    put("digest", json!(digest.to_string()));
    if options.show_input {
        put("transaction", input(&executed.transaction));
    }
    if options.show_raw_input {
        put("rawTransaction", json!(raw(&executed.transaction)?));
    }
    if options.show_effects {
        put("effects", effects(executed));
    }
    if options.show_raw_effects {
        put("rawEffects", json!(bcs(&executed.effects)?));
    }
    if options.show_events {
        put("events", events::of_executed(view, executed));
    }
    if options.show_object_changes {
        let sender = executed.transaction.sender.to_string();
        let changes = executed.changes.iter();
        put(
            "objectChanges",
            changes.map(|it| change(it, &sender)).collect(),
        );
    }
    if options.show_balance_changes {
        put("balanceChanges", json!([]));
    }
    let timestamp_ms = view.timestamp_ms(executed.checkpoint);
    put("timestampMs", json!(timestamp_ms.to_string()));
    put("checkpoint", json!(executed.checkpoint.to_string()));
    Ok(Value::Object(response))
}

fn bcs<T: ToBcs>(value: &T) -> Result<Vec<u8>, RpcError> {
    let bytes = value.to_bcs();
    bytes.map_err(|error| RpcError::failed(error.to_string()))
}

/// `SenderSignedData`: one transaction with its intent, and no signatures.
fn raw(transaction: &Transaction) -> Result<String, RpcError> {
    let mut bytes = vec![1, 0, 0, 0];
    bytes.extend(bcs(transaction)?);
    bytes.push(0);
    Ok(STANDARD.encode(bytes))
}

fn input(transaction: &Transaction) -> Value {
    let gas = &transaction.gas_payment;
    let kind = match &transaction.kind {
        TransactionKind::ProgrammableTransaction(it) => programmable(it),
        TransactionKind::Genesis(genesis) => {
            let objects = genesis.objects.iter();
            let objects = objects.map(|object| json!(object.object_id().to_string()));
            json!({ "kind": "Genesis", "objects": objects.collect::<Value>() })
        }
        _ => json!({ "kind": "EndOfEpochTransaction", "transactions": [] }),
    };
    json!({
        "data": {
            "messageVersion": "v1",
            "transaction": kind,
            "sender": transaction.sender.to_string(),
            "gasData": {
                "payment": [],
                "owner": gas.owner.to_string(),
                "price": gas.price.to_string(),
                "budget": gas.budget.to_string(),
            },
        },
        "txSignatures": [],
    })
}

fn programmable(transaction: &ProgrammableTransaction) -> Value {
    let inputs = transaction.inputs.iter().map(|input| match input {
        Input::Shared(shared) => json!({
            "type": "object",
            "objectType": "sharedObject",
            "objectId": shared.object_id().to_string(),
            "initialSharedVersion": shared.version().to_string(),
            "mutable": shared.mutability().is_mutable(),
        }),
        Input::ImmutableOrOwned(reference) => json!({
            "type": "object",
            "objectType": "immOrOwnedObject",
            "objectId": reference.object_id().to_string(),
            "version": reference.version().to_string(),
            "digest": reference.digest().to_string(),
        }),
        Input::Pure(bytes) => json!({ "type": "pure", "valueType": null, "value": bytes }),
        _ => Value::Null,
    });
    let commands = transaction.commands.iter().map(|command| match command {
        Command::MoveCall(call) => {
            let arguments = call.arguments.iter().map(|argument| match argument {
                Argument::Input(place) => json!({ "Input": place }),
                Argument::Result(place) => json!({ "Result": place }),
                _ => json!("GasCoin"),
            });
            json!({ "MoveCall": {
                "package": call.package.to_string(),
                "module": call.module.as_str(),
                "function": call.function.as_str(),
                "arguments": arguments.collect::<Value>(),
            } })
        }
        _ => Value::Null,
    });
    json!({
        "kind": "ProgrammableTransaction",
        "inputs": inputs.collect::<Value>(),
        "transactions": commands.collect::<Value>(),
    })
}

fn effects(executed: &Executed) -> Value {
    let of_kind = |wanted: &'static str| {
        let changes = executed.changes.iter();
        changes.filter(move |it| kind(it) == wanted)
    };
    let written = |wanted: &'static str| {
        let changes = of_kind(wanted)
            .map(|change| json!({ "owner": owner(&change.owner), "reference": reference(change) }));
        changes.collect::<Value>()
    };
    let modified = executed.changes.iter().filter_map(|change| {
        let version = input_version(&change.before)?.to_string();
        Some(json!({ "objectId": change.id.to_string(), "sequenceNumber": version }))
    });
    let shared = executed
        .changes
        .iter()
        .filter_map(|change| match &change.before {
            ObjectIn::Exist {
                version,
                digest,
                owner: Owner::Shared(_),
            } => Some(json!({
                "objectId": change.id.to_string(),
                "version": version,
                "digest": digest.to_string(),
            })),
            _ => None,
        });
    let none = "0x0000000000000000000000000000000000000000000000000000000000000000";
    json!({
        "messageVersion": "v1",
        "status": { "status": "success" },
        "executedEpoch": executed.epoch.to_string(),
        "gasUsed": gas(&executed.gas),
        "modifiedAtVersions": modified.collect::<Value>(),
        "sharedObjects": shared.collect::<Value>(),
        "transactionDigest": executed.digest.to_string(),
        "created": written("created"),
        "mutated": written("mutated"),
        "deleted": of_kind("deleted").map(reference).collect::<Value>(),
        // Gas paid without a coin is told so.
        "gasObject": {
            "owner": { "AddressOwner": none },
            "reference": { "objectId": none, "version": 0, "digest": Digest::ZERO.to_string() },
        },
        "eventsDigest": executed.events_digest.map(|it| it.to_string()),
        "dependencies": executed.dependencies.iter().map(Digest::to_string).collect::<Vec<_>>(),
    })
}

/// Gas, as JSON-RPC says it.
pub(super) fn gas(gas: &GasCostSummary) -> Value {
    json!({
        "computationCost": gas.computation_cost.to_string(),
        "storageCost": gas.storage_cost.to_string(),
        "storageRebate": gas.storage_rebate.to_string(),
        "nonRefundableStorageFee": gas.non_refundable_storage_fee.to_string(),
    })
}

fn kind(change: &Change) -> &'static str {
    match (&change.before, change.digest) {
        (_, None) => "deleted",
        (ObjectIn::NotExist, Some(_)) => "created",
        (_, Some(_)) => "mutated",
    }
}

fn reference(change: &Change) -> Value {
    let digest = change.digest.map(|it| it.to_string());
    json!({
        "objectId": change.id.to_string(),
        "version": change.version,
        "digest": digest.as_deref().unwrap_or(super::objects::DELETED_DIGEST),
    })
}

fn change(change: &Change, sender: &str) -> Value {
    let mut value = json!({
        "type": kind(change),
        "sender": sender,
        "objectType": short_type(&change.record.tag),
        "objectId": change.id.to_string(),
        "version": change.version.to_string(),
    });
    if let Some(digest) = change.digest {
        value["owner"] = owner(&change.owner);
        value["digest"] = json!(digest.to_string());
    }
    if kind(change) == "mutated" {
        let version = input_version(&change.before).unwrap_or_default();
        value["previousVersion"] = json!(version.to_string());
    }
    value
}
