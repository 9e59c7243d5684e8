//! Tokens asked for and judged, by examples.

use nautilus_machinery::status::ApiError;
use serde_json::{Value, json};

use super::*;

const ISSUER: &str = "https://issuer";
const NOW: i64 = 1_800_000_000;

fn object(plural: &str, name: &str, uid: &str) -> Value {
    json!({
        "kind": plural,
        "metadata": { "namespace": "n1", "name": name, "uid": uid },
        "spec": { "serviceAccountName": "robot", "nodeName": "node" },
    })
}

fn world(plural: &str, _namespace: &str, name: &str) -> Result<Option<Value>, ApiError> {
    Ok(match (plural, name) {
        ("serviceaccounts", "robot") => Some(object(plural, name, "sa-uid")),
        ("pods", "web") => Some(object(plural, name, "pod-uid")),
        ("nodes", "node") => Some(object(plural, name, "node-uid")),
        _ => None,
    })
}

fn ask(spec: &Value) -> Result<Granted, ApiError> {
    let account = object("serviceaccounts", "robot", "sa-uid");
    let request = json!({ "metadata": {}, "spec": spec });
    let asked = TokenAsked {
        account: &account,
        request: &request,
        issuer: ISSUER,
        own_audiences: &[ISSUER.to_owned()],
        now: NOW,
        jti: "j",
    };
    grant(&asked, &world)
}

#[test]
fn a_pods_token_has_the_claims_of_the_reference() {
    let reference = json!({ "apiVersion": "v1", "kind": "Pod", "name": "web" });
    let granted =
        ask(&json!({ "boundObjectRef": reference, "expirationSeconds": 3607 })).expect("granted");
    let claims = serde_json::to_value(&granted.claims).expect("claims");
    assert_eq!(
        claims.to_string(),
        r#"{"aud":["https://issuer"],"exp":1831536000,"iat":1800000000,"iss":"https://issuer","jti":"j","kubernetes.io":{"namespace":"n1","node":{"name":"node","uid":"node-uid"},"pod":{"name":"web","uid":"pod-uid"},"serviceaccount":{"name":"robot","uid":"sa-uid"},"warnafter":1800003607},"nbf":1800000000,"sub":"system:serviceaccount:n1:robot"}"#
    );
    assert_eq!(granted.answer["spec"]["expirationSeconds"], 3607);
    assert_eq!(
        granted.answer["status"]["expirationTimestamp"],
        "2027-01-15T09:00:07Z"
    );
    let user = user(&granted.claims, NOW, &world, &|_| false).expect("it counts");
    assert_eq!(user.as_service_account(), Some(("n1", "robot")));
    assert_eq!(
        user.extra["authentication.kubernetes.io/node-name"],
        ["node"]
    );
    assert_eq!(
        user.extra["authentication.kubernetes.io/credential-id"],
        ["JTI=j"]
    );
}

#[test]
fn a_token_ends_with_its_time_and_with_what_it_is_bound_to() {
    let granted = ask(&json!({ "expirationSeconds": 600 })).expect("granted");
    let judge = |now, lookup: Lookup<'_>| {
        user(&granted.claims, now, lookup, &|_| false).map_err(|why| why.message().to_owned())
    };
    assert!(judge(NOW + 660, &world).is_ok());
    let late = judge(NOW + 661, &world).expect_err("late");
    assert_eq!(late, "service account token has expired");
    let early = judge(NOW - 61, &world).expect_err("early");
    assert_eq!(early, "service account token is not valid yet");
    let other = |plural: &str, _: &str, name: &str| Ok(Some(object(plural, name, "new")));
    let why = judge(NOW, &other).expect_err("another account");
    assert_eq!(
        why,
        "service account UID (new) does not match claim (sa-uid)"
    );
}

#[test]
fn what_may_not_be_asked_is_refused_as_the_reference_does() {
    let short = ask(&json!({ "expirationSeconds": 599 })).expect_err("short");
    assert_eq!(
        short.message(),
        "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid \
         value: 599: may not specify a duration less than 10 minutes"
    );
    let reference = json!({ "apiVersion": "v1", "kind": "Pod", "name": "gone" });
    let gone = ask(&json!({ "boundObjectRef": reference })).expect_err("gone");
    assert_eq!(gone.message(), "pods \"gone\" not found");
    let reference = json!({ "apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "x" });
    assert_eq!(
        ask(&json!({ "boundObjectRef": reference }))
            .expect_err("uid")
            .code(),
        409
    );
}

#[test]
fn a_secrets_token_counts_while_the_secret_holds_it() {
    let account = object("serviceaccounts", "robot", "sa-uid");
    let secret = json!({
        "metadata": { "namespace": "n1", "name": "s" }, "data": { "token": "VA==" },
    });
    let claims = legacy_claims(&account, &secret);
    let with_secret = |plural: &str, namespace: &str, name: &str| match plural {
        "secrets" => Ok(Some(secret.clone())),
        _ => world(plural, namespace, name),
    };
    assert!(user(&claims, NOW, &with_secret, &|held| held == "VA==").is_ok());
    assert!(user(&claims, NOW, &with_secret, &|_| false).is_err());
    assert!(user(&claims, NOW, &world, &|_| true).is_err());
    let own = [ISSUER.to_owned(), "https://old".to_owned()];
    assert_eq!(audiences(&claims, &own, &[]), Ok(own.to_vec()));
    assert_eq!(audiences(&claims, &own, &own[1..]), Ok(own[1..].to_vec()));
    assert!(audiences(&claims, &own, &["other".to_owned()]).is_err());
}
