//! The document a quorum replicates, and its one canonical encoding.
//!
//! People write it as TOML, YAML or JSON; what is signed is the digest of its CBOR
//! encoding here, which names every field in a fixed order, so that neither spaces nor
//! the order of keys change it.

use std::collections::BTreeSet;
use std::convert::Infallible;

use aws_lc_rs::digest;
use minicbor::Encoder;
use minicbor::encode::Error;
use serde::{Deserialize, Serialize};

use super::diversity::Diversity;
use super::operator::OperatorKey;
use super::rules::{AllowedMeasurement, EvidencePolicy, KindRules, MAX_ALLOWED_MEASUREMENTS};
use crate::evidence::{TcbStatus, TeeKind};

/// The form of the document that this build reads and writes.
pub const POLICY_SCHEMA: u32 = 1;
/// The most operators of a policy.
pub const MAX_POLICY_OPERATORS: usize = 64;
/// The longest name of an operator, a measurement, a component or an advisory, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// The most components, and advisories, of a kind.
const MAX_LISTED: usize = 256;

const DIGEST_LABEL: &[u8] = b"nautilus policy document v1\0";

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// [`POLICY_SCHEMA`].
    pub schema: u32,
    /// Its number: each change adds 1. 0 is a policy that no quorum keeps: a node's
    /// configuration, a stranger's file.
    #[serde(default)]
    pub epoch: u64,
    /// Which evidence is good enough.
    pub evidence: EvidencePolicy,
    /// How many vendors' faults the quorum is to bear; nothing is asked where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diversity: Option<Diversity>,
    /// How many operators must sign a change.
    #[serde(default)]
    pub threshold: u32,
    /// Who may sign changes.
    #[serde(default)]
    pub operators: Vec<OperatorKey>,
}

/// What is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy: {what} is {seen}; {remedy}")]
pub struct PolicyError {
    /// Which field.
    pub what: String,
    /// What it holds.
    pub seen: String,
    /// What to write instead.
    pub remedy: &'static str,
}

impl Policy {
    /// Rules without operators, as a configuration or a stranger has them: epoch 0.
    pub fn of_evidence(evidence: EvidencePolicy) -> Self {
        Self {
            schema: POLICY_SCHEMA,
            epoch: 0,
            evidence,
            diversity: None,
            threshold: 0,
            operators: Vec::new(),
        }
    }

    /// Whether evidence can be judged by it.
    ///
    /// # Errors
    /// The first thing that makes no sense.
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.schema != POLICY_SCHEMA {
            return Err(wrong("schema", self.schema, "this build reads schema 1"));
        }
        let named = self.evidence.kinds.values();
        if named.map(|rules| rules.measurements.len()).sum::<usize>() == 0 {
            return Err(wrong(
                "evidence.kinds",
                "without a measurement",
                "it would refuse everyone: name at least one",
            ));
        }
        for (tee, rules) in &self.evidence.kinds {
            check_rules(*tee, rules)?;
        }
        match self.diversity {
            Some(Diversity { vendor_faults: 0 }) => Err(wrong(
                "diversity.vendor_faults",
                0,
                "write at least 1, or leave diversity out",
            )),
            _ => Ok(()),
        }
    }

    /// Whether a quorum can be governed by it: [`Policy::check`], and operators who can
    /// reach the threshold.
    ///
    /// # Errors
    /// The first thing that makes no sense.
    pub fn check_governed(&self) -> Result<(), PolicyError> {
        self.check()?;
        let count = self.operators.len();
        if count == 0 || count > MAX_POLICY_OPERATORS {
            return Err(wrong("operators", count, "name 1 to 64"));
        }
        let reached = usize::try_from(self.threshold).is_ok_and(|k| (1..=count).contains(&k));
        if !reached {
            return Err(wrong(
                "threshold",
                self.threshold,
                "write 1 to the number of operators",
            ));
        }
        let mut keys = BTreeSet::new();
        for operator in &self.operators {
            check_name("operators.name", &operator.name)?;
            if !keys.insert(&operator.public_key) {
                return Err(wrong(
                    "operators.public_key",
                    format!("twice {}", operator.public_key),
                    "one key has one voice",
                ));
            }
        }
        Ok(())
    }

    /// SHA-256 over a label and the canonical encoding: what operators sign, and the
    /// document's short name.
    pub fn digest(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(DIGEST_LABEL);
        context.update(&self.canonical());
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        out
    }

    /// The canonical encoding: a CBOR array of every field in the order of the types.
    pub fn canonical(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::with_capacity(1024));
        let written = self.encode(&mut encoder).is_ok();
        assert!(written, "writing CBOR to memory cannot fail");
        encoder.into_writer()
    }

    fn encode(&self, e: &mut Cbor) -> Written {
        e.array(7)?.u32(self.schema)?.u64(self.epoch)?;
        e.bool(self.evidence.allow_simulated)?;
        e.array(self.evidence.kinds.len() as u64)?;
        for (tee, rules) in &self.evidence.kinds {
            e.array(5)?.str(tee.name())?;
            encode_rules(rules, e)?;
        }
        e.u32(self.diversity.map_or(0, |rule| rule.vendor_faults))?;
        e.u32(self.threshold)?;
        e.array(self.operators.len() as u64)?;
        for operator in &self.operators {
            e.array(2)?.str(&operator.name)?;
            e.bytes(operator.public_key.spki())?;
        }
        Ok(())
    }
}

