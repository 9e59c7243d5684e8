//! TLS to nodes whose serving key evidence has vouched for, and to nobody else.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::ResolvesClientCert;

/// Keys remembered at once: two for each node of a large quorum, as one is renewed.
const MAX_KEYS: usize = 128;

/// Serving keys that are trusted, by their DER SubjectPublicKeyInfo.
#[derive(Debug, Default)]
pub(crate) struct Pins(RwLock<BTreeSet<Vec<u8>>>);

impl Pins {
    /// Trusts a key; false when too many are trusted already.
    pub(crate) fn add(&self, spki: &[u8]) -> bool {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= MAX_KEYS && !keys.contains(spki) {
            return false;
        }
        keys.insert(spki.to_vec());
        true
    }

    /// Trusts it no longer.
    pub(crate) fn remove(&self, spki: &[u8]) {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        keys.remove(spki);
    }

    fn contains(&self, spki: &[u8]) -> bool {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        keys.contains(spki)
    }
}

/// TLS that ends at a pinned key only, before this client shows its certificate.
pub(crate) fn pinned_tls(
    pins: Arc<Pins>,
    client: Option<Arc<dyn ResolvesClientCert>>,
) -> anyhow::Result<rustls::ClientConfig> {
    Ok(nautilus_client::keyed_tls(
        move |spki| pins.contains(spki),
        client,
    )?)
}
