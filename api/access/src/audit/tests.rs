//! Which rule holds, and what an event shows.

use nautilus_machinery::identity::User;
use nautilus_machinery::timestamp::parse;
use serde_json::{Value, json};

use super::*;
use crate::attributes::Attributes;

fn policy(rules: &Value) -> Result<Policy, String> {
    Policy::read(json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
        "omitStages": ["RequestReceived"], "rules": rules,
    }))
}

fn secrets(verb: &str) -> Attributes {
    Attributes {
        verb: verb.into(),
        is_resource: true,
        version: "v1".into(),
        resource: "secrets".into(),
        namespace: "a".into(),
        name: "s".into(),
        ..Attributes::default()
    }
}

#[test]
fn the_first_rule_that_matches_holds() {
    let policy = policy(&json!([
        { "level": "None", "users": ["system:kube-proxy"], "verbs": ["watch"] },
        { "level": "None", "nonResourceURLs": ["/healthz*", "/version"] },
        { "level": "Metadata", "resources": [{ "group": "", "resources": ["secrets"] }] },
        { "level": "Request", "resources": [{ "group": "*", "resources": ["*/scale"] }],
          "omitManagedFields": true },
        { "level": "RequestResponse", "userGroups": ["system:masters"],
          "omitStages": ["ResponseStarted"] },
    ]))
    .expect("a policy");
    let jane = User::authenticated("jane", vec![]);
    let level = |user: &User, asked: &Attributes| policy.judge(user, asked).level;
    assert_eq!(level(&jane, &secrets("get")), Level::Metadata);
    let mut scale = secrets("update");
    scale.subresource = "scale".into();
    assert_eq!(level(&jane, &scale), Level::Request);
    assert!(policy.judge(&jane, &scale).omit_managed_fields);
    let mut proxy = jane.clone();
    proxy.name = "system:kube-proxy".into();
    assert_eq!(level(&proxy, &secrets("watch")), Level::None);
    let path = |path: &str| Attributes {
        verb: "get".into(),
        path: path.into(),
        ..Attributes::default()
    };
    assert_eq!(level(&jane, &path("/healthz/ping")), Level::None);
    let admin = User::authenticated("admin", vec!["system:masters".into()]);
    assert_eq!(level(&admin, &path("/healthz/ping")), Level::None);
    assert_eq!(level(&admin, &path("/metrics")), Level::RequestResponse);
    assert_eq!(level(&jane, &path("/metrics")), Level::None);
    let stages = policy.judge(&admin, &path("/metrics")).omit_stages;
    assert_eq!(stages, [Stage::RequestReceived, Stage::ResponseStarted]);
}

#[test]
fn a_bad_policy_is_refused() {
    for (rules, why) in [
        (json!([]), "records nothing"),
        (json!([{ "level": "All" }]), "unknown variant"),
        (
            json!([{ "level": "None", "nonResourceURLs": ["x"] }]),
            "must begin with a '/'",
        ),
        (
            json!([{ "level": "None", "nonResourceURLs": ["/a*b"] }]),
            "must be the final",
        ),
        (
            json!([{ "level": "None", "resources": [{ "resourceNames": ["a"] }] }]),
            "requires at least one resource",
        ),
    ] {
        let refused = policy(&rules).expect_err(why);
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn an_event_shows_what_its_level_allows() {
    let event = |level| Event {
        recorded: Recorded {
            level,
            omit_stages: vec![Stage::RequestReceived],
            omit_managed_fields: true,
        },
        audit_id: "id".into(),
        request_uri: "/api/v1/namespaces/a/secrets".into(),
        asked: Attributes {
            name: String::new(),
            ..secrets("create")
        },
        user: User::authenticated("jane", vec![]),
        impersonated: None,
        source_ips: vec!["192.0.2.1".into()],
        user_agent: "kubectl".into(),
        received: parse("2026-01-02T03:04:05Z").expect("a time"),
        request_object: Some(json!({ "metadata": { "name": "s", "managedFields": [1] } })),
        annotations: std::collections::BTreeMap::new(),
    };
    let now = parse("2026-01-02T03:04:06.5Z").expect("a time");
    let answered = Answered {
        code: 201,
        object: Some(json!({ "kind": "Secret" })),
    };
    let at = |level, stage| event(level).at(stage, now, Some(&answered));
    assert_eq!(at(Level::Metadata, Stage::RequestReceived), None);
    let shown = at(Level::Metadata, Stage::ResponseComplete).expect("an event");
    assert_eq!(
        shown.to_string(),
        r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"id","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/a/secrets","verb":"create","user":{"username":"jane","groups":["system:authenticated"]},"sourceIPs":["192.0.2.1"],"userAgent":"kubectl","objectRef":{"resource":"secrets","namespace":"a","name":"s","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":201},"requestReceivedTimestamp":"2026-01-02T03:04:05.000000Z","stageTimestamp":"2026-01-02T03:04:06.500000Z"}"#
    );
    let mut path = event(Level::RequestResponse);
    path.asked.is_resource = false;
    let shown = path.at(Stage::ResponseComplete, now, Some(&answered));
    let shown = shown.expect("an event");
    assert!(shown["requestObject"].is_null() && shown["responseObject"].is_null());
    let shown = at(Level::RequestResponse, Stage::ResponseComplete).expect("an event");
    assert_eq!(
        shown["requestObject"],
        json!({ "metadata": { "name": "s" } })
    );
    assert_eq!(shown["responseObject"], json!({ "kind": "Secret" }));
}
