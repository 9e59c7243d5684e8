//! What a machine can check of our habits, file by file. Each finding says where, what,
//! and what to do instead.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::modules::{self, Reached};
use crate::source::{Source, occurrences};
use crate::workspace::Package;

/// Longest file that is neither generated nor a test, in lines.
const LINES_LIMIT: usize = 600;

/// Crates that know no clock, random source, unordered map, disk, network or runtime.
const PURE_CRATES: [&str; 10] = [
    "raft/machine",
    "attest/protocol",
    "api/access",
    "api/admission",
    "api/apply",
    "api/cel",
    "api/control/planner",
    "api/extension",
    "api/machinery",
    "api/streams",
];

/// Crates that drive the product from outside and are tests as a whole.
const TEST_CRATES: [&str; 2] = ["tests", "chaos"];

/// What no pure crate may use, and what to do instead.
const IMPURE: [(&str, &str); 18] = [
    ("SystemTime", TIME),
    ("std::time::Instant", TIME),
    ("Instant::now", TIME),
    ("Timestamp::now", TIME),
    ("Zoned::now", TIME),
    ("SystemRandom", RANDOM),
    ("rand::fill", RANDOM),
    ("thread_rng", RANDOM),
    (
        "HashMap",
        "use BTreeMap: its order is the same on every replica",
    ),
    (
        "HashSet",
        "use BTreeSet: its order is the same on every replica",
    ),
    (
        "tokio",
        "keep the core synchronous; the shell around it may be async",
    ),
    (
        "std::thread",
        "keep the core single-threaded; the shell may have threads",
    ),
    ("std::fs", "take bytes as arguments; the shell reads files"),
    (
        "TcpStream",
        "take bytes as arguments; the shell owns sockets",
    ),
    (
        "UdpSocket",
        "take bytes as arguments; the shell owns sockets",
    ),
    ("std::env", "take configuration as arguments"),
    ("println!", "return values; the shell prints"),
    ("eprintln!", "return values; the shell prints"),
];

const TIME: &str = "take the time as an argument: it travels in the command";
const RANDOM: &str = "take random values as arguments: they travel in the command";

/// What no shipped code may use, and what to do instead.
const BANNED: [(&str, &str); 5] = [
    (
        ".unwrap()",
        "return the error, or `expect` with the reason why it can't be",
    ),
    (
        "unbounded_channel",
        "use a bounded channel whose size is a named constant",
    ),
    (
        "mpsc::unbounded",
        "use a bounded channel whose size is a named constant",
    ),
    (
        "mem::forget",
        "own it, or say in a type why it lives for ever",
    ),
    (
        "process::abort",
        "return an error up to main: shutdown is orderly",
    ),
];

/// One untidy place.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    file: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

/// Everything untidy in one crate.
pub(crate) fn check_package(root: &Path, package: &Package) -> Result<Vec<Finding>> {
    let folder = root.join(&package.folder);
    let mut reached: BTreeMap<PathBuf, Reached> = BTreeMap::new();
    for target in &package.targets {
        for (file, how) in modules::reach(target, how_reached(&folder, target))? {
            let known = reached.entry(file).or_insert(how);
            *known = (*known).min(how);
        }
    }
    let is_pure = PURE_CRATES
        .iter()
        .any(|pure| package.folder == Path::new(pure));
    let mut findings = Vec::new();
    for file in rust_files(&folder)? {
        let shown = file.strip_prefix(root).unwrap_or(&file).to_owned();
        let Some(how) = reached.get(&file) else {
            let what = "no target reaches this file; name it in a `mod`, or delete it".to_owned();
            findings.push(Finding {
                file: shown,
                line: 1,
                what,
            });
            continue;
        };
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("{} can't be read", file.display()))?;
        let in_test_crate = TEST_CRATES
            .iter()
            .any(|tests| package.folder.starts_with(tests));
        let how = if in_test_crate {
            (*how).max(Reached::Test)
        } else {
            *how
        };
        findings.extend(check_text(&shown, text, how, is_pure));
    }
    Ok(findings)
}

