//! Receipts over the face: what is proved, and what is refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nautilus_machine::{
    Command, Kv as _, Operation, Proposal, Put, Txn, verify_consistency, verify_inclusion,
};
use nautilus_rest::receipts::{ConsistencyDocument, ReceiptDocument, parse_hash};
use reqwest::StatusCode;
use serde_json::json;

use crate::world::World;

const OBJECT: &str = "/nautilus/registry/configmaps/default/proved";

async fn put(world: &World, puts: &[(&str, &str)]) -> u64 {
    let puts = puts.iter().map(|(key, value)| {
        let put = Put::new(key.to_string(), value.to_string());
        Operation::Put(put)
    });
    let txn = Txn {
        then: puts.collect(),
        ..Txn::default()
    };
    let proposal = Proposal::new(Command::Txn(txn));
    world.kv.propose(proposal).await.unwrap().revision
}

async fn receipt(world: &World, query: &str) -> ReceiptDocument {
    let (status, answer) = world.get(&format!("/nautilus/v1/receipt?{query}")).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    serde_json::from_value(answer).unwrap()
}

fn check(receipt: &ReceiptDocument) {
    let (leaf, root) = (
        receipt.leaf.to_leaf().unwrap(),
        receipt.root.statement().unwrap(),
    );
    let proof = receipt
        .inclusion
        .iter()
        .map(|hash| parse_hash("", hash).unwrap());
    let proof: Vec<_> = proof.collect();
    assert!(verify_inclusion(
        &leaf.hash(),
        receipt.leaf.index,
        root.size,
        &proof,
        &root.root
    ));
    let value = receipt
        .value
        .as_ref()
        .map(|value| BASE64.decode(value).unwrap());
    assert!(leaf.commits_to(&value.unwrap()));
}

#[tokio::test]
async fn a_created_object_has_a_receipt_by_its_resource_version() {
    let world = World::start().await;
    let made = world
        .config_map("proved", &json!({}), &json!({ "a": "b" }))
        .await;
    let version = made["metadata"]["resourceVersion"].as_str().unwrap();
    let by_revision = receipt(&world, &format!("revision={version}")).await;
    check(&by_revision);
    assert_eq!(
        BASE64.decode(&by_revision.leaf.key).unwrap(),
        OBJECT.as_bytes()
    );
    let by_key = receipt(&world, &format!("key={OBJECT}")).await;
    assert_eq!(by_key.leaf, by_revision.leaf);
}

#[tokio::test]
async fn what_has_no_receipt_is_refused_by_its_own_code() {
    let world = World::start().await;
    let first = put(&world, &[("a", "1")]).await;
    let both = put(&world, &[("a", "2"), ("b", "2")]).await;
    let asked = |query: String| {
        let world = &world;
        async move {
            let (status, answer) = world.get(&format!("/nautilus/v1/receipt?{query}")).await;
            (
                status.as_u16(),
                answer["reason"].as_str().unwrap().to_owned(),
            )
        }
    };
    let refused = |code, reason: &str| (code, reason.to_owned());
    let future = asked(format!("revision={}", both + 1)).await;
    assert_eq!(future, refused(404, "NotFound"));
    let other = asked(format!("revision={first}&key=b")).await;
    assert_eq!(other, refused(404, "NotFound"));
    assert_eq!(
        asked(format!("revision={both}")).await,
        refused(400, "BadRequest")
    );
    assert_eq!(asked("revision=x".into()).await, refused(400, "BadRequest"));
    assert_eq!(asked(String::new()).await, refused(400, "BadRequest"));
    assert_eq!(asked("name=a".into()).await, refused(400, "BadRequest"));
    assert_eq!(asked("key=nothing".into()).await, refused(404, "NotFound"));
    // The authority's row is the quorum's own: the face does not say that it is there.
    assert_eq!(
        asked("key=/nautilus/ca".into()).await,
        refused(404, "NotFound")
    );
    check(&receipt(&world, &format!("revision={both}&keyHex=62")).await);
    let compact = Proposal::new(Command::Compact { revision: both });
    world.kv.propose(compact).await.unwrap();
    assert_eq!(
        asked(format!("revision={first}")).await,
        refused(410, "Expired")
    );
    check(&receipt(&world, &format!("revision={both}&key=a")).await);
}

#[tokio::test]
async fn an_older_root_is_shown_to_be_the_beginning_of_the_present_one() {
    let world = World::start().await;
    let revision = put(&world, &[("a", "1")]).await;
    let older = receipt(&world, &format!("revision={revision}")).await.root;
    for _ in 0..40 {
        put(&world, &[("a", "1")]).await;
    }
    let path = format!("/nautilus/v1/receipt/consistency?from={}", older.size);
    let (status, answer) = world.get(&path).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let proved: ConsistencyDocument = serde_json::from_value(answer).unwrap();
    let proof = proved
        .proof
        .iter()
        .map(|hash| parse_hash("", hash).unwrap());
    let proof: Vec<_> = proof.collect();
    let roots = [&older, &proved.root].map(|root| root.statement().unwrap().root);
    let holds = verify_consistency(older.size, &roots[0], proved.to, &roots[1], &proof);
    assert!(holds && proved.to == older.size + 40);
    let more = proved.to + 1;
    let path = format!("/nautilus/v1/receipt/consistency?from={more}");
    assert_eq!(world.get(&path).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn only_masters_get_receipts() {
    let user = nautilus_machinery::identity::User::authenticated("jane", vec!["dev".into()]);
    let world = World::start_with(user, Default::default()).await;
    let (status, _) = world.get("/nautilus/v1/receipt?revision=2").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}
