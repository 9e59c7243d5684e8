//! Lock and Election.

use bytes::Bytes;
use nautilus_etcd::proto::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use nautilus_etcd::proto::v3lockpb::{LockRequest, UnlockRequest};
use tonic::Code;

use crate::world::{World, bytes, get, span, text};

fn lock(lease: i64) -> LockRequest {
    LockRequest {
        name: bytes("l"),
        lease,
    }
}

async fn waiters(world: &World, prefix: &str, number: usize) {
    loop {
        let end = format!("{prefix}0");
        if world
            .range(span(&format!("{prefix}/"), &end))
            .await
            .kvs
            .len()
            == number
        {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_lock_passes_to_the_next_waiter_when_it_is_let_go() {
    let world = World::new().await;
    let (first, second) = (world.grant(60).await, world.grant(60).await);
    let held = world.locks().lock(lock(first)).await.expect("the lock");
    let held = held.into_inner();
    assert_eq!(text(&held.key), format!("l/{first:x}"));
    let again = world
        .locks()
        .lock(lock(first))
        .await
        .expect("the same lock");
    assert_eq!(again.into_inner().key, held.key);
    let mut locks = world.locks();
    let waiting = tokio::spawn(async move { locks.lock(lock(second)).await });
    waiters(&world, "l", 2).await;
    assert!(!waiting.is_finished());
    let unlock = UnlockRequest { key: held.key };
    world.locks().unlock(unlock).await.expect("let go");
    let passed = waiting.await.expect("a task").expect("the lock");
    assert_eq!(text(&passed.into_inner().key), format!("l/{second:x}"));
}

#[tokio::test]
async fn a_waiter_that_goes_away_leaves_the_queue() {
    let world = World::new().await;
    let (first, second) = (world.grant(60).await, world.grant(60).await);
    world.locks().lock(lock(first)).await.expect("the lock");
    let mut locks = world.locks();
    let waiting = tokio::spawn(async move { locks.lock(lock(second)).await });
    waiters(&world, "l", 2).await;
    waiting.abort();
    waiters(&world, "l", 1).await;
    let key = format!("l/{first:x}");
    assert_eq!(world.range(get(&key)).await.kvs.len(), 1);
}

#[tokio::test]
async fn a_lock_without_a_lease_gets_one() {
    let world = World::new().await;
    let held = world.locks().lock(lock(0)).await.expect("the lock");
    let key = text(&held.into_inner().key);
    let kv = world.range(get(&key)).await.kvs.remove(0);
    assert_eq!(key, format!("l/{:x}", kv.lease));
    assert!(kv.lease > 0);
}

fn campaign(lease: i64, value: &str) -> CampaignRequest {
    CampaignRequest {
        name: bytes("e"),
        lease,
        value: bytes(value),
    }
}

async fn leader_value(world: &World) -> Result<String, tonic::Status> {
    let request = LeaderRequest { name: bytes("e") };
    let response = world.elections().leader(request).await?.into_inner();
    Ok(text(&response.kv.expect("a leader").value))
}

#[tokio::test]
async fn an_election_passes_on_when_the_leader_resigns() {
    let world = World::new().await;
    let status = leader_value(&world).await.expect_err("nobody leads");
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unknown, "election: no leader")
    );
    let (first, second) = (world.grant(60).await, world.grant(60).await);
    let won = world.elections().campaign(campaign(first, "one")).await;
    let leader = won.expect("a victory").into_inner().leader.expect("a key");
    assert_eq!(text(&leader.key), format!("e/{first:x}"));
    let mut elections = world.elections();
    let waiting = tokio::spawn(async move { elections.campaign(campaign(second, "two")).await });
    waiters(&world, "e", 2).await;
    assert_eq!(leader_value(&world).await.expect("a leader"), "one");
    let proclaim = ProclaimRequest {
        leader: Some(leader.clone()),
        value: bytes("uno"),
    };
    world
        .elections()
        .proclaim(proclaim.clone())
        .await
        .expect("said");
    assert_eq!(leader_value(&world).await.expect("a leader"), "uno");
    let resign = ResignRequest {
        leader: Some(leader),
    };
    world.elections().resign(resign).await.expect("resigned");
    waiting.await.expect("a task").expect("a victory");
    assert_eq!(leader_value(&world).await.expect("a leader"), "two");
    let late = world
        .elections()
        .proclaim(proclaim)
        .await
        .expect_err("late");
    assert_eq!(
        (late.code(), late.message()),
        (Code::Unknown, "election: not leader")
    );
}

#[tokio::test]
async fn an_observer_hears_every_leader_and_what_it_proclaims() {
    let world = World::new().await;
    let request = LeaderRequest { name: bytes("e") };
    let observed = world.elections().observe(request).await.expect("a stream");
    let mut observed = observed.into_inner();
    let lease = world.grant(60).await;
    let won = world.elections().campaign(campaign(lease, "one")).await;
    let leader = won.expect("a victory").into_inner().leader;
    let mut heard = async || {
        let response = observed.message().await.expect("a message").expect("one");
        text(&response.kv.expect("a leader").value)
    };
    assert_eq!(heard().await, "one");
    let proclaim = ProclaimRequest {
        leader: leader.clone(),
        value: bytes("uno"),
    };
    world.elections().proclaim(proclaim).await.expect("said");
    assert_eq!(heard().await, "uno");
    world
        .elections()
        .resign(ResignRequest { leader })
        .await
        .expect("resigned");
    let next = world.grant(60).await;
    world
        .elections()
        .campaign(campaign(next, "two"))
        .await
        .expect("a victory");
    assert_eq!(heard().await, "two");
}

#[tokio::test]
async fn a_proclamation_without_a_leader_key_is_refused() {
    let world = World::new().await;
    let status = world.elections().proclaim(ProclaimRequest::default()).await;
    let status = status.expect_err("no key");
    assert_eq!(status.code(), Code::InvalidArgument);
    let unknown = ResignRequest {
        leader: Some(LeaderKey {
            key: Bytes::from_static(b"e/1"),
            rev: 4,
            ..LeaderKey::default()
        }),
    };
    world
        .elections()
        .resign(unknown)
        .await
        .expect("nothing to do");
}
