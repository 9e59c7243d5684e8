//! Endorsements as files: `DIR/amd/crl/milan` is the endorsement `amd/crl/milan`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;

use super::row::MAX_ENDORSEMENT_BYTES;

/// Folders below the directory, at most: `amd/vcek/milan/<chip>/`.
const MAX_DEPTH: usize = 5;

/// The file of an endorsement. Names hold no dots (see
/// [`nautilus_attest_protocol::Endorsements`]), so it lies below `directory`.
pub(crate) fn path_of(directory: &Path, name: &str) -> PathBuf {
    name.split('/')
        .fold(directory.to_path_buf(), |path, part| path.join(part))
}

/// Every endorsement in a directory, by name.
///
/// # Errors
/// What cannot be read, and files larger than [`MAX_ENDORSEMENT_BYTES`].
pub(crate) fn read_directory(directory: &Path) -> anyhow::Result<BTreeMap<String, Arc<[u8]>>> {
    let mut found = BTreeMap::new();
    read_below(directory, "", MAX_DEPTH, &mut found)?;
    Ok(found)
}

fn read_below(
    folder: &Path,
    prefix: &str,
    depth: usize,
    found: &mut BTreeMap<String, Arc<[u8]>>,
) -> anyhow::Result<()> {
    let shown = || folder.display().to_string();
    for entry in std::fs::read_dir(folder).with_context(shown)? {
        let entry = entry.with_context(shown)?;
        let part = entry.file_name();
        // Hidden files and those with an ending are somebody else's.
        let Some(part) = part.to_str().filter(|part| !part.contains('.')) else {
            continue;
        };
        let name = format!("{prefix}{part}");
        let path = entry.path();
        let metadata = std::fs::metadata(&path).with_context(|| path.display().to_string())?;
        if metadata.is_dir() && depth > 0 {
            read_below(&path, &format!("{name}/"), depth - 1, found)?;
        } else if metadata.is_file() {
            anyhow::ensure!(
                metadata.len() <= MAX_ENDORSEMENT_BYTES as u64,
                "{} has {} bytes, more than the limit of {MAX_ENDORSEMENT_BYTES}",
                path.display(),
                metadata.len()
            );
            let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
            found.insert(name, bytes.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_their_place() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = path_of(dir.path(), "intel/tcb/tdx/b0c06f000000");
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, b"tcb").expect("written");
        std::fs::write(dir.path().join("README.md"), b"no endorsement").expect("written");
        let found = read_directory(dir.path()).expect("read");
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["intel/tcb/tdx/b0c06f000000"]);
        assert_eq!(&*found["intel/tcb/tdx/b0c06f000000"], b"tcb");
    }
}
