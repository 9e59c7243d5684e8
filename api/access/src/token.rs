//! Service accounts' tokens as claims: what goes into one, and whether one still counts.
//!
//! Source: KEP-1205 (bound tokens), KEP-4193 (node and pod claims), RFC 7519. Knows
//! nothing of signatures: who calls this has checked one.
//!
//! Invariants
//! - A token counts only while its account, and what it is bound to, exist with the
//!   uids in it.
//! - A token without audience (a secret's) counts for the API server alone, and only
//!   while the secret holds this very token.

use std::collections::BTreeMap;

use nautilus_machinery::identity::User;
use nautilus_machinery::status::{ApiError, quote};
use nautilus_machinery::timestamp;
use nautilus_machinery::validation::Errors;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The issuer of secrets' tokens.
pub const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// Label of a secret whose token shall not count any more.
const INVALID_SINCE_LABEL: &str = "kubernetes.io/legacy-token-invalid-since";
/// The shortest life of a token that may be asked for, in seconds.
const MIN_EXPIRATION_S: i64 = 600;
/// The longest that may be asked for, in seconds.
const MAX_ASKED_EXPIRATION_S: i64 = 1 << 32;
/// The longest that is given, in seconds; a key that signed must be kept as long.
pub const MAX_EXPIRATION_S: i64 = 365 * 86_400;
/// What kubelets ask for, for pods that know nothing of rotation, in seconds.
const PROJECTED_EXPIRATION_S: i64 = 3_607;
/// Clocks may differ by so much, in seconds.
const LEEWAY_S: i64 = 60;

/// The claims of a token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claims {
    /// Audiences.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "one_or_many"
    )]
    pub aud: Vec<String>,
    /// Seconds since the epoch, as all times here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    /// Issued at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<i64>,
    /// Issuer.
    pub iss: String,
    /// The token's own name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io", skip_serializing_if = "Option::is_none")]
    pub bound: Option<Bound>,
    /// Of secrets' tokens.
    #[serde(flatten)]
    pub legacy: LegacyClaims,
    /// Not before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// The user's name.
    pub sub: String,
}

/// The claims of a secret's token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LegacyClaims {
    #[serde(
        rename = "kubernetes.io/serviceaccount/namespace",
        skip_serializing_if = "String::is_empty"
    )]
    namespace: String,
    #[serde(
        rename = "kubernetes.io/serviceaccount/secret.name",
        skip_serializing_if = "String::is_empty"
    )]
    secret: String,
    #[serde(
        rename = "kubernetes.io/serviceaccount/service-account.name",
        skip_serializing_if = "String::is_empty"
    )]
    account: String,
    #[serde(
        rename = "kubernetes.io/serviceaccount/service-account.uid",
        skip_serializing_if = "String::is_empty"
    )]
    uid: String,
}

/// What a token is bound to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bound {
    namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<Reference>,
    serviceaccount: Reference,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnafter: Option<i64>,
}

/// An object by name and uid.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Reference {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
}

impl Reference {
    fn to(object: &Value) -> Self {
        Self {
            name: text(object, "name").to_owned(),
            uid: text(object, "uid").to_owned(),
        }
    }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Form::deserialize(reader)? {
        Form::One(one) => vec![one],
        Form::Many(many) => many,
    })
}

/// Looks up an object of the core group by plural, namespace (empty for none) and name.
pub type Lookup<'a> = &'a dyn Fn(&str, &str, &str) -> Result<Option<Value>, ApiError>;

/// A `TokenRequest`, filled in and checked, and the claims of its token.
#[derive(Debug)]
pub struct Granted {
    /// The answer, without the token.
    pub answer: Value,
    /// What is to be signed.
    pub claims: Claims,
    /// What the client should hear.
    pub warning: Option<String>,
}

