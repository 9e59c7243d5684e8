//! Cursors, whatever the pages' lengths and direction, and while the chain grows: every event once.

use nautilus_sui_standin::{MoveValue, Operation, Standin};
use proptest::prelude::*;
use serde_json::{Value, json};
use sui_rpc::field::{FieldMask, FieldMaskUtil};
use sui_rpc::proto::sui::rpc::v2::{ListEventsRequest, Ordering, QueryEndReason, QueryOptions};

use crate::grpc::client;
use crate::http::call;
use crate::owner;

/// The number that each event bears.
type Numbers = Vec<u64>;

fn numbered(numbers: std::ops::Range<u64>) -> Vec<Operation> {
    let emitted = numbers.map(|number| Operation::Emit {
        module: "k8s_scheduler".to_owned(),
        name: "Numbered".to_owned(),
        sender: owner(),
        fields: vec![("number".to_owned(), MoveValue::U64(number))],
    });
    emitted.collect()
}

/// Pages of JSON-RPC; `grow` runs after the first.
async fn by_jsonrpc(
    standin: &Standin,
    limit: u32,
    descending: bool,
    grow: impl FnOnce(),
) -> Numbers {
    let mut grow = Some(grow);
    let mut found = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let params = json!([{ "All": [] }, cursor, limit, descending]);
        let at = standin.addresses().jsonrpc;
        let page = call(at, "suix_queryEvents", params).await.expect("a page");
        for event in page["data"].as_array().into_iter().flatten() {
            let number = event["parsedJson"]["number"].as_str();
            found.push(number.and_then(|it| it.parse().ok()).expect("a number"));
        }
        cursor = page["nextCursor"].clone();
        if let Some(grow) = grow.take() {
            grow();
        } else if page["hasNextPage"] == json!(false) {
            return found;
        }
    }
}

/// Pages of gRPC; `grow` runs after the first.
async fn by_grpc(standin: &Standin, limit: u32, descending: bool, grow: impl FnOnce()) -> Numbers {
    let mut client = client(standin);
    let mut ledger = client.ledger_client();
    let mut grow = Some(grow);
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let mut options = QueryOptions::default().with_limit(limit);
        if descending {
            options.set_ordering(Ordering::Descending);
            options.before = cursor.clone();
        } else {
            options.after = cursor.clone();
        }
        let request = ListEventsRequest::default()
            .with_options(options)
            .with_read_mask(FieldMask::from_str("contents"));
        let frames = ledger.list_events(request).await.expect("a page");
        let mut frames = frames.into_inner();
        let mut ended = None;
        while let Some(frame) = frames.message().await.expect("a frame") {
            assert!(ended.is_none(), "a frame after the end");
            cursor = frame.watermark().cursor.clone();
            if let Some(event) = &frame.event {
                found.push(event.contents().deserialize::<u64>().expect("a number"));
            }
            ended = frame.end.map(|end| end.reason());
        }
        if let Some(grow) = grow.take() {
            grow();
        } else if ended != Some(QueryEndReason::ItemLimit) {
            return found;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_event_is_given_out_once(
        checkpoints in proptest::collection::vec(0_u64..5, 1..6),
        later in 0_u64..5,
        limit in 1_u32..7,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let standin = Standin::start().await.expect("ports");
            let chain = standin.chain();
            let mut count = 0;
            for events in checkpoints {
                chain.apply_all(&numbered(count..count + events)).expect("any event");
                count += events;
            }
            let mut backwards: Numbers = (0..count).rev().collect();
            assert_eq!(by_jsonrpc(&standin, limit, true, || {}).await, backwards);
            assert_eq!(by_grpc(&standin, limit, true, || {}).await, backwards);
            // A page that is read backwards is not disturbed by what comes later.
            let grow = || {
                chain.apply_all(&numbered(count..count + later)).expect("any event");
            };
            assert_eq!(by_grpc(&standin, limit, true, grow).await, backwards);
            let all = count + later;
            let forwards: Numbers = (0..all + later).collect();
            let grow = || {
                chain.apply_all(&numbered(all..all + later)).expect("any event");
            };
            assert_eq!(by_grpc(&standin, limit, false, grow).await, forwards);
            assert_eq!(by_jsonrpc(&standin, limit, false, || {}).await, forwards);
            let forwards: Numbers = (0..all + 2 * later).collect();
            let grow = || {
                chain.apply_all(&numbered(all + later..all + 2 * later)).expect("any event");
            };
            assert_eq!(by_jsonrpc(&standin, limit, false, grow).await, forwards);
            backwards = forwards.into_iter().rev().collect();
            assert_eq!(by_jsonrpc(&standin, limit, true, || {}).await, backwards);
        });
    }
}

#[tokio::test]
async fn a_burst_of_ten_thousand_in_one_checkpoint_is_read_whole() {
    const BURST: u64 = 10_000;
    let standin = Standin::start().await.expect("ports");
    standin
        .chain()
        .apply_all(&numbered(0..BURST))
        .expect("any event");
    assert_eq!(standin.chain().latest_checkpoint(), 1);
    let found = by_grpc(&standin, 1_000, false, || {}).await;
    assert_eq!(found, (0..BURST).collect::<Numbers>());
}
