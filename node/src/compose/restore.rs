//! Founding a quorum with the content of a snapshot.
//!
//! The snapshot is read whole and its signature checked before anything is loaded, and
//! everything is loaded before anything else is written. A node that ends in between
//! goes on at its next start: a note in its directory says so.

use std::fs::File;
use std::io::{BufReader, Seek as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nautilus_backup::{Archive, Identity as OperatorIdentity, Opener, load};
use nautilus_machine::Kv;

use super::identity::Identity;
use super::keys::{SEAL_LABEL, archive_keys};
use crate::config::{NodeConfig, Restore, RestoreKey, read_secret};
use crate::data_dir::DataDir;
use crate::exit::Failure;

/// There while a restore is not finished.
const NOTE: &str = "restore-unfinished";
/// Between two lines of progress.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// A snapshot that was checked and opened, to be loaded.
pub(super) struct Opened {
    file: File,
    opener: Opener,
    bump_revision: u64,
}

/// Checks the snapshot of a node that is to found a quorum, before anything is made.
/// `None`: nothing is to be restored, or it was.
pub(super) fn open(
    config: &NodeConfig,
    data_dir: &DataDir,
    identity: &Identity,
    is_founded: bool,
) -> anyhow::Result<Option<Opened>> {
    let unfinished = data_dir.read(NOTE).context(NOTE)?.is_some();
    let Some(restore) = &config.restore else {
        if unfinished {
            return Err(Failure::Usage.error(
                "the restore of this quorum is not finished, and restore.file names no snapshot: \
                 name the same again, or start with an empty data directory",
            ));
        }
        return Ok(None);
    };
    if is_founded && !unfinished {
        tracing::info!("the quorum is founded; restore.file no longer counts");
        return Ok(None);
    }
    let path = restore.file.display();
    let opened = verify(restore, identity).with_context(|| path.to_string())?;
    data_dir.write(NOTE, b"").context(NOTE)?;
    Ok(Some(opened))
}

fn verify(restore: &Restore, identity: &Identity) -> anyhow::Result<Opened> {
    let refused = |error: nautilus_backup::BackupError| Failure::Refused.error(error);
    let mut file = File::open(&restore.file)?;
    let archive = Archive::open(BufReader::new(&file)).map_err(refused)?;
    let mut openers = openers(&restore.key, identity)?;
    // Of the keys of several generations, the one that the archive is sealed to.
    let fits = |opener: &Opener| {
        let file = File::open(&restore.file).ok()?;
        let archive = Archive::open(BufReader::new(file)).ok()?;
        archive.unseal(opener).is_ok().then_some(())
    };
    let at = openers.iter().position(|opener| fits(opener).is_some());
    let opener = openers.swap_remove(at.unwrap_or_default());
    match (&restore.signer, &opener) {
        (Some(signer), _) => archive.expect_signer(signer).map_err(refused)?,
        (None, Opener::Quorum(quorum)) => {
            let signer = quorum.signing().map_err(refused)?.public();
            archive.expect_signer(&signer).map_err(refused)?;
        }
        (None, Opener::Operator(_)) => tracing::warn!(
            signer = %archive.header().signer,
            "nobody said who must have signed the snapshot (restore.signer): it proves only that \
             it is whole"
        ),
    }
    archive.verify(&mut |_| {}).map_err(refused)?;
    // Whether the key opens it is known before anything is founded.
    file.rewind()?;
    let archive = Archive::open(BufReader::new(&file)).map_err(refused)?;
    archive.unseal(&opener).map_err(refused)?;
    file.rewind()?;
    Ok(Opened {
        file,
        opener,
        bump_revision: restore.bump_revision,
    })
}

/// What may open the archive; at least one.
fn openers(key: &RestoreKey, identity: &Identity) -> anyhow::Result<Vec<Opener>> {
    match key {
        RestoreKey::Identity(path) => {
            let text = read_secret(path).with_context(|| path.display().to_string())?;
            let identity = OperatorIdentity::from_file_text(&text);
            let identity = identity.map_err(|error| Failure::Refused.error(error));
            let identity = identity.with_context(|| path.display().to_string())?;
            Ok(vec![Opener::Operator(identity)])
        }
        RestoreKey::SealedKeys(path) => {
            let sealed = std::fs::read(path).with_context(|| path.display().to_string())?;
            let root = identity.provider().unseal(SEAL_LABEL, &sealed);
            let root = root
                .map_err(|error| Failure::Refused.error(format!("{}: {error}", path.display())))?;
            let keys = archive_keys(&root).with_context(|| path.display().to_string())?;
            Ok(keys.into_iter().map(Opener::Quorum).collect())
        }
    }
}

/// Loads it into the quorum that was just founded.
pub(super) async fn run(
    opened: Opened,
    kv: &Arc<dyn Kv>,
    data_dir: &DataDir,
) -> anyhow::Result<()> {
    let archive = Archive::open(BufReader::new(opened.file))?;
    let header = archive.header().clone();
    let records = archive.unseal(&opened.opener)?;
    let started = std::time::Instant::now();
    let mut reported = started;
    let loaded = load(kv, records, opened.bump_revision, &mut |keys| {
        if reported.elapsed() >= REPORT_EVERY {
            reported = std::time::Instant::now();
            tracing::info!(keys, of = header.keys, "restoring");
        }
    })
    .await
    .map_err(|error| Failure::Fatal.error(format!("restore: {error}")))?;
    data_dir.remove(NOTE).context(NOTE)?;
    tracing::info!(
        from = %header.cluster,
        revision = loaded.revision,
        keys = loaded.summary.keys,
        leases = loaded.summary.leases,
        hash = %hex::encode(loaded.summary.hash),
        seconds = started.elapsed().as_secs_f64(),
        "restored"
    );
    Ok(())
}
