//! A namespace's policy: levels and versions by its labels, with the reference's
//! readings of what is missing or wrong.

use std::fmt;

use nautilus_machinery::status::{Cause, quote};
use serde_json::Value;

/// How strict; in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything goes.
    Privileged,
    /// No known privilege escalation.
    Baseline,
    /// Hardened by current best practice.
    Restricted,
}

/// Of which minor release the standards are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// `v1.N`.
    Minor(u32),
    /// The newest known.
    Latest,
}

/// Both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelVersion {
    /// How strict.
    pub level: Level,
    /// Of which release.
    pub version: Version,
}

/// What a namespace asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Pods that break this are refused.
    pub enforce: LevelVersion,
    /// What breaks this is audited.
    pub audit: LevelVersion,
    /// Who breaks this is warned.
    pub warn: LevelVersion,
}

/// A label that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    label: &'static str,
    value: String,
    why: &'static str,
}

impl Fault {
    fn text(&self) -> String {
        format!("Invalid value: {}: {}", quote(&self.value), self.why)
    }

    fn field(&self) -> String {
        format!("metadata.labels[{}]", self.label)
    }

    pub(super) fn cause(&self) -> Cause {
        Cause {
            field: self.field(),
            reason: "FieldValueInvalid".to_owned(),
            message: self.text(),
        }
    }
}

/// The faults as one text, in the reference's form of several errors.
pub(super) fn faults_text(faults: &[Fault]) -> String {
    let texts: Vec<String> = faults
        .iter()
        .map(|fault| format!("{}: {}", fault.field(), fault.text()))
        .collect();
    match texts.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "privileged" => Self::Privileged,
            "baseline" => Self::Baseline,
            "restricted" => Self::Restricted,
            _ => return None,
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        })
    }
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::Latest);
        }
        let digits = text.strip_prefix("v1.")?;
        let plain = digits == "0" || !digits.starts_with('0');
        (plain && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| digits.parse().ok().map(Self::Minor))
            .flatten()
    }

    /// The minor release; the newest possible for [`Version::Latest`].
    pub(super) fn minor(self) -> u32 {
        match self {
            Self::Minor(minor) => minor,
            Self::Latest => u32::MAX,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Minor(minor) => write!(f, "v1.{minor}"),
            Self::Latest => f.write_str("latest"),
        }
    }
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level, self.version)
    }
}

/// What holds where nothing is said.
const DEFAULT: LevelVersion = LevelVersion {
    level: Level::Privileged,
    version: Version::Latest,
};

impl Policy {
    /// Whether nothing is asked for.
    pub fn is_fully_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn]
            .iter()
            .all(|own| own.level == Level::Privileged)
    }

    /// The policy of a namespace's labels. A level of `enforce` that can't be read is
    /// taken for the strictest, of `audit` and `warn` for none.
    pub(super) fn of_labels(labels: &Value) -> (Self, Vec<Fault>) {
        let mut faults = Vec::new();
        let mut read_level = |label: &'static str, fallback: Level| {
            let text = labels[label].as_str()?;
            Some(Level::parse(text).ok_or(fallback).inspect_err(|_| {
                faults.push(Fault {
                    label,
                    value: text.to_owned(),
                    why: "must be one of privileged, baseline, restricted",
                });
            }))
        };
        let enforce = read_level("pod-security.kubernetes.io/enforce", Level::Restricted);
        let audit = read_level("pod-security.kubernetes.io/audit", Level::Privileged);
        let warn = read_level("pod-security.kubernetes.io/warn", Level::Privileged);
        let mut read_version = |label: &'static str| {
            let text = labels[label].as_str()?;
            Some(Version::parse(text).unwrap_or_else(|| {
                faults.push(Fault {
                    label,
                    value: text.to_owned(),
                    why: "must be \"latest\" or \"v1.x\"",
                });
                Version::Latest
            }))
        };
        let enforce_version = read_version("pod-security.kubernetes.io/enforce-version");
        let audit_version = read_version("pod-security.kubernetes.io/audit-version");
        let warn_version = read_version("pod-security.kubernetes.io/warn-version");
        // The reference reads each mode's level and version in turn.
        let place = |fault: &Fault| {
            ["enforce", "audit", "warn"]
                .iter()
                .position(|mode| fault.label.contains(mode))
        };
        faults.sort_by_key(place);
        let of = |level: Option<Result<Level, Level>>, version: Option<Version>| LevelVersion {
            level: level.map_or(DEFAULT.level, |level| level.unwrap_or_else(|level| level)),
            version: version.unwrap_or(DEFAULT.version),
        };
        let mut policy = Self {
            enforce: of(enforce, enforce_version),
            audit: of(audit, audit_version),
            warn: of(warn, warn_version),
        };
        // Whoever enforces a level is warned by it too.
        if warn.is_none()
            && let Some(Ok(level)) = enforce
            && level > policy.warn.level
        {
            policy.warn.level = level;
            if warn_version.is_none() {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, faults)
    }
}
