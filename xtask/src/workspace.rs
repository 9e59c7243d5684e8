//! The workspace, as `cargo metadata` tells it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// All our crates.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) packages: Vec<Package>,
}

/// One of our crates.
pub(crate) struct Package {
    pub(crate) name: String,
    /// Its folder, relative to the workspace's root.
    pub(crate) folder: PathBuf,
    /// The root files of its targets, absolute.
    pub(crate) targets: Vec<PathBuf>,
    /// Every dependency by name, ours or not.
    pub(crate) dependencies: Vec<Dependency>,
}

/// One edge.
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `normal`, `dev` or `build`.
    pub(crate) kind: String,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn read() -> Result<Self> {
        let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(program)
            .args([
                "metadata",
                "--format-version",
                "1",
                "--no-deps",
                "--offline",
            ])
            .output()
            .context("cargo metadata can't be run")?;
        if !output.status.success() {
            bail!(
                "cargo metadata: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let metadata = serde_json::from_slice(&output.stdout).context("cargo metadata's JSON")?;
        Self::parse(&metadata).context("cargo metadata lacks a field")
    }

    fn parse(metadata: &Value) -> Option<Self> {
        let root = PathBuf::from(metadata["workspace_root"].as_str()?);
        let mut packages = Vec::new();
        for package in metadata["packages"].as_array()? {
            let manifest = PathBuf::from(package["manifest_path"].as_str()?);
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let dependencies = package["dependencies"]
                .as_array()?
                .iter()
                .map(|dependency| {
                    Some(Dependency {
                        name: text(&dependency["name"])?,
                        kind: text(&dependency["kind"]).unwrap_or_else(|| "normal".to_owned()),
                    })
                });
            let targets = package["targets"].as_array()?.iter();
            packages.push(Package {
                name: text(&package["name"])?,
                folder: manifest.parent()?.strip_prefix(&root).ok()?.to_owned(),
                targets: targets
                    .map(|target| target["src_path"].as_str().map(PathBuf::from))
                    .collect::<Option<_>>()?,
                dependencies: dependencies.collect::<Option<_>>()?,
            });
        }
        packages.sort_by(|a, b| a.name.cmp(&b.name));
        Some(Self { root, packages })
    }
}
