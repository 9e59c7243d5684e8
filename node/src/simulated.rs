//! What a development quorum needs in place of hardware: a signing root, a secret
//! per platform, an operator's key. Made by `up`, read by nodes and clients.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use anyhow::Context as _;
use nautilus_attest_tee::{PlatformSecret, RootPublicKey, SimulatedRoot, measure_running_binary};
use zeroize::Zeroizing;

use crate::data_dir::write_durably;
use crate::up::layout::{Layout, Quorum};

/// How many workers a new development quorum knows.
const DEVELOPMENT_TOKENS: u32 = 5;

/// Hex of this binary's measurement.
pub(crate) fn own_measurement() -> anyhow::Result<String> {
    Ok(measure_running_binary()
        .context("measure the running binary")?
        .to_string())
}

/// Makes the root, each node's platform and the operator's key; keeps what is there.
pub(crate) fn make_keys(layout: &Layout, quorum: &Quorum) -> anyhow::Result<()> {
    make_folder(layout.root())?;
    let root = SimulatedRoot::load_or_create(&layout.simulated_root())?;
    let path = layout.simulated_root_key();
    write_durably(&path, format!("{}\n", root.public_key()).as_bytes(), 0o644)
        .with_context(|| path.display().to_string())?;
    for node in &quorum.nodes {
        let files = layout.node(node.id);
        make_folder(files.folder())?;
        PlatformSecret::load_or_create(&files.platform_secret())?;
    }
    make_tokens(layout)?;
    make_operator_key(layout)
}

/// Seal tokens for the development judge, so that workers can be tried at once.
fn make_tokens(layout: &Layout) -> anyhow::Result<()> {
    let path = layout.tokens();
    if path.exists() {
        return Ok(());
    }
    let mut text = Zeroizing::new(String::from(
        "# Seal tokens that the development judge accepts, read again when this file changes.\n",
    ));
    for worker in 1..=DEVELOPMENT_TOKENS {
        let token = Zeroizing::new(random_hex::<32>()?);
        text.push_str(&format!(
            "\n[[token]]\ntoken = \"{}\"\nowner = \"development\"\nnode_id = \"worker-{worker}\"\nstake_amount = 1000000000\n",
            token.as_str()
        ));
    }
    write_durably(&path, text.as_bytes(), 0o600).with_context(|| path.display().to_string())
}

/// The key that verifies simulated evidence, from its file.
pub(crate) fn read_root_key(path: &Path) -> anyhow::Result<RootPublicKey> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "can't read the public key of the simulated root {}; name it with --simulated-root-key",
            path.display()
        )
    })?;
    text.parse().with_context(|| path.display().to_string())
}

/// So many random bytes in hex.
pub(crate) fn random_hex<const BYTES: usize>() -> anyhow::Result<String> {
    let mut bytes = [0; BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("no random bytes"))?;
    Ok(hex::encode(bytes))
}

fn make_operator_key(layout: &Layout) -> anyhow::Result<()> {
    let (private, public) = (layout.operator_key(), layout.operator_public_key());
    if private.exists() && public.exists() {
        return Ok(());
    }
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
        .context("make the operator's key")?;
    let pem = Zeroizing::new(key.serialize_pem());
    write_durably(&private, pem.as_bytes(), 0o600)
        .with_context(|| private.display().to_string())?;
    write_durably(&public, key.public_key_pem().as_bytes(), 0o644)
        .with_context(|| public.display().to_string())
}

pub(crate) fn make_folder(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::up::layout::Ports;

    fn world() -> (tempfile::TempDir, Layout, Quorum) {
        let dir = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(dir.path()).expect("absolute");
        let ports = Ports::pick(7000, 2, |_| true).expect("enough");
        (dir, layout, Quorum::new("q".into(), "ab".into(), &ports))
    }

    #[test]
    fn secrets_are_the_owners_alone() {
        let (_dir, layout, quorum) = world();
        make_keys(&layout, &quorum).expect("made");
        let secrets = [
            layout.operator_key(),
            layout.simulated_root(),
            layout.node(1).platform_secret(),
            layout.tokens(),
        ];
        for path in secrets {
            let mode = std::fs::metadata(&path)
                .expect("there")
                .permissions()
                .mode()
                & 0o777;
            assert_eq!(mode, 0o600, "{}", path.display());
        }
    }

    #[test]
    fn keys_that_are_there_are_kept() {
        let (_dir, layout, quorum) = world();
        make_keys(&layout, &quorum).expect("made");
        let key = std::fs::read(layout.operator_key()).expect("there");
        make_keys(&layout, &quorum).expect("made again");
        assert_eq!(std::fs::read(layout.operator_key()).expect("there"), key);
        read_root_key(&layout.simulated_root_key()).expect("a public key");
    }
}
