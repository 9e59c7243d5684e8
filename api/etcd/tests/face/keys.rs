//! Range, Put, DeleteRange, Compact.

use nautilus_etcd::errors;
use nautilus_etcd::proto::etcdserverpb as pb;
use nautilus_etcd::proto::etcdserverpb::range_request::{SortOrder, SortTarget};

use crate::world::{CLUSTER_ID, MEMBER_ID, World, bytes, fault, get, put, refusal, span, text};

#[tokio::test]
async fn a_put_is_read_back_with_its_revisions_and_a_whole_header() {
    let world = World::new().await;
    assert_eq!(world.put("a", "1").await, 2);
    assert_eq!(world.put("a", "2").await, 3);
    let response = world.range(get("a")).await;
    let header = response.header.expect("a header");
    assert_eq!(
        (
            header.cluster_id,
            header.member_id,
            header.revision,
            header.raft_term
        ),
        (CLUSTER_ID, MEMBER_ID, 3, 1)
    );
    let kv = &response.kvs[0];
    assert_eq!((text(&kv.value).as_str(), kv.version), ("2", 2));
    assert_eq!((kv.create_revision, kv.mod_revision, kv.lease), (2, 3, 0));
    assert_eq!((response.count, response.more), (1, false));
}

#[tokio::test]
async fn a_put_gives_the_previous_version_when_asked() {
    let world = World::new().await;
    world.put("a", "1").await;
    let request = pb::PutRequest {
        prev_kv: true,
        ..put("a", "2")
    };
    let response = world.kv().put(request).await.expect("a put").into_inner();
    assert_eq!(text(&response.prev_kv.expect("a version").value), "1");
}

#[tokio::test]
async fn ignoring_the_value_keeps_it_and_needs_the_key() {
    let world = World::new().await;
    let keep = pb::PutRequest {
        ignore_value: true,
        ..put("a", "")
    };
    let refused = world.kv().put(keep.clone()).await;
    assert_eq!(refusal(refused), fault(errors::KEY_NOT_FOUND));
    let both = pb::PutRequest {
        ignore_value: true,
        ..put("a", "x")
    };
    assert_eq!(
        refusal(world.kv().put(both).await),
        fault(errors::VALUE_PROVIDED)
    );
    world.put("a", "1").await;
    world.kv().put(keep).await.expect("a put");
    let kv = world.range(get("a")).await.kvs.remove(0);
    assert_eq!((text(&kv.value).as_str(), kv.version), ("1", 2));
}

#[tokio::test]
async fn ignoring_the_lease_keeps_it() {
    let world = World::new().await;
    let lease = world.grant(60).await;
    let leased = pb::PutRequest {
        lease,
        ..put("a", "1")
    };
    world.kv().put(leased.clone()).await.expect("a put");
    let both = pb::PutRequest {
        ignore_lease: true,
        ..leased
    };
    assert_eq!(
        refusal(world.kv().put(both).await),
        fault(errors::LEASE_PROVIDED)
    );
    let keep = pb::PutRequest {
        ignore_lease: true,
        ..put("a", "2")
    };
    world.kv().put(keep).await.expect("a put");
    assert_eq!(world.range(get("a")).await.kvs[0].lease, lease);
    world.put("a", "3").await;
    assert_eq!(world.range(get("a")).await.kvs[0].lease, 0);
}

#[tokio::test]
async fn an_empty_key_is_refused_by_every_method() {
    let world = World::new().await;
    let empty = fault(errors::EMPTY_KEY);
    assert_eq!(refusal(world.kv().range(get("")).await), empty);
    assert_eq!(refusal(world.kv().put(put("", "1")).await), empty);
    let delete = pb::DeleteRangeRequest::default();
    assert_eq!(refusal(world.kv().delete_range(delete).await), empty);
}

