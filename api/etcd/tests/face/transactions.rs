//! Txn.

use nautilus_etcd::errors;
use nautilus_etcd::proto::etcdserverpb as pb;
use nautilus_etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use nautilus_etcd::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use nautilus_etcd::proto::etcdserverpb::request_op::Request;
use nautilus_etcd::proto::etcdserverpb::response_op::Response;

use crate::world::{World, bytes, fault, get, put, refusal, span, text};

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

fn compare(
    key: &str,
    target: CompareTarget,
    result: CompareResult,
    side: TargetUnion,
) -> pb::Compare {
    pb::Compare {
        result: result.into(),
        target: target.into(),
        key: bytes(key),
        target_union: Some(side),
        range_end: bytes(""),
    }
}

async fn holds(world: &World, compare: pb::Compare) -> bool {
    // Once as a read at one member, once through the log: both must agree.
    let read = pb::TxnRequest {
        compare: vec![compare.clone()],
        ..Default::default()
    };
    let write = pb::TxnRequest {
        failure: vec![op(Request::RequestPut(put("elsewhere", "1")))],
        success: vec![op(Request::RequestPut(put("elsewhere", "2")))],
        ..read.clone()
    };
    let read = world.kv().txn(read).await.expect("a read").into_inner();
    let write = world.kv().txn(write).await.expect("a write").into_inner();
    assert_eq!(read.succeeded, write.succeeded);
    read.succeeded
}

#[tokio::test]
async fn every_comparison_of_every_target_is_judged() {
    use CompareResult::{Equal, Greater, Less, NotEqual};
    let world = World::new().await;
    let lease = world.grant(60).await;
    let leased = pb::PutRequest {
        lease,
        ..put("a", "m")
    };
    world.put("a", "l").await;
    world.kv().put(leased).await.expect("a put");
    let number = |target, number| match target {
        CompareTarget::Version => TargetUnion::Version(number),
        CompareTarget::Create => TargetUnion::CreateRevision(number),
        CompareTarget::Mod => TargetUnion::ModRevision(number),
        _ => TargetUnion::Lease(number),
    };
    for (target, own) in [
        (CompareTarget::Version, 2),
        (CompareTarget::Create, 2),
        (CompareTarget::Mod, 3),
        (CompareTarget::Lease, lease),
    ] {
        for (result, side, expected) in [
            (Equal, own, true),
            (Equal, own - 1, false),
            (NotEqual, own, false),
            (NotEqual, own - 1, true),
            (Greater, own - 1, true),
            (Greater, own, false),
            (Less, own, false),
            (Less, own + 1, true),
            (Less, -1, false),
            (Greater, -1, true),
            (Equal, -1, false),
        ] {
            let compare = compare("a", target, result, number(target, side));
            assert_eq!(
                holds(&world, compare).await,
                expected,
                "{target:?} {result:?} {side}"
            );
        }
    }
    for (result, value, expected) in [
        (Equal, "m", true),
        (NotEqual, "m", false),
        (Greater, "l", true),
        (Less, "l", false),
    ] {
        let side = TargetUnion::Value(bytes(value));
        let compare = compare("a", CompareTarget::Value, result, side);
        assert_eq!(holds(&world, compare).await, expected, "{result:?} {value}");
    }
}

#[tokio::test]
async fn an_absent_key_compares_as_zero_and_has_no_value() {
    let world = World::new().await;
    let absent = compare(
        "nope",
        CompareTarget::Create,
        CompareResult::Equal,
        TargetUnion::CreateRevision(0),
    );
    assert!(holds(&world, absent).await);
    let value = compare(
        "nope",
        CompareTarget::Value,
        CompareResult::Equal,
        TargetUnion::Value(bytes("")),
    );
    assert!(!holds(&world, value).await);
}

#[tokio::test]
async fn a_comparison_of_a_range_must_hold_for_each_of_its_keys() {
    let world = World::new().await;
    world.put("a1", "x").await;
    world.put("a2", "y").await;
    let all = |value: &str| pb::Compare {
        range_end: bytes("b"),
        ..compare(
            "a",
            CompareTarget::Value,
            CompareResult::Less,
            TargetUnion::Value(bytes(value)),
        )
    };
    assert!(holds(&world, all("z")).await);
    assert!(!holds(&world, all("y")).await);
}

