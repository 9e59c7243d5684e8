//! The verifiers this node has, by kind. A kind is added by giving its verifier;
//! evidence of any other is refused by the kind's name.

use std::collections::BTreeMap;
use std::sync::Arc;

use nautilus_attest_protocol::{
    Claims, Endorsements, Evidence, Refused, TeeKind, UnixMillis, Verifier,
};

use crate::intel::IntelVerifier;
use crate::nitro::NitroVerifier;
use crate::snp::SnpVerifier;

/// One [`Verifier`] out of one per kind.
#[derive(Clone, Default)]
pub struct Verifiers(BTreeMap<TeeKind, Arc<dyn Verifier>>);

impl Verifiers {
    /// None yet: everything is refused.
    pub fn new() -> Self {
        Self::default()
    }

    /// Those of every kind of hardware, under its vendor's root, which is built in.
    /// What vendors say about single platforms is looked up in `endorsements`.
    pub fn with_hardware(endorsements: Arc<dyn Endorsements>) -> Self {
        let intel = |kind| Arc::new(IntelVerifier::new(kind, Arc::clone(&endorsements)));
        Self::new()
            .with(TeeKind::Nitro, Arc::new(NitroVerifier::new()))
            .with(TeeKind::Tdx, intel(TeeKind::Tdx))
            .with(TeeKind::Sgx, intel(TeeKind::Sgx))
            .with(TeeKind::Snp, Arc::new(SnpVerifier::new(endorsements)))
    }

    /// Adds or replaces the verifier of `kind`.
    #[must_use]
    pub fn with(mut self, kind: TeeKind, verifier: Arc<dyn Verifier>) -> Self {
        self.0.insert(kind, verifier);
        self
    }

    /// The kinds it can judge.
    pub fn kinds(&self) -> impl Iterator<Item = TeeKind> {
        self.0.keys().copied()
    }
}

impl Verifier for Verifiers {
    fn verify(&self, evidence: &Evidence, now_ms: UnixMillis) -> Result<Claims, Refused> {
        let verifier = self
            .0
            .get(&evidence.kind)
            .ok_or_else(|| Refused::Unsupported {
                what: format!("{} evidence", evidence.kind),
            })?;
        let claims = verifier.verify(evidence, now_ms)?;
        assert_eq!(
            claims.tee, evidence.kind,
            "a verifier speaks for its own kind"
        );
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_without_a_verifier_is_refused_by_name() {
        let refused = Verifiers::new()
            .verify(&Evidence::new(TeeKind::Nitro, vec![1]), 0)
            .unwrap_err();
        assert_eq!(refused.to_string(), "nitro evidence is not supported here");
    }
}