/// What a request for a token comes with.
pub struct TokenAsked<'a> {
    /// The account, as stored.
    pub account: &'a Value,
    /// The `TokenRequest`.
    pub request: &'a Value,
    /// The API server as an issuer, which is its audience as well.
    pub issuer: &'a str,
    /// Seconds since the epoch.
    pub now: i64,
    /// A fresh UUID.
    pub jti: &'a str,
}

/// Judges a `TokenRequest` and says what to sign.
pub fn grant(asked: &TokenAsked<'_>, lookup: Lookup<'_>) -> Result<Granted, ApiError> {
    let TokenAsked {
        account, request, ..
    } = *asked;
    let (namespace, name) = (text(account, "namespace"), text(account, "name"));
    for (field, own, what) in [
        ("name", name, "name"),
        ("namespace", namespace, "namespace"),
    ] {
        let given = text(request, field);
        if !given.is_empty() && given != own {
            let mut errors = Errors::new();
            let detail = format!("must match the service account {what} if specified");
            errors.invalid_text(&format!("metadata.{field}"), given, &detail);
            return Err(invalid(name, errors));
        }
    }
    let uid = text(account, "uid");
    let given = text(request, "uid");
    if !given.is_empty() && given != uid {
        return Err(ApiError::conflict_on(
            "TokenRequest.authentication.k8s.io",
            name,
            &format!(
                "the UID in the token request ({given}) does not match the UID of the service \
                 account ({uid})"
            ),
        ));
    }
    let mut audiences: Vec<String> = request["spec"]["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|audience| audience.as_str().map(str::to_owned))
        .collect();
    if audiences.is_empty() {
        audiences.push(asked.issuer.to_owned());
    }
    let mut lifetime = request["spec"]["expirationSeconds"]
        .as_i64()
        .unwrap_or(3_600);
    check_spec(request, lifetime)?;
    let mut bound = Bound {
        namespace: namespace.to_owned(),
        serviceaccount: Reference::to(account),
        ..Bound::default()
    };
    let reference = &request["spec"]["boundObjectRef"];
    if !reference.is_null() {
        bind(&mut bound, reference, name, lookup)?;
    }
    let mut warning = None;
    if lifetime > MAX_EXPIRATION_S {
        warning = Some(format!(
            "requested expiration of {lifetime} seconds shortened to {MAX_EXPIRATION_S} seconds"
        ));
        lifetime = MAX_EXPIRATION_S;
    }
    let mut valid_for = lifetime;
    let own_audience = audiences.iter().all(|audience| audience == asked.issuer);
    if bound.pod.is_some() && lifetime == PROJECTED_EXPIRATION_S && own_audience {
        bound.warnafter = Some(asked.now + lifetime);
        valid_for = MAX_EXPIRATION_S;
    }
    let mut answer = request.clone();
    answer["metadata"]["name"] = name.into();
    answer["metadata"]["namespace"] = namespace.into();
    answer["metadata"]["uid"] = uid.into();
    answer["metadata"]["creationTimestamp"] = time(asked.now);
    answer["spec"]["audiences"] = json!(audiences);
    answer["spec"]["expirationSeconds"] = lifetime.into();
    if answer["spec"]["boundObjectRef"].is_null() {
        answer["spec"]["boundObjectRef"] = Value::Null;
    }
    answer["status"] = json!({ "expirationTimestamp": time(asked.now + lifetime) });
    let claims = Claims {
        aud: audiences,
        exp: Some(asked.now + valid_for),
        iat: Some(asked.now),
        iss: asked.issuer.to_owned(),
        jti: asked.jti.to_owned(),
        bound: Some(bound),
        nbf: Some(asked.now),
        sub: format!("system:serviceaccount:{namespace}:{name}"),
        ..Claims::default()
    };
    Ok(Granted {
        answer,
        claims,
        warning,
    })
}

fn time(seconds: i64) -> Value {
    timestamp::format_seconds(seconds).map_or(Value::Null, Value::from)
}

fn invalid(name: &str, errors: Errors) -> ApiError {
    let (group, kind) = ("authentication.k8s.io", "TokenRequest");
    ApiError::invalid_kind(
        &format!("{kind}.{group}"),
        group,
        kind,
        name,
        errors.into_causes(),
    )
}

fn check_spec(request: &Value, lifetime: i64) -> Result<(), ApiError> {
    let mut errors = Errors::new();
    let path = "spec.expirationSeconds";
    if lifetime < MIN_EXPIRATION_S {
        let detail = "may not specify a duration less than 10 minutes";
        errors.invalid(path, &lifetime.into(), detail);
    }
    if lifetime > MAX_ASKED_EXPIRATION_S {
        let detail = "may not specify a duration larger than 2^32 seconds";
        errors.invalid(path, &lifetime.into(), detail);
    }
    let attestations = &request["spec"]["attestations"];
    if attestations.as_object().is_some_and(|map| !map.is_empty()) {
        errors = Errors::new();
        errors.invalid(
            "spec.attestations",
            attestations,
            "attestations may only be specified with a webhook bound object reference",
        );
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(invalid("", errors))
}

/// Binds to the object that the request names.
fn bind(
    bound: &mut Bound,
    reference: &Value,
    account: &str,
    lookup: Lookup<'_>,
) -> Result<(), ApiError> {
    let field = |name: &str| reference[name].as_str().unwrap_or_default();
    let (kind, name) = (field("kind"), field("name"));
    let group = field("apiVersion")
        .split_once('/')
        .map_or("", |(group, _)| group);
    let find = |plural: &str, namespace: &str, name: &str| {
        lookup(plural, namespace, name)?.ok_or_else(|| ApiError::not_found_on("", plural, name))
    };
    let object = match (group, kind) {
        ("", "Pod") => {
            let pod = find("pods", &bound.namespace, name)?;
            if pod["spec"]["serviceAccountName"] != account {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {} to pod running with different \
                     serviceaccount name.",
                    quote(account)
                )));
            }
            if let Some(node) = pod["spec"]["nodeName"]
                .as_str()
                .filter(|node| !node.is_empty())
            {
                bound.node = Some(match lookup("nodes", "", node)? {
                    Some(node) => Reference::to(&node),
                    None => Reference {
                        name: node.to_owned(),
                        uid: String::new(),
                    },
                });
            }
            bound.pod = Some(Reference::to(&pod));
            pod
        }
        ("", "Node") => {
            let node = find("nodes", "", name)?;
            bound.node = Some(Reference::to(&node));
            node
        }
        ("", "Secret") => {
            let secret = find("secrets", &bound.namespace, name)?;
            bound.secret = Some(Reference::to(&secret));
            secret
        }
        _ => {
            let version = field("apiVersion");
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            return Err(ApiError::bad_request(format!(
                "cannot bind token to object of type {group}/{version}, Kind={kind}"
            )));
        }
    };
    let uid = field("uid");
    if !uid.is_empty() && uid != text(&object, "uid") {
        return Err(ApiError::conflict_on(
            kind,
            name,
            &format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. \
                 The object might have been deleted and then recreated"
            ),
        ));
    }
    Ok(())
}

