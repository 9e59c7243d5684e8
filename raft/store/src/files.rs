//! Small files, replaced as a whole and durably.
//!
//! Invariant: after [`replace`] returns, a crash leaves the new content; before, the
//! old content or the new, never a mixture.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// Replaces a small file: write beside, sync, rename, sync the directory.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&beside, path)?;
    sync_parent(path)
}

/// Makes a rename or a creation in `path`'s directory durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

/// Reads a file of `limit_bytes` at most: its length comes from the disk.
pub(crate) fn read(path: &Path, limit_bytes: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let over = limit_bytes as u64 + 1;
    File::open(path)?.take(over).read_to_end(&mut content)?;
    if content.len() > limit_bytes {
        let text = format!("it is longer than {limit_bytes} bytes, which it never can be");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(content)
}

/// The same of a file that may not be there.
pub(crate) fn read_if_there(path: &Path, limit_bytes: usize) -> io::Result<Option<Vec<u8>>> {
    match read(path, limit_bytes) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes an exclusive lock, held until the file is dropped; `None`: somebody has it.
pub(crate) fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_that_grew_absurdly_is_refused_unread() {
        let home = tempfile::TempDir::new().unwrap();
        let path = home.path().join("table");
        fs::write(&path, [1; 64]).unwrap();
        assert_eq!(read(&path, 64).unwrap(), [1; 64]);
        File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_len(1 << 40))
            .unwrap();
        let error = read_if_there(&path, 64).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
