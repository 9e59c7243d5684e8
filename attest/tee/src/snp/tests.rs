//! Genuine reports of versions 2, 3 and 5, and reports of every version under an
//! authority of our own.

use aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING;
use nautilus_attest_protocol::{EvidencePolicy, NoEndorsements, TeeKind};
use proptest::prelude::*;
use rcgen::PKCS_ECDSA_P384_SHA384;

use super::report::REPORT_BYTES;
use super::*;
use crate::fixtures::{Authority, Genuine, Issued, Leaf, NOW_MS, Table, file};

/// 1 August 2025.
const GENUINE_AT_MS: u64 = 1_754_006_400_000;

fn genuine() -> [(Genuine, &'static str); 3] {
    let load = |path, at_ms| Genuine::load(TeeKind::Snp, path, "report.bin", at_ms);
    [
        (load("snp/milan-v2", GENUINE_AT_MS), "milan"),
        (load("snp/genoa-v3", GENUINE_AT_MS), "genoa"),
        (load("snp/milan-v5", NOW_MS), "milan"),
    ]
}

fn verifier(genuine: &Genuine) -> SnpVerifier {
    SnpVerifier::new(Arc::new(genuine.endorsements.clone()))
}

/// A chip with keys of both kinds under an authority of our own.
struct Chip {
    product: Product,
    root: Authority,
    vcek_authority: Authority,
    vlek_authority: Authority,
    leaf: Issued,
    report: [u8; REPORT_BYTES],
    endorsements: Table,
}

const VERSIONS: [u8; 5] = [3, 2, 8, 200, 1];

impl Chip {
    /// One of `product` whose report has `version` and is signed by `key`.
    fn new(product: Product, version: u32, key: Key) -> Self {
        Self::with_leaf(product, version, key, |_| {})
    }

    fn with_leaf(product: Product, version: u32, key: Key, change: impl Fn(&mut Leaf)) -> Self {
        let title = product.title();
        let root = Authority::root("ARK", &PKCS_ECDSA_P384_SHA384);
        let vcek_authority = root.below(&format!("SEV-{title}"), 2);
        let vlek_authority = root.below(&format!("SEV-VLEK-{title}"), 3);
        let chip_id: &[u8] = if product == Product::Turin {
            &[9; 8]
        } else {
            &[9; 64]
        };
        let mut leaf = Leaf {
            extensions: extensions(product, chip_id, key),
            ..Leaf::default()
        };
        change(&mut leaf);
        let leaf = match key {
            Key::Vcek => vcek_authority.issue(leaf),
            Key::Vlek => vlek_authority.issue(leaf),
        };
        let mut endorsements = Table::default();
        endorsements.put(&list_name(product), root.list(&[]));
        let report = report(product, version, chip_id, key);
        Self {
            product,
            root,
            vcek_authority,
            vlek_authority,
            leaf,
            report,
            endorsements,
        }
    }

    /// The report, signed, with its certificate in a table after it.
    fn evidence(&self) -> Evidence {
        let mut body = self.signed();
        let key = Report::read(&body).unwrap().key;
        let mut table = vec![0; 48];
        table[..16].copy_from_slice(&key.table_guid());
        table[16..20].copy_from_slice(&48u32.to_le_bytes());
        table[20..24].copy_from_slice(&(self.leaf.der.len() as u32).to_le_bytes());
        body.extend(table);
        body.extend(&self.leaf.der);
        Evidence::new(TeeKind::Snp, body)
    }

    fn signed(&self) -> Vec<u8> {
        let mut report = self.report.to_vec();
        let signature = self
            .leaf
            .sign(&ECDSA_P384_SHA384_FIXED_SIGNING, &report[..0x2a0]);
        for (at, number) in [0x2a0, 0x2a0 + 72].into_iter().zip(signature.chunks(48)) {
            let little_endian: Vec<u8> = number.iter().rev().copied().collect();
            report[at..at + 48].copy_from_slice(&little_endian);
        }
        report
    }

    fn verifier(&self) -> SnpVerifier {
        let authorities = Authorities {
            root: self.root.der(),
            vcek: self.vcek_authority.der(),
            vlek: self.vlek_authority.der(),
        };
        SnpVerifier::new(Arc::new(self.endorsements.clone()))
            .with_authorities(self.product, authorities)
    }

    fn judge(&self) -> Result<Claims, Refused> {
        self.verifier().verify(&self.evidence(), NOW_MS)
    }
}

fn extensions(product: Product, chip_id: &[u8], key: Key) -> Vec<(Vec<u64>, Vec<u8>)> {
    let base = [1, 3, 6, 1, 4, 1, 3704, 1];
    let at = |rest: &[u64]| [&base[..], rest].concat();
    let title = product.title();
    let name = [&[IA5_STRING_TAG, title.len() as u8][..], title.as_bytes()].concat();
    let mut extensions = vec![(at(&[2]), name)];
    for (number, version) in [1, 2, 3, 8, 9].into_iter().zip(VERSIONS) {
        let value = match version {
            0..0x80 => vec![INTEGER_TAG, 1, version],
            _ => vec![INTEGER_TAG, 2, 0, version],
        };
        extensions.push((at(&[3, number]), value));
    }
    if key == Key::Vcek {
        extensions.push((at(&[4]), chip_id.to_vec()));
    }
    extensions
}

fn report(product: Product, version: u32, chip_id: &[u8], key: Key) -> [u8; REPORT_BYTES] {
    let [bootloader, tee, snp, microcode, fmc] = VERSIONS;
    let tcb = match product {
        Product::Turin => [fmc, bootloader, tee, snp, 0, 0, 0, microcode],
        _ => [bootloader, tee, 0, 0, 0, 0, snp, microcode],
    };
    let mut report = [0; REPORT_BYTES];
    report[..4].copy_from_slice(&version.to_le_bytes());
    report[8..16].copy_from_slice(&0x3_0000u64.to_le_bytes());
    report[0x34] = 1;
    report[0x48] = if key == Key::Vlek { 1 << 2 } else { 0 };
    report[0x50..0x90].fill(7);
    report[0x90..0xc0].fill(5);
    for at in [0x38, 0x180, 0x1e0, 0x1f0] {
        report[at..at + 8].copy_from_slice(&tcb);
    }
    if version > 2 {
        let cpu = match product {
            Product::Milan => [0x19, 0x01],
            Product::Genoa => [0x19, 0x11],
            Product::Turin => [0x1a, 0x02],
        };
        report[0x188..0x18a].copy_from_slice(&cpu);
    }
    report[0x1a0..0x1a0 + chip_id.len()].copy_from_slice(chip_id);
    report
}

#[test]
fn genuine_reports_are_accepted_and_read() {
    for (genuine, product) in genuine() {
        let claims = verifier(&genuine)
            .verify(&genuine.evidence, genuine.at_ms)
            .unwrap();
        assert_eq!(claims.platform.len(), 128);
        assert!(!claims.debug);
        assert_eq!(
            claims.measurement.as_bytes(),
            &genuine.evidence.body[0x90..0xc0]
        );
        assert_eq!(claims.report_data, genuine.evidence.body[0x50..0x90]);
        let components: Vec<_> = claims.tcb.components.keys().map(String::as_str).collect();
        assert_eq!(components, ["bootloader", "microcode", "snp", "tee"]);
        assert_eq!(crate::read_unverified(&genuine.evidence), Ok(claims));
        let names = crate::endorsement_names(&genuine.evidence);
        let at_hand = genuine.endorsements.0.keys();
        assert!(
            at_hand.clone().all(|name| names.contains(name)),
            "{product}: {names:?}"
        );
    }
}

#[test]
fn a_genuine_report_of_version_4_is_read() {
    let evidence = Evidence::new(TeeKind::Snp, file("snp/milan-v4/report.bin"));
    let claims = crate::read_unverified(&evidence).unwrap();
    assert_eq!(claims.tcb.components["microcode"], 0xdb);
    let refused = SnpVerifier::new(Arc::new(NoEndorsements)).verify(&evidence, NOW_MS);
    assert!(
        matches!(refused, Err(Refused::MissingEndorsement { .. })),
        "{refused:?}"
    );
}

#[test]
fn the_chain_of_a_genuine_turin_holds() {
    let der = file("snp/turin/vcek.der");
    let leaf = Certificate::read("leaf", &der).unwrap();
    let authorities = Authorities::genuine(Product::Turin);
    let authority = Certificate::read(AUTHORITY_NAME, &authorities.vcek).unwrap();
    leaf.check_issued_by(&authority).unwrap();
    check_product(Product::Turin, &leaf).unwrap();
    assert!(check_product(Product::Genoa, &leaf).is_err());
    assert_eq!(extension(&leaf, "chip id", &CHIP_ID).unwrap().len(), 8);
}

#[test]
fn every_authority_that_is_built_in_is_its_roots() {
    for product in Product::ALL {
        let authorities = Authorities::genuine(product);
        let root = Certificate::read(ROOT_NAME, &authorities.root).unwrap();
        root.check_issued_by(&root).unwrap();
        for key in [Key::Vcek, Key::Vlek] {
            let authority =
                Certificate::read(AUTHORITY_NAME, authorities.intermediate(key)).unwrap();
            authority.check_issued_by(&root).unwrap();
        }
    }
}

#[test]
fn a_changed_bit_anywhere_is_refused() {
    for (genuine, _) in genuine() {
        let refused = genuine.flip_bits(&verifier(&genuine), 0..REPORT_BYTES, 1);
        assert!(
            refused
                .iter()
                .any(|refused| matches!(refused, Refused::Signature { .. }))
        );
    }
}

#[test]
fn genuine_reports_need_their_endorsements_by_name_and_in_time() {
    for (genuine, _) in genuine() {
        for missing in genuine.endorsements.0.keys() {
            let mut endorsements = genuine.endorsements.clone();
            endorsements.0.remove(missing);
            let refused = SnpVerifier::new(Arc::new(endorsements))
                .verify(&genuine.evidence, genuine.at_ms)
                .unwrap_err();
            let name = missing.clone();
            assert_eq!(refused, Refused::MissingEndorsement { name });
        }
        let years = 40 * 365 * crate::fixtures::DAY_MS;
        let late = verifier(&genuine).verify(&genuine.evidence, genuine.at_ms + years);
        assert!(matches!(late, Err(Refused::Expired { .. })), "{late:?}");
        let early = verifier(&genuine).verify(&genuine.evidence, 0);
        assert!(
            matches!(early, Err(Refused::NotYetValid { .. })),
            "{early:?}"
        );
    }
}

#[test]
fn every_version_and_key_of_our_own_authority_is_accepted() {
    for product in Product::ALL {
        for version in 2..=5 {
            for key in [Key::Vcek, Key::Vlek] {
                let claims = Chip::new(product, version, key).judge().unwrap();
                assert_eq!(claims.report_data, [7; 64]);
                assert_eq!(claims.tcb.components["microcode"], 200);
                let turin = product == Product::Turin;
                assert_eq!(claims.tcb.components.contains_key("fmc"), turin);
                assert_eq!(claims.platform.len(), 128);
            }
        }
    }
}

#[test]
fn a_certificate_at_hand_serves_where_none_came_with_the_report() {
    let mut chip = Chip::new(Product::Turin, 3, Key::Vcek);
    let evidence = Evidence::new(TeeKind::Snp, chip.signed());
    let names = crate::endorsement_names(&evidence);
    let name = "amd/vcek/turin/0909090909090909/01030208000000c8";
    assert_eq!(names, ["amd/crl/turin", name]);
    chip.endorsements.put(name, chip.leaf.der.clone());
    assert!(chip.verifier().verify(&evidence, NOW_MS).is_ok());
    assert_eq!(
        crate::endorsement_names(&chip.evidence()),
        ["amd/crl/turin"]
    );
}

#[test]
fn a_revoked_authority_is_refused_by_its_serial_number() {
    let mut chip = Chip::new(Product::Milan, 3, Key::Vcek);
    chip.endorsements.put("amd/crl/milan", chip.root.list(&[2]));
    let refused = chip.judge().unwrap_err();
    let expected = Refused::Revoked {
        what: AUTHORITY_NAME,
        serial: "02".to_owned(),
    };
    assert_eq!(refused, expected);
}

#[test]
fn a_revocation_list_of_another_root_or_out_of_date_is_refused() {
    let mut chip = Chip::new(Product::Milan, 3, Key::Vcek);
    let other = Authority::root("ARK", &PKCS_ECDSA_P384_SHA384);
    chip.endorsements.put("amd/crl/milan", other.list(&[]));
    let refused = chip.judge().unwrap_err();
    assert!(
        matches!(
            refused,
            Refused::Signature {
                what: LIST_NAME,
                ..
            }
        ),
        "{refused}"
    );
    let chip = Chip::new(Product::Milan, 3, Key::Vcek);
    let late = NOW_MS + 60 * crate::fixtures::DAY_MS;
    let refused = chip.verifier().verify(&chip.evidence(), late).unwrap_err();
    assert!(
        matches!(
            refused,
            Refused::Expired {
                what: LIST_NAME,
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn another_authority_may_be_imported_only_under_the_built_in_root() {
    let mut chip = Chip::new(Product::Genoa, 3, Key::Vcek);
    let newer = chip.root.below("SEV-Genoa", 7);
    let leaf = Leaf {
        extensions: extensions(Product::Genoa, &[9; 64], Key::Vcek),
        ..Leaf::default()
    };
    chip.leaf = newer.issue(leaf);
    let refused = chip.judge().unwrap_err();
    assert!(matches!(refused, Refused::Signature { .. }), "{refused}");
    let chain = |root: &Authority| (newer.pem() + &root.pem()).into_bytes();
    chip.endorsements
        .put("amd/chain/vcek/genoa", chain(&chip.root));
    assert!(chip.judge().is_ok());
    let other = Authority::root("ARK", &PKCS_ECDSA_P384_SHA384);
    chip.endorsements.put("amd/chain/vcek/genoa", chain(&other));
    let refused = chip.judge().unwrap_err();
    assert!(
        matches!(
            refused,
            Refused::Signature {
                what: CHAIN_NAME,
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn firmware_other_than_certified_is_refused() {
    let mut chip = Chip::new(Product::Milan, 3, Key::Vcek);
    chip.report[0x186] -= 1;
    let refused = chip.judge().unwrap_err();
    let expected = Refused::OldTcb {
        component: "snp".to_owned(),
        seen: 7,
        expected: 8,
    };
    assert_eq!(refused, expected);
    chip.report[0x186] += 2;
    let refused = chip.judge().unwrap_err();
    assert!(
        matches!(
            refused,
            Refused::OldTcb {
                seen: 8,
                expected: 9,
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn another_chip_than_certified_is_refused() {
    let mut chip = Chip::new(Product::Milan, 3, Key::Vcek);
    chip.report[0x1a0] ^= 1;
    let refused = chip.judge().unwrap_err();
    assert!(matches!(refused, Refused::Chip { .. }), "{refused}");
}

#[test]
fn a_guest_in_debug_mode_says_so_and_no_policy_takes_it() {
    let mut chip = Chip::new(Product::Milan, 3, Key::Vcek);
    chip.report[10] |= 1 << 3;
    let claims = chip.judge().unwrap();
    assert!(claims.debug);
    let policy = EvidencePolicy::new(false).allow(TeeKind::Snp, claims.measurement.clone());
    assert_eq!(
        policy.judge(&claims, 0),
        Err(Refused::Debug { tee: TeeKind::Snp })
    );
}

#[test]
fn a_guest_that_may_be_moved_is_refused() {
    let mut chip = Chip::new(Product::Milan, 3, Key::Vcek);
    chip.report[10] |= 1 << 2;
    let refused = chip.judge().unwrap_err();
    assert!(refused.to_string().contains("migration agent"), "{refused}");
}

#[test]
fn a_less_privileged_asker_is_refused() {
    let mut chip = Chip::new(Product::Milan, 3, Key::Vcek);
    chip.report[0x30] = 2;
    let expected = Refused::PrivilegeLevel {
        seen: 2,
        expected: 0,
    };
    assert_eq!(chip.judge(), Err(expected));
}

#[test]
fn an_expired_or_early_certificate_is_refused() {
    let years = |from, until| move |leaf: &mut Leaf| leaf.years = Some((from, until));
    let expired = Chip::with_leaf(Product::Genoa, 5, Key::Vlek, years(2024, 2025)).judge();
    assert!(
        matches!(
            expired,
            Err(Refused::Expired {
                what: "AMD VLEK certificate",
                ..
            })
        ),
        "{expired:?}"
    );
    let early = Chip::with_leaf(Product::Genoa, 5, Key::Vcek, years(2028, 2029)).judge();
    assert!(
        matches!(
            early,
            Err(Refused::NotYetValid {
                what: "AMD VCEK certificate",
                ..
            })
        ),
        "{early:?}"
    );
}

#[test]
fn other_versions_keys_and_masked_chips_are_refused_by_name() {
    let refused = |change: &dyn Fn(&mut [u8])| {
        let mut body = Chip::new(Product::Milan, 3, Key::Vcek).signed();
        change(&mut body);
        crate::read_unverified(&Evidence::new(TeeKind::Snp, body)).unwrap_err()
    };
    let text = refused(&|body| body[0] = 6).to_string();
    assert_eq!(text, "version 6 of an SEV-SNP report is not supported here");
    let text = refused(&|body| body[0x48] = 7 << 2).to_string();
    assert_eq!(
        text,
        "an SEV-SNP report signed by key 7 is not supported here"
    );
    let text = refused(&|body| body[0x1a0..0x1e0].fill(0)).to_string();
    assert!(text.contains("chip id is masked"), "{text}");
    let text = refused(&|body| body[0x34] = 2).to_string();
    assert!(text.contains("signature algorithm 2"), "{text}");
}

#[test]
fn a_certificate_outside_of_its_table_is_refused() {
    let chip = Chip::new(Product::Milan, 3, Key::Vcek);
    let mut evidence = chip.evidence();
    evidence.body[REPORT_BYTES + 16..REPORT_BYTES + 24].fill(0xff);
    let refused = chip.verifier().verify(&evidence, NOW_MS).unwrap_err();
    assert!(matches!(refused, Refused::Malformed { .. }), "{refused}");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..1400),
        version in 0..7u8,
    ) {
        let mut body = bytes;
        body.splice(..body.len().min(4), [version, 0, 0, 0]);
        let evidence = Evidence::new(TeeKind::Snp, body);
        let verifier = SnpVerifier::new(Arc::new(NoEndorsements));
        prop_assert!(verifier.verify(&evidence, NOW_MS).is_err());
    }
}
