//! Intel TDX and SGX: quotes signed by a key that Intel's quoting enclave holds,
//! certified by the platform's own key (PCK), and Intel's word on how well patched
//! that platform is.
//!
//! An enclave's measurement is MRENCLAVE; a trust domain's is a hash of MRTD and
//! RTMR0 to RTMR2. The platform is its provisioning id (PPID). Intel's verdict and
//! its advisories go into the claims, for the policy to judge; only a platform
//! whose keys are revoked is refused here.
//!
//! Signatures, chains and TCB levels are the crate `dcap-qvl`'s work.

mod collateral;
mod endorsement;
mod quote;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use dcap_qvl::QuotePolicy;
use dcap_qvl::verify::QuoteVerifier;
use nautilus_attest_protocol::{
    Claims, Endorsements, Evidence, Refused, TcbStatus, TeeKind, UnixMillis, Verifier,
};

use collateral::Collateral;
pub(crate) use endorsement::{read_revocation_list, read_signed_text};
pub(crate) use quote::domain_measurement;
use quote::{Quote, WHAT, bad};

const ROOT_NAME: &str = "the Intel SGX root";

/// Judges quotes of one kind.
pub(crate) struct IntelVerifier {
    kind: TeeKind,
    endorsements: Arc<dyn Endorsements>,
    quotes: QuoteVerifier,
}

impl IntelVerifier {
    /// Judges quotes of `kind`, TDX or SGX, under Intel's root.
    pub(crate) fn new(kind: TeeKind, endorsements: Arc<dyn Endorsements>) -> Self {
        Self {
            kind,
            endorsements,
            // Debug mode is a claim, which every policy refuses by its name.
            quotes: QuoteVerifier::new_prod().allow_debug(true),
        }
    }

    /// Under another root, DER.
    #[cfg(test)]
    fn with_root(mut self, root: Vec<u8>) -> Self {
        self.quotes = QuoteVerifier::new(root).allow_debug(true);
        self
    }
}

impl Verifier for IntelVerifier {
    fn verify(&self, evidence: &Evidence, now_ms: UnixMillis) -> Result<Claims, Refused> {
        let quote = Quote::read(&evidence.body, self.kind)?;
        let collateral = Collateral::find(&quote, self.endorsements.as_ref())?;
        collateral.check(&quote, now_ms)?;
        let now = now_ms / 1000;
        let policy = QuotePolicy::claims_only(now);
        let parts = collateral.into_parts();
        let verified = self
            .quotes
            .verify_with_policy(&evidence.body, parts, now, &policy)
            .map_err(|error| refusal(self.kind, &format!("{error:#}")))?;
        let status = status(verified.tcb.status);
        quote.claims(status, verified.tcb.advisory_ids.into_iter().collect())
    }
}

/// What a quote says, before anything is believed; on its platform's patches there
/// is no verdict yet, so that its components alone are told.
pub(crate) fn read_unverified(body: &[u8], kind: TeeKind) -> Result<Claims, Refused> {
    Quote::read(body, kind)?.claims(TcbStatus::UpToDate, BTreeSet::new())
}

/// What a verifier looks up for a quote.
pub(crate) fn endorsement_names(body: &[u8], kind: TeeKind) -> Result<BTreeSet<String>, Refused> {
    let names = Quote::read(body, kind)?.endorsements();
    Ok([
        names.tcb_info,
        names.qe_identity,
        names.platform_list,
        names.root_list,
    ]
    .into())
}

/// Intel's verdict. That a trust domain should be launched anew says that it was
/// launched under old firmware.
fn status(status: dcap_qvl::TcbStatus) -> TcbStatus {
    use dcap_qvl::TcbStatus as Intel;
    match status {
        Intel::UpToDate => TcbStatus::UpToDate,
        Intel::SWHardeningNeeded => TcbStatus::SwHardeningNeeded,
        Intel::ConfigurationNeeded => TcbStatus::ConfigurationNeeded,
        Intel::ConfigurationAndSWHardeningNeeded => TcbStatus::ConfigurationAndSwHardeningNeeded,
        Intel::OutOfDate | Intel::TDRelaunchAdvised => TcbStatus::OutOfDate,
        Intel::OutOfDateConfigurationNeeded | Intel::TDRelaunchAdvisedConfigurationNeeded => {
            TcbStatus::OutOfDateConfigurationNeeded
        }
        Intel::Revoked => TcbStatus::Revoked,
    }
}

/// `dcap-qvl` tells why in words; tests hold each of these to its refusal.
fn refusal(kind: TeeKind, words: &str) -> Refused {
    let says = |part: &str| words.contains(part);
    if says("TCB status is invalid: Revoked") {
        let seen = TcbStatus::Revoked;
        return Refused::TcbStatus { tee: kind, seen };
    }
    if says("No matching TCB level found") || says("below minimum required") {
        let seen = TcbStatus::OutOfDate;
        return Refused::TcbStatus { tee: kind, seen };
    }
    let unsigned = [
        "ignature is invalid",
        "hash mismatch",
        "Failed to verify certificate chain",
        "Failed to parse root CA CRL",
        "InvalidCrlSignature",
    ];
    if unsigned.into_iter().any(says) {
        return Refused::Signature {
            what: WHAT,
            expected: ROOT_NAME.to_owned(),
        };
    }
    let lenient = [
        "TD migration",
        "service TD",
        "SERVTD_EXT",
        "SEPT_VE_DISABLE",
    ];
    if lenient.into_iter().any(says) {
        return Refused::Unsupported {
            what: format!("a trust domain in which {words}"),
        };
    }
    bad(words)
}
