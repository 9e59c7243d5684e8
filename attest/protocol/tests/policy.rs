//! Who may change the policy: real Ed25519 and P-256 keys sign changes, and everything
//! that must not count is tried.

#![allow(clippy::unwrap_used)]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use nautilus_attest_protocol::policy::{
    Approval, ChangeRefused, Diversity, EvidencePolicy, OperatorKey, Policy, PublicKey, accept,
    approving_operators, change_bytes, differences,
};
use nautilus_attest_protocol::{Measurement, TeeKind};
use proptest::prelude::*;

const CLUSTER: &str = "reef";

enum Key {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl Key {
    fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().unwrap())
    }

    fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    fn public(&self) -> PublicKey {
        let (prefix, key) = match self {
            Self::Ed25519(pair) => ("302a300506032b6570032100", pair.public_key().as_ref()),
            Self::P256(pair) => (
                "3059301306072a8648ce3d020106082a8648ce3d030107034200",
                pair.public_key().as_ref(),
            ),
        };
        PublicKey::from_spki([hex::decode(prefix).unwrap(), key.to_vec()].concat()).unwrap()
    }

    fn sign(&self, message: &[u8]) -> Approval {
        let signature = match self {
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Self::P256(pair) => pair
                .sign(&SystemRandom::new(), message)
                .unwrap()
                .as_ref()
                .to_vec(),
        };
        Approval {
            operator: self.public().fingerprint(),
            signature: hex::encode(signature),
        }
    }

    fn approve(&self, cluster: &str, base: u64, document: &Policy) -> Approval {
        self.sign(&change_bytes(cluster, base, &document.digest()))
    }
}

fn measurement(byte: u8) -> Measurement {
    Measurement::new([byte; 48]).unwrap()
}

/// Three operators, of whom two must sign, at epoch 4.
struct World {
    keys: [Key; 3],
    present: Policy,
    next: Policy,
}

impl World {
    fn new() -> Self {
        let keys = [Key::ed25519(), Key::p256(), Key::p256()];
        let operators = ["ann", "bob", "cyd"].into_iter().zip(&keys);
        let mut present = Policy::of_evidence(
            EvidencePolicy::new(true).allow(TeeKind::Simulated, measurement(1)),
        );
        present.epoch = 4;
        present.threshold = 2;
        present.operators = operators
            .map(|(name, key)| OperatorKey {
                name: name.into(),
                public_key: key.public(),
            })
            .collect();
        let mut next = present.clone();
        next.epoch = 5;
        next.evidence = next.evidence.allow(TeeKind::Simulated, measurement(2));
        Self {
            keys,
            present,
            next,
        }
    }

    fn approvals(&self, signers: &[usize]) -> Vec<Approval> {
        let sign = |&signer: &usize| self.keys[signer].approve(CLUSTER, 4, &self.next);
        signers.iter().map(sign).collect()
    }

    fn accept(&self, approvals: &[Approval]) -> Result<(), ChangeRefused> {
        accept(&self.present, CLUSTER, &self.next, approvals)
    }
}

#[test]
fn two_of_three_operators_change_the_policy_whichever_keys_they_have() {
    let world = World::new();
    for signers in [[0, 1], [1, 2], [2, 0]] {
        assert_eq!(world.accept(&world.approvals(&signers)), Ok(()));
    }
}

#[test]
fn one_operator_is_not_enough_however_often_it_signs() {
    let world = World::new();
    let refused = ChangeRefused::Approvals {
        given: 1,
        needed: 2,
    };
    assert_eq!(
        world.accept(&world.approvals(&[1, 1, 1])),
        Err(refused.clone())
    );
    assert_eq!(
        refused.to_string(),
        "1 of 2 operators have approved; 1 more must sign"
    );
}

#[test]
fn a_stranger_is_refused_by_its_key() {
    let world = World::new();
    let stranger = Key::ed25519();
    let mut approvals = world.approvals(&[0]);
    approvals.push(stranger.approve(CLUSTER, 4, &world.next));
    let refused = ChangeRefused::UnknownOperator {
        fingerprint: stranger.public().fingerprint(),
        epoch: 4,
    };
    assert_eq!(world.accept(&approvals), Err(refused));
}

#[test]
fn an_approval_counts_for_one_document_one_epoch_and_one_quorum() {
    let world = World::new();
    let mut other = world.next.clone();
    other.evidence = other.evidence.allow(TeeKind::Simulated, measurement(3));
    let wrong = [
        world.keys[1].approve(CLUSTER, 4, &other),
        world.keys[1].approve(CLUSTER, 3, &world.next),
        world.keys[1].approve("other-reef", 4, &world.next),
        Approval {
            operator: world.keys[1].public().fingerprint(),
            signature: "not hex".into(),
        },
    ];
    for wrong in wrong {
        let mut approvals = world.approvals(&[0]);
        approvals.push(wrong);
        let refused = ChangeRefused::Signature { name: "bob".into() };
        assert_eq!(world.accept(&approvals), Err(refused));
    }
}

#[test]
fn a_change_that_was_taken_is_not_taken_twice() {
    let mut world = World::new();
    let approvals = world.approvals(&[0, 1]);
    world.present = world.next.clone();
    let refused = ChangeRefused::Epoch {
        seen: 5,
        present: 5,
    };
    assert_eq!(world.accept(&approvals), Err(refused));
}

