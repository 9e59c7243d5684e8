//! Lease.

use nautilus_etcd::errors;
use nautilus_etcd::proto::etcdserverpb as pb;
use std::sync::atomic::Ordering;

use crate::world::{World, bytes, fault, get, put, refusal};

fn grant(id: i64, ttl: i64) -> pb::LeaseGrantRequest {
    pb::LeaseGrantRequest { ttl, id }
}

async fn time_to_live(world: &World, id: i64) -> pb::LeaseTimeToLiveResponse {
    let request = pb::LeaseTimeToLiveRequest { id, keys: true };
    let response = world.leases().lease_time_to_live(request).await;
    response.expect("an answer").into_inner()
}

#[tokio::test]
async fn a_lease_has_the_id_it_was_asked_for_once() {
    let world = World::new().await;
    let granted = world
        .leases()
        .lease_grant(grant(7, 30))
        .await
        .expect("a lease");
    let granted = granted.into_inner();
    assert_eq!((granted.id, granted.ttl), (7, 30));
    let again = world.leases().lease_grant(grant(7, 30)).await;
    assert_eq!(refusal(again), fault(errors::LEASE_EXISTS));
    let chosen = world.grant(30).await;
    assert!(chosen > 0 && chosen != 7);
}

#[tokio::test]
async fn times_to_live_are_kept_within_bounds() {
    let world = World::new().await;
    let short = world
        .leases()
        .lease_grant(grant(1, 0))
        .await
        .expect("a lease");
    assert_eq!(short.into_inner().ttl, 2);
    let long = world.leases().lease_grant(grant(2, 9_000_000_001)).await;
    assert_eq!(refusal(long), fault(errors::LEASE_TTL_TOO_LARGE));
}

#[tokio::test]
async fn revoking_deletes_the_keys_of_the_lease() {
    let world = World::new().await;
    let lease = world.grant(60).await;
    let leased = pb::PutRequest {
        lease,
        ..put("a", "1")
    };
    world.kv().put(leased).await.expect("a put");
    assert_eq!(time_to_live(&world, lease).await.keys, [bytes("a")]);
    let revoke = pb::LeaseRevokeRequest { id: lease };
    world.leases().lease_revoke(revoke).await.expect("an end");
    assert!(world.range(get("a")).await.kvs.is_empty());
    let again = world.leases().lease_revoke(revoke).await;
    assert_eq!(refusal(again), fault(errors::LEASE_NOT_FOUND));
}

#[tokio::test]
async fn a_put_with_an_unknown_lease_is_refused() {
    let world = World::new().await;
    let leased = pb::PutRequest {
        lease: 99,
        ..put("a", "1")
    };
    let refused = world.kv().put(leased).await;
    assert_eq!(refusal(refused), fault(errors::LEASE_NOT_FOUND));
}

#[tokio::test]
async fn time_left_shrinks_and_a_keep_alive_gives_it_back() {
    let world = World::new().await;
    let lease = world.grant(60).await;
    world.clock.fetch_add(20_000, Ordering::Relaxed);
    world.put("tick", "1").await;
    let left = time_to_live(&world, lease).await;
    assert_eq!((left.ttl, left.granted_ttl), (40, 60));
    let requests = [lease, 12_345].map(|id| pb::LeaseKeepAliveRequest { id });
    let stream = tokio_stream::iter(requests);
    let answers = world.leases().lease_keep_alive(stream).await;
    let mut answers = answers.expect("a stream").into_inner();
    let kept = answers.message().await.expect("an answer").expect("one");
    assert_eq!((kept.id, kept.ttl), (lease, 60));
    let unknown = answers.message().await.expect("an answer").expect("one");
    assert_eq!((unknown.id, unknown.ttl), (12_345, 0));
    assert!(answers.message().await.expect("the end").is_none());
    assert_eq!(time_to_live(&world, lease).await.ttl, 60);
}

#[tokio::test]
async fn a_lease_that_is_not_there_has_minus_one_second() {
    let world = World::new().await;
    let answer = time_to_live(&world, 5).await;
    assert_eq!((answer.id, answer.ttl, answer.granted_ttl), (5, -1, 0));
}

#[tokio::test]
async fn all_leases_are_listed() {
    let world = World::new().await;
    for id in [3, 9] {
        world
            .leases()
            .lease_grant(grant(id, 30))
            .await
            .expect("a lease");
    }
    let listed = world.leases().lease_leases(pb::LeaseLeasesRequest {}).await;
    let ids: Vec<i64> = listed
        .expect("a list")
        .into_inner()
        .leases
        .iter()
        .map(|lease| lease.id)
        .collect();
    assert_eq!(ids, [3, 9]);
}
