//! What evidence says before anyone has checked it: for showing, for choosing
//! endorsements, and for a provider that reads its own. Never for a decision.

use nautilus_attest_protocol::{Claims, Evidence, Refused, TeeKind};

use crate::{intel, nitro, simulated, snp};

/// Reads evidence without checking a signature, a date or a chain. A vendor's
/// verdict on the platform is not in it: the TCB's status says nothing.
///
/// # Errors
/// `Malformed`, `TooLarge`, `Unsupported`.
pub fn read_unverified(evidence: &Evidence) -> Result<Claims, Refused> {
    let body = &evidence.body;
    match evidence.kind {
        TeeKind::Simulated => simulated::read_unverified(body),
        TeeKind::Nitro => nitro::read_unverified(body),
        TeeKind::Snp => snp::read_unverified(body),
        TeeKind::Tdx | TeeKind::Sgx => intel::read_unverified(body, evidence.kind),
    }
}

/// The names of the endorsements without which evidence cannot be judged, in order
/// (see [`nautilus_attest_protocol::Endorsements`]). None for kinds that bring all
/// with them, and for evidence that does not parse.
pub fn endorsement_names(evidence: &Evidence) -> Vec<String> {
    let body = &evidence.body;
    let names = match evidence.kind {
        TeeKind::Simulated | TeeKind::Nitro => return Vec::new(),
        TeeKind::Snp => snp::endorsement_names(body),
        TeeKind::Tdx | TeeKind::Sgx => intel::endorsement_names(body, evidence.kind),
    };
    names.map_or_else(|_| Vec::new(), |names| names.into_iter().collect())
}
