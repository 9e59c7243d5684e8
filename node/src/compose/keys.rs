//! The quorum's root key on this node: drawn at genesis, fetched over the attested
//! channel when joining, and kept in the data directory only as the TEE sealed it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use nautilus_attest_protocol::SealError;
use nautilus_consensus::{JoinError, JoinRequest, SecretsSource, Transport, join};
use nautilus_store::{Keyring, RootKey};
use zeroize::Zeroizing;

use super::identity::Identity;
use super::transport::AttestedTransport;
use crate::config::{Bootstrap, NodeConfig};
use crate::data_dir::DataDir;
use crate::exit::Failure;

/// The sealed root key's file.
const SEALED_KEYS: &str = "sealed-keys";
/// What the seal is for, and by its number in which form the key is.
pub(super) const SEAL_LABEL: &str = "nautilus root key v1";
/// Bytes of a root key.
const ROOT_KEY_BYTES: usize = 32;
/// Pause before the quorum is asked again.
const JOIN_PAUSE: Duration = Duration::from_secs(1);

/// The root key in memory, on its way to those who need it.
pub(super) struct Root(Zeroizing<[u8; ROOT_KEY_BYTES]>);

impl Root {
    /// The keyring, and what a joiner gets.
    pub(super) fn into_parts(self) -> (Keyring, SecretsSource) {
        let keyring = Keyring::new(RootKey::from_bytes(*self.0));
        let secrets: SecretsSource = Arc::new(move || Zeroizing::new(self.0.to_vec()));
        (keyring, secrets)
    }

    fn read(bytes: &[u8]) -> anyhow::Result<Self> {
        let key: [u8; ROOT_KEY_BYTES] = bytes
            .try_into()
            .map_err(|_| anyhow!("a root key has {ROOT_KEY_BYTES} bytes, not {}", bytes.len()))?;
        Ok(Self(Zeroizing::new(key)))
    }
}

/// Unseals the key; where there is none yet, founds or joins.
pub(super) async fn obtain(
    config: &NodeConfig,
    data_dir: &DataDir,
    identity: &Identity,
    transport: &Arc<AttestedTransport>,
) -> anyhow::Result<Root> {
    let file = data_dir.path().join(SEALED_KEYS);
    let sealed = data_dir
        .read(SEALED_KEYS)
        .with_context(|| file.display().to_string())?;
    if let Some(sealed) = sealed {
        let opened = identity.provider().unseal(SEAL_LABEL, &sealed);
        let bytes = opened.map_err(|error| unsealing_failed(&file, &error))?;
        return Root::read(&bytes).with_context(|| file.display().to_string());
    }
    let root = match &config.bootstrap {
        Bootstrap::Genesis => Root(Zeroizing::new(*RootKey::generate()?.expose())),
        Bootstrap::Join(addresses) => fetch(config, addresses, transport).await?,
    };
    let sealed = identity.provider().seal(SEAL_LABEL, &root.0[..])?;
    data_dir
        .write(SEALED_KEYS, &sealed)
        .with_context(|| file.display().to_string())?;
    Ok(root)
}

fn unsealing_failed(file: &std::path::Path, error: &SealError) -> anyhow::Error {
    Failure::Refused.error(format!("{}: {error}", file.display()))
}

/// Asks until the quorum answers. A refusal is final, be it the quorum's or that of
/// the evidence on every connection.
async fn fetch(
    config: &NodeConfig,
    addresses: &[String],
    transport: &Arc<AttestedTransport>,
) -> anyhow::Result<Root> {
    let request = JoinRequest {
        node_id: config.node_id,
        api_address: format!("https://{}", config.api.advertise),
        client_address: super::client_address(config),
        peer_address: config.peer.advertise.clone(),
    };
    loop {
        let before = transport.outcomes();
        let port: Arc<dyn Transport> = transport.clone();
        match join(port, addresses, request.clone()).await {
            Ok(grant) => {
                tracing::info!(
                    leader = grant.leader_id,
                    "joined; the keys came over the attested channel"
                );
                return Root::read(&grant.secrets).context("the quorum's secrets");
            }
            Err(JoinError::Refused { node_id, reason }) => {
                return Err(
                    Failure::Refused.error(format!("the quorum refused node {node_id}: {reason}"))
                );
            }
            Err(JoinError::Unavailable(reason)) => {
                let now = transport.outcomes();
                let attempts = now.attempts - before.attempts;
                if attempts > 0 && now.refusals - before.refusals == attempts {
                    return Err(Failure::Refused.error(format!(
                        "no member and this node accept each other: {reason}; compare \
                         attestation.allowed_measurements with the measurements of both"
                    )));
                }
                tracing::warn!(%reason, "can't join yet");
            }
        }
        tokio::time::sleep(JOIN_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_key_of_another_length_is_refused() {
        let Err(error) = Root::read(&[0; 31]) else {
            panic!("accepted")
        };
        assert_eq!(error.to_string(), "a root key has 32 bytes, not 31");
    }

    #[test]
    fn a_joiner_gets_the_key_the_node_has() {
        let root = Root::read(&[7; 32]).expect("32 bytes");
        let (_keyring, secrets) = root.into_parts();
        assert_eq!(secrets().as_slice(), [7; 32]);
    }
}
