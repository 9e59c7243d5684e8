//! Status, alarms, hashes, snapshots, leadership.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nautilus_etcd::errors::{self, Fault};
use nautilus_etcd::proto::etcdserverpb as pb;
use nautilus_etcd::proto::etcdserverpb::alarm_request::AlarmAction;
use nautilus_etcd::proto::etcdserverpb::downgrade_request::DowngradeAction;
use nautilus_etcd::{AutoCompaction, ETCD_VERSION};
use nautilus_machine::{Kv as _, Leadership};
use tonic::Status;

use crate::world::{Face, HASH, SNAPSHOT, World};

#[track_caller]
fn is<T: std::fmt::Debug>(result: Result<T, Status>, fault: Fault) {
    let status = result.expect_err("a refusal");
    assert_eq!(
        (status.code(), status.message()),
        (fault.code, fault.message)
    );
}

async fn alarm(face: &mut Face, action: AlarmAction, kind: pb::AlarmType) -> Vec<pb::AlarmMember> {
    let asked = pb::AlarmRequest {
        action: action.into(),
        member_id: if action == AlarmAction::Get { 0 } else { 1 },
        alarm: kind.into(),
    };
    face.maintenance
        .alarm(asked)
        .await
        .expect("an answer")
        .into_inner()
        .alarms
}

