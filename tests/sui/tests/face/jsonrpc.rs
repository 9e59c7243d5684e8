//! JSON-RPC: the forms that the published schema and the SDKs have.

use nautilus_sui_standin::{Operation, layout};
use serde_json::{Value, json};

use crate::http::call;
use crate::{STAKE, owner, with_worker};

#[tokio::test]
async fn a_dynamic_field_is_found_by_its_name() {
    let standin = with_worker().await;
    let at = standin.addresses().jsonrpc;
    let name = json!({ "type": "0x1::string::String", "value": "w1" });
    let table = layout::workers_table().to_string();
    let found = call(at, "suix_getDynamicFieldObject", json!([table, name])).await;
    let found = found.expect("a result");
    let content = &found["data"]["content"];
    assert_eq!(content["dataType"], "moveObject");
    assert_eq!(content["fields"]["name"], "w1");
    let worker = &content["fields"]["value"];
    let package = layout::package();
    assert_eq!(
        worker["type"],
        format!("{package}::worker_registry::WorkerNode")
    );
    assert_eq!(worker["fields"]["stake_amount"], STAKE.to_string());
    assert_eq!(worker["fields"]["owner"], owner().to_string());
    assert_eq!(found["data"]["owner"], json!({ "ObjectOwner": table }));

    let name = json!({ "type": "0x1::string::String", "value": "nobody" });
    let missing = call(at, "suix_getDynamicFieldObject", json!([table, name])).await;
    let missing = missing.expect("a result");
    assert_eq!(missing["error"]["code"], "dynamicFieldNotFound");
}

#[tokio::test]
async fn an_object_that_is_not_there_is_no_error_of_the_call() {
    let standin = with_worker().await;
    let at = standin.addresses().jsonrpc;
    let (token, _) = {
        let chain = standin.chain();
        chain.issue_token(owner(), STAKE, 1_000).expect("a token")
    };
    let options = json!({ "showContent": true, "showOwner": true, "showType": true });
    let found = call(at, "sui_getObject", json!([token, options])).await;
    let found = found.expect("a result");
    let fields = &found["data"]["content"]["fields"];
    assert_eq!(fields["expires_at"], "1000");
    assert_eq!(fields["id"]["id"], token.to_string());
    assert_eq!(found["data"]["owner"]["AddressOwner"], owner().to_string());

    standin
        .chain()
        .apply(Operation::RevokeToken { token })
        .expect("it was there");
    let deleted = call(at, "sui_getObject", json!([token]))
        .await
        .expect("a result");
    assert_eq!(deleted["error"]["code"], "deleted");
    let unknown = call(at, "sui_getObject", json!(["0x123"]))
        .await
        .expect("a result");
    assert_eq!(unknown["error"]["code"], "notExists");
}

#[tokio::test]
async fn errors_have_the_codes_of_json_rpc() {
    let standin = with_worker().await;
    let at = standin.addresses().jsonrpc;
    let error = call(at, "sui_nonsense", json!([]))
        .await
        .expect_err("no such method");
    assert_eq!(error["code"], -32601);
    let error = call(at, "sui_getObject", json!([]))
        .await
        .expect_err("no id");
    assert_eq!(error["code"], -32602);
    let digest = "11111111111111111111111111111111";
    let error = call(at, "sui_getTransactionBlock", json!([digest])).await;
    let error = error.expect_err("no such transaction");
    assert_eq!(error["code"], -32602);
    assert!(
        error["message"]
            .as_str()
            .unwrap_or_default()
            .contains("Could not find")
    );
}

#[tokio::test]
async fn a_transaction_and_its_checkpoint_name_each_other() {
    let standin = with_worker().await;
    let at = standin.addresses().jsonrpc;
    let latest = call(at, "sui_getLatestCheckpointSequenceNumber", json!([])).await;
    assert_eq!(latest, Ok(json!("1")));
    let checkpoint = call(at, "sui_getCheckpoint", json!(["1"]))
        .await
        .expect("a result");
    let digest = &checkpoint["transactions"][0];
    let options = json!({
        "showInput": true, "showEffects": true, "showEvents": true, "showObjectChanges": true,
    });
    let block = call(at, "sui_getTransactionBlock", json!([digest, options])).await;
    let block = block.expect("a result");
    assert_eq!(block["checkpoint"], "1");
    assert_eq!(block["transaction"]["data"]["sender"], owner().to_string());
    assert_eq!(block["effects"]["status"]["status"], "success");
    let types: Vec<&str> = {
        let events = block["events"].as_array().expect("events");
        events.iter().filter_map(|it| it["type"].as_str()).collect()
    };
    let package = layout::package();
    assert_eq!(
        types,
        [
            format!("{package}::worker_registry::WorkerRegisteredEvent"),
            format!("{package}::worker_registry::StakeDepositedEvent"),
        ]
    );
    assert_eq!(
        block["events"],
        call(at, "sui_getEvents", json!([digest]))
            .await
            .expect("a list")
    );
    let identifier = call(at, "sui_getChainIdentifier", json!([]))
        .await
        .expect("a result");
    assert_eq!(identifier.as_str().map(str::len), Some(8));
}

/// Every page of a query, one after the other; the sequence numbers of the events.
async fn pages(
    at: std::net::SocketAddr,
    filter: Value,
    limit: u64,
    descending: bool,
) -> Vec<Value> {
    let mut cursor = Value::Null;
    let mut found = Vec::new();
    loop {
        let params = json!([filter, cursor, limit, descending]);
        let page = call(at, "suix_queryEvents", params).await.expect("a page");
        let data = page["data"].as_array().expect("a list");
        assert!(data.len() as u64 <= limit);
        found.extend(data.iter().map(|it| it["id"].clone()));
        cursor = page["nextCursor"].clone();
        if page["hasNextPage"] == json!(false) {
            return found;
        }
    }
}

#[tokio::test]
async fn pages_of_events_are_the_whole_in_both_directions() {
    let standin = with_worker().await;
    let at = standin.addresses().jsonrpc;
    for number in 0..5 {
        let status = if number % 2 == 0 { "slashed" } else { "active" };
        standin.chain().set_status("w1", status).expect("a worker");
    }
    let all = pages(at, json!({ "All": [] }), 50, false).await;
    assert_eq!(all.len(), 7);
    for limit in [1, 2, 3, 7] {
        assert_eq!(pages(at, json!({ "All": [] }), limit, false).await, all);
        let mut backwards = pages(at, json!({ "All": [] }), limit, true).await;
        backwards.reverse();
        assert_eq!(backwards, all);
    }
    let package = layout::package().to_string();
    let module = json!({ "package": package, "module": "worker_registry" });
    let by_module = pages(at, json!({ "MoveEventModule": module }), 50, false).await;
    assert_eq!(by_module, all);
    let emitted = pages(at, json!({ "MoveModule": module }), 50, false).await;
    assert_eq!(emitted, all);
    let event = format!("{package}::worker_registry::WorkerStatusChangedEvent");
    let by_type = pages(at, json!({ "MoveEventType": event }), 2, false).await;
    assert_eq!(by_type, all[2..]);
    let other = json!({ "package": package, "module": "k8s_scheduler" });
    assert!(
        pages(at, json!({ "MoveModule": other }), 50, false)
            .await
            .is_empty()
    );
}
