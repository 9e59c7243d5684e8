//! The members' addresses, kept for the next start. The form is that of every client
//! library. It says where to ask, not whom to believe: whoever alters it can make a client
//! ask in vain.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::examine::MAX_MEMBERS;

/// Bytes of a cache that are read at most.
const MAX_CACHE_BYTES: u64 = 64 * 1024;

#[derive(Serialize, Deserialize)]
struct Cache {
    endpoints: Vec<String>,
}

/// The addresses of an earlier run; none when there is no file of use.
pub fn read_members(path: &Path) -> Vec<Address> {
    let mut text = String::new();
    let read =
        fs::File::open(path).and_then(|file| file.take(MAX_CACHE_BYTES).read_to_string(&mut text));
    let cache: Option<Cache> = read.ok().and_then(|_| serde_json::from_str(&text).ok());
    let texts = cache.map_or_else(Vec::new, |cache| cache.endpoints);
    let addresses = texts.iter().filter_map(|text| text.parse().ok());
    addresses.take(MAX_MEMBERS).collect()
}

/// Replaces the file as a whole.
///
/// # Errors
/// Those of the file system.
pub fn write_members(path: &Path, addresses: &[Address]) -> io::Result<()> {
    let endpoints = addresses.iter().map(ToString::to_string).collect();
    let mut text = serde_json::to_string(&Cache { endpoints })?;
    text.push('\n');
    // One process writes a file; another one's half-written neighbour is not this one's.
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    fs::write(&beside, text)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_and_what_is_of_no_use_is_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("members.json");
        assert!(read_members(&path).is_empty());
        let members = ["10.0.0.1:6443", "[::1]:7443"].map(|text| text.parse().expect(text));
        write_members(&path, &members).expect("written");
        assert_eq!(read_members(&path), members);
        let text = fs::read_to_string(&path).expect("there");
        let form = r#"{"endpoints":["https://10.0.0.1:6443","https://[::1]:7443"]}"#;
        assert_eq!(text.trim_end(), form);
        fs::write(&path, r#"{"endpoints":["http://a:1", "#).expect("written");
        assert!(read_members(&path).is_empty());
    }
}