type Cbor = Encoder<Vec<u8>>;
type Written = Result<(), Error<Infallible>>;

/// Four of the five elements of a kind.
fn encode_rules(rules: &KindRules, e: &mut Cbor) -> Written {
    e.array(rules.measurements.len() as u64)?;
    for allowed in &rules.measurements {
        e.array(4)?.bytes(allowed.measurement.as_bytes())?;
        e.str(&allowed.name)?;
        for time in [allowed.not_before_ms, allowed.not_after_ms] {
            match time {
                Some(time) => e.u64(time)?,
                None => e.null()?,
            };
        }
    }
    e.array(rules.minimum_tcb.len() as u64)?;
    for (component, version) in &rules.minimum_tcb {
        e.array(2)?.str(component)?.u32(*version)?;
    }
    e.array(rules.accepted_statuses.len() as u64)?;
    for status in &rules.accepted_statuses {
        e.str(status.name())?;
    }
    e.array(rules.accepted_advisories.len() as u64)?;
    for advisory in &rules.accepted_advisories {
        e.str(advisory)?;
    }
    Ok(())
}

fn check_rules(tee: TeeKind, rules: &KindRules) -> Result<(), PolicyError> {
    let field = |name: &str| format!("evidence.kinds.{tee}.{name}");
    if rules.measurements.len() > MAX_ALLOWED_MEASUREMENTS {
        let seen = rules.measurements.len();
        return Err(wrong(field("measurements"), seen, "name at most 256"));
    }
    let mut seen = BTreeSet::new();
    for allowed in &rules.measurements {
        check_allowed(&field("measurements"), allowed)?;
        if !seen.insert(&allowed.measurement) {
            return Err(wrong(
                field("measurements"),
                format!("twice {}", allowed.measurement),
                "write one entry for each",
            ));
        }
    }
    if rules.accepted_statuses.contains(&TcbStatus::Revoked) {
        return Err(wrong(
            field("accepted_statuses"),
            TcbStatus::Revoked,
            "a platform whose keys are revoked is never acceptable",
        ));
    }
    if rules.minimum_tcb.len() > MAX_LISTED || rules.accepted_advisories.len() > MAX_LISTED {
        let seen = rules.minimum_tcb.len().max(rules.accepted_advisories.len());
        return Err(wrong(
            field("minimum_tcb or accepted_advisories"),
            seen,
            "name at most 256",
        ));
    }
    for name in rules.minimum_tcb.keys().chain(&rules.accepted_advisories) {
        check_name(&field("minimum_tcb or accepted_advisories"), name)?;
    }
    Ok(())
}

fn check_allowed(field: &str, allowed: &AllowedMeasurement) -> Result<(), PolicyError> {
    if !allowed.name.is_empty() {
        check_name(field, &allowed.name)?;
    }
    match (allowed.not_before_ms, allowed.not_after_ms) {
        (Some(from), Some(until)) if from > until => Err(wrong(
            field,
            format!("valid from {from} until {until}"),
            "write a not_after_ms that is not before not_before_ms",
        )),
        _ => Ok(()),
    }
}

fn check_name(field: &str, name: &str) -> Result<(), PolicyError> {
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control);
    if fits {
        return Ok(());
    }
    Err(wrong(
        field,
        format!("{name:?}"),
        "write 1 to 64 bytes without control characters",
    ))
}

fn wrong(
    what: impl Into<String>,
    seen: impl std::fmt::Display,
    remedy: &'static str,
) -> PolicyError {
    PolicyError {
        what: what.into(),
        seen: seen.to_string(),
        remedy,
    }
}
