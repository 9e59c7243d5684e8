//! The keys that sign service accounts' tokens: made in here, kept as one row of the
//! replicated, encrypted store.
//!
//! RS256: every relying party of OpenID Connect must understand it, it is what kubeadm
//! gives its clusters, and a token is checked on every request but signed once an hour:
//! RSA's cheap side is the one used most.
//!
//! Invariants
//! - A private key stands in that row and in memory only; copies of its bytes are
//!   zeroized.
//! - A key signs only after everybody who keeps the published set had the time to
//!   fetch it, and is published for as long as anything it signed may count.

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey,
};
use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nautilus_access::token::MAX_EXPIRATION_S;
use nautilus_machine::types::KeyRange;
use nautilus_machine::{
    Command, Compare, Kv, Operation, Outcome, Proposal, Put, RangeRequest, Revision, Txn,
};
use nautilus_machinery::status::ApiError;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Where the keys stand. No face serves this prefix.
const KEYS_KEY: &str = "/nautilus/service-account-keys";
/// A key is followed by another one after so many seconds.
const KEY_LIFETIME_S: i64 = 90 * 86_400;
/// What clients are told to keep the published set for, in seconds.
pub(super) const PUBLISHED_FOR_S: i64 = 3_600;
/// Keys kept at once: one a quarter, for a token's longest life.
const MAX_KEYS: usize = 8;
/// Attempts to create or replace the row.
const MAX_ATTEMPTS: usize = 16;

/// One key.
pub(super) struct SigningKey {
    created: i64,
    pair: KeyPair,
    pub(super) id: String,
}

/// The keys of a revision of the row, the newest first.
pub(super) struct SigningKeys {
    pub(super) revision: Revision,
    keys: Vec<SigningKey>,
}

fn damaged(what: &str) -> Failure {
    ApiError::internal(format!("the service accounts' keys are damaged: {what}")).into()
}

impl SigningKey {
    fn read(created: i64, der: &[u8]) -> Result<Self, Failure> {
        let pair = KeyPair::from_pkcs8(der).map_err(|error| damaged(&error.to_string()))?;
        let spki: PublicKeyX509Der<'_> = pair
            .public_key()
            .as_der()
            .map_err(|_| damaged("a public key"))?;
        let id = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, spki.as_ref()));
        Ok(Self { created, pair, id })
    }

    /// Signs a token's text so far.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let random = rand::SystemRandom::new();
        self.pair
            .sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
            .map_err(|_| ApiError::internal("a token could not be signed"))?;
        Ok(signature)
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.pair.public_key().as_ref())
            .verify(message, signature)
            .is_ok()
    }

    /// RFC 7517.
    fn jwk(&self) -> Value {
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let public = self.pair.public_key();
        json!({
            "use": "sig",
            "kty": "RSA",
            "kid": self.id,
            "alg": "RS256",
            "n": number(public.modulus().big_endian_without_leading_zero()),
            "e": number(public.exponent().big_endian_without_leading_zero()),
        })
    }
}

impl SigningKeys {
    /// The keys as this node sees them; `known` where it is of the same revision.
    pub(super) fn read(
        kv: &dyn Kv,
        known: Option<&std::sync::Arc<Self>>,
    ) -> Result<Option<std::sync::Arc<Self>>, Failure> {
        let answer = kv.range(&RangeRequest::newest(KeyRange::single(KEYS_KEY)))?;
        let Some(row) = answer.kvs.first() else {
            return Ok(None);
        };
        if let Some(known) = known.filter(|known| known.revision == row.mod_revision) {
            return Ok(Some(known.clone()));
        }
        let bytes = Zeroizing::new(row.value.to_vec());
        let mut keys = Vec::new();
        for (created, der) in split(&bytes)? {
            keys.push(SigningKey::read(created, der)?);
        }
        if keys.is_empty() {
            return Err(damaged("there is none"));
        }
        Ok(Some(std::sync::Arc::new(Self {
            revision: row.mod_revision,
            keys,
        })))
    }

    /// The key that signs at `now`: the newest that everybody may have fetched.
    pub(super) fn signer(&self, now: i64) -> Option<&SigningKey> {
        self.keys
            .iter()
            .find(|key| key.created + PUBLISHED_FOR_S <= now)
            .or(self.keys.last())
    }

    /// Whether a key of that id (any, when the token names none) signed the message.
    pub(super) fn verify(&self, id: Option<&str>, message: &[u8], signature: &[u8]) -> bool {
        self.keys
            .iter()
            .filter(|key| id.is_none_or(|id| id == key.id))
            .any(|key| key.verifies(message, signature))
    }

    /// The public set, RFC 7517.
    pub(super) fn public_set(&self) -> Value {
        let keys: Vec<Value> = self.keys.iter().map(SigningKey::jwk).collect();
        json!({ "keys": keys })
    }

    fn is_due(&self, now: i64) -> bool {
        self.keys
            .first()
            .is_some_and(|newest| newest.created + KEY_LIFETIME_S <= now)
    }
}

