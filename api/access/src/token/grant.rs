//! What is signed for a `TokenRequest`.

use nautilus_machinery::status::{ApiError, quote};
use nautilus_machinery::timestamp;
use nautilus_machinery::validation::Errors;
use serde_json::{Value, json};

use super::{Bound, Claims, Lookup, MAX_EXPIRATION_S, Reference, text};

/// The shortest life of a token that may be asked for, in seconds.
const MIN_EXPIRATION_S: i64 = 600;
/// The longest that may be asked for, in seconds.
const MAX_ASKED_EXPIRATION_S: i64 = 1 << 32;
/// What kubelets ask for, for pods that know nothing of rotation, in seconds.
const PROJECTED_EXPIRATION_S: i64 = 3_607;

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
    /// Who issues it.
    pub issuer: &'a str,
    /// The API server as an audience.
    pub own_audiences: &'a [String],
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
        audiences.extend_from_slice(asked.own_audiences);
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
    let own_audience = audiences
        .iter()
        .all(|audience| asked.own_audiences.contains(audience));
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
