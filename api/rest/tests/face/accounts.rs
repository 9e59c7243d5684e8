//! Service accounts' tokens, reviews, roles and impersonation, over HTTP.

use nautilus_machinery::identity::User;
use nautilus_rest::RequestLimits;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::{World, parts, text, within};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// A face where nobody is authenticated but by a token, and one of a master on the same
/// quorum.
struct Worlds {
    anonymous: World,
    admin: String,
}

impl Worlds {
    async fn start() -> Self {
        Self::issuing(&[]).await
    }

    /// Whose tokens are of these issuers.
    async fn issuing(issuers: &[&str]) -> Self {
        let issuers = issuers.iter().copied().map(str::to_owned).collect();
        let limits = RequestLimits::default();
        let anonymous = World::start_configured(User::anonymous(), limits, |facts| {
            facts.service_account_issuers = issuers;
        })
        .await;
        let master = User::authenticated("admin", vec!["system:masters".into()]);
        let admin = anonymous.serve_as(master).await;
        Self { anonymous, admin }
    }

    async fn admin(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = self
            .anonymous
            .client
            .request(method, format!("{}{path}", self.admin))
            .json(body);
        parts(within(request.send()).await.unwrap()).await
    }

    async fn create(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.admin(Method::POST, path, body).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        answer
    }

    async fn token(&self, account: &str, spec: &Value) -> String {
        let path = format!("/api/v1/namespaces/default/serviceaccounts/{account}/token");
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec,
        });
        text(&self.create(&path, &request).await["status"]["token"])
    }

    async fn account(&self, name: &str) {
        let account = json!({ "metadata": { "name": name } });
        self.create("/api/v1/namespaces/default/serviceaccounts", &account)
            .await;
    }

    async fn as_token(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: &Value,
    ) -> (StatusCode, Value) {
        let request = self
            .anonymous
            .client
            .request(method, format!("{}{path}", self.anonymous.base))
            .bearer_auth(token)
            .json(body);
        parts(within(request.send()).await.unwrap()).await
    }

    async fn whoami(&self, token: &str) -> (StatusCode, Value) {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview",
        });
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        self.as_token(token, Method::POST, path, &review).await
    }

    /// Lets a user do something in the namespace `default`.
    async fn grant(&self, role: &str, user: &str, rules: &Value) {
        let meta = json!({ "name": role });
        let path = format!("{RBAC}/namespaces/default");
        let object = json!({ "metadata": meta, "rules": rules });
        self.create(&format!("{path}/roles"), &object).await;
        let binding = json!({
            "metadata": meta,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role },
            "subjects": [{ "kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io" }],
        });
        self.create(&format!("{path}/rolebindings"), &binding).await;
    }

    /// Asks until the rules have reached the node.
    async fn eventually(&self, token: &str, path: &str, wanted: StatusCode) -> Value {
        loop {
            let (status, answer) = self.as_token(token, Method::GET, path, &Value::Null).await;
            if status == wanted {
                return answer;
            }
            within(tokio::task::yield_now()).await;
        }
    }
}

#[tokio::test]
async fn a_token_is_its_account_until_the_account_goes() {
    let worlds = Worlds::start().await;
    worlds.account("robot").await;
    let token = worlds.token("robot", &json!({})).await;
    let (status, review) = worlds.whoami(&token).await;
    assert_eq!(status, StatusCode::CREATED, "{review}");
    let user = &review["status"]["userInfo"];
    assert_eq!(user["username"], "system:serviceaccount:default:robot");
    assert_eq!(
        user["groups"],
        json!([
            "system:serviceaccounts",
            "system:serviceaccounts:default",
            "system:authenticated",
        ])
    );
    let path = "/api/v1/namespaces/default/serviceaccounts/robot";
    worlds.admin(Method::DELETE, path, &json!({})).await;
    let (status, refused) = worlds.whoami(&token).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(refused["message"], "Unauthorized");
}

