//! The quorum's keys on this node: drawn at genesis, fetched over the attested channel
//! when joining, and kept in the data directory only as the TEE sealed them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use nautilus_attest_protocol::SealError;
use nautilus_backup::{QuorumKey, QuorumKeySource};
use nautilus_consensus::{JoinError, JoinRequest, SecretsSource, Transport, join};
use nautilus_machine::Kv;
use nautilus_store::{Keyring, RootKey};

use super::RECOVERED_NOTE;
use super::identity::Identity;
use super::transport::AttestedTransport;
use crate::config::{Bootstrap, NodeConfig};
use crate::data_dir::DataDir;
use crate::exit::Failure;
use crate::keys::secrets_for;

/// The sealed keys' file.
const SEALED_KEYS: &str = "sealed-keys";
/// What the seal is for, and by its number in which form the keys are.
pub(super) const SEAL_LABEL: &str = "nautilus quorum keys v2";
/// Pause before the quorum is asked again.
const JOIN_PAUSE: Duration = Duration::from_secs(1);

/// The keys as the TEE sealed them to this node.
pub(super) struct SealedKeys {
    pub(super) data_dir: Arc<DataDir>,
    pub(super) identity: Arc<Identity>,
}

impl SealedKeys {
    /// Unseals them; `None` where there are none yet. Blocks.
    fn read(&self) -> anyhow::Result<Option<Keyring>> {
        let file = self.data_dir.path().join(SEALED_KEYS);
        let name = || file.display().to_string();
        let sealed = self.data_dir.read(SEALED_KEYS).with_context(name)?;
        let Some(sealed) = sealed else {
            return Ok(None);
        };
        let opened = self.identity.provider().unseal(SEAL_LABEL, &sealed);
        let secrets = opened.map_err(|error| unsealing_failed(&file, &error))?;
        Keyring::from_secrets(&secrets).map(Some).with_context(name)
    }

    /// Seals them in place of what was there, durably. Blocks.
    pub(super) fn write(&self, keyring: &Keyring) -> anyhow::Result<()> {
        let sealed = self
            .identity
            .provider()
            .seal(SEAL_LABEL, &keyring.to_secrets())?;
        let written = self.data_dir.write(SEALED_KEYS, &sealed);
        written.with_context(|| self.data_dir.path().join(SEALED_KEYS).display().to_string())
    }
}

/// Unseals the keys; where there are none yet, founds or joins.
pub(super) async fn obtain(
    config: &NodeConfig,
    sealed: &SealedKeys,
    transport: &Arc<AttestedTransport>,
) -> anyhow::Result<Keyring> {
    if let Some(keyring) = sealed.read()? {
        return Ok(keyring);
    }
    let keyring = match &config.bootstrap {
        Bootstrap::Genesis => Keyring::new(RootKey::generate()?),
        Bootstrap::Join(addresses) => fetch(config, addresses, transport).await?,
        Bootstrap::Recover => {
            return Err(Failure::Refused.error(format!(
                "{} is gone since the recovery; remove the file \"{RECOVERED_NOTE}\" beside it to \
                 ask the operators once more",
                sealed.data_dir.path().join(SEALED_KEYS).display()
            )));
        }
    };
    sealed.write(&keyring)?;
    Ok(keyring)
}

/// Takes the keys that operators brought back, beside those that this node can still
/// unseal; the two must agree on a root, or a host could make up an escrow of its own to
/// have a node go on alone.
pub(super) fn take_recovered(sealed: &SealedKeys, keyring: &Keyring) -> anyhow::Result<()> {
    match sealed.read() {
        Ok(None) => {}
        Ok(Some(own)) => merge(&own, keyring)?,
        Err(error) => tracing::warn!(
            error = %format!("{error:#}"),
            "this node's own keys are not readable; the operators' are taken"
        ),
    }
    sealed.write(keyring)
}

/// Adds to `recovered` what this node has besides.
fn merge(own: &Keyring, recovered: &Keyring) -> anyhow::Result<()> {
    let mut generations = own.generations().into_iter();
    if !generations.any(|held| own.fingerprint(held) == recovered.fingerprint(held)) {
        return Err(Failure::Refused.error(
            "the escrow opens keys that are not this quorum's, or none that are still in use; \
             copy escrow.json from another member's data directory",
        ));
    }
    recovered.add_from(&own.to_secrets(), &|_, _| true)?;
    if own.current() > recovered.current() {
        recovered.advance(own.current())?;
    }
    Ok(())
}

/// What members get of the keys, once `kv` is there to say who may.
pub(super) fn secrets(keyring: &Keyring, kv: &Arc<OnceLock<Arc<dyn Kv>>>) -> SecretsSource {
    let (keyring, kv) = (keyring.clone(), Arc::clone(kv));
    Arc::new(move |node_id| match kv.get() {
        Some(kv) => secrets_for(&**kv, &keyring, node_id),
        None => Err("the node is starting; ask again".to_owned()),
    })
}

/// What the quorum seals and signs its snapshots with.
pub(super) fn quorum_key(keyring: &Keyring) -> QuorumKeySource {
    let keyring = keyring.clone();
    Arc::new(move || {
        let key = keyring.archive_key(keyring.current());
        let key = key.unwrap_or_else(|| unreachable!("the current generation is held"));
        QuorumKey::from_root(key.expose())
    })
}

/// Every key of a sealed-keys file that may open an archive, newest first.
pub(super) fn archive_keys(secrets: &[u8]) -> anyhow::Result<Vec<QuorumKey>> {
    let keyring = Keyring::from_secrets(secrets)?;
    let generations = keyring.archive_generations().into_iter();
    let keys = generations.filter_map(|generation| keyring.archive_key(generation));
    Ok(keys.map(|key| QuorumKey::from_root(key.expose())).collect())
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
) -> anyhow::Result<Keyring> {
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
                return Keyring::from_secrets(&grant.secrets).context("the quorum's secrets");
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
    fn recovered_keys_must_agree_with_those_that_are_still_here() {
        let ring = |byte| Keyring::new(RootKey::from_bytes([byte; 32]));
        let (own, escrowed) = (ring(7), ring(7));
        own.add(2, RootKey::from_bytes([8; 32])).expect("added");
        own.advance(2).expect("held");
        merge(&own, &escrowed).expect("one quorum");
        assert_eq!(
            (escrowed.current(), escrowed.generations()),
            (2, vec![1, 2])
        );
        let error = merge(&own, &ring(9)).expect_err("made up");
        assert!(error.to_string().contains("not this quorum's"), "{error}");
        // The operators' shares of before a rotation that has ended.
        own.destroy_old();
        assert!(merge(&own, &ring(7)).is_err());
    }

    #[test]
    fn archives_of_every_generation_open_with_the_keys_of_the_last() {
        let keyring = Keyring::new(RootKey::from_bytes([7; 32]));
        let first = quorum_key(&keyring)().signing().expect("a signer").public();
        for generation in 2..4 {
            let root = RootKey::generate().expect("random bytes");
            keyring.add(generation, root).expect("a new one");
            keyring.advance(generation).expect("held");
            keyring.destroy_old();
        }
        let keys = archive_keys(&keyring.to_secrets()).expect("secrets");
        let signers: Vec<_> = keys
            .iter()
            .map(|key| key.signing().expect("a signer").public())
            .collect();
        assert_eq!((signers.len(), signers.last()), (3, Some(&first)));
        assert_eq!(
            signers.first(),
            Some(&quorum_key(&keyring)().signing().expect("a signer").public())
        );
    }
}
