//! What each fuzz target does with its bytes. Ordinary tests run the same over
//! mutations of genuine evidence (`tests/mutations.rs`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nautilus_attest_protocol::{Endorsements, Evidence, TeeKind, UnixMillis, Verifier as _};
use nautilus_attest_tee::{Verifiers, endorsement_names, read_unverified};

/// A folder of endorsements: a name is a path in it.
pub struct Folder(pub PathBuf);

impl Endorsements for Folder {
    fn find(&self, name: &str) -> Option<Arc<[u8]>> {
        // Names hold a chip's id and security level in hex: none leads out of the folder.
        assert!(!name.contains(".."), "a name of an endorsement is {name}");
        std::fs::read(self.0.join(name)).ok().map(Into::into)
    }
}

/// Genuine evidence: its kind, its file in `fixtures/`, the folder beside it that
/// holds its endorsements, and its clock.
pub const GENUINE: [(TeeKind, &str, &str, UnixMillis); 8] = [
    (
        TeeKind::Nitro,
        "nitro/document.cbor",
        "nitro",
        1_736_179_685_472,
    ),
    (
        TeeKind::Snp,
        "snp/milan-v2/report.bin",
        "snp/milan-v2",
        1_754_006_400_000,
    ),
    (
        TeeKind::Snp,
        "snp/genoa-v3/report.bin",
        "snp/genoa-v3",
        1_754_006_400_000,
    ),
    (
        TeeKind::Snp,
        "snp/milan-v5/report.bin",
        "snp/milan-v5",
        1_782_864_000_000,
    ),
    (
        TeeKind::Sgx,
        "intel/sgx-v3/quote.bin",
        "intel/sgx-v3",
        1_751_328_000_000,
    ),
    (
        TeeKind::Tdx,
        "intel/tdx-v4/quote.bin",
        "intel/tdx-v4",
        1_751_328_000_000,
    ),
    (
        TeeKind::Tdx,
        "intel/tdx-v5/quote.bin",
        "intel/tdx-v5",
        1_772_323_200_000,
    ),
    (
        TeeKind::Tdx,
        "intel/tdx-v5-extended/quote.bin",
        "intel/tdx-v5-extended",
        1_792_022_400_000,
    ),
];

/// The folder of the fixtures, seen from this crate or from the one it fuzzes.
pub fn fixtures() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = here.join("fixtures");
    if beside.is_dir() {
        beside
    } else {
        here.join("../fixtures")
    }
}

/// Encoded evidence of any kind.
pub fn evidence(bytes: &[u8]) {
    if let Ok(evidence) = Evidence::decode(bytes) {
        assert_eq!(evidence.encode(), bytes, "evidence has one encoding");
        body(evidence.kind, &evidence.body);
    }
}

/// A body of one kind, judged with each genuine evidence's endorsements and clock.
/// What is accepted is what was read.
pub fn body(kind: TeeKind, body: &[u8]) {
    let evidence = Evidence::new(kind, body.to_vec());
    let read = read_unverified(&evidence);
    let names = endorsement_names(&evidence);
    assert!(
        names.is_empty() || read.is_ok(),
        "names for what does not parse"
    );
    for (_, _, folder, now_ms) in GENUINE.iter().filter(|genuine| genuine.0 == kind) {
        let endorsements = Folder(fixtures().join(folder).join("endorsements"));
        let judged = Verifiers::with_hardware(Arc::new(endorsements)).verify(&evidence, *now_ms);
        if let Ok(claims) = judged {
            let read = read.as_ref().expect("accepted evidence can be read");
            assert_eq!(claims.measurement, read.measurement);
            assert_eq!(claims.report_data, read.report_data);
            assert_eq!(claims.debug, read.debug);
        }
    }
}
