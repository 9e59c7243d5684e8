//! The rules evidence is judged by, per kind of TEE.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::evidence::{Claims, Measurement, Tcb, TcbStatus, TeeKind};
use crate::port::UnixMillis;
use crate::refused::Refused;

/// The most measurements of one kind.
pub const MAX_ALLOWED_MEASUREMENTS: usize = 256;

/// The rules evidence is judged by. Empty allows nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidencePolicy {
    /// Whether simulated evidence may be considered at all. It proves nothing about
    /// hardware.
    #[serde(default)]
    pub allow_simulated: bool,
    /// The rules of each kind; a kind that is not here is refused.
    #[serde(default)]
    pub kinds: BTreeMap<TeeKind, KindRules>,
}

/// The rules of one kind of TEE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KindRules {
    /// The code that may run.
    #[serde(default)]
    pub measurements: Vec<AllowedMeasurement>,
    /// Security version numbers, at least, by component (see [`Tcb::components`]). A
    /// component that the evidence does not name counts as 0.
    #[serde(default)]
    pub minimum_tcb: BTreeMap<String, u32>,
    /// The vendor's verdicts that are good enough.
    #[serde(default = "up_to_date")]
    pub accepted_statuses: BTreeSet<TcbStatus>,
    /// The vendor's open advisories that are borne; any other one is refused.
    #[serde(default)]
    pub accepted_advisories: BTreeSet<String>,
}

fn up_to_date() -> BTreeSet<TcbStatus> {
    BTreeSet::from([TcbStatus::UpToDate])
}

impl Default for KindRules {
    fn default() -> Self {
        Self {
            measurements: Vec::new(),
            minimum_tcb: BTreeMap::new(),
            accepted_statuses: up_to_date(),
            accepted_advisories: BTreeSet::new(),
        }
    }
}

/// Code that may run, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowedMeasurement {
    /// Its measurement, lower-case hex.
    pub measurement: Measurement,
    /// What people call it, such as a release.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// From when on, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before_ms: Option<UnixMillis>,
    /// Until when, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after_ms: Option<UnixMillis>,
}

impl AllowedMeasurement {
    /// `measurement` at any time, without a name.
    pub fn always(measurement: Measurement) -> Self {
        Self {
            measurement,
            name: String::new(),
            not_before_ms: None,
            not_after_ms: None,
        }
    }

    fn judge_time(&self, now_ms: UnixMillis) -> Result<(), Refused> {
        let what = "the policy's permission for this measurement";
        if let Some(valid_from_ms) = self.not_before_ms.filter(|from| now_ms < *from) {
            return Err(Refused::NotYetValid {
                what,
                valid_from_ms,
                now_ms,
            });
        }
        if let Some(expired_at_ms) = self.not_after_ms.filter(|until| now_ms > *until) {
            return Err(Refused::Expired {
                what,
                expired_at_ms,
                now_ms,
            });
        }
        Ok(())
    }
}

impl EvidencePolicy {
    /// Nothing allowed yet; `allow_simulated` says whether simulated evidence may be
    /// considered at all.
    pub fn new(allow_simulated: bool) -> Self {
        Self {
            allow_simulated,
            kinds: BTreeMap::new(),
        }
    }

    /// Allows `measurement` for `kind`, at any time.
    #[must_use]
    pub fn allow(mut self, kind: TeeKind, measurement: Measurement) -> Self {
        let rules = self.kinds.entry(kind).or_default();
        if !rules.allows(&measurement) {
            rules
                .measurements
                .push(AllowedMeasurement::always(measurement));
        }
        self
    }

    /// Takes `measurement` of `kind` out; says whether it was in.
    pub fn retire(&mut self, kind: TeeKind, measurement: &Measurement) -> bool {
        let Some(rules) = self.kinds.get_mut(&kind) else {
            return false;
        };
        let before = rules.measurements.len();
        rules
            .measurements
            .retain(|allowed| allowed.measurement != *measurement);
        rules.measurements.len() < before
    }

    /// The measurements named for `kind`, whenever they hold.
    pub fn allowed(&self, kind: TeeKind) -> impl Iterator<Item = &Measurement> {
        let rules = self.kinds.get(&kind).into_iter();
        rules
            .flat_map(|rules| &rules.measurements)
            .map(|allowed| &allowed.measurement)
    }

