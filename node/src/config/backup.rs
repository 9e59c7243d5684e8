//! The parts of the configuration about snapshots: made on a schedule, and restored at
//! genesis.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nautilus_backup::{Recipient, S3Credentials, S3Settings, SignerKey};

use super::etcd::duration_or;
use super::settings::{BackupSettings, RestoreSettings};
use super::{ConfigError, check};

/// Between two snapshots, when nothing is said.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(6 * 3600);
/// Snapshots more often than this would keep the leader busy with them.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// How many are kept, when nothing is said: a week of them.
const KEEP_DEFAULT: u64 = 28;
/// Bytes of a file of credentials or of a key.
const SECRET_FILE_BYTES_MAX: u64 = 64 << 10;

/// Snapshots made on a schedule, checked.
#[derive(Clone)]
pub(crate) struct Backup {
    /// A directory, or `s3://BUCKET/PREFIX`.
    pub(crate) destination: String,
    /// From one to the next.
    pub(crate) interval: Duration,
    /// How many are kept.
    pub(crate) keep: usize,
    /// Older ones are removed.
    pub(crate) max_age: Option<Duration>,
    /// Who can open them; nobody: the quorum.
    pub(crate) recipients: Vec<Recipient>,
    /// How a bucket is reached.
    pub(crate) s3: S3Settings,
}

impl std::fmt::Debug for Backup {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Backup")
            .field("destination", &self.destination)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

/// The snapshot that a quorum is founded with, checked.
#[derive(Debug, Clone)]
pub(crate) struct Restore {
    /// The snapshot.
    pub(crate) file: PathBuf,
    /// What opens it.
    pub(crate) key: RestoreKey,
    /// Who must have signed it.
    pub(crate) signer: Option<SignerKey>,
    /// How far above its revision the store is to stand.
    pub(crate) bump_revision: u64,
}

/// What opens a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RestoreKey {
    /// The file of an operator's private key.
    Identity(PathBuf),
    /// The sealed root key of the quorum that made it.
    SealedKeys(PathBuf),
}

/// Checks `[backup]`.
pub(super) fn backup(said: BackupSettings) -> Result<Option<Backup>, ConfigError> {
    let Some(destination) = said.destination else {
        return Ok(None);
    };
    let interval = duration_or(
        "backup.interval",
        said.interval.as_deref(),
        INTERVAL_DEFAULT,
    )?;
    if interval < INTERVAL_MIN {
        return Err(ConfigError::invalid(
            "backup.interval",
            said.interval.unwrap_or_default(),
            "less than a second",
            "write a longer time, as in 6h",
        ));
    }
    let keep = said.keep.unwrap_or(KEEP_DEFAULT);
    if keep == 0 {
        return Err(ConfigError::invalid(
            "backup.keep",
            0,
            "none would be kept",
            "write how many of the newest are to be kept, from 1",
        ));
    }
    let max_age = match &said.max_age {
        Some(_) => Some(duration_or(
            "backup.max_age",
            said.max_age.as_deref(),
            Duration::MAX,
        )?),
        None => None,
    };
    let credentials = said.s3_credentials.map(|path| credentials(&path));
    Ok(Some(Backup {
        destination,
        interval,
        keep: usize::try_from(keep).unwrap_or(usize::MAX),
        max_age,
        recipients: recipients(said.recipients.unwrap_or_default())?,
        s3: S3Settings {
            credentials: credentials.transpose()?,
            endpoint: said.s3_endpoint,
            region: said.s3_region,
            authorities: said.s3_authorities,
        },
    }))
}

fn recipients(texts: Vec<String>) -> Result<Vec<Recipient>, ConfigError> {
    let parse = |text: String| {
        text.parse().map_err(|error| {
            ConfigError::invalid(
                "backup.recipients",
                text,
                error,
                "write public keys as `nautilus snapshot keygen` prints them",
            )
        })
    };
    texts.into_iter().map(parse).collect()
}

fn credentials(path: &Path) -> Result<S3Credentials, ConfigError> {
    const KEY: &str = "backup.s3_credentials";
    const REMEDY: &str = "name a readable file with aws_access_key_id and aws_secret_access_key";
    let shown = path.display();
    let text =
        read_secret(path).map_err(|error| ConfigError::invalid(KEY, shown, error, REMEDY))?;
    S3Credentials::from_text(&text)
        .map_err(|error| ConfigError::invalid(KEY, path.display(), error, REMEDY))
}

/// Reads a small file that holds a secret.
pub(crate) fn read_secret(path: &Path) -> std::io::Result<zeroize::Zeroizing<String>> {
    use std::io::Read as _;
    let mut text = zeroize::Zeroizing::new(String::new());
    let file = std::fs::File::open(path)?;
    file.take(SECRET_FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Checks `[restore]`.
pub(super) fn restore(said: RestoreSettings, founds: bool) -> Result<Option<Restore>, ConfigError> {
    const FILE: &str = "restore.file";
    let Some(file) = said.file else {
        return Ok(None);
    };
    if !founds {
        return Err(ConfigError::invalid(
            FILE,
            file.display(),
            "a node that joins gets the quorum's state",
            "remove it, or write bootstrap = \"genesis\"",
        ));
    }
    let key = match (said.identity, said.sealed_keys) {
        (Some(path), None) => RestoreKey::Identity(check::existing("restore.identity", path)?),
        (None, Some(path)) => RestoreKey::SealedKeys(check::existing("restore.sealed_keys", path)?),
        _ => {
            return Err(ConfigError::missing(
                "restore.identity",
                "name the file of the private key that opens the snapshot, or (one of the two) \
                 restore.sealed_keys for one that is sealed to its quorum",
            ));
        }
    };
    let signer = said.signer.map(|text| {
        text.parse().map_err(|error| {
            ConfigError::invalid(
                "restore.signer",
                text,
                error,
                "write the signer as `nautilus snapshot save` printed it",
            )
        })
    });
    Ok(Some(Restore {
        file: check::existing(FILE, file)?,
        key,
        signer: signer.transpose()?,
        bump_revision: said.bump_revision.unwrap_or_default(),
    }))
}
