//! Configurations and what they make of claims.

use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_800_000_000;

fn configuration(jwt: &Value) -> Result<Configuration, String> {
    let document = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "jwt": [jwt],
    });
    Configuration::read(document, &["https://own".to_owned()])
}

fn plain() -> Value {
    json!({
        "issuer": { "url": "https://idp", "audiences": ["k8s"] },
        "claimMappings": {
            "username": { "claim": "sub", "prefix": "idp:" },
            "groups": { "claim": "roles", "prefix": "idp:" },
        },
    })
}

fn by_expressions() -> Value {
    json!({
        "issuer": { "url": "https://idp", "audiences": ["k8s", "other"],
                    "audienceMatchPolicy": "MatchAny" },
        "claimValidationRules": [
            { "claim": "hd", "requiredValue": "example.com" },
            { "expression": "claims.email_verified == true", "message": "verify your mail" },
        ],
        "claimMappings": {
            "username": { "expression": "claims.email" },
            "groups": { "expression": "claims.roles.split(',')" },
            "uid": { "claim": "sub" },
            "extra": [{ "key": "example.com/tenant", "valueExpression": "claims.tenant" }],
        },
        "userValidationRules": [
            { "expression": "!user.username.startsWith('system:')", "message": "reserved" },
        ],
    })
}

fn claims() -> Value {
    json!({
        "iss": "https://idp", "aud": "k8s", "sub": "42", "exp": NOW + 60, "jti": "j",
        "roles": "dev,ops", "email": "jane@example.com", "email_verified": true,
        "hd": "example.com", "tenant": "blue",
    })
}

fn with(field: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[field] = value;
    claims
}

#[test]
fn claims_and_expressions_make_users() {
    let configuration = configuration(&plain()).expect("good");
    let user = configuration.authenticators[0]
        .user(&with("roles", json!(["dev"])), NOW)
        .expect("a user");
    assert_eq!(user.name, "idp:42");
    assert_eq!(user.groups, ["idp:dev", "system:authenticated"]);
    let configuration = self::configuration(&by_expressions()).expect("good");
    let user = configuration.authenticators[0]
        .user(&claims(), NOW)
        .expect("a user");
    assert_eq!(
        (user.name.as_str(), user.uid.as_str()),
        ("jane@example.com", "42")
    );
    assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
    assert_eq!(user.extra["example.com/tenant"], ["blue"]);
}

#[test]
fn what_breaks_a_rule_makes_no_user() {
    let configuration = configuration(&by_expressions()).expect("good");
    for (claims, why) in [
        (with("exp", (NOW - 1).into()), "token is expired"),
        (with("nbf", (NOW + 301).into()), "not valid yet"),
        (with("aud", json!(["x"])), "expected audience"),
        (with("iss", "https://other".into()), "issuer did not match"),
        (
            with("hd", "other".into()),
            "required claim hd value does not match",
        ),
        (with("email_verified", false.into()), "verify your mail"),
        (with("email", "system:admin".into()), "reserved"),
        (with("email", "".into()), "empty username"),
        (with("roles", 7.into()), "group claim expression"),
        (with("sub", Value::Null), "parse uid claim"),
    ] {
        let refused = configuration.authenticators[0].user(&claims, NOW);
        let told = refused.expect_err(why);
        assert!(told.contains(why), "{told}");
    }
}

#[test]
fn a_bad_configuration_is_refused_with_its_fields() {
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut jwt = plain();
        change(&mut jwt);
        configuration(&jwt).expect_err("refused")
    };
    for (told, why) in [
        (
            changed(&|jwt| jwt["issuer"]["url"] = "http://idp".into()),
            "jwt[0].issuer.url: Invalid value: \"http://idp\": URL scheme must be https",
        ),
        (
            changed(&|jwt| jwt["issuer"]["url"] = "https://own".into()),
            "URL must not overlap with disallowed issuers",
        ),
        (
            changed(&|jwt| jwt["issuer"]["audiences"] = json!([])),
            "jwt[0].issuer.audiences: Required value",
        ),
        (
            changed(&|jwt| jwt["claimMappings"]["username"] = json!({ "claim": "sub" })),
            "jwt[0].claimMappings.username.prefix: Required value",
        ),
        (
            changed(&|jwt| jwt["claimMappings"]["username"] = json!({ "expression": "claims." })),
            "compilation failed",
        ),
        (
            changed(&|jwt| {
                jwt["claimMappings"]["username"] = json!({ "expression": "claims.email" });
            }),
            "claims.email_verified must be used",
        ),
        (
            changed(&|jwt| {
                jwt["claimMappings"]["extra"] =
                    json!([{ "key": "x.k8s.io/y", "valueExpression": "'a'" }]);
            }),
            "reserved for Kubernetes use",
        ),
    ] {
        assert!(told.contains(why), "{told}");
    }
}

#[test]
fn anonymous_requests_go_where_the_configuration_says() {
    let read = |anonymous: Value| {
        let document = json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
            "anonymous": anonymous,
        });
        Configuration::read(document, &[]).map(|configuration| configuration.anonymous)
    };
    assert!(read(Value::Null).expect("good").allows("/api"));
    assert!(
        !read(json!({ "enabled": false }))
            .expect("good")
            .allows("/livez")
    );
    let some = json!({ "enabled": true, "conditions": [{ "path": "/livez" }] });
    let some = read(some).expect("good");
    assert!(some.allows("/livez") && !some.allows("/api"));
    let odd = json!({ "enabled": false, "conditions": [{ "path": "/livez" }] });
    assert!(read(odd).is_err());
}
