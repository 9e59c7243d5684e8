//! Objects, transactions and checkpoints as protobuf messages, under a read mask.

use serde_json::Value as Json;
use sui_rpc::field::FieldMaskTree;
use sui_rpc::merge::Merge;
use sui_rpc::proto::sui::rpc::v2::{
    ChangedObject, Checkpoint, Event, ExecutedTransaction, Object, ObjectSet, Transaction,
    TransactionEffects, TransactionEvents,
};
use sui_rpc::proto::timestamp_ms_to_proto;
use sui_sdk_types::TransactionEvents as SdkEvents;

use crate::ledger::{Checkpoint as Sealed, Executed, Live};
use crate::view::{View, input_version};

pub(super) fn object(live: &Live, mask: &FieldMaskTree) -> Object {
    let mut message = Object::merge_from(live.object.clone(), mask);
    if mask.contains(Object::JSON_FIELD) {
        message.json = Some(Box::new(value(&live.record.plain_json())));
    }
    message
}

pub(super) fn transaction(
    view: &View<'_>,
    executed: &Executed,
    mask: &FieldMaskTree,
) -> ExecutedTransaction {
    let mut message = ExecutedTransaction::default();
    if mask.contains(ExecutedTransaction::DIGEST_FIELD) {
        message.digest = Some(executed.digest.to_string());
    }
    if let Some(submask) = mask.subtree(ExecutedTransaction::TRANSACTION_FIELD) {
        let transaction = executed.transaction.clone();
        message.transaction = Some(Transaction::merge_from(transaction, &submask));
    }
    if let Some(submask) = mask.subtree(ExecutedTransaction::EFFECTS_FIELD) {
        message.effects = Some(effects(executed, &submask));
    }
    if let Some(submask) = mask.subtree(ExecutedTransaction::EVENTS_FIELD) {
        message.events = events(executed, &submask);
    }
    if mask.contains(ExecutedTransaction::CHECKPOINT_FIELD) {
        message.checkpoint = Some(executed.checkpoint);
    }
    if mask.contains(ExecutedTransaction::TIMESTAMP_FIELD) {
        let timestamp_ms = view.timestamp_ms(executed.checkpoint);
        message.timestamp = Some(timestamp_ms_to_proto(timestamp_ms));
    }
    if mask.contains(ExecutedTransaction::TRANSACTION_INDEX_FIELD) {
        message.transaction_index = Some(executed.place);
    }
    if let Some(submask) = mask
        .subtree(ExecutedTransaction::OBJECTS_FIELD)
        .and_then(|submask| submask.subtree(ObjectSet::OBJECTS_FIELD))
    {
        message.objects = Some(object_set(view, [executed], &submask));
    }
    message
}

pub(super) fn checkpoint(
    view: &View<'_>,
    sealed: &std::sync::Arc<Sealed>,
    mask: &FieldMaskTree,
) -> Checkpoint {
    let mut message = Checkpoint::default();
    message.merge(&sealed.summary, mask);
    if mask.contains(Checkpoint::SIGNATURE_FIELD)
        && let Some(signature) = view.signature(sealed)
    {
        message.merge(signature, mask);
    }
    let number = sealed.summary.sequence_number;
    let executed = || {
        let digests = view.contents_at(number).map(|it| &it.transactions);
        let digests = digests.into_iter().flatten();
        digests.filter_map(|digest| view.transaction(digest))
    };
    if mask.contains(Checkpoint::CONTENTS_FIELD)
        && let Some(contents) = view.contents_at(number)
    {
        message.merge(contents.contents.clone(), mask);
    }
    if let Some(submask) = mask.subtree(Checkpoint::TRANSACTIONS_FIELD) {
        message.transactions = executed()
            .map(|executed| transaction(view, executed, &submask))
            .collect();
    }
    if let Some(submask) = mask
        .subtree(Checkpoint::OBJECTS_FIELD)
        .and_then(|submask| submask.subtree(ObjectSet::OBJECTS_FIELD))
    {
        let executed = executed().map(AsRef::as_ref);
        message.objects = Some(object_set(view, executed, &submask));
    }
    message
}

/// One event, with the place where it is.
pub(super) fn event(executed: &Executed, place: usize, mask: &FieldMaskTree) -> Option<Event> {
    let (event, record) = executed.events.get(place)?;
    let mut message = Event::merge_from(event.clone(), mask);
    if mask.contains(Event::JSON_FIELD) {
        message.json = Some(Box::new(value(&record.plain_json())));
    }
    if mask.contains(Event::CHECKPOINT_FIELD) {
        message.checkpoint = Some(executed.checkpoint);
    }
    if mask.contains(Event::TRANSACTION_DIGEST_FIELD) {
        message.transaction_digest = Some(executed.digest.to_string());
    }
    if mask.contains(Event::TRANSACTION_INDEX_FIELD) {
        message.transaction_index = Some(executed.place);
    }
    if mask.contains(Event::EVENT_INDEX_FIELD) {
        message.event_index = u32::try_from(place).ok();
    }
    Some(message)
}

fn effects(executed: &Executed, mask: &FieldMaskTree) -> TransactionEffects {
    let mut message = TransactionEffects::merge_from(&executed.effects, mask);
    if let Some(submask) = mask.subtree(TransactionEffects::CHANGED_OBJECTS_FIELD)
        && submask.contains(ChangedObject::OBJECT_TYPE_FIELD)
    {
        for (object, change) in message.changed_objects.iter_mut().zip(&executed.changes) {
            object.object_type = Some(change.record.tag.to_string());
        }
    }
    message
}

fn events(executed: &Executed, mask: &FieldMaskTree) -> Option<TransactionEvents> {
    if executed.events.is_empty() {
        return None;
    }
    let events = executed.events.iter().map(|(event, _)| event.clone());
    let mut message = TransactionEvents::merge_from(SdkEvents(events.collect()), mask);
    if let Some(submask) = mask.subtree(TransactionEvents::EVENTS_FIELD) {
        message.events = (0..executed.events.len())
            .filter_map(|place| event(executed, place, &submask))
            .collect();
    }
    Some(message)
}

/// What the transactions read and wrote.
fn object_set<'a>(
    view: &View<'_>,
    executed: impl IntoIterator<Item = &'a Executed>,
    mask: &FieldMaskTree,
) -> ObjectSet {
    let mut set = ObjectSet::default();
    for change in executed.into_iter().flat_map(|it| &it.changes) {
        let versions = [
            input_version(&change.before),
            change.digest.map(|_| change.version),
        ];
        let objects = versions.into_iter().flatten();
        let live = objects.filter_map(|version| view.object_at(change.id, version));
        set.objects.extend(live.map(|live| object(&live, mask)));
    }
    set
}

/// JSON as protobuf's well-known type has it.
fn value(json: &Json) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(it) => Kind::BoolValue(*it),
        Json::Number(it) => Kind::NumberValue(it.as_f64().unwrap_or_default()),
        Json::String(it) => Kind::StringValue(it.clone()),
        Json::Array(values) => Kind::ListValue(prost_types::ListValue {
            values: values.iter().map(value).collect(),
        }),
        Json::Object(fields) => Kind::StructValue(prost_types::Struct {
            fields: fields
                .iter()
                .map(|(name, field)| (name.clone(), value(field)))
                .collect(),
        }),
    };
    prost_types::Value { kind: Some(kind) }
}
