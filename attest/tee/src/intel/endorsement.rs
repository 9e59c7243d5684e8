//! Intel's endorsements, read for whoever keeps them.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use nautilus_attest_protocol::Refused;
use serde::Deserialize;

use super::ROOT_NAME;
use super::collateral::{PLATFORM_LIST, QE_IDENTITY, ROOT_LIST, SIGNER, Signed, TCB_INFO};
use crate::certificate::{Certificate, RevocationList, malformed};
use crate::endorsement::{EndorsementFacts, Named};

/// Intel's root, DER, as Intel publishes it
/// (`certificates.trustedservices.intel.com/IntelSGXRootCA.cer`).
const ROOT: &[u8] = include_bytes!("root.der");

/// What a signed text is about.
#[derive(Deserialize)]
struct About {
    id: String,
    #[serde(default)]
    fmspc: Option<String>,
}

/// TCB info or the quoting enclave's identity, with its chain behind it; `None` for
/// identities of other enclaves.
pub(crate) fn read_signed_text(bytes: &[u8]) -> Result<Option<Named>, Refused> {
    let (signed, is_tcb_info) = match Signed::read(TCB_INFO, "tcbInfo", bytes) {
        Ok(signed) => (signed, true),
        Err(_) => (Signed::read(QE_IDENTITY, "enclaveIdentity", bytes)?, false),
    };
    let about: About =
        serde_json::from_str(&signed.content).map_err(|error| malformed(signed.what, error))?;
    let name = match (is_tcb_info, about.id.as_str(), about.fmspc) {
        (true, "SGX", Some(fmspc)) => format!("intel/tcb/sgx/{}", fmspc.to_ascii_lowercase()),
        (true, "TDX", Some(fmspc)) => format!("intel/tcb/tdx/{}", fmspc.to_ascii_lowercase()),
        (false, "QE", _) => "intel/qe/sgx".to_owned(),
        (false, "TD_QE", _) => "intel/qe/tdx".to_owned(),
        _ => return Ok(None),
    };
    check_signature(&signed)?;
    let (issued_at_ms, expires_at_ms) = signed.window_ms()?;
    Ok(Some(Named {
        name,
        facts: EndorsementFacts {
            issued_at_ms,
            expires_at_ms,
            is_checked: true,
        },
    }))
}

/// The signer is directly below the built-in root.
fn check_signature(signed: &Signed) -> Result<(), Refused> {
    let chain = signed.chain_der()?;
    let signer = chain
        .first()
        .ok_or_else(|| malformed(signed.what, "its chain is missing"))?;
    let signer = Certificate::read(SIGNER, signer)?;
    signer.check_issued_by(&Certificate::read(ROOT_NAME, ROOT)?)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, signer.key_bytes())
        .verify(signed.content.as_bytes(), &signed.signature)
        .map_err(|_| Refused::Signature {
            what: signed.what,
            expected: SIGNER.to_owned(),
        })
}

/// A revocation list; `None` for other issuers'. Those of the two authorities below
/// the root come without their issuer's certificate, so that only a verifier, who has
/// it in the quote, can check them.
pub(crate) fn read_revocation_list(der: &[u8]) -> Result<Option<Named>, Refused> {
    let Ok(list) = RevocationList::read(PLATFORM_LIST, der) else {
        return Ok(None);
    };
    let name = match list.issuer_name() {
        Some("Intel SGX Root CA") => "root",
        Some("Intel SGX PCK Processor CA") => "processor",
        Some("Intel SGX PCK Platform CA") => "platform",
        _ => return Ok(None),
    };
    let is_root = name == "root";
    if is_root {
        let list = RevocationList::read(ROOT_LIST, der)?;
        list.check_issued_by(&Certificate::read(ROOT_NAME, ROOT)?)?;
    }
    let (issued_at_ms, expires_at_ms) = list.window_ms()?;
    Ok(Some(Named {
        name: format!("intel/crl/{name}"),
        facts: EndorsementFacts {
            issued_at_ms,
            expires_at_ms,
            is_checked: is_root,
        },
    }))
}
