//! Which files a crate's targets reach through `mod` and `include!`: the others are dead.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::source::Source;

/// How a file was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reached {
    /// As a target's root or a module, shipped.
    Shipped,
    /// As a module behind `#[cfg(feature = "solo")]`: a test double of a port.
    Double,
    /// As a module of tests, or a target of tests.
    Test,
    /// By `include!`: no module of its own.
    Included,
}

/// One `mod name;` or `include!("file")`.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    /// Inline modules around it, outermost first.
    within: Vec<String>,
    name: String,
    /// From `#[path = "…"]` or `include!`.
    path: Option<String>,
    reached: Reached,
}

/// Every file that the target at `root` reaches.
pub(crate) fn reach(root: &Path, reached: Reached) -> Result<BTreeMap<PathBuf, Reached>> {
    let mut files = BTreeMap::new();
    let mut open = vec![(root.to_owned(), reached, true)];
    while let Some((file, reached, is_root)) = open.pop() {
        if files.get(&file).is_some_and(|known| *known <= reached) {
            continue;
        }
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("{} can't be read", file.display()))?;
        files.insert(file.clone(), reached);
        for link in links(&Source::new(text)) {
            if let Some(target) = resolve(&file, is_root, &link) {
                open.push((target, reached.max(link.reached), false));
            }
        }
    }
    Ok(files)
}

/// The file behind a link, if it exists.
fn resolve(file: &Path, is_root: bool, link: &Link) -> Option<PathBuf> {
    let folder = file.parent()?;
    let stem = file.file_stem()?.to_str()?;
    let own_folder = if is_root || stem == "mod" {
        folder.to_owned()
    } else {
        folder.join(stem)
    };
    let mut base = own_folder;
    base.extend(&link.within);
    let candidates = match &link.path {
        // A path attribute outside inline modules counts from the file's own folder.
        Some(path) if link.within.is_empty() => vec![folder.join(path)],
        Some(path) => vec![base.join(path)],
        None => vec![
            base.join(format!("{}.rs", link.name)),
            base.join(&link.name).join("mod.rs"),
        ],
    };
    candidates.into_iter().find(|candidate| candidate.is_file())
}

fn links(source: &Source) -> Vec<Link> {
    let mut links = Vec::new();
    let mut within: Vec<(usize, String)> = Vec::new();
    let mut depth = 0_usize;
    // Where the attributes of the item being read begin.
    let mut item_start = 0;
    let code = source.code.as_bytes();
    let mut at = 0;
    while at < code.len() {
        match code[at] {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                within.retain(|(opened_at, _)| *opened_at <= depth);
                item_start = at + 1;
            }
            b';' => item_start = at + 1,
            b'm' => {
                if let Some((name, end)) = module_name(&source.code, at) {
                    let attributes = &source.text[item_start..at];
                    if code[end] == b';' {
                        links.push(Link {
                            within: within.iter().map(|(_, name)| name.clone()).collect(),
                            name: name.to_owned(),
                            path: quoted_after(attributes, "#[path"),
                            reached: reached_by(attributes),
                        });
                        item_start = end + 1;
                    } else {
                        within.push((depth + 1, name.to_owned()));
                        depth += 1;
                        item_start = end + 1;
                    }
                    at = end;
                }
            }
            b'i' if source.code[at..].starts_with("include!(") => {
                links.push(Link {
                    within: Vec::new(),
                    name: String::new(),
                    path: quoted_after(&source.text[at..], "include!("),
                    reached: Reached::Included,
                });
            }
            _ => {}
        }
        at += 1;
    }
    links
}

/// `mod name` at `at`: the name and the position of the `;` or `{` after it.
fn module_name(code: &str, at: usize) -> Option<(&str, usize)> {
    let before = code[..at].chars().next_back();
    if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let rest = code[at..].strip_prefix("mod")?;
    let name = rest.strip_prefix(|c: char| c.is_whitespace())?.trim_start();
    let length = name
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|l| *l > 0)?;
    let start = code.len() - name.len();
    let after = code[start + length..].trim_start();
    let end = code.len() - after.len();
    (after.starts_with(';') || after.starts_with('{')).then(|| (&code[start..start + length], end))
}

fn reached_by(attributes: &str) -> Reached {
    if attributes.contains("cfg(test)") || attributes.contains("cfg(all(test") {
        Reached::Test
    } else if attributes.contains("cfg(feature = \"solo\")") {
        Reached::Double
    } else {
        Reached::Shipped
    }
}

/// The first quoted text after `marker`.
fn quoted_after(text: &str, marker: &str) -> Option<String> {
    let rest = &text[text.find(marker)? + marker.len()..];
    let rest = &rest[rest.find('"')? + 1..];
    Some(rest[..rest.find('"')?].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(String, Option<String>, Reached)> {
        links(&Source::new(text.to_owned()))
            .into_iter()
            .map(|link| {
                let mut path = link.within;
                path.push(link.name);
                (path.join("/"), link.path, link.reached)
            })
            .collect()
    }

    #[test]
    fn modules_are_found_where_they_stand() {
        let text = "pub mod a;\nmod b { mod c; }\n// mod d;\n#[cfg(test)]\n#[path = \"e_tests.rs\"]\nmod tests;\nfn modest() {}";
        assert_eq!(
            found(text),
            [
                ("a".to_owned(), None, Reached::Shipped),
                ("b/c".to_owned(), None, Reached::Shipped),
                (
                    "tests".to_owned(),
                    Some("e_tests.rs".to_owned()),
                    Reached::Test
                ),
            ]
        );
    }

    #[test]
    fn a_file_that_no_module_names_is_not_reached() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let root = folder.path().join("lib.rs");
        std::fs::write(&root, "mod alive;")?;
        std::fs::write(folder.path().join("alive.rs"), "mod deep;")?;
        std::fs::write(folder.path().join("dead.rs"), "")?;
        std::fs::create_dir(folder.path().join("alive"))?;
        std::fs::write(
            folder.path().join("alive/deep.rs"),
            "include!(\"data.rs\");",
        )?;
        std::fs::write(folder.path().join("alive/data.rs"), "1")?;
        let files = reach(&root, Reached::Shipped)?;
        let names: Vec<_> = files
            .iter()
            .map(|(file, reached)| (file.strip_prefix(folder.path()).expect("within"), *reached))
            .map(|(file, reached)| (file.display().to_string(), reached))
            .collect();
        let expected = [
            ("alive/data.rs", Reached::Included),
            ("alive/deep.rs", Reached::Shipped),
            ("alive.rs", Reached::Shipped),
            ("lib.rs", Reached::Shipped),
        ];
        let expected = expected.map(|(name, reached)| (name.to_owned(), reached));
        assert_eq!(names, expected);
        Ok(())
    }
}
