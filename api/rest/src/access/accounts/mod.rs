//! Service accounts' tokens over HTTP: asked for, checked, and the documents by which
//! others check them.
//!
//! Invariants
//! - The signature is checked before anything in a token is believed.
//! - A token that this node would refuse for what it has not seen yet is judged again
//!   behind a read barrier.

mod keys;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use aws_lc_rs::{constant_time, digest};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use nautilus_access::token::{self, Claims, Refused, TokenAsked};
use nautilus_machine::Kv;
use nautilus_machinery::identity::User;
use nautilus_machinery::status::ApiError;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::ids;
use crate::respond;
use crate::storage::Storage;
use keys::SigningKeys;

/// Who issues the tokens where nothing is said: what kubeadm calls a cluster.
const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Bytes of a token, at most.
pub(super) const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Tokens whose signature need not be checked again.
const MAX_VERIFIED: usize = 4_096;

/// A token's user, and for which of the audiences asked about it counts.
pub(crate) struct Authenticated {
    pub(crate) user: User,
    pub(crate) audiences: Vec<String>,
}

/// A token that was asked for.
pub(crate) struct Issued {
    /// The `TokenRequest` with its status.
    pub(crate) answer: Value,
    /// What the client should hear.
    pub(crate) warning: Option<String>,
    /// The token's name, as the audit log and its user have it.
    pub(crate) credential: String,
}

/// The tokens of service accounts.
pub(crate) struct Accounts {
    storage: Storage,
    /// The first signs, all are believed, and are the API server's audiences.
    issuers: Vec<String>,
    keys: Mutex<Option<Arc<SigningKeys>>>,
    verified: Mutex<Verified>,
}

/// Claims of tokens whose signature held, by the tokens' SHA-256; the oldest goes first.
#[derive(Default)]
struct Verified {
    /// Of the keys of this revision.
    revision: u64,
    claims: BTreeMap<[u8; 32], Arc<Claims>>,
    order: VecDeque<[u8; 32]>,
}

impl Verified {
    fn put(&mut self, revision: u64, token: [u8; 32], claims: Arc<Claims>) {
        if self.revision != revision {
            *self = Self {
                revision,
                ..Self::default()
            };
        }
        if self.claims.insert(token, claims).is_none() {
            self.order.push_back(token);
        }
        if self.order.len() > MAX_VERIFIED
            && let Some(oldest) = self.order.pop_front()
        {
            self.claims.remove(&oldest);
        }
    }
}

/// The first part of a token.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
}

impl Accounts {
    pub(super) fn new(kv: Arc<dyn Kv>, issuers: &[String]) -> Self {
        Self {
            storage: Storage::new(kv),
            issuers: or_default(issuers),
            keys: Mutex::default(),
            verified: Mutex::default(),
        }
    }

    /// The leader's work: a first key, and a new one in time.
    pub(crate) async fn keep_keys(storage: &Storage, term: u64) -> Result<(), Failure> {
        keys::ensure(storage.kv.as_ref(), ids::now_unix_s(), Some(term)).await
    }

    fn known_keys(&self) -> Result<Option<Arc<SigningKeys>>, Failure> {
        let known = self.keys.lock().clone();
        let keys = SigningKeys::read(self.storage.kv.as_ref(), known.as_ref())?;
        *self.keys.lock() = keys.clone();
        Ok(keys)
    }

    async fn keys(&self) -> Result<Arc<SigningKeys>, Failure> {
        if let Some(keys) = self.known_keys()? {
            return Ok(keys);
        }
        keys::ensure(self.storage.kv.as_ref(), ids::now_unix_s(), None).await?;
        let keys = self.known_keys()?;
        keys.ok_or_else(|| ApiError::unavailable("there is no signing key yet", 1).into())
    }

    /// Signs claims: RFC 7515, compact.
    pub(crate) async fn sign(&self, claims: &Claims) -> Result<String, Failure> {
        let keys = self.keys().await?;
        let key = keys
            .signer(ids::now_unix_s())
            .ok_or_else(|| ApiError::internal("there is no signing key"))?;
        let header = json!({ "alg": "RS256", "kid": key.id });
        let claims =
            serde_json::to_string(claims).map_err(|error| ApiError::internal(error.to_string()))?;
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let mut token = format!("{}.{}", part(&header.to_string()), part(&claims));
        let signature = key.sign(token.as_bytes())?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(token)
    }

    /// Answers a `TokenRequest` about an account.
    pub(crate) async fn token_request(
        &self,
        namespace: &str,
        name: &str,
        request: &Value,
    ) -> Result<Issued, Failure> {
        self.storage.barrier().await?;
        let account = self
            .lookup("serviceaccounts", namespace, name)?
            .ok_or_else(|| ApiError::not_found_on("", "serviceaccounts", name))?;
        let jti = ids::uuid();
        let asked = TokenAsked {
            account: &account,
            request,
            issuer: self.issuer(),
            own_audiences: &self.issuers,
            now: ids::now_unix_s(),
            jti: &jti,
        };
        let lookup =
            |plural: &str, namespace: &str, name: &str| self.lookup(plural, namespace, name);
        let granted = token::grant(&asked, &lookup)?;
        let mut answer = granted.answer;
        answer["status"]["token"] = self.sign(&granted.claims).await?.into();
        Ok(Issued {
            answer,
            warning: granted.warning,
            credential: format!("JTI={jti}"),
        })
    }

