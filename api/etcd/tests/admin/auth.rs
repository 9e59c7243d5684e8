//! Users, roles and tokens.

use std::sync::Arc;

use bytes::Bytes;
use nautilus_etcd::errors::{self, Fault};
use nautilus_etcd::proto::authpb::{Permission, UserAddOptions, permission::Type};
use nautilus_etcd::proto::etcdserverpb as pb;
use nautilus_etcd::proto::etcdserverpb::lease_client::LeaseClient;
use nautilus_etcd::proto::etcdserverpb::watch_client::WatchClient;
use nautilus_etcd::{JwtKeys, TokenKind};
use tokio::sync::Notify;
use tonic::Status;

use crate::world::{Face, Gated, World, range, with};

async fn add_user(face: &mut Face, token: &str, name: &str, password: &str) -> Result<(), Status> {
    let asked = pb::AuthUserAddRequest {
        name: name.to_owned(),
        password: password.to_owned(),
        ..pb::AuthUserAddRequest::default()
    };
    face.auth.user_add(with(token, asked)).await.map(|_| ())
}

async fn grant(face: &mut Face, token: &str, user: &str, role: &str) -> Result<(), Status> {
    let asked = pb::AuthUserGrantRoleRequest {
        user: user.to_owned(),
        role: role.to_owned(),
    };
    face.auth
        .user_grant_role(with(token, asked))
        .await
        .map(|_| ())
}

async fn permit(
    face: &mut Face,
    token: &str,
    role: &str,
    (right, key, end): (Type, &str, &str),
) -> Result<(), Status> {
    let asked = pb::AuthRoleGrantPermissionRequest {
        name: role.to_owned(),
        perm: Some(Permission {
            perm_type: right.into(),
            key: Bytes::copy_from_slice(key.as_bytes()),
            range_end: Bytes::copy_from_slice(end.as_bytes()),
        }),
    };
    face.auth
        .role_grant_permission(with(token, asked))
        .await
        .map(|_| ())
}

async fn add_role(face: &mut Face, token: &str, name: &str) -> Result<(), Status> {
    let asked = pb::AuthRoleAddRequest {
        name: name.to_owned(),
    };
    face.auth.role_add(with(token, asked)).await.map(|_| ())
}

/// Authentication with `root`, and `alice` in the role `r`; gives their tokens.
async fn enabled(face: &mut Face, rights: &[(Type, &str, &str)]) -> (String, String) {
    add_user(face, "", "root", "rootpass").await.expect("root");
    grant(face, "", "root", "root").await.expect("root's role");
    add_user(face, "", "alice", "pass").await.expect("alice");
    add_role(face, "", "r").await.expect("a role");
    for right in rights {
        permit(face, "", "r", *right).await.expect("a right");
    }
    grant(face, "", "alice", "r").await.expect("alice's role");
    face.auth
        .auth_enable(pb::AuthEnableRequest {})
        .await
        .expect("enabled");
    let root = face.token("root", "rootpass").await.expect("root's token");
    let alice = face.token("alice", "pass").await.expect("alice's token");
    (root, alice)
}

#[track_caller]
fn is<T: std::fmt::Debug>(result: Result<T, Status>, fault: Fault) {
    let status = result.expect_err("a refusal");
    assert_eq!(
        (status.code(), status.message()),
        (fault.code, fault.message)
    );
}

#[tokio::test]
async fn authentication_is_enabled_only_with_a_root_user_that_has_the_root_role() {
    let mut face = World::new().face().await;
    is(
        face.auth.auth_enable(pb::AuthEnableRequest {}).await,
        errors::ROOT_USER_NOT_EXIST,
    );
    add_user(&mut face, "", "root", "x").await.expect("added");
    is(
        face.auth.auth_enable(pb::AuthEnableRequest {}).await,
        errors::ROOT_ROLE_NOT_EXIST,
    );
    is(face.token("root", "x").await, errors::AUTH_NOT_ENABLED);
}