#[tokio::test]
async fn the_limit_cuts_and_says_so() {
    let world = World::new().await;
    for key in ["a", "b", "c"] {
        world.put(key, key).await;
    }
    let limited = pb::RangeRequest {
        limit: 2,
        ..span("a", "z")
    };
    let response = world.range(limited.clone()).await;
    assert_eq!(
        (response.kvs.len(), response.more, response.count),
        (2, true, 3)
    );
    let whole = pb::RangeRequest {
        limit: 3,
        ..limited
    };
    assert!(!world.range(whole).await.more);
}

#[tokio::test]
async fn keys_or_the_count_alone_come_without_the_rest() {
    let world = World::new().await;
    world.put("a", "1").await;
    let keys = pb::RangeRequest {
        keys_only: true,
        ..span("a", "b")
    };
    let kv = world.range(keys).await.kvs.remove(0);
    assert_eq!(
        (text(&kv.key).as_str(), kv.value.len(), kv.mod_revision),
        ("a", 0, 2)
    );
    let count = pb::RangeRequest {
        count_only: true,
        ..span("a", "b")
    };
    let response = world.range(count).await;
    assert_eq!((response.kvs.len(), response.count), (0, 1));
}

#[tokio::test]
async fn every_order_of_every_target_is_followed() {
    let world = World::new().await;
    // Creation: c b a; modification: b a c; versions: b 1, a 2, c 3; values: a b c.
    world.put("c", "x").await;
    world.put("b", "2").await;
    world.put("a", "x").await;
    world.put("a", "1").await;
    world.put("c", "x").await;
    world.put("c", "3").await;
    let cases = [
        (SortTarget::Key, "abc"),
        (SortTarget::Version, "bac"),
        (SortTarget::Create, "cba"),
        (SortTarget::Mod, "bac"),
        (SortTarget::Value, "abc"),
    ];
    for (target, ascending) in cases {
        let descending: String = ascending.chars().rev().collect();
        for (order, expected) in [
            (SortOrder::Ascend, ascending.to_owned()),
            (SortOrder::Descend, descending),
        ] {
            let request = pb::RangeRequest {
                sort_target: target.into(),
                sort_order: order.into(),
                keys_only: true,
                ..span("a", "z")
            };
            let found = world.range(request.clone()).await;
            let keys: String = found.kvs.iter().map(|kv| text(&kv.key)).collect();
            assert_eq!(keys, expected, "{target:?} {order:?}");
            assert!(found.kvs.iter().all(|kv| kv.value.is_empty()));
            let first = pb::RangeRequest {
                limit: 1,
                ..request
            };
            let found = world.range(first).await;
            assert_eq!(
                text(&found.kvs[0].key),
                expected[..1],
                "{target:?} {order:?}"
            );
            assert!(found.more);
        }
    }
}

#[tokio::test]
async fn an_order_that_does_not_exist_is_refused() {
    let world = World::new().await;
    for (sort_order, sort_target) in [(9, 0), (0, 9)] {
        let request = pb::RangeRequest {
            sort_order,
            sort_target,
            ..get("a")
        };
        let refused = world.kv().range(request).await;
        assert_eq!(refusal(refused), fault(errors::INVALID_SORT_OPTION));
    }
}

#[tokio::test]
async fn bounds_on_revisions_leave_out_the_rest() {
    let world = World::new().await;
    for key in ["a", "b", "c", "a"] {
        world.put(key, "1").await;
    }
    let all = span("a", "z");
    let min_mod = pb::RangeRequest {
        min_mod_revision: 4,
        ..all.clone()
    };
    assert_eq!(world.keys(min_mod).await, ["a", "c"]);
    let max_mod = pb::RangeRequest {
        max_mod_revision: 3,
        ..all.clone()
    };
    assert_eq!(world.keys(max_mod).await, ["b"]);
    let min_create = pb::RangeRequest {
        min_create_revision: 3,
        limit: 1,
        ..all.clone()
    };
    let response = world.range(min_create).await;
    assert_eq!(text(&response.kvs[0].key), "b");
    assert!(response.more);
    let max_create = pb::RangeRequest {
        max_create_revision: 2,
        ..all
    };
    assert_eq!(world.keys(max_create).await, ["a"]);
}