/// The claims of the token that a secret of type `kubernetes.io/service-account-token`
/// holds.
pub fn legacy_claims(account: &Value, secret: &Value) -> Claims {
    let (namespace, name) = (text(account, "namespace"), text(account, "name"));
    Claims {
        iss: LEGACY_ISSUER.to_owned(),
        legacy: LegacyClaims {
            namespace: namespace.to_owned(),
            secret: text(secret, "name").to_owned(),
            account: name.to_owned(),
            uid: text(account, "uid").to_owned(),
        },
        sub: format!("system:serviceaccount:{namespace}:{name}"),
        ..Claims::default()
    }
}

/// Which audiences of a token count for who asks (`wanted`, empty: the API server's).
pub fn audiences(claims: &Claims, issuer: &str, wanted: &[String]) -> Result<Vec<String>, String> {
    let own = [issuer.to_owned()];
    let given: &[String] = if claims.aud.is_empty() {
        &own
    } else {
        &claims.aud
    };
    let wanted = if wanted.is_empty() { &own } else { wanted };
    let common: Vec<String> = given
        .iter()
        .filter(|audience| wanted.contains(audience))
        .cloned()
        .collect();
    if common.is_empty() {
        let list = |list: &[String]| {
            let quoted: Vec<String> = list.iter().map(|item| quote(item)).collect();
            format!("[{}]", quoted.join(" "))
        };
        return Err(format!(
            "token audiences {} is invalid for the target audiences {}",
            list(given),
            list(wanted)
        ));
    }
    Ok(common)
}

