//! Genuine quotes of SGX and TDX, and quotes under an authority of our own.

mod machine;

use nautilus_attest_protocol::{EvidencePolicy, NoEndorsements};
use proptest::prelude::*;

use super::*;
use crate::fixtures::{DAY_MS, Genuine, NOW_MS};
use machine::{AUTHORITY_SERIAL, Machine, PCK_SERIAL, PPID};

/// 1 July 2025, 1 March 2026, 15 October 2026.
const JULY_2025_MS: u64 = 1_751_328_000_000;
const MARCH_2026_MS: u64 = 1_772_323_200_000;
const OCTOBER_2026_MS: u64 = 1_792_022_400_000;

fn load(kind: TeeKind, path: &str, at_ms: u64) -> Genuine {
    Genuine::load(kind, path, "quote.bin", at_ms)
}

fn genuine() -> [(Genuine, TcbStatus); 3] {
    let (sgx, tdx) = (TeeKind::Sgx, TeeKind::Tdx);
    let needed = TcbStatus::ConfigurationAndSwHardeningNeeded;
    [
        (load(sgx, "intel/sgx-v3", JULY_2025_MS), needed),
        (load(tdx, "intel/tdx-v4", JULY_2025_MS), TcbStatus::UpToDate),
        (
            load(tdx, "intel/tdx-v5-extended", OCTOBER_2026_MS),
            TcbStatus::UpToDate,
        ),
    ]
}

fn verifier(genuine: &Genuine) -> IntelVerifier {
    IntelVerifier::new(
        genuine.evidence.kind,
        Arc::new(genuine.endorsements.clone()),
    )
}

#[test]
fn genuine_quotes_are_accepted_with_intels_verdict() {
    for (genuine, status) in genuine() {
        let claims = verifier(&genuine)
            .verify(&genuine.evidence, genuine.at_ms)
            .unwrap();
        assert_eq!(claims.tcb.status, status);
        assert_eq!(claims.platform.len(), 32);
        assert!(!claims.debug);
        assert!(claims.tcb.components.contains_key("pcesvn"));
        let advised = status != TcbStatus::UpToDate;
        assert_eq!(
            !claims.tcb.advisories.is_empty(),
            advised,
            "{:?}",
            claims.tcb
        );
        let needed: &[&str] = match claims.tee {
            TeeKind::Sgx => &["mrsigner", "isvsvn", "attributes"],
            _ => &[
                "mrtd",
                "rtmr0",
                "rtmr1",
                "rtmr2",
                "rtmr3",
                "mrconfigid",
                "td_attributes",
            ],
        };
        assert!(
            needed
                .iter()
                .all(|name| claims.registers.contains_key(*name))
        );
        let unverified = crate::read_unverified(&genuine.evidence).unwrap();
        assert_eq!(unverified.measurement, claims.measurement);
        assert_eq!(unverified.registers, claims.registers);
        assert_eq!(unverified.tcb.components, claims.tcb.components);
        let names = crate::endorsement_names(&genuine.evidence);
        assert!(genuine.endorsements.0.keys().eq(&names), "{names:?}");
    }
}

#[test]
fn a_genuine_quote_of_a_module_older_than_any_level_is_refused() {
    let old = load(TeeKind::Tdx, "intel/tdx-v5", MARCH_2026_MS);
    let refused = verifier(&old).verify(&old.evidence, old.at_ms);
    let expected = Refused::TcbStatus {
        tee: TeeKind::Tdx,
        seen: TcbStatus::OutOfDate,
    };
    assert_eq!(refused, Err(expected));
    // What its collateral is judged by comes before that.
    let late = verifier(&old).verify(&old.evidence, old.at_ms + 60 * DAY_MS);
    assert!(matches!(late, Err(Refused::Expired { .. })), "{late:?}");
}

#[test]
fn the_measurement_of_a_domain_covers_what_it_booted() {
    let claims = Machine::new(TeeKind::Tdx, 4).judge(NOW_MS).unwrap();
    for at in [136, 328, 376, 424] {
        let mut other = Machine::new(TeeKind::Tdx, 4);
        other.report[at] ^= 1;
        let changed = other.judge(NOW_MS).unwrap();
        assert_ne!(changed.measurement, claims.measurement);
    }
    let mut other = Machine::new(TeeKind::Tdx, 4);
    other.report[472] ^= 1;
    let changed = other.judge(NOW_MS).unwrap();
    assert_eq!(changed.measurement, claims.measurement);
    assert_ne!(changed.registers["rtmr3"], claims.registers["rtmr3"]);
}

#[test]
fn a_changed_bit_in_a_report_is_refused() {
    for (genuine, _) in genuine() {
        let report = match genuine.evidence.body[0] {
            3 => 0..432,
            4 => 0..632,
            _ => 0..702,
        };
        let refused = genuine.flip_bits(&verifier(&genuine), report, 1);
        let signature = refused
            .iter()
            .filter(|refused| matches!(refused, Refused::Signature { .. }));
        assert!(signature.count() > 300);
    }
}

