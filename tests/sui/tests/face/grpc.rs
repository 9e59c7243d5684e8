//! By `sui-rpc`'s own client.

use nautilus_sui_standin::{Operation, Standin, layout};
use sui_rpc::Client;
use sui_rpc::field::{FieldMask, FieldMaskUtil};
use sui_rpc::proto::sui::rpc::v2::{
    BatchGetObjectsRequest, GetCheckpointRequest, GetObjectRequest, GetServiceInfoRequest,
    GetTransactionRequest, ListDynamicFieldsRequest, SubscribeCheckpointsRequest,
};
use sui_sdk_types::{Address, Object, Owner};
use tonic::Code;

use crate::{STAKE, owner, with_worker};

pub(crate) fn client(standin: &Standin) -> Client {
    Client::new(standin.grpc_url()).expect("a URL")
}

#[tokio::test]
async fn an_object_has_what_the_mask_asks_for() {
    let standin = with_worker().await;
    let id = layout::worker_field("w1");
    let mut client = client(&standin);
    let mut ledger = client.ledger_client();

    let bare = ledger.get_object(GetObjectRequest::new(&id)).await;
    let bare = bare
        .expect("it exists")
        .into_inner()
        .object
        .expect("an object");
    assert_eq!(bare.object_id(), id.to_string());
    assert!(bare.bcs.is_none() && bare.json.is_none() && bare.owner.is_none());

    let mask = FieldMask::from_str("bcs,json,owner,contents,digest");
    let request = GetObjectRequest::new(&id).with_read_mask(mask);
    let full = ledger.get_object(request).await.expect("it exists");
    let full = full.into_inner().object.expect("an object");
    let object: Object = full.bcs().deserialize().expect("an object in BCS");
    assert_eq!(object.digest().to_string(), full.digest());
    assert_eq!(*object.owner(), Owner::Object(layout::workers_table()));
    let json = serde_json::to_value(full.json.as_deref().map(json)).expect("JSON");
    assert_eq!(json["name"], "w1");
    assert_eq!(json["value"]["stake_amount"], STAKE.to_string());
    assert_eq!(json["value"]["owner"], owner().to_string());
    assert_eq!(json["value"]["seal_token"], "seal-1");
}

/// The well-known type as JSON.
fn json(value: &prost_types::Value) -> serde_json::Value {
    use prost_types::value::Kind;
    match &value.kind {
        Some(Kind::StringValue(it)) => it.clone().into(),
        Some(Kind::BoolValue(it)) => (*it).into(),
        Some(Kind::NumberValue(it)) => (*it).into(),
        Some(Kind::ListValue(it)) => it.values.iter().map(json).collect(),
        Some(Kind::StructValue(it)) => {
            let fields = it.fields.iter();
            fields.map(|(name, it)| (name.clone(), json(it))).collect()
        }
        Some(Kind::NullValue(_)) | None => serde_json::Value::Null,
    }
}

#[tokio::test]
async fn errors_have_the_codes_of_a_full_node() {
    let standin = with_worker().await;
    let mut client = client(&standin);
    let mut ledger = client.ledger_client();
    let unknown = Address::from_static("0x123");
    let status = ledger.get_object(GetObjectRequest::new(&unknown)).await;
    let status = status.expect_err("it does not exist");
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.message(), format!("Object {unknown} not found"));

    let mask = FieldMask::from_str("nonsense");
    let request = GetObjectRequest::new(&unknown).with_read_mask(mask);
    let status = ledger.get_object(request).await.expect_err("a wrong mask");
    assert_eq!(status.code(), Code::InvalidArgument);

    let request = GetCheckpointRequest::by_sequence_number(99);
    let status = ledger.get_checkpoint(request).await.expect_err("not yet");
    assert_eq!(status.code(), Code::NotFound);

    let batch = BatchGetObjectsRequest::default().with_requests(vec![
        GetObjectRequest::new(&layout::registry_id()),
        GetObjectRequest::new(&unknown),
    ]);
    let objects = ledger
        .batch_get_objects(batch)
        .await
        .expect("both are answered");
    let mut results = objects.into_inner().objects.into_iter();
    let first = results
        .next()
        .expect("two")
        .to_result()
        .expect("the registry");
    assert_eq!(first.object_id(), layout::registry_id().to_string());
    let second = results
        .next()
        .expect("two")
        .to_result()
        .expect_err("unknown");
    assert_eq!(second.code, i32::from(Code::NotFound));
}