    /// Judges code by its kind and measurement alone.
    ///
    /// # Errors
    /// `SimulatedNotAllowed`, `Measurement`, or `NotYetValid` and `Expired` where the
    /// policy names the measurement for another time.
    pub fn judge_code(
        &self,
        tee: TeeKind,
        measurement: &Measurement,
        now_ms: UnixMillis,
    ) -> Result<(), Refused> {
        if tee == TeeKind::Simulated && !self.allow_simulated {
            return Err(Refused::SimulatedNotAllowed {
                seen: measurement.clone(),
            });
        }
        let rules = self.kinds.get(&tee).into_iter();
        let named = rules
            .flat_map(|rules| &rules.measurements)
            .filter(|allowed| allowed.measurement == *measurement);
        let mut refused = Refused::Measurement {
            tee,
            seen: measurement.clone(),
            allowed: self.allowed(tee).cloned().collect(),
        };
        for allowed in named {
            match allowed.judge_time(now_ms) {
                Ok(()) => return Ok(()),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Judges genuine claims at a time in milliseconds since 1970.
    ///
    /// # Errors
    /// `Debug`, those of [`EvidencePolicy::judge_code`], `OldTcb`, `TcbStatus` or
    /// `Advisory`.
    pub fn judge(&self, claims: &Claims, now_ms: UnixMillis) -> Result<(), Refused> {
        if claims.debug {
            return Err(Refused::Debug { tee: claims.tee });
        }
        self.judge_code(claims.tee, &claims.measurement, now_ms)?;
        match self.kinds.get(&claims.tee) {
            Some(rules) => rules.judge_tcb(claims.tee, &claims.tcb),
            None => Ok(()),
        }
    }
}

impl KindRules {
    fn allows(&self, measurement: &Measurement) -> bool {
        let mut named = self.measurements.iter();
        named.any(|allowed| allowed.measurement == *measurement)
    }

    fn judge_tcb(&self, tee: TeeKind, tcb: &Tcb) -> Result<(), Refused> {
        for (component, &expected) in &self.minimum_tcb {
            let seen = tcb.components.get(component).copied().unwrap_or(0);
            if seen < expected {
                return Err(Refused::OldTcb {
                    component: component.clone(),
                    seen,
                    expected,
                });
            }
        }
        if !self.accepted_statuses.contains(&tcb.status) {
            return Err(Refused::TcbStatus {
                tee,
                seen: tcb.status,
            });
        }
        let borne = &self.accepted_advisories;
        match tcb.advisories.difference(borne).next() {
            Some(seen) => Err(Refused::Advisory {
                tee,
                seen: seen.clone(),
            }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

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

    fn snp() -> EvidencePolicy {
        EvidencePolicy::new(false).allow(TeeKind::Snp, measurement(1))
    }

    fn with_tcb(tcb: Tcb) -> Claims {
        Claims {
            tcb,
            ..claims(TeeKind::Snp, 1)
        }
    }

    #[test]
    fn a_measurement_is_allowed_for_its_kind_alone() {
        assert_eq!(snp().judge(&claims(TeeKind::Snp, 1), NOW_MS), Ok(()));
        for other in [claims(TeeKind::Tdx, 1), claims(TeeKind::Snp, 2)] {
            let refused = snp().judge(&other, NOW_MS).unwrap_err();
            assert!(matches!(refused, Refused::Measurement { .. }), "{refused}");
        }
    }

    #[test]
    fn simulated_evidence_needs_its_own_permission() {
        let policy = EvidencePolicy::new(false).allow(TeeKind::Simulated, measurement(1));
        let refused = policy.judge(&claims(TeeKind::Simulated, 1), NOW_MS);
        assert_eq!(
            refused,
            Err(Refused::SimulatedNotAllowed {
                seen: measurement(1)
            })
        );
    }

    #[test]
    fn debug_mode_is_refused_whatever_the_policy_allows() {
        let debug = Claims {
            debug: true,
            ..claims(TeeKind::Snp, 1)
        };
        assert_eq!(
            snp().judge(&debug, NOW_MS),
            Err(Refused::Debug { tee: TeeKind::Snp })
        );
    }

    #[test]
    fn a_measurement_holds_between_its_two_times() {
        let mut policy = snp();
        let rules = policy.kinds.get_mut(&TeeKind::Snp).unwrap();
        rules.measurements[0].not_before_ms = Some(NOW_MS);
        rules.measurements[0].not_after_ms = Some(NOW_MS + 10);
        let judged = |now_ms| policy.judge(&claims(TeeKind::Snp, 1), now_ms);
        assert!(matches!(
            judged(NOW_MS - 1),
            Err(Refused::NotYetValid { .. })
        ));
        assert_eq!(judged(NOW_MS), Ok(()));
        assert_eq!(judged(NOW_MS + 10), Ok(()));
        assert!(matches!(judged(NOW_MS + 11), Err(Refused::Expired { .. })));
    }

    #[test]
    fn an_old_component_is_refused_by_name_and_a_missing_one_counts_as_0() {
        let mut policy = snp();
        let rules = policy.kinds.get_mut(&TeeKind::Snp).unwrap();
        rules.minimum_tcb.insert("microcode".into(), 72);
        let mut tcb = Tcb::nothing_to_say();
        let judged = |tcb: &Tcb| policy.judge(&with_tcb(tcb.clone()), NOW_MS);
        let refused = |seen| {
            Err(Refused::OldTcb {
                component: "microcode".into(),
                seen,
                expected: 72,
            })
        };
        assert_eq!(judged(&tcb), refused(0));
        tcb.components.insert("microcode".into(), 71);
        assert_eq!(judged(&tcb), refused(71));
        tcb.components.insert("microcode".into(), 72);
        assert_eq!(judged(&tcb), Ok(()));
    }

    #[test]
    fn a_verdict_or_an_advisory_that_is_not_named_is_refused() {
        let mut policy = snp();
        let mut tcb = Tcb::nothing_to_say();
        tcb.status = TcbStatus::SwHardeningNeeded;
        tcb.advisories.insert("INTEL-SA-00615".into());
        let claims = with_tcb(tcb);
        let refused = policy.judge(&claims, NOW_MS).unwrap_err();
        assert!(matches!(refused, Refused::TcbStatus { .. }), "{refused}");
        let rules = policy.kinds.get_mut(&TeeKind::Snp).unwrap();
        rules.accepted_statuses.insert(TcbStatus::SwHardeningNeeded);
        let refused = policy.judge(&claims, NOW_MS).unwrap_err();
        assert!(matches!(refused, Refused::Advisory { .. }), "{refused}");
        let rules = policy.kinds.get_mut(&TeeKind::Snp).unwrap();
        rules.accepted_advisories.insert("INTEL-SA-00615".into());
        assert_eq!(policy.judge(&claims, NOW_MS), Ok(()));
    }

    #[test]
    fn a_retired_measurement_is_refused() {
        let mut policy = snp();
        assert!(policy.retire(TeeKind::Snp, &measurement(1)));
        assert!(!policy.retire(TeeKind::Snp, &measurement(1)));
        assert!(policy.judge(&claims(TeeKind::Snp, 1), NOW_MS).is_err());
    }
}