#[test]
fn a_changed_bit_in_the_rest_of_a_quote_is_refused() {
    for (genuine, _) in genuine() {
        // Signatures, the quoting enclave's report and what comes before the chain.
        let chain = genuine
            .evidence
            .body
            .windows(10)
            .position(|at| at == b"-----BEGIN")
            .unwrap();
        genuine.flip_bits(&verifier(&genuine), 432..chain, 3);
    }
}

#[test]
fn a_changed_endorsement_is_refused() {
    for (genuine, _) in genuine() {
        for (name, value) in &genuine.endorsements.0 {
            let read = read_bytes(value);
            for at in (0..read).step_by(97) {
                let mut changed = value.to_vec();
                changed[at] ^= 1;
                let mut endorsements = genuine.endorsements.clone();
                endorsements.put(name, changed);
                let verifier = IntelVerifier::new(genuine.evidence.kind, Arc::new(endorsements));
                let judged = verifier.verify(&genuine.evidence, genuine.at_ms);
                assert!(judged.is_err(), "{name} changed at {at}");
            }
        }
    }
}

/// How much of an endorsement is read: in a text all but the last certificate, the
/// root, in whose place the built-in one is taken.
fn read_bytes(value: &[u8]) -> usize {
    let begins = |at: &usize| value[*at..].starts_with(b"-----BEGIN");
    let last = (0..value.len()).rev().find(begins);
    last.unwrap_or(value.len())
}

#[test]
fn genuine_quotes_need_their_endorsements_by_name_and_in_time() {
    for (genuine, _) in genuine() {
        for missing in genuine.endorsements.0.keys() {
            let mut endorsements = genuine.endorsements.clone();
            endorsements.0.remove(missing);
            let verifier = IntelVerifier::new(genuine.evidence.kind, Arc::new(endorsements));
            let refused = verifier.verify(&genuine.evidence, genuine.at_ms);
            let name = missing.clone();
            assert_eq!(refused, Err(Refused::MissingEndorsement { name }));
        }
        let late = verifier(&genuine).verify(&genuine.evidence, genuine.at_ms + 60 * DAY_MS);
        assert!(matches!(late, Err(Refused::Expired { .. })), "{late:?}");
        let early = verifier(&genuine).verify(&genuine.evidence, genuine.at_ms - 60 * DAY_MS);
        assert!(
            matches!(early, Err(Refused::NotYetValid { .. })),
            "{early:?}"
        );
    }
}

#[test]
fn quotes_of_our_own_authority_are_accepted_and_read() {
    for (kind, version) in [(TeeKind::Sgx, 3), (TeeKind::Tdx, 4), (TeeKind::Tdx, 5)] {
        let claims = Machine::new(kind, version).judge(NOW_MS).unwrap();
        assert_eq!(claims.tcb.status, TcbStatus::UpToDate);
        assert_eq!(claims.platform, hex::encode(PPID));
        assert_eq!(claims.report_data, [7; 64]);
        assert_eq!(claims.tcb.components["pcesvn"], 3);
        assert_eq!(claims.registers.contains_key("mrservicetd"), version == 5);
    }
}

