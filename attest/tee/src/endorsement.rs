//! What an endorsement is, says of itself, and who signed it: for whoever keeps,
//! fetches or imports endorsements. Verifiers judge them anew at every use.
//!
//! Invariants: a name follows from the content and from nothing else; what is said to
//! be checked is signed by the vendor under a root that is built in.

use nautilus_attest_protocol::{Refused, UnixMillis};

use crate::certificate::malformed;
use crate::{intel, snp};

const WHAT: &str = "endorsement";

/// What an endorsement says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndorsementFacts {
    /// From when on it holds.
    pub issued_at_ms: UnixMillis,
    /// Until when: the next update's date, or the end of a certificate.
    pub expires_at_ms: UnixMillis,
    /// Whether the signature was checked up to the vendor's root. The list of an
    /// intermediate authority that does not come with it is only checked when used.
    pub is_checked: bool,
}

/// An endorsement by its name.
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) facts: EndorsementFacts,
}

/// The name of an endorsement (see [`nautilus_attest_protocol::Endorsements`]), from
/// its content.
///
/// # Errors
/// `Malformed` for what is no endorsement, `TooLarge`, and `Signature` where it is
/// checked and does not hold.
pub fn name_endorsement(bytes: &[u8]) -> Result<String, Refused> {
    read(bytes).map(|named| named.name)
}

/// What an endorsement says of itself, which must be what it is called.
///
/// # Errors
/// Those of [`name_endorsement`], and `Malformed` when it is another than `name`.
pub fn inspect_endorsement(name: &str, bytes: &[u8]) -> Result<EndorsementFacts, Refused> {
    let named = read(bytes)?;
    if named.name != name {
        let reason = format!("it is {}, not {}", named.name, name.escape_default());
        return Err(malformed(WHAT, reason));
    }
    Ok(named.facts)
}

fn read(bytes: &[u8]) -> Result<Named, Refused> {
    let named = match bytes.trim_ascii_start() {
        [b'{', ..] => intel::read_signed_text(bytes)?,
        [b'-', ..] => snp::read_chain(bytes)?,
        // DER of a certificate or of a revocation list.
        [0x30, ..] => match snp::read_der(bytes)? {
            Some(named) => Some(named),
            None => intel::read_revocation_list(bytes)?,
        },
        _ => None,
    };
    named.ok_or_else(|| {
        malformed(
            WHAT,
            "it is none of AMD's chains, keys' certificates and revocation lists, nor of Intel's \
             TCB infos, QE identities and revocation lists",
        )
    })
}

#[cfg(test)]
mod tests;
