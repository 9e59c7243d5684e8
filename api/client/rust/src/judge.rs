//! What a client accepts as the quorum's code.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use nautilus_attest_protocol::{
    Claims, EvidencePolicy, Refused, ReportData, Verifier, claims_for_relying_party,
};

/// Rules, and who can tell genuine evidence.
#[derive(Clone)]
pub struct Judge {
    policy: EvidencePolicy,
    verifier: Arc<dyn Verifier>,
}

impl Judge {
    /// Accepts what `policy` allows of what `verifier` finds genuine. Simulated evidence
    /// needs both: a policy that allows it and a verifier of its root.
    pub fn new(policy: EvidencePolicy, verifier: Arc<dyn Verifier>) -> Self {
        Self { policy, verifier }
    }

    /// The claims of evidence that is genuine and answers `expected`.
    ///
    /// # Errors
    /// Those of [`Verifier::verify`], and `Replay`.
    pub fn claims(&self, evidence: &[u8], expected: &ReportData) -> Result<Claims, Refused> {
        claims_for_relying_party(evidence, expected, self.verifier.as_ref(), now_ms())
    }

    /// Whether such code is accepted.
    ///
    /// # Errors
    /// Those of [`EvidencePolicy::judge`].
    pub fn policy(&self, claims: &Claims) -> Result<(), Refused> {
        self.policy.judge(claims, now_ms())
    }

    /// The claims of evidence that is genuine, over `expected`, and good enough as of a
    /// moment in milliseconds since 1970.
    ///
    /// # Errors
    /// Those of [`Judge::claims`] and [`Judge::policy`].
    pub fn evidence(
        &self,
        encoded: &[u8],
        expected: &ReportData,
        at_ms: u64,
    ) -> Result<Claims, Refused> {
        let claims = claims_for_relying_party(encoded, expected, self.verifier.as_ref(), at_ms)?;
        self.policy.judge(&claims, at_ms)?;
        Ok(claims)
    }

    /// Both at once, now.
    ///
    /// # Errors
    /// Those of [`Judge::claims`] and [`Judge::policy`].
    pub fn accept(&self, evidence: &[u8], expected: &ReportData) -> Result<(), Refused> {
        self.policy(&self.claims(evidence, expected)?)
    }
}

/// The time of judgement: milliseconds since the epoch. A clock before it reads as the
/// epoch, at which nothing is valid yet.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
