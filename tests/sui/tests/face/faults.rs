//! Each fault, as a client meets it; and the face as it was once the fault is over.

use std::time::Duration;

use nautilus_sui_standin::{Accomplice, Answer, Faults, Lies, Standin, layout};
use serde_json::{Value, json};
use sui_rpc::field::{FieldMask, FieldMaskUtil};
use sui_rpc::proto::sui::rpc::v2::{GetObjectRequest, Object};
use sui_sdk_types::Address;
use tonic::{Code, Status};

use crate::grpc::client;
use crate::http::{call, request};
use crate::{owner, with_worker};

async fn registry(standin: &Standin) -> Result<Object, Status> {
    object(standin, layout::registry_id()).await
}

async fn object(standin: &Standin, id: Address) -> Result<Object, Status> {
    let mut client = client(standin);
    let request = GetObjectRequest::new(&id).with_read_mask(FieldMask::from_str("*"));
    let response = client.ledger_client().get_object(request).await?;
    Ok(response.into_inner().object.unwrap_or_default())
}

fn latest() -> Value {
    let method = "sui_getLatestCheckpointSequenceNumber";
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": [] })
}

#[tokio::test]
async fn a_closed_port_refuses_old_and_new_connections_until_it_opens() {
    let standin = with_worker().await;
    let mut old = client(&standin);
    let id = layout::registry_id();
    let asked = old
        .ledger_client()
        .get_object(GetObjectRequest::new(&id))
        .await;
    asked.expect("an answer");
    standin.grpc().answer(Answer::Refused);
    standin.jsonrpc().answer(Answer::Refused);
    let asked = old
        .ledger_client()
        .get_object(GetObjectRequest::new(&id))
        .await;
    asked.expect_err("the connection is cut");
    assert_eq!(
        registry(&standin).await.expect_err("refused").code(),
        Code::Unavailable
    );
    let at = standin.addresses().jsonrpc;
    assert!(request(at, "POST", "/", &latest()).await.is_err());
    standin.grpc().answer(Answer::Truth);
    standin.jsonrpc().answer(Answer::Truth);
    // The port opens in the background.
    while registry(&standin).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while request(at, "POST", "/", &latest()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn refusals_have_their_codes() {
    let standin = with_worker().await;
    let at = standin.addresses().jsonrpc;
    for (answer, code, status) in [
        (Answer::Unavailable, Code::Unavailable, 503),
        (Answer::RateLimited, Code::ResourceExhausted, 429),
    ] {
        standin.grpc().answer(answer.clone());
        standin.jsonrpc().answer(answer);
        assert_eq!(
            registry(&standin).await.expect_err("a refusal").code(),
            code
        );
        let refused = request(at, "POST", "/", &latest())
            .await
            .expect("an answer");
        assert_eq!(refused.status, status);
        assert_eq!(
            refused.head.to_lowercase().contains("retry-after: 1"),
            status == 429
        );
    }
    assert_eq!(standin.grpc().requests()["GetObject"], 2);
    assert_eq!(
        standin.jsonrpc().requests()["sui_getLatestCheckpointSequenceNumber"],
        2
    );
}

#[tokio::test]
async fn garbage_is_no_answer() {
    let standin = with_worker().await;
    standin.grpc().answer(Answer::Garbage);
    standin.jsonrpc().answer(Answer::Garbage);
    registry(&standin).await.expect_err("no protobuf");
    let at = standin.addresses().jsonrpc;
    let answer = request(at, "POST", "/", &latest())
        .await
        .expect("an answer");
    assert_eq!(answer.status, 200);
    assert!(serde_json::from_slice::<Value>(&answer.body).is_err());
}

#[tokio::test]
async fn a_slow_face_answers_after_its_delay() {
    let standin = with_worker().await;
    standin.grpc().slow_ms(60_000);
    let asked = tokio::time::timeout(Duration::from_millis(300), registry(&standin)).await;
    assert!(asked.is_err(), "it answered at once");
    standin.grpc().slow_ms(1);
    registry(&standin).await.expect("an answer");
}

#[tokio::test]
async fn a_lagging_face_tells_an_older_state() {
    let standin = with_worker().await;
    standin
        .chain()
        .set_status("w1", "slashed")
        .expect("a worker");
    let id = layout::worker_field("w1");
    let now = object(&standin, id).await.expect("it is there");
    standin.grpc().answer(Answer::Lagging(1));
    let before = object(&standin, id).await.expect("it was there");
    assert!(before.version() < now.version());
    standin.grpc().answer(Answer::Lagging(2));
    assert_eq!(
        object(&standin, id).await.expect_err("not yet").code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn a_liar_says_yes_on_both_faces() {
    let standin = with_worker().await;
    let lies = Lies {
        workers: vec![Accomplice {
            node_id: "thief".to_owned(),
            owner: owner(),
            seal_token: "stolen".to_owned(),
        }],
        token_owner: Some(owner()),
    };
    let faults = Faults {
        slow_ms: 0,
        answer: Answer::Wrong(lies),
    };
    let at = standin.addresses();
    let told = serde_json::to_value(&faults).expect("JSON");
    let set = request(at.admin, "PUT", "/faults/jsonrpc", &told)
        .await
        .expect("an answer");
    assert_eq!(set.status, 200);
    assert_eq!(standin.jsonrpc().faults(), faults);
    let name = json!({ "type": "0x1::string::String", "value": "thief" });
    let table = layout::workers_table().to_string();
    let found = call(
        at.jsonrpc,
        "suix_getDynamicFieldObject",
        json!([table, name]),
    )
    .await;
    let found = found.expect("a result");
    let worker = &found["data"]["content"]["fields"]["value"]["fields"];
    assert_eq!(worker["seal_token"], "stolen");

    let options = json!({ "showContent": true });
    let token = call(at.jsonrpc, "sui_getObject", json!(["0x70ce", options])).await;
    let token = token.expect("a result");
    let token = &token["data"]["content"]["fields"];
    assert_eq!(token["owner"], owner().to_string());
    let stake = call(
        at.jsonrpc,
        "sui_getObject",
        json!([token["stake_id"], options]),
    )
    .await;
    let stake = stake.expect("a result");
    assert_eq!(stake["data"]["content"]["fields"]["status"], "active");
    assert!(
        object(&standin, Address::from_static("0x70ce"))
            .await
            .is_err(),
        "gRPC is true"
    );
}

#[tokio::test]
async fn the_admin_face_makes_things_happen() {
    let standin = Standin::start().await.expect("ports");
    let at = standin.addresses().admin;
    let operations = json!([
        { "operation": "register_worker", "node_id": "w1", "owner": owner(), "stake": 5,
          "seal_token": "seal" },
        { "operation": "emit", "module": "worker_registry", "name": "Odd", "sender": owner(),
          "fields": [["node_id", { "u64": 3 }]] },
    ]);
    let done = request(at, "POST", "/apply", &operations)
        .await
        .expect("an answer");
    assert_eq!(done.json().as_array().map(Vec::len), Some(2));
    assert_eq!(standin.chain().latest_checkpoint(), 1);
    let again = request(at, "POST", "/apply", &operations[0])
        .await
        .expect("an answer");
    assert_eq!(again.status, 409);
    assert_eq!(standin.chain().latest_checkpoint(), 1);
    let state = request(at, "GET", "/state", &Value::Null)
        .await
        .expect("an answer");
    assert_eq!(
        state.json()["chain_id"],
        standin.chain().chain_id().to_string()
    );
}

#[tokio::test]
async fn a_dropped_stand_in_is_gone() {
    let standin = with_worker().await;
    let at = standin.addresses();
    let chain = standin.chain().clone();
    drop(standin);
    let refused = async |at| {
        while request(at, "POST", "/", &latest()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    refused(at.grpc).await;
    refused(at.jsonrpc).await;
    // The chain outlives it, and another node tells of it at the same place.
    let again = Standin::of(chain, at).await.expect("the same ports");
    let latest = call(
        again.addresses().jsonrpc,
        "sui_getLatestCheckpointSequenceNumber",
        json!([]),
    );
    assert_eq!(latest.await, Ok(json!("1")));
}
