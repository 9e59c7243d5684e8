//! Genuine documents, and documents under an authority of our own.

use aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING;
use coset::{CborSerializable as _, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable as _};
use minicbor::Encoder;
use nautilus_attest_protocol::{EvidencePolicy, TeeKind};
use proptest::prelude::*;
use rcgen::PKCS_ECDSA_P384_SHA384;

use super::*;
use crate::fixtures::{Authority, DAY_MS, Genuine, Issued, Leaf, NOW_MS};

/// A minute after the genuine document was made.
const GENUINE_AT_MS: u64 = 1_736_179_625_472 + 60_000;
const DEBUG_AT_MS: u64 = 1_614_963_709_526 + 60_000;

fn genuine() -> Genuine {
    Genuine::load(TeeKind::Nitro, "nitro", "document.cbor", GENUINE_AT_MS)
}

/// A root, two authorities, a key, and what its documents say.
struct Hypervisor {
    root: Authority,
    authorities: Vec<Authority>,
    leaf: Issued,
    timestamp_ms: u64,
    user_data: Vec<u8>,
}

impl Hypervisor {
    fn new(leaf: Leaf) -> Self {
        let root = Authority::root("root", &PKCS_ECDSA_P384_SHA384);
        let zone = root.below("zone", 2);
        let instance = zone.below("instance", 3);
        let leaf = instance.issue(leaf);
        Self {
            root,
            authorities: vec![zone, instance],
            leaf,
            timestamp_ms: NOW_MS,
            user_data: vec![7; 64],
        }
    }

    fn payload(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        encoder.map(8).unwrap();
        encoder
            .str("module_id")
            .unwrap()
            .str("i-0123456789abcdef0-enc0123456789abcdef")
            .unwrap();
        encoder.str("digest").unwrap().str("SHA384").unwrap();
        encoder
            .str("timestamp")
            .unwrap()
            .u64(self.timestamp_ms)
            .unwrap();
        encoder
            .str("pcrs")
            .unwrap()
            .map(1)
            .unwrap()
            .u8(0)
            .unwrap()
            .bytes(&[5; 48])
            .unwrap();
        encoder
            .str("certificate")
            .unwrap()
            .bytes(&self.leaf.der)
            .unwrap();
        encoder
            .str("cabundle")
            .unwrap()
            .array(3)
            .unwrap()
            .bytes(&self.root.der())
            .unwrap();
        for authority in &self.authorities {
            encoder.bytes(&authority.der()).unwrap();
        }
        encoder
            .str("user_data")
            .unwrap()
            .bytes(&self.user_data)
            .unwrap();
        encoder.str("nonce").unwrap().null().unwrap();
        encoder.into_writer()
    }

    fn message(&self) -> CoseSign1 {
        let protected = HeaderBuilder::new().algorithm(Algorithm::ES384).build();
        CoseSign1Builder::new()
            .protected(protected)
            .payload(self.payload())
            .create_signature(&[], |signed| {
                self.leaf.sign(&ECDSA_P384_SHA384_FIXED_SIGNING, signed)
            })
            .build()
    }

    fn judge(&self, now_ms: u64) -> Result<Claims, Refused> {
        let evidence = Evidence::new(TeeKind::Nitro, self.message().to_vec().unwrap());
        NitroVerifier::with_root(self.root.der()).verify(&evidence, now_ms)
    }
}

#[test]
fn the_genuine_document_is_accepted_and_read() {
    let genuine = genuine();
    let claims = NitroVerifier::new()
        .verify(&genuine.evidence, genuine.at_ms)
        .unwrap();
    assert_eq!(claims.platform, "0bee92034f3d60691");
    assert!(!claims.debug);
    assert!(
        claims
            .measurement
            .to_string()
            .starts_with("8bb159f202bb95d6")
    );
    assert_eq!(claims.registers["pcr0"], claims.measurement.as_bytes());
    assert!(
        ["pcr1", "pcr2", "pcr3", "pcr4"]
            .iter()
            .all(|name| claims.registers[*name] != [0; 48])
    );
    assert_eq!(claims.registers["pcr8"], [0; 48]);
    assert_eq!(claims.registers["public_key"].len(), 294);
    assert_eq!(claims.report_data, [0; 64]);
    assert_eq!(crate::read_unverified(&genuine.evidence), Ok(claims));
}

#[test]
fn a_genuine_document_of_an_enclave_in_debug_mode_says_so_and_no_policy_takes_it() {
    let debug = Genuine::load(TeeKind::Nitro, "nitro", "debug.cbor", DEBUG_AT_MS);
    let claims = NitroVerifier::new()
        .verify(&debug.evidence, debug.at_ms)
        .unwrap();
    assert!(claims.debug);
    let policy = EvidencePolicy::new(false).allow(TeeKind::Nitro, claims.measurement.clone());
    assert_eq!(
        policy.judge(&claims, DEBUG_AT_MS),
        Err(Refused::Debug {
            tee: TeeKind::Nitro
        })
    );
}