/// Why a token does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Because of what stands in it.
    Claims(String),
    /// Because of what is missing, or is another object now: a newer state may tell
    /// otherwise.
    Objects(String),
}

impl Refused {
    /// The reference's words.
    pub fn message(&self) -> &str {
        match self {
            Self::Claims(why) | Self::Objects(why) => why,
        }
    }
}

/// Whether a secret's bytes are the token; must compare in constant time.
pub type SameToken<'a> = &'a dyn Fn(&str) -> bool;

/// The user of a token whose signature holds.
pub fn user(
    claims: &Claims,
    now: i64,
    lookup: Lookup<'_>,
    same_token: SameToken<'_>,
) -> Result<User, Refused> {
    let gone = Refused::Objects;
    let find = |plural: &str, namespace: &str, name: &str| {
        lookup(plural, namespace, name).map_err(|error| gone(error.message().to_owned()))
    };
    if claims.iss == LEGACY_ISSUER {
        return legacy_user(claims, &find, same_token);
    }
    let after = |at: Option<i64>, limit: i64| at.is_some_and(|at| at > limit);
    if claims.exp.is_none_or(|exp| now - LEEWAY_S > exp) {
        return Err(Refused::Claims("service account token has expired".into()));
    }
    if after(claims.nbf, now + LEEWAY_S) {
        return Err(Refused::Claims(
            "service account token is not valid yet".into(),
        ));
    }
    if after(claims.iat, now + LEEWAY_S) {
        let why = "service account token is issued in the future";
        return Err(Refused::Claims(why.into()));
    }
    let Some(bound) = &claims.bound else {
        return Err(Refused::Claims(
            "service account token names no account".into(),
        ));
    };
    let deleted = |object: &Value| {
        let at = object["metadata"]["deletionTimestamp"].as_str();
        at.and_then(timestamp::parse)
            .is_some_and(|at| at.seconds < now - LEEWAY_S)
    };
    let namespace = &bound.namespace;
    let name = &bound.serviceaccount.name;
    let account = find("serviceaccounts", namespace, name)?
        .ok_or_else(|| gone(format!("serviceaccounts {} not found", quote(name))))?;
    if text(&account, "uid") != bound.serviceaccount.uid {
        return Err(gone(format!(
            "service account UID ({}) does not match claim ({})",
            text(&account, "uid"),
            bound.serviceaccount.uid
        )));
    }
    if deleted(&account) {
        return Err(gone(format!(
            "service account {namespace}/{name} has been deleted"
        )));
    }
    let of_node_alone = bound.node.as_ref().filter(|_| bound.pod.is_none());
    for (what, plural, namespace, reference) in [
        (
            "secret",
            "secrets",
            namespace.as_str(),
            bound.secret.as_ref(),
        ),
        ("pod", "pods", namespace.as_str(), bound.pod.as_ref()),
        ("node", "nodes", "", of_node_alone),
    ] {
        let Some(reference) = reference else { continue };
        let invalidated = || gone("service account token has been invalidated".to_owned());
        let object = find(plural, namespace, &reference.name)?.ok_or_else(invalidated)?;
        if text(&object, "uid") != reference.uid {
            return Err(gone(format!(
                "{what} UID ({}) does not match service account {what} ref claim ({})",
                text(&object, "uid"),
                reference.uid
            )));
        }
        if deleted(&object) {
            return Err(invalidated());
        }
    }
    let mut user = User::service_account(namespace, name, &bound.serviceaccount.uid);
    user.extra = extra(claims, bound);
    Ok(user)
}

