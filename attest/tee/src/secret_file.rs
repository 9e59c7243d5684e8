//! Small secret files: created once with mode 0600, read back whole, refused when
//! anyone but the owner may read them.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Longest secret file read, in bytes.
const MAX_SECRET_FILE_BYTES: u64 = 4096;
/// Read and write for the owner, nothing for others.
const OWNER_ONLY: u32 = 0o600;

/// Why a secret file was not created or read.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The file system's refusal.
    #[error("secret file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Others may read it.
    #[error(
        "secret file {path} has mode {mode:04o}, expected 0600: run `chmod 600` on it, or make a new one"
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not hold what it should.
    #[error("secret file {path} does not hold {expected}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// The random source or key generation failed.
    #[error("making the secret for {path} failed in the cryptographic library")]
    Cryptography {
        /// The file.
        path: PathBuf,
    },
}

/// Creates `path` with `content`, durably, or fails if it exists.
pub(crate) fn create(path: &Path, content: &[u8]) -> Result<(), SecretFileError> {
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(OWNER_ONLY)
            .open(path)?;
        file.write_all(content)?;
        file.sync_all()?;
        match path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|source| io(path, source))
}

/// The whole of `path`, or `None` when it does not exist.
pub(crate) fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, SecretFileError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io(path, source)),
    };
    let metadata = file.metadata().map_err(|source| io(path, source))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretFileError::Mode {
            path: path.to_owned(),
            mode,
        });
    }
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_SECRET_FILE_BYTES as usize));
    let read = (&mut file)
        .take(MAX_SECRET_FILE_BYTES)
        .read_to_end(&mut content);
    read.map_err(|source| io(path, source))?;
    Ok(Some(content))
}

fn io(path: &Path, source: std::io::Error) -> SecretFileError {
    SecretFileError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        create(&path, b"x").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = read(&path).unwrap_err();
        assert!(
            matches!(error, SecretFileError::Mode { mode: 0o644, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_secret_is_created_for_its_owner_alone_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        create(&path, b"x").unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(create(&path, b"y").is_err());
        assert_eq!(&**read(&path).unwrap().unwrap(), b"x");
    }
}