#[tokio::test]
async fn a_token_that_was_changed_or_is_for_others_does_not_count() {
    let worlds = Worlds::start().await;
    worlds.account("robot").await;
    let token = worlds.token("robot", &json!({})).await;
    let mut forged = token.clone();
    let last = if forged.ends_with('A') { 'B' } else { 'A' };
    forged.replace_range(forged.len() - 2.., &format!("{last}A"));
    assert_eq!(worlds.whoami(&forged).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(worlds.whoami("nonsense").await.0, StatusCode::UNAUTHORIZED);
    let other = worlds
        .token("robot", &json!({ "audiences": ["vault"] }))
        .await;
    assert_eq!(worlds.whoami(&other).await.0, StatusCode::UNAUTHORIZED);
    let review = |audiences: &Value| {
        json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": { "token": other, "audiences": audiences },
        })
    };
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let judged = worlds.create(path, &review(&json!(["vault", "x"]))).await;
    assert_eq!(judged["status"]["authenticated"], true);
    assert_eq!(judged["status"]["audiences"], json!(["vault"]));
    let judged = worlds.create(path, &review(&json!(["x"]))).await;
    assert!(judged["status"]["authenticated"].is_null(), "{judged}");
    assert!(text(&judged["status"]["error"]).contains("is invalid for the target audiences"));
}

#[tokio::test]
async fn others_check_tokens_by_the_published_keys() {
    let worlds = Worlds::start().await;
    worlds.account("robot").await;
    let token = worlds.token("robot", &json!({})).await;
    let (status, keys) = worlds
        .as_token(&token, Method::GET, "/openid/v1/jwks", &Value::Null)
        .await;
    assert_eq!(status, StatusCode::OK, "{keys}");
    let key: jsonwebtoken::jwk::Jwk = serde_json::from_value(keys["keys"][0].clone()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    let path = "/.well-known/openid-configuration";
    let (_, document) = worlds
        .as_token(&token, Method::GET, path, &Value::Null)
        .await;
    let issuer = text(&document["issuer"]);
    validation.set_audience(&[&issuer]);
    validation.set_issuer(&[&issuer]);
    let decoded = jsonwebtoken::decode::<Value>(
        &token,
        &jsonwebtoken::DecodingKey::from_jwk(&key).unwrap(),
        &validation,
    )
    .unwrap();
    assert_eq!(decoded.claims["sub"], "system:serviceaccount:default:robot");
    assert_eq!(
        decoded.claims["kubernetes.io"]["serviceaccount"]["name"],
        "robot"
    );
}

#[tokio::test]
async fn the_first_issuer_signs_and_is_discovered() {
    let issuers = ["https://new.example.org", "https://old.example.org"];
    let worlds = Worlds::issuing(&issuers).await;
    worlds.account("robot").await;
    let token = worlds.token("robot", &json!({})).await;
    let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(&token).unwrap();
    assert_eq!(claims.claims["iss"], "https://new.example.org");
    assert_eq!(claims.claims["aud"], json!(issuers));
    let path = "/.well-known/openid-configuration";
    let (status, document) = worlds
        .as_token(&token, Method::GET, path, &Value::Null)
        .await;
    assert_eq!(status, StatusCode::OK, "{document}");
    assert_eq!(document["issuer"], "https://new.example.org");
    let old = worlds
        .token(
            "robot",
            &json!({ "audiences": ["https://old.example.org"] }),
        )
        .await;
    assert_eq!(worlds.whoami(&old).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn an_issuer_without_an_address_is_not_discovered() {
    let worlds = Worlds::issuing(&["robots"]).await;
    worlds.account("robot").await;
    let token = worlds.token("robot", &json!({})).await;
    assert_eq!(worlds.whoami(&token).await.0, StatusCode::CREATED);
    for path in ["/.well-known/openid-configuration", "/openid/v1/jwks"] {
        let (status, _) = worlds
            .as_token(&token, Method::GET, path, &Value::Null)
            .await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn roles_say_what_a_user_may_and_reviews_tell_it() {
    let worlds = Worlds::start().await;
    worlds.account("robot").await;
    let token = worlds.token("robot", &json!({})).await;
    let user = "system:serviceaccount:default:robot";
    let path = "/api/v1/namespaces/default/configmaps";
    let (status, refused) = worlds
        .as_token(&token, Method::GET, path, &Value::Null)
        .await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(
        refused["message"],
        format!(
            "configmaps is forbidden: User \"{user}\" cannot list resource \"configmaps\" in API \
             group \"\" in the namespace \"default\""
        )
    );
    let rules = json!([{ "verbs": ["list"], "apiGroups": [""], "resources": ["configmaps"] }]);
    worlds.grant("reader", user, &rules).await;
    worlds.eventually(&token, path, StatusCode::OK).await;
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": { "user": user, "resourceAttributes": {
            "namespace": "default", "verb": "list", "resource": "configmaps",
        } },
    });
    let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let judged = worlds.create(reviews, &review).await;
    assert_eq!(
        judged["status"],
        json!({
            "allowed": true,
            "reason": format!(
                "RBAC: allowed by RoleBinding \"reader/default\" of Role \"reader\" to User \"{user}\""
            ),
        })
    );
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
        "spec": { "namespace": "default" },
    });
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let (_, answer) = worlds
        .as_token(&token, Method::POST, reviews, &review)
        .await;
    let listed = &answer["status"]["resourceRules"];
    assert!(
        listed.as_array().unwrap().contains(&json!({
            "verbs": ["list"], "apiGroups": [""], "resources": ["configmaps"],
        })),
        "{answer}"
    );
}