/// Everything untidy in one file.
fn check_text(file: &Path, text: String, how: Reached, is_pure: bool) -> Vec<Finding> {
    let source = Source::new(text);
    let mut findings = Vec::new();
    let mut find = |line: usize, what: String| {
        findings.push(Finding {
            file: file.to_owned(),
            line,
            what,
        });
    };
    let generated = how == Reached::Included || is_generated(file, &source.text);
    let lines = source.text.lines().count();
    if how != Reached::Included && !source.text.trim_start().starts_with("//!") {
        find(
            1,
            "the file says nothing of itself: open it with `//!`".to_owned(),
        );
    }
    if lines > LINES_LIMIT && !generated && how != Reached::Test {
        find(
            lines,
            format!("{lines} lines, more than {LINES_LIMIT}: what second thing lives here?"),
        );
    }
    for note in [concat!("TO", "DO"), concat!("FIX", "ME")] {
        for position in occurrences(&source.text, note) {
            find(
                source.line_of(position),
                format!("a forgotten {note}: do it, or file an issue"),
            );
        }
    }
    if how != Reached::Test {
        for (banned, instead) in BANNED {
            for position in occurrences(&source.shipped, banned) {
                find(source.line_of(position), format!("`{banned}`: {instead}"));
            }
        }
    }
    if is_pure && how == Reached::Shipped {
        for (banned, instead) in IMPURE {
            for position in occurrences(&source.shipped, banned) {
                find(
                    source.line_of(position),
                    format!("`{banned}` in a pure crate: {instead}"),
                );
            }
        }
    }
    findings
}

/// A target under `tests`, `benches` or `examples` is a test.
fn how_reached(folder: &Path, target: &Path) -> Reached {
    let within = target.strip_prefix(folder).unwrap_or(target);
    let is_test = ["tests", "benches", "examples"]
        .iter()
        .any(|tests| within.starts_with(tests));
    if is_test {
        Reached::Test
    } else {
        Reached::Shipped
    }
}

fn is_generated(file: &Path, text: &str) -> bool {
    let named = file
        .components()
        .any(|part| part.as_os_str() == "generated");
    named || text.lines().take(5).any(|line| line.contains("@generated"))
}

/// Every `.rs` file under `folder`, but for those of crates and builds within it.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(current) = open.pop() {
        let entries = std::fs::read_dir(&current)
            .with_context(|| format!("{} can't be read", current.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                let is_build = path.file_name().is_some_and(|name| name == "target");
                let is_crate = path.join("Cargo.toml").is_file();
                if !is_build && !is_crate {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str, how: Reached, is_pure: bool) -> Vec<String> {
        check_text(Path::new("a.rs"), text.to_owned(), how, is_pure)
            .into_iter()
            .map(|finding| finding.to_string())
            .collect()
    }

    #[test]
    fn an_unwrap_is_for_tests() {
        let text =
            "//! a\nfn a() { b().unwrap(); }\n#[cfg(test)]\nmod tests { fn c() { d().unwrap(); } }";
        let found = complaints(text, Reached::Shipped, false);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("a.rs:2: `.unwrap()`"), "{}", found[0]);
        assert!(complaints(text, Reached::Test, false).is_empty());
    }

    #[test]
    fn a_clock_or_an_unordered_map_is_for_shells() {
        let text = "//! a\nuse std::collections::HashMap;\nfn a() { Instant::now(); }\n// tokio";
        assert_eq!(complaints(text, Reached::Shipped, true).len(), 2);
        assert!(complaints(text, Reached::Shipped, false).is_empty());
        assert!(complaints(text, Reached::Double, true).is_empty());
    }

    #[test]
    fn a_file_has_a_header_and_an_end() {
        assert_eq!(complaints("fn a() {}", Reached::Shipped, false).len(), 1);
        let long = format!("//! a\n{}", "fn a() {}\n".repeat(LINES_LIMIT));
        assert_eq!(complaints(&long, Reached::Shipped, false).len(), 1);
        assert!(complaints(&long, Reached::Test, false).is_empty());
        let generated = format!("//! @generated\n{long}");
        assert!(complaints(&generated, Reached::Shipped, false).is_empty());
    }

    #[test]
    fn a_note_to_oneself_is_found_in_comments_too() {
        let note = concat!("//! a\n// TO", "DO later");
        assert_eq!(complaints(note, Reached::Test, false).len(), 1);
    }
}
