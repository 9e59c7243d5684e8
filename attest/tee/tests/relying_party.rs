//! A client of the API face asks a node to vouch for its serving key or for a
//! certificate it has issued, and judges the answer.

#![allow(clippy::unwrap_used)]

use nautilus_attest_protocol::{
    EvidencePolicy, Measurement, Quoter, Refused, ReportData, TeeKind, attestation_report_data,
    credential_report_data, verify_for_relying_party,
};
use nautilus_attest_tee::{PlatformSecret, SimulatedProvider, SimulatedRoot, SimulatedVerifier};

const NOW_MS: u64 = 1_800_000_000_000;

fn node() -> SimulatedProvider {
    let folder = tempfile::tempdir().unwrap();
    let root = SimulatedRoot::load_or_create(&folder.path().join("root")).unwrap();
    let secret = PlatformSecret::load_or_create(&folder.path().join("platform")).unwrap();
    SimulatedProvider::new(root, secret, Measurement::new([5; 48]).unwrap())
}

/// The node answers `asked`; the client expects `expected`.
fn ask(
    asked: &ReportData,
    expected: &ReportData,
    policy: &EvidencePolicy,
) -> Result<Measurement, Refused> {
    let node = node();
    let answer = node.quote_at(asked, NOW_MS).unwrap().encode();
    let verifier = SimulatedVerifier::new(node.root_public_key());
    let claims = verify_for_relying_party(&answer, expected, &verifier, policy, NOW_MS)?;
    assert_eq!(claims.platform, node.platform());
    Ok(claims.measurement)
}

fn policy() -> EvidencePolicy {
    EvidencePolicy::new(true).allow(TeeKind::Simulated, Measurement::new([5; 48]).unwrap())
}

#[test]
fn an_answer_to_the_own_nonce_and_key_is_believed() {
    let asked = attestation_report_data(b"nonce", b"serving key");
    assert_eq!(
        ask(&asked, &asked, &policy()),
        Ok(Measurement::new([5; 48]).unwrap())
    );
}

#[test]
fn an_answer_to_another_nonce_is_refused() {
    let asked = attestation_report_data(b"nonce", b"serving key");
    let expected = attestation_report_data(b"other", b"serving key");
    assert!(matches!(
        ask(&asked, &expected, &policy()),
        Err(Refused::Replay { .. })
    ));
}

#[test]
fn an_answer_for_a_certificate_swapped_on_its_way_is_refused() {
    let asked = credential_report_data(b"nonce", b"authority", b"certificate");
    let expected = credential_report_data(b"nonce", b"authority", b"swapped");
    assert!(matches!(
        ask(&asked, &expected, &policy()),
        Err(Refused::Replay { .. })
    ));
}

#[test]
fn an_answer_of_code_the_client_does_not_know_is_refused() {
    let asked = attestation_report_data(b"nonce", b"serving key");
    let strict =
        EvidencePolicy::new(true).allow(TeeKind::Simulated, Measurement::new([6; 48]).unwrap());
    assert!(matches!(
        ask(&asked, &asked, &strict),
        Err(Refused::Measurement { .. })
    ));
}
