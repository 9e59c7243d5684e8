//! The password that a node chooses when it joins: whoever has its token alone can't take its
//! place. Kept as K3s keeps it, as the hash in an immutable secret, which goes with the `Node`.
//!
//! Invariants
//! - No password is stored, logged or compared but by its hash.
//! - The first password counts until the secret is gone.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nautilus_machinery::status::ApiError;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::context::RestContext;
use crate::controllers;
use crate::failure::Failure;
use crate::ids;
use crate::storage::built_in;

pub(crate) const NAMESPACE: &str = "kube-system";
/// How the hash begins: its kind and how often it is repeated. Agents choose 128 random bits;
/// the repetitions are for those whose operators chose less.
const KIND: &str = "pbkdf2-sha256:50000";
const ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(50_000 - 1);
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// Longest password, in bytes.
const MAX_PASSWORD_BYTES: usize = 256;

/// The secret with the hash of a node's password.
pub(crate) fn secret_name(node: &str) -> String {
    format!("{node}.node-password.k3s")
}

/// Checks the password of a node, or notes it when it is the first.
pub(super) async fn ensure(
    context: &RestContext,
    node: &str,
    password: &str,
) -> Result<(), Failure> {
    if password.is_empty() || password.len() > MAX_PASSWORD_BYTES {
        let why = format!("the node's password must be 1 to {MAX_PASSWORD_BYTES} bytes long");
        return Err(ApiError::bad_request(why).into());
    }
    let name = secret_name(node);
    let secrets = built_in("", "secrets")?;
    let key = secrets.key(Some(NAMESPACE), &name);
    let storage = context.storage();
    storage.barrier().await?;
    if storage.read(secrets, &key)?.is_none() {
        let hash = in_background(password, |password| make(&password)).await??;
        let secret = json!({
            "kind": "Secret",
            "apiVersion": "v1",
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "ownerReferences": owner(context, node)?,
            },
            "immutable": true,
            "type": "Opaque",
            "data": { "hash": STANDARD.encode(hash) },
        });
        let writer = controllers::writer();
        let made = storage
            .create(secrets, Some(NAMESPACE), secret, &writer)
            .await;
        match made {
            Ok(_) => return Ok(()),
            // Another request of the same node came first.
            Err(failure) if failure.error.code() == 409 => storage.barrier().await?,
            Err(failure) => return Err(failure),
        };
    }
    let row = storage.read(secrets, &key)?;
    let held = row.and_then(|row| {
        let held = STANDARD.decode(row.object["data"]["hash"].as_str()?).ok()?;
        String::from_utf8(held).ok()
    });
    let held = held.unwrap_or_default();
    match in_background(password, move |password| matches(&held, &password)).await? {
        true => Ok(()),
        false => {
            let why = format!(
                "the node {node} joined with another password; delete its Node, or the secret \
                 {NAMESPACE}/{name}, to let another machine take its place"
            );
            Err(ApiError::given(403, "Forbidden", &why, &Value::Null).into())
        }
    }
}

/// The `Node` as the secret's owner, so that both go together.
fn owner(context: &RestContext, node: &str) -> Result<Value, Failure> {
    let nodes = built_in("", "nodes")?;
    let row = context.storage().read(nodes, &nodes.key(None, node))?;
    let row = row.ok_or_else(|| ApiError::unavailable("the node is not registered yet", 1))?;
    let uid = &row.object["metadata"]["uid"];
    Ok(json!([{"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}]))
}

/// Hashing takes long enough to hold up others.
async fn in_background<T: Send + 'static>(
    password: &str,
    hash: impl FnOnce(Zeroizing<String>) -> T + Send + 'static,
) -> Result<T, Failure> {
    let password = Zeroizing::new(password.to_owned());
    tokio::task::spawn_blocking(move || hash(password))
        .await
        .map_err(|error| ApiError::internal(error.to_string()).into())
}

fn make(password: &str) -> Result<String, Failure> {
    let mut salt = [0; SALT_BYTES];
    rand::fill(&mut salt).map_err(|_| ApiError::internal("no random bytes"))?;
    let mut hash = [0; HASH_BYTES];
    let password = password.as_bytes();
    pbkdf2::derive(PBKDF2_HMAC_SHA256, ITERATIONS, &salt, password, &mut hash);
    Ok(format!("{KIND}:{}:{}", ids::hex(&salt), ids::hex(&hash)))
}

fn matches(held: &str, password: &str) -> bool {
    let parts = held
        .strip_prefix(KIND)
        .and_then(|rest| rest.strip_prefix(':'))
        .and_then(|rest| rest.split_once(':'));
    let Some((salt, hash)) = parts else {
        return false;
    };
    let (Some(salt), Some(hash)) = (ids::unhex(salt), ids::unhex(hash)) else {
        return false;
    };
    let password = password.as_bytes();
    hash.len() == HASH_BYTES
        && pbkdf2::verify(PBKDF2_HMAC_SHA256, ITERATIONS, &salt, password, &hash).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_of_one_password_and_does_not_show_it() {
        let Ok(held) = make("planted-secret") else {
            panic!("random bytes")
        };
        assert!(!held.contains("planted-secret"));
        assert!(matches(&held, "planted-secret"));
        assert!(!matches(&held, "planted-secreT"));
        for broken in [
            "",
            KIND,
            "pbkdf2-sha256:50000:zz:zz",
            &held[..held.len() - 2],
        ] {
            assert!(!matches(broken, "planted-secret"), "{broken}");
        }
    }
}
