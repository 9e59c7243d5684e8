//! As whom extension servers know this server, and how it tells them who asks
//! (`--requestheader-*` of the reference).

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use nautilus_machinery::identity::User;
use rustls::ClientConfig;

use super::service::ApiService;
use crate::authority::Authority;
use crate::upstream::{ComponentIdentity, Trust, client_config};

/// The only name that extension servers take users from.
pub(super) const ALLOWED_NAME: &str = "front-proxy-client";
pub(super) const USER_HEADER: &str = "X-Remote-User";
pub(super) const UID_HEADER: &str = "X-Remote-Uid";
pub(super) const GROUP_HEADER: &str = "X-Remote-Group";
pub(super) const EXTRA_PREFIX: &str = "X-Remote-Extra-";

/// See the module.
pub(super) struct FrontProxy {
    authority: Arc<Authority>,
    identity: Arc<ComponentIdentity>,
}

impl FrontProxy {
    pub(super) fn new(authority: Authority) -> Self {
        let authority = Arc::new(authority);
        let issuer = authority.clone();
        let identity = ComponentIdentity::new(
            ALLOWED_NAME,
            Box::new(move || issuer.issue_component(ALLOWED_NAME, &[])),
        );
        Self {
            authority,
            identity,
        }
    }

    /// Who vouches for this server, as PEM.
    pub(super) fn authority_pem(&self) -> String {
        self.authority.certificate_pem()
    }

    /// How to speak TLS to that server.
    pub(super) fn client(&self, service: &ApiService) -> Result<Arc<ClientConfig>, String> {
        let trust = match (service.insecure, service.ca_bundle.is_empty()) {
            (true, _) => Trust::Anybody,
            (false, true) => return Err("spec.caBundle is empty: nobody is trusted".into()),
            (false, false) => Trust::pem(&service.ca_bundle)?,
        };
        client_config(trust, Some(self.identity.clone()))
    }
}

/// The headers that say who asks. What a client sent under these names is not passed on.
pub(super) fn headers(user: &User) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut put = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()),
            HeaderValue::from_str(value),
        ) {
            headers.append(name, value);
        }
    };
    put(USER_HEADER, &user.name);
    if !user.uid.is_empty() {
        put(UID_HEADER, &user.uid);
    }
    for group in &user.groups {
        put(GROUP_HEADER, group);
    }
    for (key, values) in &user.extra {
        let name = format!("{EXTRA_PREFIX}{}", escape_key(key));
        for value in values {
            put(&name, value);
        }
    }
    headers
}

/// Whether a header is one that says who asks.
pub(super) fn says_who(name: &HeaderName) -> bool {
    let own = [USER_HEADER, UID_HEADER, GROUP_HEADER];
    own.iter()
        .any(|own| name.as_str().eq_ignore_ascii_case(own))
        || name
            .as_str()
            .starts_with(&EXTRA_PREFIX.to_ascii_lowercase())
}

/// Percent-encodes what a header's name can't hold.
fn escape_key(key: &str) -> String {
    let mut escaped = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_told_whole() {
        let mut user = User::authenticated("jane", vec!["dev".into()]);
        user.extra
            .insert("example.org/a b".into(), vec!["1".into(), "2".into()]);
        let headers = headers(&user);
        assert_eq!(headers["x-remote-user"], "jane");
        let groups: Vec<&HeaderValue> = headers.get_all("x-remote-group").iter().collect();
        assert_eq!(groups, ["dev", "system:authenticated"]);
        let extra = "x-remote-extra-example.org%2fa%20b";
        assert_eq!(headers.get_all(extra).iter().count(), 2);
        assert!(headers.keys().all(says_who));
        assert!(!says_who(&HeaderName::from_static("x-own")));
    }
}
