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

mod grant;
mod judge;

use nautilus_machinery::status::ApiError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use grant::{Granted, TokenAsked, grant};
pub use judge::{Refused, SameToken, audiences, user};

#[cfg(test)]
mod tests;

/// The issuer of secrets' tokens.
pub const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// The longest that is given, in seconds; a key that signed must be kept as long.
pub const MAX_EXPIRATION_S: i64 = 365 * 86_400;

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