#[tokio::test]
async fn without_a_good_token_nothing_is_shown() {
    let world = World::new();
    let mut face = world.face().await;
    let (root, _) = enabled(&mut face, &[]).await;
    assert!(face.put(&root, "k").await.is_ok());
    is(face.get("", "k", "").await, errors::PERMISSION_DENIED);
    is(
        face.get("nonsense", "k", "").await,
        errors::INVALID_AUTH_TOKEN,
    );
    let mut forged = root.clone().into_bytes();
    forged[10] ^= 1;
    let forged = String::from_utf8(forged).expect("text");
    is(face.get(&forged, "k", "").await, errors::INVALID_AUTH_TOKEN);
    is(face.token("alice", "wrong").await, errors::AUTH_FAILED);
    is(face.token("nobody", "pass").await, errors::AUTH_FAILED);
}

#[tokio::test]
async fn a_user_has_exactly_the_rights_of_its_roles() {
    let mut face = World::new().face().await;
    let rights = [
        (Type::Readwrite, "a", "c"),
        (Type::Read, "c", "e"),
        (Type::Write, "w", ""),
    ];
    let (root, alice) = enabled(&mut face, &rights).await;
    assert!(face.put(&alice, "a1").await.is_ok() && face.put(&alice, "w").await.is_ok());
    is(face.put(&alice, "c").await, errors::PERMISSION_DENIED);
    assert_eq!(
        face.get(&alice, "a", "e").await.expect("across two ranges"),
        1
    );
    is(face.get(&alice, "a", "f").await, errors::PERMISSION_DENIED);
    is(face.get(&alice, "w", "").await, errors::PERMISSION_DENIED);
    is(
        face.get(&alice, "\0", "\0").await,
        errors::PERMISSION_DENIED,
    );
    assert!(face.get(&root, "\0", "\0").await.is_ok());
    let delete = |prev_kv| pb::DeleteRangeRequest {
        key: Bytes::from_static(b"w"),
        prev_kv,
        ..pb::DeleteRangeRequest::default()
    };
    is(
        face.kv.delete_range(with(&alice, delete(true))).await,
        errors::PERMISSION_DENIED,
    );
    assert!(
        face.kv
            .delete_range(with(&alice, delete(false)))
            .await
            .is_ok()
    );
    is(
        face.kv
            .compact(with(&alice, pb::CompactionRequest::default()))
            .await,
        errors::PERMISSION_DENIED,
    );
}

#[tokio::test]
async fn every_operation_of_a_nested_transaction_is_judged() {
    let mut face = World::new().face().await;
    let (_, alice) = enabled(&mut face, &[(Type::Readwrite, "a", "b")]).await;
    let read = |key: &str| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestRange(range(key, ""))),
    };
    let nested = |key: &str| pb::TxnRequest {
        failure: vec![pb::RequestOp {
            request: Some(pb::request_op::Request::RequestTxn(pb::TxnRequest {
                success: vec![read(key)],
                ..pb::TxnRequest::default()
            })),
        }],
        ..pb::TxnRequest::default()
    };
    assert!(face.kv.txn(with(&alice, nested("a"))).await.is_ok());
    is(
        face.kv.txn(with(&alice, nested("b"))).await,
        errors::PERMISSION_DENIED,
    );
    let compared = pb::TxnRequest {
        compare: vec![pb::Compare {
            key: Bytes::from_static(b"z"),
            ..pb::Compare::default()
        }],
        ..pb::TxnRequest::default()
    };
    is(
        face.kv.txn(with(&alice, compared)).await,
        errors::PERMISSION_DENIED,
    );
}

