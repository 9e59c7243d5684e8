//! Whether a token whose signature holds still counts, and whose it is.

use std::collections::BTreeMap;

use nautilus_machinery::identity::User;
use nautilus_machinery::status::quote;
use nautilus_machinery::timestamp;
use serde_json::Value;

use super::{Bound, Claims, LEGACY_ISSUER, LegacyClaims, Lookup, text};

/// Label of a secret whose token shall not count any more.
const INVALID_SINCE_LABEL: &str = "kubernetes.io/legacy-token-invalid-since";
/// Clocks may differ by so much, in seconds.
const LEEWAY_S: i64 = 60;

/// Which audiences of a token count for who asks (`wanted`, empty: the API server's `own`).
pub fn audiences(
    claims: &Claims,
    own: &[String],
    wanted: &[String],
) -> Result<Vec<String>, String> {
    let given: &[String] = if claims.aud.is_empty() {
        own
    } else {
        &claims.aud
    };
    let wanted = if wanted.is_empty() { own } else { wanted };
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

/// [`Lookup`], in this file's terms.
type Find<'a> = &'a dyn Fn(&str, &str, &str) -> Result<Option<Value>, Refused>;

fn legacy_user(
    claims: &Claims,
    find: Find<'_>,
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
