//! Bounds on requests.

use nautilus_etcd::proto::etcdserverpb as pb;
use nautilus_etcd::{EtcdLimits, errors};
use nautilus_machine::{Kv as _, Leadership};
use tonic::{Code, Request};

use crate::world::{World, fault, get, put, refusal};

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_in_etcds_words() {
    let world = World::new().await;
    let fits = put("a", &"x".repeat(1_500_000));
    world.kv().put(fits).await.expect("a large put");
    let larger = put("a", &"x".repeat(1_600_000));
    assert_eq!(
        refusal(world.kv().put(larger).await),
        fault(errors::REQUEST_TOO_LARGE)
    );
    let largest = put("a", &"x".repeat(3_000_000));
    let status = world.kv().put(largest).await.expect_err("a refusal");
    assert!(matches!(
        status.code(),
        Code::OutOfRange | Code::ResourceExhausted
    ));
}

#[tokio::test]
async fn the_bounds_are_configurable() {
    let limits = EtcdLimits {
        max_request_bytes: 100,
        max_txn_ops: 1,
        ..EtcdLimits::default()
    };
    let world = World::with(limits).await;
    let larger = put("a", &"x".repeat(100));
    assert_eq!(
        refusal(world.kv().put(larger).await),
        fault(errors::REQUEST_TOO_LARGE)
    );
    let compares = pb::TxnRequest {
        compare: vec![pb::Compare::default(), pb::Compare::default()],
        ..Default::default()
    };
    assert_eq!(
        refusal(world.kv().txn(compares).await),
        fault(errors::TOO_MANY_OPS)
    );
}

#[tokio::test]
async fn who_requires_a_leader_is_told_that_there_is_none() {
    let world = World::new().await;
    let term = world.solo.leadership().term;
    world.solo.set_leadership(Leadership {
        term: term + 1,
        leader: None,
        is_self: false,
    });
    loop {
        let mut request = Request::new(get("a"));
        request
            .metadata_mut()
            .insert("hasleader", "true".parse().expect("a value"));
        match world.kv().range(request).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(status) => {
                assert_eq!(status.message(), errors::NO_LEADER.message);
                break;
            }
        }
    }
    let serializable = pb::RangeRequest {
        serializable: true,
        ..get("a")
    };
    world.kv().range(serializable).await.expect("a local read");
}

#[test]
fn no_two_faults_are_told_in_the_same_words() {
    let mut messages: Vec<_> = errors::ALL.iter().map(|fault| fault.message).collect();
    messages.sort_unstable();
    let number = messages.len();
    messages.dedup();
    assert_eq!(messages.len(), number);
}