#[tokio::test]
async fn a_lease_with_somebody_elses_key_is_not_revoked() {
    let mut face = World::new().face().await;
    let (root, alice) = enabled(&mut face, &[(Type::Readwrite, "a", "b")]).await;
    let mut leases = LeaseClient::new(face.channel.clone());
    let granted = pb::LeaseGrantRequest { id: 7, ttl: 60 };
    leases
        .lease_grant(with(&alice, granted))
        .await
        .expect("granted");
    let put = pb::PutRequest {
        key: Bytes::from_static(b"z"),
        lease: 7,
        ..pb::PutRequest::default()
    };
    face.kv.put(with(&root, put)).await.expect("attached");
    let revoke = pb::LeaseRevokeRequest { id: 7 };
    is(
        leases.lease_revoke(with(&alice, revoke)).await,
        errors::PERMISSION_DENIED,
    );
    let own = pb::PutRequest {
        key: Bytes::from_static(b"a"),
        lease: 7,
        ..pb::PutRequest::default()
    };
    is(
        face.kv.put(with(&alice, own)).await,
        errors::PERMISSION_DENIED,
    );
    assert!(leases.lease_revoke(with(&root, revoke)).await.is_ok());
}

#[tokio::test]
async fn a_watch_of_a_range_that_may_not_be_read_is_cancelled() {
    let mut face = World::new().face().await;
    let (_, alice) = enabled(&mut face, &[(Type::Read, "a", "b")]).await;
    let mut watches = WatchClient::new(face.channel.clone());
    let create = |key: &'static str| pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(
            pb::WatchCreateRequest {
                key: Bytes::from_static(key.as_bytes()),
                ..pb::WatchCreateRequest::default()
            },
        )),
    };
    let asked = futures_util::StreamExt::chain(
        futures_util::stream::iter([create("a"), create("x")]),
        futures_util::stream::pending(),
    );
    let mut answers = watches
        .watch(with(&alice, asked))
        .await
        .expect("a stream")
        .into_inner();
    let first = answers.message().await.expect("one").expect("an answer");
    assert!(first.created && !first.canceled);
    let second = answers.message().await.expect("two").expect("an answer");
    assert!(second.canceled);
    assert!(
        second.cancel_reason.contains("permission denied"),
        "{}",
        second.cancel_reason
    );
}

#[tokio::test]
async fn a_token_is_good_on_every_member() {
    let world = World::new();
    let mut one = world.face().await;
    let (_, alice) = enabled(&mut one, &[(Type::Readwrite, "a", "b")]).await;
    drop(one);
    let mut other = world.face().await;
    assert!(other.put(&alice, "a").await.is_ok());
}

#[tokio::test]
async fn a_token_dies_with_its_password_its_user_and_with_authentication() {
    let mut face = World::new().face().await;
    let (root, alice) = enabled(&mut face, &[(Type::Readwrite, "a", "b")]).await;
    let change = pb::AuthUserChangePasswordRequest {
        name: "alice".to_owned(),
        password: "new".to_owned(),
        ..pb::AuthUserChangePasswordRequest::default()
    };
    face.auth
        .user_change_password(with(&root, change))
        .await
        .expect("changed");
    is(face.put(&alice, "a").await, errors::INVALID_AUTH_TOKEN);
    is(face.token("alice", "pass").await, errors::AUTH_FAILED);
    let alice = face.token("alice", "new").await.expect("a token");
    assert!(face.put(&alice, "a").await.is_ok());

    let delete = pb::AuthUserDeleteRequest {
        name: "alice".to_owned(),
    };
    face.auth
        .user_delete(with(&root, delete))
        .await
        .expect("deleted");
    add_user(&mut face, &root, "alice", "new")
        .await
        .expect("again");
    grant(&mut face, &root, "alice", "r")
        .await
        .expect("her role");
    is(face.put(&alice, "a").await, errors::INVALID_AUTH_TOKEN);

    let off = pb::AuthDisableRequest {};
    face.auth.auth_disable(with(&root, off)).await.expect("off");
    assert!(face.put("", "k").await.is_ok());
    face.auth
        .auth_enable(pb::AuthEnableRequest {})
        .await
        .expect("on");
    is(face.put(&root, "k").await, errors::INVALID_AUTH_TOKEN);
}

