//! Tokens of other issuers: their keys, fetched and kept, and their signatures.
//!
//! Invariants
//! - Only the keys that an issuer publishes at its own discovery document count, fetched
//!   over TLS, for asymmetric algorithms only.
//! - Keys are fetched when a token names one that is not known, at most once in
//!   [`REFETCH_PAUSE`] for each issuer: a flood of tokens does not become one of
//!   requests.
//! - Everything that is fetched has a bound in bytes, in number and in time.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use nautilus_access::jwt::{Authenticator, Configuration};
use nautilus_machinery::identity::User;
use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::ids;
use crate::upstream::{Trust, http_client};

/// From one fetch of an issuer's keys to the next, at least.
const REFETCH_PAUSE: Duration = Duration::from_secs(10);
/// For a whole fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a discovery document or a key set, at most.
const MAX_DOCUMENT_BYTES: usize = 512 * 1024;
/// Keys of one issuer, at most.
const MAX_KEYS: usize = 128;
/// What tokens may be signed with.
const ALGORITHMS: [Algorithm; 8] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// The issuers of a configuration.
pub(super) struct Issuers {
    configuration: Arc<Configuration>,
    /// One for each, in the configuration's order.
    keys: Vec<Keys>,
}

/// What is known of one issuer's keys.
#[derive(Default)]
struct Keys {
    set: RwLock<Arc<Vec<Jwk>>>,
    /// When a fetch was last begun; held while one runs.
    fetched: Mutex<Option<Instant>>,
}

impl Issuers {
    pub(super) fn new(configuration: Arc<Configuration>) -> Self {
        let keys = configuration.authenticators.iter();
        Self {
            keys: keys.map(|_| Keys::default()).collect(),
            configuration,
        }
    }

    /// Whether a request without credentials may go to that path.
    pub(super) fn allows_anonymous(&self, path: &str) -> bool {
        self.configuration.anonymous.allows(path)
    }

    /// Judges a token: `None` if none of the issuers is named in it.
    pub(super) async fn authenticate(&self, token: &str) -> Option<Result<User, String>> {
        let issuer = issuer_of(token)?;
        let at = self
            .configuration
            .authenticators
            .iter()
            .position(|own| own.issuer == issuer)?;
        let authenticator = &self.configuration.authenticators[at];
        let claims = match self.keys[at].verify(authenticator, token).await {
            Ok(claims) => claims,
            Err(why) => return Some(Err(format!("oidc: verify token: {why}"))),
        };
        Some(authenticator.user(&claims, ids::now_unix_s()))
    }
}

/// The issuer that a token names; nothing of it is to be believed yet.
fn issuer_of(token: &str) -> Option<String> {
    let payload = token.split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    claims["iss"].as_str().map(str::to_owned)
}

impl Keys {
    /// The claims of a token whose signature holds.
    async fn verify(&self, issuer: &Authenticator, token: &str) -> Result<Value, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| error.to_string())?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(format!(
                "signed with unsupported algorithm {:?}",
                header.alg
            ));
        }
        let known = self.set.read().clone();
        if let Some(claims) = verify_with(&known, header.kid.as_deref(), header.alg, token) {
            return Ok(claims);
        }
        let fresh = self.refetch(issuer, &known).await?;
        verify_with(&fresh, header.kid.as_deref(), header.alg, token)
            .ok_or_else(|| "failed to verify signature".to_owned())
    }

    /// The keys as they are now, unless they were fetched just before.
    async fn refetch(
        &self,
        issuer: &Authenticator,
        seen: &Arc<Vec<Jwk>>,
    ) -> Result<Arc<Vec<Jwk>>, String> {
        let mut fetched = self.fetched.lock().await;
        let known = self.set.read().clone();
        // Somebody else fetched while this one waited, or nothing new can be there.
        let recent = fetched.is_some_and(|at| at.elapsed() < REFETCH_PAUSE);
        if !Arc::ptr_eq(&known, seen) || recent {
            return Ok(known);
        }
        *fetched = Some(Instant::now());
        let fetching = tokio::time::timeout(FETCH_TIMEOUT, fetch(issuer));
        let keys = fetching
            .await
            .map_err(|_| "the issuer's keys did not come in time".to_owned())?
            .inspect_err(|why| {
                tracing::warn!(issuer = %issuer.issuer, %why, "an issuer's keys cannot be had");
            })?;
        let keys = Arc::new(keys);
        *self.set.write() = keys.clone();
        Ok(keys)
    }
}

fn verify_with(keys: &[Jwk], id: Option<&str>, alg: Algorithm, token: &str) -> Option<Value> {
    let mut validation = Validation::new(alg);
    // Issuer, audience and times are judged with the rest of the claims.
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    keys.iter()
        .filter(|key| id.is_none() || key.common.key_id.as_deref() == id)
        .filter_map(|key| DecodingKey::from_jwk(key).ok())
        .find_map(|key| jsonwebtoken::decode::<Value>(token, &key, &validation).ok())
        .map(|decoded| decoded.claims)
}

/// An issuer's keys, by its discovery document.
async fn fetch(issuer: &Authenticator) -> Result<Vec<Jwk>, String> {
    let trust = if issuer.certificate_authority.is_empty() {
        Trust::system()
    } else {
        Trust::pem(issuer.certificate_authority.as_bytes())?
    };
    let builder = http_client(trust)?.https_only(true).timeout(FETCH_TIMEOUT);
    let client = builder.build().map_err(|error| error.to_string())?;
    let discovery = issuer.discovery_url.clone().unwrap_or_else(|| {
        let base = issuer.issuer.trim_end_matches('/');
        format!("{base}/.well-known/openid-configuration")
    });
    let document: Value = get(&client, &discovery).await?;
    if document["issuer"] != issuer.issuer.as_str() {
        return Err(format!(
            "issuer did not match the issuer returned by provider, expected {:?} got {}",
            issuer.issuer, document["issuer"]
        ));
    }
    let uri = document["jwks_uri"]
        .as_str()
        .ok_or("the discovery document names no jwks_uri")?;
    let mut set: Value = get(&client, uri).await?;
    let keys = set["keys"].as_array_mut().map(std::mem::take);
    // A key of a sort that is not known is passed over, as it is not for us.
    let mut keys: Vec<Jwk> = keys
        .unwrap_or_default()
        .into_iter()
        .filter_map(|key| serde_json::from_value(key).ok())
        .filter(|key: &Jwk| !matches!(key.algorithm, AlgorithmParameters::OctetKey(_)))
        .collect();
    keys.truncate(MAX_KEYS);
    Ok(JwkSet { keys }.keys)
}

async fn get(client: &reqwest::Client, url: &str) -> Result<Value, String> {
    use futures_util::StreamExt as _;
    let response = client
        .get(url)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(|error| error.to_string())?;
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        body.extend_from_slice(&chunk.map_err(|error| error.to_string())?);
        if body.len() > MAX_DOCUMENT_BYTES {
            return Err(format!("{url} has more than {MAX_DOCUMENT_BYTES} bytes"));
        }
    }
    serde_json::from_slice(&body).map_err(|error| format!("{url}: {error}"))
}
