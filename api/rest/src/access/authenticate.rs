//! Who asks, by what the request itself carries: a bearer token.
//!
//! Invariants
//! - A connection's client certificate comes first: a request on it is its user's.
//! - A request with a token that does not count is answered with 401; it never goes on
//!   as anonymous.

use aws_lc_rs::constant_time;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use nautilus_access::bootstrap_token;
use nautilus_machinery::identity::User;

use super::Access;
use super::accounts::{Authenticated, MAX_TOKEN_BYTES};
use crate::ids;

/// What is said of a token that nobody knows.
const INVALID: &str = "invalid bearer token";

impl Access {
    /// The user of a request whose connection says `user`; `Err` for a token that does
    /// not count.
    pub(crate) async fn user_of(
        &self,
        user: User,
        headers: &HeaderMap,
        path: &str,
    ) -> Result<User, String> {
        if user.is_authenticated() {
            return Ok(user);
        }
        let Some(token) = bearer(headers) else {
            let anonymous = self.issuers.as_ref().is_none_or(|issuers| {
                // Whoever checks whether a node lives has no credential.
                issuers.allows_anonymous(path)
            });
            return match anonymous {
                true => Ok(user),
                false => Err("anonymous requests are not allowed here".to_owned()),
            };
        };
        self.authenticate(token, &[])
            .await
            .map(|authenticated| authenticated.user)
    }

    /// Judges a token for the wanted audiences (empty: the API server's own).
    pub(super) async fn authenticate(
        &self,
        token: &str,
        wanted: &[String],
    ) -> Result<Authenticated, String> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(INVALID.to_owned());
        }
        if let Some((id, secret)) = bootstrap_token::split(token) {
            // One for the API server alone.
            let audiences = self.accounts.own_audiences(wanted);
            let user = self.bootstrapper(id, secret);
            let user = user.filter(|_| !audiences.is_empty());
            return user
                .map(|user| Authenticated { user, audiences })
                .ok_or_else(|| INVALID.to_owned());
        }
        match self.accounts.authenticate(token, wanted).await {
            Some(Ok(authenticated)) => Ok(authenticated),
            Some(Err(why)) => Err(format!("[{INVALID}, {why}]")),
            None => self.foreigner(token, wanted).await,
        }
    }
}

impl Access {
    /// The user of another issuer's token, which counts for the API server alone.
    async fn foreigner(&self, token: &str, wanted: &[String]) -> Result<Authenticated, String> {
        let audiences = self.accounts.own_audiences(wanted);
        let judged = match &self.issuers {
            Some(issuers) if !audiences.is_empty() => issuers.authenticate(token).await,
            _ => None,
        };
        match judged {
            Some(Ok(user)) => Ok(Authenticated { user, audiences }),
            Some(Err(why)) => Err(format!("[{INVALID}, {why}]")),
            None => Err(INVALID.to_owned()),
        }
    }

    fn bootstrapper(&self, id: &str, secret: &str) -> Option<User> {
        let name = format!("{}{id}", bootstrap_token::NAME_PREFIX);
        let held = self
            .lookup("", "secrets", bootstrap_token::NAMESPACE, &name)
            .ok()??;
        let same = |held: &str| {
            constant_time::verify_slices_are_equal(held.as_bytes(), secret.as_bytes()).is_ok()
        };
        bootstrap_token::user(&held, id, ids::now_unix_s(), &same)
    }
}

/// RFC 6750: the token of an `Authorization` header of that scheme.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