#[tokio::test]
async fn users_and_roles_refuse_as_etcd_does() {
    let mut face = World::new().face().await;
    let (root, alice) = enabled(&mut face, &[(Type::Read, "a", "b")]).await;
    is(
        add_user(&mut face, &root, "", "x").await,
        errors::USER_EMPTY,
    );
    is(
        add_user(&mut face, &root, "alice", "x").await,
        errors::USER_EXISTS,
    );
    is(
        add_user(&mut face, &alice, "eve", "x").await,
        errors::PERMISSION_DENIED,
    );
    is(add_role(&mut face, &root, "").await, errors::ROLE_EMPTY);
    is(add_role(&mut face, &root, "r").await, errors::ROLE_EXISTS);
    is(
        grant(&mut face, &root, "alice", "nope").await,
        errors::ROLE_NOT_FOUND,
    );
    is(
        grant(&mut face, &root, "nobody", "r").await,
        errors::USER_NOT_FOUND,
    );
    assert!(
        grant(&mut face, &root, "alice", "r").await.is_ok(),
        "twice is no error"
    );
    let revoke = |user: &str, role: &str| pb::AuthUserRevokeRoleRequest {
        name: user.to_owned(),
        role: role.to_owned(),
    };
    is(
        face.auth
            .user_revoke_role(with(&root, revoke("alice", "x")))
            .await,
        errors::ROLE_NOT_GRANTED,
    );
    is(
        face.auth
            .user_revoke_role(with(&root, revoke("root", "root")))
            .await,
        errors::INVALID_AUTH_MANAGEMENT,
    );
    is(
        permit(&mut face, &root, "r", (Type::Read, "b", "a")).await,
        errors::INVALID_AUTH_MANAGEMENT,
    );
    let none = pb::AuthRoleGrantPermissionRequest {
        name: "r".to_owned(),
        perm: None,
    };
    is(
        face.auth.role_grant_permission(with(&root, none)).await,
        errors::PERMISSION_NOT_GIVEN,
    );
    let not_granted = pb::AuthRoleRevokePermissionRequest {
        role: "r".to_owned(),
        key: Bytes::from_static(b"q"),
        ..pb::AuthRoleRevokePermissionRequest::default()
    };
    is(
        face.auth
            .role_revoke_permission(with(&root, not_granted))
            .await,
        errors::PERMISSION_NOT_GRANTED,
    );
}

#[tokio::test]
async fn a_user_sees_itself_and_its_roles_and_no_other() {
    let mut face = World::new().face().await;
    let (root, alice) = enabled(&mut face, &[(Type::Read, "a", "b")]).await;
    let user = |name: &str| pb::AuthUserGetRequest {
        name: name.to_owned(),
    };
    let seen = face
        .auth
        .user_get(with(&alice, user("alice")))
        .await
        .expect("itself");
    assert_eq!(seen.into_inner().roles, ["r"]);
    is(
        face.auth.user_get(with(&alice, user("root"))).await,
        errors::PERMISSION_DENIED,
    );
    let role = |role: &str| pb::AuthRoleGetRequest {
        role: role.to_owned(),
    };
    let seen = face
        .auth
        .role_get(with(&alice, role("r")))
        .await
        .expect("its role");
    assert_eq!(seen.into_inner().perm[0].key, "a");
    is(
        face.auth.role_get(with(&alice, role("root"))).await,
        errors::PERMISSION_DENIED,
    );
    is(
        face.auth
            .user_list(with(&alice, pb::AuthUserListRequest {}))
            .await,
        errors::PERMISSION_DENIED,
    );
    let listed = face
        .auth
        .user_list(with(&root, pb::AuthUserListRequest {}))
        .await;
    assert_eq!(
        listed.expect("a list").into_inner().users,
        ["alice", "root"]
    );
}

#[tokio::test]
async fn a_deleted_role_leaves_its_users_without_its_rights() {
    let mut face = World::new().face().await;
    let (root, alice) = enabled(&mut face, &[(Type::Readwrite, "a", "b")]).await;
    let delete = pb::AuthRoleDeleteRequest {
        role: "r".to_owned(),
    };
    face.auth
        .role_delete(with(&root, delete))
        .await
        .expect("deleted");
    is(face.put(&alice, "a").await, errors::PERMISSION_DENIED);
    add_role(&mut face, &root, "r")
        .await
        .expect("a new one of that name");
    permit(&mut face, &root, "r", (Type::Readwrite, "a", "b"))
        .await
        .expect("a right");
    is(face.put(&alice, "a").await, errors::PERMISSION_DENIED);
}