#[tokio::test]
async fn the_past_is_read_until_it_is_compacted() {
    let world = World::new().await;
    world.put("a", "1").await;
    world.put("a", "2").await;
    world.put("a", "3").await;
    let at = |revision| pb::RangeRequest {
        revision,
        ..get("a")
    };
    assert_eq!(text(&world.range(at(2)).await.kvs[0].value), "1");
    assert_eq!(
        refusal(world.kv().range(at(9)).await),
        fault(errors::FUTURE_REVISION)
    );
    let compact = |revision| pb::CompactionRequest {
        revision,
        physical: true,
    };
    world.kv().compact(compact(3)).await.expect("a compaction");
    assert_eq!(
        refusal(world.kv().range(at(2)).await),
        fault(errors::COMPACTED)
    );
    assert_eq!(text(&world.range(at(3)).await.kvs[0].value), "2");
    assert_eq!(
        refusal(world.kv().compact(compact(3)).await),
        fault(errors::COMPACTED)
    );
    assert_eq!(
        refusal(world.kv().compact(compact(9)).await),
        fault(errors::FUTURE_REVISION)
    );
}

#[tokio::test]
async fn a_deletion_tells_how_many_and_which() {
    let world = World::new().await;
    for key in ["a", "b", "c"] {
        world.put(key, key).await;
    }
    let request = pb::DeleteRangeRequest {
        key: bytes("a"),
        range_end: bytes("c"),
        prev_kv: true,
    };
    let response = world.kv().delete_range(request).await.expect("a deletion");
    let response = response.into_inner();
    assert_eq!((response.deleted, response.prev_kvs.len()), (2, 2));
    assert_eq!(text(&response.prev_kvs[1].value), "b");
    let everything = span("\0", "\0");
    assert_eq!(world.keys(everything).await, ["c"]);
}

#[tokio::test]
async fn an_inverted_range_is_empty() {
    let world = World::new().await;
    world.put("b", "1").await;
    let response = world.range(span("c", "a")).await;
    assert_eq!((response.kvs.len(), response.count), (0, 0));
}

#[tokio::test]
async fn the_quorums_own_keys_are_neither_shown_nor_written() {
    use nautilus_machine::{Command, Operation, Proposal, Put, Txn};
    let world = World::new().await;
    let own = Txn {
        then: vec![Operation::Put(Put::new("/nautilus/secret", "s"))],
        ..Txn::default()
    };
    let proposal = Proposal::new(Command::Txn(own));
    world.solo.apply(proposal).expect("a row of the quorum");
    world.put("/a", "1").await;
    world.put("/z", "1").await;
    assert_eq!(world.keys(span("/", "0")).await, ["/a", "/z"]);
    assert_eq!(
        world.keys(span("/nautilus/s", "/nautilus/t")).await,
        [""; 0]
    );
    assert_eq!(world.keys(span("/nautilus/", "\0")).await, ["/z"]);
    let denied = fault(errors::PERMISSION_DENIED);
    assert_eq!(
        refusal(world.kv().range(get("/nautilus/secret")).await),
        denied
    );
    assert_eq!(
        refusal(world.kv().put(put("/nautilus/secret", "x")).await),
        denied
    );
}

#[tokio::test]
async fn a_streamed_range_is_the_range_in_pieces() {
    let world = World::new().await;
    for number in 0..2_500 {
        world.put(&format!("k{number:05}"), "v").await;
    }
    let whole = world.range(span("k", "l")).await;
    let mut stream = world
        .kv()
        .range_stream(span("k", "l"))
        .await
        .expect("a stream")
        .into_inner();
    let mut pieces = Vec::new();
    while let Some(piece) = stream.message().await.expect("a piece") {
        pieces.push(piece.range_response.expect("a response"));
    }
    assert!(pieces.len() > 1);
    let last = pieces.last().expect("a piece");
    assert_eq!((last.count, last.more), (2_500, false));
    assert_eq!(last.header, whole.header);
    let kvs: Vec<_> = pieces.into_iter().flat_map(|piece| piece.kvs).collect();
    assert_eq!(kvs, whole.kvs);
}