#[test]
fn a_quote_under_another_root_is_refused() {
    let machine = Machine::new(TeeKind::Sgx, 3);
    let verifier = IntelVerifier::new(TeeKind::Sgx, Arc::new(machine.endorsements()));
    let evidence = Evidence::new(TeeKind::Sgx, machine.quote());
    let refused = verifier.verify(&evidence, NOW_MS);
    assert!(
        matches!(refused, Err(Refused::Signature { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_revoked_platform_and_a_revoked_authority_are_refused_by_serial_number() {
    let mut machine = Machine::new(TeeKind::Tdx, 4);
    machine.revoked = vec![PCK_SERIAL];
    let refused = machine.judge(NOW_MS).unwrap_err();
    let serial = format!("{PCK_SERIAL:02x}");
    assert_eq!(
        refused,
        Refused::Revoked {
            what: "Intel PCK certificate",
            serial
        }
    );
    machine.revoked = Vec::new();
    machine.revoked_by_root = vec![AUTHORITY_SERIAL];
    let refused = machine.judge(NOW_MS).unwrap_err();
    let serial = format!("{AUTHORITY_SERIAL:02x}");
    assert_eq!(
        refused,
        Refused::Revoked {
            what: "Intel PCK authority's certificate",
            serial
        }
    );
}

#[test]
fn an_expired_or_early_certificate_is_refused() {
    let judge = |from, until| {
        let years = |leaf: &mut crate::fixtures::Leaf| leaf.years = Some((from, until));
        Machine::with_pck(TeeKind::Sgx, 3, years).judge(NOW_MS)
    };
    let expired = judge(2024, 2025);
    assert!(
        matches!(
            expired,
            Err(Refused::Expired {
                what: "Intel PCK certificate",
                ..
            })
        ),
        "{expired:?}"
    );
    let early = judge(2028, 2029);
    assert!(
        matches!(
            early,
            Err(Refused::NotYetValid {
                what: "Intel PCK certificate",
                ..
            })
        ),
        "{early:?}"
    );
}

#[test]
fn intels_verdict_and_advisories_become_claims() {
    let verdicts = [
        ("SWHardeningNeeded", TcbStatus::SwHardeningNeeded),
        ("ConfigurationNeeded", TcbStatus::ConfigurationNeeded),
        (
            "ConfigurationAndSWHardeningNeeded",
            TcbStatus::ConfigurationAndSwHardeningNeeded,
        ),
        ("OutOfDate", TcbStatus::OutOfDate),
        (
            "OutOfDateConfigurationNeeded",
            TcbStatus::OutOfDateConfigurationNeeded,
        ),
    ];
    for (word, status) in verdicts {
        let mut machine = Machine::new(TeeKind::Sgx, 3);
        machine.status = word;
        machine.advisories = "\"INTEL-SA-00001\"";
        let claims = machine.judge(NOW_MS).unwrap();
        assert_eq!(claims.tcb.status, status);
        assert_eq!(claims.tcb.advisories, ["INTEL-SA-00001".to_owned()].into());
    }
}

#[test]
fn a_platform_whose_keys_are_revoked_or_older_than_any_level_is_refused() {
    let mut machine = Machine::new(TeeKind::Tdx, 4);
    machine.status = "Revoked";
    let tee = TeeKind::Tdx;
    let seen = TcbStatus::Revoked;
    assert_eq!(machine.judge(NOW_MS), Err(Refused::TcbStatus { tee, seen }));
    machine.status = "UpToDate";
    machine.least = 4;
    let seen = TcbStatus::OutOfDate;
    assert_eq!(machine.judge(NOW_MS), Err(Refused::TcbStatus { tee, seen }));
}

#[test]
fn debug_mode_is_a_claim_that_no_policy_takes() {
    let mut enclave = Machine::new(TeeKind::Sgx, 3);
    enclave.report[48] |= 1 << 1;
    let mut domain = Machine::new(TeeKind::Tdx, 5);
    domain.report[120] |= 1;
    for machine in [enclave, domain] {
        let claims = machine.judge(NOW_MS).unwrap();
        assert!(claims.debug);
        let tee = machine.kind;
        let policy = EvidencePolicy::new(false).allow(tee, claims.measurement.clone());
        assert_eq!(policy.judge(&claims, NOW_MS), Err(Refused::Debug { tee }));
    }
}

#[test]
fn a_domain_that_may_be_moved_or_served_is_refused() {
    let mut movable = Machine::new(TeeKind::Tdx, 4);
    movable.report[123] |= 1 << 5;
    let refused = movable.judge(NOW_MS).unwrap_err().to_string();
    assert!(refused.contains("TD migration is enabled"), "{refused}");
    let mut served = Machine::new(TeeKind::Tdx, 5);
    served.report[600] = 1;
    let refused = served.judge(NOW_MS).unwrap_err().to_string();
    assert!(refused.contains("service TD"), "{refused}");
}

#[test]
fn a_quote_of_another_kind_or_version_is_refused() {
    let quote = Machine::new(TeeKind::Tdx, 4).quote();
    let refused = crate::read_unverified(&Evidence::new(TeeKind::Sgx, quote)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "version 4 of a quote as sgx evidence is not supported here"
    );
    let mut quote = Machine::new(TeeKind::Sgx, 3).quote();
    quote[2] = 3;
    let refused = crate::read_unverified(&Evidence::new(TeeKind::Sgx, quote)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "attestation key type 3 is not supported here"
    );
}

#[test]
fn bytes_after_a_quote_are_refused_unless_they_are_zeros() {
    let machine = Machine::new(TeeKind::Tdx, 4);
    let mut quote = machine.quote();
    quote.extend([0; 70]);
    assert!(crate::read_unverified(&Evidence::new(TeeKind::Tdx, quote.clone())).is_ok());
    quote.push(1);
    let refused = crate::read_unverified(&Evidence::new(TeeKind::Tdx, quote));
    assert!(
        matches!(refused, Err(Refused::Malformed { .. })),
        "{refused:?}"
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..1400),
        version in 2..7u8,
        tdx in any::<bool>(),
    ) {
        let tee = if tdx { 0x81 } else { 0 };
        let mut body = bytes;
        body.splice(..body.len().min(8), [version, 0, 2, 0, tee, 0, 0, 0]);
        for kind in [TeeKind::Sgx, TeeKind::Tdx] {
            let verifier = IntelVerifier::new(kind, Arc::new(NoEndorsements));
            let evidence = Evidence::new(kind, body.clone());
            prop_assert!(verifier.verify(&evidence, NOW_MS).is_err());
        }
    }
}