#[tokio::test]
async fn a_right_that_is_revoked_before_the_write_is_applied_does_not_win() {
    let world = World::new();
    let mut face = world.face().await;
    let (root, alice) = enabled(&mut face, &[(Type::Readwrite, "a", "b")]).await;
    let gated = Gated {
        inner: world.solo.clone(),
        waits: Arc::new(Notify::new()),
        gate: Arc::new(Notify::new()),
    };
    let (waits, gate) = (gated.waits.clone(), gated.gate.clone());
    let mut slow = world.face_with(Arc::new(gated), |_| {}).await;
    let write = tokio::spawn(async move { slow.put(&alice, "a").await });
    waits.notified().await;
    let revoke = pb::AuthUserRevokeRoleRequest {
        name: "alice".to_owned(),
        role: "r".to_owned(),
    };
    face.auth
        .user_revoke_role(with(&root, revoke))
        .await
        .expect("revoked");
    gate.notify_one();
    is(write.await.expect("an answer"), errors::AUTH_OLD_REVISION);
    assert_eq!(face.get(&root, "a", "").await.expect("a count"), 0);
}

#[tokio::test]
async fn a_user_that_is_added_while_authentication_is_off_disturbs_no_write() {
    let world = World::new();
    let mut face = world.face().await;
    add_user(&mut face, "", "root", "x").await.expect("root");
    let gated = Gated {
        inner: world.solo.clone(),
        waits: Arc::new(Notify::new()),
        gate: Arc::new(Notify::new()),
    };
    let (waits, gate) = (gated.waits.clone(), gated.gate.clone());
    let mut slow = world.face_with(Arc::new(gated), |_| {}).await;
    let write = tokio::spawn(async move { slow.put("", "a").await });
    waits.notified().await;
    add_user(&mut face, "", "other", "x")
        .await
        .expect("another");
    gate.notify_one();
    waits.notified().await;
    gate.notify_one();
    assert!(write.await.expect("an answer").is_ok());
    assert_eq!(face.get("", "a", "").await.expect("a count"), 1);
}

#[tokio::test]
async fn a_user_without_a_password_gets_no_token() {
    let mut face = World::new().face().await;
    let (root, _) = enabled(&mut face, &[]).await;
    let asked = pb::AuthUserAddRequest {
        name: "cert".to_owned(),
        options: Some(UserAddOptions { no_password: true }),
        ..pb::AuthUserAddRequest::default()
    };
    face.auth.user_add(with(&root, asked)).await.expect("added");
    is(face.token("cert", "").await, errors::NO_PASSWORD_USER);
}

#[tokio::test]
async fn the_rules_revision_counts_changes() {
    let mut face = World::new().face().await;
    let status = |answer: tonic::Response<pb::AuthStatusResponse>| {
        let answer = answer.into_inner();
        (answer.enabled, answer.auth_revision)
    };
    let before = face
        .auth
        .auth_status(pb::AuthStatusRequest {})
        .await
        .expect("a status");
    assert_eq!(status(before), (false, 1));
    let (root, _) = enabled(&mut face, &[]).await;
    let after = face
        .auth
        .auth_status(pb::AuthStatusRequest {})
        .await
        .expect("a status");
    assert_eq!(status(after), (true, 6), "two users, a role and two grants");
    add_role(&mut face, &root, "other").await.expect("a role");
    let after = face
        .auth
        .auth_status(pb::AuthStatusRequest {})
        .await
        .expect("a status");
    assert_eq!(status(after), (true, 7));
}

