//! Members.

use nautilus_etcd::errors::{self, Fault};
use nautilus_etcd::proto::etcdserverpb as pb;
use nautilus_machine::MemberRole;
use tonic::Status;

use crate::world::{Face, World};

#[track_caller]
fn is<T: std::fmt::Debug>(result: Result<T, Status>, fault: Fault) {
    let status = result.expect_err("a refusal");
    assert_eq!(
        (status.code(), status.message()),
        (fault.code, fault.message)
    );
}

async fn add(face: &mut Face, url: &str, is_learner: bool) -> Result<pb::Member, Status> {
    let asked = pb::MemberAddRequest {
        peer_ur_ls: vec![url.to_owned()],
        is_learner,
    };
    let answer = face.cluster.member_add(asked).await?.into_inner();
    Ok(answer.member.expect("the member"))
}

#[tokio::test]
async fn a_learner_is_added_under_the_next_free_id_and_promoted_once_it_has_joined() {
    let world = World::new();
    let mut face = world.face().await;
    let added = add(&mut face, "https://10.0.0.2:2380", true)
        .await
        .expect("added");
    assert_eq!(
        (added.id, added.is_learner, added.name.as_str()),
        (2, true, "")
    );
    let promote = pb::MemberPromoteRequest { id: 2 };
    is(
        face.cluster.member_promote(promote).await,
        errors::LEARNER_NOT_READY,
    );
    world.members.join(2);
    let members = face
        .cluster
        .member_promote(promote)
        .await
        .expect("promoted");
    let second = &members.into_inner().members[1];
    assert_eq!(
        (second.is_learner, second.name.as_str()),
        (false, "nautilus-2")
    );
    is(
        face.cluster.member_promote(promote).await,
        errors::MEMBER_NOT_LEARNER,
    );
    let nobody = pb::MemberPromoteRequest { id: 9 };
    is(
        face.cluster.member_promote(nobody).await,
        errors::MEMBER_NOT_FOUND,
    );
}

#[tokio::test]
async fn a_member_that_is_added_as_a_voter_becomes_one_when_it_has_joined() {
    let world = World::new();
    let mut face = world.face().await;
    let added = add(&mut face, "https://10.0.0.2:2380", false)
        .await
        .expect("added");
    assert!(added.is_learner, "it votes only when it is there");
    world.members.join(2);
    while world.members.role(2) != Some(MemberRole::Voter) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn peers_urls_are_checked_and_never_given_twice() {
    let mut face = World::new().face().await;
    is(
        add(&mut face, "10.0.0.2", true).await,
        errors::MEMBER_BAD_URLS,
    );
    add(&mut face, "https://10.0.0.2:2380", true)
        .await
        .expect("added");
    is(
        add(&mut face, "https://10.0.0.2:2380", true).await,
        errors::PEER_URL_EXISTS,
    );
    let update = |id, url: &str| pb::MemberUpdateRequest {
        id,
        peer_ur_ls: vec![url.to_owned()],
    };
    let moved = face
        .cluster
        .member_update(update(2, "https://10.0.0.3:2380"))
        .await;
    let moved = moved.expect("updated").into_inner().members;
    assert_eq!(moved[1].peer_ur_ls, ["https://10.0.0.3:2380"]);
    is(
        face.cluster
            .member_update(update(9, "https://10.0.0.4:2380"))
            .await,
        errors::MEMBER_NOT_FOUND,
    );
    is(
        face.cluster
            .member_update(update(1, "https://10.0.0.3:2380"))
            .await,
        errors::PEER_URL_EXISTS,
    );
}

#[tokio::test]
async fn the_last_voter_is_not_removed() {
    let mut face = World::new().face().await;
    let remove = |id| pb::MemberRemoveRequest { id };
    is(
        face.cluster.member_remove(remove(1)).await,
        errors::MEMBER_NOT_ENOUGH_STARTED,
    );
    is(
        face.cluster.member_remove(remove(5)).await,
        errors::MEMBER_NOT_FOUND,
    );
    add(&mut face, "https://10.0.0.2:2380", true)
        .await
        .expect("added");
    let left = face
        .cluster
        .member_remove(remove(2))
        .await
        .expect("removed");
    assert_eq!(left.into_inner().members.len(), 1);
    let listed = face
        .cluster
        .member_list(pb::MemberListRequest { linearizable: true })
        .await;
    let listed = listed.expect("a list").into_inner();
    assert_eq!(listed.members[0].client_ur_ls, ["https://127.0.0.1:2379"]);
}