#[tokio::test]
async fn no_space_refuses_growth_until_it_is_disarmed() {
    let world = World::new();
    let mut face = world.face().await;
    let raised = alarm(&mut face, AlarmAction::Activate, pb::AlarmType::Nospace).await;
    assert_eq!(
        alarm(&mut face, AlarmAction::Get, pb::AlarmType::None).await,
        raised
    );
    is(face.put("", "k").await, errors::NO_SPACE);
    assert!(face.get("", "k", "").await.is_ok());
    let delete = pb::DeleteRangeRequest {
        key: "k".into(),
        ..pb::DeleteRangeRequest::default()
    };
    assert!(
        face.kv.delete_range(delete).await.is_ok(),
        "deleting frees space"
    );
    let status = face
        .maintenance
        .status(pb::StatusRequest {})
        .await
        .expect("a status");
    assert_eq!(status.into_inner().errors, ["memberID:1 alarm:NOSPACE "]);
    assert_eq!(
        alarm(&mut face, AlarmAction::Deactivate, pb::AlarmType::Nospace).await,
        raised
    );
    assert!(face.put("", "k").await.is_ok());
    assert!(
        alarm(&mut face, AlarmAction::Get, pb::AlarmType::None)
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn an_alarm_is_in_force_on_every_member() {
    let world = World::new();
    let mut one = world.face().await;
    let mut other = world.face().await;
    assert!(other.put("", "k").await.is_ok());
    alarm(&mut one, AlarmAction::Activate, pb::AlarmType::Corrupt).await;
    while other.get("", "k", "").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    is(other.get("", "k", "").await, errors::CORRUPT);
    alarm(&mut other, AlarmAction::Deactivate, pb::AlarmType::Corrupt).await;
    assert!(other.get("", "k", "").await.is_ok());
}

#[tokio::test]
async fn a_store_beyond_its_quota_raises_no_space_by_itself() {
    let world = World::new();
    let kv = Arc::new(world.solo.clone());
    let mut face = world
        .face_with(kv, |parts| parts.limits.quota_bytes = Some(1000))
        .await;
    world.upkeep.total_bytes.store(1000, Ordering::Relaxed);
    assert!(face.put("", "k").await.is_ok());
    world.upkeep.total_bytes.store(1001, Ordering::Relaxed);
    while face.put("", "k").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    is(face.put("", "k").await, errors::NO_SPACE);
}

#[tokio::test]
async fn the_status_says_what_clients_read() {
    let world = World::new();
    world.upkeep.total_bytes.store(4096, Ordering::Relaxed);
    let mut face = world.face().await;
    face.put("", "k").await.expect("written");
    let status = face
        .maintenance
        .status(pb::StatusRequest {})
        .await
        .expect("a status");
    let status = status.into_inner();
    assert_eq!(status.version, ETCD_VERSION);
    assert_eq!((status.db_size, status.db_size_in_use), (4096, 1));
    assert_eq!(
        (status.leader, status.raft_term, status.is_learner),
        (1, 1, false)
    );
    assert_eq!(status.db_size_quota, 2 * 1024 * 1024 * 1024);
    assert_eq!(status.storage_version, "3.6.0");
    assert!(status.errors.is_empty() && status.header.is_some_and(|header| header.revision == 2));
}

#[tokio::test]
async fn a_snapshot_ends_with_the_checksum_that_etcdctl_looks_for() {
    let mut face = World::new().face().await;
    let stream = face
        .maintenance
        .snapshot(pb::SnapshotRequest {})
        .await
        .expect("a stream");
    let mut stream = stream.into_inner();
    let mut all = Vec::new();
    while let Some(piece) = stream.message().await.expect("a piece") {
        all.extend_from_slice(&piece.blob);
    }
    assert_eq!(all.len(), 512 + 32);
    assert!(all.starts_with(SNAPSHOT));
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &all[..512]);
    assert_eq!(&all[512..], sum.as_ref());
}

#[tokio::test]
async fn hashes_and_defragmentation_reach_the_store() {
    let world = World::new();
    let mut face = world.face().await;
    let hash = face
        .maintenance
        .hash(pb::HashRequest {})
        .await
        .expect("a hash")
        .into_inner();
    assert_eq!(hash.hash, HASH);
    let asked = pb::HashKvRequest { revision: 4 };
    let hash = face
        .maintenance
        .hash_kv(asked)
        .await
        .expect("a hash")
        .into_inner();
    assert_eq!(
        (hash.hash, hash.hash_revision, hash.compact_revision),
        (HASH, 4, 2)
    );
    face.maintenance
        .defragment(pb::DefragmentRequest {})
        .await
        .expect("done");
    assert_eq!(world.upkeep.defragmented.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn leadership_goes_only_from_the_leader_and_to_a_voter() {
    let world = World::new();
    let mut face = world.face().await;
    let to = |target_id| pb::MoveLeaderRequest { target_id };
    is(
        face.maintenance.move_leader(to(7)).await,
        errors::BAD_LEADER_TRANSFEREE,
    );
    assert!(face.maintenance.move_leader(to(1)).await.is_ok());
    world.solo.set_leadership(Leadership {
        term: 2,
        ..Leadership::default()
    });
    is(
        face.maintenance.move_leader(to(1)).await,
        errors::NOT_LEADER,
    );
}

#[tokio::test]
async fn there_is_no_older_version_to_go_back_to() {
    let mut face = World::new().face().await;
    let asked = |action: DowngradeAction, version: &str| pb::DowngradeRequest {
        action: action.into(),
        version: version.to_owned(),
    };
    is(
        face.maintenance
            .downgrade(asked(DowngradeAction::Validate, "3.5.0"))
            .await,
        errors::INVALID_DOWNGRADE_TARGET,
    );
    is(
        face.maintenance
            .downgrade(asked(DowngradeAction::Enable, "x"))
            .await,
        errors::WRONG_DOWNGRADE_VERSION,
    );
    let cancelled = face
        .maintenance
        .downgrade(asked(DowngradeAction::Cancel, ""))
        .await;
    assert_eq!(cancelled.expect("an answer").into_inner().version, "3.6");
}

#[tokio::test]
async fn old_revisions_are_forgotten_as_configured() {
    let world = World::new();
    let kv = Arc::new(world.solo.clone());
    let age = Duration::from_millis(200);
    let mut face = world
        .face_with(kv, |parts| {
            parts.auto_compaction = AutoCompaction::Periodic(age);
        })
        .await;
    for _ in 0..5 {
        face.put("", "k").await.expect("written");
    }
    while world.solo.compacted_revision() < 6 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(face.get("", "k", "").await.expect("the newest"), 1);
}
