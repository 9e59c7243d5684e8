//! Who asks, by what the request itself carries: a bearer token, or the password of an agent
//! of K3s, which is a Seal token.
//!
//! Invariants
//! - A connection's client certificate comes first: a request on it is its user's. That of a
//!   node whose stake is gone counts for nobody.
//! - A request with a token that does not count is answered with 401, one that nobody can judge
//!   now with 503; it never goes on as anonymous.

use aws_lc_rs::constant_time;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use nautilus_access::{bootstrap_token, seal};
use nautilus_machinery::identity::{AuditNote, User};
use nautilus_machinery::status::ApiError;
use zeroize::Zeroizing;

use super::Access;
use super::accounts::{Authenticated, MAX_TOKEN_BYTES};
use crate::joining::SealRefusal;
use crate::{cut, ids, k3s};

/// What is said of a token that nobody knows.
const INVALID: &str = "invalid bearer token";
/// When to come again with a token that can't be judged now, in seconds.
const RETRY_AFTER_S: u32 = 5;

impl Access {
    /// The user of a request whose connection says `user`; `Err` for a credential that does
    /// not count.
    pub(crate) async fn user_of(
        &self,
        user: User,
        headers: &HeaderMap,
        path: &str,
    ) -> Result<User, Refused> {
        if user.is_authenticated() {
            return self.unless_barred(user);
        }
        let of_agent = path.starts_with(k3s::PREFIX);
        let claimed = k3s::claimed_node(headers).filter(|_| of_agent);
        if let Some(password) = agents_password(headers).filter(|_| of_agent) {
            return self.joiner(&password, claimed.as_deref()).await;
        }
        let Some(token) = bearer(headers) else {
            let anonymous = self.issuers.as_ref().is_none_or(|issuers| {
                // Whoever checks whether a node lives has no credential.
                issuers.allows_anonymous(path)
            });
            return match anonymous {
                true => Ok(user),
                false => Err(Refused::Invalid(
                    "anonymous requests are not allowed here".to_owned(),
                )),
            };
        };
        match self
            .authenticate_claimed(token, &[], claimed.as_deref())
            .await
        {
            Ok(authenticated) => self.unless_barred(authenticated.user),
            Err(refused) => Err(refused),
        }
    }

    /// Judges a token for the wanted audiences (empty: the API server's own).
    pub(super) async fn authenticate(
        &self,
        token: &str,
        wanted: &[String],
    ) -> Result<Authenticated, String> {
        let judged = self.authenticate_claimed(token, wanted, None).await;
        judged.map_err(|refused| refused.to_string())
    }

    async fn authenticate_claimed(
        &self,
        token: &str,
        wanted: &[String],
        claimed: Option<&str>,
    ) -> Result<Authenticated, Refused> {
        let invalid = |why: &str| Refused::Invalid(why.to_owned());
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid(INVALID));
        }
        if let Some((id, secret)) = bootstrap_token::split(token) {
            // One for the API server alone.
            let audiences = self.accounts.own_audiences(wanted);
            let user = self.bootstrapper(id, secret);
            let user = user.filter(|_| !audiences.is_empty());
            return user
                .map(|user| Authenticated { user, audiences })
                .ok_or_else(|| invalid(INVALID));
        }
        match self.accounts.authenticate(token, wanted).await {
            Some(Ok(authenticated)) => return Ok(authenticated),
            Some(Err(why)) => return Err(Refused::Invalid(format!("[{INVALID}, {why}]"))),
            None => {}
        }
        match self.foreigner(token, wanted).await {
            Some(judged) => judged.map_err(Refused::Invalid),
            None => {
                let audiences = self.accounts.own_audiences(wanted);
                if audiences.is_empty() {
                    return Err(invalid(INVALID));
                }
                let user = self.joiner(token, claimed).await?;
                Ok(Authenticated { user, audiences })
            }
        }
    }

    /// The user of a Seal token, perhaps in the form of a join token of K3s.
    async fn joiner(&self, token: &str, claimed: Option<&str>) -> Result<User, Refused> {
        let Some(workers) = &self.workers else {
            return Err(Refused::Invalid(INVALID.to_owned()));
        };
        match workers.node_of_token(seal::bare(token), claimed).await {
            Ok(node) => Ok(seal::user(&node)),
            Err(SealRefusal::Invalid(why)) => Err(Refused::Seal { why, word: None }),
            Err(SealRefusal::Suspicious { why, word }) => Err(Refused::Seal {
                why,
                word: Some(word),
            }),
            Err(SealRefusal::Unavailable(why)) => Err(Refused::Later(why)),
        }
    }

    /// A node's user, or its agent's, only while its worker's stake is there.
    fn unless_barred(&self, user: User) -> Result<User, Refused> {
        let node = cut::node_of(&user);
        let (Some(workers), Some(node)) = (&self.workers, node) else {
            return Ok(user);
        };
        match workers.barred(node) {
            Ok(None) => Ok(user),
            Ok(Some(why)) => Err(Refused::Removed(format!(
                "the node {node} is removed: {why}"
            ))),
            Err(why) => Err(Refused::Later(why)),
        }
    }
}

/// Why a credential opens nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// It does not count.
    #[error("{0}")]
    Invalid(String),
    /// It is a Seal token that does not count; `word`: and may be in a stranger's hands.
    #[error("[{INVALID}, {why}]")]
    Seal {
        why: String,
        word: Option<&'static str>,
    },
    /// It is of a node that is shut out.
    #[error("{0}")]
    Removed(String),
    /// It can't be judged now.
    #[error("{0}")]
    Later(String),
}

impl Refused {
    /// What is answered.
    pub(crate) fn answer(&self) -> ApiError {
        match self {
            Self::Invalid(_) => ApiError::unauthorized(),
            // Whoever has the token, or the certificate, may know what is wrong with it.
            Self::Seal { why, .. } => unauthorized(&format!("invalid Seal token: {why}")),
            Self::Removed(why) => unauthorized(why),
            Self::Later(why) => ApiError::unavailable(why.clone(), RETRY_AFTER_S),
        }
    }

    /// What the audit log is to say of it, beside the answer.
    pub(crate) fn note(&self) -> Option<AuditNote> {
        match self {
            Self::Seal {
                word: Some(word), ..
            } => Some(AuditNote {
                key: "nautilus.io/seal-token-refused",
                value: (*word).to_owned(),
            }),
            _ => None,
        }
    }
}

fn unauthorized(why: &str) -> ApiError {
    ApiError::unauthorized().with_message(format!("Unauthorized: {why}"))
}

impl Access {
    /// The user of another issuer's token, which counts for the API server alone; `None`
    /// for what no issuer knows.
    async fn foreigner(
        &self,
        token: &str,
        wanted: &[String],
    ) -> Option<Result<Authenticated, String>> {
        let audiences = self.accounts.own_audiences(wanted);
        let judged = match &self.issuers {
            Some(issuers) if !audiences.is_empty() => issuers.authenticate(token).await,
            _ => None,
        };
        Some(match judged? {
            Ok(user) => Ok(Authenticated { user, audiences }),
            Err(why) => Err(format!("[{INVALID}, {why}]")),
        })
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

/// RFC 7617: the password of an agent of K3s, whose user is `node` or has no name.
fn agents_password(headers: &HeaderMap) -> Option<Zeroizing<String>> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credentials) = value.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || credentials.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let decoded = Zeroizing::new(STANDARD.decode(credentials.trim()).ok()?);
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    let good = matches!(user, "" | "node") && !password.is_empty();
    good.then(|| Zeroizing::new(password.to_owned()))
}
