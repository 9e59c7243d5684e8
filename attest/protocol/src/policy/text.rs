//! The rules as a node's configuration writes them: a list of measurements.

use super::rules::EvidencePolicy;
use crate::evidence::{Measurement, MeasurementError, TeeKind};

/// In configuration, stands for the measurement of the node that reads it.
pub const OWN_MEASUREMENT_WORD: &str = "self";

impl EvidencePolicy {
    /// From configuration. An entry is `self`, a measurement in hex (of this
    /// node's own kind), or `kind:hex` such as `snp:8f3a…`; spaces around are ignored.
    ///
    /// # Errors
    /// The entry that does not parse, or an empty list, which would refuse everyone.
    pub fn from_text<'a>(
        entries: impl IntoIterator<Item = &'a str>,
        allow_simulated: bool,
        own_kind: TeeKind,
        own_measurement: &Measurement,
    ) -> Result<Self, PolicyTextError> {
        let mut policy = Self::new(allow_simulated);
        for entry in entries {
            let entry = entry.trim();
            let (kind, text) = match entry.split_once(':') {
                None => (own_kind, entry),
                Some((kind, text)) => {
                    let kind = kind.trim().parse();
                    (
                        kind.map_err(|reason| PolicyTextError::Kind {
                            entry: entry.to_owned(),
                            reason,
                        })?,
                        text.trim(),
                    )
                }
            };
            let measurement = if text == OWN_MEASUREMENT_WORD {
                if kind != own_kind {
                    return Err(PolicyTextError::OwnKind {
                        entry: entry.to_owned(),
                        own_kind,
                    });
                }
                own_measurement.clone()
            } else {
                text.parse()
                    .map_err(|reason| PolicyTextError::Measurement {
                        entry: entry.to_owned(),
                        reason,
                    })?
            };
            policy = policy.allow(kind, measurement);
        }
        if policy.kinds.is_empty() {
            return Err(PolicyTextError::Empty);
        }
        Ok(policy)
    }
}

/// Why a policy in configuration does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyTextError {
    /// No measurement at all.
    #[error(
        "the evidence policy allows no measurement: name some in hex, or \"{OWN_MEASUREMENT_WORD}\""
    )]
    Empty,
    /// The word before the colon.
    #[error("evidence policy entry {entry:?}: {reason}")]
    Kind {
        /// The entry.
        entry: String,
        /// Why.
        reason: String,
    },
    /// The measurement.
    #[error("evidence policy entry {entry:?}: {reason}")]
    Measurement {
        /// The entry.
        entry: String,
        /// Why.
        reason: MeasurementError,
    },
    /// `self` for a kind this node is not.
    #[error("evidence policy entry {entry:?}: this node is of kind {own_kind}")]
    OwnKind {
        /// The entry.
        entry: String,
        /// This node's kind.
        own_kind: TeeKind,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(byte: u8) -> Measurement {
        Measurement::new([byte; 48]).unwrap()
    }

    fn parse(entries: &[&str]) -> Result<EvidencePolicy, PolicyTextError> {
        let entries = entries.iter().copied();
        EvidencePolicy::from_text(entries, true, TeeKind::Simulated, &measurement(1))
    }

    #[test]
    fn the_word_self_allows_the_own_measurement() {
        let policy = EvidencePolicy::new(true).allow(TeeKind::Simulated, measurement(1));
        assert_eq!(parse(&[" self "]), Ok(policy));
    }

    #[test]
    fn an_entry_may_name_its_kind() {
        let text = format!("snp:{}", measurement(2));
        let policy = EvidencePolicy::new(true).allow(TeeKind::Snp, measurement(2));
        assert_eq!(parse(&[&text]), Ok(policy));
    }

    #[test]
    fn mistakes_in_the_text_name_the_entry() {
        let said = |text| parse(&[text]).unwrap_err().to_string();
        assert!(
            said("sev:00")
                .starts_with("evidence policy entry \"sev:00\": unknown kind of TEE \"sev\"")
        );
        assert!(
            said("zz").starts_with("evidence policy entry \"zz\": a measurement is written in hex")
        );
        assert!(said("snp:self").contains("this node is of kind simulated"));
        assert_eq!(parse(&[]), Err(PolicyTextError::Empty));
    }
}