#[tokio::test]
async fn nobody_gives_away_more_than_they_have() {
    let worlds = Worlds::start().await;
    worlds.account("robot").await;
    let token = worlds.token("robot", &json!({})).await;
    let user = "system:serviceaccount:default:robot";
    let rules = json!([
        { "verbs": ["*"], "apiGroups": ["rbac.authorization.k8s.io"],
          "resources": ["roles", "rolebindings"] },
    ]);
    worlds.grant("granter", user, &rules).await;
    let roles = format!("{RBAC}/namespaces/default/roles");
    worlds.eventually(&token, &roles, StatusCode::OK).await;
    let role = |verbs: &[&str]| {
        json!({
            "metadata": { "name": "more" },
            "rules": [{ "verbs": verbs, "apiGroups": [""], "resources": ["secrets"] }],
        })
    };
    // `*` on roles holds the verb `escalate` too.
    let (status, made) = worlds
        .as_token(&token, Method::POST, &roles, &role(&["get"]))
        .await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let rules = json!([
        { "verbs": ["create", "list", "update"], "apiGroups": ["rbac.authorization.k8s.io"],
          "resources": ["roles", "rolebindings"] },
    ]);
    worlds.account("modest").await;
    let modest = worlds.token("modest", &json!({})).await;
    worlds
        .grant("modest", "system:serviceaccount:default:modest", &rules)
        .await;
    worlds.eventually(&modest, &roles, StatusCode::OK).await;
    let (status, refused) = worlds
        .as_token(&modest, Method::POST, &roles, &role(&["get"]))
        .await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{refused}");
    let message = text(&refused["message"]);
    assert!(message.contains("is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}"), "{message}");
}

#[tokio::test]
async fn a_master_acts_as_others_and_others_only_where_they_may() {
    let worlds = Worlds::start().await;
    let act = |base: &str, token: Option<&str>| {
        let request = worlds
            .anonymous
            .client
            .post(format!(
                "{base}/apis/authentication.k8s.io/v1/selfsubjectreviews"
            ))
            .header("impersonate-user", "jane")
            .header("impersonate-group", "dev")
            .header("impersonate-extra-example.com%2fscope", "a")
            .json(&json!({
                "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview",
            }));
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    };
    let (status, review) = parts(within(act(&worlds.admin, None).send()).await.unwrap()).await;
    assert_eq!(status, StatusCode::CREATED, "{review}");
    assert_eq!(
        review["status"]["userInfo"],
        json!({
            "username": "jane",
            "groups": ["dev", "system:authenticated"],
            "extra": { "example.com/scope": ["a"] },
        })
    );
    worlds.account("robot").await;
    let token = worlds.token("robot", &json!({})).await;
    let request = act(&worlds.anonymous.base, Some(&token));
    let (status, refused) = parts(within(request.send()).await.unwrap()).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{refused}");
    assert!(text(&refused["message"]).contains("cannot impersonate-on:user-info:create"));
}

#[tokio::test]
async fn bootstrap_roles_are_there_and_gather() {
    let worlds = Worlds::start().await;
    let path = format!("{RBAC}/clusterroles/view");
    let (status, view) = worlds.admin(Method::GET, &path, &Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(view["rules"].as_array().map(Vec::len), Some(12), "{view}");
    let (_, admin) = worlds
        .admin(
            Method::GET,
            &format!("{RBAC}/clusterroles/admin"),
            &Value::Null,
        )
        .await;
    assert!(admin["rules"].as_array().unwrap().len() > 20, "{admin}");
}
