//! The verifiers this node has, by kind. A kind is added by giving its verifier;
//! evidence of any other is refused by the kind's name.

use std::collections::BTreeMap;
use std::sync::Arc;

use nautilus_attest_protocol::{Claims, Evidence, Refused, TeeKind, UnixMillis, Verifier};

/// One [`Verifier`] out of one per kind.
#[derive(Clone, Default)]
pub struct Verifiers(BTreeMap<TeeKind, Arc<dyn Verifier>>);

impl Verifiers {
    /// None yet: everything is refused.
    pub fn new() -> Self {
        Self::default()
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