/// What a token says beside the account.
fn extra(claims: &Claims, bound: &Bound) -> BTreeMap<String, Vec<String>> {
    let mut extra = BTreeMap::new();
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            let key = format!("authentication.kubernetes.io/{key}");
            extra.insert(key, vec![value.to_owned()]);
        }
    };
    if !claims.jti.is_empty() {
        put("credential-id", &format!("JTI={}", claims.jti));
    }
    if let Some(node) = &bound.node {
        put("node-name", &node.name);
        put("node-uid", &node.uid);
    }
    if let Some(pod) = &bound.pod {
        put("pod-name", &pod.name);
        put("pod-uid", &pod.uid);
    }
    extra
}

fn legacy_user(
    claims: &Claims,
    find: &dyn Fn(&str, &str, &str) -> Result<Option<Value>, Refused>,
    same_token: SameToken<'_>,
) -> Result<User, Refused> {
    let LegacyClaims {
        namespace,
        secret,
        account,
        uid,
    } = &claims.legacy;
    for (claim, name) in [
        (&claims.sub, "sub"),
        (namespace, "namespace"),
        (secret, "secretName"),
        (account, "serviceAccountName"),
        (uid, "serviceAccountUID"),
    ] {
        if claim.is_empty() {
            return Err(Refused::Claims(format!("{name} claim is missing")));
        }
    }
    if claims.sub != format!("system:serviceaccount:{namespace}:{account}") {
        return Err(Refused::Claims("sub claim is invalid".into()));
    }
    let gone = |why: &str| Refused::Objects(why.to_owned());
    let held = find("secrets", namespace, secret)?
        .filter(|secret| secret["metadata"]["deletionTimestamp"].is_null())
        .ok_or_else(|| gone("Token has been invalidated"))?;
    if !same_token(held["data"]["token"].as_str().unwrap_or_default()) {
        return Err(gone("Token does not match server's copy"));
    }
    let object = find("serviceaccounts", namespace, account)?
        .ok_or_else(|| gone(&format!("serviceaccounts {} not found", quote(account))))?;
    if !object["metadata"]["deletionTimestamp"].is_null() {
        let why = format!("ServiceAccount {namespace}/{account} has been deleted");
        return Err(gone(&why));
    }
    if text(&object, "uid") != uid {
        let own = text(&object, "uid");
        let why = format!("ServiceAccount UID ({own}) does not match claim ({uid})");
        return Err(gone(&why));
    }
    if !held["metadata"]["labels"][INVALID_SINCE_LABEL].is_null() {
        return Err(gone(&format!(
            "the token in secret {namespace}/{secret} for service account {namespace}/{account} \
             has been marked invalid. Use tokens from the TokenRequest API or manually created \
             secret-based tokens, or remove the '{INVALID_SINCE_LABEL}' label from the secret to \
             temporarily allow use of this token"
        )));
    }
    Ok(User::service_account(namespace, account, uid))
}

#[cfg(test)]
mod tests {
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
            now: NOW,
            jti: "j",
        };
        grant(&asked, &world)
    }

    #[test]
    fn a_pods_token_has_the_claims_of_the_reference() {
        let reference = json!({ "apiVersion": "v1", "kind": "Pod", "name": "web" });
        let granted = ask(&json!({ "boundObjectRef": reference, "expirationSeconds": 3607 }))
            .expect("granted");
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
        assert_eq!(audiences(&claims, ISSUER, &[]), Ok(vec![ISSUER.to_owned()]));
        assert!(audiences(&claims, ISSUER, &["other".to_owned()]).is_err());
    }
}