#[tokio::test]
async fn nested_operations_answer_in_their_places_at_one_revision() {
    let world = World::new().await;
    for key in ["a", "b", "c"] {
        world.put(key, key).await;
    }
    let last = pb::RangeRequest {
        sort_order: SortOrder::Descend.into(),
        sort_target: SortTarget::Key.into(),
        limit: 1,
        ..span("a", "z")
    };
    let nested = pb::TxnRequest {
        success: vec![
            op(Request::RequestPut(put("d", "d"))),
            op(Request::RequestRange(last.clone())),
        ],
        ..Default::default()
    };
    let delete = pb::DeleteRangeRequest {
        key: bytes("b"),
        prev_kv: true,
        ..Default::default()
    };
    let request = pb::TxnRequest {
        success: vec![
            op(Request::RequestRange(last)),
            op(Request::RequestTxn(nested)),
            op(Request::RequestDeleteRange(delete)),
        ],
        ..Default::default()
    };
    let response = world.kv().txn(request).await.expect("a txn").into_inner();
    assert_eq!(response.header.expect("a header").revision, 5);
    let mut answers = response.responses.into_iter().map(|op| op.response);
    let Some(Some(Response::ResponseRange(range))) = answers.next() else {
        panic!("not a range");
    };
    assert_eq!((text(&range.kvs[0].key).as_str(), range.more), ("c", true));
    let Some(Some(Response::ResponseTxn(inner))) = answers.next() else {
        panic!("not a transaction");
    };
    assert!(inner.succeeded);
    let Some(Response::ResponseRange(range)) = &inner.responses[1].response else {
        panic!("not a range");
    };
    assert_eq!(text(&range.kvs[0].key), "d");
    let Some(Some(Response::ResponseDeleteRange(deleted))) = answers.next() else {
        panic!("not a deletion");
    };
    assert_eq!(
        (deleted.deleted, text(&deleted.prev_kvs[0].value)),
        (1, "b".to_owned())
    );
}

#[tokio::test]
async fn a_failed_comparison_runs_the_other_branch() {
    let world = World::new().await;
    let request = pb::TxnRequest {
        compare: vec![compare(
            "a",
            CompareTarget::Version,
            CompareResult::Greater,
            TargetUnion::Version(0),
        )],
        success: vec![op(Request::RequestPut(put("a", "then")))],
        failure: vec![op(Request::RequestPut(put("a", "else")))],
    };
    let response = world.kv().txn(request).await.expect("a txn").into_inner();
    assert!(!response.succeeded);
    assert_eq!(text(&world.range(get("a")).await.kvs[0].value), "else");
}

#[tokio::test]
async fn a_transaction_that_only_reads_leaves_the_revision() {
    let world = World::new().await;
    world.put("a", "1").await;
    let request = pb::TxnRequest {
        success: vec![op(Request::RequestRange(get("a")))],
        ..Default::default()
    };
    let response = world.kv().txn(request).await.expect("a txn").into_inner();
    assert_eq!(response.header.expect("a header").revision, 2);
    assert_eq!(world.put("a", "2").await, 3);
}

#[tokio::test]
async fn a_key_written_twice_is_refused() {
    let world = World::new().await;
    let twice = pb::TxnRequest {
        success: vec![
            op(Request::RequestPut(put("a", "1"))),
            op(Request::RequestPut(put("a", "2"))),
        ],
        ..Default::default()
    };
    assert_eq!(
        refusal(world.kv().txn(twice).await),
        fault(errors::DUPLICATE_KEY)
    );
}

#[tokio::test]
async fn nested_levels_share_the_number_of_operations() {
    let world = World::new().await;
    let puts = |number: usize, prefix: &str| -> Vec<pb::RequestOp> {
        (0..number)
            .map(|at| op(Request::RequestPut(put(&format!("{prefix}{at}"), "v"))))
            .collect()
    };
    let flat = |number| pb::TxnRequest {
        success: puts(number, "a"),
        ..Default::default()
    };
    world.kv().txn(flat(128)).await.expect("as many as allowed");
    assert_eq!(
        refusal(world.kv().txn(flat(129)).await),
        fault(errors::TOO_MANY_OPS)
    );
    let nested = |number| {
        let mut outer = flat(63);
        outer.success.push(op(Request::RequestTxn(pb::TxnRequest {
            success: puts(number, "b"),
            ..Default::default()
        })));
        outer
    };
    world
        .kv()
        .txn(nested(64))
        .await
        .expect("as many as are left");
    assert_eq!(
        refusal(world.kv().txn(nested(65)).await),
        fault(errors::TOO_MANY_OPS)
    );
}

#[tokio::test]
async fn an_operation_without_content_is_refused() {
    let world = World::new().await;
    let request = pb::TxnRequest {
        success: vec![pb::RequestOp { request: None }],
        ..Default::default()
    };
    assert_eq!(
        refusal(world.kv().txn(request).await),
        fault(errors::KEY_NOT_FOUND)
    );
}