/// Key files of one method in a folder.
fn key_files(
    folder: &std::path::Path,
    algorithm: &'static rcgen::SignatureAlgorithm,
) -> (String, String) {
    let pair = rcgen::KeyPair::generate_for(algorithm).expect("a key");
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    (
        file("private.pem", &pair.serialize_pem()),
        file("public.pem", &pair.public_key_pem()),
    )
}

fn web_tokens(options: &str) -> TokenKind {
    let minutes = |_: &str| Some(std::time::Duration::from_secs(300));
    let keys = JwtKeys::read(options, std::time::Duration::from_secs(300), minutes);
    TokenKind::Jwt(keys.unwrap_or_else(|error| panic!("{options}: {error}")))
}

#[tokio::test]
async fn web_tokens_of_every_method_are_given_and_judged_with_the_public_key_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let methods: [(&str, &'static rcgen::SignatureAlgorithm); 4] = [
        ("ES256", &rcgen::PKCS_ECDSA_P256_SHA256),
        ("ES384", &rcgen::PKCS_ECDSA_P384_SHA384),
        ("EdDSA", &rcgen::PKCS_ED25519),
        ("RS256", &rcgen::PKCS_RSA_SHA256),
    ];
    for (method, algorithm) in methods {
        let (private, public) = key_files(folder.path(), algorithm);
        let world = World::new();
        let kv = || Arc::new(world.solo.clone());
        let giving = format!("sign-method={method},priv-key={private},pub-key={public},ttl=5m");
        let giving = web_tokens(&giving);
        let mut one = world
            .face_with(kv(), |parts| parts.auth.tokens = giving)
            .await;
        let (root, alice) = enabled(&mut one, &[(Type::Readwrite, "a", "b")]).await;
        let judging = web_tokens(&format!("sign-method={method},pub-key={public}"));
        let mut other = world
            .face_with(kv(), |parts| parts.auth.tokens = judging)
            .await;
        assert!(other.put(&alice, "a").await.is_ok(), "{method}");
        is(other.put(&alice, "b").await, errors::PERMISSION_DENIED);
        is(other.token("alice", "pass").await, errors::VERIFY_ONLY);
        add_role(&mut one, &root, "another")
            .await
            .expect("a change");
        is(other.put(&alice, "a").await, errors::AUTH_OLD_REVISION);
    }
}

#[tokio::test]
async fn a_web_token_of_another_key_or_method_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (private, _) = key_files(folder.path(), &rcgen::PKCS_ECDSA_P256_SHA256);
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef").expect("a file");
    let world = World::new();
    let kv = || Arc::new(world.solo.clone());
    let one = web_tokens(&format!("sign-method=ES256,priv-key={private}"));
    let mut one = world.face_with(kv(), |parts| parts.auth.tokens = one).await;
    let (_, alice) = enabled(&mut one, &[(Type::Readwrite, "a", "b")]).await;
    let other = web_tokens(&format!("sign-method=HS256,priv-key={}", secret.display()));
    let mut other = world
        .face_with(kv(), |parts| parts.auth.tokens = other)
        .await;
    is(other.put(&alice, "a").await, errors::INVALID_AUTH_TOKEN);
    let of_other = other.token("alice", "pass").await.expect("a token");
    assert!(other.put(&of_other, "a").await.is_ok());
    is(one.put(&of_other, "a").await, errors::INVALID_AUTH_TOKEN);
}

#[test]
fn kinds_of_tokens_that_etcd_does_not_know_are_named() {
    let life = std::time::Duration::from_secs(1);
    let refused = |text: &str| {
        TokenKind::read(text, life, |_| None)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    assert!(refused("paseto").contains("paseto"));
    assert!(refused("jwt").contains("sign-method"));
    assert!(refused("jwt,sign-method=ES256").contains("needs a key"));
    assert!(refused("jwt,sign-method=ES256,color=red").contains("color"));
    assert!(refused("jwt,sign-method=ES256,ttl=x").contains("ttl"));
    assert!(refused("jwt,sign-method=none").contains("none"));
    assert!(TokenKind::read("simple", life, |_| None).is_ok());
}