/// Makes the first key where there is none, and a new one where the newest is old.
/// Written by compare-and-swap, so that all nodes end up with one row.
pub(super) async fn ensure(kv: &dyn Kv, now: i64, term: Option<u64>) -> Result<(), Failure> {
    for _ in 0..MAX_ATTEMPTS {
        kv.read_barrier().await?;
        let present = SigningKeys::read(kv, None)?;
        if present.as_ref().is_some_and(|keys| !keys.is_due(now)) {
            return Ok(());
        }
        let fresh = tokio::task::spawn_blocking(|| KeyPair::generate(KeySize::Rsa2048))
            .await
            .map_err(|error| ApiError::internal(error.to_string()))?
            .map_err(|_| ApiError::internal("a signing key could not be made"))?;
        let revision = present.as_ref().map_or(0, |keys| keys.revision);
        let row = row(&fresh, present.as_deref(), now)?;
        let proposal = Proposal {
            guard_term: term,
            ..Proposal::new(Command::Txn(Txn {
                compare: vec![Compare::mod_revision(KEYS_KEY, revision)],
                then: vec![Operation::Put(Put::new(KEYS_KEY, row.to_vec()))],
                otherwise: Vec::new(),
            }))
        };
        // Whatever became of it, the next look tells.
        match kv.propose(proposal).await {
            Ok(applied) if matches!(applied.outcome, Outcome::Txn { .. }) => {}
            Ok(applied) => tracing::debug!(outcome = ?applied.outcome, "no key was written"),
            Err(error) => tracing::debug!(%error, "no key was written"),
        }
    }
    Err(ApiError::unavailable("no signing key could be made", 1).into())
}

/// The row: for each key when it was made (8 bytes, big endian seconds), its length (4
/// bytes) and its PKCS#8 DER, the newest first. No serializer sees a key.
fn row(
    fresh: &KeyPair,
    present: Option<&SigningKeys>,
    now: i64,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut row = Zeroizing::new(Vec::new());
    let mut append = |created: i64, pair: &KeyPair| -> Result<(), Failure> {
        let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| damaged("a private key"))?;
        let der = Zeroizing::new(der.as_ref().to_vec());
        let length = u32::try_from(der.len()).map_err(|_| damaged("its length"))?;
        row.extend_from_slice(&created.to_be_bytes());
        row.extend_from_slice(&length.to_be_bytes());
        row.extend_from_slice(&der);
        Ok(())
    };
    append(now, fresh)?;
    let mut followed_at = now;
    for key in present
        .iter()
        .flat_map(|keys| &keys.keys)
        .take(MAX_KEYS - 1)
    {
        // It signed until its successor did; what it signed counts so long after.
        if followed_at + PUBLISHED_FOR_S + MAX_EXPIRATION_S > now {
            append(key.created, &key.pair)?;
        }
        followed_at = key.created;
    }
    Ok(row)
}

fn split(mut row: &[u8]) -> Result<Vec<(i64, &[u8])>, Failure> {
    let mut keys = Vec::new();
    while let Some((created, rest)) = row.split_first_chunk::<8>() {
        let short = || damaged("the row is cut short");
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| short())?;
        let (der, rest) = rest.split_at_checked(length).ok_or_else(short)?;
        keys.push((i64::from_be_bytes(*created), der));
        row = rest;
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nautilus_machine::UnixMillis;
    use nautilus_machine::solo::SoloKv;

    #[tokio::test]
    async fn a_new_key_is_published_before_it_signs_and_the_old_one_stays_for_its_tokens() {
        let kv = SoloKv::new(|| UnixMillis(1));
        ensure(&kv, 0, None).await.expect("the first key");
        let first = SigningKeys::read(&kv, None).expect("read").expect("keys");
        let old = first.signer(0).expect("a key").id.clone();
        let signature = first.signer(0).expect("a key").sign(b"x").expect("signed");
        ensure(&kv, KEY_LIFETIME_S - 1, None)
            .await
            .expect("nothing is due");
        assert_eq!(
            SigningKeys::read(&kv, Some(&first))
                .unwrap()
                .unwrap()
                .revision,
            first.revision
        );
        ensure(&kv, KEY_LIFETIME_S, None)
            .await
            .expect("a second key");
        let both = SigningKeys::read(&kv, Some(&first))
            .expect("read")
            .expect("keys");
        assert_eq!(both.public_set()["keys"].as_array().map(Vec::len), Some(2));
        assert_eq!(both.signer(KEY_LIFETIME_S).expect("a key").id, old);
        let later = KEY_LIFETIME_S + PUBLISHED_FOR_S;
        assert_ne!(both.signer(later).expect("a key").id, old);
        assert!(both.verify(Some(&old), b"x", &signature));
        assert!(both.verify(None, b"x", &signature));
        assert!(!both.verify(Some(&old), b"y", &signature));
        // Four quarters and a bit later nothing that it signed counts any more.
        for quarter in 2..=6 {
            ensure(&kv, KEY_LIFETIME_S * quarter, None)
                .await
                .expect("one more");
        }
        let keys = SigningKeys::read(&kv, None).expect("read").expect("keys");
        assert!(!keys.verify(None, b"x", &signature));
    }
}
