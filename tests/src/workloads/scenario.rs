//! The corpus: one file for each scenario, as `corpus/CLASS/NAME.yaml`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

use super::folder;

/// Steps that a user takes, in a namespace of the scenario's own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// `CLASS/NAME`, from its path.
    #[serde(skip)]
    pub name: String,
    /// Whether nothing else may happen in the cluster meanwhile: it looks at nodes'
    /// room, or changes nodes.
    #[serde(default)]
    pub alone: bool,
    /// How much of where pods are counts.
    #[serde(default)]
    pub placement: Placement,
    /// Events (`Kind Reason`) that come or not, by which of two controllers is first.
    #[serde(default)]
    pub either: Vec<String>,
    /// One after the other; the cluster comes to rest after each.
    pub steps: Vec<Step>,
}

/// How much of where pods are counts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Placement {
    /// Whether a pod has a node.
    #[default]
    Any,
    /// The node's name.
    Exact,
    /// How many pods are in the domains of this label, whichever is which.
    Spread(String),
}

/// What is done before the cluster comes to rest again.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Objects to create; those of namespaces without one get the scenario's.
    #[serde(default)]
    pub create: Vec<Value>,
    /// Lines of words for kubectl, in the scenario's namespace; `'` keeps words together.
    #[serde(default)]
    pub kubectl: Vec<String>,
    /// How old what was created before is at least, in seconds: where ages decide.
    #[serde(default)]
    pub after_s: u64,
    /// How long nothing may change on the reference before that counts as rest, in seconds.
    #[serde(default = "five")]
    pub rest_s: u64,
}

fn five() -> u64 {
    5
}

impl Scenario {
    /// Reads one file.
    fn read(path: &Path, name: String) -> Result<Self> {
        let text = std::fs::read_to_string(path)?;
        // By way of JSON: a variant with a value is a map of one field, not a tag.
        let json: Value = serde_yaml_ng::from_str(&text)?;
        let mut scenario: Self = serde_json::from_value(json)?;
        scenario.name = name;
        Ok(scenario)
    }

    /// Its namespace: `CLASS-NAME`.
    pub fn namespace(&self) -> String {
        self.name.replace('/', "-")
    }

    /// Where what the reference makes of it is recorded.
    pub fn golden(&self) -> PathBuf {
        folder().join("golden").join(format!("{}.json", self.name))
    }
}

/// Every scenario, by name; or those alone whose names hold one of the `wanted` words.
///
/// # Errors
/// When a file can't be read or is no scenario.
pub fn corpus(wanted: &str) -> Result<Vec<Scenario>> {
    let folder = folder().join("corpus");
    let mut all = Vec::new();
    for class in std::fs::read_dir(&folder)? {
        for file in std::fs::read_dir(class?.path())? {
            let path = file?.path();
            let name = path.strip_prefix(&folder)?.with_extension("");
            let name = name.to_string_lossy().into_owned();
            all.push(Scenario::read(&path, name.clone()).context(name)?);
        }
    }
    let mut words = wanted.split_whitespace().peekable();
    if words.peek().is_some() {
        let words: Vec<&str> = words.collect();
        all.retain(|scenario| words.iter().any(|word| scenario.name.contains(word)));
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}
