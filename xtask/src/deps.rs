//! Who may use whom: the graph of our crates as text, one line per crate.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::workspace::Workspace;

/// The graph: `crate: used crates`, and `crate (dev): …` for tests alone.
pub(crate) fn graph(workspace: &Workspace) -> String {
    let ours: BTreeSet<&str> = workspace.packages.iter().map(|p| p.name.as_str()).collect();
    let mut text = String::from(
        "# Which of our crates uses which. A new edge is a decision; `cargo xtask deps --bless`.\n",
    );
    for package in &workspace.packages {
        let edges = |dev: bool| -> BTreeSet<&str> {
            package
                .dependencies
                .iter()
                .filter(|edge| (edge.kind == "dev") == dev)
                .map(|edge| edge.name.as_str())
                .filter(|name| ours.contains(name))
                .collect()
        };
        let normal = edges(false);
        let dev: BTreeSet<&str> = edges(true).difference(&normal).copied().collect();
        for (label, edges) in [("", normal), (" (dev)", dev)] {
            if label.is_empty() || !edges.is_empty() {
                // Writing to a String can't fail.
                let _ = write!(text, "{}{label}:", package.name);
                edges.iter().for_each(|edge| {
                    let _ = write!(text, " {edge}");
                });
                text.push('\n');
            }
        }
    }
    text
}

/// Lines of one text that the other lacks, marked as in a diff.
pub(crate) fn differences(expected: &str, actual: &str) -> Vec<String> {
    let expected: BTreeSet<&str> = expected.lines().collect();
    let actual: BTreeSet<&str> = actual.lines().collect();
    let gone = expected.difference(&actual).map(|line| format!("- {line}"));
    let new = actual.difference(&expected).map(|line| format!("+ {line}"));
    gone.chain(new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{Dependency, Package};

    fn package(name: &str, dependencies: &[(&str, &str)]) -> Package {
        let edge = |(name, kind): &(&str, &str)| Dependency {
            name: (*name).to_owned(),
            kind: (*kind).to_owned(),
        };
        Package {
            name: name.to_owned(),
            folder: name.into(),
            targets: Vec::new(),
            dependencies: dependencies.iter().map(edge).collect(),
        }
    }

    #[test]
    fn only_our_crates_are_edges_and_tests_have_a_line_of_their_own() {
        let packages = vec![
            package(
                "a",
                &[
                    ("serde", "normal"),
                    ("b", "normal"),
                    ("c", "dev"),
                    ("b", "dev"),
                ],
            ),
            package("b", &[]),
            package("c", &[("b", "build")]),
        ];
        let graph = graph(&Workspace {
            root: "/".into(),
            packages,
        });
        let lines: Vec<&str> = graph.lines().skip(1).collect();
        assert_eq!(lines, ["a: b", "a (dev): c", "b:", "c: b"]);
    }

    #[test]
    fn a_new_edge_shows_as_a_changed_line() {
        assert_eq!(
            differences("a: b\nb:\n", "a: b c\nb:\n"),
            ["- a: b", "+ a: b c"]
        );
    }
}
