//! What can be wrong with a configuration. Every message names the key, the value
//! and what to write instead.

use std::path::PathBuf;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file could not be read.
    #[error("can't read the configuration {}: {source}; give an existing file with --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not TOML of the documented keys.
    #[error("{}: {message}\nthe keys are listed by `nautilus node --help`", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's message, with line and column.
        message: String,
    },
    /// A key that has no default is missing.
    #[error("{key} is not set; {remedy} (or set {variable}, or pass {flag})")]
    Missing {
        /// The key as it stands in the file.
        key: &'static str,
        /// What to write.
        remedy: &'static str,
        /// The environment variable.
        variable: String,
        /// The flag.
        flag: String,
    },
    /// A value makes no sense.
    #[error("{key} = {value:?}: {reason}; {remedy}")]
    Invalid {
        /// The key as it stands in the file.
        key: &'static str,
        /// The value found.
        value: String,
        /// What is wrong with it.
        reason: String,
        /// What to write instead.
        remedy: &'static str,
    },
}

impl ConfigError {
    /// `key` is missing. The variable's and the flag's name follow from the key's.
    pub(super) fn missing(key: &'static str, remedy: &'static str) -> Self {
        let words = key.replace(['.', '_'], "-");
        Self::Missing {
            key,
            remedy,
            variable: format!("NAUTILUS_{}", words.replace('-', "_").to_uppercase()),
            flag: format!("--{words}"),
        }
    }

    /// `value` of `key` is wrong.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "numbers, texts and errors alike"
    )]
    pub(super) fn invalid(
        key: &'static str,
        value: impl ToString,
        reason: impl ToString,
        remedy: &'static str,
    ) -> Self {
        Self::Invalid {
            key,
            value: value.to_string(),
            reason: reason.to_string(),
            remedy,
        }
    }
}