#[test]
fn a_changed_bit_anywhere_is_refused() {
    let genuine = genuine();
    let length = genuine.evidence.body.len();
    let refused = genuine.flip_bits(&NitroVerifier::new(), 0..length, 1);
    assert_eq!(refused.len(), length);
    assert!(
        refused
            .iter()
            .any(|refused| matches!(refused, Refused::Signature { .. }))
    );
}

#[test]
fn a_document_is_refused_when_old_and_when_from_the_future() {
    let verify = |at_ms| NitroVerifier::new().verify(&genuine().evidence, at_ms);
    let made_at_ms = GENUINE_AT_MS - 60_000;
    assert!(verify(made_at_ms + DOCUMENT_LIFETIME_MS).is_ok());
    let old = verify(made_at_ms + DOCUMENT_LIFETIME_MS + 1).unwrap_err();
    assert!(matches!(old, Refused::Expired { what: WHAT, .. }), "{old}");
    let early = verify(made_at_ms - CLOCK_SKEW_MS - 1).unwrap_err();
    assert!(
        matches!(early, Refused::NotYetValid { what: WHAT, .. }),
        "{early}"
    );
}

#[test]
fn documents_of_our_own_authority_are_accepted_tagged_or_not() {
    let hypervisor = Hypervisor::new(Leaf::default());
    let claims = hypervisor.judge(NOW_MS).unwrap();
    assert_eq!(claims.report_data, [7; 64]);
    assert_eq!(claims.platform, "0123456789abcdef0");
    let tagged = hypervisor.message().to_tagged_vec().unwrap();
    let evidence = Evidence::new(TeeKind::Nitro, tagged);
    let verifier = NitroVerifier::with_root(hypervisor.root.der());
    assert_eq!(verifier.verify(&evidence, NOW_MS), Ok(claims));
    let other = NitroVerifier::new().verify(&evidence, NOW_MS).unwrap_err();
    assert!(matches!(other, Refused::Signature { .. }), "{other}");
}

#[test]
fn a_chain_that_had_expired_or_was_not_yet_valid_is_refused() {
    let years = |from, until| Leaf {
        years: Some((from, until)),
        ..Leaf::default()
    };
    let expired = Hypervisor::new(years(2024, 2025))
        .judge(NOW_MS)
        .unwrap_err();
    assert!(
        matches!(
            expired,
            Refused::Expired {
                what: LEAF_NAME,
                ..
            }
        ),
        "{expired}"
    );
    let early = Hypervisor::new(years(2028, 2029))
        .judge(NOW_MS)
        .unwrap_err();
    assert!(
        matches!(
            early,
            Refused::NotYetValid {
                what: LEAF_NAME,
                ..
            }
        ),
        "{early}"
    );
    let mut later = Hypervisor::new(years(2026, 2030));
    later.timestamp_ms = NOW_MS + 400 * DAY_MS;
    let expired = later.judge(later.timestamp_ms).unwrap_err();
    assert!(matches!(expired, Refused::Expired { .. }), "{expired}");
}

#[test]
fn a_chain_out_of_order_and_a_key_of_another_chain_are_refused() {
    let mut hypervisor = Hypervisor::new(Leaf::default());
    let impostor = Hypervisor::new(Leaf::default());
    hypervisor.authorities.swap(0, 1);
    let refused = hypervisor.judge(NOW_MS).unwrap_err();
    assert!(matches!(refused, Refused::Signature { .. }), "{refused}");
    hypervisor.authorities.swap(0, 1);
    hypervisor.leaf = impostor.leaf;
    let refused = hypervisor.judge(NOW_MS).unwrap_err();
    assert!(
        matches!(
            refused,
            Refused::Signature {
                what: LEAF_NAME,
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn user_data_past_its_limit_is_refused_and_other_than_64_bytes_binds_nothing() {
    let mut hypervisor = Hypervisor::new(Leaf::default());
    hypervisor.user_data = vec![1; 512];
    assert_eq!(hypervisor.judge(NOW_MS).unwrap().report_data, [0; 64]);
    hypervisor.user_data = vec![1; 513];
    let refused = hypervisor.judge(NOW_MS).unwrap_err();
    assert!(
        matches!(
            refused,
            Refused::TooLarge {
                what: "user data",
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn a_header_that_nobody_signed_is_refused() {
    let hypervisor = Hypervisor::new(Leaf::default());
    let mut message = hypervisor.message();
    message.unprotected = HeaderBuilder::new().key_id(vec![1]).build();
    let evidence = Evidence::new(TeeKind::Nitro, message.to_vec().unwrap());
    let refused = NitroVerifier::with_root(hypervisor.root.der()).verify(&evidence, NOW_MS);
    assert!(
        matches!(refused, Err(Refused::Malformed { .. })),
        "{refused:?}"
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..600)) {
        let evidence = Evidence::new(TeeKind::Nitro, body.clone());
        prop_assert!(NitroVerifier::new().verify(&evidence, NOW_MS).is_err());
        prop_assert!(Document::read(&body).is_err());
    }
}