#[tokio::test]
async fn dynamic_fields_are_listed_in_pages() {
    let standin = Standin::start().await.expect("ports");
    let registrations: Vec<Operation> = (0..7)
        .map(|number| Operation::RegisterWorker {
            node_id: format!("w{number}"),
            owner: owner(),
            stake: STAKE,
            seal_token: format!("seal-{number}"),
        })
        .collect();
    standin.chain().apply_all(&registrations).expect("all new");
    let mut client = client(&standin);
    let mut state = client.state_client();
    let mut names = Vec::new();
    let mut token = None;
    loop {
        let mut request = ListDynamicFieldsRequest::default()
            .with_parent(layout::workers_table().to_string())
            .with_page_size(3u32)
            .with_read_mask(FieldMask::from_str("name,value_type"));
        request.page_token = token;
        let page = state.list_dynamic_fields(request).await.expect("a page");
        let page = page.into_inner();
        assert!(page.dynamic_fields.len() <= 3);
        for field in &page.dynamic_fields {
            assert!(
                field
                    .value_type()
                    .ends_with("::worker_registry::WorkerNode")
            );
            let name: String = field.name().deserialize().expect("a string");
            names.push(name);
        }
        token = page.next_page_token;
        if token.is_none() {
            break;
        }
    }
    names.sort();
    assert_eq!(names, ["w0", "w1", "w2", "w3", "w4", "w5", "w6"]);
}

#[tokio::test]
async fn a_transaction_has_its_events_in_json_and_bcs() {
    let standin = with_worker().await;
    let receipt = standin
        .chain()
        .set_status("w1", "slashed")
        .expect("a worker");
    let mut client = client(&standin);
    let mask = FieldMask::from_str("digest,events,checkpoint,timestamp,effects.bcs");
    let request = GetTransactionRequest::new(&receipt.tx_digest).with_read_mask(mask);
    let transaction = client.ledger_client().get_transaction(request).await;
    let transaction = transaction.expect("it is there").into_inner().transaction;
    let transaction = transaction.expect("a transaction");
    assert_eq!(transaction.checkpoint, Some(receipt.checkpoint));
    let events = transaction.events().events();
    assert_eq!(events.len(), 1);
    assert!(
        events[0]
            .event_type()
            .ends_with("::worker_registry::WorkerStatusChangedEvent")
    );
    let fields = json(events[0].json.as_deref().expect("JSON"));
    assert_eq!(fields["old_status"], "active");
    assert_eq!(fields["new_status"], "slashed");
    let bcs: (String, String, String, u64) = {
        let contents = events[0].contents();
        contents.deserialize().expect("the event's fields")
    };
    assert_eq!((bcs.0.as_str(), bcs.2.as_str()), ("w1", "slashed"));
}

#[tokio::test]
async fn a_subscription_brings_every_checkpoint_once() {
    let standin = with_worker().await;
    let mut client = client(&standin);
    let mut subscriptions = client.subscription_client();
    let request = SubscribeCheckpointsRequest::default()
        .with_read_mask(FieldMask::from_str("sequence_number,transactions.events"));
    let stream = subscriptions.subscribe_checkpoints(request).await;
    let mut stream = stream.expect("a subscription").into_inner();
    let first = stream.message().await.expect("a frame").expect("open");
    assert_eq!(first.cursor, Some(1));
    for _ in 0..3 {
        let heartbeat = Operation::Heartbeat {
            node_id: "w1".to_owned(),
        };
        standin.chain().apply(heartbeat).expect("a worker");
    }
    for expected in 2..5 {
        let frame = stream.message().await.expect("a frame").expect("open");
        assert_eq!(frame.cursor, Some(expected));
        assert_eq!(frame.checkpoint().sequence_number, Some(expected));
    }
}

#[tokio::test]
async fn requests_are_counted_by_method() {
    let standin = with_worker().await;
    let mut client = client(&standin);
    let mut ledger = client.ledger_client();
    for _ in 0..3 {
        let info = ledger
            .get_service_info(GetServiceInfoRequest::default())
            .await;
        let info = info.expect("info").into_inner();
        assert_eq!(info.chain_id(), standin.chain().chain_id().to_string());
    }
    assert_eq!(standin.grpc().requests()["GetServiceInfo"], 3);
    standin.grpc().reset_requests();
    assert_eq!(standin.grpc().total_requests(), 0);
}