    fn lookup(&self, plural: &str, namespace: &str, name: &str) -> Result<Option<Value>, ApiError> {
        let resource = crate::storage::built_in("", plural)?;
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        let row = self
            .storage
            .read(resource, &resource.key(namespace, name))
            .map_err(|failure| failure.error)?;
        Ok(row.map(|row| row.object))
    }

    /// Judges a bearer token: `None` if it is none of ours, else the user for the wanted
    /// audiences (empty: the API server's own), or why not.
    pub(crate) async fn authenticate(
        &self,
        token: &str,
        wanted: &[String],
    ) -> Option<Result<Authenticated, String>> {
        let unverified = self.own_claims(token)?;
        let claims = match self.verified_claims(token, unverified) {
            Ok(claims) => claims,
            Err(why) => return Some(Err(why)),
        };
        let audiences = match token::audiences(&claims, &self.issuers, wanted) {
            Ok(audiences) => audiences,
            Err(why) => return Some(Err(why)),
        };
        let mut judged = self.judge(&claims, token);
        if matches!(judged, Err(Refused::Objects(_))) && self.storage.barrier().await.is_ok() {
            judged = self.judge(&claims, token);
        }
        Some(match judged {
            Ok(user) => Ok(Authenticated { user, audiences }),
            Err(refused) => Err(refused.message().to_owned()),
        })
    }

    fn judge(&self, claims: &Claims, token: &str) -> Result<User, Refused> {
        let lookup =
            |plural: &str, namespace: &str, name: &str| self.lookup(plural, namespace, name);
        let same = |held: &str| {
            STANDARD.decode(held).is_ok_and(|held| {
                constant_time::verify_slices_are_equal(&held, token.as_bytes()).is_ok()
            })
        };
        token::user(claims, ids::now_unix_s(), &lookup, &same)
    }

    /// The claims, once the signature held.
    fn verified_claims(&self, token: &str, claims: Claims) -> Result<Arc<Claims>, String> {
        let keys = self
            .known_keys()
            .map_err(|failure| failure.error.to_string())?
            .ok_or("invalid signature, no keys found")?;
        let mut name = [0; 32];
        name.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        {
            let verified = self.verified.lock();
            if verified.revision == keys.revision
                && let Some(claims) = verified.claims.get(&name)
            {
                return Ok(claims.clone());
            }
        }
        let holds = signature_of(token).is_some_and(|(header, message, signature)| {
            header.alg == "RS256" && keys.verify(header.kid.as_deref(), message, &signature)
        });
        if !holds {
            return Err("invalid signature".to_owned());
        }
        let claims = Arc::new(claims);
        self.verified
            .lock()
            .put(keys.revision, name, claims.clone());
        Ok(claims)
    }

    /// `/.well-known/openid-configuration`.
    pub(crate) fn configuration(&self, api_address: &str) -> Result<Response, Failure> {
        self.check_discoverable()?;
        public(
            "application/json",
            &json!({
                "issuer": self.issuer(),
                "jwks_uri": format!("{api_address}/openid/v1/jwks"),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }),
        )
    }

    /// `/openid/v1/jwks`.
    pub(crate) async fn public_keys(&self) -> Result<Response, Failure> {
        self.check_discoverable()?;
        public("application/jwk-set+json", &self.keys().await?.public_set())
    }

    fn issuer(&self) -> &str {
        self.issuers.first().map_or(DEFAULT_ISSUER, String::as_str)
    }

    /// The API server's audiences among the wanted ones (empty: all of them).
    pub(super) fn own_audiences(&self, wanted: &[String]) -> Vec<String> {
        let own = self.issuers.iter();
        own.filter(|own| wanted.is_empty() || wanted.contains(own))
            .cloned()
            .collect()
    }

    /// Only an issuer that has an address of its own can be discovered (OpenID Connect
    /// Discovery 1.0, 3).
    fn check_discoverable(&self) -> Result<(), ApiError> {
        let issuer = self.issuer();
        match issuer.starts_with("https://") && !issuer.contains('?') {
            true => Ok(()),
            false => Err(ApiError::path_not_found()),
        }
    }

    /// The claims of a token that says it is ours; nothing of it is to be believed yet.
    fn own_claims(&self, token: &str) -> Option<Claims> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let payload = token.split('.').nth(1)?;
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let claims: Claims = serde_json::from_slice(&payload).ok()?;
        (self.issuers.contains(&claims.iss) || claims.iss == token::LEGACY_ISSUER).then_some(claims)
    }
}

/// The issuers that were asked for, or the one where nothing is said.
pub(super) fn or_default(issuers: &[String]) -> Vec<String> {
    match issuers {
        [] => vec![DEFAULT_ISSUER.to_owned()],
        issuers => issuers.to_vec(),
    }
}

fn public(media: &'static str, document: &Value) -> Result<Response, Failure> {
    let mut response = respond::bytes(StatusCode::OK, media, document.to_string());
    let kept = format!("public, max-age={}", keys::PUBLISHED_FOR_S);
    let kept =
        HeaderValue::from_str(&kept).map_err(|error| ApiError::internal(error.to_string()))?;
    response.headers_mut().insert(CACHE_CONTROL, kept);
    Ok(response)
}

/// A token's header, what was signed, and the signature.
fn signature_of(token: &str) -> Option<(Header, &[u8], Vec<u8>)> {
    let (message, signature) = token.rsplit_once('.')?;
    let (header, payload) = message.split_once('.')?;
    if payload.contains('.') {
        return None;
    }
    let header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    Some((header, message.as_bytes(), signature))
}
