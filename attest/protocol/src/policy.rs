//! Which evidence is good enough.
//!
//! A policy names measurements per kind of TEE; simulated evidence needs a word of
//! its own besides. Debug mode is never good enough.

use std::collections::{BTreeMap, BTreeSet};

use crate::evidence::{Claims, Measurement, MeasurementError, TeeKind};
use crate::refused::Refused;

/// In configuration, stands for the measurement of the node that reads it.
pub const OWN_MEASUREMENT_WORD: &str = "self";

/// The rules evidence is judged by. Empty allows nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EvidencePolicy {
    allowed: BTreeMap<TeeKind, BTreeSet<Measurement>>,
    allow_simulated: bool,
}

impl EvidencePolicy {
    /// Nothing allowed yet; `allow_simulated` says whether simulated evidence may
    /// be considered at all.
    pub fn new(allow_simulated: bool) -> Self {
        Self {
            allowed: BTreeMap::new(),
            allow_simulated,
        }
    }

    /// Allows `measurement` for `kind`.
    #[must_use]
    pub fn allow(mut self, kind: TeeKind, measurement: Measurement) -> Self {
        self.allowed.entry(kind).or_default().insert(measurement);
        self
    }

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
        if policy.allowed.is_empty() {
            return Err(PolicyTextError::Empty);
        }
        Ok(policy)
    }

    /// Whether simulated evidence may be considered.
    pub fn allows_simulated(&self) -> bool {
        self.allow_simulated
    }

    /// The measurements allowed for `kind`, in order.
    pub fn allowed(&self, kind: TeeKind) -> impl Iterator<Item = &Measurement> {
        self.allowed.get(&kind).into_iter().flatten()
    }

    /// Judges genuine claims.
    ///
    /// # Errors
    /// `SimulatedNotAllowed`, `Debug` or `Measurement`.
    pub fn judge(&self, claims: &Claims) -> Result<(), Refused> {
        if claims.tee == TeeKind::Simulated && !self.allow_simulated {
            return Err(Refused::SimulatedNotAllowed {
                seen: claims.measurement.clone(),
            });
        }
        if claims.debug {
            return Err(Refused::Debug { tee: claims.tee });
        }
        if !self
            .allowed(claims.tee)
            .any(|allowed| *allowed == claims.measurement)
        {
            return Err(Refused::Measurement {
                tee: claims.tee,
                seen: claims.measurement.clone(),
                allowed: self.allowed(claims.tee).cloned().collect(),
            });
        }
        Ok(())
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
    use crate::evidence::Tcb;

    fn measurement(byte: u8) -> Measurement {
        Measurement::new([byte; 48]).unwrap()
    }

    fn claims(tee: TeeKind, byte: u8) -> Claims {
        Claims {
            tee,
            measurement: measurement(byte),
            platform: "aa".into(),
            debug: false,
            report_data: [0; 64],
            tcb: Tcb::nothing_to_say(),
            registers: BTreeMap::new(),
        }
    }

    #[test]
    fn the_word_self_allows_the_own_measurement() {
        let policy =
            EvidencePolicy::from_text([" self "], true, TeeKind::Simulated, &measurement(1))
                .unwrap();
        assert_eq!(policy.judge(&claims(TeeKind::Simulated, 1)), Ok(()));
    }

    #[test]
    fn a_measurement_is_allowed_for_its_kind_alone() {
        let text = format!("snp:{}", measurement(2));
        let policy =
            EvidencePolicy::from_text([text.as_str()], true, TeeKind::Simulated, &measurement(1))
                .unwrap();
        assert_eq!(policy.judge(&claims(TeeKind::Snp, 2)), Ok(()));
        assert!(matches!(
            policy.judge(&claims(TeeKind::Simulated, 2)),
            Err(Refused::Measurement { .. })
        ));
    }

    #[test]
    fn simulated_evidence_needs_its_own_permission() {
        let policy = EvidencePolicy::new(false).allow(TeeKind::Simulated, measurement(1));
        let refused = policy.judge(&claims(TeeKind::Simulated, 1)).unwrap_err();
        assert_eq!(
            refused,
            Refused::SimulatedNotAllowed {
                seen: measurement(1)
            }
        );
    }

    #[test]
    fn debug_mode_is_refused_whatever_the_policy_allows() {
        let policy = EvidencePolicy::new(true).allow(TeeKind::Snp, measurement(1));
        let debug = Claims {
            debug: true,
            ..claims(TeeKind::Snp, 1)
        };
        assert_eq!(
            policy.judge(&debug),
            Err(Refused::Debug { tee: TeeKind::Snp })
        );
    }

    #[test]
    fn mistakes_in_the_text_name_the_entry() {
        let parse = |text| {
            EvidencePolicy::from_text([text], true, TeeKind::Simulated, &measurement(1))
                .unwrap_err()
                .to_string()
        };
        assert!(
            parse("sev:00")
                .starts_with("evidence policy entry \"sev:00\": unknown kind of TEE \"sev\"")
        );
        assert!(
            parse("zz")
                .starts_with("evidence policy entry \"zz\": a measurement is written in hex")
        );
        assert!(parse("snp:self").contains("this node is of kind simulated"));
        let empty = EvidencePolicy::from_text([], true, TeeKind::Simulated, &measurement(1));
        assert_eq!(empty, Err(PolicyTextError::Empty));
    }
}
