//! Tokens by which a node joins: a public name and a secret part, held in a `Secret`.
//!
//! Source: the reference's bootstrap tokens (`bootstrap.kubernetes.io/token`).

use nautilus_machinery::identity::User;
use nautilus_machinery::timestamp;
use serde_json::Value;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The type of secrets that hold one.
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// Where they stand.
pub const NAMESPACE: &str = "kube-system";
/// What their names start with.
pub const NAME_PREFIX: &str = "bootstrap-token-";
/// The group of everybody who comes with one.
pub(crate) const GROUP: &str = "system:bootstrappers";
/// Length of the public part.
const ID_LENGTH: usize = 6;
/// Length of the secret part.
const SECRET_LENGTH: usize = 16;

/// The two parts of a token of this form; `None` for any other.
pub fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let good = |text: &str, length: usize| {
        text.len() == length
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    (good(id, ID_LENGTH) && good(secret, SECRET_LENGTH)).then_some((id, secret))
}

/// A text of a secret's data, without what surrounds it; empty when there is none.
pub fn data(secret: &Value, key: &str) -> String {
    let encoded = secret["data"][key].as_str().unwrap_or_default();
    let bytes = STANDARD.decode(encoded).unwrap_or_default();
    String::from_utf8(bytes)
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// Whether a secret holds a token that may be used at `now` (seconds) for `usage`
/// (`authentication` or `signing`); one whose expiry cannot be read has expired.
pub fn is_usable(secret: &Value, usage: &str, now: i64) -> bool {
    let expiration = data(secret, "expiration");
    let expired =
        !expiration.is_empty() && timestamp::parse(&expiration).is_none_or(|at| at.seconds <= now);
    secret["type"] == SECRET_TYPE
        && secret["metadata"]["deletionTimestamp"].is_null()
        && !expired
        && data(secret, &format!("usage-bootstrap-{usage}")) == "true"
}

/// Whether a secret's token has expired at `now` (seconds), so that it may go.
pub fn has_expired(secret: &Value, now: i64) -> bool {
    let expiration = data(secret, "expiration");
    secret["type"] == SECRET_TYPE
        && timestamp::parse(&expiration).is_some_and(|at| at.seconds <= now)
}

/// The user of the token `id`, of which `secret` is held. `same` says whether its text
/// is the token's secret part, and must compare in constant time.
pub fn user(secret: &Value, id: &str, now: i64, same: &dyn Fn(&str) -> bool) -> Option<User> {
    let held = same(&data(secret, "token-secret"));
    if !held || data(secret, "token-id") != id || !is_usable(secret, "authentication", now) {
        return None;
    }
    let mut groups = vec![GROUP.to_owned()];
    let extra = data(secret, "auth-extra-groups");
    for group in extra.split(',').filter(|group| !group.is_empty()) {
        let rest = group.strip_prefix("system:bootstrappers:")?;
        let good = rest.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b":-".contains(&byte)
        });
        if !good || rest.is_empty() || rest.len() > 256 || rest.ends_with([':', '-']) {
            return None;
        }
        if !groups.iter().any(|own| own == group) {
            groups.push(group.to_owned());
        }
    }
    Some(User::authenticated(
        format!("system:bootstrap:{id}"),
        groups,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(expiration: &str, groups: &str) -> Value {
        let encode = |text: &str| STANDARD.encode(text);
        json!({
            "type": SECRET_TYPE,
            "metadata": { "name": "bootstrap-token-abcdef" },
            "data": {
                "token-id": encode("abcdef"),
                "token-secret": encode("0123456789abcdef"),
                "expiration": encode(expiration),
                "usage-bootstrap-authentication": encode("true"),
                "auth-extra-groups": encode(groups),
            },
        })
    }

    #[test]
    fn a_bootstrap_token_makes_a_bootstrapper_until_it_expires() {
        let now = 1_800_000_000;
        let judge = |secret: &Value, id: &str, given: &str| {
            user(secret, id, now, &|held| held == given).map(|user| user.groups)
        };
        let good = secret("2027-01-15T08:00:01Z", "system:bootstrappers:workers");
        let (id, part) = split("abcdef.0123456789abcdef").expect("a token");
        let groups = judge(&good, id, part).expect("it counts");
        assert_eq!(
            groups,
            [
                "system:bootstrappers",
                "system:bootstrappers:workers",
                "system:authenticated",
            ]
        );
        assert!(judge(&good, "abcdeg", part).is_none());
        assert!(judge(&good, id, "0123456789abcdeg").is_none());
        assert!(judge(&secret("2027-01-15T08:00:00Z", ""), id, part).is_none());
        assert!(judge(&secret("soon", ""), id, part).is_none());
        assert!(judge(&secret("", "system:masters"), id, part).is_none());
        assert!(split("abcdef.short").is_none() && split("abcdeF.0123456789abcdef").is_none());
    }
}