#[test]
fn the_operators_of_the_present_policy_count_and_not_those_of_the_next() {
    let mut world = World::new();
    let newcomer = Key::p256();
    world.next.operators = vec![OperatorKey {
        name: "dan".into(),
        public_key: newcomer.public(),
    }];
    world.next.threshold = 1;
    let own = newcomer.approve(CLUSTER, 4, &world.next);
    assert!(matches!(
        world.accept(&[own]),
        Err(ChangeRefused::UnknownOperator { .. })
    ));
    assert_eq!(world.accept(&world.approvals(&[0, 1])), Ok(()));
}

#[test]
fn a_configurations_policy_is_changed_by_nobody() {
    let world = World::new();
    let mut present = Policy::of_evidence(world.present.evidence.clone());
    present.epoch = 4;
    let refused = accept(&present, CLUSTER, &world.next, &[]).unwrap_err();
    assert!(
        matches!(refused, ChangeRefused::Approvals { .. }),
        "{refused}"
    );
}

#[test]
fn a_document_that_nobody_could_change_again_is_refused() {
    let world = World::new();
    let spoil: [fn(&mut Policy); 7] = [
        |policy| policy.threshold = 0,
        |policy| policy.threshold = 4,
        |policy| policy.operators.clear(),
        |policy| policy.operators[1] = policy.operators[0].clone(),
        |policy| policy.evidence.kinds.clear(),
        |policy| policy.schema = 2,
        |policy| policy.diversity = Some(Diversity { vendor_faults: 0 }),
    ];
    for spoil in spoil {
        let mut document = world.next.clone();
        spoil(&mut document);
        let refused = approving_operators(&world.present, CLUSTER, &document, &[]).unwrap_err();
        assert!(matches!(refused, ChangeRefused::Document(_)), "{refused}");
    }
}

#[test]
fn differences_name_what_came_and_what_went() {
    let world = World::new();
    let mut next = world.next.clone();
    next.threshold = 3;
    let expected = format!(
        "- threshold: 2\n+ simulated measurement {}\n+ threshold: 3",
        measurement(2)
    );
    assert_eq!(differences(&world.present, &next).join("\n"), expected);
    assert!(differences(&next, &next).is_empty());
}

#[test]
fn a_document_reads_back_as_it_was_written_and_unknown_fields_are_refused() {
    let world = World::new();
    let text = serde_json::to_string(&world.present).unwrap();
    assert_eq!(
        serde_json::from_str::<Policy>(&text).unwrap(),
        world.present
    );
    let spoiled = text.replacen("\"epoch\"", "\"epok\":1,\"epoch\"", 1);
    assert!(serde_json::from_str::<Policy>(&spoiled).is_err());
}

#[test]
fn a_strangers_file_needs_evidence_rules_alone() {
    let text =
        r#"{"schema":1,"evidence":{"kinds":{"snp":{"measurements":[{"measurement":"00ff"}]}}}}"#;
    let policy: Policy = serde_json::from_str(text).unwrap();
    assert_eq!(policy.check(), Ok(()));
    assert!(policy.check_governed().is_err());
    let expected = EvidencePolicy::new(false).allow(TeeKind::Snp, "00ff".parse().unwrap());
    assert_eq!(policy.evidence, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_flipped_bit_of_a_signature_never_counts(at in any::<prop::sample::Index>(), bit in 0u8..8, signer in 0..3usize) {
        let world = World::new();
        let mut approval = world.approvals(&[signer]).remove(0);
        let mut signature = hex::decode(&approval.signature).unwrap();
        let at = at.index(signature.len());
        signature[at] ^= 1 << bit;
        approval.signature = hex::encode(signature);
        let judged = approving_operators(&world.present, CLUSTER, &world.next, &[approval]);
        prop_assert!(judged.is_err());
    }

    #[test]
    fn documents_that_differ_have_digests_that_differ(
        (a, b) in (any_document(), any_document()),
    ) {
        prop_assert_eq!(a == b, a.digest() == b.digest());
    }
}

fn any_document() -> impl Strategy<Value = Policy> {
    let measured = proptest::collection::vec((0..2usize, 0u8..3, any::<bool>()), 0..3);
    let operators = proptest::collection::vec("[ab]{0,2}", 0..2);
    (0u64..2, any::<bool>(), measured, 0u32..2, operators).prop_map(
        |(epoch, simulated, measured, threshold, operators)| {
            let mut evidence = EvidencePolicy::new(simulated);
            for (kind, byte, limited) in measured {
                let kind = [TeeKind::Snp, TeeKind::Tdx][kind];
                evidence = evidence.allow(kind, measurement(byte));
                if limited && let Some(rules) = evidence.kinds.get_mut(&kind) {
                    rules.measurements[0].not_after_ms = Some(7);
                }
            }
            let mut policy = Policy::of_evidence(evidence);
            policy.epoch = epoch;
            policy.threshold = threshold;
            let key = "302a300506032b6570032100".to_owned() + &"00".repeat(32);
            policy.operators = operators
                .into_iter()
                .map(|name| OperatorKey {
                    name,
                    public_key: key.parse().unwrap(),
                })
                .collect();
            policy
        },
    )
}
