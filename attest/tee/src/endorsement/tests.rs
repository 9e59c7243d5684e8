//! On genuine endorsements.

use std::path::{Path, PathBuf};

use super::*;

/// Every genuine endorsement in `fixtures/`: its name by its place, and its bytes.
fn genuine() -> Vec<(String, Vec<u8>)> {
    fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => files_below(&path, found),
                false => found.push(path),
            }
        }
    }
    let mut files = Vec::new();
    files_below(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures"),
        &mut files,
    );
    let mut found = Vec::new();
    for path in files {
        let text = path.to_str().expect("UTF-8").to_owned();
        if let Some((_, name)) = text.split_once("/endorsements/") {
            found.push((name.to_owned(), std::fs::read(&path).expect("readable")));
        }
    }
    assert!(found.len() >= 20, "the fixtures are there");
    found
}

#[test]
fn a_genuine_endorsement_is_named_by_its_content() {
    for (name, bytes) in genuine() {
        assert_eq!(name_endorsement(&bytes).as_ref(), Ok(&name));
        let facts = inspect_endorsement(&name, &bytes).expect("its own name");
        assert!(facts.issued_at_ms < facts.expires_at_ms, "{name}");
        // Lists of Intel's intermediate authorities come without their issuers.
        let without_issuer = ["intel/crl/platform", "intel/crl/processor"];
        assert_eq!(
            facts.is_checked,
            !without_issuer.contains(&name.as_str()),
            "{name}"
        );
    }
}

#[test]
fn dates_are_those_of_the_content() {
    let facts = |wanted: &str| {
        let found = genuine().into_iter().find(|(name, _)| name == wanted);
        let (name, bytes) = found.expect(wanted);
        inspect_endorsement(&name, &bytes).expect("genuine")
    };
    let identity = facts("intel/qe/tdx");
    assert_eq!(
        (identity.expires_at_ms - identity.issued_at_ms) / 86_400_000,
        30
    );
    let chip = genuine()
        .into_iter()
        .find(|(name, _)| name.starts_with("amd/vcek/milan/"))
        .expect("a chip's certificate");
    let chip = inspect_endorsement(&chip.0, &chip.1).expect("genuine");
    let days = (chip.expires_at_ms - chip.issued_at_ms) / 86_400_000;
    assert!(
        (7 * 365..7 * 365 + 3).contains(&days),
        "AMD gives seven years, not {days} days"
    );
}

#[test]
fn another_name_is_refused() {
    let (_, bytes) = genuine().remove(0);
    let refused = inspect_endorsement("amd/crl/nobody", &bytes).expect_err("another");
    assert!(matches!(refused, Refused::Malformed { .. }), "{refused}");
}

#[test]
fn an_altered_endorsement_is_refused() {
    for (name, bytes) in genuine() {
        let facts = inspect_endorsement(&name, &bytes).expect("genuine");
        if !facts.is_checked {
            continue;
        }
        // One bit in every seventeenth byte, of all but the root at a text's end, which
        // is not needed.
        let end = match bytes.first() {
            Some(b'{') => {
                let text = String::from_utf8_lossy(&bytes);
                text.rfind("-----BEGIN").expect("a chain")
            }
            _ => bytes.len(),
        };
        for at in (0..end).step_by(17) {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            let judged = inspect_endorsement(&name, &altered);
            let is_same = judged.as_ref() == Ok(&facts) && is_insignificant(&bytes, at);
            assert!(
                judged.is_err() || is_same,
                "{name}: a bit in byte {at} went unnoticed"
            );
        }
    }
}

/// Whether a byte is not of what is signed: an armour's line, or what stands behind the
/// first part of a certificate or list (RFC 5280, 4.1 and 5.1).
fn is_insignificant(bytes: &[u8], at: usize) -> bool {
    match bytes {
        [b'{', ..] => String::from_utf8_lossy(&bytes[..at]).contains("-----"),
        [0x30, 0x82, _, _, 0x30, 0x82, high, low, ..] => {
            at >= 8 + usize::from(*high) * 256 + usize::from(*low)
        }
        [0x30, 0x82, _, _, 0x30, 0x81, length, ..] => at >= 7 + usize::from(*length),
        _ => false,
    }
}

#[test]
fn what_is_no_endorsement_is_refused() {
    for bytes in [
        &b""[..],
        b"hello",
        b"{}",
        b"{\"tcbInfo\":{}}",
        b"-----BEGIN",
        &[0x30, 0x80],
    ] {
        assert!(name_endorsement(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn an_imported_chain_is_named_and_checked() {
    let pem = |der: &[u8]| {
        use std::fmt::Write as _;
        let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
        for line in base64(der).as_bytes().chunks(64) {
            let _ = writeln!(text, "{}", String::from_utf8_lossy(line));
        }
        text + "-----END CERTIFICATE-----\n"
    };
    let ask = pem(include_bytes!("../snp/roots/ask_milan.der"));
    let asvk = pem(include_bytes!("../snp/roots/asvk_genoa.der"));
    let milan = pem(include_bytes!("../snp/roots/ark_milan.der"));
    let genoa = pem(include_bytes!("../snp/roots/ark_genoa.der"));
    let name = |chain: String| name_endorsement(chain.as_bytes());
    assert_eq!(
        name(format!("{ask}{milan}")),
        Ok("amd/chain/vcek/milan".to_owned())
    );
    assert_eq!(
        name(format!("{asvk}{genoa}")),
        Ok("amd/chain/vlek/genoa".to_owned())
    );
    // Under another product's root, and without one.
    assert!(name(format!("{ask}{genoa}")).is_err());
    assert!(name(ask).is_err());
}

/// Base64 with padding (RFC 4648), for the test's PEM alone.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    text
}
