//! What the first layer remembers: that evidence in a certificate was genuine.
//!
//! A peer shows the same certificate on every connection for hours; judging its
//! evidence anew costs signatures and shows nothing new within minutes. Remembered
//! is only what the verifier has said about those very bytes. Whether they are for
//! the certificate's key, the policy, and every date of the certificate are judged
//! each time, and the second layer, which decides, remembers nothing.
//!
//! Invariants: refusals are not remembered; at most [`MAX_REMEMBERED`] entries,
//! each for at most [`REMEMBERED_MS`]; a clock that went back forgets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use nautilus_attest_protocol::binding::evidence_digest;
use nautilus_attest_protocol::{Claims, Evidence, Refused, UnixMillis, Verifier};

/// The most pieces of evidence remembered.
const MAX_REMEMBERED: usize = 1024;
/// How long evidence is remembered, in milliseconds: a revocation or a new verdict
/// on a platform reaches the first layer this much later at most.
const REMEMBERED_MS: u64 = 5 * 60 * 1000;

/// A verifier that does not check the same evidence twice within minutes.
pub(crate) struct Memory {
    verifier: Arc<dyn Verifier>,
    /// By the digest of the encoded evidence.
    known: Mutex<BTreeMap<[u8; 32], Known>>,
}

struct Known {
    claims: Claims,
    at_ms: UnixMillis,
}

impl Known {
    fn holds(&self, now_ms: UnixMillis) -> bool {
        (self.at_ms..=self.at_ms.saturating_add(REMEMBERED_MS)).contains(&now_ms)
    }
}

impl Memory {
    /// Remembers what `verifier` says.
    pub(crate) fn new(verifier: Arc<dyn Verifier>) -> Self {
        Self {
            verifier,
            known: Mutex::default(),
        }
    }

    fn recall(&self, digest: &[u8; 32], now_ms: UnixMillis) -> Option<Claims> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = known.get(digest).filter(|entry| entry.holds(now_ms))?;
        Some(entry.claims.clone())
    }

    fn remember(&self, digest: [u8; 32], claims: Claims, at_ms: UnixMillis) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_REMEMBERED {
            known.retain(|_, entry| entry.holds(at_ms));
        }
        if known.len() >= MAX_REMEMBERED {
            let oldest = known.iter().min_by_key(|(_, entry)| entry.at_ms);
            let oldest = oldest.map(|(digest, _)| *digest);
            oldest.map(|digest| known.remove(&digest));
        }
        known.insert(digest, Known { claims, at_ms });
        assert!(known.len() <= MAX_REMEMBERED, "the memory is bounded");
    }
}

impl Verifier for Memory {
    fn verify(&self, evidence: &Evidence, now_ms: UnixMillis) -> Result<Claims, Refused> {
        let digest = evidence_digest(&evidence.encode());
        if let Some(claims) = self.recall(&digest, now_ms) {
            return Ok(claims);
        }
        let claims = self.verifier.verify(evidence, now_ms)?;
        self.remember(digest, claims.clone(), now_ms);
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nautilus_attest_protocol::{Measurement, Tcb, TeeKind};

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    /// Accepts bodies that do not begin with 0, and counts how often it is asked.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Verifier for Counting {
        fn verify(&self, evidence: &Evidence, _now_ms: UnixMillis) -> Result<Claims, Refused> {
            self.0.fetch_add(1, Ordering::Relaxed);
            if evidence.body.first() == Some(&0) {
                return Err(Refused::Unsupported {
                    what: "zero".to_owned(),
                });
            }
            Ok(Claims {
                tee: evidence.kind,
                measurement: Measurement::new([1]).unwrap(),
                platform: hex(&evidence.body),
                debug: false,
                report_data: [0; 64],
                tcb: Tcb::nothing_to_say(),
                registers: BTreeMap::new(),
            })
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn evidence(number: u64) -> Evidence {
        let mut body = vec![u8::from(number > 0)];
        body.extend(number.to_be_bytes());
        Evidence::new(TeeKind::Simulated, body)
    }

    fn memory() -> (Memory, Arc<Counting>) {
        let counting = Arc::new(Counting::default());
        (
            Memory::new(Arc::clone(&counting) as Arc<dyn Verifier>),
            counting,
        )
    }

    fn asked(counting: &Counting) -> usize {
        counting.0.load(Ordering::Relaxed)
    }

    #[test]
    fn the_same_evidence_is_checked_once_within_its_time() {
        let (memory, counting) = memory();
        let first = memory.verify(&evidence(1), NOW_MS).unwrap();
        let second = memory.verify(&evidence(1), NOW_MS + REMEMBERED_MS);
        assert_eq!(second, Ok(first));
        assert_eq!(asked(&counting), 1);
    }

    #[test]
    fn evidence_is_checked_again_after_its_time_and_when_the_clock_went_back() {
        let (memory, counting) = memory();
        memory.verify(&evidence(1), NOW_MS).unwrap();
        memory
            .verify(&evidence(1), NOW_MS + REMEMBERED_MS + 1)
            .unwrap();
        assert_eq!(asked(&counting), 2);
        memory.verify(&evidence(1), NOW_MS).unwrap();
        assert_eq!(asked(&counting), 3);
    }

    #[test]
    fn other_evidence_is_never_taken_for_known_one() {
        let (memory, counting) = memory();
        memory.verify(&evidence(1), NOW_MS).unwrap();
        let other = memory.verify(&evidence(2), NOW_MS).unwrap();
        assert!(other.platform.ends_with("02"));
        let same_body = Evidence::new(TeeKind::Nitro, evidence(1).body);
        assert_eq!(
            memory.verify(&same_body, NOW_MS).unwrap().tee,
            TeeKind::Nitro
        );
        let other_claims = evidence(1).with_claims_buffer(vec![1]);
        memory.verify(&other_claims, NOW_MS).unwrap();
        assert_eq!(asked(&counting), 4);
    }

    #[test]
    fn refusals_are_not_remembered() {
        let (memory, counting) = memory();
        assert!(memory.verify(&evidence(0), NOW_MS).is_err());
        assert!(memory.verify(&evidence(0), NOW_MS).is_err());
        assert_eq!(asked(&counting), 2);
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_the_oldest() {
        let (memory, counting) = memory();
        let most = MAX_REMEMBERED as u64;
        for number in 1..=most + 1 {
            memory.verify(&evidence(number), NOW_MS + number).unwrap();
        }
        assert_eq!(memory.known.lock().unwrap().len(), MAX_REMEMBERED);
        let before = asked(&counting);
        memory
            .verify(&evidence(most + 1), NOW_MS + most + 2)
            .unwrap();
        assert_eq!(asked(&counting), before);
        memory.verify(&evidence(1), NOW_MS + most + 3).unwrap();
        assert_eq!(asked(&counting), before + 1);
    }
}
